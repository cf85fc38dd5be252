from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.addons.identity_propagation import MAX_IDENTIFIERS, IdentityPropagation
from hms_addons.addons.rbac import Rbac
from hms_addons.config.snapshot import Direction, JwtProvider, Policy, PolicyAction
from hms_addons.config.snapshot import Rbac as RbacSpec
from hms_addons.errors import Flag
from hms_addons.exchange import ANONYMOUS
from hms_addons.identity import in_flight
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_listener, make_route, make_snapshot, sent
from tests.fakes.mesh import FakeMesh

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange

KEY = pki.jwt_key("HS256")
OUTBOUND = make_listener(name="out", direction=Direction.OUTBOUND, propagate_identity=True)
INBOUND = make_listener(name="in")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def trace(span: str = "00f067aa0ba902b7", trace_id: str = TRACE) -> tuple[str, str]:
    return ("traceparent", f"00-{trace_id}-{span}-01")


class Sidecar:
    """The plugin and `rbac`, as they stand in the chain, and an app that calls through them."""

    def __init__(self, *policies: Policy, **provider: Any) -> None:
        settings = {"name": "idp", "algorithms": ("HS256",), "hs256_secret_env": "S"} | provider
        self.clock = FakeClock()
        self.snapshot = make_snapshot(
            listeners=(OUTBOUND, INBOUND),
            rbac=RbacSpec(providers=(JwtProvider(**settings),), policies=policies),
        )
        self.plugin = IdentityPropagation(clock=self.clock)
        self.rbac = Rbac(clock=self.clock, environ={"S": KEY.secret})
        self.rbac.hms_configure(self.snapshot)
        self.mesh = FakeMesh()
        self.plugin.hms_startup(self.mesh.mesh)

    def token(self, subject: str) -> str:
        return "Bearer " + KEY.sign(pki.claims(now=self.clock.wall(), sub=subject))

    def run(self, listener: Any, headers: list[tuple[str, str]]) -> Exchange:
        exchange = make_exchange(
            headers=headers, listener=listener, snapshot=self.snapshot, route=make_route()
        )
        for hook in ("hms_identify", "hms_authorize", "hms_prepare"):
            for plugin in (self.plugin, self.rbac):
                if hasattr(plugin, hook) and exchange.failure is None:
                    getattr(plugin, hook)(exchange)
        return exchange

    def arrive(self, subject: str | None, *headers: tuple[str, str]) -> Exchange:
        """A request comes in and is with the app."""
        own = [] if subject is None else [("Authorization", self.token(subject))]
        return self.run(INBOUND, [*own, *headers])

    def call(self, *headers: tuple[str, str]) -> Exchange:
        """The app calls another service."""
        return self.run(OUTBOUND, list(headers))

    def subject_of(self, *headers: tuple[str, str]) -> str | None:
        return self.call(*headers).principal.subject


@pytest.fixture
def sidecar() -> Sidecar:
    return Sidecar()


def test_a_call_with_the_request_id_carries_the_token_on(sidecar: Sidecar) -> None:
    inbound = sidecar.arrive("alice", ("X-Request-ID", "a1"))
    call = sidecar.call(("x-request-id", "a1"))
    assert call.principal.subject == "alice"
    assert sent(call, "Authorization") == sent(inbound, "Authorization") == [sidecar.token("alice")]
    assert sent(call, "X-Caller-Subject") == ["alice"]
    assert call.notes["identity_propagation"] == "attached"
    assert sidecar.mesh.shown("identity_propagation") == {
        "in_flight": 1,
        "attached": 1,
        "ambiguous": 0,
        "overflows": 0,
    }


def test_a_call_in_the_same_trace_carries_the_token_on(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", trace())
    assert sidecar.subject_of(trace(span="b7ad6b7169203331")) == "alice"
    assert sidecar.subject_of(trace(trace_id="a" * 32)) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7",
    ],
)
def test_what_is_no_trace_context_stands_for_nothing(sidecar: Sidecar, value: str) -> None:
    sidecar.arrive("alice", ("traceparent", value))
    assert sidecar.subject_of(("traceparent", value)) is None


