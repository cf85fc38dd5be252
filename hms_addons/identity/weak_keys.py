"""RSA public keys that must not be trusted, although the mathematics would go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

MIN_RSA_BITS: Final = 2048
"""RFC 7518 §3.3, NIST SP 800-131A."""

MAX_RSA_BITS: Final = 8192
"""Above it, one verification takes long enough to be an attack on the verifier."""

# ROCA (CVE-2017-15361): Infineon's library made primes of the form k·M + (65537^a mod M), M a
# product of small primes, so such a modulus is a power of 65537 modulo each of them. A healthy
# modulus passes for all of these primes with a probability of about 2^-28.
_ROCA_PRIMES: Final = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83),
    *(89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167),
)
_ROCA_GENERATOR: Final = 65537


def _powers(prime: int) -> frozenset[int]:
    """The subgroup that 65537 generates modulo `prime`."""
    powers: set[int] = set()
    power = 1
    while power not in powers:
        powers.add(power)
        power = power * _ROCA_GENERATOR % prime
    return frozenset(powers)


_ROCA_SUBGROUPS: Final = tuple((prime, _powers(prime)) for prime in _ROCA_PRIMES)


def weakness(key: rsa.RSAPublicKey) -> str | None:
    """Why an RSA public key must be refused, or None.

    Even exponents and those below 3 never come this far: cryptography does not load them.
    """
    if key.key_size < MIN_RSA_BITS:
        return f"an RSA key of {key.key_size} bits is too short (at least {MIN_RSA_BITS})"
    if key.key_size > MAX_RSA_BITS:
        return f"an RSA key of {key.key_size} bits is too long (at most {MAX_RSA_BITS})"
    modulus = key.public_numbers().n
    if all(modulus % prime in powers for prime, powers in _ROCA_SUBGROUPS):
        return "an RSA key with the ROCA weakness (CVE-2017-15361): its private key is computable"
    return None
