"""Falling back: when, to what, in which order, and how the answer tells of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.addons.fallback import Fallback
from hms_addons.errors import ConfigError, ExchangeFailed, Failure, Fault, Flag
from hms_addons.http_message import Answer, BodyStream, get_field
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange, make_route

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Route
    from hms_addons.exchange import Exchange


def nothing() -> None:
    """A stream's producer that cannot be stopped."""


CONFIG = """\
listeners:
  - name: out
    port: 1
    routes:
      - {{match: {{prefix: /verify-id}}, action: {{cluster: auth-svc, {action}}}}}
clusters: [{{name: auth-svc}}, {{name: cache, service: auth-svc}}]
"""
UNAVAILABLE = Failure.of(Fault.NO_HEALTHY_UPSTREAM, "all gone", retry_after=3)


def route_of(action: str) -> Route:
    return next(iter(snapshot_of(CONFIG.format(action=action)).listeners[0].routes))


class Scene:
    """The plugin over scripted forwarding."""

    def __init__(self, action: str, *outcomes: Answer | Failure) -> None:
        self.clock = FakeClock()
        self.snapshot = snapshot_of(CONFIG.format(action=action))
        self.route = route_of(action)
        self.outcomes = list(outcomes)
        self.cluster_says: Answer | None = None
        self.asked: list[str] = []
        self.plugin: Any = None
        self.fallback = Fallback(self._forward, self._elsewhere, self._find, self.clock)
        self.exchange: Exchange = make_exchange()

    async def _forward(self, exchange: Exchange, _: Any) -> Answer:
        outcome = self.outcomes.pop(0)
        await asyncio.sleep(0)
        if isinstance(outcome, Failure):
            raise ExchangeFailed(outcome)
        return outcome

    async def _elsewhere(self, exchange: Exchange, _: Any, step: Any, began: float) -> Any:
        self.asked.append(step.route.clusters[0].cluster)
        if self.cluster_says is not None:
            exchange.cluster = self.snapshot.clusters["cache"]
        return self.cluster_says

    def _find(self, name: str) -> Any:
        return self.plugin if name == "mine" else None

    async def run(self, content: bytes = b"", **request: Any) -> Answer:
        self.exchange = make_exchange(route=self.route, **request)
        self.exchange.flow.request.raw_content = content
        self.exchange.cluster = self.snapshot.clusters["auth-svc"]
        self.exchange.endpoint = "10.0.0.1:80"
        running = self.fallback.hms_forward(self.exchange, None)
        assert running is not None
        return await running


def mark(answer: Answer) -> str | None:
    value = get_field(answer.fields, b"x-hms-fallback")
    return None if value is None else value.decode()


def ok(body: bytes = b"real") -> Answer:
    return Answer(200, b"OK", ((b"X-A", b"1"),), body)


# -- when ------------------------------------------------------------------------------------------


async def test_a_good_answer_is_left_alone() -> None:
    scene = Scene("fallback: {response: {}}", ok())
    answer = await scene.run()
    assert (answer.body, mark(answer), scene.exchange.flag) == (b"real", None, None)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.NO_HEALTHY_UPSTREAM,
        Fault.CONNECT_FAILURE,
        Fault.LOCAL_FAILURE,
        Fault.OVERFLOW,
        Fault.UPSTREAM_RESET,
        Fault.UPSTREAM_PROTOCOL,
        Fault.TIMEOUT,
    ],
)
async def test_every_failure_to_get_an_answer_is_stood_in_for(fault: Fault) -> None:
    scene = Scene(
        "fallback: {response: {status: 203, body: '[]', headers: {Content-Type: a/b}}}",
        Failure.of(fault, "why"),
    )
    answer = await scene.run()
    flag = fault.value.flag
    assert (answer.status, answer.reason, answer.body, answer.local) == (
        203,
        b"Non-Authoritative Information",
        b"[]",
        True,
    )
    assert answer.fields == (
        (b"Content-Type", b"a/b"),
        (b"X-HMS-Fallback", b"response; because=%b" % flag.encode()),
        (b"X-HMS-Flag", b"FB"),
    )
    assert scene.exchange.flag is Flag.FB
    assert scene.exchange.notes["fallback"] == {
        "what": "response",
        "because": flag,
        "detail": "why",
    }


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RATE_LIMITED,
        Fault.POLICY_DENIED,
        Fault.TOKEN_INVALID,
        Fault.PLUGIN_ERROR,
        Fault.CLIENT_GONE,
    ],
)
async def test_what_was_refused_stays_refused(fault: Fault) -> None:
    scene = Scene("fallback: {response: {}}", Failure.of(fault, "no"))
    with pytest.raises(ExchangeFailed) as caught:
        await scene.run()
    assert caught.value.failure.flag is fault.value.flag
    assert scene.exchange.flag is None