def test_a_call_without_the_identifiers_is_anonymous(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    call = sidecar.call(("X-Request-ID", "other"))
    assert call.principal is ANONYMOUS
    assert sent(call, "Authorization") == []
    assert "identity_propagation" not in call.notes
    assert sidecar.subject_of() is None


@pytest.mark.parametrize("own", ["Bearer nonsense", "Basic c2d0OmRvZQ==", ""])
def test_what_the_app_sends_itself_is_left_alone(sidecar: Sidecar, own: str) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    call = sidecar.call(("X-Request-ID", "a1"), ("Authorization", own))
    assert call.principal is ANONYMOUS
    assert sent(call, "Authorization") == [own]


def test_after_the_request_is_over_nothing_is_attached(sidecar: Sidecar) -> None:
    inbound = sidecar.arrive("alice", ("X-Request-ID", "a1"), trace())
    sidecar.plugin.hms_complete(inbound)
    assert sidecar.subject_of(("X-Request-ID", "a1"), trace()) is None
    assert sidecar.mesh.shown("identity_propagation")["in_flight"] == 0
    sidecar.plugin.hms_complete(inbound)
    assert sidecar.mesh.shown("identity_propagation")["in_flight"] == 0


def test_many_requests_at_once_keep_their_own_callers(sidecar: Sidecar) -> None:
    inbound = [sidecar.arrive(f"user{n}", ("X-Request-ID", f"r{n}")) for n in range(200)]
    for n in (*range(0, 200, 2), 7):
        assert sidecar.subject_of(("X-Request-ID", f"r{n}")) == f"user{n}"
    for n in range(0, 200, 2):
        sidecar.plugin.hms_complete(inbound[n])
    for n in range(200):
        assert sidecar.subject_of(("X-Request-ID", f"r{n}")) == (f"user{n}" if n % 2 else None)


@pytest.mark.parametrize("attacker", ["mallory", None])
def test_whoever_takes_anothers_identifier_takes_its_identity_from_both(
    sidecar: Sidecar, attacker: str | None
) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    forged = sidecar.arrive(attacker, ("X-Request-ID", "a1"))
    assert forged.principal.subject == attacker, "an inbound request gains nothing by it"
    assert sent(forged, "Authorization") == ([sidecar.token(attacker)] if attacker else [])
    call = sidecar.call(("X-Request-ID", "a1"))
    assert call.principal is ANONYMOUS
    assert call.notes["identity_propagation"] == "ambiguous"
    assert sidecar.plugin.ambiguous == 1
    sidecar.plugin.hms_complete(forged)
    assert sidecar.subject_of(("X-Request-ID", "a1")) is None, "its app may still be at work"


@pytest.mark.parametrize(
    "spelling",
    [
        [("X-Request-ID", "A1")],
        [("X_Request_ID", "a1")],
        [("X-Request_Id", "a1")],
        [("X-Request-ID", "a1"), ("X-Request-ID", "mine")],
        [("X-Request-ID", "mine"), ("X-Request-ID", "a1")],
        [("X-Request-ID", "mine, a1 ,x")],
        [("X-Request-ID", "mine"), ("x_request_id", "a1")],
    ],
)
def test_no_spelling_of_anothers_identifier_gives_its_identity(
    sidecar: Sidecar, spelling: list[tuple[str, str]]
) -> None:
    """An app may take any of several values, fold letters, or see `_` where `-` was."""
    sidecar.arrive("mallory", *spelling)
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    assert sidecar.call(("X-Request-ID", "a1")).principal is ANONYMOUS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traceparent", f"00-{TRACE.upper()}-00f067aa0ba902b7-01"),
        ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-1"),
        ("traceparent", f"00-{'1' * 32}-00f067aa0ba902b7-01,00-{TRACE}-00f067aa0ba902b7-01"),
        ("b3", f"{TRACE}-00f067aa0ba902b7-1"),
        ("B3", f"{TRACE.upper()}-00f067aa0ba902b7-1"),
        ("X-B3-TraceId", TRACE),
        ("X_B3_TraceId", TRACE),
        ("uber-trace-id", f"{TRACE}:00f067aa0ba902b7:0:1"),
        ("X-Cloud-Trace-Context", f"{TRACE}/1;o=1"),
        ("X-Amzn-Trace-Id", f"Root=1-{TRACE[:8]}-{TRACE[8:]};Sampled=1"),
    ],
)
def test_no_other_way_to_write_anothers_trace_gives_its_identity(
    sidecar: Sidecar, name: str, value: str
) -> None:
    """The app may read it leniently, or from B3, and write it as a clean traceparent."""
    sidecar.arrive("alice", trace())
    sidecar.arrive(None, (name, value))
    assert sidecar.subject_of(trace(span="1" * 16)) is None


