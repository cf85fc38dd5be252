from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control.ca.csr import check_csr, load_csr
from hms_addons.identity.enrolment import (
    MAX_LIFETIME,
    ControlSecret,
    EarlySvidError,
    IssuedSvid,
    check_issued,
    new_request,
)
from hms_addons.identity.identity_holder import SecretError
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import same_public_key
from tests.fakes.clock import FakeClock
from tests.fakes.control import FakeIssuer, pem

if TYPE_CHECKING:
    from hms_addons.identity.identity_holder import SecretMaterial

SERVICE = "auth-svc"


class Rig:
    """A sidecar and its control plane, each with its own clock."""

    def __init__(self, *, ahead: float = 0.0, lifetime: float = 24 * 3600.0) -> None:
        self.control_clock = FakeClock()
        self.clock = FakeClock(wall=self.control_clock.wall() + ahead)
        self.issuer = FakeIssuer(self.control_clock, lifetime)
        self.secret = ControlSecret(SERVICE, self.issuer, self.clock)

    async def refused(self) -> str:
        with pytest.raises(SecretError) as caught:
            await self.secret.fetch()
        return str(caught.value)


def test_a_request_proves_a_fresh_p256_key_and_asks_for_nothing() -> None:
    key, csr = new_request()
    other, _ = new_request()
    public_key = check_csr(load_csr(csr), SpiffeId.for_service("mpsa.mil", SERVICE))
    assert same_public_key(public_key, key.public_key())
    assert isinstance(key.curve, ec.SECP256R1)
    assert not same_public_key(public_key, other.public_key())


async def test_each_fetch_is_a_new_key_and_a_good_svid() -> None:
    rig = Rig()
    first, second = await rig.secret.fetch(), await rig.secret.fetch()
    assert str(first.svid.spiffe_id) == "spiffe://mpsa.mil/svc/auth-svc"
    assert first.bundle == rig.issuer.authority.bundle
    assert first.bundle.sequence == 1
    assert len(first.svid.certificates) == 2
    assert not same_public_key(
        first.svid.private_key.public_key(), second.svid.private_key.public_key()
    )
    assert rig.issuer.asked == [SERVICE, SERVICE]
    assert repr(rig.secret) == "<ControlSecret auth-svc of mpsa.mil>"


async def test_the_issuers_own_error_is_passed_on() -> None:
    rig = Rig()
    rig.issuer.failure = SecretError("https://cp:15010: connection refused")
    assert await rig.refused() == "https://cp:15010: connection refused"


async def test_another_services_svid_is_refused() -> None:
    rig = Rig()
    rig.issuer.signs_for = "payments-svc"
    assert "it is spiffe://mpsa.mil/svc/payments-svc where" in await rig.refused()


async def test_an_svid_for_another_key_is_refused() -> None:
    rig = Rig()
    rig.issuer.csr = new_request()[1]
    assert "for another key than the one that was sent" in await rig.refused()


async def test_an_svid_that_its_own_bundle_does_not_know_is_refused() -> None:
    rig = Rig()
    rig.issuer.bundle = CertificateAuthority.create("mpsa.mil", rig.clock).bundle
    assert "no root of the bundle signed" in await rig.refused()


async def test_an_absurdly_long_life_is_refused() -> None:
    rig = Rig(lifetime=MAX_LIFETIME + 60)
    assert "at most 90 are accepted" in await rig.refused()


@pytest.mark.parametrize("fraction", [0.0, 0.3])
async def test_the_longest_life_that_a_control_plane_gives_is_taken(fraction: float) -> None:
    rig = Rig(lifetime=MAX_LIFETIME)
    rig.clock.step(fraction)
    await rig.secret.fetch()


async def test_a_bundle_that_is_none_is_refused() -> None:
    rig = Rig()
    answer = await rig.issuer.issue(SERVICE, new_request()[1])
    key, csr = new_request()
    answer = await rig.issuer.issue(SERVICE, csr)
    for bad, reason in [
        (replace(answer, bundle_json=b"{}"), "no list `keys`"),
        (replace(answer, chain_pem=b""), "not a PEM certificate chain"),
        (replace(answer, chain_pem=answer.chain_pem * 5), "at most 8"),
        (replace(answer, trust_domain="MPSA"), "outside a-z"),
        (replace(answer, trust_domain="other.example"), "not of the trust domain other.example"),
    ]:
        with pytest.raises(SecretError, match=reason):
            check_issued(bad, key, SERVICE, rig.clock.wall())


