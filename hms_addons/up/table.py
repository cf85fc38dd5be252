"""The live table: one row for each instance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.up.stats import Row

_COLOURS: Final = {
    "ready": "green",
    "starting": "yellow",
    "unhealthy": "red",
    "waiting": "red",
    "stopping": "yellow",
    "stopped": "dim",
}
NONE: Final = "-"
_HEADINGS: Final = "INSTANCE STATE REQ/S ERRORS P99 BREAKER CERTIFICATE CONFIG APP".split()


def table_of(rows: Iterable[Row], title: str = "") -> Table:
    """The rows as a table of rich's."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), title=title)
    for heading in _HEADINGS:
        numbers = heading in {"REQ/S", "ERRORS", "P99"}
        table.add_column(
            heading,
            justify="right" if numbers else "left",
            no_wrap=True,
            min_width=None if heading == "APP" else len(heading),
        )
    for row in rows:
        table.add_row(
            Text(row.name),
            Text(row.state, style=_COLOURS.get(row.state, "")),
            Text(NONE if row.rate is None else f"{row.rate:.1f}"),
            _errors(row),
            Text(_seconds(row.p99)),
            Text(f"open: {', '.join(row.breakers)}", style="red")
            if row.breakers
            else Text(NONE if not row.certificate else "closed"),
            Text(row.certificate or NONE, style="red" if row.certificate.startswith("exp") else ""),
            Text(row.sync or NONE, style="" if row.sync in {"", "in sync"} else "red"),
            Text(row.address),
        )
    return table


def _errors(row: Row) -> Text:
    if row.errors is None:
        return Text(NONE)
    return Text(f"{row.errors:.1%}", style="red" if row.errors else "")


def _seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if math.isinf(value):
        return "> 10 s"
    return f"≤ {value * 1000:g} ms" if value < 1 else f"≤ {value:g} s"
