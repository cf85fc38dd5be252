from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.admin_lane import AdminLane
from hms_addons.engine.http1_server import Http1Server
from hms_addons.http_message import Answer
from tests.fakes.clock import FakeClock
from tests.fakes.lane import read_responses, settle
from tests.fakes.transport import FakeTransport

if TYPE_CHECKING:
    from hms_addons.hookspecs import AdminRequest
    from tests.fakes.lane import Response


class Port:
    """An admin port without a socket; its handler keeps what it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[AdminRequest] = []
        self.lane = AdminLane(self._handle)
        self.connection = Http1Server(self.lane, FakeClock())
        self.transport = FakeTransport(self.connection)

    async def _handle(self, request: AdminRequest) -> Answer:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return Answer(200, b"OK", ((b"Content-Type", b"text/plain"),), b"fine\n", local=True)

    async def send(self, data: bytes) -> list[Response]:
        self.connection.data_received(data)
        await settle()
        return read_responses(bytes(self.transport.sent), ended=self.transport.is_closing())


@pytest.fixture
async def port() -> Port:
    return Port()


async def test_the_handler_sees_the_request_and_answers_it(port: Port) -> None:
    [response] = await port.send(
        b"POST /config?a=1&b=&a=2 HTTP/1.1\r\nHost: x\r\nX-Who: me\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert (response.status, response.body) == (200, b"fine\n")
    [asked] = port.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/config", b"body")
    assert asked.query == {"a": "2", "b": ""}
    assert asked.query_list == [("a", "1"), ("b", ""), ("a", "2")]
    assert asked.headers["x-who"] == "me"


async def test_a_connection_takes_one_request_after_another(port: Port) -> None:
    request = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
    assert [r.status for r in await port.send(request * 2)] == [200, 200]
    assert repr(port.lane) == "<AdminLane connections=1>"
    port.transport.leave()
    await settle()
    assert not port.lane.connections


async def test_a_streamed_body_is_refused_unread(port: Port) -> None:
    [response] = await port.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
    )
    assert response.status == 413
    assert "streamed" in json.loads(response.body)["detail"]
    assert port.asked == []


async def test_a_body_over_the_limit_is_refused(port: Port) -> None:
    length = 1024 * 1024 + 1
    [response] = await port.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
    )
    assert response.status == 413
    assert port.asked == []


async def test_a_handler_that_fails_is_a_500_that_tells_no_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = Port(RuntimeError("password=hunter2"))
    [response] = await port.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 500
    assert b"hunter2" not in response.body
    assert json.loads(response.body)["flag"] == "PE"
    assert "hunter2" in caplog.text, "it is for the log"


@pytest.mark.parametrize("target", [b"/%zz", b"/a%00b"])
async def test_a_bad_target_is_refused(port: Port, target: bytes) -> None:
    [response] = await port.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 400
    assert port.asked == []


async def test_a_malformed_request_is_refused(port: Port) -> None:
    [response] = await port.send(b"nonsense\r\n\r\n")
    assert response.status == 400
    port.transport.leave()
    await settle()
    assert not port.lane.connections
