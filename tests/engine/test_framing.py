"""Which requests are well formed, and where their bodies end."""

from __future__ import annotations

import pytest

from hms_addons.config.snapshot import Limits
from hms_addons.engine import framing as module
from hms_addons.engine.framing import (
    HTTP2_REFUSAL,
    RequestHead,
    body_too_large,
    check_head,
    index_fields,
    tunnelled_protocols,
)

HOST = (b"Host", b"auth-svc.svc")


def head(*fields: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/") -> RequestHead:
    return RequestHead(method, target, list(fields))


def status(request: RequestHead, version: str = "1.1", **limits: int) -> int | None:
    failure = check_head(request, version, Limits(**limits))
    if failure is None:
        return None
    assert failure.close
    return failure.status


def test_an_ordinary_request_passes() -> None:
    request = head(HOST, (b"Accept", b"*/*"))
    assert status(request) is None
    assert request.head == {b"host": b"auth-svc.svc", b"accept": b"*/*"}
    assert not request.has_body


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), 400),
        ((HOST, HOST), 400),
        (((b"Host", b"a b"),), 400),
        (((b"Host", b"user@evil"),), 400),
        (((b"Host", b"[::1]:80"),), None),
        (((b"Host", b""),), None),
        ((HOST, (b"Content-Length", b"1"), (b"Content-Length", b"1")), 400),
        ((HOST, (b"Content-Length", b"-1")), 400),
        ((HOST, (b"Content-Length", b"1e3")), 400),
        ((HOST, (b"Content-Length", b"9" * 19)), 400),
        ((HOST, (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")), 400),
        ((HOST, (b"Transfer-Encoding", b"gzip, chunked")), 400),
        ((HOST, (b"Transfer-Encoding", b"identity")), 400),
        ((HOST, (b"Transfer-Encoding", b"CHUNKED")), None),
        ((HOST, (b"Authorization", b"a"), (b"authorization", b"b")), 400),
        ((HOST, (b"Expect", b"200-ok")), 417),
        ((HOST, (b"Cookie", b"a=1"), (b"Cookie", b"b=2")), None),
    ],
)
def test_fields(fields: tuple[tuple[bytes, bytes], ...], expected: int | None) -> None:
    assert status(head(*fields)) == expected


def test_http_1_0_needs_no_host_and_knows_no_chunks() -> None:
    request = head()
    assert status(request, "1.0") is None
    assert request.minor == 0
    assert status(head((b"Transfer-Encoding", b"chunked")), "1.0") == 400


@pytest.mark.parametrize("version", ["0.9", "2.0"])
def test_other_versions_are_refused(version: str) -> None:
    assert status(head(HOST), version) == 505


def test_connect_is_refused() -> None:
    assert status(head(HOST, method=b"CONNECT", target=b"a:80")) == 405


def test_limits() -> None:
    assert status(head(HOST, *[(b"X", b"1")] * 100)) == 431
    assert status(head(HOST, *[(b"X%d" % n, b"1") for n in range(99)])) is None
    assert status(head(HOST, target=b"/" + b"a" * 8192)) == 414
    assert status(head(HOST, target=b"/" + b"a" * 8191)) is None
    assert status(head(HOST, (b"Content-Length", b"11")), max_body=10) == 413
    assert status(head(HOST, (b"Content-Length", b"10")), max_body=10) is None


def test_a_body_of_no_bytes_is_none_and_is_not_waited_for() -> None:
    request = head(HOST, (b"Content-Length", b"0"), (b"Expect", b"100-continue"))
    assert status(request) is None
    assert not request.has_body
    assert not request.expect_continue


def test_expect_is_for_http_1_1_with_a_body() -> None:
    fields = (HOST, (b"Content-Length", b"5"), (b"Expect", b"100-Continue"))
    request = head(*fields)
    assert status(request) is None
    assert request.expect_continue
    old = head(*fields)
    assert status(old, "1.0") is None
    assert not old.expect_continue


def test_repeated_fields_are_joined_as_their_grammar_allows() -> None:
    found = index_fields(
        [(b"Accept", b"a"), (b"ACCEPT", b"b"), (b"Cookie", b"x=1"), (b"cookie", b"y=2")]
    )
    assert found == {b"accept": b"a, b", b"cookie": b"x=1; y=2"}


def test_the_refusal_of_http_2_is_settings_then_goaway() -> None:
    settings, goaway = HTTP2_REFUSAL[:9], HTTP2_REFUSAL[9:]
    assert settings == bytes(3) + b"\x04" + bytes(5)
    assert int.from_bytes(goaway[:3]) == len(goaway) - 9
    assert goaway[3] == 7
    assert int.from_bytes(goaway[13:17]) == 13  # HTTP_1_1_REQUIRED


def test_too_large_names_the_limit() -> None:
    failure = body_too_large(10)
    assert failure.status == 413
    assert "10 bytes" in failure.detail


def test_hosts_are_remembered_within_bounds() -> None:
    for number in range(3 * module._KNOWN_HOSTS):
        assert status(head((b"Host", b"a%d.example:80" % number))) is None
    assert status(head((b"Host", b"a" * 10_000))) is None
    assert len(module._known_hosts) <= module._KNOWN_HOSTS
    assert max(map(len, module._known_hosts)) <= module._KNOWN_LENGTH
    for _ in range(2):
        assert status(head((b"Host", b"a b"))) == 400


@pytest.mark.parametrize(
    ("offer", "kept"),
    [
        (b"websocket", b"websocket"),
        (b"websocket,\tfoo/2 ", b"websocket, foo/2"),
        (b"foo, h2c, bar", b"foo, bar"),
        (b"H2C-14,foo", b"foo"),
        (b"h2", b"h2"),
        (b"h2c", None),
        (b",h2c", None),
        (b"h2c, H2C", None),
        (b" , ", None),
        (b"", None),
    ],
)
def test_h2c_is_never_tunnelled_wherever_it_stands(offer: bytes, kept: bytes | None) -> None:
    assert tunnelled_protocols(offer) == kept
