from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.identity.jwt_claims import JwtError
from hms_addons.identity.jwt_verifier import JwtProvider, JwtVerifier
from hms_addons.identity.key_source import FileKeySource
from scripts.demonstration.tokens import AUDIENCE, ISSUER, ROLE, SUBJECT, Issuer

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.identity.jwt_verifier import VerifiedToken


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def verifier(issuer: Issuer, tmp_path: Path) -> JwtVerifier[VerifiedToken]:
    key = tmp_path / "key.pem"
    issuer.write_public_key(key)
    provider = JwtProvider(
        name="idp",
        issuer=ISSUER,
        audiences=frozenset({AUDIENCE}),
        algorithms=frozenset({"RS256"}),
        source=FileKeySource.of_pem(key),
    )
    return JwtVerifier([provider], SYSTEM_CLOCK, lambda token: token)


def test_a_token_is_what_sidecars_take(
    issuer: Issuer, verifier: JwtVerifier[VerifiedToken]
) -> None:
    token = verifier.verify(issuer.token())
    assert (token.subject, token.roles) == (SUBJECT, (ROLE,))


def test_an_expired_token_is_refused_for_that_and_nothing_else(
    issuer: Issuer, verifier: JwtVerifier[VerifiedToken]
) -> None:
    with pytest.raises(JwtError, match="expired"):
        verifier.verify(issuer.token(lifetime=-3600))


def test_no_private_key_is_written(issuer: Issuer, tmp_path: Path) -> None:
    issuer.write_public_key(tmp_path / "key.pem")
    assert "PRIVATE" not in (tmp_path / "key.pem").read_text()
