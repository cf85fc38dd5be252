"""Whose token goes with which identifier while requests are in flight, and never a wrong one.

An app repeats on its own calls the identifiers of the request that it works for. Callers can choose
those, so an identifier stands for a token only while every request that has it brought that one.
Where another caller's has it too (one without a token is another caller) it stands for none, until
all of them are over; and for `LINGER` seconds after the last it stays bound to that caller, as an
app may go on working for a request that it has answered. A chain of calls that comes back to the
same service without the token counts as another caller too: nobody can tell that it is none.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.clock import Clock

MAX_REQUESTS: Final = 10_000
"""In flight at once; while there are more, no identifier stands for anything."""
LINGER: Final = 60.0
"""Seconds for which an identifier stays its caller's after the last request."""
MAX_LINGERING: Final = 20_000
"""Identifiers that linger at once; the oldest go first."""

_WHOLE: Final = 128
"""Bytes of an identifier that is kept as it is."""


class _Holder:
    """An identifier's caller.

    Attributes:
        caller: digest of the token that all its requests brought; None: they were several callers.
        token: that token; None when there is none, or no request is in flight.
        requests: how many are in flight.
        over: when the last one was over, in monotonic seconds.
    """

    __slots__ = ("caller", "over", "requests", "token")

    def __init__(self, caller: bytes, token: bytes | None) -> None:
        self.caller: bytes | None = caller
        self.token = token
        self.requests = 1
        self.over = 0.0


class Held(NamedTuple):
    """A request in flight: what it is known by. Not `known`: there were too many requests."""

    keys: tuple[bytes, ...]
    known: bool = True


class Found(NamedTuple):
    """What identifiers stand for. `ambiguous`: more than one caller's request has them."""

    token: bytes | None
    ambiguous: bool = False


_AMBIGUOUS: Final = Found(None, ambiguous=True)


class InFlight:
    """The requests in flight, by identifier.

    Args:
        clock: for what lingers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holders: dict[bytes, _Holder] = {}
        self._lingering: OrderedDict[bytes, _Holder] = OrderedDict()
        self._requests = 0
        self._unknown = 0

    def __repr__(self) -> str:
        return (
            f"<InFlight requests={self._requests} unknown={self._unknown} "
            f"identifiers={len(self._holders)} lingering={len(self._lingering)}>"
        )

    def __len__(self) -> int:
        return self._requests

    @property
    def overflowing(self) -> bool:
        """There are requests in flight that it could not take."""
        return self._unknown > 0

    def add(self, identifiers: Iterable[bytes], token: bytes | None) -> Held:
        """A request begins; give the result to `remove` when it is over, whatever happens.

        Args:
            identifiers: by which its app may call on.
            token: what it brought; None: nothing that could be carried on.
        """
        self._forget()
        if self._requests >= MAX_REQUESTS:
            self._unknown += 1
            return Held((), known=False)
        self._requests += 1
        caller = hashlib.sha256(token or b"").digest()
        keys = tuple({_key(identifier) for identifier in identifiers})
        for key in keys:
            holder = self._holders.get(key)
            if holder is None:
                self._holders[key] = _Holder(caller, token)
                continue
            if holder.requests == 0:
                del self._lingering[key]
            holder.requests += 1
            if holder.caller == caller:
                holder.token = token
            else:
                holder.caller = holder.token = None
        return Held(keys)

    def remove(self, held: Held) -> None:
        """A request is over."""
        if not held.known:
            self._unknown -= 1
            return
        self._requests -= 1
        for key in held.keys:
            holder = self._holders[key]
            holder.requests -= 1
            if holder.requests == 0:
                holder.token = None
                holder.over = self._clock.monotonic()
                self._lingering[key] = holder
        self._forget()

    def find(self, identifiers: Iterable[bytes]) -> Found:
        """What a call with these identifiers may carry on: all that are known must agree."""
        if self._unknown:
            return _AMBIGUOUS
        caller: bytes | None = None
        token: bytes | None = None
        for identifier in identifiers:
            holder = self._holders.get(_key(identifier))
            if holder is None:
                continue
            if holder.caller is None or (caller is not None and holder.caller != caller):
                return _AMBIGUOUS
            caller = holder.caller
            token = token or holder.token
        return Found(token)

    def _forget(self) -> None:
        """Identifiers that have lingered long enough, or are too many."""
        lingering, oldest = self._lingering, self._clock.monotonic() - LINGER
        while lingering:
            key, holder = next(iter(lingering.items()))
            if holder.over > oldest and len(lingering) <= MAX_LINGERING:
                return
            del lingering[key]
            del self._holders[key]


def _key(identifier: bytes) -> bytes:
    return identifier if len(identifier) <= _WHOLE else hashlib.sha256(identifier).digest()
