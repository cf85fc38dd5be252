"""Keys that verify tokens: read from JWK sets, PEM files and shared secrets, the unfit left out.

RFC 7517 (JWK), RFC 7518 (algorithms), RFC 8725 (best practice). Each key knows the algorithms it may
verify: those of its kind, and of these only the one that its own `alg` names, if any. So a token's
header can choose among what a key allows, never widen it; an RSA key is of no use as an HMAC
secret, whatever `alg` a token claims.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.exceptions import PyJWTError

from hms_addons.errors import MeshError
from hms_addons.identity.jws import JwsError, decode_base64url
from hms_addons.identity.weak_keys import weakness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.identity.jws import CompactJws

HMAC_ALGORITHMS: Final = frozenset({"HS256", "HS384", "HS512"})
RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVE_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ASYMMETRIC_ALGORITHMS: Final = RSA_ALGORITHMS | {*_CURVE_ALGORITHMS.values(), "EdDSA"}
SUPPORTED_ALGORITHMS: Final = HMAC_ALGORITHMS | ASYMMETRIC_ALGORITHMS

_VERIFIERS: Final = {name: jwt.get_algorithm_by_name(name) for name in SUPPORTED_ALGORITHMS}

# RFC 7518 §3.2: an HMAC key must be as long as the hash.
_HMAC_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_SYMMETRIC: Final = "oct"
MAX_KEYS: Final = 100
"""Of one JWK set: a token without a key id is checked with each of them."""
_MAX_MEMBER_CHARS: Final = 4096
"""Of one number of a key; 8192 bits take 1366."""

_ENCODED_MEMBERS: Final = ("n", "e", "x", "y", "k")
_PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi")

_PEM: Final = re.compile(
    rb"(-----BEGIN (PUBLIC KEY|RSA PUBLIC KEY|CERTIFICATE)-----.*?-----END \2-----)", re.DOTALL
)

type PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class KeySetError(MeshError, ValueError):
    """Keys cannot be used; the message says which and why, and never quotes a secret."""


class UnknownKeyError(JwsError):
    """A token is signed by a key that is not here: its id is unknown, or there are no keys at all."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One key: its id, if it has one, what it may verify, and the key itself."""

    key_id: str | None
    algorithms: frozenset[str]
    key: PublicKey | bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """An issuer's keys at one moment. `skipped` says which of its keys are not used, and why."""

    keys: tuple[VerificationKey, ...] = ()
    skipped: tuple[str, ...] = ()

    def candidates(self, algorithm: str, key_id: str | None) -> list[VerificationKey]:
        """The keys that may have signed a token with this header, most likely one first.

        A token that names a key is checked with that one; only keys without an id (from a PEM file)
        are tried besides. A token that names none is checked with each of its algorithm.
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if key_id is None:
            return fitting
        named = [key for key in fitting if key.key_id == key_id]
        return named or [key for key in fitting if key.key_id is None]

    def knows(self, key_id: str | None) -> bool:
        """Whether it has the key that a token's header names; one that names none can be any."""
        if key_id is None:
            return bool(self.keys)
        return any(key.key_id == key_id for key in self.keys)


def verify_signature(jws: CompactJws, keys: KeySet, allowed: frozenset[str]) -> None:
    """Check a token's signature.

    Args:
        jws: the token, taken apart.
        keys: of its issuer.
        allowed: the algorithms that the issuer is configured to use.

    Raises:
        UnknownKeyError: the token may be genuine, but the key that it names is not here.
        JwsError: the algorithm is not allowed, no key fits, or the signature does not hold.
    """
    if jws.algorithm not in allowed:
        names = ", ".join(sorted(allowed))
        raise JwsError(f"the token's algorithm is not one of those accepted ({names})")
    candidates = keys.candidates(jws.algorithm, jws.key_id)
    verifier = _VERIFIERS[jws.algorithm]
    if any(verifier.verify(jws.signing_input, key.key, jws.signature) for key in candidates):
        return
    why = "the token's signature is not valid"
    if not candidates:
        why = "no key of the issuer fits the token's key id and algorithm"
    raise JwsError(why) if keys.knows(jws.key_id) else UnknownKeyError(why)


