"""What each service's sidecars are sent, made once a change, and who waits for it.

```
 store ──▶ Mirror ──▶ ConfigService, Registry
                │
                └──▶ Snapshots ──one document a service──▶ everyone who waits for that service
```

A change is worked out once for what all services share and once for each service that somebody has
asked for, however many sidecars wait. Changes that come in quick succession are worked out together:
the first at once, the following at most every `PAUSE`.

A snapshot's version is the store's revision at which its content last changed. So versions grow, also
over a restart, where they begin with the store's revision: none that was handed out was above that.
Whether a sidecar has what there is, is decided by the digest alone. What a restored backup knows
nothing of is *held*: not replaced before a configuration is pushed; see `lineage`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import within
from hms_addons.control.completion import as_json, joined, own_part, shared_part
from hms_addons.control.configs import CURRENT, document_of
from hms_addons.control.registry import PREFIX as SERVICES
from hms_addons.control.store.protocol import StoreClosedError
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.control.configs import ConfigService
    from hms_addons.control.lineage import Lineage
    from hms_addons.control.mirror import Mirror
    from hms_addons.control.registry import Registry

logger = logging.getLogger(__name__)

PAUSE: Final = 0.1
"""Seconds between two publications, at least."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts, at most, and between lines of the log, while a change cannot be handed out."""
DIGEST_LENGTH: Final = 12
"""Hex digits."""
_TURN: Final = 50
"""Services worked out before others get a turn of the event loop."""

_ETAG: Final = re.compile(
    r'\s*(?:W/)?"([0-9]{1,20})\.([0-9a-f]{1,64})(?:\.([0-9a-f]{1,16}))?"\s*', re.ASCII
)
MAX_SERVICES: Final = 20_000
"""Services whose snapshots are kept; past it those that nobody waits for are worked out again."""


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """What the sidecars of one service are sent."""

    version: int
    digest: str
    service: str
    trust_domain: str
    config_version: int
    """Of the pushed configuration that it was made from; 0: none was pushed."""
    history: str
    """The control plane's run; see `lineage`."""
    own: bytes = field(repr=False)
    shared: bytes = field(repr=False)

    @property
    def etag(self) -> str:
        """For `ETag`, quotes included."""
        return f'"{self.version}.{self.digest}.{self.history}"'

    @property
    def body(self) -> bytes:
        """The JSON that is sent; made anew each time, for it is large and there are many."""
        head = as_json(
            {
                "version": self.version,
                "digest": self.digest,
                "service": self.service,
                "trust_domain": self.trust_domain,
                "config_version": self.config_version,
                "history": self.history,
            }
        )
        return b'%b,"document":%b}' % (head[:-1], joined(self.own, self.shared))


class Has(NamedTuple):
    """What a sidecar says that it has, by the ETag."""

    version: int
    digest: str
    history: str


@dataclass(slots=True, eq=False)
class _Slot:
    """One service's snapshot, and who waits for another one."""

    service: str
    snapshot: ServiceSnapshot | None = None
    generation: int = -1
    """The published state that the snapshot was last compared with."""
    own: bytes = b""
    own_version: int = -1
    """The configuration that `own` was made from."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waiters: int = 0

    def wake(self) -> None:
        """Let those who wait look again."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True, slots=True)
class _Published:
    """What all snapshots of one moment are made from."""

    generation: int
    revision: int
    config_version: int
    config: dict[str, Any]
    shared: bytes


