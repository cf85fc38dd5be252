"""The sample services by themselves, over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from scripts.demonstration.calls import call
from scripts.lost_package import (
    auth_svc,
    claims_svc,
    hms_gov,
    payments_svc,
    token_issuer,
    user_portal,
)
from scripts.lost_package.hms_gov import POLICY_VERSION
from scripts.lost_package.service import MAX_BODY, make_app, run, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from flask.typing import ResponseReturnValue

JSON = {"Content-Type": "application/json"}
CLAIM = json.dumps({"amount": "5 USD"}).encode()


@contextlib.contextmanager
def running(app: Flask, name: str = "one") -> Iterator[int]:
    app.config["NAME"] = name
    made = server(app, 0, quiet=True)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made.server_port
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@contextlib.contextmanager
def lost_package(payments: Flask = payments_svc.app) -> Iterator[int]:
    """Portal, Claims, Auth and Payments, each calling the next without a mesh; the portal's port."""
    with (
        pytest.MonkeyPatch.context() as patch,
        running(auth_svc.app, "auth-4") as auth,
        running(payments, "pay-1") as pay,
        running(claims_svc.app, "claims-1") as claims,
        running(user_portal.app, "portal-1") as portal,
    ):
        patch.setenv("NO_PROXY", "*")
        for variable, port in (("AUTH", auth), ("PAYMENTS", pay), ("CLAIMS", claims)):
            patch.setenv(f"{variable}_URL", f"http://127.0.0.1:{port}")
        yield portal


def test_a_claim_is_verified_and_paid_and_each_says_what_it_saw() -> None:
    sent = {**JSON, "X-Request-ID": "r-1", "traceparent": "t", "Authorization": "secret"}
    with lost_package() as port:
        answer = call(port, "/claims", sent, method="POST", body=CLAIM)
    assert answer.status == 202
    told = answer.json()
    assert (told["state"], told["amount"]) == ("refund accepted", "5 USD")
    assert [hop["at"] for hop in told["hops"]] == ["portal-1", "claims-1", "auth-4", "pay-1"]
    assert {hop["headers"]["X-Request-Id"] for hop in told["hops"]} == {"r-1"}
    assert {hop["headers"]["Traceparent"] for hop in told["hops"]} == {"t"}
    assert told["hops"][3]["headers"]["Idempotency-Key"] == told["claim"]
    assert b"secret" not in answer.body


def payments_that(answer: ResponseReturnValue) -> Flask:
    app = make_app("other", "pay-1")
    app.add_url_rule("/reimburse", view_func=lambda: answer, methods=["POST"])
    return app


def test_a_refusal_comes_back_with_its_reason() -> None:
    refusal = ({"detail": "too often"}, 429, {"Retry-After": "7"})
    with lost_package(payments_that(refusal)) as port:
        answer = call(port, "/claims", JSON, method="POST", body=CLAIM)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    told = answer.json()
    assert (told["state"], told["why"]) == ("refused", "too often")


def test_a_refund_that_waits_is_told_as_such() -> None:
    queued = ({"accepted": False, "queued": True}, 202)
    with lost_package(payments_that(queued)) as port:
        answer = call(port, "/claims", JSON, method="POST", body=CLAIM)
    assert (answer.status, answer.json()["state"]) == (202, "refund queued")


def test_auth_says_which_replica_answered_and_every_header_that_arrived() -> None:
    with running(auth_svc.app, "auth-4") as port:
        answer = call(port, "/verify-id?x=1", {"X-One": "a"})
    assert answer.status == 200
    found = answer.json()
    assert (found["verified"], found["replica"]) == (True, "auth-4")
    assert found["headers"]["X-One"] == "a"


def test_health_names_the_process() -> None:
    with running(auth_svc.app, "auth-4") as port:
        assert call(port, "/healthz").json() == {"name": "auth-4", "pid": os.getpid()}


def test_other_paths_are_not_there() -> None:
    for app in (auth_svc.app, payments_svc.app, claims_svc.app, hms_gov.app):
        with running(app, "me") as port:
            answer = call(port, "/verify-identity")
            assert (answer.status, answer.json()["by"]) == (404, "me")


def test_payments_accepts_a_refund() -> None:
    body = json.dumps({"claim": "DE-1", "amount": "5 USD", "more": 1}).encode()
    with running(payments_svc.app, "pay-1") as port:
        answer = call(port, "/reimburse", JSON, method="POST", body=body)
    assert answer.status == 202
    told = answer.json()
    assert told.pop("headers")
    assert told == {"accepted": True, "claim": "DE-1", "amount": "5 USD", "by": "pay-1"}


def test_payments_refuses_what_is_no_claim() -> None:
    with running(payments_svc.app) as port:
        for body, status in ((b"", 400), (b"[]", 400), (b"{", 400), (b" " * MAX_BODY + b"{}", 413)):
            assert call(port, "/reimburse", JSON, method="POST", body=body).status == status


def test_governance_counts_who_asks_and_says_what_it_was_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(hms_gov.app) as port:
        before = call(port, "/stats").json()["asked"]
        assert call(port, "/policy-header").json() == {"version": POLICY_VERSION}
        monkeypatch.setenv("POLICY_VERSION", "2.0")
        assert call(port, "/policy-header").json() == {"version": "2.0"}
        assert call(port, "/stats").json()["asked"] == before + 2


def test_the_issuers_tokens_are_verified_by_its_key_set() -> None:
    import jwt  # noqa: PLC0415 - slow to import, and for this test alone

    with running(token_issuer.app) as port:
        token = call(port, "/token?role=CLERK&role=X&subject=s").body.decode()
        expired = call(port, "/token?lifetime=-10").body.decode()
        assert call(port, "/token?lifetime=soon").status == 400
        keys = jwt.PyJWKSet.from_dict(call(port, "/jwks.json").json())
    key = keys[jwt.get_unverified_header(token)["kid"]].key

    def verified(text: str) -> Any:
        return jwt.decode(text, key, ["RS256"], audience="lost-package", issuer=token_issuer.ISSUER)

    found = verified(token)
    assert (found["sub"], found["roles"]) == ("s", ["CLERK", "X"])
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(expired)


def test_a_service_listens_on_the_loopback_interface_unless_told_otherwise() -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        made = server(auth_svc.app, 0, *([] if host == "127.0.0.1" else [host]))
        assert made.server_address[0] == host
        made.server_close()


def test_it_must_be_told_where_to_listen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["auth"])
    with pytest.raises(SystemExit):
        run(auth_svc.app, "", {})
    assert "--port, or the variable PORT" in capsys.readouterr().err
