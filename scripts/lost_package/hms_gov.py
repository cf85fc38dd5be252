"""A stand-in for HMS-GOV: the policy version in force, and how often it was asked for."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from scripts.lost_package.service import make_app, run

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

POLICY_VERSION = "1.3.4"

app = make_app(__name__, "hms-gov")
_counting = threading.Lock()  # Each question has a thread of its own.
_asked = 0


@app.get("/policy-header")
def policy_header() -> ResponseReturnValue:
    """The policy version in force; the variable POLICY_VERSION says which."""
    global _asked  # noqa: PLW0603 - one process, one counter
    with _counting:
        _asked += 1
    return {"version": os.environ.get("POLICY_VERSION", POLICY_VERSION)}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    """How often it was asked."""
    return {"asked": _asked}


if __name__ == "__main__":
    run(app, __doc__, os.environ, quiet=True)
