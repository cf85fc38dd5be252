from __future__ import annotations

import asyncio
import gzip
import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hms_plugin_redact.json_path import JsonPathError, parse_path, places
from hms_plugin_redact.plugin import Redact
from hms_plugin_redact.rules import WINDOW
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.test import tflow, tutils

from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Direction, Listener, Route, Snapshot, WeightedCluster
from hms_addons.errors import ConfigError
from hms_addons.exchange import Exchange
from hms_addons.http_message import Answer, BodyStream, get_field
from hms_addons.plugins import PluginManager

if TYPE_CHECKING:
    from hms_addons.engine.hook_chain import HookChain

LISTENER = Listener(
    name="peers", host="127.0.0.1", port=1, direction=Direction.INBOUND, routes=RouteTable()
)
CARD = {"name": "card", "regex": "[0-9]{13,19}", "replace": "****", "keep_last": 4}
PERSON = {"name": "person", "json_paths": ["$..ssn", "$.user.email", "$.items[*]['birth-day']"]}
JSON = (b"Content-Type", b"application/json")
TEXT = (b"Content-Type", b"text/plain")
SECRET = "4111111111111111"


def snapshot(**options: Any) -> Snapshot:
    written = {"rules": [CARD, PERSON]} | options
    return Snapshot(version="1", source="test", plugins={"redact": written})


def chain_of(plugin: Redact, current: Snapshot) -> HookChain:
    plugins = PluginManager()
    plugins.register(plugin, "redact")
    plugins.configure(current, None)
    return plugins.compile_chain(Random(1), snapshot=current)


def exchange_of(
    current: Snapshot,
    body: bytes = b"",
    *fields: tuple[bytes, bytes],
    method: bytes = b"POST",
    service: str = "records",
) -> Exchange:
    request = tutils.treq(method=method, content=body, headers=fields)
    exchange = Exchange(tflow.tflow(req=request), current, LISTENER, started=0.0)
    exchange.head = {name.lower(): value for name, value in fields}
    exchange.route = Route(
        name="all", listener="peers", clusters=(WeightedCluster(cluster="a"),), service=service
    )
    return exchange


async def answered(
    body: bytes | BodyStream, *fields: tuple[bytes, bytes], status: int = 200, **options: Any
) -> Answer:
    """What becomes of an answer, in the chain that a sidecar would run."""
    current = snapshot(**options)
    exchange = exchange_of(current)
    exchange.answer = Answer(status, b"OK", fields or (JSON,), body)
    await chain_of(Redact(), current).respond(exchange)
    assert exchange.answer is not None
    return exchange.answer


async def requested(body: bytes, *fields: tuple[bytes, bytes], **options: Any) -> Exchange:
    current = snapshot(requests=True, **options)
    exchange = exchange_of(current, body, *(fields or (JSON,)))
    plugin = Redact()
    plugin.hms_configure(current)
    waits = plugin.hms_prepare(exchange)
    if waits is not None:
        await waits
    return exchange


def stream(*pieces: bytes, ended: bool = True) -> BodyStream:
    made = BodyStream(lambda: None, lambda: None)
    for piece in pieces:
        made.feed(piece)
    if ended:
        made.feed_eof(((b"X-Sum", b"1"),))
    return made


def withheld(answer: Answer, why: str) -> bool:
    assert isinstance(answer.body, bytes)
    return (answer.status, answer.local) == (502, True) and why in json.loads(answer.body)["detail"]


# -- what is replaced ------------------------------------------------------------------------------


async def test_a_text_loses_what_a_regex_matches() -> None:
    answer = await answered(f"card {SECRET}, and 12.".encode(), TEXT)
    assert answer.body == b"card ****1111, and 12."
    assert answer.length == len(answer.body)


async def test_json_loses_what_paths_name_and_regexes_match() -> None:
    document = {
        "user": {"email": "ann@example.org", "ssn": {"whole": 1}, "age": 30},
        "items": [{"birth-day": "1.1.", "n": 1.5}, {"note": f"paid by {SECRET}"}],
        "number": int(SECRET),
        SECRET: None,
        "ok": True,
    }
    answer = await answered(json.dumps(document).encode())
    assert json.loads(answer.body) == {  # type: ignore[arg-type]
        "user": {"email": "[redacted]", "ssn": "[redacted]", "age": 30},
        "items": [{"birth-day": "[redacted]", "n": 1.5}, {"note": "paid by ****1111"}],
        "number": "****1111",
        "****1111": None,
        "ok": True,
    }


