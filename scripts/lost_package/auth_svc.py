"""Auth-SVC: confirms a soldier's identity.

It says which replica answered and which headers arrived, so that a person can see both.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scripts.lost_package.service import make_app, my_name, run, seen_headers

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

app = make_app(__name__, "auth-svc")


@app.get("/verify-id")
def verify_id() -> ResponseReturnValue:
    """Confirm who the soldier is."""
    return {"verified": True, "replica": my_name(), "headers": seen_headers()}


if __name__ == "__main__":
    run(app, __doc__, os.environ)
