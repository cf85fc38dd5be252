"""A control plane's port with answers of the test's own behind it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.server import ControlServer
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.listening import listen
from hms_addons.tasks import TaskSet
from tests.fakes import pki

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from hms_addons.identity.svid import Svid
    from hms_addons.identity.trust_bundle import TrustBundle

type Answers = dict[tuple[str, str], tuple[int, Any]]


class Scripted:
    """Answers each method and path as told, `/v1/bundle` with the trust bundle.

    Attributes:
        answers: status and JSON by method and path; a list is given out one by one, its last again.
        asked: method, path with query, headers and body of each request.
    """

    def __init__(self, answers: Answers, bundle: TrustBundle) -> None:
        self.answers = answers
        self.bundle = bundle
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        method, path = scope["method"], scope["path"]
        query = scope["query_string"].decode()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((method, f"{path}?{query}" if query else path, headers, body))
        extra: list[tuple[bytes, bytes]] = []
        if path == "/v1/bundle":
            status, answer = 200, self.bundle.to_spiffe_json().encode()
            extra.append((b"x-hms-trust-domain", self.bundle.trust_domain.encode()))
        else:
            status, content = self._next(method, path)
            if isinstance(content, dict) and "etag" in content:
                extra.append((b"etag", content.pop("etag").encode()))
            answer = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status == 429:
            extra.append((b"retry-after", b"7"))
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": status, "headers": [length, *extra]})
        await send({"type": "http.response.body", "body": answer})

    def _next(self, method: str, path: str) -> tuple[int, Any]:
        status, content = self.answers[method, path]
        if isinstance(content, list):
            content = content.pop(0) if len(content) > 1 else content[0]
        return status, dict(content) if isinstance(content, dict) else content

    def tokens(self) -> set[str]:
        """What was sent as credentials."""
        return {
            headers["authorization"] for *_, headers, _ in self.asked if "authorization" in headers
        }


def control_svid() -> Svid:
    """The SVID of a control plane of `pki.ca()`."""
    return pki.ca().issue(SpiffeId(pki.TRUST_DOMAIN, "/hms/control"))


def pin_of(bundle: TrustBundle) -> str:
    """What `--ca-pin` takes."""
    return f"sha256:{bundle.fingerprints()[0]}"


@asynccontextmanager
async def scripted(
    answers: Answers,
    *,
    svid: Svid | None = None,
    bundle: TrustBundle | None = None,
    told: TrustBundle | None = None,
) -> AsyncIterator[tuple[str, Scripted]]:
    """A server on a free port, and its URL.

    Args:
        answers: see `Scripted`.
        svid: what it shows; default a control plane's.
        bundle: what it trusts.
        told: the bundle that it tells.
    """
    trusted = bundle or pki.bundle()
    app = Scripted(answers, told or trusted)
    server = ControlServer(app, SYSTEM_CLOCK)
    server.use(svid or control_svid(), trusted)
    listening = listen("test", "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    tasks = TaskSet("scripted control plane")
    serving = tasks.start(server.run_on(listening), "server")
    await server.ready.wait()
    try:
        yield url, app
    finally:
        server.stop()
        await asyncio.wait({serving}, timeout=10)
        await tasks.close()
