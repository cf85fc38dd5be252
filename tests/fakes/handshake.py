"""A TLS handshake in memory."""

from __future__ import annotations

import ssl
from typing import NamedTuple


class Handshake(NamedTuple):
    """Both ends of a finished one."""

    client: ssl.SSLObject
    server: ssl.SSLObject


def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> Handshake:
    """Handshake in memory; raises what the side that refuses raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = Handshake(
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(ends)
    for _ in range(20):
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
        if not waiting:
            return ends
    raise AssertionError("the handshake does not end")
