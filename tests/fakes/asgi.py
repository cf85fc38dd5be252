"""A small ASGI application, for tests of what carries one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hms_addons.control.auth import NOBODY, Peer
from hms_addons.control.server_protocol import PEER

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class Echo:
    """Answers with the method, the path, the caller's SPIFFE ID and the body's size.

    Paths that begin with `/wait` are answered once `released` is set; `/early` is answered before
    its body is read.
    """

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.waiting = 0
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        self.scopes.append(scope)
        size = 0
        if scope["path"] != "/early":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
        if scope["path"].startswith("/wait"):
            self.waiting += 1
            await self.released.wait()
        answer = f"{scope['method']} {scope['path']} {name_of(scope)} {size}".encode()
        headers: list[Any] = [(b"content-length", b"%d" % len(answer))]
        if scope["path"] == "/early":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def name_of(scope: Scope) -> str:
    """Who is at the other end of the connection."""
    peer: Peer = scope.get("extensions", {}).get(PEER, {}).get("peer", NOBODY)
    return peer.problem or (str(peer.leaf.spiffe_id) if peer.leaf else "nobody")


class From:
    """An application whose every request seems to come over a connection of this peer."""

    def __init__(self, app: Any, peer: Peer) -> None:
        self.app = app
        self.peer = peer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        scope.setdefault("extensions", {})[PEER] = {"peer": self.peer}
        await self.app(scope, receive, send)
