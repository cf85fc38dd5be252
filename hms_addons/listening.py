"""Listening sockets, and why one cannot be had."""

from __future__ import annotations

import errno
import socket
from typing import Final

from hms_addons.errors import MeshError

BACKLOG: Final = 2048


class ListenError(MeshError):
    """A port cannot be listened on; says which, why, and what to do."""


def listen(who: str, host: str, port: int) -> socket.socket:
    """A socket that listens on an address, before anybody accepts from it.

    Args:
        who: what will accept, for messages.
        host: address or name of this machine; empty for all.
        port: 0 picks a free one.

    Raises:
        ListenError: the address is in use, not permitted, or not this machine's.
    """
    try:
        info = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        message = f"{who}: '{host}' is no address of this machine ({error.strerror})"
        raise ListenError(message) from error
    family, kind, protocol, _, address = info
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)  # noqa: FBT003 - the socket module's signature
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ListenError(_why(who, host, port, error)) from error
    return listening


def shown_address(host: str, port: int) -> str:
    """`host:port` for people, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(who: str, host: str, port: int, error: OSError) -> str:
    start = f"{who} cannot listen on {host or '*'}:{port}: "
    if error.errno == errno.EADDRINUSE:
        return f"{start}the port is in use; end the program that holds it (`ss -ltnp 'sport = \
:{port}'` names it) or choose another port"
    if error.errno == errno.EACCES:
        return f"{start}ports below 1024 need privileges; choose a higher one"
    return f"{start}{error.strerror or error}"
