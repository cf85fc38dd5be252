"""Says once that the whole mesh is up: all instances are ready, and all sidecars know of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.up.keeper import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.clock import Clock
    from hms_addons.up.control_plane import ControlPlane
    from hms_addons.up.member import Member
    from hms_addons.up.report import Report

AGREE_TIME: Final = 15.0
"""Seconds that sidecars have to hear of each other; then it is said without that."""


class Announcement:
    """Made once for a run.

    Args:
        plane: knows who has heard of whom.
        report: where it is said.
        clock: time, injected.
    """

    def __init__(self, plane: ControlPlane, report: Report, clock: Clock) -> None:
        self._plane = plane
        self._report = report
        self._clock = clock
        self._said = False
        self._all_ready: float | None = None
        """When all instances were ready for the first time."""

    async def consider(self, members: Sequence[Member]) -> None:
        """Say it, if it is so and was not said."""
        if self._said or not all(member.keeper.state is State.READY for member in members):
            return
        now = self._clock.monotonic()
        if self._all_ready is None:
            self._all_ready = now
        inside = [member for member in members if not member.instance.alone]
        listening = sum(member.instance.listens for member in inside)
        agreed = await self._plane.agrees(len(inside), listening)
        if not agreed and now - self._all_ready < AGREE_TIME:
            return
        self._said = True
        entries = [member for member in members if member.instance.outbound is not None]
        where = [f"calls: {member.url} (as {member.instance.service})" for member in entries]
        apps = [f"{member.instance.name}: {member.address}" for member in members]
        self._report.say(
            "\n".join([f"all {len(members)} instances are ready", *where, *apps]),
            event="up",
            instances=[member.document() for member in members],
        )
