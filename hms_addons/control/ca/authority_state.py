"""What the control plane's CA keeps: its keys, its certificates, and how far a rotation has come.

One immutable value, one JSON document, one write: a crash leaves the state before a step or the one
after it, never something between.

    steady ──announce──▶ announced ──every sidecar trusts both──▶ signing ──old SVIDs gone──▶ steady

While a root is replaced, both roots are in the bundle. `announced` still signs with the old one, so
that nobody shows a certificate which a peer cannot verify yet; `signing` signs with the new one and
keeps trusting the old one, until the last SVID below it has expired.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hms_addons.control.ca.authority import CaError, CertificateAuthority
from hms_addons.control.ca.validator import CredentialError, validate_authority
from hms_addons.errors import MeshError
from hms_addons.identity.svid import (
    SvidError,
    SvidKey,
    load_certificates,
    load_key,
    same_public_key,
)
from hms_addons.identity.trust_bundle import TrustBundle, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

    from hms_addons.clock import Clock

FORMAT: Final = 1

_RENEW_AT: Final = 2 / 3
"""Share of its life after which an intermediate is replaced."""


MARGIN: Final = 2.0
"""Seconds: a certificate's end is rounded up, and one may just be being signed."""


class Phase(StrEnum):
    """How far the replacement of the root has come."""

    STEADY = "steady"
    ANNOUNCED = "announced"
    SIGNING = "signing"


class RotationError(MeshError):
    """The root cannot be rotated now; the message says how far the present rotation is."""


