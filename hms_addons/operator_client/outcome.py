"""What a command has found out: for a person, for a script, and whether it is good."""

from __future__ import annotations

from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What to print, and whether the exit code is 0."""

    text: str
    document: Any
    """JSON-ready."""
    ok: bool = True


def when(timestamp: float, now: float) -> str:
    """How long ago, or how long from now, something is: `3 min`."""
    seconds = abs(timestamp - now)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