def key_set_of_jwks(document: bytes | str) -> KeySet:
    """Read a JWK set. Keys for other uses, unknown kinds and weak keys are left out (RFC 7517 §5).

    Raises:
        KeySetError: not a JWK set; shared secrets and public keys mixed, or one id for two keys of
            a kind (a token could be checked with the wrong one); or no usable key in it.
    """
    try:
        data = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise KeySetError("not a JWK set: it is not JSON") from error
    entries = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise KeySetError("not a JWK set: a JSON object with a list `keys` is expected")
    if len(entries) > MAX_KEYS:
        raise KeySetError(f"the JWK set has {len(entries)} keys; at most {MAX_KEYS} are taken")
    jwks = [entry for entry in entries if isinstance(entry, dict)]
    kinds = {str(jwk.get("kty")) for jwk in jwks}
    if _SYMMETRIC in kinds and len(kinds) > 1:
        raise KeySetError("the JWK set mixes shared secrets (`oct`) with public keys: split it")
    ids = Counter((str(jwk["kid"]), str(jwk.get("kty"))) for jwk in jwks if "kid" in jwk)
    repeated = sorted(key_id for (key_id, _), count in ids.items() if count > 1)
    if repeated:
        raise KeySetError(f"the JWK set has several keys with the id {repeated[0][:64]!r}")
    keys: list[VerificationKey] = []
    skipped: list[str] = []
    for position, jwk in enumerate(jwks):
        try:
            keys.append(_key_of_jwk(jwk))
        except KeySetError as error:
            skipped.append(f"keys[{position}] (kid {str(jwk.get('kid'))[:64]!r}): {error}")
    return _usable(keys, skipped)


def key_set_of_pem(pem: bytes) -> KeySet:
    """Read PEM public keys (PUBLIC KEY or CERTIFICATE blocks, several for a rotation).

    Raises:
        KeySetError: none in it, one unreadable or weak, or it holds a private key.
    """
    if b"PRIVATE KEY-----" in pem:
        raise KeySetError("it holds a private key: a verifier is given the public one only")
    keys = [_verification_key(_load_block(*match.groups())) for match in _PEM.finditer(pem)]
    if not keys:
        raise KeySetError("it holds no -----BEGIN PUBLIC KEY----- or CERTIFICATE block")
    return KeySet(tuple(keys))


def key_set_of_secret(secret: str, algorithms: Iterable[str] = ("HS256",)) -> KeySet:
    """Use a shared secret.

    Raises:
        KeySetError: it is shorter than the algorithm's hash (RFC 7518 §3.2), or is a public key
            (whoever knows that could sign: RFC 8725 §2.1).
    """
    return KeySet((_hmac_key(secret.encode(), frozenset(algorithms), None),))


def _usable(keys: list[VerificationKey], skipped: list[str]) -> KeySet:
    if not keys:
        reasons = "; ".join(skipped) or "it is empty"
        raise KeySetError(f"no usable key in the JWK set: {reasons}")
    return KeySet(tuple(keys), tuple(skipped))


