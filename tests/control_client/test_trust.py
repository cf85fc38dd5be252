from __future__ import annotations

import ssl

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control_client.failures import ControlUntrustedError
from hms_addons.control_client.trust import (
    PinError,
    control_context,
    parse_pins,
    pinned,
    read_bundle,
)
from tests.fakes import pki

HEX = "ab" * 32


def test_pins() -> None:
    assert parse_pins(f"sha256:{HEX}") == (HEX,)
    colons = ":".join(["AB"] * 32)
    assert parse_pins(f" SHA256:{colons}, sha256:{'0' * 64}") == (HEX, "0" * 64)
    assert parse_pins("") == ()


@pytest.mark.parametrize("text", [HEX, "sha256:", f"sha1:{HEX}", f"sha256:{HEX}0", "sha256:xyz"])
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(PinError, match="64 hex digits"):
        parse_pins(text)


def test_only_the_pinned_root_is_taken_from_an_unproven_bundle() -> None:
    stranger = CertificateAuthority.create(pki.TRUST_DOMAIN)
    claimed = pki.bundle().with_roots(stranger.bundle.roots)
    (pin,) = pki.bundle().fingerprints()
    assert pinned(claimed, [pin], "c").roots == pki.bundle().roots
    with pytest.raises(ControlUntrustedError, match=f"c is not .* its CA is sha256:.*{pin}"):
        pinned(stranger.bundle, [pin], "c")


def test_what_is_no_bundle() -> None:
    for document in (b"", b"{}", b'{"keys": []}', b"<html>"):
        with pytest.raises(ControlUntrustedError, match="is this a control plane"):
            read_bundle(pki.TRUST_DOMAIN, document, "c")
    good = pki.bundle().to_spiffe_json().encode()
    assert read_bundle(pki.TRUST_DOMAIN, good, "c") == pki.bundle()
    with pytest.raises(ControlUntrustedError):
        read_bundle(None, good, "c")


def test_contexts_demand_a_certificate() -> None:
    for svid in (None, pki.svid("claims-svc")):
        context = control_context(pki.bundle(), svid, SYSTEM_CLOCK)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    # The contexts of connections between sidecars are not touched.
    assert ssl.SSLContext.sslobject_class is ssl.SSLObject
