"""Which sidecars there are, what each has, and what is wrong with it.

A sidecar reports on every change and every ten seconds; a report lives for `TTL`. Whoever falls silent
without a goodbye is *gone*, and remembered for a while, so that it does not vanish unnoticed; see `gone`.

A report is kept as `sidecars/<service>/<id>`, by the service that its sender has proved to be of: nobody
touches the rows of another service, whatever id he takes.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from hms_addons.control.gone import GoneSidecars, Sidecar
from hms_addons.control.leased import LeasedKeys
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from hms_addons.clock import Clock
    from hms_addons.control.configs import ConfigService
    from hms_addons.control.lineage import Lineage
    from hms_addons.control.mirror import Mirror
    from hms_addons.control.snapshots import ServiceSnapshot, Snapshots
    from hms_addons.control.store.protocol import Event, Store

logger = logging.getLogger(__name__)

PREFIX: Final = "sidecars/"
TTL: Final = 30.0
"""Seconds that a report lives: three of those that come every ten."""
MAX_SIDECARS: Final = 2000
"""Ids of one service that report: two generations of a thousand."""
MAX_VERSION: Final = 2**53
"""Far beyond what counting reaches; what is above was not handed out by us."""
NEAR_EXPIRY: Final = 0.25
"""Share of its life below which a certificate should long have been renewed (at half of it)."""

_NAMED: Final = 5
"""Services that one line names."""

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class FleetError(MeshError):
    """A report cannot be taken; the message says why."""


class Fleet:
    """The sidecars.

    Args:
        store: where their reports are kept.
        mirror: of that store; not yet started.
        snapshots: what they should have.
        configs: the configuration in force.
        lineage: what is ours; opened.
        clock: time.
    """

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        snapshots: Snapshots,
        configs: ConfigService,
        lineage: Lineage,
        clock: Clock,
    ) -> None:
        self._store = store
        self._keys = LeasedKeys(store)
        self._mirror = mirror
        self._snapshots = snapshots
        self._configs = configs
        self._lineage = lineage
        self._clock = clock
        self._sidecars: dict[str, Sidecar] = {}
        """By `<service>/<id>`."""
        self._taken: defaultdict[str, set[str]] = defaultdict(set)
        """By service the keys of its sidecars, and of those whose first report is being written."""
        self._gone = GoneSidecars(store, clock)
        self._warned = False
        """Of sidecars that are ahead; until none is."""
        mirror.read(PREFIX, self._apply)

    def __repr__(self) -> str:
        return f"<Fleet {len(self._sidecars)} sidecars, {len(self._gone)} gone>"

    async def start(self) -> None:
        """Read who was gone before; the mirror has been started.

        Raises:
            StoreError: it cannot be read.
        """
        await self._gone.start(self._sidecars)

    async def close(self) -> None:
        """Remember who is gone; follow no longer. Idempotent."""
        await self._gone.close()

    async def report(self, id_: str, service: str, report: Mapping[str, Any]) -> None:
        """Take a sidecar's report; the same as before only says that it is there.

        Args:
            id_: the sidecar's.
            service: the one it has proved to be of.
            report: as the API takes it.

        Raises:
            FleetError: it reports what cannot be, or its service has too many sidecars.
            StoreError: it could not be written.
        """
        for name in (id_, service):
            if not _ID.fullmatch(name):
                raise FleetError(f"{name!r} cannot be an id: use letters, digits, '.', '_' and '-'")
        if not 0 <= report["version"] <= MAX_VERSION:
            raise FleetError(f"{report['version']} is no version that was handed out")
        key = f"{service}/{id_}"
        taken = self._taken[service]
        if key not in taken and len(taken) >= MAX_SIDECARS:
            message = f"{len(taken)} sidecars of {service} report, and no more are listened to"
            raise FleetError(f"{message}: one that ends frees its place after {TTL:g} s at most")
        taken.add(key)
        try:
            await self._write(key, service, report)
        finally:
            if key not in self._sidecars:
                self._free(key)

    async def _write(self, key: str, service: str, report: Mapping[str, Any]) -> None:
        known = self._sidecars.get(key)
        kept = dict(report) | {"service": service}
        kept["certificate"] = self._certificate(kept.get("certificate"), known)
        value = json.dumps(kept, sort_keys=True).encode()
        revision = await self._keys.put(f"{PREFIX}{key}", value, TTL)
        if revision is not None:
            await self._mirror.reach(revision)
        if key in self._sidecars:
            self._sidecars[key] = Sidecar(self._sidecars[key].report, self._clock.wall())

    def _free(self, key: str) -> None:
        service = key.rpartition("/")[0]
        self._taken[service].discard(key)
        if not self._taken[service]:
            del self._taken[service]

    async def leave(self, id_: str, service: str) -> None:
        """An orderly goodbye: the sidecar is neither there nor gone.

        Raises:
            StoreError: it could not be written.
        """
        key = f"{service}/{id_}"
        if key not in self._sidecars and self._gone.get(key) is None:
            return
        self._sidecars.pop(key, None)
        self._free(key)
        self._gone.discard(key)
        revision = await self._keys.delete(f"{PREFIX}{key}")
        if revision is not None:
            await self._mirror.reach(revision)

    def status(self) -> dict[str, Any]:
        """Every sidecar, and all that is wrong, as JSON-ready types."""
        current = self._configs.current
        now = self._clock.wall()
        rows = [self._row(key, sidecar, now) for key, sidecar in self._sidecars.items()]
        rows += [_gone_row(key, sidecar) for key, sidecar in self._gone.items()]
        return {
            "config_version": 0 if current is None else current.version,
            "problems": list(self._problems(rows)),
            "sidecars": sorted(rows, key=lambda row: (row["service"], row["id"])),
        }

    def _problems(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        ahead = {row["service"] for row in rows if row["state"] == "ahead"}
        if ahead and not self._configs.decided:
            yield _ahead(ahead)
        if self._snapshots.trouble is not None:
            yield (
                "what has changed cannot be handed out, and sidecars keep what they have (the "
                f"control plane's log says more): {self._snapshots.trouble}"
            )
        if self._mirror.failure is not None:
            yield str(self._mirror.failure)
        if self._configs.trouble is not None:
            yield self._configs.trouble

    def _row(self, key: str, sidecar: Sidecar, now: float) -> dict[str, Any]:
        report = sidecar.report
        wanted = self._snapshots.get(report["service"])
        state = self._state(report, wanted)
        return _shown(key, sidecar) | {
            "state": state,
            "wanted": wanted.version,
            "problems": list(_problems_of(report, state, wanted.version, now)),
        }

    def _certificate(
        self, certificate: Mapping[str, Any] | None, known: Sidecar | None
    ) -> dict[str, Any] | None:
        """The certificate, and how long it had left when it was first reported."""
        if certificate is None:
            return None
        before = None if known is None else known.report.get("certificate")
        if before is not None and before["serial"] == certificate["serial"]:
            left = before["left"]
        else:
            left = max(0.0, certificate["not_after"] - self._clock.wall())
        return dict(certificate) | {"left": left}

    def _apply(self, events: Sequence[Event]) -> None:
        now = self._clock.wall()
        for event in events:
            key = event.key.removeprefix(PREFIX)
            service, _, id_ = key.rpartition("/")
            if not (service and id_):
                continue  # an older version's; whoever it is of reports again before it runs out
            if event.value is not None:
                self._sidecars[key] = Sidecar(json.loads(event.value), now)
                self._taken[service].add(key)
                self._gone.discard(key)
                continue
            self._keys.forget(event.key)
            known = self._sidecars.pop(key, None)
            if known is not None:
                self._free(key)
                self._gone.add(key, known)
        if self._configs.decided:
            return  # nobody is told to keep what he has any more
        ahead = {
            key.rpartition("/")[0]
            for key, sidecar in self._sidecars.items()
            if not self._is_ours(sidecar.report)
        }
        if ahead and not self._warned:
            logger.warning(_ahead(ahead))
        self._warned = bool(ahead)

    def _is_ours(self, report: Mapping[str, Any]) -> bool:
        return self._lineage.is_ours(report.get("history") or "", report["version"])

    def _state(self, report: Mapping[str, Any], wanted: ServiceSnapshot) -> str:
        if report["state"] == "nack":
            return "refused"
        if report["version"] and report["digest"] == wanted.digest:
            return "in sync"  # the version may be from before a restart of ours
        return "behind" if self._is_ours(report) else "ahead"


def _ahead(services: Collection[str]) -> str:
    more = len(services) - _NAMED
    named = ", ".join(sorted(services)[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"sidecars have configurations that this control plane knows nothing of (those of {named}): "
        "was a backup restored? They keep what they have until a configuration is pushed"
    )


def _problems_of(report: Mapping[str, Any], state: str, wanted: int, now: float) -> Iterator[str]:
    version = report["version"]
    if state == "refused":
        yield f"refuses version {version}: {report.get('reason') or 'without a reason'}"
    elif state == "behind":
        yield f"has version {version}, not {wanted}"
    elif state == "ahead":
        yield f"has version {version}, of which this control plane, at {wanted}, knows nothing"
    certificate = report.get("certificate")
    if certificate is not None:
        left = certificate["not_after"] - now
        if left <= 0:
            yield f"its certificate expired {-left:.0f} s ago: look for renewal errors in its log"
        elif left < certificate["left"] * NEAR_EXPIRY:
            yield f"its certificate expires in {left:.0f} s and has not been renewed"
    if not report.get("ready", True):
        yield "is not ready"
    endpoints = report.get("endpoints")
    if endpoints is not None and endpoints["total"] and not endpoints["usable"]:
        yield "can use none of its endpoints"
    for name in report.get("breakers_open") or ():
        yield f"the breaker of {name} is open"


def _shown(key: str, sidecar: Sidecar) -> dict[str, Any]:
    service, _, id_ = key.rpartition("/")
    report = sidecar.report
    certificate = report.get("certificate")
    return {
        "id": id_,
        "service": service,
        "version": report["version"],
        "reason": report.get("reason") or "",
        "ready": bool(report.get("ready", True)),
        "address": report.get("address") or "",
        "certificate": certificate and {key: certificate[key] for key in ("not_after", "serial")},
        "endpoints": report.get("endpoints"),
        "breakers_open": list(report.get("breakers_open") or ()),
        "hms_version": report.get("hms_version") or "",
        "seen": sidecar.seen,
    }


def _gone_row(key: str, sidecar: Sidecar) -> dict[str, Any]:
    message = "is gone: it has not reported, and did not say goodbye"
    certificate = sidecar.report.get("certificate")
    if certificate is not None and certificate["not_after"] <= sidecar.seen + TTL:
        # Then it could not report any more, whether it lives or not.
        message += " (its certificate had expired)"
    return _shown(key, sidecar) | {
        "state": "gone",
        "wanted": sidecar.report["version"],
        "ready": False,
        "problems": [message],
    }
