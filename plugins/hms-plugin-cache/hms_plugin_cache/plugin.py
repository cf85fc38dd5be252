"""The hooks: what is kept is given before anything is forwarded; what comes is kept before anybody changes it.

forward (first)   a fresh answer goes out; a stale one has its validators sent along
respond (first)   304: the kept answer goes out; else what may be kept is; a change invalidates
"""

from __future__ import annotations

import hashlib
import importlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.plugin_options import plugin_options
from hms_addons.errors import Flag
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import (
    Answer,
    BodyStream,
    FilteredStream,
    get_field,
    without_fields,
)
from hms_plugin_cache.options import Options
from hms_plugin_cache.rules import (
    MOST_VARIANTS,
    Use,
    conditions_of,
    freshened,
    freshness_of,
    is_unchanged,
    lifetime,
    matching,
    may_look,
    selected_by,
    use_of,
    values_of,
    wish_of,
    with_date,
)
from hms_plugin_cache.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh, Upstream
    from hms_addons.http_message import Fields
    from hms_plugin_cache.store import Key

NAME: Final = "cache"
MAX_STREAMED: Final = 256 * 1024
"""Bytes of a body that streams: so much is held beside each that is on its way."""
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
_ASKED: Final = frozenset({b"if-none-match", b"if-modified-since"})
_IN_304: Final = frozenset(
    {b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"age"}
)
_OF_A_TOKEN: Final = frozenset({"exp", "iat", "nbf", "jti", "auth_time"})
"""Claims about the token itself (RFC 7519 section 4.1), not about its bearer."""
_BODY_LESS: Final = frozenset({b"content-length", b"transfer-encoding"})


class Looked:
    """What is remembered of a request from forward to respond."""

    __slots__ = ("asked", "change", "entry", "fields", "forwarded", "key")

    def __init__(self, key: Key, fields: Fields, change: int) -> None:
        self.key = key
        self.fields = fields
        self.change = change
        self.entry: Entry | None = None
        self.asked: Fields = ()
        self.forwarded = "uri-miss"


