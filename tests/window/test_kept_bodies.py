"""How bodies are cut, and that a cut one is never taken for whole."""

from __future__ import annotations

from mitmproxy.http import HTTPFlow
from mitmproxy.websocket import WebSocketData, WebSocketMessage

from hms_addons.window.kept_bodies import cut, missing, size_of
from tests.fakes.flows import make_flow


def long_flow() -> HTTPFlow:
    return make_flow(method="POST", body=b"q" * 100, answer=b"a" * 50)


def test_what_is_over_the_limit_is_cut_and_told_of() -> None:
    flow = long_flow()
    assert cut(flow, 60)
    assert flow.response is not None
    assert (len(flow.request.content or b""), len(flow.response.content or b"")) == (60, 50)
    assert flow.comment == "cut: request 60 of 100 bytes"
    assert size_of(flow) == 110


def test_what_is_within_the_limit_stays() -> None:
    flow = long_flow()
    assert not cut(flow, 100)
    assert flow.comment == ""
    assert missing(flow) is None


def test_the_meshs_comment_is_added_to_and_a_persons_is_left_alone() -> None:
    flow = long_flow()
    flow.metadata["hms"] = {"comment": "outbound"}
    flow.comment = "outbound"
    cut(flow, 10)
    assert flow.comment == "outbound | cut: request 10 of 100 bytes, response 10 of 50 bytes"
    other = long_flow()
    other.comment = "mine"
    cut(other, 10)
    assert other.comment == "mine"


def test_a_cut_request_may_not_be_sent_until_it_is_made_whole() -> None:
    flow = long_flow()
    cut(flow, 10)
    assert "10 of 100 bytes" in str(missing(flow))
    copied = HTTPFlow.from_state(flow.get_state())
    assert isinstance(copied, HTTPFlow)
    assert missing(copied), "also from a file"
    flow.request.content = b"whole again"
    assert missing(flow) is None


def test_a_request_whose_answer_alone_was_cut_may_be_sent() -> None:
    flow = long_flow()
    cut(flow, 100)
    assert flow.response is not None
    flow.response.content = b"a" * 1000
    assert cut(flow, 100)
    assert missing(flow) is None


def test_a_body_that_streamed_past_is_missing() -> None:
    flow = long_flow()
    flow.request.data.content = None
    assert "without being held" in str(missing(flow))


def test_what_a_revert_would_bring_back_is_cut_too() -> None:
    flow = long_flow()
    flow.backup()
    flow.request.headers["X-New"] = "1"
    cut(flow, 10)
    flow.revert()
    assert flow.request.content == b"q" * 10


def test_the_newest_messages_of_a_websocket_stay() -> None:
    flow = make_flow(answer=b"")
    flow.websocket = WebSocketData()
    flow.websocket.messages = [
        WebSocketMessage(1, from_client=True, content=bytes([48 + n]) * 10, timestamp=0.0)
        for n in range(5)
    ]
    assert cut(flow, 25)
    assert [message.content[:1] for message in flow.websocket.messages] == [b"3", b"4"]
    assert flow.comment == "cut: 3 messages gone"
    assert not cut(flow, 25)