@pytest.mark.parametrize(
    ("on", "status", "falls_back"),
    [
        ("", 503, True),
        ("", 502, True),
        ("", 500, False),
        ("", 404, False),
        (", on: [5xx]", 500, True),
        (", on: [timeout]", 503, False),
    ],
)
async def test_a_bad_answer_after_all_retries_too(
    on: str, status: int, *, falls_back: bool
) -> None:
    released: list[str] = []
    body = BodyStream(nothing, nothing, lambda: released.append("it"))
    scene = Scene(f"fallback: {{response: {{}}{on}}}", Answer(status, b"", (), body))
    answer = await scene.run()
    assert (answer.status == 200) is falls_back
    assert bool(released) is falls_back
    if falls_back:
        assert mark(answer) == f"response; because={status}"


async def test_only_what_it_is_on_for() -> None:
    scene = Scene("fallback: {response: {}, on: [timeout]}", UNAVAILABLE)
    with pytest.raises(ExchangeFailed):
        await scene.run()


# -- to what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "because"), [(UNAVAILABLE, "UH"), (Answer(503, b"", (), b"busy"), "503")]
)
async def test_another_cluster(outcome: Answer | Failure, because: str) -> None:
    scene = Scene("fallback: {cluster: cache}", outcome)
    scene.cluster_says = ok(b"cached")
    answer = await scene.run()
    assert (answer.body, mark(answer)) == (b"cached", f"cluster=cache; because={because}")


async def test_in_order_until_one_has_an_answer() -> None:
    scene = Scene("fallback: [{cluster: cache}, {stale: 60s}, {response: {body: x}}]", UNAVAILABLE)
    answer = await scene.run()
    assert scene.asked == ["cache"]
    assert mark(answer) == "response; because=UH"


async def test_if_none_has_one_the_failure_itself_is_told() -> None:
    scene = Scene("fallback: [{cluster: cache}, {stale: 60s}]", UNAVAILABLE, Answer(503, b"", ()))
    with pytest.raises(ExchangeFailed) as caught:
        await scene.run()
    assert caught.value.failure is UNAVAILABLE
    answer = await scene.run()
    assert (answer.status, mark(answer)) == (503, None)


async def test_the_last_good_answer() -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), UNAVAILABLE, Answer(503, b"", ()), UNAVAILABLE)
    await scene.run()
    await scene.clock.advance(12)
    for because in ("UH", "503"):
        answer = await scene.run()
        assert answer.body == b"real"
        assert mark(answer) == f"stale; age=12; because={because}"
        assert get_field(answer.fields, b"age") == b"12"
    await scene.clock.advance(50)
    with pytest.raises(ExchangeFailed):
        await scene.run()


async def test_an_answer_is_kept_as_the_upstream_gave_it() -> None:
    first = ok()
    scene = Scene("fallback: {stale: 60s}", first, UNAVAILABLE, UNAVAILABLE)
    await scene.run()
    first.fields = ((b"X-Edited", b"by a plugin of the respond phase"),)
    answer = await scene.run()
    assert get_field(answer.fields, b"x-a") == b"1"
    answer.body = b"edited"
    assert (await scene.run()).body == b"real"


async def test_head_is_answered_from_a_get() -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), UNAVAILABLE)
    await scene.run()
    answer = await scene.run(method="HEAD")
    assert (answer.body, answer.length) == (b"", 4)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_only_gets_are_kept(method: str) -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), UNAVAILABLE)
    await scene.run(method=method)
    with pytest.raises(ExchangeFailed):
        await scene.run(method="GET")


async def test_a_post_gets_no_stale_answer() -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), UNAVAILABLE)
    await scene.run()
    with pytest.raises(ExchangeFailed):
        await scene.run(method="POST")


async def test_one_callers_last_answer_is_not_anothers() -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), UNAVAILABLE)
    await scene.run(headers=[("Authorization", "Bearer alice")])
    with pytest.raises(ExchangeFailed):
        await scene.run(headers=[("Authorization", "Bearer bob")])


async def test_a_get_whose_body_asks_for_something_is_neither_kept_nor_answered() -> None:
    """Else who asks for one thing got the answer to another of the same length."""
    scene = Scene("fallback: {stale: 60s}", ok(), UNAVAILABLE, ok(), UNAVAILABLE)
    await scene.run(content=b"q=alice")
    with pytest.raises(ExchangeFailed):
        await scene.run()
    await scene.run()
    with pytest.raises(ExchangeFailed):
        await scene.run(content=b"q=bob00")


@pytest.mark.parametrize("status", [302, 401, 403, 404, 410])
async def test_what_is_gone_or_forbidden_meanwhile_does_not_come_back(status: int) -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), Answer(status, b"", ()), UNAVAILABLE)
    await scene.run()
    await scene.run()
    with pytest.raises(ExchangeFailed):
        await scene.run()


@pytest.mark.parametrize("status", [304, 429])
async def test_an_answer_that_leaves_it_open_keeps_the_last_one(status: int) -> None:
    scene = Scene("fallback: {stale: 60s}", ok(), Answer(status, b"", ()), UNAVAILABLE)
    await scene.run()
    await scene.run()
    assert (await scene.run()).body == b"real"


async def test_without_stale_nothing_is_kept() -> None:
    scene = Scene("fallback: {response: {}}", ok())
    await scene.run()
    assert len(scene.fallback.answers) == 0


