from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.identity import jwks_fetch
from hms_addons.identity.jwks_fetch import MAX_JWKS_BYTES, JwksFetchError, fetch_jwks
from hms_addons.identity.key_set import MAX_KEYS
from tests.fakes import pki
from tests.fakes.web_tls import web_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

URI = "http://id.example/keys?tenant=7"
RS256 = pki.jwt_key("RS256")
PRIVATE = {"kty": "RSA", "kid": "p", "n": "AQAB", "e": "AQAB", "d": "AQAB"}


def answering(content: bytes | str, status: int = 200, **headers: str) -> httpx.MockTransport:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.MockTransport(lambda _: httpx.Response(status, content=content, headers=named))


async def refusal(transport: httpx.MockTransport, uri: str = URI) -> str:
    with pytest.raises(JwksFetchError) as caught:
        await fetch_jwks(uri, None, transport)
    return str(caught.value)


async def test_the_keys_of_an_address_are_asked_for_unpacked_with_its_query() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=pki.jwks(RS256))

    fetched = await fetch_jwks(URI, None, httpx.MockTransport(answer))
    assert [key.key_id for key in fetched.keys.keys] == ["key-1"]
    assert fetched.max_age is None
    assert str(asked[0].url) == URI
    assert asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=300", 300.0),
        ("public, Max-Age=19845, must-revalidate", 19845.0),
        ('max-age="60"', 60.0),
        ("s-max-age=5", None),
        ("no-store", 0.0),
        ("max-age=300, no-cache", 0.0),
        ("max-age=soon", None),
        ("", None),
    ],
)
async def test_how_long_they_count_is_the_issuers_to_say(value: str, seconds: float | None) -> None:
    fetched = await fetch_jwks(URI, None, answering(pki.jwks(RS256), cache_control=value))
    assert fetched.max_age == seconds


@pytest.mark.parametrize(
    ("transport", "reason"),
    [
        (answering("", 503), "its status is 503, not 200"),
        (answering("", 204), "its status is 204, not 200"),
        (answering("", 302, location="file:///etc/passwd"), "it redirects (status 302)"),
        (answering("", 301, location="https://id.example/keys"), "write the final address"),
        (answering("<html>"), "not JSON"),
        (answering("[" * 200_000), "not JSON"),
        (answering('{"keys":' + '{"a":' * 200_000), "not JSON"),
        (answering('{"keys": [' + "9" * 10_000 + "]}"), "not JSON"),
        (answering("{}"), "list `keys`"),
        (answering('{"keys": []}'), "it is empty"),
        (answering(pki.jwks(*[RS256.jwk(kid=str(n)) for n in range(MAX_KEYS + 1)])), "101 keys"),
        (answering(pki.jwks(RS256, RS256)), "several keys with the id 'key-1'"),
        (answering(pki.jwks(PRIVATE)), "it is a private key"),
        (answering(pki.jwks(RS256.jwk(n="A" * 5000))), "`n` is longer than"),
        (answering(pki.jwks(pki.jwt_key("HS256"))), "publishes a shared secret"),
        (answering(gzip.compress(b"{}"), content_encoding="gzip"), "it is packed"),
    ],
)
async def test_what_is_no_public_jwk_set_is_refused(
    transport: httpx.MockTransport, reason: str
) -> None:
    assert reason in await refusal(transport)


async def test_a_private_key_beside_good_ones_is_left_out() -> None:
    fetched = await fetch_jwks(URI, None, answering(pki.jwks(RS256, PRIVATE)))
    assert [key.key_id for key in fetched.keys.keys] == ["key-1"]
    assert "replace this one" in fetched.keys.skipped[0]


async def test_of_ten_megabytes_no_more_than_one_is_read() -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 64 * 1024
            yield b" " * 64 * 1024

    endless = httpx.MockTransport(lambda _: httpx.Response(200, content=pieces()))
    assert f"larger than {MAX_JWKS_BYTES} bytes" in await refusal(endless)
    assert sent <= MAX_JWKS_BYTES + 2 * 64 * 1024


async def test_no_connection_is_told_in_words() -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    assert await refusal(httpx.MockTransport(broken)) == "ConnectError: connection refused"


async def test_it_can_be_cancelled_at_any_moment() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.ensure_future(fetch_jwks(URI, None, httpx.MockTransport(hang)))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_authorities_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(JwksFetchError, match=r"ca\.pem: .*No such file"):
        await fetch_jwks("https://id.example/keys", str(tmp_path / "ca.pem"))
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(JwksFetchError, match=r"ca\.pem: "):
        await fetch_jwks("https://id.example/keys", str(tmp_path / "ca.pem"))


async def serve(context: ssl.SSLContext, answer: bytes) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)


async def test_the_servers_certificate_is_verified(tmp_path: Path) -> None:
    ca_file, context = web_server(tmp_path)
    body = pki.jwks(RS256).encode()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    server = await serve(context, head + body)
    uri = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    async with server:
        fetched = await fetch_jwks(uri, str(ca_file))
        assert len(fetched.keys.keys) == 1
        with pytest.raises(JwksFetchError, match="certificate verify failed"):
            await fetch_jwks(uri, None)


def test_where_the_system_has_no_roots_certifis_are_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks_fetch, "_system_has_roots", lambda: False)
    assert jwks_fetch._trust(None).cert_store_stats()["x509_ca"] > 50
