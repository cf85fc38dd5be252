"""A control plane's side of enrolment, without a network: a real CA behind an `SvidIssuer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control.ca.csr import load_csr
from hms_addons.identity.enrolment import IssuedSvid
from hms_addons.identity.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from cryptography import x509

    from hms_addons.clock import Clock
    from hms_addons.identity.trust_bundle import TrustBundle


def pem(chain: tuple[x509.Certificate, ...]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


class FakeIssuer:
    """Signs for whoever asks; each attribute may be changed between calls.

    Attributes:
        authority: who signs; an intermediate below `root`, as in the control plane.
        bundle: what is handed out as the bundle; None for the authority's own.
        signs_for: the service that is signed for, whatever was asked; None for what was asked.
        csr: sign for this CSR's key instead; None for the one that came.
        failure: raised instead of an answer.
        asked: the services asked for, one a call.
    """

    def __init__(self, clock: Clock, lifetime: float = 24 * 3600.0) -> None:
        self.root = CertificateAuthority.create("mpsa.mil", clock)
        self.authority = self.root.subordinate()
        self.lifetime = lifetime
        self.bundle: TrustBundle | None = None
        self.sequence = 1
        self.signs_for: str | None = None
        self.csr: bytes | None = None
        self.failure: Exception | None = None
        self.asked: list[str] = []

    @property
    def bundle_json(self) -> bytes:
        bundle = self.bundle or self.authority.bundle
        return bundle.to_spiffe_json(sequence=self.sequence).encode()

    async def issue(self, service: str, csr: bytes) -> IssuedSvid:
        self.asked.append(service)
        if self.failure is not None:
            raise self.failure
        trust_domain = self.authority.trust_domain
        spiffe_id = SpiffeId.for_service(trust_domain, self.signs_for or service)
        chain = self.authority.sign_svid(load_csr(self.csr or csr), spiffe_id, self.lifetime)
        return IssuedSvid(pem(chain), self.bundle_json, trust_domain)
