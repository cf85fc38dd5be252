"""Renewal on schedule: when to fetch a new SVID, and what to do when that fails.

Refreshed every hour or at half of its life, whichever is sooner, ± 1% so that a fleet started
together does not come together (Istio's and ztunnel's practice). If a fetch fails, the old SVID
serves until it expires, and the next try comes after a doubling pause of at most 150 seconds.
For SVIDs that live only seconds, pauses and time limits shrink with their life.

A wait ends when either clock says that its time has come, and is looked at every half minute: a
machine that slept does not sleep on (a monotonic clock stands still meanwhile), and one whose
wall clock was put back does not wait for hours.

Where the material comes from is the `SecretSource`'s business.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hms_addons.clock import within
from hms_addons.identity.identity_holder import SecretError
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

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

FETCH_LIMIT: Final = 30.0
"""Seconds that one fetch may take."""

LOOK_INTERVAL: Final = 30.0
"""Seconds after which a waiting rotator looks at both clocks again."""


class SecretSource(Protocol):
    """Where material comes from, e.g. a control plane that signs the CSR of a fresh key."""

    async def fetch(self) -> SecretMaterial:
        """Obtain new material now.

        Raises:
            SecretError: it cannot be had; the message says where and why.
        """


class Pace(NamedTuple):
    """How fast to go for an SVID that lives so long; all in seconds."""

    first_backoff: float = FIRST_BACKOFF
    max_backoff: float = MAX_BACKOFF
    fetch_limit: float = FETCH_LIMIT

    @classmethod
    def of(cls, life: float) -> Pace:
        """The usual numbers for a life of hours; a share of it where it is only seconds."""
        return cls(
            first_backoff=min(FIRST_BACKOFF, max(life, 1.0) / 20),
            max_backoff=min(MAX_BACKOFF, max(life, 1.0) / 10),
            fetch_limit=min(FETCH_LIMIT, max(life, 4.0) / 4),
        )


def usable_life(svid: Svid, received: float | None = None) -> float:
    """Seconds that an SVID lasted when it was received; without that time, its whole validity.

    Validity begins before issue (`svid.BACKDATE`), which for a life of seconds is most of it.
    """
    begin = svid.not_before if received is None else max(svid.not_before, received)
    return max(0.0, svid.not_after - begin)


def refresh_delay(
    svid: Svid, now: float, rng: random.Random, received: float | None = None
) -> float:
    """Seconds from `now` until an SVID should be renewed: an hour, or half of its usable life.

    At least the first backoff, so that a source that keeps handing out an old SVID is not hammered.

    Args:
        svid: the one in use.
        now: seconds since the epoch.
        rng: for jitter.
        received: when it was received (seconds since the epoch), if that is known.
    """
    life = usable_life(svid, received)
    delay = min(REFRESH_INTERVAL, svid.not_after - life / 2 - now)
    return max(Pace.of(life).first_backoff, delay * rng.uniform(1 - JITTER, 1 + JITTER))


def backoff_delay(failures: int, rng: random.Random, pace: Pace = Pace()) -> float:  # noqa: B008 - immutable
    """Seconds to wait after the given number of failures in a row (≥ 1): 1, 2, 4 … 150, jittered.

    The jitter only shortens (down to half), so 150 seconds is a bound.
    """
    # The exponent is bounded as well: 2**failures of a week's outage would be a huge integer.
    delay = min(pace.max_backoff, pace.first_backoff * 2.0 ** min(failures - 1, 16))
    return delay * rng.uniform(0.5, 1.0)


class Rotator:
    """Keeps one `IdentityHolder` fresh from one `SecretSource`.

    Args:
        source: where new material comes from.
        holder: what to feed.
        clock: time, injected.
        rng: for jitter.
        keep: awaited with material that has been swapped in, e.g. to write it to disk.
    """

    __slots__ = (
        "_clock",
        "_failures",
        "_holder",
        "_hurry",
        "_keep",
        "_lock",
        "_received",
        "_rng",
        "_source",
        "_wake",
    )

    def __init__(
        self,
        source: SecretSource,
        holder: IdentityHolder,
        clock: Clock,
        rng: random.Random,
        keep: Callable[[SecretMaterial], Awaitable[object]] | None = None,
    ) -> None:
        self._source = source
        self._holder = holder
        self._clock = clock
        self._rng = rng
        self._keep = keep
        self._failures = 0
        self._received: tuple[int, float] | None = None  # serial, wall clock
        self._lock = asyncio.Lock()
        self._wake: asyncio.Future[None] | None = None
        self._hurry = False

    def __repr__(self) -> str:
        return f"<Rotator {self._holder!r} failures={self._failures}>"

    @property
    def problem(self) -> str | None:
        """Why the last renewal failed; None if it did not. The holder knows it, for who looks there."""
        return self._holder.problem

    async def refresh(self) -> Identity:
        """Fetch and swap in new material now; one at a time.

        Raises:
            SecretError: it cannot be had in time, or is not valid; the old identity stays.
        """
        async with self._lock:
            self._hurry = False
            limit = self._pace().fetch_limit
            try:
                # A source that never answers must not end renewal for good.
                async with within(self._clock, limit):
                    material = await self._source.fetch()
            except TimeoutError as error:
                message = f"no answer within {limit:g}s"
                raise SecretError(message) from error
            now = self._clock.wall()
            identity = self._holder.replace(material, now)
            self._received = identity.svid.serial, now
            self._failures = 0
            self._holder.problem = None
            if self._keep is not None:
                await self._kept(material)
        return identity

    def renew_soon(self) -> None:
        """Let `run` renew now instead of on schedule: the SVID in use will not do any longer."""
        self._hurry = True
        if self._wake is not None:
            _resolve(self._wake)

    async def run(self) -> None:
        """Renew on schedule until cancelled; fetches at once if there is no identity yet."""
        if self._holder.current is None:
            await self._try()
        while True:
            await self._wait(self._delay())
            await self._try()

    def _pace(self) -> Pace:
        current = self._holder.current
        return Pace() if current is None else Pace.of(usable_life(current.svid, self._since()))

    def _since(self) -> float | None:
        """When the SVID in use was received, if it was here that it was fetched."""
        current, received = self._holder.current, self._received
        if current is None or received is None or received[0] != current.svid.serial:
            return None
        return received[1]

    def _delay(self) -> float:
        current = self._holder.current
        if self._failures or current is None:
            return backoff_delay(max(1, self._failures), self._rng, self._pace())
        return refresh_delay(current.svid, self._clock.wall(), self._rng, self._since())

    async def _wait(self, delay: float) -> None:
        """Until `delay` seconds have passed on either clock, or somebody cannot wait."""
        monotonic_due = self._clock.monotonic() + delay
        wall_due = self._clock.wall() + delay
        while not self._hurry:
            left = min(monotonic_due - self._clock.monotonic(), wall_due - self._clock.wall())
            if left <= 0:
                return
            self._wake = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(min(left, LOOK_INTERVAL), _resolve, self._wake)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None

    async def _kept(self, material: SecretMaterial) -> None:
        """Hand it to `keep`; should that fail, the SVID is in use all the same."""
        assert self._keep is not None  # noqa: S101 - the caller has looked
        try:
            async with within(self._clock, FETCH_LIMIT):
                await self._keep(material)
        except Exception as error:  # noqa: BLE001 - whatever it is, the identity serves
            logger.warning("secret %s: could not be kept: %r", self._holder.name, error)

    def _left(self) -> str:
        """What there is in place of a new one."""
        current = self._holder.current
        if current is None:
            return "there is none yet"
        until = iso_time(current.svid.not_after)
        if current.svid.not_after <= self._clock.wall():
            return f"the old one expired at {until}"
        return f"the old one serves until {until}"

    async def _try(self) -> None:
        try:
            await self.refresh()
        except Exception as error:
            self._failures += 1
            self._holder.problem = str(error) or repr(error)
            logger.warning(
                "secret %s: renewal failed (%d in a row; %s): %s",
                self._holder.name,
                self._failures,
                self._left(),
                error,
                exc_info=None if isinstance(error, SecretError) else error,
            )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
