"""The seven phases fail closed."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import Cluster, Route, WeightedCluster
from hms_addons.engine.hook_chain import Hook, HookChain, local_answer
from hms_addons.errors import ExchangeFailed, Failure, Fault, Flag
from hms_addons.http_message import Answer, BodyStream
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_route, make_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.exchange import Exchange

ROUTE = make_route()
CLOCK = FakeClock()
SNAPSHOT = make_snapshot(
    clusters={
        "auth-svc": Cluster(name="auth-svc", service="auth-svc"),
        "auth-svc-v2": Cluster(name="auth-svc-v2", service="auth-svc"),
    }
)


def chain(**hooks: Callable[..., Any] | list[Callable[..., Any]]) -> HookChain:
    """A chain whose route and forward phases work, but for `hooks`."""
    given: dict[str, Any] = {
        "route": lambda _exchange: ROUTE,
        "forward": lambda _exchange, _upstream: Answer(200, b"OK", ()),
        **hooks,
    }
    compiled = {
        f"hms_{name}": [
            Hook(call, f"plugin-{number}", f"hms_{name}")
            for number, call in enumerate(calls if isinstance(calls, list) else [calls])
        ]
        for name, calls in given.items()
    }
    return HookChain(compiled, Random(1), CLOCK)


def fresh() -> Exchange:
    exchange = make_exchange(snapshot=SNAPSHOT)
    exchange.route = None
    return exchange


async def run(made: HookChain, exchange: Exchange | None = None) -> Exchange:
    exchange = exchange or fresh()
    await made.decide(exchange)
    if exchange.failure is None:
        await made.forward(exchange, None)
    await made.respond(exchange)
    made.complete(exchange)
    return exchange


def raises(*_: Any) -> None:
    message = "s3cret"
    raise RuntimeError(message)


async def raises_later(*_: Any) -> None:
    await asyncio.sleep(0)
    raises()


async def test_all_is_well() -> None:
    exchange = await run(chain())
    assert exchange.failure is None
    assert exchange.permit is not None
    assert exchange.route is ROUTE
    assert exchange.cluster is SNAPSHOT.clusters["auth-svc"]
    assert exchange.answer is not None
    assert exchange.answer.status == 200


@pytest.mark.parametrize("broken", [raises, raises_later])
@pytest.mark.parametrize("phase", ["identify", "route", "authorize", "prepare", "forward"])
async def test_a_plugin_that_raises_refuses(phase: str, broken: Any) -> None:
    forwarded: list[Any] = []

    def forward(_exchange: Exchange, _upstream: Any) -> Answer:
        forwarded.append(1)
        return Answer(200, b"OK", ())

    made = chain(**{"forward": forward, phase: broken})
    exchange = await run(made)
    assert exchange.failure is not None
    assert exchange.failure.status == 500
    assert exchange.failure.flag is Flag.PE
    assert "plugin-0" in exchange.failure.detail
    assert f"hms_{phase}" in exchange.failure.detail
    assert "s3cret" not in exchange.failure.detail
    assert exchange.permit is None
    assert not forwarded
    assert made.errors == {("plugin-0", f"hms_{phase}"): 1}


@pytest.mark.parametrize("broken", [raises, raises_later])
async def test_hms_respond_that_raises_is_counted_and_passed_over(broken: Any) -> None:
    def stamp(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.status = 299

    made = chain(respond=[broken, stamp])
    exchange = await run(made)
    assert exchange.answer is not None
    assert exchange.answer.status == 299
    assert made.errors["plugin-0", "hms_respond"] == 1


@pytest.mark.parametrize("junk", [None, Answer(204, b"", (), local=True)])
async def test_what_hms_respond_had_set_before_it_raised_is_not_kept(junk: Any) -> None:
    def half(exchange: Exchange) -> None:
        exchange.answer = junk
        raise RuntimeError

    seen: list[Any] = []
    made = chain(respond=[lambda exchange: seen.append(exchange.answer), half])
    exchange = await run(made)
    assert exchange.answer is seen[0]
    assert made.errors["plugin-1", "hms_respond"] == 1


async def test_hms_complete_that_raises_or_is_async_is_counted() -> None:
    seen: list[Exchange] = []
    made = chain(complete=[raises, raises_later, seen.append])
    exchange = await run(made)
    assert seen == [exchange]
    assert sum(made.errors.values()) == 2


@pytest.mark.parametrize("phase", ["identify", "authorize", "prepare"])
async def test_a_denial_ends_the_phases(phase: str) -> None:
    later: list[str] = []

    def deny(exchange: Exchange) -> None:
        exchange.deny(403, "RBAC", "not today")

    made = chain(**{phase: [deny, lambda _exchange: later.append("same phase")]})
    exchange = await run(made)
    assert exchange.failure is not None
    assert exchange.failure.detail == "not today"
    assert exchange.permit is None
    assert not later


async def test_forward_goes_nowhere_without_a_permit() -> None:
    exchange = fresh()
    await chain().forward(exchange, None)
    assert exchange.answer is None
    assert exchange.failure is not None
    assert exchange.failure.flag is Flag.PE


async def test_a_permit_is_only_made_after_every_plugin_has_agreed() -> None:
    permits: list[Any] = []
    made = chain(
        authorize=[lambda exchange: permits.append(exchange.permit)] * 2,
        prepare=lambda exchange: permits.append(exchange.permit),
    )
    await run(made)
    assert permits == [None, None, None]


async def test_the_first_route_wins_and_no_route_is_a_404() -> None:
    other = make_route("pay-svc")
    made = chain(route=[lambda _: None, lambda _: other, lambda _: ROUTE])
    exchange = make_exchange(
        snapshot=make_snapshot(clusters={"pay-svc": Cluster(name="pay-svc", service="pay-svc")})
    )
    assert (await run(made, exchange)).route is other
    lost = await run(chain(route=lambda _: None))
    assert lost.failure is not None
    assert (lost.failure.status, lost.failure.flag) == (404, Flag.NR)


async def test_what_is_no_route_is_the_plugins_error() -> None:
    exchange = await run(chain(route=lambda _: "auth-svc"))
    assert exchange.failure is not None
    assert exchange.failure.flag is Flag.PE
    assert "plugin-0" in exchange.failure.detail


async def test_clusters_are_chosen_by_weight() -> None:
    route = make_route(
        clusters=(
            WeightedCluster(cluster="auth-svc", weight=90),
            WeightedCluster(cluster="auth-svc-v2", weight=10),
        )
    )
    made = chain(route=lambda _: route)
    names = []
    for _ in range(400):
        exchange = fresh()
        await made.decide(exchange)
        assert exchange.cluster is not None
        names.append(exchange.cluster.name)
    assert 15 <= names.count("auth-svc-v2") <= 75


async def test_a_failure_to_forward_may_be_answered_by_a_fallback() -> None:
    failure = Failure.of(Fault.NO_HEALTHY_UPSTREAM, "all gone", retry_after=3)

    async def forward(_exchange: Exchange, _upstream: Any) -> Answer:
        raise ExchangeFailed(failure)

    async def stale(_exchange: Exchange, told: Failure) -> Answer:
        assert told is failure
        return Answer(200, b"OK", (), b"stale")

    exchange = await run(chain(forward=forward, fallback=[raises, stale]))
    assert exchange.failure is failure
    assert exchange.answer is not None
    assert exchange.answer.body == b"stale"
    assert (b"X-HMS-Flag", b"FB") in exchange.answer.fields
    assert any(name == b"X-HMS-Fallback" for name, _ in exchange.answer.fields)
    unanswered = await run(chain(forward=forward, fallback=lambda *_: None))
    assert unanswered.answer is not None
    assert unanswered.answer.status == 503
    assert (b"Retry-After", b"3") in unanswered.answer.fields


async def test_a_refusal_has_no_fallback() -> None:
    asked: list[Any] = []
    made = chain(
        authorize=lambda exchange: exchange.deny(403, "RBAC", "no"),
        fallback=lambda *arguments: asked.append(arguments),
    )
    await run(made)
    assert not asked


async def test_cancellation_passes_through() -> None:
    async def forever(_exchange: Exchange) -> None:
        await asyncio.get_running_loop().create_future()

    exchange = fresh()
    task = asyncio.create_task(chain(authorize=forever).decide(exchange))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.permit is None
    assert exchange.failure is None


def test_pick_endpoint_takes_the_first_and_refuses_on_error() -> None:
    made = chain(pick_endpoint=[lambda *_: None, lambda _exchange, candidates: candidates[1]])
    assert made.picks_endpoints
    assert made.pick_endpoint(fresh(), ["a", "b"]) == "b"
    with pytest.raises(ExchangeFailed) as failed:
        chain(pick_endpoint=raises).pick_endpoint(fresh(), ["a"])
    assert failed.value.failure.flag is Flag.PE


async def test_a_plugin_that_always_fails_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = chain(identify=raises)
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            await made.decide(fresh())
    assert made.errors["plugin-0", "hms_identify"] == 100
    assert len(caplog.records) == 7  # at 1, 2, 4, … 64


def test_an_exchange_that_ended_without_an_answer_still_gets_one() -> None:
    exchange = fresh()
    answer = local_answer(exchange)
    assert answer.status == 500
    assert answer.local


async def test_a_plugin_cannot_frame_the_answer() -> None:
    def respond(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.fields = (
            (b"Content-Length", b"3"), (b"transfer-encoding", b"chunked"), (b"X-Ok", b"1")
        )  # fmt: skip

    exchange = await run(chain(respond=respond))
    assert exchange.answer is not None
    assert exchange.answer.fields == ((b"X-Ok", b"1"),)


async def test_an_answer_that_no_plugin_changes_stays_the_one_that_was_parsed() -> None:
    answer = Answer(200, b"OK", ((b"A", b"1"),))
    answer.vouched = answer.fields
    exchange = fresh()
    exchange.answer = answer
    await chain(respond=lambda _: None).respond(exchange)
    assert exchange.answer is answer
    assert answer.fields is answer.vouched


async def test_a_route_without_clusters_gets_none() -> None:
    exchange = fresh()
    await chain(route=lambda _: make_route(clusters=())).decide(exchange)
    assert exchange.permit is not None
    assert exchange.cluster is None


async def test_a_plugin_that_wants_to_exit_is_refused_like_any_other() -> None:
    def leave(_exchange: Exchange) -> None:
        raise SystemExit(3)

    exchange = await run(chain(authorize=leave))
    assert exchange.failure is not None
    assert exchange.failure.flag is Flag.PE
    assert (await run(chain(respond=leave))).failure is None


async def hangs(*_: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("phase", "route", "seconds"),
    [
        ("identify", make_route(timeout=2.0), 15),  # which route it is is not yet known
        ("authorize", make_route(timeout=2.0), 2),
        ("prepare", make_route(timeout=40.0), 40),
        ("prepare", make_route(timeout=None), 15),
    ],
)
async def test_how_long_hooks_may_wait(phase: str, route: Route, seconds: float) -> None:
    made = chain(route=lambda _: route, **{phase: hangs})
    exchange = fresh()
    task = asyncio.create_task(made.decide(exchange))
    await CLOCK.advance(seconds - 0.1)
    assert not task.done()
    await CLOCK.advance(0.2)
    await task
    assert exchange.permit is None
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (500, Flag.PE)
    assert f"'plugin-0' was still waiting after {seconds}s in hms_{phase}" in (
        exchange.failure.detail
    )
    assert made.errors == {("plugin-0", f"hms_{phase}"): 1}


async def test_hms_respond_that_hangs_takes_the_answer_with_it() -> None:
    """It may have been about to remove something."""
    later: list[Exchange] = []
    made = chain(respond=[hangs, later.append])
    exchange = fresh()
    exchange.answer = Answer(200, b"OK", (), b"the subject's file")
    task = asyncio.create_task(made.respond(exchange))
    await CLOCK.advance(15.1)
    await task
    assert exchange.answer.status == 500
    assert exchange.failure is not None
    assert "in hms_respond" in exchange.failure.detail
    assert not later


async def test_hms_fallback_that_hangs_leaves_the_failure() -> None:
    def forward(_exchange: Exchange, _upstream: Any) -> Answer:
        raise ExchangeFailed(Failure.of(Fault.NO_HEALTHY_UPSTREAM, "all gone"))

    task = asyncio.create_task(run(chain(forward=forward, fallback=hangs)))
    await CLOCK.advance(15.1)
    exchange = await task
    assert exchange.answer is not None
    assert exchange.answer.status == 503


def cancelled(*_: Any) -> None:
    raise asyncio.CancelledError


async def cancelled_later(*_: Any) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize("broken", [cancelled, cancelled_later])
@pytest.mark.parametrize("phase", ["identify", "route", "authorize", "prepare", "forward"])
async def test_a_cancellation_that_is_the_plugins_own_refuses(phase: str, broken: Any) -> None:
    exchange = await run(chain(**{phase: broken}))
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (500, Flag.PE)
    assert f"plugin 'plugin-0' failed in hms_{phase}" in exchange.failure.detail


@pytest.mark.parametrize("broken", [cancelled, cancelled_later])
async def test_a_cancellation_that_is_the_plugins_own_is_counted_elsewhere(broken: Any) -> None:
    made = chain(respond=broken, complete=broken)
    exchange = await run(made)
    assert exchange.failure is None
    assert made.errors == {("plugin-0", "hms_respond"): 1, ("plugin-0", "hms_complete"): 1}
    with pytest.raises(ExchangeFailed):
        chain(pick_endpoint=cancelled).pick_endpoint(fresh(), ["a"])


@pytest.mark.parametrize("phase", ["forward", "fallback", "respond"])
async def test_a_real_cancellation_passes_through_later_phases(phase: str) -> None:
    def fails(_exchange: Exchange, _upstream: Any) -> Answer:
        raise ExchangeFailed(Failure.of(Fault.NO_HEALTHY_UPSTREAM, "all gone"))

    made = chain(**{"forward": fails, phase: hangs} if phase == "fallback" else {phase: hangs})
    task = asyncio.create_task(run(made))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not made.errors


# -- beyond `Exception` ----------------------------------------------------------------------------

ENDINGS = [GeneratorExit, KeyboardInterrupt, SystemExit, type("OwnError", (BaseException,), {})]


def ends_with(kind: type[BaseException], *, later: bool) -> Any:
    def now(*_: Any) -> None:
        raise kind

    async def afterwards(*_: Any) -> None:
        await asyncio.sleep(0)
        raise kind

    return afterwards if later else now


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("phase", ["identify", "route", "authorize", "prepare", "forward"])
async def test_whatever_a_plugin_raises_refuses(
    phase: str, kind: type[BaseException], *, later: bool
) -> None:
    made = chain(**{phase: ends_with(kind, later=later)})
    exchange = await run(made)
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (500, Flag.PE)
    assert f"plugin 'plugin-0' failed in hms_{phase}" in exchange.failure.detail
    assert exchange.permit is None
    assert made.errors == {("plugin-0", f"hms_{phase}"): 1}


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("kind", ENDINGS)
async def test_whatever_a_plugin_raises_elsewhere_is_counted(
    kind: type[BaseException], *, later: bool
) -> None:
    def fails(_exchange: Exchange, _upstream: Any) -> Answer:
        raise ExchangeFailed(Failure.of(Fault.NO_HEALTHY_UPSTREAM, "all gone"))

    broken = ends_with(kind, later=later)
    made = chain(forward=fails, fallback=broken, respond=broken, complete=broken)
    exchange = await run(made)
    assert exchange.answer is not None
    assert exchange.answer.status == 503
    assert made.errors == {
        ("plugin-0", f"hms_{name}"): 1 for name in ("fallback", "respond", "complete")
    }


@pytest.mark.parametrize("kind", ENDINGS)
def test_whatever_a_plugin_raises_when_it_picks_refuses(kind: type[BaseException]) -> None:
    with pytest.raises(ExchangeFailed) as failed:
        chain(pick_endpoint=ends_with(kind, later=False)).pick_endpoint(fresh(), ["a"])
    assert failed.value.failure.flag is Flag.PE


@pytest.mark.parametrize("phase", ["identify", "forward", "respond"])
def test_a_coroutine_that_is_closed_ends_there(phase: str) -> None:
    """As one is that nobody runs any more: `GeneratorExit` is not the plugin's then."""

    class Never:
        def __await__(self) -> Any:
            yield

    async def waits(*_: Any) -> None:
        await Never()

    made = chain(**{phase: waits})
    running = asyncio.new_event_loop()

    async def until_it_waits() -> Any:
        coroutine = run(made)
        coroutine.send(None)
        return coroutine

    coroutine = running.run_until_complete(until_it_waits())
    running.run_until_complete(running.shutdown_asyncgens())
    running.close()
    coroutine.close()
    assert not made.errors


