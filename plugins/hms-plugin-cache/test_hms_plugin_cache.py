from __future__ import annotations

from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.test import tflow, tutils

from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Cluster, Direction, Listener, Route, Snapshot
from hms_addons.config.snapshot import WeightedCluster as To
from hms_addons.errors import ConfigError, Flag
from hms_addons.exchange import Exchange, Principal
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer, BodyStream, FilteredStream, get_field
from hms_addons.plugins import PluginManager

pytest.importorskip("hishel", reason="the plugin's own dependency: pip install 'hishel>=1.4,<2'")

from hms_plugin_cache.plugin import Cache
from hms_plugin_cache.rules import directives, freshness_of, is_unchanged, wish_of
from hms_plugin_cache.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

LISTENER = Listener(
    name="app", host="127.0.0.1", port=1, direction=Direction.OUTBOUND, routes=RouteTable()
)
ROUTE = Route(name="all", listener="app", clusters=(To(cluster="a"),), service="catalog")
WALL = 1_800_000_000.0


class StillClock:
    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return 100.0 + self.passed

    def wall(self) -> float:
        return WALL + self.passed

    def call_later(self, delay: float, callback: Any, *args: object) -> Any:
        return self

    def cancel(self) -> None:
        pass

    async def sleep(self, delay: float) -> None:
        raise NotImplementedError


