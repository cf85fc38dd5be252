"""The User Portal: where a soldier files a claim for a lost package."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import requests

from scripts.lost_package.service import (
    PATIENCE,
    answer_of,
    json_object,
    make_app,
    my_hop,
    run,
    same_request,
)

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

app = make_app(__name__, "user-portal")


@app.post("/claims")
def file_claim() -> ResponseReturnValue:
    """Hand a claim on to Claims-SVC, and its answer back."""
    answer = requests.post(
        f"{os.environ['CLAIMS_URL']}/claims",
        json=json_object(),
        headers=same_request(),
        timeout=PATIENCE,
    )
    told = answer_of(answer)
    if "hops" in told:
        told["hops"] = [my_hop(), *told["hops"]]
    again = {k: v for k, v in answer.headers.items() if k.lower() == "retry-after"}
    return told, answer.status_code, again


if __name__ == "__main__":
    run(app, __doc__, os.environ)
