"""Plain data as text that a person can read: aligned columns, and one-line summaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as aligned columns; columns in which nothing stands are left out."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = {key: [_cell(row.get(key)) for row in rows] for key in keys}
    keys = [key for key in keys if any(cells[key])]
    heads = {key: key.strip().replace("_", " ").upper() for key in keys}
    widths = {key: max(map(len, (heads[key], *cells[key]))) for key in keys}
    lines = [heads] if any(heads.values()) else []
    lines += [{key: cells[key][index] for key in keys} for index in range(len(rows))]
    return "\n".join(
        "  ".join(line[key].ljust(widths[key]) for key in keys).rstrip() for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return flat(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value)


def flat(values: Mapping[str, Any]) -> str:
    """Names and values in one line; those without a value are left out."""
    return ", ".join(_pairs(values))


def _pairs(values: Mapping[str, Any]) -> Iterable[str]:
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            if not value:
                continue
            if value.keys() == {"in_use", "max"}:
                yield f"{name} {value['in_use']}/{value['max']}"
            else:
                yield f"{name} ({flat(value)})"
        elif value is not None:
            yield f"{name} {_cell(value)}"


def indent(text: str) -> str:
    """Every line, two spaces further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())
