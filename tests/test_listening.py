from __future__ import annotations

import socket

import pytest

from hms_addons.listening import ListenError, listen, shown_address


def test_it_listens_before_anybody_accepts() -> None:
    with listen("control plane", "127.0.0.1", 0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with socket.create_connection((host, port), 5):
            assert not listening.getblocking()


def test_a_taken_port_is_named_with_a_remedy() -> None:
    with listen("one", "127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            listen("control plane", "127.0.0.1", port)
    message = str(caught.value)
    assert message.startswith(f"control plane cannot listen on 127.0.0.1:{port}: the port is in")
    assert f"ss -ltnp 'sport = :{port}'" in message


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ListenError, match=host):
        listen("control plane", host, 15010)


def test_a_closed_port_can_be_taken_again_at_once() -> None:
    with listen("one", "127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 5):
            listening.accept()[0].close()
    listen("two", "127.0.0.1", port).close()


def test_an_address_is_shown_as_it_would_be_written() -> None:
    assert shown_address("127.0.0.1", 15001) == "127.0.0.1:15001"
    assert shown_address("::1", 15001) == "[::1]:15001"
