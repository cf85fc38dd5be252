"""Join tokens: how a sidecar that has no SVID yet proves which service it may be.

`hms1.<id>.<secret>`: the id is public (lists, logs, revocation), the secret is 256 random bits. Kept
is only a SHA-256 of the whole token, which names the entry, so nothing that leaks from the store
lets anyone in; with that many random bits a slow hash would add nothing.

A token is good for one SVID of one service. It is spent before anything is signed, by a write that
only one can win; whoever loses, or comes later, is told that it has been used. Spent and expired
tokens are remembered for a day, so that the answer can say so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from hms_addons.control.store.protocol import ConflictError, Write
from hms_addons.errors import MeshError
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.control.store.protocol import Entry, Store

logger = logging.getLogger(__name__)

PREFIX: Final = "tokens/"
DEFAULT_TTL: Final = 600.0
MAX_TTL: Final = 30 * 86400.0
REMEMBERED: Final = 86400.0
"""Seconds after its end for which a token is remembered."""

_TOKEN = re.compile(r"hms1\.([a-z0-9]{12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class TokenError(MeshError):
    """A token cannot be made, or does not let its bearer in; the message never quotes it.

    `known`: it is one of ours and in force, but not for this.
    """

    def __init__(self, message: str, *, known: bool = False) -> None:
        self.known = known
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What is kept of a token. Times are seconds since the epoch; `used` is None while unspent."""

    id: str
    service: str
    created: float
    expires: float
    used: float | None = None

    def state(self, now: float) -> str:
        """`used`, `expired` or `valid`."""
        if self.used is not None:
            return "used"
        return "expired" if now > self.expires else "valid"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; its `text` is shown once and kept nowhere."""

    token: JoinToken
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spent:
    """A token that has been spent and can still be given back."""

    token: JoinToken
    key: str = field(repr=False)
    revision: int


class JoinTokens:
    """The join tokens of one control plane.

    Args:
        store: keeps them under `tokens/`.
        clock: time, injected.
    """

    __slots__ = ("_clock", "_store")

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def __repr__(self) -> str:
        return f"<JoinTokens in {self._store!r}>"

    async def create(self, service: str, ttl: float = DEFAULT_TTL) -> NewToken:
        """Make a token for one SVID of `service`, good for `ttl` seconds.

        Raises:
            TokenError: a bad service name or time.
            StoreError: it could not be written.
        """
        try:
            SpiffeId.for_service("mesh", service)
        except ValueError as error:
            raise TokenError(str(error)) from error
        if not (math.isfinite(ttl) and 1 <= ttl <= MAX_TTL):
            message = f"a token cannot be good for {ttl:g}s: give 1 s to {MAX_TTL / 86400:.0f} days"
            raise TokenError(message)
        now = self._clock.wall()
        token = JoinToken(secrets.token_hex(6), service, now, now + ttl)
        text = f"hms1.{token.id}.{secrets.token_urlsafe(32)}"
        await self._store.put(_key(text), _encode(token), expected=0)
        logger.info("made the join token %s for %s", token.id, service)
        return NewToken(token, text)

    async def check(self, text: str, service: str) -> JoinToken:
        """What a token is, if it is good for an SVID of `service` now. Spends nothing.

        Raises:
            TokenError: not one of ours, used, expired, or of another service.
        """
        _, token = await self._good(text, service)
        return token

    async def spend(self, text: str, service: str) -> Spent:
        """Use a token up for an SVID of `service`, before that is signed.

        Raises:
            TokenError: as in `check`, or somebody else used it in the same moment; nothing has
                changed.
            StoreError: it could not be written.
        """
        entry, token = await self._good(text, service)
        spent = replace(token, used=self._clock.wall())
        try:
            revision = await self._store.put(entry.key, _encode(spent), expected=entry.revision)
        except ConflictError as error:
            raise _used(token) from error
        return Spent(spent, entry.key, revision)

    async def _good(self, text: str, service: str) -> tuple[Entry, JoinToken]:
        if _TOKEN.fullmatch(text) is None:
            raise TokenError("this is no join token: it looks like hms1.<id>.<secret>, whole")
        entry = await self._store.get(_key(text))
        if entry is None:
            raise TokenError("this join token is not known here: it was revoked, or made elsewhere")
        token = _decode(entry)
        if token.used is not None:
            raise _used(token)
        if self._clock.wall() > token.expires:
            raise TokenError(
                f"the join token {token.id} expired at {iso_time(token.expires)}: make another "
                f"with `hms token create --service {token.service}`"
            )
        if token.service != service:
            raise TokenError(
                f"the join token {token.id} is for {token.service!r}, not {service!r}: make one "
                f"with `hms token create --service {service}`",
                known=True,
            )
        return entry, token

    async def give_back(self, spent: Spent) -> None:
        """Make a spent token good again: nothing was signed for it.

        Raises:
            StoreError: it could not be written.
        """
        try:
            await self._store.put(
                spent.key, _encode(replace(spent.token, used=None)), expected=spent.revision
            )
        except ConflictError:
            logger.info("the join token %s was revoked meanwhile", spent.token.id)

    async def list(self) -> list[JoinToken]:
        """All that are remembered, the newest first."""
        entries = await self._store.list(PREFIX)
        return sorted(map(_decode, entries), key=lambda token: -token.created)

    async def revoke(self, token_id: str) -> JoinToken | None:
        """Forget the token with this id. Returns what it was; None if there is none.

        Raises:
            StoreError: it could not be written.
        """
        for entry in await self._store.list(PREFIX):
            token = _decode(entry)
            if token.id == token_id:
                await self._store.delete(entry.key)
                logger.info("revoked the join token %s of %s", token.id, token.service)
                return token
        return None

    async def forget_old(self) -> int:
        """Delete tokens whose end is longer ago than they are remembered. Returns how many.

        Raises:
            StoreError: it could not be written.
        """
        limit = self._clock.wall() - REMEMBERED
        entries = await self._store.list(PREFIX)
        old = [entry.key for entry in entries if _decode(entry).expires < limit]
        if old:
            await self._store.write([Write(key, None, None, None) for key in old])
        return len(old)


def _key(text: str) -> str:
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()


def _used(token: JoinToken) -> TokenError:
    when = "" if token.used is None else f" at {iso_time(token.used)}"
    return TokenError(
        f"the join token {token.id} has been used{when}: each is good for one SVID; make another "
        f"with `hms token create --service {token.service}`"
    )


def _encode(token: JoinToken) -> bytes:
    content = {
        "id": token.id,
        "service": token.service,
        "created": token.created,
        "expires": token.expires,
        "used": token.used,
    }
    return json.dumps(content).encode()


def _decode(entry: Entry) -> JoinToken:
    """What an entry holds.

    Raises:
        TokenError: it is damaged; the message names its key, which is a hash.
    """
    try:
        content: dict[str, Any] = json.loads(entry.value)
        used = content["used"]
        return JoinToken(
            id=str(content["id"]),
            service=str(content["service"]),
            created=float(content["created"]),
            expires=float(content["expires"]),
            used=None if used is None else float(used),
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"the store's entry {entry.key} is damaged: delete it, or restore a backup"
        raise TokenError(message) from error
