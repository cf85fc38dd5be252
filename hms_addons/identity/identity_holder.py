"""The identity in use: made whole, swapped by one assignment, never changed.

`IdentityHolder.current` is read on the hot path. Connections remember the `Identity` they were made
with; when a newer generation is there, pools let theirs finish and make new ones.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hms_addons.errors import MeshError
from hms_addons.identity import tls_context
from hms_addons.identity.peer_chain import peer_chain, trusted_until
from hms_addons.identity.svid import Svid, SvidError, iso_time, validate_chain, validate_leaf
from hms_addons.identity.trust_bundle import TrustBundle  # noqa: TC001 - dataclass fields are looked at when the class is made

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.identity.spiffe_id import SpiffeId

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecretMaterial:
    """An SVID and the bundle that peers are verified with, of one trust domain."""

    svid: Svid
    bundle: TrustBundle

    def check(self, now: float) -> None:
        """Check that it can be used at `now` (seconds since the epoch).

        Raises:
            SvidError: the SVID is out of time, of another trust domain than the bundle, or has no
                root in it: peers with the same bundle would refuse it.
        """
        validate_leaf(self.svid.leaf, now, self.bundle.trust_domain)
        validate_chain(self.svid.certificates, self.bundle.roots, now)


class SecretError(MeshError):
    """A secret cannot be had or used; the message names the secret, the place and the remedy."""


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Who this sidecar is, and the TLS contexts made of it. Immutable; compared by identity."""

    svid: Svid
    bundle: TrustBundle
    generation: int
    client_context: ssl.SSLContext = field(repr=False)
    strict_server_context: ssl.SSLContext = field(repr=False)
    permissive_server_context: ssl.SSLContext = field(repr=False)

    @classmethod
    def of(cls, material: SecretMaterial, generation: int) -> Identity:
        """Build the contexts (a few milliseconds); once per generation."""
        svid, bundle = material.svid, material.bundle
        return cls(
            svid=svid,
            bundle=bundle,
            generation=generation,
            client_context=tls_context.client_context(svid, bundle),
            strict_server_context=tls_context.server_context(svid, bundle, require_peer=True),
            permissive_server_context=tls_context.server_context(svid, bundle, require_peer=False),
        )

    @property
    def spiffe_id(self) -> SpiffeId:
        """This workload's ID."""
        return self.svid.spiffe_id

    @property
    def trust_domain(self) -> str:
        """The trust domain of this workload and of all its peers."""
        return self.bundle.trust_domain

    def server_context(self, *, require_peer: bool) -> ssl.SSLContext:
        """The context of a `strict` (True) or `permissive` (False) listener."""
        return self.strict_server_context if require_peer else self.permissive_server_context

    def verify_peer(
        self,
        ssl_object: ssl.SSLObject | ssl.SSLSocket,
        expected: SpiffeId | frozenset[SpiffeId] | None = None,
        now: float | None = None,
    ) -> SpiffeId:
        """See `tls_context.verify_peer`; in this identity's trust domain."""
        return tls_context.verify_peer(ssl_object, expected, self.trust_domain, now)

    def still_trusts(self, ssl_object: ssl.SSLObject, now: float) -> bool:
        """Whether the peer of a live connection, made under an older identity, would pass now."""
        try:
            self.verify_peer(ssl_object, None, now)
        except tls_context.PeerIdentityError:
            return False
        return trusted_until(peer_chain(ssl_object), self.bundle) >= now


class IdentityHolder:
    """Holds the current `Identity` of one secret and tells whoever asked when it changes.

    `name` is the secret's, for log lines.
    """

    __slots__ = ("_listeners", "current", "name", "problem")

    def __init__(self, name: str) -> None:
        self.name = name
        self.current: Identity | None = None
        """None until the first material has arrived."""
        self.problem: str | None = None
        """Why whoever feeds it could not renew it; None if it could."""
        self._listeners: dict[object, Callable[[Identity], object]] = {}

    def __repr__(self) -> str:
        if self.current is None:
            return f"<IdentityHolder {self.name} empty>"
        svid = self.current.svid
        return (
            f"<IdentityHolder {self.name} {svid.spiffe_id} generation={self.current.generation} "
            f"until={iso_time(svid.not_after)}>"
        )

    def subscribe(self, callback: Callable[[Identity], object]) -> Callable[[], None]:
        """Call `callback(identity)` after each swap; not for the one that is already there.

        Returns:
            A function that ends the subscription; idempotent.
        """
        subscription = object()
        self._listeners[subscription] = callback

        def unsubscribe() -> None:
            self._listeners.pop(subscription, None)

        return unsubscribe

    def replace(self, material: SecretMaterial, now: float) -> Identity:
        """Check new material, build its contexts, and swap it in.

        A listener that raises is logged; the others are still told.

        Raises:
            SecretError: the material is not usable at `now` (seconds since the epoch); the old
                identity stays.
        """
        try:
            material.check(now)
            generation = 1 if self.current is None else self.current.generation + 1
            identity = Identity.of(material, generation)
        except (SvidError, ssl.SSLError) as error:
            message = f"secret {self.name!r} is not usable: {error}"
            raise SecretError(message) from error
        self.current = identity
        logger.info(
            "secret %s: generation %d, %s, serial %x, valid until %s",
            self.name,
            generation,
            identity.spiffe_id,
            identity.svid.serial,
            iso_time(identity.svid.not_after),
        )
        for listener in tuple(self._listeners.values()):
            try:
                listener(identity)
            except Exception:
                logger.exception("secret %s: a listener failed on the new identity", self.name)
        return identity