async def test_the_trust_domain_does_not_change_underway() -> None:
    rig = Rig()
    await rig.secret.fetch()
    other = CertificateAuthority.create("other.example", rig.clock)
    rig.issuer.authority = other
    assert "trust domain 'other.example', not 'mpsa.mil'" in await rig.refused()


# -- clocks that disagree --------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-60.0, -30.0, 0.0, 120.0, 3600.0])
async def test_a_clock_up_to_a_minute_behind_or_ahead_within_the_life_will_do(
    ahead: float,
) -> None:
    rig = Rig(ahead=ahead)
    material = await rig.secret.fetch()
    assert material.svid.not_before <= rig.clock.wall() <= material.svid.not_after


async def test_a_clock_two_minutes_behind_is_told_by_how_much() -> None:
    rig = Rig(ahead=-120)
    message = await rig.refused()
    assert "this machine's clock is about 120 s behind the control plane's" in message
    assert "up to 60 s are tolerated" in message


async def test_what_came_too_early_is_taken_when_its_time_has_come() -> None:
    rig = Rig(ahead=-120)
    await rig.refused()
    rig.issuer.failure = SecretError("the join token has been used")
    await rig.clock.advance(59)
    assert "about 120 s behind" not in await rig.refused()
    await rig.clock.advance(1)
    material = await rig.secret.fetch()
    assert material.svid.not_before == rig.clock.wall()
    assert rig.issuer.asked == [SERVICE]
    assert await rig.refused() == "the join token has been used"


async def test_what_came_too_early_and_was_missed_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(ahead=-120, lifetime=10)
    await rig.refused()
    rig.clock.step(600)
    rig.control_clock.step(480)
    assert (await rig.secret.fetch()).svid.not_after > rig.clock.wall()
    assert len(rig.issuer.asked) == 2
    assert "given up" in caplog.text


async def test_a_clock_ahead_of_the_whole_life_is_told_by_how_much() -> None:
    rig = Rig(ahead=120, lifetime=60)
    message = await rig.refused()
    assert "this machine's clock is about 120 s ahead of the control plane's" in message


async def test_early_is_an_error_of_its_own() -> None:
    rig = Rig(ahead=-120)
    with pytest.raises(EarlySvidError):
        await rig.secret.fetch()


# -- parsers ---------------------------------------------------------------------------------------

KEY, CSR = new_request()
AUTHORITY = CertificateAuthority.create("mpsa.mil", FakeClock())
GOOD = IssuedSvid(
    pem(AUTHORITY.sign_svid(load_csr(CSR), SpiffeId.for_service("mpsa.mil", SERVICE))),
    AUTHORITY.bundle.to_spiffe_json(sequence=1).encode(),
    "mpsa.mil",
)


def good() -> SecretMaterial:
    return check_issued(GOOD, KEY, SERVICE, FakeClock().wall())


# What a damaged certificate makes the library warn of; in a sidecar that is a line in the log.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
@given(st.data())
def test_a_damaged_answer_is_refused_or_says_the_same(data: st.DataObject) -> None:
    in_chain = data.draw(st.booleans())
    content = bytearray(GOOD.chain_pem if in_chain else GOOD.bundle_json)
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    if in_chain:
        answer = replace(GOOD, chain_pem=bytes(content))
    else:
        answer = replace(GOOD, bundle_json=bytes(content))
    try:
        material = check_issued(answer, KEY, SERVICE, FakeClock().wall())
    except SecretError:
        return
    assert material.svid.certificates == good().svid.certificates


@given(st.binary(max_size=80), st.binary(max_size=80), st.text(max_size=20), st.text(max_size=20))
def test_whatever_comes_is_one_kind_of_error(
    chain: bytes, bundle: bytes, trust_domain: str, service: str
) -> None:
    with pytest.raises(SecretError):
        check_issued(IssuedSvid(chain, bundle, trust_domain), KEY, service, 0.0)


async def test_keys_are_in_no_log_repr_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    early, rig = Rig(ahead=-120), Rig()
    material = await rig.secret.fetch()
    said = [repr(material), repr(rig.secret), await early.refused(), repr(early.secret._early)]
    secret = material.svid.private_key.private_numbers().private_value  # type: ignore[union-attr]
    shown = "".join(said) + caplog.text
    assert "PRIVATE KEY" not in shown
    assert f"{secret:x}" not in shown
    assert str(secret) not in shown
