"""The issuer of the demo's tokens: a key that lives as long as the demo, its public half a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ISSUER = "https://idp.mpsa.mil"
AUDIENCE = "lost-package"
SUBJECT = "soldier-4711"
ROLE = "PROGRAM_MANAGER"
"""The role that may verify identities; the card's own example."""
LIFETIME = 8 * 3600.0
"""Seconds; longer than anyone keeps a demo."""


class Issuer:
    """Signs tokens (RS256); the private key stays in memory."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def write_public_key(self, path: Path) -> None:
        """Write what sidecars verify with (PEM)."""
        path.write_bytes(
            self._key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def token(
        self, *, subject: str = SUBJECT, roles: Sequence[str] = (ROLE,), lifetime: float = LIFETIME
    ) -> str:
        """A signed token that ends in `lifetime` seconds; below 0 it has ended already."""
        now = time.time()
        issued = min(now, now + lifetime) - 1
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "roles": list(roles),
            "iat": int(issued),
            "exp": int(now + lifetime),
        }
        return jwt.encode(claims, self._key, algorithm="RS256")
