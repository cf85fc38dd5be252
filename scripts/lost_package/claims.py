"""Claims-SVC's question to Auth-SVC, asked of its own sidecar: is this soldier's token valid?

The token comes in the environment variable SOLDIER_JWT. Exit code 0, whatever the answer is.
"""

from __future__ import annotations

import os
from http import HTTPStatus

import requests

SIDECAR = "http://localhost:15001"
PATIENCE = 10.0
"""Seconds."""


def soldier_is_valid(token: str) -> bool:
    """Ask Auth-SVC; the sidecar finds it by the `host` parameter."""
    answer = requests.get(
        f"{SIDECAR}/verify-id",
        params={"host": "auth-svc.svc"},
        headers={"Authorization": token},
        timeout=PATIENCE,
    )
    return answer.status_code == HTTPStatus.OK


if __name__ == "__main__":
    print("✅ verified" if soldier_is_valid(os.environ["SOLDIER_JWT"]) else "❌ invalid")
