"""What a person has changed on this one sidecar, for a while: breakers that are open, shares that were moved.

Breakers close again by themselves. Shares last until the next configuration comes, from wherever; that they
are gone is said then.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.hand_weights import splits, with_share
from hms_addons.config.problems import closest
from hms_addons.errors import ConfigError

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.sidecar import Sidecar

logger = logging.getLogger(__name__)

LONGEST: Final = 3600.0
"""Seconds for which a breaker may be opened by hand: who forgets it does no lasting harm."""


class ByHand:
    """Those changes.

    Args:
        sidecar: what is changed.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._mine: Snapshot | None = None
        self._shares: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<ByHand shares={list(self._shares.values())}>"

    def describe(self) -> dict[str, Any]:
        """All of them, as JSON-ready types, for `/config`."""
        return {
            "shares": list(self._shares.values()),
            "open_breakers": [
                f"{cluster['name']} {endpoint['address']}"
                for cluster in self._sidecar.clusters()
                for endpoint in cluster["endpoints"]
                if endpoint.get("by_hand")
            ],
        }

    # -- breakers -------------------------------------------------------------------------------

    def open(self, cluster: str, address: str | None, seconds: float) -> list[str]:
        """Open the breaker of one endpoint, or of all of a cluster; their addresses.

        Raises:
            ConfigError: it is not there, or so long is too long.
        """
        if not 0 < seconds <= LONGEST:
            raise ConfigError(f"{seconds:g}s: give more than 0, and at most {LONGEST / 3600:g}h")
        found = self._sidecar.upstream.get(cluster)
        if found is None:
            raise ConfigError(f"the configuration in force has no cluster {cluster!r}")
        opened = found.open_by_hand(address, seconds)
        if not opened:
            what = "no endpoints" if address is None else f"no endpoint {address} any more"
            raise ConfigError(f"cluster {cluster} has {what}: see /clusters")
        return opened

    def mend(self, cluster: str) -> list[str]:
        """Close what was opened by hand: of one cluster, or of all for "".

        Raises:
            ConfigError: there is no such cluster, or nothing of it is open by hand.
        """
        names = [spec["name"] for spec in self._sidecar.clusters()]
        if cluster and cluster not in names:
            guess = closest(cluster, names)
            raise ConfigError(
                f"there is no cluster {cluster!r}"
                + (f" (did you mean {guess}?)" if guess else f"; there are: {', '.join(names)}")
            )
        mended = []
        for name in [cluster] if cluster else names:
            if (found := self._sidecar.upstream.get(name)) is not None:
                mended += [f"{name} {address}" for address in found.mend()]
        if not mended:
            raise ConfigError(f"nothing{f' of {cluster}' if cluster else ''} is open by hand")
        return mended

    # -- shares ---------------------------------------------------------------------------------

    @property
    def splits(self) -> dict[str, list[str]]:
        """What has shares that can be moved."""
        snapshot = self._sidecar.snapshot
        return {} if snapshot is None else splits(snapshot)

    def share(self, where: str, subset: str, percent: int) -> None:
        """Have `percent` of what `where` gets go to `subset`, until the next configuration.

        Raises:
            MeshError: see `with_share`; or a plugin refuses it.
        """
        snapshot = self._sidecar.snapshot
        if snapshot is None:
            raise ConfigError("there is no configuration yet")
        moved = with_share(snapshot, where, subset, percent)
        before = self._mine
        self._mine = moved
        try:
            self._sidecar.apply_now(moved)
        except BaseException:
            self._mine = before
            raise
        self._mine = self._sidecar.snapshot
        self._shares[f"{where} {subset}"] = f"{subset} {percent}% of {where}"

    def applied(self) -> None:
        """A configuration has been put in force: if it is not ours, our shares are gone."""
        mine, now = self._mine, self._sidecar.snapshot
        if mine is None or now is None or (now.version, now.source) == (mine.version, mine.source):
            return
        logger.warning(
            "configuration %s is in force, and the shares that were moved by hand are gone: %s",
            now.version,
            ", ".join(self._shares.values()),
        )
        self._mine = None
        self._shares.clear()
