"""Clients that people use, over every lane: curl, requests, httpx, http.client."""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests

from tests.integration.clients import curl
from tests.integration.servers import chunks, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Lane
    from tests.integration.servers import Upstream


@pytest.fixture(autouse=True)
def _forget(app: Upstream) -> None:
    app.requests.clear()


@pytest.fixture
def url(lane: Lane) -> str:
    return f"http://127.0.0.1:{lane.port}"


# -- curl ------------------------------------------------------------------------------------------


@pytest.mark.curl
def test_curl_gets(url: str) -> None:
    done = curl("-i", f"{url}/app/x?a=1&host=app.svc")
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert json.loads(body)["target"] == "/app/x?a=1"


@pytest.mark.curl
def test_curl_reuses_its_connection(url: str) -> None:
    out = ("-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n")
    done = curl(*out, f"{url}/app/1", *out, f"{url}/app/closed", *out, f"{url}/app/2")
    assert done.stdout.split() == ["200", "1", "403", "0", "200", "0"]


@pytest.mark.curl
def test_curl_heads(url: str) -> None:
    done = curl("-I", f"{url}/app/x", "-w", "%{http_code} %{size_download}")
    assert done.stdout.split()[-2:] == ["200", "0"]


@pytest.mark.curl
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_curl_uploads_with_expect_continue(
    url: str, app: Upstream, tmp_path: Path, size: int
) -> None:
    body = hashlib.sha512(b"seed").digest() * (size // 64) + b"."
    file = tmp_path / "body"
    file.write_bytes(body)
    done = curl("-v", "-H", "Expect: 100-continue", "--data-binary", f"@{file}", f"{url}/app/up")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["length"] == len(body)
    assert "< HTTP/1.1 100 Continue" in done.stderr
    got = app.one("/app/up")
    assert got.body == body
    assert got.header("expect") is None


@pytest.mark.curl
def test_curl_is_refused_before_it_sends_the_body(
    lane: Lane, url: str, app: Upstream, tmp_path: Path
) -> None:
    if lane.native:
        pytest.skip("native lane: mitmproxy itself says 100 Continue, before the mesh is asked")
    file = tmp_path / "body"
    file.write_bytes(bytes(5_000_000))
    done = curl(
        *("-H", "Expect: 100-continue", "-T", str(file), "-o", "/dev/null"),
        *("-w", "%{http_code} %{size_upload}", f"{url}/app/closed"),
    )
    assert done.stdout == "403 0"
    assert app.requests == []


@pytest.mark.curl
def test_curl_uploads_in_chunks(url: str, app: Upstream) -> None:
    body = b"0123456789" * 200_000
    done = curl("-T", "-", "-H", "Transfer-Encoding: chunked", f"{url}/app/up", data=body)
    assert json.loads(done.stdout)["length"] == len(body)
    assert app.one("/app/up").body == body


@pytest.mark.curl
def test_curl_speaks_http_1_0(url: str, app: Upstream) -> None:
    path = app.on("/app/chunks", chunks(b"old ", b"times"))
    done = curl("--http1.0", "-i", f"{url}{path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("old times")
    assert "chunked" not in done.stdout


@pytest.mark.curl
def test_curl_is_told_at_once_that_this_is_not_http_2(lane: Lane, url: str, app: Upstream) -> None:
    done = curl("--http2-prior-knowledge", "--max-time", "5", "-v", f"{url}/app/x")
    assert done.returncode not in {0, 28}, done.stdout  # 28: timed out
    assert app.requests == []
    if not lane.native:
        assert "GOAWAY, error=13" in done.stderr, done.stderr  # HTTP_1_1_REQUIRED


@pytest.mark.curl
def test_curl_that_offers_http_2_is_answered_in_http_1(url: str, app: Upstream) -> None:
    first = ("--http2", "-i", f"{url}/app/x")
    done = curl(*first, "--next", "--silent", "--http2", "-i", "-d", "body", f"{url}/app/y")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("HTTP/1.1 200 OK") == 2
    for request in app.requests:
        assert request.header("upgrade") is None
        assert request.header("http2-settings") is None
    assert app.one("/app/y").body == b"body"


@pytest.mark.curl
def test_curl_uses_it_as_a_proxy(lane: Lane, url: str) -> None:
    done = curl("-x", url, "http://app.svc/app/x")
    assert json.loads(done.stdout)["target"] == "/app/x"
    done = curl("-x", url, "https://app.svc/app/x")
    assert done.returncode == 56, done.stderr  # the proxy refuses CONNECT
    assert ("405" if not lane.native else "40") in done.stderr
    done = curl("-x", url, "-o", "/dev/null", "-w", "%{http_code}", "http://example.com/app2")
    assert done.stdout == "404", "no open proxy"


@pytest.mark.curl
def test_curl_decodes_what_the_upstream_encoded(url: str, app: Upstream) -> None:
    import gzip  # noqa: PLC0415 - only here

    packed = gzip.compress(b"plain text " * 100)
    path = app.on("/app/gzip", status(200, "Content-Encoding: gzip", body=packed))
    assert curl("--compressed", f"{url}{path}").stdout == "plain text " * 100
    assert curl("-o", "/dev/null", "-w", "%{size_download}", f"{url}{path}").stdout == str(
        len(packed)
    )


# -- requests --------------------------------------------------------------------------------------


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_requests(url: str, session: requests.Session, app: Upstream) -> None:
    answer = session.get(f"{url}/app/x", params={"host": "app.svc", "q": "ä b"})
    assert answer.json()["target"] == "/app/x?q=%C3%A4+b"
    answer = session.post(f"{url}/app/form", data={"a": "1"}, timeout=10)
    assert app.one("/app/form").body == b"a=1"
    answer = session.get(f"{url}/app/closed", timeout=10)
    assert answer.status_code == 403
    assert answer.json()["flag"] == "RBAC"
    assert len({request.connection for request in app.requests}) == 1


def test_requests_streams_both_ways(url: str, session: requests.Session, app: Upstream) -> None:
    answer = session.post(f"{url}/app/gen", data=(b"%d," % n for n in range(1000)), timeout=10)
    assert answer.status_code == 200
    assert app.one("/app/gen").body == b"".join(b"%d," % n for n in range(1000))
    path = app.on("/app/stream", chunks(*(b"line %d\n" % n for n in range(500))))
    with session.get(f"{url}{path}", stream=True, timeout=10) as answer:
        assert list(answer.iter_lines()) == [b"line %d" % n for n in range(500)]


def test_many_threads_at_once(url: str, app: Upstream) -> None:
    def work(worker: int) -> set[int]:
        found = set()
        with requests.Session() as session:
            session.trust_env = False
            for n in range(10):
                answer = session.put(f"{url}/app/w{worker}-{n}", data=b"x" * n * 1000, timeout=20)
                assert answer.json()["length"] == n * 1000
                assert answer.json()["target"] == f"/app/w{worker}-{n}"
                found.add(answer.status_code)
        return found

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert set().union(*pool.map(work, range(16))) == {200}
    assert len(app.requests) == 160


# -- httpx, http.client ----------------------------------------------------------------------------


def test_httpx(url: str, app: Upstream) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        assert client.get("/app/x").json()["target"] == "/app/x"
        assert client.post("/app/json", json={"a": [1, 2]}).status_code == 200
        assert app.one("/app/json").body == b'{"a":[1,2]}'
        path = app.on("/app/stream", chunks(b"a" * 1000, b"b" * 1000))
        with client.stream("GET", path) as answer:
            assert b"".join(answer.iter_bytes()) == b"a" * 1000 + b"b" * 1000
        refused = client.get("/dead")
        assert (refused.status_code, refused.headers["x-hms-flag"]) == (503, "UF")
        assert refused.headers["content-type"] == "application/problem+json"


async def test_httpx_async_many_at_once(url: str) -> None:
    import asyncio  # noqa: PLC0415 - only here

    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=20, limits=limits
    ) as client:
        answers = await asyncio.gather(*(client.get(f"/app/{n}") for n in range(60)))
    assert [answer.json()["target"] for answer in answers] == [f"/app/{n}" for n in range(60)]


def test_http_client(lane: Lane, app: Upstream) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", lane.port, timeout=10)
    try:
        shown: Any = None
        for body in (None, b"held", iter([b"in ", b"chunks"])):
            connection.request("POST", "/app/x", body=body, encode_chunked=True)
            shown = json.loads(connection.getresponse().read())
        assert shown["body"] == "in chunks"
        connection.request("HEAD", "/app/x")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.request("GET", "/app/x")
        assert connection.getresponse().read()
    finally:
        connection.close()
    assert len({request.connection for request in app.requests}) == 1
