"""A person at mitmweb, on a running mesh: what is seen, held, edited, killed, replayed and kept.

All goes through mitmweb's own HTTP API. One mitmweb holds both ends of a mutual TLS hop: the caller's
outbound listener and the callee's strict one, with the app behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration.basics import free_port, until
from tests.integration.mitm_kit import VERIFY, App, Desk, mitmweb_desk
from tests.integration.servers import POLICY_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLER = "spiffe://mpsa.mil/svc/claims-svc"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with mitmweb_desk(tmp_path_factory.mktemp("web")) as desk:
        yield desk


@pytest.fixture
def desk(running: Desk) -> Iterator[Desk]:
    running.app.requests.clear()
    yield running
    running.web.set(intercept="")
    running.web.send("POST", "/flows/resume")
    running.web.send("POST", "/clear")


# --- seen -----------------------------------------------------------------------------------------


def test_a_flow_tells_what_the_mesh_did(desk: Desk) -> None:
    assert desk.call().result().status_code == 200
    inbound = desk.inbound()
    outbound = desk.outbound()
    assert outbound["comment"] == (
        "outbound route=prefix:/verify-id cluster=auth-svc "
        f"endpoint=127.0.0.1:{desk.files.peers} attempts=1 role=PROGRAM_MANAGER "
        f"policy={POLICY_VERSION}"
    )
    assert inbound["comment"].startswith("inbound route=default:app cluster=app:peers ")
    assert outbound["server_conn"]["tls_established"]
    assert outbound["server_conn"]["cert"]["altnames"] == ["spiffe://mpsa.mil/svc/auth-svc"]
    assert inbound["client_conn"]["cert"]["altnames"] == [CALLER]
    assert outbound["response"]["status_code"] == 200
    assert desk.web.content(outbound, "response") == desk.web.content(inbound, "response")


def test_a_refused_request_shows_its_flag(desk: Desk) -> None:
    assert desk.call(path="/verify-id/no").result().status_code == 403
    flow = desk.outbound()
    assert flow["comment"].startswith("flag=RBAC outbound route=prefix:/verify-id ")
    assert "policy 'nobody'" in flow["comment"]
    assert flow["response"]["status_code"] == 403
    assert not desk.app.seen


def test_metadata_holds_it_in_plain_types(desk: Desk) -> None:
    desk.call().result()
    desk.outbound()
    outbound, inbound = (flow.metadata["hms"] for flow in desk.web.saved())
    assert outbound["listener"] == "out"
    assert [attempt["outcome"] for attempt in outbound["attempts"]] == ["200"]
    assert outbound["subject"] == "sgt.pepper"
    assert inbound["peer"] == CALLER
    assert inbound["request_id"] == outbound["request_id"]


def test_the_listeners_are_among_the_servers(desk: Desk) -> None:
    servers = desk.web.get("/state")["servers"]
    address = ["127.0.0.1", desk.files.out]
    assert servers[f"mesh:out@127.0.0.1:{desk.files.out}"] == {
        "type": "mesh",
        "description": "HMS mesh listener 'out'",
        "full_spec": f"mesh:out@127.0.0.1:{desk.files.out}",
        "is_running": True,
        "last_exception": None,
        "listen_addrs": [address],
    }
    assert len(servers) == 2


def test_the_listeners_stay_when_a_person_switches_stock_modes(desk: Desk) -> None:
    port = free_port()
    mesh = [f"mesh:out@127.0.0.1:{desk.files.out}", f"mesh:peers@127.0.0.1:{desk.files.peers}"]
    for asked in ([f"regular@127.0.0.1:{port}"], []):
        desk.web.set(mode=asked)  # as the page does, which knows mitmproxy's own modes alone
        expected = sorted([*asked, *mesh])

        def running() -> bool:
            servers = desk.web.get("/state")["servers"]
            return sorted(servers) == expected and all(  # noqa: B023 - used at once
                server["is_running"] for server in servers.values()
            )

        until(running, f"{expected} running")
        assert desk.call().result().status_code == 200


def test_the_event_log_is_of_use(desk: Desk) -> None:
    desk.web.send("POST", "/clear")
    desk.call().result()
    messages = [event["message"] for event in desk.web.get("/events")]
    assert messages == []


def test_secrets_are_sent_and_are_neither_shown_nor_saved(desk: Desk) -> None:
    file = desk.files.folder / "saved"
    desk.web.set(save_stream_file=str(file))
    cookie = {"Cookie": "session=c-secret", "X-Api-Key": "h-secret"}
    # An answer that echoes nothing: bodies are shown as they are.
    desk.call(path="/plain/big?access_token=q-secret", headers=cookie).result()
    flow = desk.outbound()
    desk.web.set(save_stream_file="")
    assert desk.app.last.header("cookie") == "session=c-secret"
    assert desk.app.last.target == "/plain/big?access_token=q-secret"
    token = str(desk.app.last.header("authorization")).removeprefix("Bearer ")
    shown = [
        str(flow),
        desk.web.download(),
        file.read_bytes(),
        desk.web.command("export", "curl", f"@{flow['id']}"),
        desk.web.get(f"/flows/{flow['id']}/request/content/query.json"),
        desk.web.command("cut", "@all", "request.header[cookie],request.path"),
        str(desk.web.get("/events")),
        desk.program.output,
    ]
    for place in map(str, shown):
        assert not [it for it in ("c-secret", "h-secret", "q-secret", token) if it in place], place
    assert all("redacted-" in str(place) for place in shown[:4])


def test_what_failed_or_was_denied_is_marked_and_found_by_its_mark(desk: Desk) -> None:
    for path in (VERIFY, "/verify-id/no", "/dead"):
        desk.call(path=path).result()
    desk.web.one(lambda flow: flow["request"]["path"] == "/dead" and flow["marked"], "mark")
    marks = {flow["request"]["path"]: flow["marked"] for flow in desk.web.flows()}
    assert marks == {
        "/verify-id?id=7": "",
        "/verify-id/no": "\N{NO ENTRY}",
        "/dead": "\N{CROSS MARK}",
    }
    for mark, path in ((":no_entry:", "/verify-id/no"), (":x:", "/dead")):
        assert desk.web.command("cut", f"~marker {mark}", "request.path") == [[path]]
    assert desk.web.command("cut", "~meta RBAC", "request.path") == [["/verify-id/no"]]
    assert desk.web.command("cut", "~comment flag=UF", "request.path") == [["/dead"]]


def test_the_meshs_commands(desk: Desk) -> None:
    desk.call("POST").result()
    flow = desk.outbound()
    desk.web.content(flow, "request")  # as a page does that shows it: it has the focus now
    explained = desk.web.command("hms.explain", "@focus")
    assert explained[0] == "happened  POST /verify-id?id=7: 200, outbound on out"
    with pytest.raises(AssertionError, match="hms.retry @focus anyway"):
        desk.web.command("hms.retry", "@focus")
    desk.web.command("hms.retry", "@focus", "anyway")
    until(lambda: len(desk.app.seen) == 2, "request sent again")
    desk.web.command("hms.break", f"@{flow['id']}", "cluster", "1m")
    refused = desk.call().result()
    assert refused.headers["X-HMS-Flag"] == "UH"
    assert "opened by hand for 60s; hms.mend closes it" in refused.json()["detail"]
    desk.web.command("hms.mend")
    assert desk.call().result().status_code == 200


# --- held and edited ------------------------------------------------------------------------------


def test_an_edited_request_is_what_is_forwarded(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u verify-id")
    calling = desk.call("POST", data=b"before", headers={"X-Note": "before"})
    flow = desk.web.held()
    assert not desk.app.seen
    headers = [
        [name, "after" if name == "X-Note" else value] for name, value in flow["request"]["headers"]
    ]
    edit = {
        "headers": headers,
        "path": "/verify-id/of?host=auth-svc.svc&id=8",
        "content": "after, and longer",
    }
    desk.web.put(flow, {"request": edit})
    desk.web.do(flow, "resume")
    inbound = desk.web.held()
    desk.web.do(inbound, "resume")
    assert calling.result().status_code == 200
    seen = desk.app.last
    assert (seen.method, seen.target) == ("POST", "/verify-id/of?id=8")
    assert seen.body == b"after, and longer"
    assert seen.header("x-note") == "after"
    assert seen.header("content-length") == "17"


def test_a_forged_role_edited_in_does_not_get_through(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u verify-id")
    calling = desk.call()
    for _ in range(2):
        flow = desk.web.held()
        forged = [
            ["X-Caller-Role", "ADMIRAL"],
            ["x_caller_role", "ADMIRAL"],
            ["X-Caller-Service", "spiffe://x/y"],
        ]
        desk.web.put(flow, {"request": {"headers": [*flow["request"]["headers"], *forged]}})
        desk.web.do(flow, "resume")
    calling.result()
    assert desk.app.last.header("x-caller-role") == "PROGRAM_MANAGER"
    assert desk.app.last.header("x_caller_role") is None
    assert desk.app.last.header("x-caller-service") == CALLER


@pytest.mark.parametrize(
    ("path", "flag"),
    [
        ("/verify-id/no", "RBAC"),
        ("/verify-id/%6eo", "RBAC"),
        ("/x/../verify-id//./no", "RBAC"),
        ("/admin", "RBAC"),
        ("/elsewhere", "NR"),
        ("http://auth-svc.svc/verify-id/no", "RBAC"),
        ("/verify-id\x01", "DPE"),
    ],
)
def test_an_edited_path_is_judged_anew(desk: Desk, path: str, flag: str) -> None:
    desk.web.set(intercept="~q & ~u verify-id")
    calling = desk.call()
    flow = desk.web.held()
    desk.web.put(flow, {"request": {"path": path}})
    desk.web.do(flow, "resume")
    assert calling.result().headers["X-HMS-Flag"] == flag
    assert not desk.app.seen


def test_a_token_edited_in_is_verified(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u admin")
    calling = desk.call(path="/admin?host=auth-svc.svc")
    for _ in range(2):
        flow = desk.web.held()
        token = desk.files.token("CLERK")["Authorization"]
        headers = [pair for pair in flow["request"]["headers"] if pair[0] != "Authorization"]
        desk.web.put(flow, {"request": {"headers": [*headers, ["Authorization", token]]}})
        desk.web.do(flow, "resume")
    assert calling.result().status_code == 200
    assert desk.app.last.header("x-caller-role") == "CLERK"


def test_an_edited_response_is_what_the_caller_gets(desk: Desk) -> None:
    desk.web.set(intercept="~s & ~u plain")
    calling = desk.call(path="/plain")
    flow = desk.web.held()
    assert flow["response"]["status_code"] == 200
    headers = [*flow["response"]["headers"], ["X-Note", "edited"]]
    desk.web.put(
        flow,
        {"response": {"code": 418, "msg": "I'm a teapot", "headers": headers, "content": "short"}},
    )
    desk.web.do(flow, "resume")
    response = calling.result()
    assert (response.status_code, response.text) == (418, "short")
    assert response.headers["X-Note"] == "edited"
    assert response.headers["Content-Length"] == "5"


def test_a_killed_request_goes_nowhere_and_its_caller_is_let_go(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u plain")
    calling = desk.call(path="/plain")
    flow = desk.web.held()
    desk.web.do(flow, "kill")
    with pytest.raises(requests.ConnectionError):
        calling.result()
    assert not desk.app.seen
    flow = desk.web.flow(flow["id"])
    assert flow["error"]["msg"] == "Connection killed."
    assert not flow["intercepted"]


def test_a_killed_response_does_not_reach_the_caller(desk: Desk) -> None:
    desk.web.set(intercept="~s & ~u plain")
    calling = desk.call(path="/plain")
    desk.web.do(desk.web.held(), "kill")
    with pytest.raises(requests.ConnectionError):
        calling.result()
    assert len(desk.app.seen) == 1


def test_all_held_flows_are_resumed_at_once(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u plain")
    calls = [desk.call(path=f"/plain/{n}") for n in range(3)]
    until(lambda: sum(flow["intercepted"] for flow in desk.web.flows()) == 3, "three held flows")
    desk.web.send("POST", "/flows/resume")
    assert [call.result().status_code for call in calls] == [200] * 3


def test_a_caller_that_leaves_a_held_request_releases_it(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u plain")
    with pytest.raises(requests.ReadTimeout):
        requests.get(desk.files.url("/plain"), timeout=0.5)
    flow = desk.web.one(lambda flow: flow.get("error"), "failed flow")
    assert flow["error"]["msg"] == "Client disconnected."
    assert not flow["intercepted"]
    assert "flag=DC" in flow["comment"]
    desk.web.do(flow, "resume")
    assert not desk.app.seen


# --- replayed -------------------------------------------------------------------------------------


def replayed(desk: Desk, flow: dict[str, Any]) -> dict[str, Any]:
    """Press the replay button; the flow with its new answer."""
    desk.web.do(flow, "replay")
    return desk.web.one(
        lambda other: other["id"] == flow["id"] and other["is_replay"] and "response" in other,
        "replayed flow",
    )


def test_a_replay_goes_through_the_mesh_again(desk: Desk) -> None:
    desk.call("POST", data=b"again").result()
    first = desk.app.last
    flow = replayed(desk, desk.outbound())
    assert flow["response"]["status_code"] == 200
    assert len(desk.app.seen) == 2
    second = desk.app.last
    assert (second.method, second.target, second.body) == (first.method, first.target, first.body)
    for name in ("x-caller-role", "x-caller-service", "x-policy-version", "via", "host"):
        assert second.header(name) == first.header(name), name
    assert f"endpoint=127.0.0.1:{desk.files.peers} attempts=1" in flow["comment"]


def test_a_replay_shows_a_new_answer(desk: Desk) -> None:
    desk.call(path="/plain").result()
    flow = desk.outbound()
    desk.web.put(flow, {"request": {"path": "/plain/other", "method": "PUT"}})
    flow = replayed(desk, flow)
    assert b'"target": "/plain/other"' in desk.web.content(flow, "response")
    assert desk.app.last.method == "PUT"


def test_a_replay_is_judged_as_it_stands_now(desk: Desk) -> None:
    desk.call(path="/plain").result()
    flow = desk.outbound()
    desk.web.put(flow, {"request": {"path": "/verify-id/no"}})
    flow = replayed(desk, flow)
    assert flow["response"]["status_code"] == 403
    assert "flag=RBAC" in flow["comment"]
    assert len(desk.app.seen) == 1


def test_a_replay_of_a_strict_listeners_flow_stands_for_its_caller(desk: Desk) -> None:
    desk.call().result()
    inbound = desk.inbound()
    flow = replayed(desk, inbound)
    assert flow["response"]["status_code"] == 200
    assert desk.app.last.header("x-caller-service") == CALLER
    assert len(desk.app.seen) == 2


def test_a_replay_follows_an_endpoint_that_has_moved(desk: Desk) -> None:
    desk.call(path="/plain").result()
    flow = desk.outbound()
    document = desk.files.both()
    with App() as moved:
        document["clusters"][1]["endpoints"] = [f"127.0.0.1:{moved.port}"]
        said = len(desk.program.output)
        desk.files.write("mesh.yaml", document)
        desk.program.wait_for("is in force", after=said)
        flow = replayed(desk, flow)
        assert len(moved.seen) == 1
        assert f"endpoint=127.0.0.1:{moved.port}" in flow["comment"]
    # It is away now: that is what the next replay shows.
    flow = desk.web.flow(flow["id"])
    desk.web.do(flow, "replay")
    flow = desk.web.one(lambda f: f.get("response", {}).get("status_code") == 503, "503")
    assert "flag=UF" in flow["comment"]
    said = len(desk.program.output)
    desk.files.write("mesh.yaml", desk.files.both())
    desk.program.wait_for("is in force", after=said)


def test_a_flow_can_be_replayed_many_times(desk: Desk) -> None:
    desk.call().result()
    flow = desk.outbound()
    for count in range(2, 5):
        desk.web.do(flow, "replay")
        until(lambda: len(desk.app.seen) == count, "another request")  # noqa: B023 - used at once
        # mitmproxy replays no flow that is still being replayed, and says so in its log alone.
        until(lambda: not desk.web.command("replay.client.count"), "end of the replay")
        assert desk.web.flow(flow["id"])["response"]["status_code"] == 200
    assert desk.app.last.header("via") == "1.1 hms, 1.1 hms"
    assert desk.app.last.header("x-forwarded-for") == "127.0.0.1, 127.0.0.1"


# --- kept -----------------------------------------------------------------------------------------


def test_a_duplicate_is_a_flow_of_its_own(desk: Desk) -> None:
    desk.call(path="/plain").result()
    flow = desk.outbound()
    copy = desk.web.flow(desk.web.do(flow, "duplicate"))
    assert copy["id"] != flow["id"]
    assert copy["comment"] == flow["comment"]
    desk.web.put(copy, {"request": {"path": "/plain/copy"}})
    replayed(desk, copy)
    assert desk.app.last.path == "/plain/copy"
    assert desk.web.flow(flow["id"])["request"]["path"] == "/plain"


def test_an_edit_is_reverted(desk: Desk) -> None:
    desk.call(path="/plain").result()
    flow = desk.outbound()
    desk.web.put(flow, {"request": {"path": "/plain/edited"}, "response": {"code": 500}})
    assert desk.web.flow(flow["id"])["modified"]
    desk.web.do(flow, "revert")
    reverted = desk.web.flow(flow["id"])
    assert reverted["request"]["path"] == "/plain"
    assert reverted["response"]["status_code"] == 200
    assert not reverted["modified"]
    assert desk.call(path="/plain").result().status_code == 200


def test_what_a_person_wrote_stays(desk: Desk) -> None:
    desk.web.set(intercept="~q & ~u plain")
    calling = desk.call(path="/plain")
    flow = desk.web.held()
    desk.web.put(flow, {"comment": "look at this one", "marked": ":grapes:"})
    desk.web.do(flow, "resume")
    calling.result()
    flow = desk.outbound()
    assert flow["comment"] == "look at this one"
    assert flow["marked"] == "\N{GRAPES}"
    assert replayed(desk, flow)["comment"] == "look at this one"
    saved = desk.web.saved()[0].metadata["hms"]["comment"]
    assert saved.startswith("outbound route=prefix:/plain")


def test_a_comment_taken_away_is_ours_again(desk: Desk) -> None:
    desk.call(path="/plain").result()
    flow = desk.outbound()
    desk.web.put(flow, {"comment": ""})
    assert replayed(desk, flow)["comment"].startswith("outbound route=prefix:/plain")


def test_a_download_with_its_secrets_is_loaded_and_replayed(desk: Desk) -> None:
    desk.web.set(hms_redact=False)
    desk.call().result()
    until(lambda: len(desk.web.flows()) == 2, "both flows")
    data = desk.web.download()
    desk.web.upload(data)
    outbound, inbound = desk.web.flows()
    assert outbound["comment"].startswith("outbound")
    assert replayed(desk, outbound)["response"]["status_code"] == 200
    assert replayed(desk, inbound)["response"]["status_code"] == 200
    # The outbound replay makes a third flow, at the strict listener.
    assert len(desk.app.seen) == 3
    desk.web.set(hms_redact=True)


def test_a_download_without_its_secrets_is_not_sent_again(desk: Desk) -> None:
    desk.call().result()
    until(lambda: len(desk.web.flows()) == 2, "both flows")
    desk.web.upload(desk.web.download())
    refused = replayed(desk, desk.web.flows()[0])
    assert refused["response"]["status_code"] == 400
    assert b"without its secrets" in desk.web.content(refused, "response")
    assert len(desk.app.seen) == 1


@pytest.mark.parametrize("form", ["curl", "raw", "raw_response", "httpie"])
def test_a_flow_is_exported(desk: Desk, form: str) -> None:
    desk.call(path="/plain").result()
    desk.outbound()
    file = desk.files.folder / form
    desk.web.command("export.file", form, "@all", str(file))
    assert b"/plain" in file.read_bytes()


def test_a_big_body_streams_past_and_is_not_lost(desk: Desk) -> None:
    response = desk.call(path="/plain/big").result()
    assert len(response.content) == 3 << 19
    flow = desk.outbound()
    assert flow["response"]["contentLength"] is None
    until(lambda: desk.outbound()["response"]["timestamp_end"], "the end of its answer")


def test_an_upstream_that_cuts_its_body_short_is_an_error(desk: Desk) -> None:
    with pytest.raises(requests.RequestException):
        desk.call(path="/plain/cut").result()
    flow = desk.web.one(lambda flow: flow.get("error"), "failed flow")
    assert "cut short" in flow["error"]["msg"]
    assert "flag=UC" in flow["comment"]
    assert flow["response"]["timestamp_end"] is None
