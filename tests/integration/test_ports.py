from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.integration.ports import HIGHEST, LOWEST, FreePorts, is_free

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


def test_a_port_on_which_somebody_listens_is_not_free(taken: int) -> None:
    assert not is_free(taken)
    assert not is_free(taken, "0.0.0.0")


def test_a_port_is_free_again_though_old_connections_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            connection, _ = server.accept()
            connection.close()  # The side that closes first is left with TIME_WAIT.
            assert client.recv(1) == b""
    assert is_free(address[1])


def test_an_address_that_this_machine_lacks_is_nobodys() -> None:
    assert is_free(15001, "192.0.2.1")  # RFC 5737: documentation only.


def test_ports_are_handed_out_once_and_below_those_for_outgoing_calls() -> None:
    ports = FreePorts()
    taken = [ports.take() for _ in range(50)]
    assert len(set(taken)) == len(taken)
    assert all(LOWEST <= port <= HIGHEST < 32768 for port in taken)