class Snapshots:
    """Every service's snapshot.

    Args:
        mirror: of the store; not yet started.
        configs: the configuration in force; made before this.
        registry: the instances; made before this.
        lineage: what is ours; opened.
        clock: time between publications.
        trust_domain: this control plane's.

    Attributes:
        computed: how many documents have been worked out.
        trouble: why what has changed cannot be handed out; None: it can.
    """

    def __init__(
        self,
        mirror: Mirror,
        configs: ConfigService,
        registry: Registry,
        lineage: Lineage,
        clock: Clock,
        trust_domain: str,
    ) -> None:
        self._mirror = mirror
        self._configs = configs
        self._registry = registry
        self._lineage = lineage
        self._clock = clock
        self._trust_domain = trust_domain
        self._slots: dict[str, _Slot] = {}
        self._published = _Published(0, 0, 0, {}, b"{}")
        self._hash = hashlib.sha256()
        self._dirty = asyncio.Event()
        self._tasks = TaskSet("snapshots")
        self._released = False
        """Nothing is held any more, and those who waited know."""
        self.computed = 0
        self.trouble: str | None = None
        self._failures = 0
        """Attempts that were logged since the last that went well."""
        self._again_at = 0.0
        """When the next attempt is due, and may be logged, if the last one failed."""
        configs.on_decided = self._dirty.set
        for prefix in (CURRENT, SERVICES):
            mirror.read(prefix, lambda _: self._dirty.set())

    def __repr__(self) -> str:
        waiting = sum(slot.waiters for slot in self._slots.values())
        now = self._published
        return f"<Snapshots {len(self._slots)} services, {waiting} waiting, at {now.revision}>"

    async def start(self) -> None:
        """Work out what there is, and follow what changes; the mirror has been started.

        Raises:
            StoreError: the configuration in force cannot be read.
        """
        await self._publish()
        self._tasks.start(self._run(), "publish")

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        await self._tasks.close()

    def get(self, service: str) -> ServiceSnapshot:
        """The snapshot of `service` now."""
        return self._refresh(self._slot(service))

    async def wait(self, service: str, etag: str | None) -> ServiceSnapshot:
        """The snapshot of `service`, as soon as there is something to send.

        Args:
            service: whose.
            etag: of the one that the caller has; None, or what is no etag: it has none.
        """
        slot = self._slot(service)
        while (snapshot := self.news(service, etag)) is None:
            slot.waiters += 1
            try:
                await slot.changed.wait()
            finally:
                slot.waiters -= 1
        return snapshot

    def news(self, service: str, etag: str | None) -> ServiceSnapshot | None:
        """The snapshot of `service` if it is to be sent to whoever has `etag`; see `wait`."""
        snapshot, has = self.get(service), _parsed(etag)
        if has is None or (has.digest != snapshot.digest and not self._held(has)):
            return snapshot
        return None

    def holds(self, service: str, etag: str | None) -> bool:
        """Whether the caller is to keep what it has, though it is not what there is for it here."""
        has = _parsed(etag)
        return has is not None and has.digest != self.get(service).digest and self._held(has)

    def _held(self, has: Has) -> bool:
        return not self._configs.decided and not self._lineage.is_ours(has.history, has.version)

    def _slot(self, service: str) -> _Slot:
        slot = self._slots.get(service)
        if slot is None:
            if len(self._slots) >= MAX_SERVICES:
                self._slots = {name: s for name, s in self._slots.items() if s.waiters}
            slot = self._slots[service] = _Slot(service)
        return slot

    def _refresh(self, slot: _Slot) -> ServiceSnapshot:
        """The slot's snapshot of what is published now; worked out if it is of something older."""
        now = self._published
        old = slot.snapshot
        if old is not None and slot.generation == now.generation:
            return old
        slot.generation = now.generation
        if slot.own_version != now.config_version:
            slot.own = as_json(own_part(now.config, slot.service, self._trust_domain))
            slot.own_version = now.config_version
        self.computed += 1
        whole = self._hash.copy()
        whole.update(slot.own)
        digest = whole.hexdigest()[:DIGEST_LENGTH]
        if old is not None and old.digest == digest:
            return old
        slot.snapshot = ServiceSnapshot(
            version=now.revision,
            digest=digest,
            service=slot.service,
            trust_domain=self._trust_domain,
            config_version=now.config_version,
            history=self._lineage.run,
            own=slot.own,
            shared=now.shared,
        )
        slot.wake()
        return slot.snapshot

    async def _run(self) -> None:
        while True:
            await self._due()
            try:
                await self._publish()
            except StoreClosedError:
                return
            except Exception as error:  # noqa: BLE001 - logged there
                # Whatever it was, what is handed out stays, and the next change may be better.
                self._failed(error)
            else:
                self._succeeded()
            await self._clock.sleep(PAUSE)

    async def _due(self) -> None:
        """Wait for a change; after a failure until the next attempt at the latest."""
        if self.trouble is None:
            await self._dirty.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with within(self._clock, self._again_at - self._clock.monotonic()):
                await self._dirty.wait()

    def _failed(self, error: Exception) -> None:
        self.trouble = str(error) or type(error).__name__
        now = self._clock.monotonic()
        if self._failures and now < self._again_at:
            return  # a further change has led to a further attempt: it is the same trouble
        pause = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._again_at = now + pause
        logger.error(
            "what has changed cannot be handed out; trying again, next in %.1f s",
            pause,
            exc_info=error,
        )

    def _succeeded(self) -> None:
        if self.trouble is not None:
            logger.info("what has changed is handed out again")
        self.trouble, self._failures = None, 0

    async def _publish(self) -> None:
        self._dirty.clear()
        config_version, config = await self._config()
        # From here on nothing awaits: all is of one revision of the store.
        shared = as_json(shared_part(config, self._registry.services()))
        self._hash = hashlib.sha256(shared)
        self._published = _Published(
            generation=self._published.generation + 1,
            revision=self._mirror.revision,
            config_version=config_version,
            config=config,
            shared=shared,
        )
        for count, slot in enumerate([slot for slot in self._slots.values() if slot.waiters], 1):
            self._refresh(slot)
            if count % _TURN == 0:
                await asyncio.sleep(0)
        if self._configs.decided and not self._released:
            self._released = True
            for slot in self._slots.values():
                slot.wake()

    async def _config(self) -> tuple[int, dict[str, Any]]:
        """Number and content of the configuration in force, as plain data."""
        version, config = self._published.config_version, self._published.config
        while (current := self._configs.current) is not None and current.version != version:
            files = (await self._configs.version(current.version)).files
            config = await asyncio.to_thread(document_of, files)
            version = current.version
        return version, config


def _parsed(etag: str | None) -> Has | None:
    found = None if etag is None else _ETAG.fullmatch(etag)
    return None if found is None else Has(int(found[1]), found[2], found[3] or "")
