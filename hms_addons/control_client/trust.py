"""Whom a sidecar believes to be the control plane.

At first contact nothing is known but a pin: the fingerprint of a root. The bundle is then fetched
from a server that nobody has vouched for, and *only the pinned root is taken from it*: a bundle that
holds the true root and another beside it would otherwise let whoever made it up speak as the
control plane. The whole bundle is fetched again, over a connection that the pinned root verifies.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final

from hms_addons.control_client.failures import ControlUntrustedError
from hms_addons.errors import MeshError
from hms_addons.identity import tls_context
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.tls_context import ALPN_PROTOCOLS, PeerIdentityError
from hms_addons.identity.trust_bundle import TrustBundle, TrustBundleError, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.clock import Clock
    from hms_addons.identity.svid import Svid

CONTROL_PATH: Final = "/hms/control"
"""Of the control plane's SPIFFE ID."""

_PIN = re.compile(r"sha256:([0-9a-f]{64})")


class PinError(MeshError):
    """What was given as a pin is none."""


def parse_pins(text: str) -> tuple[str, ...]:
    """Fingerprints, in lower-case hex, of `sha256:<hex>[,sha256:<hex>…]`; colons in it are allowed.

    Raises:
        PinError: one of them is no such fingerprint.
    """
    pins = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, digits = part.partition(":")
        found = _PIN.fullmatch(f"{kind}:{digits.replace(':', '')}".lower())
        if found is None:
            message = (
                f"{part[:100]!r} is no fingerprint of a CA: give sha256: and 64 hex digits, as "
                "`hms control` prints it at its start and `hms ca show` does"
            )
            raise PinError(message)
        pins.append(found[1])
    return tuple(pins)


def pinned(bundle: TrustBundle, pins: Sequence[str], where: str) -> TrustBundle:
    """Of what an unproven server has sent, the roots that somebody vouched for.

    Raises:
        ControlUntrustedError: there is none.
    """
    roots = tuple(root for root in bundle.roots if fingerprint(root) in pins)
    if not roots:
        found = ", ".join(f"sha256:{root}" for root in bundle.fingerprints())
        wanted = ", ".join(f"sha256:{pin}" for pin in pins)
        message = (
            f"{where} is not the control plane that was pinned: its CA is {found}, expected "
            f"{wanted}; if it was set up anew, give the new --ca-pin"
        )
        raise ControlUntrustedError(message)
    return TrustBundle(bundle.trust_domain, roots)


def read_bundle(trust_domain: str | None, document: bytes, where: str) -> TrustBundle:
    """A bundle as the control plane sends it.

    Raises:
        ControlUntrustedError: it is none, or does not say whose.
    """
    try:
        return TrustBundle.from_spiffe_json(trust_domain or "", document)
    except TrustBundleError as error:
        message = f"{where} has sent no trust bundle: {error}; is this a control plane?"
        raise ControlUntrustedError(message) from error


def unproven_context() -> ssl.SSLContext:
    """For the first question, whose answer is not believed but compared with a pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    return context


def control_context(bundle: TrustBundle, svid: Svid | None, clock: Clock) -> ssl.SSLContext:
    """For everything else: the server must chain to `bundle` and be `/hms/control` of its domain.

    Args:
        bundle: the roots.
        svid: what to show; None before there is one.
        clock: time, for the dates in the certificate.
    """
    if svid is None:
        context = unproven_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=bundle.to_pem().decode("ascii"))
    else:
        context = tls_context.client_context(svid, bundle)
    expected = SpiffeId(bundle.trust_domain, CONTROL_PATH)

    class Verified(ssl.SSLObject):
        """A TLS connection whose handshake ends only with the right peer."""

        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                tls_context.verify_peer(self, expected, bundle.trust_domain, clock.wall())
            except PeerIdentityError as error:
                # What TLS libraries raise, and so what httpx takes for a failed handshake.
                raise ssl.SSLCertVerificationError(str(error)) from error

    changeable: Any = context  # typeshed has it as a class variable; the docs allow instances
    changeable.sslobject_class = Verified
    return context