@dataclass(frozen=True, slots=True)
class SigningRoot:
    """A root with its key, and the intermediate that signs in its stead.

    `longest` is the longest life (seconds) that an SVID below it may have been given.
    """

    root: x509.Certificate
    root_key: SvidKey = field(repr=False)
    intermediate: x509.Certificate
    key: SvidKey = field(repr=False)
    longest: float

    @classmethod
    def create(cls, trust_domain: str, longest: float, clock: Clock) -> SigningRoot:
        """A new root and an intermediate below it."""
        root = CertificateAuthority.create(trust_domain, clock)
        below = root.subordinate()
        return cls(root.certificate, root.key, below.certificate, below.key, longest)

    def renewed(self, trust_domain: str, clock: Clock) -> SigningRoot:
        """The same root with a new intermediate.

        Raises:
            CaError: the root has expired.
        """
        bundle = TrustBundle(trust_domain, (self.root,))
        below = CertificateAuthority(bundle, (self.root,), self.root_key, clock).subordinate()
        return replace(self, intermediate=below.certificate, key=below.key)

    def is_due(self, now: float) -> bool:
        """Whether the intermediate should be replaced: SVIDs must not be cut short by its end."""
        begin = self.intermediate.not_valid_before_utc.timestamp()
        end = self.intermediate.not_valid_after_utc.timestamp()
        root_end = self.root.not_valid_after_utc.timestamp()
        late = now >= min(begin + (end - begin) * _RENEW_AT, end - 2 * self.longest)
        return late and end < root_end

    def check(self, trust_domain: str, now: float) -> None:
        """Check that the keys are the certificates', and that the root may sign.

        The intermediate's end is not looked at: it is renewed when it is due.

        Raises:
            SvidError, CredentialError: with the reason.
        """
        pairs = (
            ("root", self.root, self.root_key),
            ("intermediate", self.intermediate, self.key),
        )
        for name, certificate, key in pairs:
            if not same_public_key(certificate.public_key(), key.public_key()):
                message = f"the {name}'s key is not the one of its certificate"
                raise SvidError(message)
        bundle = TrustBundle(trust_domain, (self.root,))
        validate_authority([self.root], bundle, now)
        end = self.intermediate.not_valid_after_utc.timestamp()
        validate_authority([self.intermediate], bundle, min(now, end))


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """The CA of one trust domain.

    Attributes:
        active: whose root is in force: the control plane's own certificate is below it, and all
            SVIDs but those of the phase `signing`.
        coming: what replaces it; None while no rotation is under way.
        since: when the phase began, `until`: when it ends at the latest (seconds since the epoch);
            `until` is None in the phase `steady`.
        sequence: the bundle's; grows with each change of its roots.
    """

    trust_domain: str
    active: SigningRoot
    coming: SigningRoot | None = None
    phase: Phase = Phase.STEADY
    since: float = 0.0
    until: float | None = None
    sequence: int = 1

    @classmethod
    def create(cls, trust_domain: str, longest: float, clock: Clock) -> AuthorityState:
        """A new CA. `longest`: the longest life (seconds) of its SVIDs.

        Raises:
            SpiffeIdError: bad trust domain.
        """
        active = SigningRoot.create(trust_domain, longest, clock)
        return cls(trust_domain, active, since=clock.wall())

    @property
    def signer(self) -> SigningRoot:
        """Whose intermediate signs SVIDs now."""
        coming = self.coming
        return coming if coming is not None and self.phase is Phase.SIGNING else self.active

    def bundle(self, refresh_hint: int | None = None) -> TrustBundle:
        """What workloads must trust now: the root in force first."""
        roots = (self.active.root,) if self.coming is None else (self.active.root, self.coming.root)
        return TrustBundle(
            self.trust_domain, roots, sequence=self.sequence, refresh_hint=refresh_hint
        )

    def authority(self, signing: SigningRoot, clock: Clock) -> CertificateAuthority:
        """A CA that signs below `signing` and trusts the bundle."""
        return CertificateAuthority(self.bundle(), (signing.intermediate,), signing.key, clock)

    # -- steps ----------------------------------------------------------------------------------

    def announced(self, overlap: float, clock: Clock) -> AuthorityState:
        """The first step of a rotation: a new root is trusted, and signs nothing yet.

        Args:
            overlap: seconds after which sidecars that have not reported are waited for no longer.
            clock: tells now.

        Raises:
            RotationError: one is under way, or the overlap is no length of time.
        """
        if not (math.isfinite(overlap) and overlap >= 0):
            message = f"an overlap of {overlap:g}s cannot be: give 0 or more seconds"
            raise RotationError(message)
        if self.coming is not None:
            message = (
                f"the root is being replaced already (phase '{self.phase}'): wait, or end the "
                "phase with `hms ca rotate-root --now`"
            )
            raise RotationError(message)
        now = clock.wall()
        return replace(
            self,
            coming=SigningRoot.create(self.trust_domain, self.active.longest, clock),
            phase=Phase.ANNOUNCED,
            since=now,
            until=now + overlap,
            sequence=self.sequence + 1,
        )

    def advanced(self, now: float) -> AuthorityState:
        """The next phase of a rotation that is under way, whether or not its time has come.

        Raises:
            RotationError: none is.
        """
        if self.coming is None:
            message = "no rotation of the root is under way: begin one with `hms ca rotate-root`"
            raise RotationError(message)
        if self.phase is Phase.ANNOUNCED:
            until = now + self.active.longest + MARGIN
            return replace(self, phase=Phase.SIGNING, since=now, until=until)
        return AuthorityState(self.trust_domain, self.coming, since=now, sequence=self.sequence + 1)

    def is_over(self, now: float, reported: Iterable[int | None], settle: float) -> bool:
        """Whether the phase has done its work, so that `advanced` is safe.

        Args:
            now: seconds since the epoch.
            reported: the bundle sequence of each sidecar that reports; None for one that told none.
            settle: seconds that an announcement lasts at least, for sidecars that are just
                starting and have not reported yet.
        """
        if self.coming is None:
            return False
        if self.until is not None and now >= self.until:
            return True
        return (
            self.phase is Phase.ANNOUNCED
            and now >= self.since + settle
            and all(sequence is not None and sequence >= self.sequence for sequence in reported)
        )

    def with_longest(self, longest: float) -> AuthorityState:
        """The state in which SVIDs may live up to `longest` seconds; never less than before.

        How long the old root must be trusted depends on it, so it is written before such an SVID
        is signed.
        """
        active = replace(self.active, longest=max(longest, self.active.longest))
        coming = self.coming
        if coming is not None:
            coming = replace(coming, longest=max(longest, coming.longest))
        return replace(self, active=active, coming=coming)

    def with_renewed_intermediates(self, clock: Clock) -> AuthorityState:
        """The state in which no intermediate is due; this very object if none was."""
        now = clock.wall()
        state = self
        if state.active.is_due(now):
            state = replace(state, active=state.active.renewed(self.trust_domain, clock))
        coming = state.coming
        if coming is not None and coming.is_due(now):
            state = replace(state, coming=coming.renewed(self.trust_domain, clock))
        return state

    # -- the document ---------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The document: a secret, with every key in it, and a checksum."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "trust_domain": self.trust_domain,
            "sequence": self.sequence,
            "phase": str(self.phase),
            "since": float(self.since),
            "until": None if self.until is None else float(self.until),
            "active": _to_json(self.active),
            "coming": None if self.coming is None else _to_json(self.coming),
        }
        return json.dumps({**content, "checksum": _checksum(content)}).encode()

    @classmethod
    def from_bytes(cls, document: bytes, trust_domain: str, now: float) -> AuthorityState:
        """Read what `to_bytes` wrote and check every part of it.

        Args:
            document: as stored.
            trust_domain: whose CA it must be.
            now: seconds since the epoch.

        Raises:
            CaError: damaged, of a newer version or another trust domain, or expired. The message
                quotes nothing of the document.
        """
        content = _content(document)
        if content["trust_domain"] != trust_domain:
            message = (
                f"the CA in this store is of the trust domain {content['trust_domain']!r}, not "
                f"{trust_domain!r}: give its name with --trust-domain, or another --data folder"
            )
            raise CaError(message)
        try:
            active = _from_json(content["active"])
            coming = None if content["coming"] is None else _from_json(content["coming"])
            state = cls(
                trust_domain=trust_domain,
                active=active,
                coming=coming,
                phase=Phase(content["phase"]),
                since=_number(content["since"]),
                until=None if content["until"] is None else _number(content["until"]),
                sequence=int(content["sequence"]),
            )
            if (state.coming is None) != (state.phase is Phase.STEADY):
                message = f"the phase '{state.phase}' does not fit the roots"
                raise SvidError(message)
            for signing in filter(None, (active, coming)):
                signing.check(trust_domain, now)
        except (KeyError, TypeError, ValueError, CredentialError, binascii.Error) as error:
            raise _damaged(str(error)) from error
        return state


