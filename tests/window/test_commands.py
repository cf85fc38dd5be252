"""The mesh's commands, as mitmweb's command bar and mitmproxy's prompt call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.exceptions import CommandError

from hms_addons.window.by_hand import ByHand
from hms_addons.window.commands import Commands
from hms_addons.window.kept_bodies import cut
from hms_addons.window.redaction import Redactor
from tests.fakes.flows import make_flow
from tests.fakes.hand import HandSidecar
from tests.fakes.web_master import FakeWebMaster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mitmproxy.http import HTTPFlow


class Desk:
    def __init__(self) -> None:
        self.master = FakeWebMaster()
        self.sidecar = HandSidecar()
        by_hand = ByHand(self.sidecar)  # type: ignore[arg-type] # a part of it
        self.master.addons.add(
            Commands(self.master, self.sidecar, by_hand, Redactor())  # type: ignore[arg-type] # as above
        )
        self.replayed: list[Any] = []

    def run(self, *words: str) -> Any:
        name, *arguments = words
        return self.master.commands.call_strings(name, arguments)

    def show(self, **noted: Any) -> HTTPFlow:
        flow = make_flow("/verify-id", method=noted.pop("method", "GET"))
        if noted:
            flow.metadata["hms"] = noted
        self.master.view.add([flow])
        return flow


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    made = Desk()
    call = made.master.commands.call

    def instead(name: str, *arguments: Any) -> Any:
        if name == "replay.client":
            return made.replayed.extend(*arguments)
        return call(name, *arguments)

    # mitmproxy's own replay would open connections.
    monkeypatch.setattr(made.master.commands, "call", instead)
    yield made
    await made.sidecar.upstream.close()
    made.master.close()


NOTED = {"cluster": "auth-svc", "endpoint": "127.0.0.1:9001", "listener": "out", "peer": None}


async def test_every_command_has_its_help_and_its_types(desk: Desk) -> None:
    commands = desk.master.commands.commands
    ours = {name: found for name, found in commands.items() if name.startswith("hms.")}
    assert {
        name: found.signature_help() for name, found in ours.items() if "options" not in name
    } == {
        "hms.explain": "hms.explain flows -> str[]",
        "hms.retry": "hms.retry flows anyway -> str",
        "hms.break": "hms.break flows what seconds -> str",
        "hms.mend": "hms.mend cluster -> str",
        "hms.weight": "hms.weight where subset percent -> str",
    }
    assert all(found.help for found in ours.values())


async def test_completions(desk: Desk) -> None:
    assert desk.run("hms.break.options") == ("endpoint", "cluster")
    assert desk.run("hms.retry.options") == ["anyway"]
    assert "auth-svc-v2" in desk.run("hms.weight.options")


async def test_explain_tells_in_lines_and_in_the_event_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(7):
        desk.show()
    lines = desk.run("hms.explain", "@all")
    assert lines.count("the mesh has not decided on this flow") == 5
    assert "route     verify, to the service auth-svc" in lines
    assert caplog.messages == lines


async def test_no_flow_is_an_error_that_says_how_to_name_one(desk: Desk) -> None:
    for words in (("hms.explain", "@all"), ("hms.break", "@all"), ("hms.retry", "@focus")):
        with pytest.raises(CommandError, match="name one by @focus"):
            desk.run(*words)


# -- retry -----------------------------------------------------------------------------------------


async def test_a_retry_is_a_new_flow(desk: Desk) -> None:
    flow = desk.show(**NOTED)
    flow.marked = ":x:"
    assert desk.run("hms.retry", "@focus") == "sending 1 request again"
    [sent] = desk.replayed
    assert sent.id != flow.id
    assert sent in list(desk.master.view)
    assert (sent.marked, sent.comment) == ("", f"sent again by hms.retry, after {flow.id}")
    assert sent.metadata["hms"]["listener"] == "out"
    assert flow.metadata["hms"] == NOTED


async def test_what_may_not_be_done_twice_needs_a_word(desk: Desk) -> None:
    flow = desk.show(method="POST")
    with pytest.raises(CommandError, match="hms.retry @focus anyway"):
        desk.run("hms.retry", "@focus")
    with pytest.raises(CommandError, match="only word after the flow is 'anyway'"):
        desk.run("hms.retry", "@focus", "please")
    assert not desk.replayed
    desk.run("hms.retry", "@focus", "anyway")
    flow.request.headers["Idempotency-Key"] = "7"
    desk.run("hms.retry", f"@{flow.id}")
    assert len(desk.replayed) == 2


async def test_what_is_not_whole_is_not_sent_again(desk: Desk) -> None:
    flow = desk.show(method="PUT")
    flow.request.content = b"q" * 100
    cut(flow, 10)
    with pytest.raises(CommandError, match="10 of 100 bytes"):
        desk.run("hms.retry", "@focus")
    flow.live = True
    with pytest.raises(CommandError, match="still under way"):
        desk.run("hms.retry", "@focus")
    flow.live = False
    flow.websocket = object()  # type: ignore[assignment] # only that there is one
    with pytest.raises(CommandError, match="was a WebSocket"):
        desk.run("hms.retry", "@focus")


# -- break, mend, weight ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        ((), "127.0.0.1:9001 by 60s"),
        (("endpoint", "5s"), "127.0.0.1:9001 by 5s"),
        (("cluster", "1m"), "127.0.0.1:9001, 127.0.0.1:9002 by 60s"),
    ],
)
async def test_a_breaker_is_opened_and_mended(
    desk: Desk, words: tuple[str, ...], opened: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk.show(**NOTED)
    which, _, long = opened.partition(" by ")
    said = desk.run("hms.break", "@focus", *words)
    assert said == f"cluster auth-svc: open by hand for {long}: {which}; hms.mend closes it"
    assert f"by hand: {said}" in caplog.messages
    assert desk.run("hms.mend").startswith("closed again: auth-svc 127.0.0.1:9001")


@pytest.mark.parametrize(
    ("noted", "words", "says"),
    [
        ({}, (), "sent to no cluster"),
        ({"cluster": "auth-svc", "endpoint": None}, (), "@focus cluster"),
        (NOTED, ("sidecar",), "say endpoint or cluster"),
        (NOTED, ("cluster", "long"), "expected a duration"),
        (NOTED, ("cluster", "2h"), "at most 1h"),
        ({"cluster": "gone", "endpoint": "e"}, (), "no cluster 'gone'"),
    ],
)
async def test_a_breaker_that_cannot_be_opened(
    desk: Desk, noted: dict[str, Any], words: tuple[str, ...], says: str
) -> None:
    desk.show(**noted)
    with pytest.raises(CommandError, match=says):
        desk.run("hms.break", "@focus", *words)


async def test_nothing_to_mend_is_an_error(desk: Desk) -> None:
    with pytest.raises(CommandError, match="nothing is open by hand"):
        desk.run("hms.mend")


@pytest.mark.parametrize("percent", ["25", "25%"])
async def test_a_share_is_moved(desk: Desk, percent: str) -> None:
    assert "auth-svc-v2 has 25% of auth-svc" in desk.run(
        "hms.weight", "auth-svc", "auth-svc-v2", percent
    )
    assert desk.sidecar.snapshot is not None
    assert desk.sidecar.snapshot.source.endswith("| by hand: auth-svc-v2 25% of auth-svc")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("auth-svc", "auth-svc-v2", "much"), "'much' is no share"),
        (("auth-svc", "auth-svc-v2", "200"), "0 to 100"),
        (("auth-scv", "auth-svc-v2", "20"), "did you mean auth-svc"),
    ],
)
async def test_a_share_that_cannot_be(desk: Desk, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        desk.run("hms.weight", *words)
