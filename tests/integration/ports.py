"""Ports: free ones for the tests' own processes, and whether a fixed one can be had."""

from __future__ import annotations

import errno
import socket
from random import SystemRandom

LOWEST, HIGHEST = 20000, 32000
"""Below what systems hand out for outgoing calls (32768 and up on Linux, 49152 on macOS): a replica
that is down must find its port free when it comes back."""

_random = SystemRandom()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True if nobody listens on `host` and `port`, or if this machine has no such address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return True
    with probe:
        # As servers do: connections that linger from an earlier run are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL
        return True


class FreePorts:
    """Hands out free ports, none of them twice."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def take(self) -> int:
        """A port on 127.0.0.1 that nobody listens on."""
        for _ in range(1000):
            port = _random.randint(LOWEST, HIGHEST)
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise RuntimeError(f"no free port was found between {LOWEST} and {HIGHEST}")
