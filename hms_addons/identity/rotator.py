"""Renewal on schedule: when to fetch a new SVID, and what to do when that fails.

Refreshed every hour or at half of its life, whichever is sooner, ± 1% so that a fleet started
together does not come together (Istio's and ztunnel's practice). If a fetch fails, the old SVID
serves until it expires, and the next try comes after a doubling pause of at most 150 seconds.
Where the material comes from is the `SecretSource`'s business.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from hms_addons.identity.identity_holder import SecretError
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    import random

    from hms_addons.clock import Clock
    from hms_addons.identity.identity_holder import Identity, IdentityHolder, SecretMaterial
    from hms_addons.identity.svid import Svid

logger = logging.getLogger(__name__)

REFRESH_INTERVAL: Final = 3600.0
"""Seconds after which even a long-lived SVID is renewed."""

JITTER: Final = 0.01
"""Share of a delay by which it is shortened or lengthened at random."""

FIRST_BACKOFF: Final = 1.0
MAX_BACKOFF: Final = 150.0


class SecretSource(Protocol):
    """Where material comes from, e.g. a control plane that signs the CSR of a fresh key."""

    async def fetch(self) -> SecretMaterial:
        """Obtain new material now.

        Raises:
            SecretError: it cannot be had; the message says where and why.
        """


def refresh_delay(svid: Svid, now: float, rng: random.Random) -> float:
    """Seconds from `now` (since the epoch) until an SVID should be renewed.

    At least `FIRST_BACKOFF`, so that a source that keeps handing out an old SVID is not hammered.
    """
    half_life = svid.not_before + (svid.not_after - svid.not_before) / 2
    delay = min(REFRESH_INTERVAL, half_life - now)
    return max(FIRST_BACKOFF, delay * rng.uniform(1 - JITTER, 1 + JITTER))


def backoff_delay(failures: int, rng: random.Random) -> float:
    """Seconds to wait after the given number of failures in a row (≥ 1): 1, 2, 4 … 150, jittered.

    The jitter only shortens (down to half), so 150 seconds is a bound.
    """
    # The exponent is bounded as well: 2**failures of a week's outage would be a huge integer.
    delay = min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 16))
    return delay * rng.uniform(0.5, 1.0)


class Rotator:
    """Keeps one `IdentityHolder` fresh from one `SecretSource`.

    Args:
        source: where new material comes from.
        holder: what to feed.
        clock: time, injected.
        rng: for jitter.
    """

    __slots__ = ("_clock", "_failures", "_holder", "_rng", "_source")

    def __init__(
        self, source: SecretSource, holder: IdentityHolder, clock: Clock, rng: random.Random
    ) -> None:
        self._source = source
        self._holder = holder
        self._clock = clock
        self._rng = rng
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Rotator {self._holder!r} failures={self._failures}>"

    async def refresh(self) -> Identity:
        """Fetch and swap in new material now.

        Raises:
            SecretError: it cannot be had or is not valid; the old identity stays.
        """
        material = await self._source.fetch()
        identity = self._holder.replace(material, self._clock.wall())
        self._failures = 0
        return identity

    async def run(self) -> None:
        """Renew on schedule until cancelled; fetches at once if there is no identity yet."""
        if self._holder.current is None:
            await self._try()
        while True:
            await self._clock.sleep(self._delay())
            await self._try()

    def _delay(self) -> float:
        current = self._holder.current
        if self._failures or current is None:
            return backoff_delay(max(1, self._failures), self._rng)
        return refresh_delay(current.svid, self._clock.wall(), self._rng)

    async def _try(self) -> None:
        try:
            await self.refresh()
        except Exception as error:
            self._failures += 1
            current = self._holder.current
            logger.warning(
                "secret %s: renewal failed (%d in a row; %s): %s",
                self._holder.name,
                self._failures,
                f"the old one serves until {iso_time(current.svid.not_after)}"
                if current
                else "there is none yet",
                error,
                exc_info=None if isinstance(error, SecretError) else error,
            )
