"""Who calls the control plane, and what each kind of caller may do: one table, decided in one place.

Three kinds of credentials: the admin token of operators, the join token of a sidecar that has no
certificate yet, and the SVID of a sidecar, shown in the TLS handshake. Whoever shows none is anyone.

A credential that is wrong never counts as none: a request with a bad one is refused, except where
anyone may ask anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.control.store.protocol import Write
from hms_addons.errors import MeshError
from hms_addons.identity.svid import SvidError, iso_time, peer_leaf

if TYPE_CHECKING:
    import ssl

    from hms_addons.clock import Clock
    from hms_addons.control.store.protocol import Store
    from hms_addons.identity.spiffe_id import SpiffeId
    from hms_addons.identity.svid import PeerLeaf

ADMIN_PREFIX: Final = "admin/"
"""Of the keys in the store; a hash follows, never the token."""
ADMIN_TOKEN_START: Final = "hmsadm1."  # noqa: S105 - how each one begins
JOIN_TOKEN_START: Final = "hms1."  # noqa: S105 - the same
_MAX_TOKEN: Final = 512


class Kind(StrEnum):
    """The kinds of callers."""

    ANYONE = "anyone"
    ADMIN = "admin"
    TOKEN = "join token"  # noqa: S105 - a kind, not a secret
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Args:
        kind: what was shown.
        name: for logs and rate limits; never a secret.
        peer: of a sidecar, and of a join token that came with one: whose SVID was shown.
        token: the join token as it came; checked and used up only where an SVID is signed.
    """

    kind: Kind
    name: str
    peer: SpiffeId | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def service(self) -> str | None:
        """The service whose SVID was shown."""
        return None if self.peer is None else self.peer.service


