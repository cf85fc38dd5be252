from __future__ import annotations

import time

import pytest

from hms_addons.control.ca.validator import CredentialError, validate_authority, validate_svid
from hms_addons.identity.spiffe_id import SpiffeId
from tests.fakes import pki

AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")


def test_a_good_one_passes() -> None:
    svid = pki.svid("auth-svc")
    validate_svid(svid.certificates, AUTH, svid.leaf.public_key(), pki.bundle(), time.time())
    validate_authority(pki.ca().chain, pki.bundle(), time.time())


@pytest.mark.parametrize("kind", pki.BAD_KINDS)
def test_bad_output_is_withheld(kind: str) -> None:
    bad = pki.bad_svid(kind).certificate
    wanted = SpiffeId.for_service("mpsa.mil", "bad")
    with pytest.raises(CredentialError, match="withheld"):
        validate_svid([bad], wanted, bad.public_key(), pki.bundle(), time.time())


def test_another_id_than_asked() -> None:
    svid = pki.svid("claims-svc")
    with pytest.raises(CredentialError, match=f"claims-svc where {AUTH} was asked for"):
        validate_svid(svid.certificates, AUTH, svid.leaf.public_key(), pki.bundle(), time.time())


def test_another_key_than_asked() -> None:
    other = pki.svid("claims-svc").leaf.public_key()
    with pytest.raises(CredentialError, match="another key than asked"):
        validate_svid(pki.svid("auth-svc").certificates, AUTH, other, pki.bundle(), time.time())


def test_no_root_behind_it() -> None:
    stranger = type(pki.ca()).create("mpsa.mil").bundle
    svid = pki.svid("auth-svc")
    with pytest.raises(CredentialError, match="no root"):
        validate_svid(svid.certificates, AUTH, svid.leaf.public_key(), stranger, time.time())
    with pytest.raises(CredentialError, match="not usable"):
        validate_authority(pki.ca().chain, stranger, time.time())


def test_a_leaf_is_no_authority() -> None:
    with pytest.raises(CredentialError, match="not make it a CA"):
        validate_authority(pki.svid("auth-svc").certificates, pki.bundle(), time.time())
