"""The sample services by themselves, over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

from scripts.demonstration.calls import call
from scripts.lost_package.auth_svc import AuthService
from scripts.lost_package.hms_gov import POLICY_VERSION, Governance
from scripts.lost_package.json_service import MAX_BODY, JsonHandler, make_server
from scripts.lost_package.payments_svc import PaymentsService

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def running(handler: type[JsonHandler], name: str = "one") -> Iterator[int]:
    with make_server(handler, name, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_auth_says_which_replica_answered_and_every_header_that_arrived() -> None:
    with running(AuthService, "auth-4") as port:
        answer = call(port, "/verify-id?x=1", {"X-One": "a", "x_one": "b"})
    assert answer.status == 200
    found = answer.json()
    assert (found["verified"], found["replica"]) == (True, "auth-4")
    assert ["X-One", "a"] in found["headers"]
    assert ["x_one", "b"] in found["headers"]


def test_health_names_the_process() -> None:
    with running(AuthService, "auth-4") as port:
        assert call(port, "/healthz").json() == {"name": "auth-4", "pid": os.getpid()}


def test_other_paths_are_not_there() -> None:
    for handler in (AuthService, PaymentsService, Governance):
        with running(handler) as port:
            assert call(port, "/verify-identity").status == 404


def test_payments_accepts_a_refund() -> None:
    body = json.dumps({"claim": "DE-1", "amount": "5 USD", "more": 1}).encode()
    with running(PaymentsService) as port:
        answer = call(port, "/reimburse", method="POST", body=body)
        elsewhere = call(port, "/refund", method="POST", body=body)
    assert answer.status == 202
    told = answer.json()
    assert told.pop("by")
    assert told == {"accepted": True, "claim": "DE-1", "amount": "5 USD"}
    assert elsewhere.status == 404


def test_payments_refuses_what_is_no_claim() -> None:
    with running(PaymentsService) as port:
        for body in (b"", b"[]", b"{", b"x" * (MAX_BODY + 1)):
            assert call(port, "/reimburse", method="POST", body=body).status == 400


def test_governance_counts_who_asks() -> None:
    with running(Governance) as port:
        before = call(port, "/stats").json()["asked"]
        assert call(port, "/policy-header").json() == {"version": POLICY_VERSION}
        call(port, "/policy-header")
        assert call(port, "/stats").json()["asked"] == before + 2


def test_a_service_listens_on_the_loopback_interface_unless_told_otherwise() -> None:
    with make_server(AuthService, "one", 0) as server:
        assert server.server_address[0] == "127.0.0.1"
    with make_server(AuthService, "one", 0, "0.0.0.0") as server:
        assert server.server_address[0] == "0.0.0.0"