class Cache:
    """The plugin `cache`.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._known: list[tuple[Mapping[str, Any], Options]] = []
        self.store = Store()
        self.counts: Counter[str] = Counter()
        """`hit`, `miss` and `validated`, since the start."""

    def __repr__(self) -> str:
        return f"<Cache {self.store!r} {dict(self.counts)}>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Check the options; what is kept stays, as far as there is room."""
        options = plugin_options(snapshot, NAME, Options)
        if options is None:
            self.store.clear()
            return
        self._known = [(snapshot.plugins[NAME], options), *self._known][:2]
        self.store.resize(options.max_bytes, options.max_entries)

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where it is not configured."""
        return () if NAME in snapshot.plugins else ("hms_forward", "hms_respond")

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Have status and metrics tell what is kept."""
        mesh.add_status(NAME, self.status)
        mesh.add_metrics(NAME, self)

    def status(self) -> dict[str, Any]:
        """JSON-ready."""
        kept = {"entries": len(self.store), "bytes": self.store.size}
        return kept | dict(self.counts) | dict(self.store.counts)

    def collect(self) -> Iterator[Any]:
        """For `/metrics`."""
        core = importlib.import_module("prometheus_client.core")
        requests = core.CounterMetricFamily(
            "cache_requests", "Requests that could be answered from the cache.", labels=("result",)
        )
        for result in ("hit", "miss", "validated"):
            requests.add_metric((result,), self.counts[result])
        yield requests
        yield core.GaugeMetricFamily("cache_entries", "Answers kept.", value=len(self.store))
        yield core.GaugeMetricFamily("cache_bytes", "Memory they take.", value=self.store.size)

    def _options(self, exchange: Exchange) -> Options | None:
        """Those of the configuration that the request began with, if they are about it."""
        written = exchange.snapshot.plugins.get(NAME)
        if written is None:
            return None
        options = next(
            (o for known, o in self._known if known is written or known == written), None
        )
        if options is None:  # held while two other configurations came in
            return None
        if options.direction not in {"both", exchange.direction}:
            return None
        route = exchange.route
        return options if route is not None and route.service in options.services else None

    # -- forward --------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def hms_forward(self, exchange: Exchange, upstream: Upstream) -> Answer | None:  # noqa: ARG002 - the hook's
        """Give what is kept; else have the answer looked at when it comes."""
        options = self._options(exchange)
        if options is None or exchange.method_bytes != b"GET" or exchange.body is not None:
            return None
        fields = exchange.fields
        wish = wish_of(fields)
        if not may_look(fields, wish) or exchange.content:
            return None
        now = self._clock.monotonic()
        key = _key(exchange, options)
        looked = Looked(key, fields, self.store.change)
        variants = self.store.variants(key)
        entry = matching(variants, fields)
        use = Use.MISS
        if entry is not None:
            use = use_of(entry, wish, get_field(fields, b"range") is not None, now)
            if use is Use.HIT:
                self.store.used(key, entry)
                self.counts["hit"] += 1
                ttl = int(lifetime(entry.cache_control) - entry.age_at(now))
                return self._given(entry, fields, now, f"{options.name}; hit; ttl={ttl}")
            looked.forwarded = "request" if wish.no_cache else "stale"
        elif variants:
            looked.forwarded = "vary-miss"
        if wish.only_if_cached:
            exchange.deny(
                504, Flag.UT, "it is not in the cache, and the request wants nothing else"
            )
            exchange.raise_failure()
        self._validate(exchange, looked, entry if use is Use.VALIDATE else None)
        exchange.notes[NAME] = looked
        return None

    @staticmethod
    def _validate(exchange: Exchange, looked: Looked, entry: Entry | None) -> None:
        """Ask the service whether a kept answer is still right."""
        conditions = () if entry is None else conditions_of(entry)
        if conditions:
            fields = looked.fields
            looked.entry = entry
            looked.asked = tuple(field for field in fields if field[0].lower() in _ASKED)
            exchange.fields = (*without_fields(fields, _ASKED), *conditions)

    def _given(self, entry: Entry, asked: Fields, now: float, status: str) -> Answer:
        """What is kept, as an answer; 304 where the client has it already."""
        fields = (
            *without_fields(entry.fields, _BODY_LESS),
            (b"Age", b"%d" % entry.age_at(now)),
        )
        cache_status = (b"Cache-Status", status.encode("latin-1"))
        if entry.status == 200 and is_unchanged(asked, entry.fields):  # noqa: PLR2004 - OK
            kept = tuple(field for field in fields if field[0].lower() in _IN_304)
            return Answer(304, b"Not Modified", (*kept, cache_status), b"")
        return Answer(entry.status, entry.reason, (*fields, cache_status), entry.body)

    # -- respond --------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def hms_respond(self, exchange: Exchange) -> None:
        """Keep what may be kept, as it came."""
        answer = exchange.answer
        if answer is None or answer.local or answer.tunnel is not None:
            return
        options = self._options(exchange)
        if options is None:
            return
        if exchange.method_bytes not in _SAFE:
            if answer.status < 400:  # noqa: PLR2004 - no error
                self.store.invalidate(_uri(exchange))
            return
        looked = exchange.notes.get(NAME)
        if not isinstance(looked, Looked) or exchange.flag is Flag.FB:
            return
        if answer.status == 304 and looked.entry is not None:  # noqa: PLR2004 - Not Modified
            exchange.answer = self._validated(looked, looked.entry, answer, exchange, options)
            return
        self.counts["miss"] += 1
        stored = self._keep(looked, answer, exchange, options)
        status = f"{options.name}; fwd={looked.forwarded}; fwd-status={answer.status}"
        status += "; stored" if stored else ""
        answer.fields = (*answer.fields, (b"Cache-Status", status.encode("latin-1")))

    def _validated(
        self, looked: Looked, entry: Entry, answer: Answer, exchange: Exchange, options: Options
    ) -> Answer:
        """The kept answer, which the service has just said is still right."""
        self.counts["validated"] += 1
        now, wall = self._clock.monotonic(), self._clock.wall()
        fields = with_date(freshened(entry.fields, answer.fields), wall)
        told = (*fields, *((n, v) for n, v in answer.fields if n.lower() == b"age"))
        found = freshness_of(
            entry.status, told, wall, authenticated=_is_authenticated(exchange, options)
        )
        stored = False
        new = entry._replace(fields=fields, age=0.0, stored=now)
        if found is None:
            self.store.drop(looked.key, entry)
        else:
            new = new._replace(cache_control=found.cache_control, age=found.age)
            stored = self.store.put(looked.key, new, looked.change)
        answer.release()
        status = f"{options.name}; fwd={looked.forwarded}; fwd-status=304"
        return self._given(new, looked.asked, now, status + ("; stored" if stored else ""))

    def _keep(self, looked: Looked, answer: Answer, exchange: Exchange, options: Options) -> bool:
        """Keep an answer; one that streams, once it has passed. Whether it is, or will be, kept."""
        wall = self._clock.wall()
        found = freshness_of(
            answer.status,
            answer.fields,
            wall,
            authenticated=_is_authenticated(exchange, options),
        )
        selected = selected_by(looked.fields, values_of(answer.fields, b"vary"))
        if found is None or selected is None or answer.trailers:
            if looked.entry is not None and answer.status < 500:  # noqa: PLR2004 - a server error
                self.store.drop(looked.key, looked.entry)
            return False
        variants = self.store.variants(looked.key)
        if len(variants) >= MOST_VARIANTS:
            self.store.drop(looked.key, min(variants, key=lambda entry: entry.stored))
        entry = Entry(
            answer.status,
            answer.reason,
            with_date(answer.fields, wall),
            b"",
            selected,
            found.cache_control,
            found.age,
            self._clock.monotonic(),
        )

        def put(body: bytes) -> bool:
            return self.store.put(looked.key, entry._replace(body=body), looked.change)

        body = answer.body
        if isinstance(body, BodyStream):
            most = min(options.max_body, MAX_STREAMED)
            if answer.length is not None and answer.length > most:
                return False
            answer.body = FilteredStream(body, _Keeper(body, most, answer.length, put).pull)
            return True
        return len(body) <= options.max_body and put(body)


