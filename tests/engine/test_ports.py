"""Which listeners stay, come and go. What it means for traffic is in test_sidecar_changes."""

from __future__ import annotations

import socket
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import Direction, TlsMode
from hms_addons.engine.fast_lane import Binding, FastLane
from hms_addons.engine.flow_builder import unconnected_server
from hms_addons.engine.flow_events import FlowEvents
from hms_addons.engine.hook_chain import HookChain
from hms_addons.engine.ports import Ports, server_context
from hms_addons.errors import ConfigError
from hms_addons.identity.identity_holder import Identity, SecretMaterial
from hms_addons.listening import ListenError
from hms_addons.tasks import TaskSet
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_listener, make_snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hms_addons.config.snapshot import Listener, Snapshot


class Rig:
    def __init__(self, *elsewhere: int) -> None:
        self.clock = FakeClock()
        self.identities: dict[str, Identity] = {}
        self.chain = HookChain({}, Random(1))
        self.ports = Ports(self._lane, self.identities.get, self.clock, elsewhere)

    def _lane(self, binding: Binding) -> FastLane:
        return FastLane(
            binding,
            None,
            FlowEvents(),
            self.clock,
            TaskSet("test"),
            lambda *_: None,
            unconnected_server(),
        )

    def apply(self, *listeners: Listener, changed: tuple[str, ...] = ()) -> None:
        snapshot = self.snapshot(*listeners)
        staged = self.ports.stage(snapshot, self.identities, self.chain)
        self.ports.swap(snapshot, staged, changed)

    @staticmethod
    def snapshot(*listeners: Listener) -> Snapshot:
        return make_snapshot(listeners=listeners)

    @property
    def addresses(self) -> dict[str, Any]:
        return {name: port.port.address for name, port in self.ports.running.items()}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    made.ports.close()
    made.ports.clear()
    assert not made.ports.running


def named(name: str, port: int = 0, **changes: Any) -> Listener:
    return make_listener(name=name, port=port, direction=Direction.INBOUND, **changes)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_staging_takes_addresses_and_changes_nothing(rig: Rig) -> None:
    rig.apply(named("a"))
    before = rig.addresses
    port = free_port()
    staged = rig.ports.stage(rig.snapshot(named("a"), named("b", port)), {}, rig.chain)
    assert set(staged.kept) == {"a"}
    assert set(staged.opened) == {"b"}
    assert rig.addresses == before
    assert is_open(port)
    rig.ports.discard(staged)
    assert not is_open(port)
    assert repr(rig.ports) == "<Ports a bound retired=0>"
    assert "<PortListener a 127.0.0.1:" in repr(rig.ports.running["a"])


async def test_a_taken_address_gives_back_those_before_it(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        first, taken = free_port(), holder.getsockname()[1]
        with pytest.raises(ListenError):
            rig.ports.stage(rig.snapshot(named("a", first), named("b", taken)), {}, rig.chain)
    assert not is_open(first)


async def test_names_change_over_addresses_that_stay(rig: Rig) -> None:
    one, two = free_port(), free_port()
    rig.apply(named("a", one), named("b", two))
    ports = dict(rig.ports.running)
    rig.apply(named("a", two), named("b", one))
    assert rig.ports.running == {"a": ports["b"], "b": ports["a"]}
    rig.apply(named("c", one))
    assert rig.ports.running == {"c": ports["a"]}
    assert not is_open(two)
    assert [entry["name"] for entry in rig.ports.describe()] == ["c"]


async def test_what_others_serve_is_not_opened() -> None:
    port = free_port()
    rig = Rig(port)
    rig.apply(named("a", port))
    rig.ports.accept()
    assert rig.addresses == {"a": None}
    assert not is_open(port)
    assert len(rig.ports.close()) == 1


async def test_a_secret_that_nobody_provides_is_refused_also_for_what_stays(rig: Rig) -> None:
    rig.apply(named("a"))
    strict = named("a", tls=TlsMode.STRICT, secret="mine")
    with pytest.raises(ConfigError, match="nobody provides its secret 'mine'"):
        rig.ports.stage(rig.snapshot(strict), {}, rig.chain)
    rig.identities["mine"] = Identity.of(SecretMaterial(pki.svid("auth-svc"), pki.bundle()), 1)
    rig.apply(strict)
    listener = rig.ports.running["a"].port
    assert listener.tls is rig.identities["mine"].strict_server_context
    rig.identities["mine"] = Identity.of(SecretMaterial(pki.svid("auth-svc"), pki.bundle()), 2)
    rig.ports.secret_changed("other")
    assert listener.tls is not rig.identities["mine"].strict_server_context
    rig.ports.secret_changed("mine")
    assert listener.tls is rig.identities["mine"].strict_server_context


def test_permissive_and_plain_listeners() -> None:
    identity = Identity.of(SecretMaterial(pki.svid("auth-svc"), pki.bundle()), 1)
    assert server_context(named("a"), identity) is None
    permissive = named("a", tls=TlsMode.PERMISSIVE, secret="mine")
    assert server_context(permissive, identity) is identity.permissive_server_context
