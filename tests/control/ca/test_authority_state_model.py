"""A rotation under any course of events: no SVID that is still good is ever let down."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hms_addons.control.ca.authority_state import MARGIN, AuthorityState, Phase
from tests.fakes.clock import FakeClock

LIFE = 600.0
SETTLE = 30.0


@dataclass
class Peer:
    """A sidecar: the roots that it trusts, and the SVID that it shows."""

    roots: tuple[object, ...]
    sequence: int
    root: object
    expires: float


class Rotation(RuleBasedStateMachine):
    """One CA, some sidecars that come, renew, follow the bundle, or are cut off."""

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.state = AuthorityState.create("mpsa.mil", LIFE, self.clock)
        self.peers: list[Peer] = []

    def sign(self) -> tuple[object, float]:
        return self.state.signer.root, self.clock.wall() + LIFE

    @rule()
    def joins(self) -> None:
        roots, sequence = self.state.bundle().roots, self.state.sequence
        self.peers.append(Peer(roots, sequence, *self.sign()))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def reports(self, data: st.DataObject) -> None:
        """… and is told the sequence, so that it fetches the bundle."""
        peer = data.draw(st.sampled_from(self.peers))
        peer.roots, peer.sequence = self.state.bundle().roots, self.state.sequence

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def renews(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.peers))
        peer.roots, peer.sequence = self.state.bundle().roots, self.state.sequence
        peer.root, peer.expires = self.sign()

    @precondition(lambda self: self.state.phase is Phase.STEADY)
    @rule()
    def rotates(self) -> None:
        self.state = self.state.announced(LIFE + MARGIN, self.clock)

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0, 200.0, LIFE / 2, LIFE]))
    def time_passes(self, seconds: float) -> None:
        self.clock.tick(seconds)
        now = self.clock.wall()
        self.peers = [peer for peer in self.peers if peer.expires >= now]
        if self.state.is_over(now, [peer.sequence for peer in self.peers], SETTLE):
            self.state = self.state.advanced(now)

    @rule()
    def is_killed_and_started_again(self) -> None:
        document = self.state.to_bytes()
        self.state = AuthorityState.from_bytes(document, "mpsa.mil", self.clock.wall())
        assert self.state.to_bytes() == document

    @invariant()
    def every_peer_accepts_every_other(self) -> None:
        for one in self.peers:
            for other in self.peers:
                assert other.root in one.roots
            assert one.root in self.state.bundle().roots, "by who comes new, too"


def test_no_svid_is_let_down_whatever_happens() -> None:
    run_state_machine_as_test(
        Rotation, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )
