from __future__ import annotations

import io

import pytest
from mitmproxy.io import tnetstring
from mitmproxy.test import tflow

from hms_addons.errors import MeshError
from hms_addons.replay.flow_file import Cut, FlowFile
from tests.replay.kit import file_of, flow


def opened(content: bytes) -> FlowFile:
    return FlowFile(io.BytesIO(content), "x.flows")


def test_flows_of_mitmproxy_are_read_and_others_are_counted() -> None:
    file = opened(file_of(flow(path=b"/a?b=1"), tflow.ttcpflow(), tflow.tdnsflow(), flow()))
    first, second = list(file)
    assert (first.number, first.name, first.target) == (1, "GET /a?b=1", b"/a?b=1")
    assert first.answer is not None
    assert (first.answer.status, first.answer.body) == (200, b'{"a": 1}')
    assert (second.number, file.other, file.cut, file.unreadable) == (4, 2, None, 0)
    assert repr(file) == "<FlowFile x.flows flows=4 cut=None>"


def test_what_is_before_a_cut_is_read() -> None:
    whole = file_of(flow(), flow())
    content = whole + file_of(flow())[:-10]
    file = opened(content)
    assert len(list(file)) == 2
    assert file.cut == Cut(len(whole), 2, len(content) - len(whole), "cut")
    assert f"cut at byte {len(whole)}, behind 2 whole flows" in str(file.cut)


def test_what_is_before_damage_is_read() -> None:
    good = file_of(flow())
    file = opened(good + b"\0" * 300_000)
    assert len(list(file)) == 1
    assert file.cut == Cut(
        len(good), 1, 300_000, "damaged (there is no length where a record should begin)"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"listeners: []\n", "is no flow file of mitmproxy"),
        (b"\x1f\x8b\x08", "is no flow file of mitmproxy"),
        (b'\xef\xbb\xbf{"log": {}}', "if it is a HAR file, `mitmdump -n -r x.flows -w flows`"),
    ],
)
def test_what_is_no_flow_file_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(MeshError, match=why):
        list(opened(content))


def test_an_empty_file_has_no_flows() -> None:
    file = opened(b"")
    assert list(file) == []
    assert file.cut is None


def test_flows_that_nobody_understands_are_counted() -> None:
    newer = flow().get_state() | {"version": 9999}
    strange = {"version": flow().get_state()["version"], "type": "http"}
    content = tnetstring.dumps(newer) + file_of(flow()) + tnetstring.dumps(strange)
    file = opened(content)
    assert [one.number for one in file] == [2]
    assert file.unreadable == 2
    assert "9999" in file.reason


def test_bodies_that_are_not_whole_are_not_known() -> None:
    streamed = flow(body=None)
    short = flow(body=b"abc", headers=((b"Content-Length", b"5"),), request_body=b"12345")
    short.response.headers["content-length"] = "10"
    head = flow(method=b"HEAD", body=b"")
    head.response.headers["content-length"] = "10"
    unmodified = flow(body=b"")
    unmodified.response.status_code = 304
    unmodified.response.headers["content-length"] = "10"
    found = list(opened(file_of(streamed, short, head, unmodified)))
    bodies = [one.answer.body if one.answer else b"?" for one in found]
    assert bodies == [None, None, b"", b""]
    assert [one.body for one in found] == [b"", b"12345", b"", b""]


def test_bodies_that_the_window_has_cut_are_not_known() -> None:
    one, other = flow(request_body=b"12"), flow()
    one.metadata["hms_cut"] = {"request": {"kept": 2, "of": 9}}
    other.metadata["hms_cut"] = {"response": {"kept": 2, "of": 9}}
    first, second = list(opened(file_of(one, other)))
    assert (first.body, second.body) == (None, b"")
    assert second.answer is not None
    assert second.answer.body is None


def test_a_flow_that_failed_has_no_answer_and_a_tunnel_is_one() -> None:
    cut = flow()
    cut.error = tflow.terr()
    connect = flow(method=b"CONNECT")
    socket = tflow.twebsocketflow()
    found = list(opened(file_of(cut, connect, socket)))
    assert found[0].answer is None
    assert [one.upgraded for one in found] == [False, True, True]


def test_the_mesh_s_own_answers_are_known_by_what_it_noted() -> None:
    denied = flow(hms={"flag": "RBAC", "endpoint": None})
    made = flow(hms={"flag": None, "endpoint": None})
    carried = flow(hms={"flag": None, "endpoint": "127.0.0.1:80"})
    found = list(opened(file_of(denied, made, carried, flow())))
    assert [one.by_mesh for one in found] == ["200 RBAC", "200", None, None]


def test_what_no_message_can_hold_is_counted_and_the_others_are_read() -> None:
    method, nested, lengthy, late, never = flow(), b"", flow(), flow(), flow()
    method.request.data.method = "GÉT".encode()
    for _ in range(5000):
        nested = b"%d:%b]" % (len(nested), nested)
    nested = b"1:a;" + nested
    lengthy.response.headers["content-length"] = "9" * 5000
    late.request.timestamp_start = 1e300
    never.request.timestamp_start = float("nan")
    content = file_of(method) + b"%d:%b}" % (len(nested), nested)
    file = opened(content + file_of(lengthy, late, never, flow()))
    found = list(file)
    assert [one.number for one in found] == [3, 4, 5, 6]
    assert (file.unreadable, file.reason) == (2, "a method is no token")
    assert found[0].answer is not None
    assert found[0].answer.body is None
    assert [one.started for one in found[1:3]] == [None, None]
    assert found[3].started is not None


def test_a_length_may_begin_with_zeros() -> None:
    padded = flow(body=b"abc")
    padded.response.headers["content-length"] = "0" * 5000 + "3"
    (one,) = opened(file_of(padded))
    assert one.answer is not None
    assert one.answer.body == b"abc"
