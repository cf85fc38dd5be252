"""The configured listeners as they run: which stay, which come and which go when that changes.

    stage(snapshot) ──▶ Staged ──swap──▶ in force          accept() once the plugins have started
                          └──discard──▶ as if nothing had been

Staging takes the new addresses and changes nothing else; swapping cannot fail.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.config.snapshot import TlsMode
from hms_addons.engine.fast_lane import Binding, FastLane
from hms_addons.engine.listener import PortListener
from hms_addons.engine.peer import recheck_peers
from hms_addons.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Mapping

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Listener, Snapshot
    from hms_addons.engine.hook_chain import HookChain
    from hms_addons.identity.identity_holder import Identity

logger = logging.getLogger(__name__)


class Port:
    """One configured listener as it runs."""

    __slots__ = ("lane", "listener", "port")

    def __init__(self, listener: Listener, lane: FastLane, port: PortListener) -> None:
        self.listener = listener
        self.lane = lane
        self.port = port

    def __repr__(self) -> str:
        return f"<Port {self.port!r} {self.lane!r}>"


class Staged(NamedTuple):
    """What a snapshot would have, by listener name."""

    kept: dict[str, Port]
    opened: dict[str, Port]
    chain: HookChain


class Ports:
    """All listeners of one sidecar.

    Args:
        make_lane: makes what serves a listener's requests.
        current: a secret's identity in use, None if it has none.
        clock: time.
        elsewhere: ports that somebody else serves; they are not opened.

    Attributes:
        running: those in force, by listener name.
        retired: lanes of listeners that are gone, until their connections are.
    """

    def __init__(
        self,
        make_lane: Callable[[Binding], FastLane],
        current: Callable[[str], Identity | None],
        clock: Clock,
        elsewhere: Collection[int] = (),
    ) -> None:
        self.running: dict[str, Port] = {}
        self.retired: list[FastLane] = []
        self._make_lane = make_lane
        self._current = current
        self._clock = clock
        self._elsewhere = elsewhere
        self._accepting = False

    def __repr__(self) -> str:
        state = "accepting" if self._accepting else "bound"
        return f"<Ports {', '.join(self.running) or 'none'} {state} retired={len(self.retired)}>"

    # -- a change -------------------------------------------------------------------------------

    def stage(
        self, snapshot: Snapshot, identities: Mapping[str, Identity | None], chain: HookChain
    ) -> Staged:
        """Take the addresses that `snapshot` needs and that are not there yet.

        Args:
            snapshot: what is to come into force.
            identities: by secret; None for those that have none.
            chain: the plugins' hooks under `snapshot`.

        Raises:
            ListenError: one of them is not to be had; nothing has changed.
            ConfigError: a listener's secret is not provided; nothing has changed.
        """
        staged = Staged(self._kept(snapshot), {}, chain)
        try:
            for listener in snapshot.listeners:
                identity = identities.get(listener.secret) if listener.secret else None
                tls = server_context(listener, identity)  # refused now, if at all
                if listener.name not in staged.kept:
                    staged.opened[listener.name] = self._bind(
                        Binding.of(snapshot, listener, chain), tls
                    )
        except BaseException:
            self.discard(staged)
            raise
        return staged

    @staticmethod
    def discard(staged: Staged) -> None:
        """It is not to be: close what was opened for it."""
        for port in staged.opened.values():
            port.port.close()

    def swap(self, snapshot: Snapshot, staged: Staged, changed: Collection[str]) -> None:
        """Make it so. Nothing here can fail or wait.

        Args:
            snapshot: what was staged.
            staged: by `stage`.
            changed: secrets whose identity is another than before.
        """
        ports = {}
        for listener in snapshot.listeners:
            port = staged.kept.get(listener.name)
            if port is None:
                port = staged.opened[listener.name]
                if self._accepting:
                    port.port.accept()
            else:
                before, port.listener = port.listener, listener
                port.port.name = listener.name
                port.lane.binding = Binding.of(snapshot, listener, staged.chain)
                same_tls = (before.tls, before.secret) == (listener.tls, listener.secret)
                if not same_tls or listener.secret in changed:
                    self._refresh_tls(port)
            ports[listener.name] = port
        for port in self.running.values():
            if port not in ports.values():
                port.port.close()
                self.retired.append(port.lane)
                for connection in list(port.lane.connections):
                    connection.drain()
        self.retired = [lane for lane in self.retired if lane.connections]
        self.running = ports
        for lane in self.retired:  # what is open there is judged by what is in force
            lane.binding = Binding.of(snapshot, lane.binding.listener, staged.chain)
        for lane in (*self.retired, *(port.lane for port in ports.values())):
            lane.tunnels.recheck()

    def _kept(self, snapshot: Snapshot) -> dict[str, Port]:
        """The ports that stay open, by the names of the listeners that will have them.

        A listener keeps its address, or takes over that of one which leaves it: two may swap.
        """
        kept = {}
        leaving = dict(self.running)
        for listener in snapshot.listeners:
            running = self.running.get(listener.name)
            if running is not None and _address(running.listener) == _address(listener):
                kept[listener.name] = leaving.pop(listener.name)
        by_address = {_address(port.listener): port for port in leaving.values()}
        for listener in snapshot.listeners:
            port = by_address.pop(_address(listener), None)
            if port is not None and listener.name not in kept and listener.port:
                kept[listener.name] = port
        return kept

    def _bind(self, binding: Binding, tls: ssl.SSLContext | None) -> Port:
        lane = self._make_lane(binding)
        listener = binding.listener
        port = PortListener(listener.name, lane, self._clock)
        if listener.port not in self._elsewhere or listener.port == 0:
            port.bind(listener.host, listener.port, tls)
        return Port(listener, lane, port)

    # -- identities -----------------------------------------------------------------------------

    def secret_changed(self, name: str) -> None:
        """Secure new connections with the secret's new identity; look at the old ones again."""
        for port in self.running.values():
            if port.listener.secret == name:
                self._refresh_tls(port)

    def _refresh_tls(self, port: Port) -> None:
        secret = port.listener.secret
        identity = self._current(secret) if secret else None
        port.port.tls = server_context(port.listener, identity)
        if identity is not None:
            retired = recheck_peers(port.lane.connections, identity, self._clock.wall())
            if retired:
                logger.warning(
                    "listener %s: %d connections of peers that are no longer trusted are closed "
                    "after the request in flight",
                    port.listener.name,
                    retired,
                )

    # -- start and end --------------------------------------------------------------------------

    def accept(self) -> None:
        """Accept connections from now on; whoever has come before has waited."""
        self._accepting = True
        for port in self.running.values():
            port.port.accept()

    @property
    def accepting(self) -> bool:
        """Requests are taken."""
        return self._accepting

    def close(self) -> list[FastLane]:
        """Stop accepting. Returns every lane that may still have connections."""
        self._accepting = False
        for port in self.running.values():
            port.port.close()
        return [*(port.lane for port in self.running.values()), *self.retired]

    def clear(self) -> None:
        """Forget all; they are closed and their connections gone."""
        self.running.clear()
        self.retired.clear()

    def describe(self) -> list[dict[str, Any]]:
        """Their state as JSON-ready types."""
        return [
            {
                "name": name,
                "direction": str(port.listener.direction),
                "tls": str(port.listener.tls),
                "address": _joined(port.port.address),
                "connections": len(port.lane.connections),
                "in_flight": port.lane.in_flight,
                "malformed": port.lane.refusals,
            }
            for name, port in self.running.items()
        ]


def server_context(listener: Listener, identity: Identity | None) -> ssl.SSLContext | None:
    """What a listener's connections are secured with; None for plain text.

    Raises:
        ConfigError: its secret has not been provided.
    """
    if listener.tls is TlsMode.NONE:
        return None
    if identity is None:
        message = (
            f"listener '{listener.name}' asks for tls: {listener.tls} but nobody provides its "
            f"secret '{listener.secret}'; add it under `secrets:`"
        )
        raise ConfigError(message)
    return identity.server_context(require_peer=listener.tls is TlsMode.STRICT)


def _address(listener: Listener) -> tuple[str, int]:
    return listener.host, listener.port


def _joined(address: tuple[str, int] | None) -> str | None:
    return None if address is None else f"{address[0]}:{address[1]}"
