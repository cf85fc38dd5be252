"""Flows as a sidecar has built them, for tests of what shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, HTTPFlow, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqb2UifQ.c2lnbmF0dXJl"


def make_flow(
    target: str = "/verify-id",
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    status: int | None = 200,
    response_headers: Iterable[tuple[str, str]] = (),
    answer: bytes = b"hello",
) -> HTTPFlow:
    """One that has ended; `status` None: without an answer."""
    flow = HTTPFlow(
        Client(peername=("127.0.0.1", 40000), sockname=("127.0.0.1", 15001)), Server(address=None)
    )
    flow.live = False
    fields = [
        (name.encode(), value.encode()) for name, value in (("Host", "auth-svc.svc"), *headers)
    ]
    flow.request = Request.make(method, f"http://auth-svc.svc{target}", body, Headers(fields))
    if status is not None:
        fields = [(name.encode(), value.encode()) for name, value in response_headers]
        flow.response = Response.make(status, answer, Headers(fields))
    return flow