def _key_of_jwk(jwk: dict[str, Any]) -> VerificationKey:
    """One usable key of a set, or the reason why it is not."""
    _check_purpose(jwk)
    for member in _ENCODED_MEMBERS:
        if member in jwk:
            _check_encoding(jwk[member], member)
    key_id, algorithm = jwk.get("kid"), jwk.get("alg")
    if jwk.get("kty") == _SYMMETRIC:
        # Without `alg`, it serves each algorithm that it is long enough for.
        secret = decode_base64url(jwk.get("k", ""), "k")
        if algorithm is None:
            allowed = {name for name, size in _HMAC_BYTES.items() if len(secret) >= size}
            return _hmac_key(secret, frozenset(allowed or {"HS256"}), key_id)
        return _hmac_key(secret, frozenset({algorithm}), key_id)
    if any(member in jwk for member in _PRIVATE_MEMBERS):
        raise KeySetError("it is a private key: publish the public one, and replace this one")
    key = _verification_key(_load_jwk(jwk), key_id)
    if algorithm is None:
        return key
    if algorithm not in key.algorithms:
        raise KeySetError(f"`alg` {str(algorithm)[:32]!r} does not fit this kind of key")
    return replace(key, algorithms=frozenset({algorithm}))


def _check_purpose(jwk: dict[str, Any]) -> None:
    """`use`, `key_ops` and `kid` (RFC 7517 §4.2, §4.3, §4.5)."""
    if jwk.get("use", "sig") != "sig":
        raise KeySetError("its `use` is not `sig`")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeySetError("its `key_ops` lack `verify`")
    if not isinstance(jwk.get("kid", ""), str):
        raise KeySetError("its `kid` is not a string")
    if not isinstance(jwk.get("alg", ""), str):
        raise KeySetError("its `alg` is not a string")


def _check_encoding(value: object, member: str) -> None:
    if not isinstance(value, str):
        raise KeySetError(f"its `{member}` is not a string")
    if len(value) > _MAX_MEMBER_CHARS:
        raise KeySetError(f"its `{member}` is longer than {_MAX_MEMBER_CHARS} characters")
    try:
        decode_base64url(value, member)
    except JwsError as error:
        raise KeySetError(str(error)) from error


def _load_jwk(jwk: dict[str, Any]) -> object:
    kind = jwk.get("kty")
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}.get(str(kind))
    if algorithm is None:
        raise KeySetError(f"its `kty` {str(kind)[:32]!r} is not supported")
    try:
        return _VERIFIERS[algorithm].from_jwk(jwk)
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeySetError(f"not a valid {kind} key: {error}") from error


def _verification_key(key: object, key_id: str | None = None) -> VerificationKey:
    """A public key with the algorithms of its kind.

    Raises:
        KeySetError: weak, or of a kind that no supported algorithm uses.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if (reason := weakness(key)) is not None:
            raise KeySetError(reason)
        return VerificationKey(key_id, RSA_ALGORITHMS, key)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVE_ALGORITHMS:
        return VerificationKey(key_id, frozenset({_CURVE_ALGORITHMS[key.curve.name]}), key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return VerificationKey(key_id, frozenset({"EdDSA"}), key)
    raise KeySetError("only RSA, P-256, P-384, P-521 and Ed25519 keys are supported")


def _hmac_key(secret: bytes, algorithms: frozenset[str], key_id: str | None) -> VerificationKey:
    if unknown := algorithms - HMAC_ALGORITHMS:
        raise KeySetError(f"`alg` {min(unknown)[:32]!r} does not fit a shared secret")
    size = max(_HMAC_BYTES[algorithm] for algorithm in algorithms)
    if len(secret) < size:
        raise KeySetError(
            f"a shared secret of {len(secret)} bytes is too short for "
            f"{'/'.join(sorted(algorithms))}: at least {size} (make one: openssl rand -hex {size})"
        )
    try:
        _VERIFIERS["HS256"].prepare_key(secret)
    except PyJWTError as error:
        raise KeySetError(
            "the shared secret is a public key or certificate: name it as `public_key_file`, "
            "with an asymmetric algorithm"
        ) from error
    return VerificationKey(key_id, algorithms, secret)


def _load_block(block: bytes, kind: bytes) -> object:
    try:
        if kind == b"CERTIFICATE":
            return x509.load_pem_x509_certificate(block).public_key()
        return load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise KeySetError(f"unreadable {kind.decode()} block: {error}") from error