class Service:
    """Stands in for the forwarding: answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answers: list[Answer] = []

    @hookimpl
    def hms_route(self, exchange: Exchange) -> Route:
        return ROUTE

    @hookimpl(trylast=True)
    def hms_forward(self, exchange: Exchange) -> Answer:
        self.asked.append({n.decode().lower(): v.decode() for n, v in exchange.fields})
        return self.answers.pop(0)


class World:
    """A chain with the cache before a service."""

    def __init__(self, **options: Any) -> None:
        written = {"services": ["catalog"]} | options
        clusters = {"a": Cluster(name="a", service="catalog")}
        self.snapshot = Snapshot(
            version="1", source="test", plugins={"cache": written}, clusters=clusters
        )
        self.clock = StillClock()
        self.cache = Cache(self.clock)
        self.service = Service()
        plugins = PluginManager()
        plugins.register(self.service, "service")
        plugins.register(self.cache, "cache")
        plugins.configure(self.snapshot, None)
        self.chain = plugins.compile_chain(Random(1), snapshot=self.snapshot)

    def answers(self, *fields: str, body: bytes | BodyStream = b"hello", status: int = 200) -> None:
        """What the service will say next."""
        pairs = [field.split(": ", 1) for field in fields]
        made = tuple((name.encode(), value.encode()) for name, value in pairs)
        self.service.answers.append(Answer(status, b"OK", made, body))

    async def ask(
        self,
        *fields: str,
        method: bytes = b"GET",
        path: bytes = b"/x",
        principal: Principal | None = None,
        peer: str | None = None,
        flag: Flag | None = None,
    ) -> Answer:
        pairs = [field.split(": ", 1) for field in fields]
        headers = tuple((name.encode(), value.encode()) for name, value in pairs)
        request = tutils.treq(method=method, path=path, headers=headers, content=b"")
        exchange = Exchange(tflow.tflow(req=request), self.snapshot, LISTENER, started=0.0)
        exchange.head = {name.lower(): value for name, value in headers}
        if principal is not None:
            exchange.principal = principal
        exchange.peer = peer
        await self.chain.decide(exchange)
        await self.chain.forward(exchange, None)
        exchange.flag = flag
        await self.chain.respond(exchange)
        assert exchange.answer is not None
        return exchange.answer


def header(answer: Answer, name: bytes) -> str | None:
    value = get_field(answer.fields, name)
    return None if value is None else value.decode()


def cache_status(answer: Answer) -> str | None:
    return header(answer, b"cache-status")


# -- storing and giving ----------------------------------------------------------------------------


async def test_a_fresh_answer_is_given_again_with_its_age() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", 'ETag: "1"')
    first = await world.ask()
    assert cache_status(first) == "hms; fwd=uri-miss; fwd-status=200; stored"
    world.clock.passed = 20.5
    second = await world.ask()
    assert (second.status, second.body) == (200, b"hello")
    assert (header(second, b"age"), cache_status(second)) == ("20", "hms; hit; ttl=39")
    assert header(second, b"date") == formatdate(WALL, usegmt=True)
    assert len(world.service.asked) == 1


STORED = {
    "max-age": ["Cache-Control: max-age=60"],
    "s-maxage": ["Cache-Control: max-age=0, s-maxage=60"],
    "Expires": [f"Date: {formatdate(WALL)}", f"Expires: {formatdate(WALL + 60)}"],
    "public": ["Cache-Control: public, max-age=60"],
    "404": ["Cache-Control: max-age=60", 404],
}


@pytest.mark.parametrize("fields", STORED.values(), ids=STORED)
async def test_these_are_kept(fields: Sequence[Any]) -> None:
    world = World(shared_by="everyone")
    status = fields[-1] if isinstance(fields[-1], int) else 200
    world.answers(*(f for f in fields if isinstance(f, str)), status=status)
    await world.ask()
    assert (await world.ask()).status == status
    assert len(world.service.asked) == 1


NOT_STORED = {
    "no-store": ["Cache-Control: no-store, max-age=60"],
    "private": ["Cache-Control: private, max-age=60"],
    "private fields": ['Cache-Control: private="x-a", max-age=60'],
    "no word": [],
    "guessed": ["Content-Type: text/plain"],
    "expired": [f"Date: {formatdate(WALL)}", f"Expires: {formatdate(WALL - 1)}"],
    "bad Expires": ["Expires: 0"],
    "max-age=0": ["Cache-Control: max-age=0"],
    "bad max-age": ["Cache-Control: max-age=soon"],
    "cookie": ["Cache-Control: max-age=60", "Set-Cookie: a=b"],
    "vary": ["Cache-Control: max-age=60", "Vary: *"],
    "206": ["Cache-Control: max-age=60", 206],
    "too old": ["Cache-Control: max-age=60", "Age: 61"],
    "old date": ["Cache-Control: max-age=60", f"Date: {formatdate(WALL - 61)}"],
}


@pytest.mark.parametrize("fields", NOT_STORED.values(), ids=NOT_STORED)
@pytest.mark.parametrize("shared_by", ["caller", "everyone"])
async def test_these_are_not_given_again(fields: Sequence[Any], shared_by: str) -> None:
    world = World(shared_by=shared_by)
    status = fields[-1] if fields and isinstance(fields[-1], int) else 200
    for _ in range(2):
        world.answers(*(f for f in fields if isinstance(f, str)), status=status)
        answer = await world.ask()
        assert "hit" not in (cache_status(answer) or "")
    assert len(world.service.asked) == 2


@pytest.mark.parametrize(
    "fields",
    [
        ["Cache-Control: no-store"],
        ["Cache-Control: no-cache"],
        ["Cache-Control: max-age=0"],
        ["Cache-Control: max-age=5"],
        ["Cache-Control: min-fresh=55"],
        ["Pragma: no-cache"],
        ["Range: bytes=0-1"],
        ['If-Match: "1"'],
    ],
)
async def test_these_requests_go_through(fields: list[str]) -> None:
    world = World()
    world.answers("Cache-Control: max-age=60")
    await world.ask()
    world.clock.passed = 10
    world.answers("Cache-Control: max-age=60", body=b"new")
    assert (await world.ask(*fields)).body == b"new"


async def test_what_a_request_does_not_want_kept_is_not() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60")
    await world.ask("Cache-Control: no-store")
    assert len(world.cache.store) == 0


async def test_only_if_cached_never_goes_through() -> None:
    world = World()
    assert (await world.ask("Cache-Control: only-if-cached")).status == 504
    world.answers("Cache-Control: max-age=60")
    await world.ask()
    assert (await world.ask("Cache-Control: only-if-cached")).status == 200


async def test_the_age_that_it_came_with_counts() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", "Age: 50")
    await world.ask()
    world.clock.passed = 5
    assert header(await world.ask(), b"age") == "55"
    world.clock.passed = 12
    world.answers("Cache-Control: max-age=60", body=b"new")
    assert (await world.ask()).body == b"new"


# -- whose it is -----------------------------------------------------------------------------------

ANN = Principal(subject="ann", roles=("CLERK",))
BOB = Principal(subject="bob", roles=("CLERK",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"principal": ANN}, {"principal": BOB}),
        ({"principal": ANN}, {}),
        ({"principal": ANN}, {"principal": ANN._replace(claims={"tenant": "b"})}),
        ({"peer": "spiffe://m/a"}, {"peer": "spiffe://m/b"}),
    ],
)
async def test_callers_do_not_share_answers(one: dict[str, Any], other: dict[str, Any]) -> None:
    world = World()
    for who, body in ((one, b"one"), (other, b"other")):
        world.answers("Cache-Control: max-age=60, public", body=body)
        await world.ask(**who)
    assert (await world.ask(**one)).body == b"one"
    assert (await world.ask(**other)).body == b"other"


async def test_a_fresh_token_that_says_the_same_gets_the_same_answer() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60")
    for number in range(2):
        claims = {"tenant": "a", "jti": str(number), "exp": WALL + number}
        await world.ask(f"Authorization: {number}", principal=ANN._replace(claims=claims))
    assert world.cache.counts["hit"] == 1


@pytest.mark.parametrize("field", ["Authorization: Bearer", "Cookie: sid"])
async def test_neither_do_credentials_that_nobody_has_verified(field: str) -> None:
    world = World()
    for value in ("one", "other"):
        world.answers("Cache-Control: max-age=60", body=value.encode())
        await world.ask(f"{field}={value}")
    assert (await world.ask(f"{field}=one")).body == b"one"
    assert (await world.ask(f"{field}=other")).body == b"other"


@pytest.mark.parametrize("who", [{"principal": ANN}, {"field": "Authorization: Bearer x"}])
@pytest.mark.parametrize(
    ("control", "shared"),
    [("max-age=60", False), ("public, max-age=60", True), ("s-maxage=60", True)],
)
async def test_everyone_shares_what_a_credential_got_only_if_it_says_so(
    who: dict[str, Any], control: str, *, shared: bool
) -> None:
    world = World(shared_by="everyone")
    field = [who["field"]] if "field" in who else []
    world.answers(f"Cache-Control: {control}")
    await world.ask(*field, principal=who.get("principal"))
    if not shared:
        world.answers()
    await world.ask(principal=BOB)
    assert len(world.service.asked) == (1 if shared else 2)


async def test_vary_keeps_answers_apart() -> None:
    world = World()
    for language in ("de", "en"):
        world.answers("Cache-Control: max-age=60", "Vary: Accept-Language", body=language.encode())
        answer = await world.ask(f"Accept-Language: {language}")
    assert cache_status(answer) == "hms; fwd=vary-miss; fwd-status=200; stored"
    for language in ("de", "en"):
        assert (await world.ask(f"accept-language: {language}")).body == language.encode()
    world.answers(body=b"none")
    assert (await world.ask()).body == b"none"


async def test_variants_are_bounded() -> None:
    world = World()
    for number in range(20):
        world.answers("Cache-Control: max-age=60", "Vary: X-Any")
        await world.ask(f"X-Any: {number}")
        world.clock.passed += 1
    assert len(world.cache.store) == 16


# -- validation ------------------------------------------------------------------------------------


async def test_a_stale_answer_is_validated_and_fresh_again() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", 'ETag: "1"', "X-Old: 1", "Content-Type: text/a")
    await world.ask()
    world.clock.passed = 100
    world.answers(
        'ETag: "1"', "Cache-Control: max-age=90", "X-New: 2", "Content-Type: b", status=304
    )
    answer = await world.ask()
    assert world.service.asked[1]["if-none-match"] == '"1"'
    assert (answer.status, answer.body) == (200, b"hello")
    assert cache_status(answer) == "hms; fwd=stale; fwd-status=304; stored"
    assert [header(answer, n) for n in (b"x-old", b"x-new", b"content-type")] == [
        "1",
        "2",
        "text/a",
    ]
    world.clock.passed = 180
    assert cache_status(await world.ask()) == "hms; hit; ttl=10"


async def test_no_cache_is_validated_every_time() -> None:
    world = World()
    modified = f"Last-Modified: {formatdate(WALL - 1000, usegmt=True)}"
    world.answers("Cache-Control: no-cache", modified)
    await world.ask()
    for _ in range(2):
        world.answers(modified, status=304)
        assert (await world.ask()).body == b"hello"
    assert world.service.asked[2]["if-modified-since"] == modified.partition(": ")[2]


async def test_no_cache_with_field_names_is_validated_too() -> None:
    world = World()
    for _ in range(2):
        world.answers('Cache-Control: no-cache="x-a", max-age=60', 'ETag: "1"')
        await world.ask()
    assert world.service.asked[1]["if-none-match"] == '"1"'


async def test_another_answer_takes_the_old_ones_place() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", 'ETag: "1"')
    await world.ask()
    world.clock.passed = 100
    world.answers("Cache-Control: max-age=60", 'ETag: "2"', body=b"new")
    assert (await world.ask()).body == b"new"
    assert (await world.ask()).body == b"new"
    assert len(world.cache.store) == 1


async def test_a_failing_service_leaves_the_old_one_there() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", 'ETag: "1"')
    await world.ask()
    world.clock.passed = 100
    world.answers(status=503)
    assert (await world.ask()).status == 503
    world.answers('ETag: "1"', "Cache-Control: max-age=60", status=304)
    assert (await world.ask()).body == b"hello"


async def test_a_client_that_has_it_gets_304() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", 'ETag: W/"1"', "Content-Type: text/plain")
    await world.ask()
    answer = await world.ask('If-None-Match: "0", "1"')
    assert (answer.status, answer.body) == (304, b"")
    assert header(answer, b"etag") == 'W/"1"'
    assert header(answer, b"content-type") is None
    assert (await world.ask('If-None-Match: "2"')).status == 200
    world.clock.passed = 100
    world.answers("Cache-Control: max-age=60", status=304)
    assert (await world.ask('If-None-Match: "1"')).status == 304
    assert world.service.asked[1]["if-none-match"] == 'W/"1"'


async def test_a_clients_own_condition_is_passed_on_where_nothing_is_kept() -> None:
    world = World()
    world.answers('ETag: "1"', status=304)
    assert (await world.ask('If-None-Match: "1"')).status == 304
    assert world.service.asked[0]["if-none-match"] == '"1"'


def test_dates_are_compared_where_there_is_no_tag() -> None:
    answer = ((b"Last-Modified", formatdate(WALL).encode()),)
    assert is_unchanged(((b"If-Modified-Since", formatdate(WALL + 1).encode()),), answer)
    assert not is_unchanged(((b"If-Modified-Since", formatdate(WALL - 1).encode()),), answer)
    assert not is_unchanged(((b"If-Modified-Since", b"yesterday"),), answer)
    assert not is_unchanged((), answer)


# -- changes ---------------------------------------------------------------------------------------


async def test_a_change_invalidates_for_everybody() -> None:
    world = World()
    for who in (ANN, BOB):
        world.answers("Cache-Control: max-age=60")
        await world.ask(principal=who)
    world.answers(status=500)
    await world.ask(method=b"PUT")
    assert len(world.cache.store) == 2
    world.answers(status=204)
    await world.ask(method=b"PUT")
    assert len(world.cache.store) == 0


def an_entry(body: bytes = b"") -> Entry:
    return Entry(200, b"OK", (), body, (), "max-age=60", 0.0, 0.0)


def test_what_was_asked_for_before_a_change_is_not_kept_after_it() -> None:
    store = Store()
    store.resize(10_000, 2)
    before = store.change
    store.invalidate(b"uri")
    assert not store.put((b"uri", b""), an_entry(), before)
    assert store.put((b"uri", b""), an_entry(), store.change)
    for other in (b"a", b"b"):
        store.invalidate(other)
    assert not store.put((b"uri", b""), an_entry(), before), "what is no longer known counts too"


def test_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    store = Store()
    store.resize(3000, 10)
    keys = [(name, b"") for name in (b"a", b"b")]
    for key in keys:
        assert store.put(key, an_entry(), 0)
    store.used(keys[0], store.variants(keys[0])[0])
    store.put((b"c", b""), an_entry(), 0)
    assert [len(store.variants(key)) for key in keys] == [1, 0]
    assert not store.put((b"d", b""), an_entry(b"x" * 3000), 0)
    store.resize(3000, 1)
    assert len(store) <= 1
    store.clear()
    assert (store.size, len(store)) == (0, 0)


def test_the_values_that_vary_names_take_memory_too() -> None:
    store = Store()
    store.resize(3000, 10)
    entry = an_entry()._replace(selected=((b"accept-language", b"x" * 3000),))
    assert not store.put((b"a", b""), entry, 0)
    assert store.size == 0


# -- bodies and answers that are not kept ----------------------------------------------------------


async def read(answer: Answer) -> bytes:
    assert isinstance(answer.body, BodyStream)
    return b"".join([piece async for piece in answer.body])


def stream(*pieces: bytes) -> BodyStream:
    made = BodyStream(lambda: None, lambda: None)
    for piece in pieces:
        made.feed(piece)
    return made


async def test_a_stream_is_kept_once_it_has_passed() -> None:
    world = World()
    body = stream(b"a", b"b")
    body.feed_eof()
    world.answers("Cache-Control: max-age=60", body=body)
    answer = await world.ask()
    assert isinstance(answer.body, FilteredStream)
    assert len(world.cache.store) == 0
    assert await read(answer) == b"ab"
    assert (await world.ask()).body == b"ab"


@pytest.mark.parametrize("end", ["fails", "trailers", "long"])
async def test_a_stream_that_is_not_whole_or_too_long_is_not_kept(end: str) -> None:
    world = World(max_body=3)
    body = stream(b"ab" if end != "long" else b"abcd")
    if end == "fails":
        body.fail(ConnectionResetError())
    else:
        body.feed_eof(((b"X", b"1"),) if end == "trailers" else ())
    world.answers("Cache-Control: max-age=60", body=body)
    answer = await world.ask()
    if end == "fails":
        with pytest.raises(ConnectionResetError):
            await read(answer)
    else:
        await read(answer)
    assert len(world.cache.store) == 0


async def test_a_long_body_is_not_kept() -> None:
    world = World(max_body=3)
    world.answers("Cache-Control: max-age=60", body=b"long")
    assert "stored" not in (cache_status(await world.ask()) or "")


async def test_a_fallbacks_answer_is_not_kept() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60")
    await world.ask(flag=Flag.FB)
    assert len(world.cache.store) == 0


async def test_head_and_other_services_are_left_alone() -> None:
    world = World()
    world.answers("Cache-Control: max-age=60", body=b"")
    assert cache_status(await world.ask(method=b"HEAD")) is None
    world = World(services=["other"])
    world.answers("Cache-Control: max-age=60")
    assert cache_status(await world.ask()) is None


# -- words and options -----------------------------------------------------------------------------


def test_directives_are_read_with_their_quotes() -> None:
    text = 'Private="a, b", MAX-AGE="5", no-store,, max-age=9'
    assert directives(text) == {"private": "a, b", "max-age": "5", "no-store": None}
    assert directives(None) == {}


def test_nonsense_never_makes_an_answer_fresh() -> None:
    for control in ('max-age="', "max-age=-1", "max-age=1.5", "=", 's-maxage="x', "max-age"):
        fields = ((b"Cache-Control", control.encode()),)
        assert freshness_of(200, fields, WALL, authenticated=False) is None
    assert wish_of(((b"Cache-Control", b"max-age=x"),)).max_age == 0


def test_it_costs_nothing_where_nobody_has_configured_it() -> None:
    plugins = PluginManager()
    plugins.register(Cache(), "cache")
    empty = Snapshot(version="1", source="test")
    plugins.configure(empty, None)
    assert "cache" not in repr(plugins.compile_chain(Random(1), snapshot=empty))
    assert "cache" in repr(World().chain)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"services": []}, "plugins.cache.services"),
        ({"shared_by": "all"}, "plugins.cache.shared_by"),
        ({"max_bytes": 10}, "plugins.cache.max_bytes"),
        ({"max_body": "big"}, "plugins.cache.max_body: expected a size"),
        ({"name": "a b"}, "plugins.cache.name"),
        ({"ttl": "5s"}, "plugins.cache.ttl: there is no such option"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], key: str) -> None:
    written = {"services": ["a"]} | options
    with pytest.raises(ConfigError, match=key):
        Cache().hms_configure(Snapshot(version="1", source="test", plugins={"cache": written}))
