"""Ends a mesh that runs, from outside."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.errors import MeshError
from hms_addons.up.machine import end_marked, send
from hms_addons.up.run_state import RunState

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.clock import Clock

LIMIT: Final = 180.0
"""Seconds until nobody waits any longer: two waves of sidecars and the control plane."""


async def bring_down(file: Path, *, kill: bool = False, clock: Clock = SYSTEM_CLOCK) -> str:
    """End what `hms up` runs for `file`, and what an earlier one has left. Returns what was done.

    The process is the one that holds the folder's lock, so no stranger is ever sent a signal.

    Raises:
        MeshError: it does not end.
    """
    state = RunState(file)
    pid = state.pid()
    if pid is None:
        left = await end_marked(state.folder, None, clock)
        done = f"ended {left} processes that an earlier `hms up` has left behind"
        return done if left else f"{file} is not up"
    send([pid], signal.SIGTERM)
    until = clock.monotonic() + LIMIT
    while state.pid() == pid:
        if kill:
            send([pid], signal.SIGINT)  # which hurries it, as a second Ctrl-C does
        if clock.monotonic() > until:
            raise MeshError(f"process {pid} has not ended in {LIMIT:g} s; --kill is quicker")
        await clock.sleep(0.2)
    await end_marked(state.folder, None, clock)
    return f"{file} is down"
