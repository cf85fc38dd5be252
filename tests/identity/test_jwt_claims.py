from __future__ import annotations

import json
import math
from typing import Any

import jwt
import pytest

from hms_addons.identity.jwt_claims import JwtError, JwtErrorCode
from tests.identity.test_jwt_verifier import RS256, Rig, provider


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_exp_with_leeway(rig: Rig) -> None:
    now = rig.clock.wall()
    assert rig.verify(exp=now - 59).expires_at == now - 59
    error = rig.refused(exp=now - 60)
    assert (error.code, error.status) == (JwtErrorCode.INVALID_TOKEN, 401)
    assert "expired at 2027-01-15T07:59:00Z; obtain a new one" in error.detail


def test_nbf_with_leeway(rig: Rig) -> None:
    now = rig.clock.wall()
    rig.verify(nbf=now + 60)
    assert "not valid before 2027-01-15T08:01:01Z" in rig.refused(nbf=now + 61).detail


def test_without_exp_it_does_not_expire(rig: Rig) -> None:
    assert rig.verify(exp=None).expires_at == math.inf


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1800000000", True, False, [1], {}])
def test_times_must_be_numbers(rig: Rig, name: str, value: object) -> None:
    error = rig.refused(**{name: value})
    assert (error.status, error.code) == (401, "invalid_token")
    assert f"`{name}` is not a number" in error.detail


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, -1e300, 253_402_300_800, -1, -0.5])
def test_times_must_be_within_the_calendar(rig: Rig, name: str, value: float) -> None:
    error = rig.refused(**{name: value})
    assert (error.status, error.code) == (401, "invalid_token")
    assert f"`{name}` is beyond all calendars" in error.detail


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1e400", "-1e400", "null", "NaN", "Infinity", "9" * 5000])
def test_times_that_json_or_python_reads_oddly_are_refused(rig: Rig, name: str, value: str) -> None:
    claims = json.dumps(rig.claims(**{name: "HERE"})).replace('"HERE"', value).encode()
    signed = jwt.api_jws.encode(claims, RS256.private, "RS256", headers={"kid": RS256.kid})
    with pytest.raises(JwtError) as caught:
        rig.verifier.verify(signed)
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")


def test_the_last_second_of_the_calendar(rig: Rig) -> None:
    assert rig.verify(exp=253_402_300_799).expires_at == 253_402_300_799
    assert "not valid before 9999-12-31" in rig.refused(nbf=253_402_300_799).detail
    assert "expired at 1970-01-01" in rig.refused(exp=0).detail


# --- audience, issuer -----------------------------------------------------------------------------


@pytest.mark.parametrize("aud", ["hms", ["hms"], ["x", "hms"]])
def test_audiences(rig: Rig, aud: object) -> None:
    assert rig.verify(aud=aud).subject == "sgt.pepper"


@pytest.mark.parametrize("aud", ["HMS", "hm", "", [], ["x", "y"], None])
def test_a_wrong_audience_is_403(rig: Rig, aud: object) -> None:
    error = rig.refused(aud=aud)
    assert (error.code, error.status) == (JwtErrorCode.INSUFFICIENT_SCOPE, 403)
    assert error.code == "insufficient_scope"
    assert "one of: hms" in error.detail


@pytest.mark.parametrize("aud", [5, {"hms": 1}, ["hms", 5], True])
def test_a_malformed_audience_is_401(rig: Rig, aud: object) -> None:
    assert rig.refused(aud=aud).code == "invalid_token"


def test_no_audience_configured_none_looked_at() -> None:
    rig = Rig(provider(RS256, audiences=frozenset()))
    assert rig.verify(aud="whatever").subject == "sgt.pepper"


def test_an_expired_token_for_another_audience_is_401(rig: Rig) -> None:
    assert rig.refused(aud="x", exp=1).code == "invalid_token"


@pytest.mark.parametrize(
    ("path", "claims", "roles"),
    [
        ("roles", {"roles": ["A", "B", "A"]}, ("A", "B")),
        ("roles", {"roles": "A"}, ("A",)),
        ("roles", {"roles": []}, ()),
        ("roles", {"roles": None}, ()),
        ("role", {"role": "Domain Admins"}, ("Domain Admins",)),
        ("realm_access.roles", {"realm_access": {"roles": ["A"]}}, ("A",)),
        ("realm_access.roles", {"realm_access": "x"}, ()),
        ("a.b.c", {"a": {"b": {"c": "A"}}}, ("A",)),
        ("https://hms/roles", {"https://hms/roles": ["A"]}, ("A",)),
        ("https://mpsa.mil/roles", {"https://mpsa.mil/roles": ["A"]}, ("A",)),
    ],
)
def test_roles(path: str, claims: dict[str, Any], roles: tuple[str, ...]) -> None:
    rig = Rig(provider(RS256, role_claim=path))
    assert rig.verify(**claims).roles == roles


@pytest.mark.parametrize(
    "roles", [5, {"A": 1}, ["A", 5], [["A"]], True, "A,B", ["A,B"], [""], " ", ["A\r\nX: y"], "A\0"]
)
def test_roles_that_could_be_misread_refuse_the_token(rig: Rig, roles: object) -> None:
    assert "roles" in rig.refused(roles=roles).detail


@pytest.mark.parametrize("subject", [5, ["x"], "a\r\nX-Caller-Role: ADMIN", "a\x7f"])
def test_bad_subjects(rig: Rig, subject: object) -> None:
    assert "`sub`" in rig.refused(sub=subject).detail


def test_a_subject_is_not_required(rig: Rig) -> None:
    assert rig.verify(sub=None).subject is None


# --- the cache ------------------------------------------------------------------------------------
