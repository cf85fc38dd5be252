"""An SVID from the control plane: make a key, send a CSR, check what comes back.

The key never leaves the process; a new one is made for each SVID. What the control plane answers is
checked as if it were a stranger's: the mesh would refuse a wrong certificate anyway, and here the
reason can be told.

Clocks may disagree. The CA dates SVIDs back by a minute, so a clock that is up to a minute behind
notices nothing. One that is further behind gets an SVID that is not valid yet: it is refused with a
message that names the difference, remembered, and taken at a later try, when its time has come.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.identity.identity_holder import SecretError, SecretMaterial
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import (
    BACKDATE,
    Svid,
    SvidError,
    iso_time,
    load_certificates,
    same_public_key,
)
from hms_addons.identity.trust_bundle import TrustBundle

if TYPE_CHECKING:
    from hms_addons.clock import Clock

logger = logging.getLogger(__name__)

MAX_LIFETIME: Final = 90 * 86400.0
"""Seconds; an SVID that is valid longer is not one of a mesh that renews them by itself."""


@dataclass(frozen=True, slots=True)
class IssuedSvid:
    """What the control plane answered: a PEM chain (leaf first) and a SPIFFE bundle (JSON)."""

    chain_pem: bytes
    bundle_json: bytes
    trust_domain: str


class SvidIssuer(Protocol):
    """Who signs: the control plane, asked with a join token or with the SVID in use."""

    async def issue(self, service: str, csr: bytes) -> IssuedSvid:
        """Have a PEM CSR signed for `service`.

        Raises:
            SecretError: it cannot be had; the message says where and why.
        """


class EarlySvidError(SecretError):
    """An SVID is not valid yet, by this machine's clock."""


class _Early(NamedTuple):
    """An SVID whose time has not come, with its key."""

    issued: IssuedSvid
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return "<_Early>"  # the key's own repr says nothing, but that is not for us to rely upon


class ControlSecret:
    """The `SecretSource` of a sidecar that a control plane stands behind.

    Args:
        service: the service's name; the SVID must be `spiffe://<trust domain>/svc/<service>`.
        issuer: who signs.
        clock: time, injected.
        trust_domain: the only one accepted; None takes the first answer's, and then only that.
    """

    __slots__ = ("_clock", "_early", "_issuer", "service", "trust_domain")

    def __init__(
        self, service: str, issuer: SvidIssuer, clock: Clock, trust_domain: str | None = None
    ) -> None:
        self.service = service
        self._issuer = issuer
        self._clock = clock
        self.trust_domain = trust_domain
        self._early: _Early | None = None

    def __repr__(self) -> str:
        return f"<ControlSecret {self.service} of {self.trust_domain or 'any trust domain'}>"

    async def fetch(self) -> SecretMaterial:
        """See `SecretSource`."""
        if (material := self._remembered()) is not None:
            return material
        key, csr = new_request()
        issued = await self._issuer.issue(self.service, csr)
        try:
            material = self._checked(issued, key)
        except EarlySvidError:
            # The control plane spent a join token on it; asking for another would only fail.
            self._early = _Early(issued, key)
            raise
        self.trust_domain = material.bundle.trust_domain
        return material

    def _remembered(self) -> SecretMaterial | None:
        """What came too early the last time, if it will do now.

        Raises:
            EarlySvidError: it is still too early.
        """
        if self._early is None:
            return None
        try:
            material = self._checked(*self._early)
        except EarlySvidError:
            raise
        except SecretError as error:
            logger.warning("an SVID that came too early is given up: %s", error)
            self._early = None
            return None
        self._early = None
        self.trust_domain = material.bundle.trust_domain
        return material

    def _checked(self, issued: IssuedSvid, key: ec.EllipticCurvePrivateKey) -> SecretMaterial:
        trust_domain = self.trust_domain
        if trust_domain is not None and issued.trust_domain != trust_domain:
            message = (
                f"the control plane is of the trust domain {issued.trust_domain!r}, "
                f"not {trust_domain!r}: check its address, or begin with another --state folder"
            )
            raise SecretError(message)
        return check_issued(issued, key, self.service, self._clock.wall())


def new_request() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A fresh P-256 key, and a PEM CSR that proves its possession and asks for nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def check_issued(
    issued: IssuedSvid, key: ec.EllipticCurvePrivateKey, service: str, now: float
) -> SecretMaterial:
    """What the control plane sent, if it is an SVID of `service` for `key` that will do now.

    Raises:
        EarlySvidError: its validity has not begun; the message names the difference of the clocks.
        SecretError: it is of another name or key, out of time, valid absurdly long, unreadable, or
            no root of the bundle that came with it stands behind it.
    """
    try:
        expected = SpiffeId.for_service(issued.trust_domain, service)
        leaf, *_ = chain = load_certificates(issued.chain_pem)
        if not same_public_key(leaf.public_key(), key.public_key()):
            message = "it is for another key than the one that was sent"
            raise SvidError(message)
        _check_times(leaf, now)
        svid = Svid.of(chain, key, now=now, trust_domain=issued.trust_domain)
        if svid.spiffe_id != expected:
            message = f"it is {svid.spiffe_id} where {expected} was asked for"
            raise SvidError(message)
        bundle = TrustBundle.from_spiffe_json(issued.trust_domain, issued.bundle_json)
        material = SecretMaterial(svid, bundle)
        material.check(now)
    except (ValueError, UnsupportedAlgorithm) as error:  # MeshErrors of identity are ValueErrors
        message = f"the control plane's answer for {service!r} is refused: {error}"
        raise SecretError(message) from error
    return material


def _check_times(leaf: x509.Certificate, now: float) -> None:
    """Judge a fresh SVID's dates; fresh as it is, they tell of the clocks."""
    not_before = leaf.not_valid_before_utc.timestamp()
    not_after = leaf.not_valid_after_utc.timestamp()
    # The CA signs for "a minute ago" and rounds the end up to a whole second, whatever the life.
    if not_after - not_before > MAX_LIFETIME + BACKDATE + 1.0:
        message = (
            f"it is valid for {(not_after - not_before) / 86400:.0f} days: "
            f"at most {MAX_LIFETIME / 86400:.0f} are accepted"
        )
        raise SvidError(message)
    # So this is what the CA's clock said when it signed.
    signed = min(not_before + BACKDATE, not_after)
    if now < not_before:
        message = (
            f"the SVID is valid from {iso_time(not_before)}, but here it is {iso_time(now)}: this "
            f"machine's clock is about {signed - now:.0f} s behind the control plane's (up to "
            f"{BACKDATE:.0f} s are tolerated); set both by NTP"
        )
        raise EarlySvidError(message)
    if now > not_after:
        message = (
            f"the new SVID expired at {iso_time(not_after)}, but here it is {iso_time(now)}: this "
            f"machine's clock is about {now - signed:.0f} s ahead of the control plane's, more "
            "than the SVID's whole life; set both by NTP"
        )
        raise SvidError(message)
