from __future__ import annotations

import asyncio

import httpx
import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control_client.failures import ControlUntrustedError
from hms_addons.errors import MeshError
from hms_addons.operator_client.client import OperatorClient, OperatorError, RefusedError
from tests.fakes import pki
from tests.fakes.control_server import Answers, pin_of, scripted

TOKEN = "hmsadm1.the-admin-token"
PIN = pin_of(pki.bundle())
CONFIG: Answers = {("GET", "/v1/config"): (200, {"version": 3, "etag": '"3"'})}


def client_of(url: str, pin: str = PIN, token: str = TOKEN) -> OperatorClient:
    return OperatorClient(url, token, pin, SYSTEM_CLOCK)


async def test_it_makes_contact_by_the_pin_and_then_shows_the_token() -> None:
    async with scripted(CONFIG) as (url, app), client_of(url) as client:
        answer = await client.ask("GET", "/v1/config", params={"a": "b c"})
        assert (answer.status, answer.version, answer.json()) == (200, 3, {"version": 3})
    assert [(method, path) for method, path, *_ in app.asked] == [
        ("GET", "/v1/bundle"),
        ("GET", "/v1/config?a=b+c"),
    ]
    assert "authorization" not in app.asked[0][2]
    assert app.asked[1][2]["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(client)


async def test_a_control_plane_of_another_ca_is_not_believed() -> None:
    other = pin_of(CertificateAuthority.create("mpsa.mil").bundle)
    async with scripted(CONFIG) as (url, app):
        with pytest.raises(ControlUntrustedError, match="is not the control plane that was pinned"):
            await client_of(url, other).__aenter__()
    assert not app.tokens()


async def test_a_sidecar_of_the_mesh_cannot_play_the_control_plane() -> None:
    async with scripted(CONFIG, svid=pki.svid("auth-svc")) as (url, app), client_of(url) as client:
        with pytest.raises(OperatorError, match="cannot prove to be the control plane.*no token"):
            await client.ask("GET", "/v1/config")
    assert not app.tokens()


async def test_a_root_that_is_told_beside_the_pinned_one_is_not_believed_either() -> None:
    """Whoever is in between may tell the true root, and one of its own with it."""
    liar = CertificateAuthority.create("mpsa.mil")
    shown = pki.svid("control", authority=liar)
    told = pki.bundle().with_roots(liar.bundle.roots)
    async with (
        scripted(CONFIG, svid=shown, bundle=liar.bundle, told=told) as (url, app),
        client_of(url) as client,
    ):
        with pytest.raises(OperatorError, match="cannot prove to be the control plane"):
            await client.ask("GET", "/v1/config")
    assert not app.tokens()


async def test_a_refusal_carries_what_the_control_plane_says() -> None:
    problem = {"status": 412, "detail": "version 4\x1b[31m is in force", "problems": [1]}
    async with (
        scripted({("PUT", "/v1/config"): (412, problem)}) as (url, _),
        client_of(url) as client,
    ):
        with pytest.raises(RefusedError) as caught:
            await client.ask("PUT", "/v1/config", json={})
    assert (caught.value.status, caught.value.document) == (412, problem)
    assert str(caught.value).endswith(": version 4 [31m is in force")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"{"])
async def test_a_refusal_without_problem_details_is_one_too(body: bytes) -> None:
    async with scripted({("GET", "/v1/config"): (503, body)}) as (url, _), client_of(url) as client:
        with pytest.raises(RefusedError, match="it answered with 503"):
            await client.ask("GET", "/v1/config")


async def test_being_too_fast_says_when_to_come_again() -> None:
    async with scripted({("GET", "/v1/config"): (429, {})}) as (url, _), client_of(url) as client:
        with pytest.raises(RefusedError, match="try again in 7 s"):
            await client.ask("GET", "/v1/config")


async def test_an_answer_that_is_no_json_is_said_to_be_none() -> None:
    async with (
        scripted({("GET", "/v1/config"): (200, b"<html>")}) as (url, _),
        client_of(url) as client,
    ):
        answer = await client.ask("GET", "/v1/config")
        assert answer.version is None
        with pytest.raises(OperatorError, match="not JSON"):
            answer.json()


async def test_an_error_without_words_is_told_by_its_name() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("", request=request)

    client = client_of("https://control.test")
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    with pytest.raises(OperatorError, match="cannot be reached: ReadError$"):
        await client.ask("GET", "/v1/config")
    await client.__aexit__(None, None, None)


async def test_nobody_there() -> None:
    with pytest.raises(OperatorError, match=r"https://127\.0\.0\.1:1 cannot be reached"):
        await client_of("https://127.0.0.1:1").__aenter__()


async def test_a_port_that_speaks_no_tls() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OperatorError, match="does not speak TLS"):
            await client_of(f"https://127.0.0.1:{port}").__aenter__()


@pytest.mark.parametrize(
    ("url", "pin", "token"),
    [
        ("http://127.0.0.1:15010", PIN, TOKEN),
        ("https://user@127.0.0.1", PIN, TOKEN),
        ("https://127.0.0.1:15010", "sha256:beef", TOKEN),
        ("https://127.0.0.1:15010", PIN, "two words"),
        ("https://127.0.0.1:15010", PIN, "line\nbreak"),
    ],
    # The pin is another in each process, and names of tests must not be.
    ids=["plain", "user", "short pin", "two words", "line break"],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(url: str, pin: str, token: str) -> None:
    with pytest.raises(MeshError):
        client_of(url, pin, token)