async def test_a_fallbacks_own_answer_is_not_kept() -> None:
    scene = Scene("fallback: [{stale: 60s}, {cluster: cache}]", UNAVAILABLE, UNAVAILABLE)
    scene.cluster_says = ok(b"cached")
    for _ in range(2):
        assert mark(await scene.run()) == "cluster=cache; because=UH"


# -- plugins ---------------------------------------------------------------------------------------


async def ask_plugin(plugin: Any) -> Answer:
    scene = Scene("fallback: [{plugin: mine}, {response: {}}]", UNAVAILABLE)
    scene.plugin = plugin
    scene.fallback.hms_configure(scene.snapshot)
    return await scene.run()


async def test_a_plugin_is_told_what_happened_and_answers() -> None:
    told: list[Any] = []

    async def answers(exchange: Exchange, failure: Failure) -> Answer:
        told.append((exchange.path, failure.flag))
        return ok(b"made up")

    answer = await ask_plugin(answers)
    assert (answer.body, mark(answer)) == (b"made up", "plugin=mine; because=UH")
    assert told == [("/verify-id", "UH")]


def raises(*_: Any) -> Answer:
    raise ValueError("plugin bug")


@pytest.mark.parametrize(
    "plugin", [raises, lambda *_: None, lambda *_: 7, lambda *_: Answer(7, b"", ())]
)
async def test_a_plugin_that_has_no_answer_leaves_it_to_the_next(plugin: Any) -> None:
    assert mark(await ask_plugin(plugin)) == "response; because=UH"


async def test_a_plugin_that_always_fails_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene("fallback: [{plugin: mine}, {response: {}}]", *[UNAVAILABLE] * 9)
    scene.plugin = raises
    scene.fallback.hms_configure(scene.snapshot)
    for _ in range(9):
        assert mark(await scene.run()) == "response; because=UH"
    told = [one.getMessage() for one in caplog.records]
    assert told == [f"plugin mine failed in hms_fallback ({n} so far)" for n in (1, 2, 4, 8)]
    assert all(one.exc_info for one in caplog.records)


async def test_a_plugin_that_hangs_has_the_routes_timeout() -> None:
    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    scene = Scene("timeout: 2s, fallback: [{plugin: mine}, {response: {}}]", UNAVAILABLE)
    scene.plugin = hangs
    scene.fallback.hms_configure(scene.snapshot)
    task = asyncio.create_task(scene.run())
    await scene.clock.advance(2)
    assert mark(await task) == "response; because=UH"


async def test_a_plugin_that_a_newer_configuration_no_longer_names_is_passed_over() -> None:
    scene = Scene("fallback: [{plugin: mine}, {response: {}}]", UNAVAILABLE)
    assert mark(await scene.run()) == "response; because=UH"


def test_a_plugin_that_is_not_there_refuses_the_configuration() -> None:
    scene = Scene("fallback: {plugin: mine}")
    with pytest.raises(
        ConfigError, match="route prefix:/verify-id of listener out: fallback: no plugin 'mine'"
    ):
        scene.fallback.hms_configure(scene.snapshot)


# -- nothing configured, and giving up -------------------------------------------------------------


def test_routes_without_a_fallback_are_left_to_the_next() -> None:
    scene = Scene("timeout: 1s")
    exchange = make_exchange(route=make_route())
    assert scene.fallback.hms_forward(exchange, None) is None
    exchange.route = None
    assert scene.fallback.hms_forward(exchange, None) is None


def test_it_is_idle_where_no_route_falls_back() -> None:
    without, having = Scene("timeout: 1s"), Scene("fallback: {response: {}}")
    assert list(without.fallback.hms_idle_hooks(without.snapshot)) == ["hms_forward"]
    assert list(having.fallback.hms_idle_hooks(having.snapshot)) == []


async def test_answers_are_forgotten_when_nothing_asks_for_them_any_more() -> None:
    scene = Scene("fallback: {stale: 60s}", ok())
    await scene.run()
    scene.fallback.hms_configure(scene.snapshot)
    assert len(scene.fallback.answers) == 1
    scene.fallback.hms_configure(Scene("timeout: 1s").snapshot)
    assert len(scene.fallback.answers) == 0


def test_the_status_tells_what_is_kept() -> None:
    shown: dict[str, Any] = {}

    class Mesh:
        def add_status(self, name: str, show: Any) -> None:
            shown[name] = show()

    Scene("fallback: {stale: 60s}").fallback.hms_startup(Mesh())  # type: ignore[arg-type]
    assert shown == {"last_answers": {"entries": 0, "bytes": 0}}


async def test_given_up_while_it_falls_back_the_bad_answer_is_let_go() -> None:
    released: list[str] = []
    body = BodyStream(nothing, nothing, lambda: released.append("it"))
    scene = Scene("fallback: {plugin: mine}", Answer(503, b"", (), body))

    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    scene.plugin = hangs
    scene.fallback.hms_configure(scene.snapshot)
    task = asyncio.create_task(scene.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == ["it"]
    assert scene.clock.pending == 0
