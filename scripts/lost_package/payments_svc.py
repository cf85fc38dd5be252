"""Payments-SVC: sends a refund to the soldier's bank."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING

from scripts.lost_package.service import json_object, make_app, my_name, run, seen_headers

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

app = make_app(__name__, "payments-svc")


@app.post("/reimburse")
def reimburse() -> ResponseReturnValue:
    """Accept a refund."""
    claim = json_object()
    found = {"accepted": True, "claim": claim.get("claim"), "amount": claim.get("amount")}
    return {**found, "by": my_name(), "headers": seen_headers()}, HTTPStatus.ACCEPTED


if __name__ == "__main__":
    run(app, __doc__, os.environ)
