"""Claims-SVC: opens a ticket for a lost package, has the soldier's identity confirmed and the refund sent."""

from __future__ import annotations

import os
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING

import requests

from scripts.lost_package.service import (
    PATIENCE,
    answer_of,
    hop,
    json_object,
    make_app,
    my_hop,
    run,
    same_request,
)

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

app = make_app(__name__, "claims-svc")


@app.post("/claims")
def open_claim() -> ResponseReturnValue:
    """Open a claim; 202 once its refund is accepted."""
    amount = json_object().get("amount")
    number = f"LP-{secrets.token_hex(4)}"
    who = requests.get(
        f"{os.environ['AUTH_URL']}/verify-id", headers=same_request(), timeout=PATIENCE
    )
    if who.status_code != HTTPStatus.OK:
        return _refused(number, "the soldier's identity was not confirmed", who)
    refund = requests.post(
        f"{os.environ['PAYMENTS_URL']}/reimburse",
        json={"claim": number, "amount": amount},
        # Asked twice, the bank pays once.
        headers={**same_request(), "Idempotency-Key": number},
        timeout=PATIENCE,
    )
    if refund.status_code != HTTPStatus.ACCEPTED:
        return _refused(number, "the refund was not accepted", refund)
    verified, paid = answer_of(who), answer_of(refund)
    hops = [my_hop(), hop(verified["replica"], verified["headers"])]
    if "by" in paid:
        hops.append(hop(paid["by"], paid["headers"]))
    state = "refund accepted" if paid.get("accepted") else "refund queued"
    told = {"claim": number, "amount": amount, "state": state, "hops": hops}
    return told, HTTPStatus.ACCEPTED


def _refused(number: str, what: str, answer: requests.Response) -> ResponseReturnValue:
    """As the other service has answered, with its reason."""
    why = answer_of(answer).get("detail", "")
    told = {"claim": number, "state": "refused", "error": what, "why": why}
    # Whoever asks too often is told when to ask again.
    again = {k: v for k, v in answer.headers.items() if k.lower() == "retry-after"}
    return told, answer.status_code, again


if __name__ == "__main__":
    run(app, __doc__, os.environ)