@pytest.mark.parametrize("status", [200, 302, 99])
async def test_a_refusal_that_says_yes_is_the_plugins_error(status: int) -> None:
    made = chain(authorize=lambda exchange: exchange.deny(status, "RBAC", "no"))
    exchange = await run(made)
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (500, Flag.PE)
    assert made.errors == {("plugin-0", "hms_authorize"): 1}


# -- what hms_respond may leave --------------------------------------------------------------------

UNSENDABLE: list[tuple[str, Any]] = [
    *(("status", junk) for junk in (0, 99, 101, 199, 600, -200, 10**30, "200", None, 200.0)),
    *(
        ("body", junk)
        for junk in (None, "text", bytearray(b"x"), [b"x"], type("B", (bytes,), {})())
    ),
    *(("reason", junk) for junk in (None, "OK")),
    *(("length", junk) for junk in (-1, "2", 2.0)),
    *(
        (name, junk)
        for name in ("fields", "trailers")
        for junk in (
            None,
            [(b"A", b"1")],
            ((b"A",),),
            ((b"A", b"1", b"2"),),
            ((b"A", "1"),),
            (("A", b"1"),),
            (b"A1",),
            ([b"A", b"1"],),
        )
    ),
]


@pytest.mark.parametrize("raises_too", [False, True])
@pytest.mark.parametrize(("name", "junk"), UNSENDABLE)
async def test_an_answer_that_cannot_be_sent_goes_out_as_it_was(
    name: str, junk: Any, *, raises_too: bool
) -> None:
    def leave(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.fields = ((b"X-Half", b"1"),)
        setattr(exchange.answer, name, junk)
        if raises_too:
            raise RuntimeError

    def stamp(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.fields = (*exchange.answer.fields, (b"X-Stamp", b"1"))

    given = Answer(200, b"OK", ((b"A", b"1"),), b"ok")
    before = given.state()
    made = chain(forward=lambda *_: given, respond=[leave, stamp])
    exchange = await run(made)
    assert exchange.answer is given
    assert given.fields == ((b"A", b"1"), (b"X-Stamp", b"1"))
    given.fields = before[2]
    assert given.state() == before
    assert exchange.failure is None
    assert made.errors == {("plugin-0", "hms_respond"): 1}


@pytest.mark.parametrize(("name", "junk"), UNSENDABLE)
async def test_an_answer_that_cannot_be_sent_takes_no_other_ones_place(
    name: str, junk: Any
) -> None:
    def leave(exchange: Exchange) -> None:
        exchange.answer = Answer(200, b"", ())
        setattr(exchange.answer, name, junk)

    given = Answer(200, b"OK", ((b"A", b"1"),), b"ok")
    made = chain(forward=lambda *_: given, respond=leave)
    assert (await run(made)).answer is given
    assert made.errors == {("plugin-0", "hms_respond"): 1}


@pytest.mark.parametrize(("name", "junk"), UNSENDABLE)
@pytest.mark.parametrize("phase", ["forward", "fallback"])
async def test_an_answer_that_cannot_be_sent_is_no_answer(phase: str, name: str, junk: Any) -> None:
    def unsendable(*_: Any) -> Answer:
        answer = Answer(200, b"", ())
        setattr(answer, name, junk)
        return answer

    def fails(_exchange: Exchange, _upstream: Any) -> Answer:
        raise ExchangeFailed(Failure.of(Fault.NO_HEALTHY_UPSTREAM, "all gone"))

    made = chain(**{"forward": fails, phase: unsendable})
    exchange = await run(made)
    assert exchange.answer is not None
    assert exchange.answer.status == (500 if phase == "forward" else 503)
    assert made.errors == {("plugin-0", f"hms_{phase}"): 1}


async def test_what_may_be_left_of_an_answer() -> None:
    stream = BodyStream(lambda: None, lambda: None)

    def change(exchange: Exchange) -> None:
        answer = exchange.answer
        assert answer is not None
        answer.status, answer.reason = HTTPStatus.IM_A_TEAPOT, b""
        answer.fields, answer.trailers = (), ((b"X-Sum", b"9"),)
        answer.body, answer.length = stream, None

    made = chain(respond=change)
    exchange = await run(made)
    assert exchange.answer is not None
    assert (exchange.answer.status, exchange.answer.body) == (418, stream)
    assert not made.errors


async def test_a_held_body_s_length_is_what_it_is() -> None:
    def change(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.body = b"longer than it was"

    exchange = await run(chain(respond=change))
    assert exchange.answer is not None
    assert exchange.answer.length == 18


async def test_a_script_s_odd_status_is_not_laid_at_a_plugin_s_door() -> None:
    def stamp(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.fields = ((b"X-Stamp", b"1"),)

    made = chain(respond=stamp)
    exchange = fresh()
    exchange.answer = Answer(999, b"", ())
    await made.respond(exchange)
    assert (exchange.answer.status, exchange.answer.fields) == (999, ((b"X-Stamp", b"1"),))
    assert not made.errors
