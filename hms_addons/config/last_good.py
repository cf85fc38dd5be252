"""The last snapshot of the control plane that was put in force, kept for a start without it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

from hms_addons.control_client.failures import ControlAnswerError
from hms_addons.control_client.pushed import PushedSnapshot
from hms_addons.state_folder import StateError

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.state_folder import StateFolder

logger = logging.getLogger(__name__)

KEEP_INTERVAL: Final = 1.0
"""Seconds between two writes, however often the configuration changes."""
SNAPSHOT_FILE: Final = "snapshot.json"


class LastGood:
    """One file of a state folder.

    Args:
        state: the folder.
        service: whose snapshots they are.
        clock: time.
    """

    def __init__(self, state: StateFolder, service: str, clock: Clock) -> None:
        self._state = state
        self._service = service
        self._clock = clock
        self._unwritten: PushedSnapshot | None = None
        self._due = asyncio.Event()

    def __repr__(self) -> str:
        waiting = self._unwritten.name if self._unwritten is not None else None
        return f"<LastGood {self._state.path} unwritten={waiting}>"

    def read(self) -> PushedSnapshot | None:
        """What was kept; a file that cannot be used is set aside, and said to be."""
        content = self._state.read(SNAPSHOT_FILE)
        if content is None:
            return None
        try:
            return PushedSnapshot.read(json.loads(content), self._service, "the state folder")
        except (ValueError, RecursionError, ControlAnswerError) as error:
            self._state.set_aside(SNAPSHOT_FILE, f"cannot be used: {error}")
            return None

    def keep(self, pushed: PushedSnapshot) -> None:
        """Have `run` write it, in place of what was kept before."""
        self._unwritten = pushed
        self._due.set()

    async def run(self) -> None:
        """Write what is to be kept, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            if (pushed := self._unwritten) is not None:
                await asyncio.to_thread(self._write, pushed)
                if self._unwritten is pushed:  # else there is a newer one by now
                    self._unwritten = None
            await self._clock.sleep(KEEP_INTERVAL)

    def flush(self) -> None:
        """Write what `run` has not written yet, now."""
        pushed, self._unwritten = self._unwritten, None
        if pushed is not None:
            self._write(pushed)

    def _write(self, pushed: PushedSnapshot) -> None:
        """To have failed is said, and tried again with the next change."""
        try:
            self._state.write(SNAPSHOT_FILE, pushed.to_json(self._service))
        except StateError as error:
            logger.warning("a restart would need the control plane: %s", error)
