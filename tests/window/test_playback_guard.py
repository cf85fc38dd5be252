"""Which recorded answers no client gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.addons.serverplayback import ServerPlayback
from mitmproxy.exceptions import CommandError
from mitmproxy.test import taddons

from hms_addons.redaction import REDACTED
from hms_addons.window.kept_bodies import cut
from hms_addons.window.playback_guard import PlaybackGuard, why_not_played
from hms_addons.window.redaction import Redactor
from tests.fakes.flows import make_flow
from tests.replay.kit import file_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mitmproxy.http import HTTPFlow


def cut_flow() -> HTTPFlow:
    flow = make_flow(answer=b"a" * 100)
    cut(flow, 10)
    return flow


def hidden_flow() -> HTTPFlow:
    return Redactor().shown(make_flow(response_headers=[("Set-Cookie", "id=abc")]))


def recorded_flow() -> HTTPFlow:
    return make_flow(response_headers=[("Set-Cookie", REDACTED)])


def streamed_flow() -> HTTPFlow:
    flow = make_flow()
    assert flow.response is not None
    flow.response.data.content = None
    return flow


NOT_PLAYED = [
    (cut_flow(), "10 of 100 bytes"),
    (hidden_flow(), "without its secrets"),
    (recorded_flow(), r"\[redacted\] stands"),
    (streamed_flow(), "without being held"),
]


@pytest.fixture
async def context() -> AsyncIterator[taddons.context]:
    with taddons.context(ServerPlayback()) as made:
        guard = PlaybackGuard(made.master)
        assert "serverplayback" in repr(guard).lower()
        guard.take_over()
        yield made
        guard.give_back()
        assert set(vars(playback(made))) == {"flowmap", "configured"}
        made.master.commands.call("replay.server.add", [cut_flow()])


def playback(context: taddons.context) -> Any:
    return context.master.addons.get("serverplayback")


def asked(context: taddons.context) -> bytes | None:
    """What a client is answered from the playback."""
    flow = make_flow(status=None)
    playback(context).request(flow)
    return None if flow.response is None else flow.response.content


@pytest.mark.parametrize("command", ["replay.server", "replay.server.add"])
@pytest.mark.parametrize(("flow", "says"), NOT_PLAYED)
async def test_what_is_not_whole_is_refused(
    context: taddons.context, command: str, flow: HTTPFlow, says: str
) -> None:
    with pytest.raises(CommandError, match=f"GET /verify-id cannot be played back: .*{says}"):
        context.master.commands.call(command, [make_flow(), flow])
    assert playback(context).count() == 0


async def test_so_it_is_in_a_file(context: taddons.context, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(file_of(cut_flow()))
    with pytest.raises(CommandError, match="10 of 100 bytes"):
        context.master.commands.call("replay.server.file", str(path))


async def test_what_is_cut_later_is_passed_over(
    context: taddons.context, caplog: pytest.LogCaptureFixture
) -> None:
    flow = make_flow(answer=b"a" * 100)
    context.master.commands.call("replay.server", [flow])
    cut(flow, 10)
    assert asked(context) is None
    assert "GET /verify-id is not played back" in caplog.text


async def test_what_is_whole_is_played(context: taddons.context) -> None:
    context.master.commands.call("replay.server", [make_flow()])
    assert asked(context) == b"hello"
    assert asked(context) is None
    assert why_not_played(make_flow(status=None)) is None


async def test_a_program_without_playback_needs_no_guard() -> None:
    with taddons.context() as made:
        guard = PlaybackGuard(made.master)
        guard.take_over()
        guard.give_back()
