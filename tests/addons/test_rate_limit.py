from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.addons.rate_limit import RateLimit, describe
from hms_addons.config.shaping import LimitBy, Shaping
from hms_addons.config.shaping import RateLimit as Spec
from hms_addons.errors import Flag
from hms_addons.exchange import Principal
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange, make_route


def spec(requests: int = 1, per: float = 60.0, **changes: Any) -> Spec:
    values: dict[str, Any] = {"name": "l", "place": "route r", "burst": requests} | changes
    return Spec(requests=requests, per=per, **values)


def ask(limiter: RateLimit, *limits: Spec, **request: Any) -> Any:
    """Send one request; its exchange."""
    principal = request.pop("principal", None)
    peer = request.pop("peer", None)
    exchange = make_exchange(route=make_route(shaping=Shaping(rate_limits=limits)), **request)
    if principal is not None:
        exchange.principal = principal
    exchange.peer = peer
    limiter.hms_authorize(exchange)
    return exchange


def fields(exchange: Any) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in exchange.failure.headers}


def test_past_the_limit_the_answer_says_which_whose_and_when() -> None:
    clock = FakeClock()
    limiter = RateLimit(clock)
    limit = spec(2, 10.0, by=LimitBy.SUBJECT, name="two")
    who = Principal(subject="sgt.pepper")
    for _ in range(2):
        assert ask(limiter, limit, principal=who).failure is None
    clock.tick(1.5)
    exchange = ask(limiter, limit, principal=who)
    failure = exchange.failure
    assert (failure.status, failure.flag, failure.retry_after) == (429, Flag.RL, 3.5)
    assert failure.detail == (
        "the limit 'two' (route r) admits 2 requests per 10s, 2 at once, for each subject, and that "
        "is used up; try again in 3.5s"
    )
    assert "sgt.pepper" not in failure.detail + repr(failure.headers)
    assert fields(exchange) == {"RateLimit-Policy": '"two";q=2;w=10', "RateLimit": '"two";r=0;t=4'}
    clock.tick(3.5)
    assert ask(limiter, limit, principal=who).failure is None


def test_what_one_limit_refuses_takes_nothing_from_the_others() -> None:
    clock = FakeClock()
    limiter = RateLimit(clock)
    rate, quota = spec(1, 1.0, name="rate"), spec(3, 86400.0, name="quota")
    assert ask(limiter, rate, quota).failure is None
    for _ in range(10):
        exchange = ask(limiter, rate, quota)
        assert "'rate'" in exchange.failure.detail
    assert fields(exchange) == {
        "RateLimit-Policy": '"rate";q=1;w=1, "quota";q=3;w=86400',
        "RateLimit": '"rate";r=0;t=1',
    }
    for _ in range(2):  # the quota has exactly two left
        clock.tick(1.0)
        assert ask(limiter, rate, quota).failure is None
    clock.tick(1.0)
    assert "'quota'" in ask(limiter, rate, quota).failure.detail


def test_the_longest_wait_is_told_where_several_refuse() -> None:
    limiter = RateLimit(FakeClock())
    limits = spec(1, 1.0, name="rate"), spec(1, 100.0, name="quota")
    ask(limiter, *limits)
    exchange = ask(limiter, *limits)
    assert exchange.failure.retry_after == 100
    assert fields(exchange)["RateLimit"] == '"rate";r=0;t=1, "quota";r=0;t=100'


def test_a_window_below_a_second_is_not_told() -> None:
    limiter = RateLimit(FakeClock())
    limit = spec(1, 0.25)
    ask(limiter, limit)
    assert fields(ask(limiter, limit))["RateLimit-Policy"] == '"l";q=1'


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        (LimitBy.CALLER, {"peer": "spiffe://d/svc/a"}, {"peer": "spiffe://d/svc/b"}),
        (
            LimitBy.ROLE,
            {"principal": Principal("s", ("A", "B"))},
            {"principal": Principal("s", ("B",))},
        ),
        (LimitBy.SUBJECT, {"principal": Principal("a")}, {"principal": Principal("b")}),
        (LimitBy.HEADER, {"headers": [("X-Key", "a")]}, {"headers": [("X-Key", "b")]}),
    ],
)
def test_keys_have_buckets_of_their_own_and_those_without_share_one(
    by: LimitBy, one: dict[str, Any], other: dict[str, Any]
) -> None:
    limiter = RateLimit(FakeClock())
    limit = spec(by=by, header=b"x-key" if by is LimitBy.HEADER else None)
    assert ask(limiter, limit, **one).failure is None
    assert ask(limiter, limit, **other).failure is None
    assert ask(limiter, limit, **one).failure is not None
    assert ask(limiter, limit).failure is None
    assert ask(limiter, limit).failure is not None