class AuthError(MeshError):
    """The caller is refused: 401, or 403 if it is known who calls."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


# -- the table ---------------------------------------------------------------------------------


class Permission(NamedTuple):
    """Who may use one operation."""

    kinds: frozenset[Kind]
    own_service: bool = False
    """A sidecar may name only the service whose SVID it shows."""


_PUBLIC = Permission(frozenset(Kind))
_ADMIN = Permission(frozenset({Kind.ADMIN}))
_OWN = Permission(frozenset({Kind.ADMIN, Kind.SIDECAR}), own_service=True)

PERMISSIONS: Final[dict[str, Permission]] = {
    "get_health": _PUBLIC,
    "get_readiness": _PUBLIC,
    "get_metrics": _PUBLIC,
    "get_documentation": _PUBLIC,
    "get_openapi": _PUBLIC,
    "get_bundle": _PUBLIC,
    "issue_svid": Permission(frozenset({Kind.TOKEN, Kind.SIDECAR}), own_service=True),
    "create_token": _ADMIN,
    "list_tokens": _ADMIN,
    "revoke_token": _ADMIN,
    "get_ca": _ADMIN,
    "rotate_root": _ADMIN,
    "get_snapshot": _OWN,
    "report_sidecar": Permission(frozenset({Kind.SIDECAR}), own_service=True),
    "remove_sidecar": _OWN,
    "list_sidecars": _ADMIN,
    "get_config": _ADMIN,
    "put_config": _ADMIN,
    "list_config_versions": _ADMIN,
    "get_config_version": _ADMIN,
    "roll_back_config": _ADMIN,
    "diff_config": _ADMIN,
    "put_instance": _OWN,
    "delete_instance": _OWN,
    "list_services": Permission(frozenset({Kind.ADMIN, Kind.SIDECAR})),
}
"""By operation ID; an operation that is missing here cannot be served."""

_NEEDED: Final = {
    Kind.ADMIN: "the admin token, as 'Authorization: Bearer …' (`hms`: --admin-token or "
    "HMS_ADMIN_TOKEN)",
    Kind.TOKEN: "a join token, as 'Authorization: Bearer …' (`hms token create` makes one)",
    Kind.SIDECAR: "a sidecar's SVID, as the TLS client certificate",
}


def authorize(operation: str, caller: Caller) -> None:
    """Check that a caller of this kind may use an operation at all.

    Raises:
        AuthError: it may not.
        KeyError: the operation is not in the table.
    """
    kinds = PERMISSIONS[operation].kinds
    if caller.kind in kinds:
        return
    needed = " or ".join(text for kind, text in _NEEDED.items() if kind in kinds)
    if caller.kind is Kind.ANYONE:
        raise AuthError(401, f"{operation} needs {needed}")
    raise AuthError(403, f"{caller.name} may not use {operation}, which needs {needed}")


def authorize_service(operation: str, caller: Caller, service: str) -> None:
    """Check that a caller may use an operation for a service; `authorize` was called before.

    Raises:
        AuthError: it may act for its own service only.
    """
    if not PERMISSIONS[operation].own_service or caller.kind is not Kind.SIDECAR:
        return
    if caller.service != service:
        detail = f"{caller.name} is {caller.service}, and may not use {operation} for {service!r}"
        raise AuthError(403, detail)


# -- what was shown ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """What a client showed in the TLS handshake; OpenSSL has checked its chain to a root by then."""

    leaf: PeerLeaf | None = None
    problem: str | None = None
    """Why the certificate is none that counts."""

    @classmethod
    def of(cls, ssl_object: ssl.SSLObject | ssl.SSLSocket | None, trust_domain: str) -> Peer:
        """The peer of a finished handshake."""
        der = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
        if not der:
            return NOBODY
        try:
            leaf = peer_leaf(der)
        except SvidError as error:
            return cls(problem=f"the client certificate is not an X.509-SVID: {error}")
        if leaf.spiffe_id.trust_domain != trust_domain:
            return cls(problem=f"{leaf.spiffe_id} is not of the trust domain {trust_domain}")
        return cls(leaf)


NOBODY: Final = Peer()


class Authenticator:
    """Tells who calls from what was shown.

    Args:
        admins: judges admin tokens.
        clock: time, against which SVIDs are held at every request: connections live long.
    """

    __slots__ = ("_admins", "_clock")

    def __init__(self, admins: AdminTokens, clock: Clock) -> None:
        self._admins = admins
        self._clock = clock

    def identify(self, authorization: str | None, peer: Peer, address: str) -> Caller:
        """The caller. A token counts more than a certificate.

        Args:
            authorization: the header's value, if there is one.
            peer: of the connection.
            address: of the peer, which names a caller that shows nothing.

        Raises:
            AuthError: what was shown is not good.
        """
        if authorization is not None:
            return self._bearer(authorization, peer, address)
        if peer.problem is not None:
            raise AuthError(401, peer.problem)
        if peer.leaf is None:
            return Caller(Kind.ANYONE, address)
        return self._sidecar(peer.leaf)

    def _bearer(self, authorization: str, peer: Peer, address: str) -> Caller:
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            raise AuthError(401, "the Authorization header must be 'Bearer ' and a token")
        if token.startswith(JOIN_TOKEN_START):
            name = f"a join token from {address}"
            shown = None if peer.leaf is None else self._sidecar(peer.leaf).peer
            return Caller(Kind.TOKEN, name, shown, token)
        if not self._admins.verify(token):
            raise AuthError(
                401,
                "this token is not the admin token; it was printed when the control plane first "
                "started (lost? `hms control --reset-admin-token` makes a new one)",
            )
        return Caller(Kind.ADMIN, "admin")

    def _sidecar(self, leaf: PeerLeaf) -> Caller:
        now, name = self._clock.wall(), str(leaf.spiffe_id)
        if now > leaf.not_after:
            raise AuthError(
                401, f"the SVID of {name} expired at {iso_time(leaf.not_after)}: join again"
            )
        if now < leaf.not_before:
            raise AuthError(
                401,
                f"the SVID of {name} is not valid before {iso_time(leaf.not_before)}, and it is "
                f"{iso_time(now)} here: compare the clocks",
            )
        if leaf.spiffe_id.service is None:
            raise AuthError(403, f"{name} is not a service of the mesh")
        return Caller(Kind.SIDECAR, name, leaf.spiffe_id)


# -- the admin token ---------------------------------------------------------------------------


class AdminTokens:
    """The tokens that make an operator; the store holds their hashes, memory too.

    A plain SHA-256 will do: a token is 256 random bits, which nobody can guess, slow hash or not.
    """

    __slots__ = ("_clock", "_hashes", "_store")

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._hashes: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<AdminTokens {len(self._hashes)}>"

    async def load(self) -> str | None:
        """Read the hashes. If there are none, make the first token.

        One that was made by a process that ended before it could show it is of no use to anybody,
        and is replaced.

        Returns:
            The new token, to be shown once, and then `mark_shown`; None if there was one.
        """
        entries = await self._store.list(ADMIN_PREFIX)
        self._hashes = frozenset(
            entry.key.removeprefix(ADMIN_PREFIX) for entry in entries if _was_shown(entry.value)
        )
        return None if self._hashes else await self.reset()

    async def reset(self) -> str:
        """Make a new token; every older one is void.

        Returns:
            The token, to be shown once, and then `mark_shown`.
        """
        token = ADMIN_TOKEN_START + secrets.token_urlsafe(32)
        digest = _digest(token)
        about = json.dumps({"created": iso_time(self._clock.wall()), "shown": False}).encode()
        old = await self._store.list(ADMIN_PREFIX)
        await self._store.write(
            [
                *(Write(entry.key, None, None, None) for entry in old),
                Write(ADMIN_PREFIX + digest, about, None, None),
            ]
        )
        self._hashes = frozenset({digest})
        return token

    async def mark_shown(self) -> None:
        """An operator has been told what `load` or `reset` returned."""
        about = json.dumps({"created": iso_time(self._clock.wall()), "shown": True}).encode()
        await self._store.write([Write(ADMIN_PREFIX + digest, about) for digest in self._hashes])

    def verify(self, token: str) -> bool:
        """Whether it is an admin token; takes as long whatever is wrong with it."""
        digest = _digest(token)
        found = [hmac.compare_digest(digest, known) for known in self._hashes]
        return any(found)


def _was_shown(about: bytes) -> bool:
    """Whether somebody may have a token; of one that says nothing (an older version's) it is so."""
    try:
        told = json.loads(about)
    except ValueError:
        return True
    return not (isinstance(told, dict) and told.get("shown") is False)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
