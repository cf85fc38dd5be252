"""What is hidden of a flow, and how it comes back."""

from __future__ import annotations

import pytest
from mitmproxy.http import Headers

from hms_addons.window.redaction import (
    PLACEHOLDER,
    Redactor,
    UnknownSecretError,
    placeholders,
)
from tests.fakes.flows import JWT, make_flow


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(["X-Pin", "pin-no"])


def value(redactor: Redactor, name: str, text: str) -> str:
    """A header's value as it is shown, with `…` for what is hidden."""
    ((_, shown),) = redactor.fields(((name.encode(), text.encode()),))
    return PLACEHOLDER.sub("…", shown.decode())


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("Authorization", "Bearer abc", "Bearer …"),
        ("authorization", "abc", "…"),
        ("Proxy-Authorization", "Basic dTpw", "Basic …"),
        ("Cookie", "session=abc; theme=dark", "session=…; theme=…"),
        ("Cookie", "bare", "…"),
        ("Set-Cookie", "id=abc; Path=/; HttpOnly", "id=…; Path=/; HttpOnly"),
        ("X-Api-Key", "abc", "…"),
        ("x-pin", "1234", "…"),
        ("X-Note", f"see {JWT} there", "see … there"),
        ("Location", "/back?code=abc&page=2", "/back?code=…&page=2"),
        (
            "Location",
            "https://u:p@h/cb#access_token=abc&page=2",
            "https://…@h/cb#access_token=…&page=2",
        ),
        ("Link", "</a?token=abc>; rel=next", "</a?token=…>; rel=next"),
        ("X-Auth-Key", "abc", "…"),
        ("Sec-WebSocket-Key", "abc", "abc"),
        ("X-Caller-Role", "CLERK", "CLERK"),
        ("Authorization", "", ""),
    ],
)
def test_headers(redactor: Redactor, name: str, text: str, shown: str) -> None:
    assert value(redactor, name, text) == shown


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?host=auth-svc.svc&id=7", "/a?host=auth-svc.svc&id=7"),
        ("/a?access_token=abc&id=7", "/a?access_token=…&id=7"),
        (f"/a?t={JWT}", "/a?t=…"),
        (f"/a/{JWT}/b", "/a/…/b"),
        ("/a?pin-no=1234", "/a?pin-no=…"),
        ("/a?x=%20&pass%77ord=abc&y=1", "/a?x=%20&pass%77ord=…&y=1"),
        ("/a?SAMLResponse=abc&id=7", "/a?SAMLResponse=…&id=7"),
        ("/token", "/token"),
    ],
)
def test_targets(redactor: Redactor, target: str, shown: str) -> None:
    assert PLACEHOLDER.sub("…", redactor.target(target.encode()).decode()) == shown


def test_a_copy_is_shown_and_the_flow_keeps_the_truth(redactor: Redactor) -> None:
    flow = make_flow(
        "/a?token=q-secret",
        headers=[("Authorization", "Bearer h-secret")],
        response_headers=[("Set-Cookie", "id=r-secret")],
    )
    flow.request.trailers = None
    flow.backup()
    before = flow.get_state()
    shown = redactor.shown(flow)
    assert b"secret" not in repr(shown.get_state()).encode()
    assert flow.get_state() == before
    assert shown.id == flow.id
    assert shown.response is not None
    assert shown.response.content == b"hello"


def test_hiding_is_no_edit(redactor: Redactor) -> None:
    flow = make_flow(headers=[("Authorization", "Bearer h-secret")])
    assert not redactor.shown(flow).modified()
    flow.backup()
    flow.request.headers["X-New"] = "1"
    assert redactor.shown(flow).modified()


def test_nothing_is_hidden_where_that_is_not_wanted(redactor: Redactor) -> None:
    redactor.enabled = False
    flow = make_flow(headers=[("Authorization", "Bearer h-secret")])
    assert redactor.shown(flow) is flow


def test_one_secret_looks_alike_everywhere_but_in_another_process() -> None:
    one, other = Redactor(), Redactor()
    fields = ((b"X-Token", b"abc"), (b"X-Api-Key", b"abc"), (b"X-Secret", b"abd"))
    token, key, secret = (shown for _, shown in one.fields(fields))
    assert token == key != secret
    assert other.fields(fields)[0][1] != token


def test_an_edit_gets_its_secrets_back(redactor: Redactor) -> None:
    flow = make_flow(
        "/a?token=q", headers=[("Authorization", "Bearer abc"), ("Cookie", "a=1; b=2")]
    )
    shown = redactor.shown(flow)
    assert redactor.restored(shown.request.headers["Cookie"], flow) == "a=1; b=2"
    assert redactor.restored(shown.request.path, flow) == "/a?token=q"
    edited = shown.request.headers["Authorization"] + ", and more"
    assert redactor.restored(edited, flow) == "Bearer abc, and more"
    assert redactor.restored("as it is", flow) == "as it is"


def test_a_secret_that_was_edited_away_can_be_put_back(redactor: Redactor) -> None:
    flow = make_flow(headers=[("Authorization", "Bearer abc")])
    text = redactor.shown(flow).request.headers["Authorization"]
    flow.backup()
    flow.request.headers["Authorization"] = "Bearer other"
    assert redactor.restored(text, flow) == "Bearer abc"


def test_another_flows_secret_is_not_given_away(redactor: Redactor) -> None:
    text = redactor.shown(make_flow(headers=[("X-Token", "abc")])).request.headers["X-Token"]
    with pytest.raises(UnknownSecretError, match="write the secret itself"):
        redactor.restored(text, make_flow())


def test_a_flow_from_a_file_keeps_what_stands_in_it(redactor: Redactor) -> None:
    saved = Redactor().shown(make_flow(headers=[("X-Token", "abc")]))
    text = saved.request.headers["X-Token"]
    assert placeholders(saved) == [text]
    assert redactor.shown(saved).request.headers["X-Token"] == text
    assert redactor.restored(text, saved) == text


def test_a_flow_with_all_its_secrets_has_no_placeholder() -> None:
    assert placeholders(make_flow(headers=[("Authorization", "Bearer abc")])) == []


def test_what_hms_record_has_hidden_is_missing_too(redactor: Redactor) -> None:
    flow = make_flow(headers=[("Authorization", "[redacted]")], response_headers=[("X", "1")])
    assert placeholders(flow) == ["[redacted]"]
    assert redactor.shown(flow).request.headers["Authorization"] == "[redacted]"
    assert placeholders(flow, "response") == []
    assert flow.response is not None
    flow.response.trailers = Headers([(b"X-Token", b"[redacted]")])
    assert placeholders(flow, "response") == ["[redacted]"]
    assert placeholders(make_flow(status=None), "response") == []
