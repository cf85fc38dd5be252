from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hms_addons.identity.weak_keys import _ROCA_PRIMES, weakness
from tests.fakes import pki


def public(n: int, e: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, n).public_key()


def test_a_healthy_key() -> None:
    assert weakness(pki.jwt_key("RS256").private.public_key()) is None


@pytest.mark.parametrize(("bits", "reason"), [(2047, "too short"), (8193, "too long")])
def test_sizes(bits: int, reason: str) -> None:
    assert reason in str(weakness(public((1 << (bits - 1)) | 1)))


@pytest.mark.parametrize("exponent", [1, 2, 65536])
def test_bad_exponents_are_not_loaded(exponent: int) -> None:
    with pytest.raises(ValueError, match="e must be"):
        public(pki.jwt_key("RS256").private.public_key().public_numbers().n, exponent)


def test_a_modulus_of_the_roca_kind() -> None:
    """A power of 65537 modulo the product of the small primes, as Infineon's library made them."""
    product = 1
    for prime in _ROCA_PRIMES:
        product *= prime
    modulus = pow(65537, 1234, product) + product * ((1 << 2047) // product + 1)
    while modulus % 2 == 0:
        modulus += product
    assert "ROCA" in str(weakness(public(modulus)))
    assert weakness(public(modulus + 2)) is None
