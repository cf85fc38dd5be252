"""Configuration from a control plane: the first snapshot, then each change, as `FileSource` for files.

    long poll ──▶ PushedSnapshot ─┐
    state folder (last good) ─────┼─▶ load (local files over it, then the command line) ──▶ Snapshot
    local files, when they change ┘

- A version below the one in force is never taken: a control plane that comes back older, from a
  backup or empty, is noticed and waited out.
- A version that cannot be used is refused once, with the reason; the old one goes on.
- What was taken is kept in the state folder, and a sidecar starts from it when nobody answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from hms_addons.config.last_good import LastGood
from hms_addons.config.load import PUSHED, load
from hms_addons.config.poll_pace import PollPace
from hms_addons.config.problems import ConfigProblems
from hms_addons.config.source import WatchedFiles
from hms_addons.config.standard_listeners import StandardListeners
from hms_addons.control_client.failures import ControlError, ControlHoldsError, ControlRefusedError
from hms_addons.errors import ConfigError, MeshError
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from random import Random

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.control_client.pushed import PushedSnapshot
    from hms_addons.state_folder import StateFolder

logger = logging.getLogger(__name__)

WAIT: Final = 30.0
"""Seconds that a long poll waits for a change."""
_LARGE: Final = 64
"""Listeners and clusters; more are compiled in a thread, so that requests need not wait."""


class Feed(Protocol):
    """Where snapshots come from: `control_client.ControlClient`."""

    @property
    def where(self) -> str:
        """Its address, for people."""

    async def snapshot(self, known: str | None, wait: float) -> PushedSnapshot | None:
        """The newest, if it is another than `known`; raises `ControlError`."""


class Candidate(NamedTuple):
    """A snapshot that may be put in force, and what it was made from."""

    snapshot: Snapshot
    pushed: PushedSnapshot


class Refused(NamedTuple):
    """A version that could not be used."""

    pushed: PushedSnapshot
    reason: str


class ControlSource:
    """What a control plane says, with local files and the command line over it.

    Args:
        feed: the control plane.
        state: keeps the last good snapshot.
        service: whose sidecar it is.
        clock, rng: time, and jitter of reconnects.
        files: local configuration files, merged over what the control plane says.
        standard: what the command line says of listeners.
        extra: see `FileSource`.

    Attributes:
        in_force: what was taken last.
        refused: what could not be used, if that came later.
        trouble: why the control plane is not in reach, or not followed; None while it is.
        on_change: called whenever one of these has changed.
    """

    def __init__(
        self,
        feed: Feed,
        state: StateFolder,
        service: str,
        clock: Clock,
        rng: Random,
        *,
        files: Sequence[Path] = (),
        standard: StandardListeners = StandardListeners(),  # noqa: B008 - immutable
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._feed = feed
        self._last_good = LastGood(state, service, clock)
        self._service = service
        self._clock = clock
        self._pace = PollPace(clock, rng)
        self._files = WatchedFiles(files, clock)
        self._contents: list[tuple[str, bytes]] = []
        self._standard = standard
        self._extra = extra
        self._known: str | None = None
        """ETag of the snapshot seen last, whatever came of it."""
        self._latest: PushedSnapshot | None = None
        """The newest that was tried."""
        self._older_tag: str | None = None
        """ETag of a snapshot that is older than the one in force."""
        self._away = False
        """The last question was in vain."""
        self._lock = asyncio.Lock()
        self.in_force: PushedSnapshot | None = None
        self.refused: Refused | None = None
        self.trouble: str | None = None
        self.on_change: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        version = self.in_force.name if self.in_force is not None else None
        return f"<ControlSource {self.name} version={version} trouble={self.trouble!r}>"

    @property
    def name(self) -> str:
        """The control plane, and the local files over it, for people."""
        return ", ".join([f"control plane {self._feed.where}", *map(str, self._files.paths)])

    def status(self) -> dict[str, Any]:
        """In step or not, as JSON-ready types."""
        refused = self.refused
        return {
            "address": self._feed.where,
            "in_sync": self.trouble is None and refused is None,
            "version": self.in_force.version if self.in_force is not None else None,
            "digest": self.in_force.digest if self.in_force is not None else None,
            "refused": None
            if refused is None
            else {"version": refused.pushed.version, "reason": refused.reason},
            "problem": self.trouble,
        }

    # -- the first ------------------------------------------------------------------------------

    async def load(self) -> list[Candidate]:
        """What to start with: the control plane's, and after it the last good one.

        Waits until there is something: a sidecar that has kept nothing waits for its control plane.

        Raises:
            ConfigProblems: the local files cannot be read.
        """
        self._contents = self._files.read()
        kept = self._last_good.read()
        wait = WAIT
        if kept is not None:
            self._known, wait = kept.etag, 0.0
        while True:
            failure, pushed = None, None
            try:
                pushed = await self._feed.snapshot(self._known, wait)
                self._reached()
            except ControlHoldsError as error:
                self._held(str(error))
            except ControlError as error:
                failure = error
                self._lost(error)
            found = [] if pushed is None else self._first(pushed, kept)
            if kept is not None:
                found += self._usable(kept)
            if found:
                return found
            wait = WAIT
            await self._pace.after_failure(failure)

    def _first(self, pushed: PushedSnapshot, kept: PushedSnapshot | None) -> list[Candidate]:
        self._known = pushed.etag
        if kept is not None and pushed.is_older_than(kept):
            self._older(pushed, kept)
            return []
        return self._usable(pushed) if kept is None or pushed.name != kept.name else []

    def _usable(self, pushed: PushedSnapshot) -> list[Candidate]:
        try:
            return [self._made(pushed)]
        except ConfigError as error:
            self.reject(pushed, str(error))
            logger.error("version %s cannot be used:\n%s", pushed.name, error)  # noqa: TRY400 - no fault of ours
            return []

    def heard(self) -> None:
        """Something else has reached the control plane: if we wait for it to come back, ask now."""
        self._pace.heard()

    def close(self) -> None:
        """Keep the last good snapshot, if that is still to be done; call it when `watch` has ended."""
        self._last_good.flush()

    # -- the transaction's two ends -------------------------------------------------------------

    def accept(self, pushed: PushedSnapshot) -> None:
        """`pushed` is in force now."""
        self.in_force = self._latest = pushed
        if self.refused is not None and not pushed.is_older_than(self.refused.pushed):
            self.refused = None
        self._last_good.keep(pushed)
        self.on_change()

    def reject(self, pushed: PushedSnapshot, reason: str) -> None:
        """`pushed` cannot be used."""
        self._latest = pushed
        self.refused = Refused(pushed, reason)
        self.on_change()

    # -- every later one ------------------------------------------------------------------------

    async def watch(
        self,
        on_snapshot: Callable[[Snapshot], Awaitable[None]],
        on_refused: Callable[[str], object],
    ) -> None:
        """Follow the control plane, and the local files, until cancelled; see `FileSource.watch`."""
        tasks = TaskSet("control source")
        tasks.start(self._last_good.run(), "last good")
        if self._files.paths:
            tasks.start(self._watch_files(on_snapshot, on_refused), "local files")
        try:
            while True:
                await self._poll(on_snapshot, on_refused)
        finally:
            await tasks.close()

    async def _poll(
        self,
        on_snapshot: Callable[[Snapshot], Awaitable[None]],
        on_refused: Callable[[str], object],
    ) -> None:
        asked = self._clock.monotonic()
        away = self._away
        try:
            # One that comes back is asked without a wait: to know, and to tell, that it is there.
            pushed = await self._feed.snapshot(self._known, 0.0 if away else WAIT)
        except ControlHoldsError as error:
            self._away = False
            self._held(str(error))
            await self._pace.after_nothing(asked)
            return
        except ControlError as error:
            self._lost(error)
            await self._pace.after_failure(error)
            return
        self._away = False
        repeated = pushed is None or pushed.etag == self._known
        if pushed is not None:
            self._known = pushed.etag
        current = self.in_force
        if pushed is not None and current is not None and pushed.is_older_than(current):
            self._older(pushed, current)
        else:
            if self._known != self._older_tag:
                self._reached()
            if pushed is not None and not repeated:
                began = self._clock.monotonic()
                await self._try(pushed, on_snapshot, on_refused)
                cost = self._clock.monotonic() - began
                await self._pace.after_change(cost)
                return
        # Whoever answers at once that there is nothing to take is not asked at once again.
        if not away:
            await self._pace.after_nothing(asked)

    async def _try(
        self,
        pushed: PushedSnapshot,
        on_snapshot: Callable[[Snapshot], Awaitable[None]],
        on_refused: Callable[[str], object],
    ) -> bool:
        """Put it in force, if it will do."""
        async with self._lock:
            try:
                size = sum(
                    len(part)
                    for key in ("listeners", "clusters")
                    if isinstance(part := pushed.document.get(key), list)
                )
                if size > _LARGE or self._contents:
                    made = await asyncio.to_thread(self._made, pushed)
                else:
                    made = self._made(pushed)
            except ConfigError as error:
                self.reject(pushed, str(error))
                on_refused(str(error))
                return False
            try:
                await on_snapshot(made.snapshot)
            except MeshError as error:
                self.reject(pushed, str(error))
                return False
            self.accept(pushed)
            return True

    async def _watch_files(
        self,
        on_snapshot: Callable[[Snapshot], Awaitable[None]],
        on_refused: Callable[[str], object],
    ) -> None:
        while True:
            try:
                contents = await self._files.change()
            except ConfigProblems as error:
                on_refused(str(error))
                continue
            before, self._contents = self._contents, contents
            if self._latest is None or await self._try(self._latest, on_snapshot, on_refused):
                continue
            # What the control plane sends next goes under the files that were good.
            self._contents = before
            self._files.forget()

    def _made(self, pushed: PushedSnapshot) -> Candidate:
        """The snapshot.

        Raises:
            ConfigError: there is none; the message holds every problem.
        """
        try:
            loaded = load(
                self._contents,
                source=self.name,
                service=self._service,
                extra=self._extra,
                base=pushed.document,
                finish=self._standard.finish,
                control=True,
            )
        except RecursionError as error:
            message = "it is nested too deeply"
            raise ConfigError(message) from error
        if loaded.snapshot is None:
            raise ConfigProblems(loaded.problems)
        for problem in loaded.problems:
            if problem.file != PUSHED:  # of those the operator was told
                logger.warning("%s", problem)
        version = pushed.name
        if self._contents:
            local = hashlib.sha256(b"\0".join(content for _, content in self._contents))
            version = f"{version}+{local.hexdigest()[:6]}"
        return Candidate(replace(loaded.snapshot, version=version), pushed)

    # -- what became of the control plane -------------------------------------------------------

    def _lost(self, error: ControlError) -> None:
        self._away = True
        refused = isinstance(error, ControlRefusedError) and self.trouble != str(error)
        if self.trouble is None or refused:
            goes_on = "the configuration in force goes on" if self.in_force else "waiting for it"
            logger.warning("no contact with the control plane: %s; %s", error, goes_on)
        self._set_trouble(str(error))

    def _older(self, pushed: PushedSnapshot, current: PushedSnapshot) -> None:
        self._older_tag = pushed.etag
        self._held(
            f"the control plane at {self._feed.where} has sent version {pushed.version}, older than "
            f"{current.version}, which goes on"
        )

    def _held(self, message: str) -> None:
        """The control plane is there, and has nothing that may replace what is in force."""
        if self.trouble != message:
            logger.warning("%s", message)
        self._set_trouble(message)
        self._pace.reached()

    def _reached(self) -> None:
        if self.trouble is not None:
            logger.info("in step with the control plane at %s again", self._feed.where)
        self._set_trouble(None)
        self._pace.reached()

    def _set_trouble(self, trouble: str | None) -> None:
        if self.trouble != trouble:
            self.trouble = trouble
            self.on_change()