def test_a_role_is_the_most_senior_one() -> None:
    limiter = RateLimit(FakeClock())
    limit = spec(by=LimitBy.ROLE)
    assert ask(limiter, limit, principal=Principal("s", ("A", "B"))).failure is None
    assert ask(limiter, limit, principal=Principal("t", ("A",))).failure is not None


def test_long_keys_are_told_apart_though_they_are_not_kept() -> None:
    limiter = RateLimit(FakeClock())
    limit = spec(by=LimitBy.HEADER, header=b"x-key")
    for end in "ab":
        assert ask(limiter, limit, headers=[("X-Key", "k" * 60_000 + end)]).failure is None
    assert ask(limiter, limit, headers=[("X-Key", "k" * 60_000 + "a")]).failure is not None
    (buckets,) = limiter._previous.values()
    assert max(len(key) for key in buckets._full_at) < 65


def test_without_limits_nothing_is_asked() -> None:
    exchange = make_exchange()
    RateLimit(FakeClock()).hms_authorize(exchange)
    assert exchange.failure is None


@given(st.integers(1, 30), st.sampled_from([0.5, 1.0, 7.0]), st.integers(1, 40))
def test_exactly_what_is_configured_is_admitted(requests: int, per: float, burst: int) -> None:
    clock = FakeClock()
    limiter = RateLimit(clock)
    limit = spec(requests, per, burst=burst)

    def admitted() -> int:
        return sum(ask(limiter, limit).failure is None for _ in range(burst + 2))

    assert admitted() == burst
    clock.tick(per)
    assert admitted() == min(burst, requests)


# -- across configurations -------------------------------------------------------------------------


def config(limit: str) -> Any:
    return snapshot_of(
        f"""
        listeners: [{{name: out, port: 1, routes: [{{name: r, action: {{cluster: c{limit}}}}}]}}]
        clusters: [{{name: c}}]
        """
    )


def through(limiter: RateLimit, snapshot: Any) -> bool:
    (route,) = snapshot.listeners[0].routes
    exchange = make_exchange(route=route, snapshot=snapshot)
    limiter.hms_authorize(exchange)
    return exchange.failure is None


def test_a_limit_that_stays_keeps_its_buckets_and_one_that_changes_begins_anew() -> None:
    limiter = RateLimit(FakeClock())
    one, same, other = (
        config(f", rate_limit: {{requests: {number}, per: 1h}}") for number in (1, 1, 2)
    )
    limiter.hms_configure(one)
    assert [through(limiter, one) for _ in range(2)] == [True, False]
    limiter.hms_configure(same)
    assert not through(limiter, same)
    limiter.hms_configure(other)
    assert [through(limiter, other) for _ in range(3)] == [True, True, False]
    assert not through(limiter, one)  # a request that began before
    limiter.hms_configure(same)  # it was refused by another plugin: back to what was
    assert not through(limiter, same)


def test_it_is_idle_where_nothing_is_limited() -> None:
    limiter = RateLimit()
    assert limiter.hms_idle_hooks(config("")) == ("hms_authorize",)
    assert limiter.hms_idle_hooks(config(", rate_limit: {requests: 1, per: 1s}")) == ()


def test_the_status_tells_what_each_limit_did_but_no_key() -> None:
    class Mesh:
        shown: Any = None

        def add_status(self, name: str, show: Any) -> None:
            assert name == "rate_limits"
            self.shown = show

    limiter, mesh = RateLimit(FakeClock()), Mesh()
    limiter.hms_startup(mesh)  # type: ignore[arg-type]
    snapshot = config(", rate_limit: {requests: 1, per: 1h}")
    limiter.hms_configure(snapshot)
    through(limiter, snapshot)
    through(limiter, snapshot)
    assert mesh.shown() == [
        {
            "limit": "1-per-3600s-by-route",
            "place": "listener out, route r",
            "keys": 1,
            "admitted": 1,
            "refused": 1,
            "dropped": 0,
        }
    ]
    assert repr(limiter) == "<RateLimit 1 limits>"


def test_limits_are_described() -> None:
    limit = spec(by=LimitBy.HEADER, header=b"x-key")
    assert describe(limit) == "1 requests per 60s, 1 at once, for each value of x-key"
