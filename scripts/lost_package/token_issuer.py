"""An issuer of JWTs to try a mesh with: whoever asks gets a token with any role. Never use it otherwise.

Its key (RS256) is made when it starts and is in memory alone; `/jwks.json` has the public half.
"""

from __future__ import annotations

import json
import os
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Response, request
from jwt.algorithms import RSAAlgorithm

from scripts.lost_package.service import make_app, run

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

ISSUER = "https://id.mpsa.mil"
AUDIENCE = "lost-package"
SUBJECT = "soldier-4711"
ROLE = "PROGRAM_MANAGER"
LIFETIME = 8 * 3600.0
"""Seconds."""

app = make_app(__name__, "token-issuer")
_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_ID = os.urandom(8).hex()


def token(*, subject: str = SUBJECT, roles: tuple[str, ...] = (ROLE,), lifetime: float = LIFETIME) -> str:  # fmt: skip
    """A signed token that ends in `lifetime` seconds; below 0 it has ended already."""
    now = time.time()
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "roles": list(roles),
        "iat": int(min(now, now + lifetime)) - 1,
        "exp": int(now + lifetime),
    }
    return jwt.encode(claims, _key, algorithm="RS256", headers={"kid": _ID})


@app.get("/token")
def give_token() -> ResponseReturnValue:
    """A token as text: `?role=` (may be repeated), `?subject=`, `?lifetime=` in seconds."""
    try:
        lifetime = float(request.args.get("lifetime", LIFETIME))
        made = token(
            subject=request.args.get("subject", SUBJECT),
            roles=tuple(request.args.getlist("role")) or (ROLE,),
            lifetime=lifetime,
        )
    except (ValueError, OverflowError):
        return {"error": "lifetime: a number of seconds"}, HTTPStatus.BAD_REQUEST
    return Response(made, mimetype="text/plain")


@app.get("/jwks.json")
def jwks() -> ResponseReturnValue:
    """The public key, as a JSON Web Key Set (RFC 7517)."""
    public = json.loads(RSAAlgorithm.to_jwk(_key.public_key()))
    return {"keys": [{**public, "kid": _ID, "use": "sig", "alg": "RS256"}]}


if __name__ == "__main__":
    run(app, __doc__, os.environ, quiet=True)