class _Keeper:
    """Collects a body that streams past, and keeps it if it was whole and not too long."""

    def __init__(
        self, source: BodyStream, most: int, length: int | None, put: Callable[[bytes], bool]
    ) -> None:
        self._source = source
        self._most = most
        self._length = length
        self._put = put
        self._held: bytearray | None = bytearray()

    async def pull(self, stream: FilteredStream) -> bytes:
        """See `FilteredStream`."""
        data = await self._source.read()
        held = self._held
        if not data:
            stream.trailers = self._source.trailers
            whole = held is not None and self._length in {None, len(held)}
            if held is not None and whole and not stream.trailers:
                self._put(bytes(held))
            self._held = None
        elif held is not None:
            held += data
            if len(held) > self._most:
                self._held = None
        return data


def _is_authenticated(exchange: Exchange, options: Options) -> bool:
    """Whether the answer was given to somebody in particular, and others may have it."""
    if options.shared_by == "caller":
        return False
    return b"authorization" in exchange.head or exchange.principal.subject is not None


def _digest(what: object) -> bytes:
    return hashlib.blake2b(repr(what).encode(), digest_size=20).digest()


def _uri(exchange: Exchange) -> bytes:
    route = exchange.route
    service = None if route is None else route.service
    return _digest((service, get_field(exchange.fields, b"host"), exchange.target))


def _key(exchange: Exchange, options: Options) -> Key:
    """What an answer is kept under; no credential can be read from it."""
    if options.shared_by == "everyone":
        return _uri(exchange), b""
    principal, head = exchange.principal, exchange.head
    # A verified token stands for what it says: a fresh one that says the same has the same answers.
    claims = [(n, principal.claims[n]) for n in sorted(principal.claims) if n not in _OF_A_TOKEN]
    token = head.get(b"authorization") if principal.subject is None else None
    who = (
        exchange.peer,
        (principal.issuer, principal.subject, principal.roles, claims),
        token,
        head.get(b"cookie"),
    )
    return _uri(exchange), _digest(who)