def pin_of(certificate: x509.Certificate) -> str:
    """What `--ca-pin` takes: `sha256:` and the fingerprint of a root's DER form."""
    return f"sha256:{fingerprint(certificate)}"


def _damaged(reason: str) -> CaError:
    return CaError(
        f"the CA in this store cannot be used: {reason}; restore the data folder from a backup "
        "(a new CA would lock out every sidecar; to begin anew all the same, give another --data)"
    )


def _content(document: bytes) -> dict[str, Any]:
    try:
        content = json.loads(document)
    except (ValueError, RecursionError):
        raise _damaged("its document is not JSON") from None  # the cause would quote it
    if not isinstance(content, dict):
        raise _damaged("its document is not an object")
    if content.get("format") != FORMAT:
        raise _damaged(
            f"its document has the format {content.get('format')!r}, this version knows {FORMAT}"
        )
    checksum = content.pop("checksum", None)
    if checksum != _checksum(content):
        raise _damaged("its document does not fit its checksum")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        message = "a time is not a number"
        raise ValueError(message)
    return number


def _to_json(signing: SigningRoot) -> dict[str, Any]:
    return {
        "root": signing.root.public_bytes(Encoding.PEM).decode(),
        "root_key": _key_pem(signing.root_key),
        "intermediate": signing.intermediate.public_bytes(Encoding.PEM).decode(),
        "key": _key_pem(signing.key),
        "longest": float(signing.longest),
    }


def _from_json(content: dict[str, Any]) -> SigningRoot:
    (root,) = load_certificates(content["root"].encode())
    (intermediate,) = load_certificates(content["intermediate"].encode())
    return SigningRoot(
        root=root,
        root_key=load_key(content["root_key"].encode()),
        intermediate=intermediate,
        key=load_key(content["key"].encode()),
        longest=_number(content["longest"]),
    )


def _key_pem(key: SvidKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
