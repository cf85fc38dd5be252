from __future__ import annotations

import math
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hms_addons.control.ca import template
from hms_addons.control.ca.authority import CaError, CertificateAuthority
from hms_addons.control.ca.csr import CsrError
from hms_addons.control.ca.validator import CredentialError
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.identity.svid import same_public_key, validate_chain
from tests.control.ca.test_csr import KEY, csr, san
from tests.fakes import pki
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ca(clock: FakeClock) -> CertificateAuthority:
    return CertificateAuthority.create("mpsa.mil", clock)


def test_sign_a_csr(ca: CertificateAuthority, clock: FakeClock) -> None:
    (leaf,) = ca.sign_svid(csr(), AUTH)
    assert same_public_key(leaf.public_key(), KEY.public_key())
    assert leaf.not_valid_after_utc.timestamp() == clock.wall() + 24 * 3600
    validate_chain([leaf], ca.bundle.roots, clock.wall())


def test_a_greedy_csr_is_refused(ca: CertificateAuthority) -> None:
    with pytest.raises(CsrError):
        ca.sign_svid(csr(san(x509.DNSName("x"))), AUTH)


def test_issue_makes_a_key(ca: CertificateAuthority) -> None:
    one, two = ca.issue(AUTH, 60), ca.issue(AUTH, 60)
    assert one.spiffe_id == AUTH
    assert one.not_after - one.not_before == 120
    assert one.serial != two.serial
    assert one.key_pem() != two.key_pem()


@pytest.mark.parametrize("lifetime", [0, -1, 0.5, math.nan, math.inf])
def test_bad_lifetimes(ca: CertificateAuthority, lifetime: float) -> None:
    with pytest.raises(CaError, match="cannot be signed: at least 1s"):
        ca.issue(AUTH, lifetime)


@pytest.mark.parametrize(
    "spiffe_id", [SpiffeId("other.example", "/svc/a"), SpiffeId("mpsa.mil"), SpiffeId("mpsa.mi")]
)
def test_other_identities_are_not_signed(ca: CertificateAuthority, spiffe_id: SpiffeId) -> None:
    with pytest.raises(CaError, match=f"{spiffe_id} is not a workload of mpsa.mil"):
        ca.issue(spiffe_id)


def test_a_bad_trust_domain() -> None:
    with pytest.raises(SpiffeIdError):
        CertificateAuthority.create("MPSA.mil")


def test_an_svid_ends_with_its_ca(ca: CertificateAuthority, clock: FakeClock) -> None:
    clock.tick(template.ROOT_LIFETIME - 100)
    assert ca.issue(AUTH).not_after == ca.certificate.not_valid_after_utc.timestamp()
    clock.tick(200)
    with pytest.raises(CaError, match="expired at 20"):
        ca.issue(AUTH)
    with pytest.raises(CaError, match="expired"):
        ca.subordinate()


def test_an_intermediate_signs_under_the_same_roots(
    ca: CertificateAuthority, clock: FakeClock
) -> None:
    below = ca.subordinate()
    svid = below.issue(AUTH)
    assert below.bundle == ca.bundle
    assert [cert.subject for cert in svid.certificates[1:]] == [below.certificate.subject]
    validate_chain(svid.certificates, ca.bundle.roots, clock.wall())
    with pytest.raises(CaError, match="cannot have another"):
        below.subordinate()


def test_roots_overlap(ca: CertificateAuthority, clock: FakeClock) -> None:
    new = CertificateAuthority.create("mpsa.mil", clock)
    announced = ca.trusting(new.bundle.roots)
    assert announced.issue(AUTH).certificates[0].issuer == ca.certificate.subject
    switched = new.trusting(ca.bundle.roots)
    svid = switched.issue(AUTH)
    validate_chain(svid.certificates, announced.bundle.roots, clock.wall())
    assert len(svid.certificates) == 1


def test_what_fails_validation_is_withheld(ca: CertificateAuthority, clock: FakeClock) -> None:
    """A CA whose key is not its certificate's signs nothing that leaves it."""
    broken = CertificateAuthority(ca.bundle, ca.chain, template.new_key(), clock)
    with pytest.raises(CredentialError, match="withheld"):
        broken.issue(AUTH)


# --- on disk --------------------------------------------------------------------------------------


def test_save_and_load(ca: CertificateAuthority, clock: FakeClock, tmp_path: Path) -> None:
    ca.save(tmp_path)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca.pem").stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.pem", "ca.key", "ca.pem"]
    loaded = CertificateAuthority.load(tmp_path, clock)
    assert loaded.trust_domain == "mpsa.mil"
    assert loaded.bundle == ca.bundle
    validate_chain(loaded.issue(AUTH).certificates, ca.bundle.roots, clock.wall())


def test_an_intermediate_is_saved_with_its_roots(
    ca: CertificateAuthority, clock: FakeClock, tmp_path: Path
) -> None:
    below = ca.trusting(pki.bundle().roots).subordinate()
    below.save(tmp_path)
    loaded = CertificateAuthority.load(tmp_path, clock)
    assert loaded.bundle.roots == (ca.certificate, pki.ca().certificate)
    assert len(loaded.issue(AUTH).certificates) == 2


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "bundle.pem"])
def test_a_missing_file(
    ca: CertificateAuthority, clock: FakeClock, tmp_path: Path, name: str
) -> None:
    ca.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CaError, match=f"{name}: No such file.*hms certs init"):
        CertificateAuthority.load(tmp_path, clock)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("ca.pem", b"junk", "not a PEM certificate chain"),
        ("ca.key", b"junk", "not a PEM private key"),
        ("bundle.pem", b"junk", "not a PEM trust bundle"),
        ("ca.key", pki.svid("auth-svc").key_pem(), "ca.key is not ca.pem's"),
        ("ca.pem", pki.make_leaf(uris=()).chain_pem, "ca.pem does not name a trust domain"),
    ],
)
def test_files_that_do_not_fit(
    ca: CertificateAuthority,
    clock: FakeClock,
    tmp_path: Path,
    name: str,
    content: bytes,
    reason: str,
) -> None:
    ca.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CaError, match=f"{tmp_path} cannot be used: {reason}"):
        CertificateAuthority.load(tmp_path, clock)


def test_an_expired_ca_is_not_loaded(
    ca: CertificateAuthority, clock: FakeClock, tmp_path: Path
) -> None:
    ca.save(tmp_path)
    clock.tick(template.ROOT_LIFETIME + 1)
    with pytest.raises(CaError, match="expired at"):
        CertificateAuthority.load(tmp_path, clock)


def test_a_leaf_with_its_key_is_no_ca(
    ca: CertificateAuthority, clock: FakeClock, tmp_path: Path
) -> None:
    ca.save(tmp_path)
    svid = ca.issue(AUTH)
    (tmp_path / "ca.pem").write_bytes(svid.chain_pem())
    (tmp_path / "ca.key").write_bytes(svid.key_pem())
    with pytest.raises(CaError, match="not make it a CA"):
        CertificateAuthority.load(tmp_path, clock)


def test_the_key_is_in_no_repr(ca: CertificateAuthority) -> None:
    assert "PrivateKey" not in repr(ca)


def test_rsa_keys_are_signed_too(ca: CertificateAuthority) -> None:
    (leaf,) = ca.sign_svid(csr(key=pki.jwt_key("RS256").private), AUTH)
    assert leaf.signature_hash_algorithm is not None
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
    assert not isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
