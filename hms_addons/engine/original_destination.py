"""Where an intercepted connection was meant to go, as the kernel remembers it.

The machine's rules (`hms iptables up`) lead a call to a transparent listener by changing its destination;
connection tracking knows the first one. It is asked once per connection.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hms_addons.engine.connection_context import ConnectionContext

SO_ORIGINAL_DST: Final = 80
"""Of linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST of netfilter_ipv6/ip6_tables.h is the same number."""
_SOL_IPV6: Final = 41
_SOCKADDR_IN: Final = struct.Struct("!HH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!HHI16sI")


def original_destination(connection: Any) -> tuple[str, int] | None:
    """Where the peer of an accepted connection wanted to go; None if that is here.

    Args:
        connection: a socket, or what has its methods.
    """
    try:
        if connection.family == socket.AF_INET6:
            found = connection.getsockopt(_SOL_IPV6, SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            _, port, _, address, _ = _SOCKADDR_IN6.unpack(found)
            host = socket.inet_ntop(socket.AF_INET6, address)
        elif connection.family == socket.AF_INET:
            found = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, _SOCKADDR_IN.size)
            _, port, address = _SOCKADDR_IN.unpack(found)
            host = socket.inet_ntoa(address)
        else:
            return None
        here = connection.getsockname()[:2]
    except (OSError, struct.error):
        return None  # nobody has led it anywhere, or this kernel does not track connections
    return None if (host, port) == here else (host, port)


def meet(context: ConnectionContext, connection: Any) -> None:
    """Note on a transparent listener's new connection where it was meant to go.

    Args:
        context: the connection's.
        connection: its socket; None where there is none.
    """
    context.original = None if connection is None else original_destination(connection)
    if context.original is not None:
        # As mitmproxy has it in its own transparent mode.
        context.client.sockname = context.original
