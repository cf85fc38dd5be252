"""The live table: one row for each instance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

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
_LEFT_OUT: Final = ("APP", "CERTIFICATE", "CONFIG", "P99", "REQ/S", "BREAKER", "ERRORS")
"""In this order, where there is no room."""
_GAP: Final = 2


class _Fitting:
    """The table, without the columns that a narrow terminal has no room for: what is left can be read."""

    def __init__(self, rows: Sequence[Sequence[Text]], title: str) -> None:
        self._rows = rows
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """See rich's protocol."""
        del console
        widths = [
            max([len(heading), *(row[index].cell_len for row in self._rows)])
            for index, heading in enumerate(_HEADINGS)
        ]
        shown = list(range(len(_HEADINGS)))
        for heading in _LEFT_OUT:
            if sum(widths[index] + _GAP for index in shown) <= options.max_width:
                break
            shown.remove(_HEADINGS.index(heading))
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            padding=(0, _GAP, 0, 0),
            title=self._title,
        )
        for index in shown:
            heading = _HEADINGS[index]
            numbers = heading in {"REQ/S", "ERRORS", "P99"}
            table.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
        for row in self._rows:
            table.add_row(*(row[index] for index in shown))
        yield table


def table_of(rows: Iterable[Row], title: str = "") -> RenderableType:
    """The rows as a table of rich's, which fits where it is put."""
    return _Fitting([_cells(row) for row in rows], title)


def _cells(row: Row) -> list[Text]:
    return [
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
    ]


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
