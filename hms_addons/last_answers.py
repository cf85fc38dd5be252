"""The last good answers, for `fallback: {stale: …}`: a small store in memory that never mixes callers up.

An answer is found again only by a request that says the very same: to the same route, with the same
target and the same header fields, by the same caller. Only fields that are new with every request and say
nothing of the caller are left out of the comparison, so a credential in whatever field keeps answers
apart (fail closed). A body is not compared: a request that has one is the caller's business (`Fallback`). What HTTP forbids to store, or to serve stale, is not stored (RFC 9111 sections 3
and 4.2.4).
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.http_message import Answer, BodyStream, Fields, FilteredStream, lower_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.exchange import Exchange

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_ENTRIES: Final = 4096
MAX_BODY: Final = 1024 * 1024
MAX_STREAMED: Final = 64 * 1024
"""Bytes of a body that streams: so much is held beside each that is on its way."""
_OVERHEAD: Final = 512
"""Bytes that an entry costs besides its content."""

NEUTRAL: Final = frozenset(
    {
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-parentspanid",
        b"x-b3-sampled",
        b"x-b3-flags",
    }
)
"""Request fields that name the request, not the caller."""

_FORBIDDING: Final = frozenset(
    {b"no-store", b"private", b"no-cache", b"must-revalidate", b"proxy-revalidate", b"s-maxage"}
)
"""Response directives under which nothing may be served stale."""


class _Entry(NamedTuple):
    status: int
    reason: bytes
    fields: Fields
    body: bytes
    age: int
    """Seconds, when it was stored."""
    stored: float
    """Monotonic seconds."""

    @property
    def size(self) -> int:
        return _OVERHEAD + len(self.body) + sum(len(n) + len(v) for n, v in self.fields)


class LastAnswers:
    """Answers by request, the least recently used dropped first.

    Args:
        max_bytes: of all answers together.
        max_entries: how many.

    Attributes:
        counts: `stored`, `served`, `missed`, `evicted` and `unstorable`, since the start.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0
        self.counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<LastAnswers entries={len(self._entries)} bytes={self.size}>"

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget them all."""
        self._entries.clear()
        self.size = 0

    def store(self, key: bytes, exchange: Exchange, answer: Answer, now: float) -> None:
        """Keep `answer`, as the upstream gave it, if that is allowed.

        Args:
            key: of `key_of(exchange)`.
            exchange: a GET.
            answer: with a 2xx status.
            now: monotonic seconds.
        """
        body = answer.body
        if not isinstance(body, bytes) or len(body) > MAX_BODY or not _storable(exchange, answer):
            self.forget(key)  # what is there stands for the same, and is not the last one any more
            return
        fields, age = _without_age(answer.fields)
        entry = _Entry(answer.status, answer.reason, fields, body, age, now)
        self._drop(key)
        self._entries[key] = entry
        self.size += entry.size
        self.counts["stored"] += 1
        while self.size > self._max_bytes or len(self._entries) > self._max_entries:
            self._drop(next(iter(self._entries)))
            self.counts["evicted"] += 1

    def keep(
        self, key: bytes, exchange: Exchange, answer: Answer, now: Callable[[], float]
    ) -> None:
        """As `store`, also for a body that streams: it is kept once it has passed, if it is short.

        Args:
            key, exchange, answer: as for `store`; the answer's body may be another afterwards.
            now: monotonic seconds.
        """
        body = answer.body
        if isinstance(body, BodyStream) and answer.tunnel is None and _storable(exchange, answer):
            whole = Answer(answer.status, answer.reason, answer.fields)
            answer.body = FilteredStream(body, _Keeper(self, key, exchange, whole, body, now).pull)
        else:
            self.store(key, exchange, answer, now())

    def find(self, key: bytes, max_age: float, now: float) -> tuple[Answer, int] | None:
        """The answer stored for `key`, if it is not older than `max_age`, and its age in seconds.

        The age is that since it came here; the field `Age` has what it had before besides.
        """
        entry = self._entries.get(key)
        if entry is None or now - entry.stored > max_age:
            if entry is not None:
                self._drop(key)
            self.counts["missed"] += 1
            return None
        self._entries.move_to_end(key)
        self.counts["served"] += 1
        since = int(now - entry.stored)
        fields = (*entry.fields, (b"Age", b"%d" % (entry.age + since)))
        return Answer(entry.status, entry.reason, fields, entry.body), since

    def forget(self, key: bytes) -> None:
        """The last answer for `key` is not one that can be kept."""
        self.counts["unstorable"] += 1
        self._drop(key)

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size


class _Keeper:
    """Collects the body of an answer that streams past."""

    def __init__(
        self,
        answers: LastAnswers,
        key: bytes,
        exchange: Exchange,
        whole: Answer,
        source: BodyStream,
        now: Callable[[], float],
    ) -> None:
        self._answers = answers
        self._key = key
        self._exchange = exchange
        self._whole = whole
        self._source = source
        self._now = now
        self._held: bytearray | None = bytearray()

    async def pull(self, stream: FilteredStream) -> bytes:
        """See `FilteredStream`."""
        data = await self._source.read()
        held = self._held
        if held is None:
            pass
        elif not data:
            self._held = None
            self._whole.body = bytes(held)
            self._whole.trailers = self._source.trailers
            self._answers.store(self._key, self._exchange, self._whole, self._now())
        elif len(held) + len(data) > MAX_STREAMED:
            self._held = None
            self._answers.forget(self._key)
        else:
            held += data
        if not data:
            stream.trailers = self._source.trailers
        return data


def key_of(exchange: Exchange) -> bytes:
    """What an answer depends on, as a digest: no credential is kept."""
    route, principal = exchange.route, exchange.principal
    fields = [
        (lower_name(name), value)
        for name, value in exchange.fields
        if lower_name(name) not in NEUTRAL
    ]
    what = (
        exchange.listener.name,
        None if route is None else (route.name, route.service),
        exchange.target,
        exchange.peer,
        (principal.issuer, principal.subject, principal.roles),
        exchange.head.get(b"authorization"),
        fields,
    )
    return hashlib.blake2b(repr(what).encode(), digest_size=20).digest()


def _storable(exchange: Exchange, answer: Answer) -> bool:
    if answer.trailers or b"no-store" in _directives(exchange.head.get(b"cache-control", b"")):
        return False
    for name, value in answer.fields:
        lower = lower_name(name)
        if lower == b"set-cookie":
            return False  # somebody's session
        if lower == b"cache-control" and not _FORBIDDING.isdisjoint(_directives(value)):
            return False
        if lower == b"vary":
            # All other request fields are part of the key.
            names = _directives(value)
            if b"*" in names or not NEUTRAL.isdisjoint(names):
                return False
    return True


def _directives(value: bytes) -> set[bytes]:
    return {part.partition(b"=")[0].strip().lower() for part in value.split(b",")}


def _without_age(fields: Fields) -> tuple[Fields, int]:
    """The fields but for `Age`, and what it says."""
    age = 0
    kept = []
    for field in fields:
        if lower_name(field[0]) == b"age":
            age = int(field[1]) if field[1].isdigit() and len(field[1]) < 10 else 0  # noqa: PLR2004 - 31 years
        else:
            kept.append(field)
    return tuple(kept), age