async def test_escapes_hide_nothing() -> None:
    hidden = "".join(f"\\u{ord(digit):04x}" for digit in SECRET)
    answer = await answered(f'{{"a": "{hidden}"}}'.encode())
    assert json.loads(answer.body) == {"a": "****1111"}  # type: ignore[arg-type]


async def test_a_repeated_key_hides_nothing() -> None:
    answer = await answered(b'{"user": {"email": "ann@example.org"}, "user": {}}')
    assert answer.body == b'{"user":{}}'


async def test_what_names_no_type_and_looks_like_json_is_read_as_json() -> None:
    other = (b"X-Other", b"1")
    answer = await answered(b'\n{"ssn": "1"}', other)
    assert answer.body == b'{"ssn":"[redacted]"}'
    assert withheld(await answered(b'{"ssn": "1", "x": NaN}', other), "no JSON")
    assert (await answered(b"12", other)).body == b"12"


@pytest.mark.parametrize(
    ("body", "fields", "why"),
    [
        (SECRET.encode("utf-16-le"), (TEXT,), "NUL"),
        (b"a", ((b"Content-Type", b"image/png"), JSON), "several content types"),
        (b"a", ((b"Content-Type", b"text/plain; charset=utf-8; charset=utf-7"),), "charset"),
        (b"a", ((b"Content-Type", b"text/plain; charset=utf-8; charset=latin1"),), "charset"),
    ],
)
async def test_what_can_be_read_in_two_ways_is_withheld(
    body: bytes, fields: tuple[tuple[bytes, bytes], ...], why: str
) -> None:
    assert withheld(await answered(body, *fields), why)


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        (b"br, GZIP;q=0.5", [b"gzip"]),
        (b"x-gzip", [b"gzip"]),
        (b"gzip; q=1.0, br", [b"gzip"]),
        (b"gzip;q=0, identity", []),
        (b"br, gzip ; q=0.000", []),
        (b"identity", []),
    ],
)
async def test_gzip_is_asked_for_only_where_the_client_takes_it(
    accepted: bytes, asked: list[bytes]
) -> None:
    exchange = exchange_of(snapshot(), b"", (b"Accept-Encoding", accepted))
    plugin = Redact()
    plugin.hms_configure(exchange.snapshot)
    plugin.hms_prepare(exchange)
    assert [value for _, value in exchange.fields] == asked


async def test_a_body_without_any_goes_out_as_it_came() -> None:
    body = b'{ "price": 1.10, "big": 123456789012 }\n'
    answer = await answered(body, JSON, (b"Digest", b"x"))
    assert answer.body is body
    assert get_field(answer.fields, b"digest") == b"x"


async def test_digests_of_the_old_bytes_go() -> None:
    answer = await answered(SECRET.encode(), TEXT, (b"Content-MD5", b"x"), (b"X-Other", b"y"))
    assert [name for name, _ in answer.fields] == [b"Content-Type", b"X-Other"]


async def test_a_byte_order_mark_hides_nothing() -> None:
    answer = await answered(b'\xef\xbb\xbf{"ssn": 1}')
    assert answer.body == b'{"ssn":"[redacted]"}'


