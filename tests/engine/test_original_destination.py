"""Where a connection was meant to go. The kernel's own answer is in tests/integration/test_interception.py."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from hms_addons.engine.original_destination import meet, original_destination
from tests.engine.test_connection_context import make_context


class Led:
    """A socket as the kernel shows it after a redirect."""

    def __init__(self, host: str, port: int, here: tuple[Any, ...] = ("127.0.0.1", 15001)) -> None:
        six = ":" in host
        self.family = socket.AF_INET6 if six else socket.AF_INET
        address = socket.inet_pton(self.family, host)
        self.asked: list[tuple[int, int]] = []
        self._here = here
        head = struct.pack("=H", self.family) + struct.pack("!H", port)
        self._answer = head + (bytes(4) + address + bytes(4) if six else address + bytes(8))

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        self.asked.append((level, option))
        assert size >= len(self._answer)
        return self._answer

    def getsockname(self) -> tuple[Any, ...]:
        return self._here


def test_ip_version_4() -> None:
    led = Led("203.0.113.9", 80)
    assert original_destination(led) == ("203.0.113.9", 80)
    assert led.asked == [(socket.SOL_IP, 80)]


def test_ip_version_6() -> None:
    led = Led("2001:db8::9", 8080, ("::1", 15001, 0, 0))
    assert original_destination(led) == ("2001:db8::9", 8080)
    assert led.asked == [(socket.IPPROTO_IPV6, 80)]


@pytest.mark.parametrize(
    "led", [Led("127.0.0.1", 15001), Led("::1", 15001, ("::1", 15001, 0, 0))], ids=["4", "6"]
)
def test_who_was_sent_here_was_not_led_here(led: Led) -> None:
    assert original_destination(led) is None


def test_where_connections_are_not_tracked_everybody_was_sent_here() -> None:
    with socket.socket() as listening, socket.socket() as caller:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        caller.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            assert original_destination(accepted) is None
    one, other = socket.socketpair()
    with one, other:
        assert original_destination(one) is None, "a Unix socket leads nowhere"


def test_flows_show_where_it_was_meant_to_go() -> None:
    context = make_context()
    meet(context, Led("203.0.113.9", 80))
    assert context.original == context.client.sockname == ("203.0.113.9", 80)
    direct = make_context()
    meet(direct, None)
    assert direct.original is None
    assert direct.client.sockname == ("127.0.0.1", 15001)