def test_a_short_trace_id_is_the_same_with_zeros_before_it(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", trace(trace_id="0" * 16 + TRACE[:16]))
    sidecar.arrive(None, ("X-B3-TraceId", TRACE[:16]))
    assert sidecar.subject_of(trace(trace_id="0" * 16 + TRACE[:16])) is None


def test_one_trace_in_every_format_is_one_identifier(sidecar: Sidecar) -> None:
    formats = [
        trace(),
        ("b3", f"{TRACE}-00f067aa0ba902b7-1"),
        ("X-B3-TraceId", TRACE),
        ("X-B3-SpanId", "00f067aa0ba902b7"),
    ]
    sidecar.arrive("alice", ("X-Request-ID", "a1"), *formats)
    assert sidecar.subject_of(trace(span="1" * 16)) == "alice"


def test_a_request_of_too_many_identifiers_is_refused(sidecar: Sidecar) -> None:
    many = [("X-Request-ID", f"r{n}") for n in range(MAX_IDENTIFIERS)]
    assert sidecar.arrive("alice", *many).failure is None
    failure = sidecar.arrive("alice", *many, trace()).failure
    assert failure is not None
    assert (failure.status, failure.flag) == (400, Flag.DPE)


def test_a_call_that_mixes_two_callers_identifiers_gets_neither(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    sidecar.arrive("bob", trace())
    assert sidecar.subject_of(("X-Request-ID", "a1"), trace()) is None
    assert sidecar.subject_of(("X-Request-ID", "a1")) == "alice"


def test_only_a_listener_that_says_so_attaches_anything(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    plain = make_listener(direction=Direction.OUTBOUND)
    for listener in (plain, INBOUND):
        assert sidecar.run(listener, [("X-Request-ID", "a1")]).principal is ANONYMOUS


def test_credentials_that_are_no_verified_token_are_not_carried_on(sidecar: Sidecar) -> None:
    sidecar.arrive(None, ("X-Request-ID", "a1"), ("Authorization", "Basic c2d0OmRvZQ=="))
    assert sent(sidecar.call(("X-Request-ID", "a1")), "Authorization") == []


def test_a_refused_request_stands_for_nothing(sidecar: Sidecar) -> None:
    refused = sidecar.run(INBOUND, [("Authorization", "Bearer x"), ("X-Request-ID", "a1")])
    assert refused.failure is not None
    assert sidecar.mesh.shown("identity_propagation")["in_flight"] == 0
    sidecar.plugin.hms_complete(refused)
    assert sidecar.mesh.shown("identity_propagation")["in_flight"] == 0


def test_policies_judge_the_call_by_the_identity_that_was_attached() -> None:
    alice_only = Policy(name="alice", action=PolicyAction.ALLOW, subjects=("alice",))
    denied = Policy(name="not-bob", action=PolicyAction.DENY, subjects=("bob",))
    sidecar = Sidecar(denied)
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    assert sidecar.call(("X-Request-ID", "a1")).failure is None
    sidecar = Sidecar(alice_only)
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    assert sidecar.call(("X-Request-ID", "a1")).failure is None
    refused = sidecar.call(("X-Request-ID", "b1")).failure
    assert refused is not None
    assert refused.flag is Flag.RBAC


def test_a_token_that_ends_here_is_judged_by_and_not_sent() -> None:
    sidecar = Sidecar(forward=False)
    inbound = sidecar.arrive("alice", ("X-Request-ID", "a1"))
    assert sent(inbound, "Authorization") == []
    call = sidecar.call(("X-Request-ID", "a1"))
    assert call.principal.subject == "alice"
    assert sent(call, "Authorization") == []


def test_a_token_that_expires_meanwhile_is_refused_not_dropped(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    sidecar.clock.step(3600 + 61)
    failure = sidecar.call(("X-Request-ID", "a1")).failure
    assert failure is not None
    assert failure.flag is Flag.JWT


def test_too_many_requests_attach_nothing_and_are_counted(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MAX_REQUESTS", 1)
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    second = sidecar.arrive("bob", ("X-Request-ID", "b1"))
    assert sidecar.subject_of(("X-Request-ID", "a1")) is None
    assert sidecar.plugin.overflows == 1
    sidecar.plugin.hms_complete(second)
    assert sidecar.subject_of(("X-Request-ID", "a1")) == "alice"


def test_it_takes_no_part_where_no_listener_asks_for_it(sidecar: Sidecar) -> None:
    idle = sidecar.plugin.hms_idle_hooks(make_snapshot(listeners=(INBOUND,)))
    assert set(idle) == {"hms_identify", "hms_prepare", "hms_complete"}
    assert sidecar.plugin.hms_idle_hooks(sidecar.snapshot) == ()


def test_repr_tells_no_token(sidecar: Sidecar) -> None:
    sidecar.arrive("alice", ("X-Request-ID", "a1"))
    assert repr(sidecar.plugin) == (
        "<IdentityPropagation <InFlight requests=1 unknown=0 identifiers=1 lingering=0> attached=0>"
    )