@given(st.lists(st.text("ab 1", max_size=WINDOW // 8), max_size=12), st.integers(0, 40))
def test_windows_miss_nothing_and_invent_nothing(parts: list[str], shift: int) -> None:
    text = "x" * shift + f" {SECRET} ".join(part * 3 for part in parts)
    filler = "." * (WINDOW - 8)
    for whole in (text, filler + SECRET + text, filler + text + filler + SECRET):
        answer = asyncio.run(answered(whole.encode(), TEXT, max_size="16MiB"))
        expected = asyncio.run(_reference(whole))
        assert answer.body == expected


async def _reference(text: str) -> bytes:
    import re  # noqa: PLC0415 - the plain way, for comparison alone

    return re.sub("[0-9]{13,19}", lambda found: "****" + found[0][-4:], text).encode()


async def test_a_boundary_at_a_windows_end_is_none() -> None:
    rule = {"name": "word", "regex": r"\bsecret\b"}
    text = "." * (WINDOW - 6) + "secretly secret"
    answer = await answered(text.encode(), TEXT, rules=[rule])
    assert answer.body == ("." * (WINDOW - 6) + "secretly [redacted]").encode()


async def test_a_long_body_gives_others_a_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(other())
    documents = (b"." * WINDOW * 20, TEXT), (json.dumps(["."] * WINDOW * 3).encode(), JSON)
    for body, kind in documents:
        before = turns
        await answered(body, kind)
        assert turns > before + 3
    beside.cancel()


# -- codings and charsets --------------------------------------------------------------------------


async def test_gzip_is_unpacked_and_packed_again() -> None:
    packed = gzip.compress(b'{"ssn": 1}') + gzip.compress(b" ")
    answer = await answered(packed, JSON, (b"Content-Encoding", b"gzip"))
    assert isinstance(answer.body, bytes)
    assert gzip.decompress(answer.body) == b'{"ssn":"[redacted]"}'
    assert answer.length == len(answer.body)
    assert get_field(answer.fields, b"content-encoding") == b"gzip"


async def test_latin_1_stays_latin_1() -> None:
    kind = (b"Content-Type", b'text/plain; charset="ISO-8859-1"')
    answer = await answered(f"é {SECRET}".encode("latin-1"), kind)
    assert answer.body == "é ****1111".encode("latin-1")


BAD: dict[str, tuple[bytes, tuple[tuple[bytes, bytes], ...], str]] = {
    "not JSON": (SECRET.encode() + b"}", (JSON,), "no JSON"),
    "NaN": (b'{"a": NaN, "ssn": 1}', (JSON,), "no JSON"),
    "too deep": (b"[" * 200_000, (JSON,), "no JSON"),
    "number": (b'{"ssn": 1, "n": 1e999}', (JSON,), "number out of range"),
    "brotli": (b"x", (TEXT, (b"Content-Encoding", b"br")), "Content-Encoding"),
    "two codings": (b"x", (TEXT, (b"Content-Encoding", b"gzip, gzip")), "Content-Encoding"),
    "no gzip": (b"x" * 30, (TEXT, (b"Content-Encoding", b"gzip")), "no gzip"),
    "cut gzip": (
        gzip.compress(b"x" * 99)[:-9],
        (TEXT, (b"Content-Encoding", b"gzip")),
        "cut short",
    ),
    "many members": (
        gzip.compress(b"") * 17,
        (TEXT, (b"Content-Encoding", b"gzip")),
        "too many members",
    ),
    "gzip bomb": (
        gzip.compress(b"x" * 2_000_000),
        (TEXT, (b"Content-Encoding", b"gzip")),
        "too long",
    ),
    "charset": (b"x", ((b"Content-Type", b"text/plain; charset=utf-7"),), "charset"),
    "not UTF-8": (b"\xff", (TEXT,), "charset"),
    "no type": (b"\xff", ((b"X-Any", b"1"),), "charset"),
    "too long": (b"x" * (1024 * 1024 + 1), (TEXT,), "too long"),
}


@pytest.mark.parametrize(("body", "fields", "why"), BAD.values(), ids=BAD)
async def test_what_cannot_be_looked_at_is_withheld(
    body: bytes, fields: tuple[tuple[bytes, bytes], ...], why: str
) -> None:
    assert withheld(await answered(body, *fields), why)
    refused = (await requested(body, *fields)).failure
    assert refused is not None
    assert refused.status in {400, 413, 415}
    assert why in refused.detail


async def test_what_replaces_must_fit_the_charset() -> None:
    rule = CARD | {"replace": "…"}
    kind = (b"Content-Type", b"text/plain; charset=us-ascii")
    assert withheld(await answered(SECRET.encode(), kind, rules=[rule]), "charset")


async def test_gzip_can_be_refused() -> None:
    packed = (gzip.compress(b"x"), TEXT, (b"Content-Encoding", b"gzip"))
    assert withheld(await answered(*packed, encoded="refuse"), "Content-Encoding")


async def test_a_part_of_something_is_withheld() -> None:
    assert withheld(await answered(b"4111", TEXT, status=206), "part")


async def test_nothing_of_a_body_is_logged_or_told(caplog: pytest.LogCaptureFixture) -> None:
    for body, fields, _ in BAD.values():
        answer = await answered(SECRET.encode() + body, *fields)
        assert isinstance(answer.body, bytes)
        assert SECRET.encode() not in answer.body
    assert SECRET not in caplog.text


async def test_a_fault_of_its_own_withholds_the_answer_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, text: str) -> None:
        raise ValueError(text)

    monkeypatch.setattr("hms_plugin_redact.rules.Rules.text", fail)
    for body in (SECRET, SECRET * WINDOW):
        assert withheld(await answered(body.encode(), TEXT), "could not be looked at")
    assert SECRET not in caplog.text
    assert "ValueError" in caplog.text


# -- which messages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "looked_at"),
    [
        (b"application/problem+json", True),
        (b"text/html; charset=utf-8", True),
        (b"APPLICATION/JSON", True),
        (b"image/png", False),
        (b"application/octet-stream", False),
    ],
)
async def test_bodies_of_these_types_are_looked_at(kind: bytes, looked_at: bool) -> None:  # noqa: FBT001 - parametrised
    body = f'"{SECRET}"'.encode()
    assert (await answered(body, (b"Content-Type", kind))).body == (
        b'"****1111"' if looked_at else body
    )


async def test_other_services_and_directions_pass() -> None:
    for options in ({"services": ["other"]}, {"direction": "outbound"}, {"responses": False}):
        answer = await answered(SECRET.encode(), TEXT, **{"requests": True} | options)
        assert answer.body == SECRET.encode()


async def test_the_meshs_own_answers_pass() -> None:
    current = snapshot()
    exchange = exchange_of(current)
    exchange.answer = Answer(503, b"", (TEXT,), SECRET.encode(), local=True)
    await chain_of(Redact(), current).respond(exchange)
    assert exchange.answer.body == SECRET.encode()


async def test_an_answer_to_head_tells_no_length() -> None:
    current = snapshot()
    exchange = exchange_of(current, method=b"HEAD")
    exchange.answer = Answer(200, b"OK", (JSON,), b"", length=50)
    await chain_of(Redact(), current).respond(exchange)
    assert (exchange.answer.status, exchange.answer.length) == (200, None)


async def test_the_service_is_asked_for_what_can_be_looked_at() -> None:
    fields = ((b"Accept-Encoding", b"gzip, br"), (b"Range", b"bytes=0-3"), (b"Accept", b"*/*"))
    exchange = await requested(b"", *fields)
    assert exchange.fields == ((b"Accept", b"*/*"), (b"Accept-Encoding", b"gzip"))
    exchange = await requested(b"", *fields, encoded="refuse")
    assert exchange.fields == ((b"Accept", b"*/*"),)


async def test_requests_are_redacted_where_wanted() -> None:
    exchange = await requested(b'{"ssn": 1}', JSON, (b"Digest", b"x"))
    assert (exchange.content, exchange.failure) == (b'{"ssn":"[redacted]"}', None)
    assert exchange.fields == (JSON,)
    long = await requested(SECRET.encode() + b"." * WINDOW, TEXT)
    assert long.content == b"****1111" + b"." * WINDOW


async def test_requests_that_stream_are_refused_or_passed() -> None:
    for options, status in (({}, 413), ({"streaming": "refuse"}, 413), ({"streaming": "pass"}, 0)):
        current = snapshot(requests=True, **options)
        exchange = exchange_of(current, b"", TEXT)
        exchange.body = stream(ended=False)
        plugin = Redact()
        plugin.hms_configure(current)
        assert plugin.hms_prepare(exchange) is None
        assert (0 if exchange.failure is None else exchange.failure.status) == status


# -- streaming answers -----------------------------------------------------------------------------


async def test_a_short_stream_is_held_and_looked_at() -> None:
    answer = await answered(stream(b"a 4111", b"111111111111 b"), TEXT)
    assert (answer.body, answer.trailers) == (b"a ****1111 b", ((b"X-Sum", b"1"),))
    assert answer.length == len(b"a ****1111 b")


async def test_a_long_stream_is_withheld_and_given_up() -> None:
    body = stream(b"x" * 600, b"x" * 600, ended=False)
    assert withheld(await answered(body, TEXT, max_size=1000), "too long")
    assert body.ended


async def test_a_stream_that_breaks_is_withheld() -> None:
    body = stream(b"half", ended=False)
    body.fail(ConnectionResetError("gone"))
    assert withheld(await answered(body, TEXT), "could not be looked at")


async def test_an_event_stream_is_withheld_at_once() -> None:
    body = stream(b"data: 1\n\n", ended=False)
    assert withheld(await answered(body, (b"Content-Type", b"text/event-stream")), "it streams")
    assert body.ended


async def test_streams_can_be_refused_or_passed() -> None:
    assert withheld(await answered(stream(b"x"), TEXT, streaming="refuse"), "it streams")
    body = stream(SECRET.encode())
    assert (await answered(body, TEXT, streaming="pass")).body is body


# -- options ---------------------------------------------------------------------------------------


def test_it_costs_nothing_where_nobody_has_configured_it() -> None:
    empty = Snapshot(version="1", source="test")
    assert "redact" not in repr(chain_of(Redact(), empty))
    assert not chain_of(Redact(), snapshot(requests=True, responses=False)).responds
    assert chain_of(Redact(), snapshot()).responds


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"rules": []}, "plugins.redact.rules"),
        ({"rules": [{"name": "a"}]}, r"plugins.redact.rules\[0\]: give either"),
        ({"rules": [CARD | {"json_paths": ["$.a"]}]}, r"rules\[0\]: give either"),
        ({"rules": [{"name": "a", "regex": "[0-9]+"}]}, r"rules\[0\].regex: .*bound what"),
        ({"rules": [{"name": "a", "regex": "(a+)+b"}]}, r"rules\[0\].regex"),
        ({"rules": [{"name": "a", "json_paths": ["a.b"]}]}, r"rules\[0\].json_paths\[0\]"),
        ({"rules": [PERSON | {"keep_last": 2}]}, r"rules\[0\].keep_last: goes with regex"),
        ({"rules": [CARD, CARD]}, r"rules\[1\].name: another rule"),
        ({"responses": False}, "plugins.redact: nothing is looked at"),
        ({"content_types": ["json"]}, r"plugins.redact.content_types\[0\]"),
        ({"max_size": "1GB"}, "plugins.redact.max_size"),
        ({"streaming": "ignore"}, "plugins.redact.streaming"),
        ({"rule": []}, "did you mean rules"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Redact().hms_configure(snapshot(**options))


def test_a_request_is_looked_at_by_the_rules_that_it_began_with() -> None:
    plugin = Redact()
    exchange = exchange_of(snapshot())
    exchange.answer = Answer(200, b"OK", (TEXT,), SECRET.encode())
    for number in range(3):
        plugin.hms_configure(snapshot(rules=[{"name": f"n{number}", "regex": "never"}]))
    assert plugin.hms_respond(exchange) is None
    assert exchange.answer.body == b"****1111"


# -- JSON paths ------------------------------------------------------------------------------------

DOCUMENT = {"a": {"b": [{"c": 1, "d e": 2}, {"c": 3}]}, "c": {"c": 4}, "é": 5}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("$.a.b[0].c", [1]),
        ("$.a.b[*].c", [1, 3]),
        ("$['a'].b[0][\"d e\"]", [2]),
        ("$..c", [1, 3, 4, {"c": 4}]),
        ("$..b[1].c", [3]),
        ("$.é", [5]),
        ("$.c.*", [4]),
        ("$.a.b[9].c", []),
        ("$.a[0]", []),
        ("$.none.c", []),
    ],
)
def test_paths_lead_where_rfc_9535_says(path: str, values: list[Any]) -> None:
    found = [holder[key] for holder, key in places(DOCUMENT, parse_path(path))]
    assert sorted(found, key=repr) == sorted(values, key=repr)


@pytest.mark.parametrize(
    "path", ["", "$", "a", "$a", "$.", "$..", "$.a[?(@.b)]", "$.a[0:2]", "$[-1]", "$.a.", "$...a"]
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(JsonPathError):
        parse_path(path)
