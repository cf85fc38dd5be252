"""`hms status` and `hms services`: the fleet as a table, and what is wrong with it."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hms_addons.operator_client.outcome import Outcome, when

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.clock import Clock
    from hms_addons.operator_client.client import OperatorClient

_COLOURS: Final = {
    "in sync": "green",
    "behind": "yellow",
    "ahead": "yellow",
    "refused": "red",
    "gone": "red",
}
_SHOWN_STATE: Final = {"refused": "NACK"}
"""Words of the table that are not the API's: the field's own for a refused configuration."""
_SHOWN_REASON: Final = 4
"""Lines of a refusal that the table's footer repeats."""
WIDTH: Final = 120
"""Columns where there is no terminal."""
UNKNOWN: Final = "?"
"""Shown for a number that is none."""
_LATEST: Final = 253402300799
"""Seconds since the epoch: the year 9999."""


async def status(client: OperatorClient, clock: Clock, *, width: int | None = None) -> Outcome:
    """How the fleet is; good if nothing is wrong with any sidecar or with the control plane.

    Args:
        client: asks.
        clock: tells how long certificates still last.
        width: of the terminal, in columns; None if there is none.

    Raises:
        OperatorError: it cannot be had.
    """
    document = (await client.ask("GET", "/v1/sidecars")).json()
    found = problems_of(document)
    text = rendered(document, clock.wall(), width)
    return Outcome(text, {"ok": not found, "wrong": found, **document}, not found)


def problems_of(document: Mapping[str, Any]) -> list[str]:
    """All that is wrong, one thing a line."""
    return [
        *document["problems"],
        *(
            f"{sidecar['service']}/{sidecar['id']}: {problem}"
            for sidecar in document["sidecars"]
            for problem in sidecar["problems"]
        ),
    ]


def rendered(document: Mapping[str, Any], now: float, width: int | None) -> str:
    """The table, then what is wrong, then one line that sums up."""
    out = StringIO()
    console = Console(
        file=out,
        width=width or WIDTH,
        force_terminal=width is not None,
        highlight=False,
        markup=False,
        soft_wrap=False,
    )
    if document["sidecars"]:
        console.print(_table(document, now))
    found = problems_of(document)
    for line in found:
        first, *rest = line.splitlines() or [""]
        console.print(Text("! ", style="red") + _plain(first), soft_wrap=True)
        for more in rest[:_SHOWN_REASON]:
            console.print(Text("    ") + _plain(more), soft_wrap=True)
        if len(rest) > _SHOWN_REASON:
            console.print(f"    … and {len(rest) - _SHOWN_REASON} lines more (--json has them all)")
    console.print(_summary(document, len(found)), soft_wrap=True)
    return out.getvalue()


def _table(document: Mapping[str, Any], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("SERVICE", "SIDECAR", "CONFIG", "CERTIFICATE", "ENDPOINTS", "BREAKERS", "SEEN"):
        table.add_column(heading, overflow="fold")
    for sidecar in document["sidecars"]:
        state = sidecar["state"]
        table.add_row(
            _plain(sidecar["service"]),
            _plain(sidecar["id"]),
            Text(
                f"{_count(sidecar.get('version'))} {_SHOWN_STATE.get(state, state)}",
                style=_COLOURS.get(state, ""),
            ),
            _certificate(sidecar.get("certificate"), now),
            _endpoints(sidecar.get("endpoints")),
            _plain(", ".join(sidecar["breakers_open"]) or "closed"),
            _plain(f"{_when(sidecar.get('seen'), now)} ago"),
        )
    return table


def _plain(text: str) -> Text:
    """What came from a sidecar, without what would move a terminal's cursor."""
    return Text("".join(c if c.isprintable() else "�" for c in text))


def _certificate(certificate: Mapping[str, Any] | None, now: float) -> Text:
    if certificate is None:
        return Text("none")
    not_after = certificate.get("not_after")
    told = _when(not_after, now)
    if not_after is None or told == UNKNOWN:
        return Text(UNKNOWN, style="yellow")
    return Text(f"{told} left") if not_after > now else Text(f"expired {told} ago", style="red")


def _when(timestamp: object, now: float) -> str:
    """How far from now; whatever an older control plane has let through is no reason to fail."""
    if isinstance(timestamp, int | float) and abs(timestamp) <= _LATEST:
        return when(timestamp, now)
    return UNKNOWN


def _endpoints(endpoints: Mapping[str, Any] | None) -> Text:
    if endpoints is None:
        return Text("-")
    usable, total = (_count(endpoints.get(name)) for name in ("usable", "total"))
    return Text(f"{usable}/{total}", style="" if usable == total else "yellow")


def _count(number: object) -> str:
    return str(number) if isinstance(number, int) and number in range(2**63) else UNKNOWN


def _summary(document: Mapping[str, Any], wrong: int) -> str:
    sidecars = document["sidecars"]
    count = len(sidecars)
    in_sync = sum(sidecar["state"] == "in sync" for sidecar in sidecars)
    version = document["config_version"]
    config = f"config version {version}" if version else "nothing pushed yet"
    fleet = f"{count} sidecar{'' if count == 1 else 's'}, {in_sync} in sync; {config}"
    if wrong:
        return f"wrong: {wrong} thing{'' if wrong == 1 else 's'}; {fleet}"
    return f"ok: {fleet}"


async def services(client: OperatorClient, *, width: int | None = None) -> Outcome:
    """What is registered.

    Raises:
        OperatorError: it cannot be had.
    """
    document = (await client.ask("GET", "/v1/services")).json()
    found = document["services"]
    if not found:
        return Outcome("no instance is registered: sidecars register when they are ready", document)
    out = StringIO()
    console = Console(
        file=out, width=width or WIDTH, force_terminal=width is not None, highlight=False
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("SERVICE", "INSTANCE", "ADDRESS", "VERSION", "WEIGHT", "ZONE", "METADATA"):
        table.add_column(heading, overflow="fold")
    for service in found:
        for instance in service["instances"]:
            table.add_row(
                _plain(service["name"]),
                _plain(instance["id"]),
                _plain(instance["address"]),
                _plain(instance["version"] or "-"),
                str(instance["weight"]),
                _plain(instance["zone"] or "-"),
                _plain(_metadata(instance["metadata"]) or "-"),
            )
    console.print(table)
    return Outcome(out.getvalue(), document)


def _metadata(metadata: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in metadata.items())
