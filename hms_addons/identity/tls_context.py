"""TLS as the mesh speaks it, and who is at the other end of a finished handshake.

OpenSSL checks in the handshake what it can: signatures, the chain to a root of the bundle, dates,
CA flags and purposes. It cannot check a SPIFFE ID: a client here verifies the server's *ID*, not
its host name, and a server must know the client's. So the handshake is half of the decision; the
other half is `verify_peer`, which every caller runs before the first byte of a request is sent or
served, closing the connection when it raises.
"""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.errors import MeshError
from hms_addons.identity.svid import SvidError, iso_time, peer_leaf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hms_addons.identity.spiffe_id import SpiffeId
    from hms_addons.identity.svid import Svid
    from hms_addons.identity.trust_bundle import TrustBundle

ALPN_PROTOCOLS: Final = ("http/1.1",)

# Forward secrecy and AEAD only, for peers that speak no TLS 1.3 (RFC 9325 §4.2).
_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"

_DESCRIPTORS: Final = Path("/proc/self/fd")


class PeerIdentityError(MeshError):
    """The peer of a TLS connection is not who it must be; close the connection.

    `expected` and `found` are texts for the log: the IDs that would do, and what was presented.
    """

    def __init__(self, expected: str, found: str) -> None:
        self.expected = expected
        self.found = found
        super().__init__(f"expected {expected}, found {found}")


def client_context(svid: Svid, bundle: TrustBundle) -> ssl.SSLContext:
    """A context for connections to other sidecars.

    The server must present a certificate that the bundle verifies; its host name is not looked at
    (run `verify_peer` with the expected ID instead).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The order matters: CERT_REQUIRED stays, only the name check goes.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return _prepare(context, svid, bundle)


def server_context(svid: Svid, bundle: TrustBundle, *, require_peer: bool) -> ssl.SSLContext:
    """A context for inbound listeners.

    Args:
        svid: what to present.
        bundle: what client certificates are verified with.
        require_peer: True for a `strict` listener: a client without a certificate fails the
            handshake. False for `permissive`: it is let in, unauthenticated (`getpeercert` is
            empty); one that *is* presented must still verify, here and in `verify_peer`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if require_peer else ssl.CERT_OPTIONAL
    # No resumption: a ticket would let a peer in on a certificate verified hours ago, and nobody
    # gains by it, since sidecars pool their connections and asyncio's clients never resume.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return _prepare(context, svid, bundle)


def verify_peer(
    ssl_object: ssl.SSLObject | ssl.SSLSocket,
    expected: SpiffeId | frozenset[SpiffeId] | None,
    trust_domain: str,
    now: float | None = None,
) -> SpiffeId:
    """The SPIFFE ID at the other end of a finished handshake, if it is one that will do.

    Args:
        ssl_object: of a connection made with one of this module's contexts.
        expected: the ID, or IDs, that are acceptable; None accepts all of the trust domain.
        trust_domain: the only one accepted.
        now: seconds since the Unix epoch; the system clock's if not given. Dates are compared here
            once more, because a resumed session repeats no handshake checks.

    Raises:
        PeerIdentityError: no certificate, not an X.509-SVID, out of time, of another trust domain,
            or another workload's.
    """
    der = ssl_object.getpeercert(binary_form=True)
    if not der:
        raise PeerIdentityError(_describe(expected, trust_domain), "no certificate")
    try:
        leaf = peer_leaf(der)
    except SvidError as error:
        found = f"a certificate that is not an X.509-SVID ({error})"
        raise PeerIdentityError(_describe(expected, trust_domain), found) from error
    found_id = leaf.spiffe_id
    moment = SYSTEM_CLOCK.wall() if now is None else now
    if not leaf.not_before <= moment <= leaf.not_after:
        found = (
            f"{found_id} with a certificate valid only from {iso_time(leaf.not_before)} "
            f"to {iso_time(leaf.not_after)}"
        )
        raise PeerIdentityError(_describe(expected, trust_domain), found)
    if found_id.trust_domain != trust_domain or not _acceptable(found_id, expected):
        raise PeerIdentityError(_describe(expected, trust_domain), str(found_id))
    return found_id


def _acceptable(found: SpiffeId, expected: SpiffeId | frozenset[SpiffeId] | None) -> bool:
    if expected is None:
        return True
    return found in expected if isinstance(expected, frozenset) else found == expected


def _describe(expected: SpiffeId | frozenset[SpiffeId] | None, trust_domain: str) -> str:
    if expected is None:
        return f"a workload of the trust domain {trust_domain}"
    if isinstance(expected, frozenset):
        return " or ".join(sorted(map(str, expected))) or "nobody (the list of IDs is empty)"
    return str(expected)


def _prepare(context: ssl.SSLContext, svid: Svid, bundle: TrustBundle) -> ssl.SSLContext:
    """Apply what clients and servers have in common."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    context.load_verify_locations(cadata=bundle.to_pem().decode("ascii"))
    with _private_file(svid.chain_pem() + svid.key_pem()) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _private_file(content: bytes) -> Iterator[str]:
    """A path that holds `content` for as long as the block runs.

    `load_cert_chain` reads files only. On Linux this one lives in memory, without a name in any
    folder; elsewhere it is a temporary file that only this user can read (`mkstemp` is 0600).
    """
    name: str | None = None
    if sys.platform == "linux" and _DESCRIPTORS.is_dir():
        descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
        path = str(_DESCRIPTORS / str(descriptor))
    else:
        descriptor, name = tempfile.mkstemp(prefix="svid-")
        path = name
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield path
    finally:
        if name is not None:
            Path(name).unlink()
