"""The certificate authority: a signing key, the roots it stands under, and what it will sign.

A `CertificateAuthority` signs with one certificate, which is a root or an intermediate below one.
What workloads trust (`bundle`) is kept apart from what signs: so `trusting()` can announce a new
root before anything is signed with it, and keep an old one after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hms_addons.atomic_file import PUBLIC_MODE, SECRET_MODE, write_atomic
from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca import template
from hms_addons.control.ca.csr import check_csr
from hms_addons.control.ca.validator import (
    CredentialError,
    validate_authority,
    validate_svid,
)
from hms_addons.errors import MeshError
from hms_addons.identity.enrolment import MAX_LIFETIME
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import (
    Svid,
    SvidError,
    SvidKey,
    iso_time,
    load_certificates,
    load_key,
    same_public_key,
)
from hms_addons.identity.trust_bundle import TrustBundle, TrustBundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from hms_addons.clock import Clock

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca.key"
BUNDLE_FILE = "bundle.pem"

MIN_LIFETIME = 1.0


class CaError(MeshError, ValueError):
    """The CA cannot be loaded, or cannot do what was asked; the message says what and why."""


def check_svid_lifetime(seconds: float) -> None:
    """Check what SVIDs are to live.

    Raises:
        CaError: it is not between a second and 90 days.
    """
    if MIN_LIFETIME <= seconds <= MAX_LIFETIME:
        return
    message = (
        f"SVIDs that live {_spoken(seconds)} cannot be: give --svid-lifetime between "
        f"{_spoken(MIN_LIFETIME)} and {_spoken(MAX_LIFETIME)}"
    )
    raise CaError(message)


def _spoken(seconds: float) -> str:
    """A duration as people write it: `90d`, `36h`, `0.5s`."""
    if math.isfinite(seconds):
        for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
            if seconds >= size and seconds % size == 0:
                return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.15g}s"


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """Signs the SVIDs of one trust domain.

    `chain` begins with the certificate that signs and leads towards a root, which it includes only
    when the root itself signs. `bundle` is what workloads must trust.
    """

    bundle: TrustBundle
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: SvidKey = field(repr=False)
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False, compare=False)

    @classmethod
    def create(cls, trust_domain: str, clock: Clock = SYSTEM_CLOCK) -> CertificateAuthority:
        """Make a new root for `trust_domain`, valid for ten years.

        Raises:
            SpiffeIdError: bad trust domain.
        """
        now = clock.wall()
        key = template.new_key()
        builder = template.root(SpiffeId(trust_domain), key.public_key(), now=now)
        certificate = builder.sign(key, hashes.SHA256())
        bundle = TrustBundle(trust_domain, (certificate,))
        validate_authority([certificate], bundle, now)
        return cls(bundle, (certificate,), key, clock)

    @classmethod
    def load(cls, folder: Path, clock: Clock = SYSTEM_CLOCK) -> CertificateAuthority:
        """Read a CA that `save` has written to `folder`.

        Raises:
            CaError: a file is missing, unreadable, or does not fit the others; or the CA has
                expired.
        """
        chain_pem, key_pem, bundle_pem = (
            _read(folder / name) for name in (CERTIFICATE_FILE, KEY_FILE, BUNDLE_FILE)
        )
        try:
            chain = load_certificates(chain_pem)
            key = load_key(key_pem)
            bundle = TrustBundle.from_pem(_trust_domain_of(chain[0]), bundle_pem)
        except (SvidError, TrustBundleError) as error:
            message = f"the CA in {folder} cannot be used: {error}"
            raise CaError(message) from error
        if not same_public_key(chain[0].public_key(), key.public_key()):
            message = f"the CA in {folder} cannot be used: {KEY_FILE} is not {CERTIFICATE_FILE}'s"
            raise CaError(message)
        authority = cls(bundle, chain, key, clock)
        authority.check()
        return authority

    def save(self, folder: Path) -> None:
        """Write `ca.pem`, `ca.key` (0600) and `bundle.pem` to `folder`, each file in one step.

        The key goes first: a certificate without its key would look like a complete CA.

        Raises:
            OSError: the folder cannot be written.
        """
        key_pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain_pem = b"".join(cert.public_bytes(Encoding.PEM) for cert in self.chain)
        write_atomic(folder / KEY_FILE, key_pem, mode=SECRET_MODE)
        write_atomic(folder / BUNDLE_FILE, self.bundle.to_pem(), mode=PUBLIC_MODE)
        write_atomic(folder / CERTIFICATE_FILE, chain_pem, mode=PUBLIC_MODE)

    @property
    def trust_domain(self) -> str:
        """The trust domain whose SVIDs it signs."""
        return self.bundle.trust_domain

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate whose key signs."""
        return self.chain[0]

    def check(self) -> None:
        """Check that the CA may sign now.

        Raises:
            CaError: its certificate, or every root above it, is out of time or unfit.
        """
        now = self.clock.wall()
        not_after = self.certificate.not_valid_after_utc.timestamp()
        if now > not_after:
            message = (
                f"the CA of {self.trust_domain} expired at {iso_time(not_after)}: "
                "make a new one and trust both until all SVIDs are renewed"
            )
            raise CaError(message)
        try:
            validate_authority(self.chain, self.bundle, now)
        except CredentialError as error:
            raise CaError(str(error)) from error

    def sign_svid(
        self,
        csr: x509.CertificateSigningRequest,
        spiffe_id: SpiffeId,
        lifetime: float = template.DEFAULT_SVID_LIFETIME,
    ) -> tuple[x509.Certificate, ...]:
        """Sign an SVID for the key of a CSR.

        Args:
            csr: proves possession of the key; what it asks for must not exceed `spiffe_id`.
            spiffe_id: the identity that the caller has *proved* to have, whatever the CSR says.
            lifetime: seconds from now; shortened where the CA itself ends sooner.

        Returns:
            The chain to present in TLS: leaf first, then intermediates, no root.

        Raises:
            CsrError: the CSR asks for something else, or its key is weak.
            CaError: another trust domain, no path, a bad lifetime, or the CA has expired.
            CredentialError: the result did not pass validation (a defect of the CA).
        """
        return self._sign(check_csr(csr, spiffe_id), spiffe_id, lifetime)

    def issue(
        self,
        spiffe_id: SpiffeId,
        lifetime: float = template.DEFAULT_SVID_LIFETIME,
        names: Sequence[x509.GeneralName] = (),
    ) -> Svid:
        """Make a key and sign an SVID for it; for offline use, where no CSR travels.

        `names` are host names and addresses that it shall have beside the SPIFFE ID.

        Raises:
            CaError, CredentialError: as in `sign_svid`.
        """
        key = template.new_key()
        chain = self._sign(key.public_key(), spiffe_id, lifetime, names)
        return Svid.of(chain, key, now=self.clock.wall(), trust_domain=self.trust_domain)

    def subordinate(self) -> CertificateAuthority:
        """A CA with a new key below this one, under the same roots.

        It is the intermediate that signs day by day while this key is put away.

        Raises:
            CaError: this one has expired, or is an intermediate itself (its path length is 0).
        """
        self.check()
        if self.certificate.issuer != self.certificate.subject:
            message = "an intermediate CA cannot have another one below it (path length 0)"
            raise CaError(message)
        now = self.clock.wall()
        key = template.new_key()
        builder = template.intermediate(
            SpiffeId(self.trust_domain), key.public_key(), self.certificate, now=now
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        validate_authority([certificate], self.bundle, now)
        return CertificateAuthority(self.bundle, (certificate,), key, self.clock)

    def trusting(self, roots: Iterable[x509.Certificate]) -> CertificateAuthority:
        """The same CA with more roots in its bundle, for the overlap while a root is replaced."""
        return CertificateAuthority(self.bundle.with_roots(roots), self.chain, self.key, self.clock)

    def _sign(
        self,
        public_key: CertificatePublicKeyTypes,
        spiffe_id: SpiffeId,
        lifetime: float,
        names: Sequence[x509.GeneralName] = (),
    ) -> tuple[x509.Certificate, ...]:
        self.check()
        if spiffe_id.trust_domain != self.trust_domain or not spiffe_id.path:
            message = f"{spiffe_id} is not a workload of {self.trust_domain}, this CA's domain"
            raise CaError(message)
        if not (math.isfinite(lifetime) and lifetime >= MIN_LIFETIME):
            message = f"a lifetime of {lifetime:g}s cannot be signed: at least {MIN_LIFETIME:g}s"
            raise CaError(message)
        now = self.clock.wall()
        builder = template.svid(
            spiffe_id, public_key, self.certificate, now=now, lifetime=lifetime, names=names
        )
        leaf = builder.sign(self.key, hashes.SHA256())
        chain = (leaf, *(cert for cert in self.chain if cert not in self.bundle.roots))
        validate_svid(chain, spiffe_id, public_key, self.bundle, now)
        return chain


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = (
            f"{path}: {error.strerror}: a CA is {CERTIFICATE_FILE}, {KEY_FILE} and {BUNDLE_FILE} "
            "in one folder; make one with `hms certs init`"
        )
        raise CaError(message) from error


def _trust_domain_of(certificate: x509.Certificate) -> str:
    """The trust domain that a CA's own SPIFFE ID names (X.509-SVID §3.2)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId.parse(uri).trust_domain
    except (x509.ExtensionNotFound, ValueError) as error:
        message = f"{CERTIFICATE_FILE} does not name a trust domain as its one URI: {error}"
        raise SvidError(message) from error
