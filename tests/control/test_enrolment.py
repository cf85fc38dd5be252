from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.mesh_authority import MeshAuthority, SignedSvid
from hms_addons.control.enrolment import Enrolment, EnrolmentError, Proof, may_enrol
from hms_addons.control.tokens import JoinTokens, TokenError
from hms_addons.identity.enrolment import new_request
from hms_addons.identity.spiffe_id import SpiffeId
from tests.fakes.clock import FakeClock
from tests.fakes.faulty_store import FaultyStore, faulty_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")
CLAIMS = SpiffeId.for_service("mpsa.mil", "claims-svc")
CONTROL = SpiffeId("mpsa.mil", "/hms/control")

# -- who may get what ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proof", "wanted", "outcome"),
    [
        (Proof(), AUTH, 401),
        (Proof(peer=AUTH), AUTH, "renews"),
        (Proof(peer=CLAIMS), AUTH, 403),
        (Proof(peer=SpiffeId.for_service("other.example", "auth-svc")), AUTH, 403),
        (Proof(peer=CONTROL), AUTH, 403),
        (Proof(token="t"), AUTH, "token"),
        (Proof(peer=CLAIMS, token="t"), AUTH, "token"),
        (Proof(peer=AUTH, token="t"), AUTH, "renews"),
        (Proof(peer=CONTROL), CONTROL, 403),
        (Proof(token="t"), CONTROL, 403),
        (Proof(token="t"), SpiffeId("mpsa.mil"), 403),
        (Proof(token="t"), SpiffeId("mpsa.mil", "/svc/a/b"), 403),
    ],
)
def test_who_may_get_what(proof: Proof, wanted: SpiffeId, outcome: int | str) -> None:
    verdict = may_enrol(proof, wanted)
    found = "renews" if verdict.renews else "token" if verdict.needs_token else verdict.status
    assert found == outcome
    assert (verdict.reason is None) == isinstance(outcome, str)


def test_a_proof_does_not_show_its_token() -> None:
    assert repr(Proof(AUTH, "hms1.secret")) == f"<Proof peer={AUTH} token=given>"


# -- with a real CA and real tokens ----------------------------------------------------------------


class Rig:
    def __init__(self, store: FaultyStore, clock: FakeClock) -> None:
        self.clock = clock
        self.store = store
        self.authority = MeshAuthority(self.store, self.clock, "mpsa.mil")
        self.tokens = JoinTokens(self.store, self.clock)
        self.enrolment = Enrolment(self.authority, self.tokens)

    async def token(self, service: str = "auth-svc", ttl: float = 600) -> str:
        return (await self.tokens.create(service, ttl)).text

    async def refused(
        self, proof: Proof, csr: bytes, service: str = "auth-svc", lifetime: float | None = None
    ) -> EnrolmentError:
        before = await self.store.list("")
        with pytest.raises(EnrolmentError) as caught:
            await self.enrolment.enrol(proof, service, csr, lifetime)
        assert await self.store.list("") == before, "a refusal changes nothing, no token is spent"
        return caught.value


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    clock = FakeClock()
    async with faulty_store(tmp_path, clock) as store:
        made = Rig(store, clock)
        await made.authority.load_or_create()
        yield made


CSR = new_request()[1]


def request(*extensions: x509.ExtensionType, key: Any = None, name: str | None = None) -> bytes:
    """A CSR that asks for more than it may."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


URI = x509.UniformResourceIdentifier
CA_FLAG = x509.BasicConstraints(ca=True, path_length=0)


async def test_a_token_gives_one_svid_and_the_svid_renews_itself(rig: Rig) -> None:
    token = await rig.token()
    signed = await rig.enrolment.enrol(Proof(token=token), "auth-svc", CSR)
    assert signed.spiffe_id == AUTH
    error = await rig.refused(Proof(token=token), CSR)
    assert error.status == 401
    assert "has been used" in str(error)
    for _ in range(2):
        assert (await rig.enrolment.enrol(Proof(peer=AUTH), "auth-svc", CSR)).spiffe_id == AUTH
    assert "CN=" not in repr(rig.enrolment)


async def test_a_renewal_leaves_a_token_that_came_along_unspent(rig: Rig) -> None:
    token = await rig.token()
    await rig.enrolment.enrol(Proof(AUTH, token), "auth-svc", CSR)
    await rig.tokens.check(token, "auth-svc")


async def test_nobody_gets_the_control_planes_name(rig: Rig) -> None:
    for service in ("hms/control", "../hms/control", "/hms/control", "", ".."):
        error = await rig.refused(Proof(peer=CONTROL, token=await rig.token()), CSR, service)
        assert error.status == 400


async def test_an_svid_of_another_service_gets_nothing(rig: Rig) -> None:
    error = await rig.refused(Proof(peer=CLAIMS), CSR)
    assert error.status == 403
    assert str(error) == f"{CLAIMS} can renew its own SVID only, not have one of {AUTH}"


@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        (b"", "not a PKCS #10 request"),
        (b"-----BEGIN", "not a PKCS #10 request"),
        (b"x" * 20_000, "at most 16384"),
        (request(san(URI(str(CLAIMS)))), "subjectAltName asks for"),
        (request(san(URI(str(AUTH)), x509.DNSName("auth-svc"))), "subjectAltName asks for"),
        (request(san(URI(str(AUTH)), URI(str(CLAIMS)))), "subjectAltName asks for"),
        (request(san(URI(str(CONTROL)))), "subjectAltName asks for"),
        (request(CA_FLAG), "asks for a CA certificate"),
        (request(name="claims-svc"), "its common name 'claims-svc' is not 'auth-svc'"),
        (request(key=ec.generate_private_key(ec.SECP192R1())), "the curve secp192r1"),
        (request(key=rsa.generate_private_key(65537, 1024)), "1024 bits is too short"),
    ],
)
async def test_what_a_csr_must_not_ask_for(rig: Rig, csr: bytes, reason: str) -> None:
    token = await rig.token()
    for proof in (Proof(peer=AUTH), Proof(token=token)):
        error = await rig.refused(proof, csr)
        assert error.status == 400
        assert reason in str(error)
    await rig.tokens.check(token, "auth-svc")


async def test_every_reason_is_told_at_once(rig: Rig) -> None:
    token = await rig.token("claims-svc")
    csr = request(CA_FLAG, san(URI(str(CLAIMS))), name="claims-svc")
    error = await rig.refused(Proof(token=token), csr, lifetime=0)
    assert error.status == 403
    assert [problem.split(" asks")[0][:30] for problem in error.problems] == [
        f"the join token {token[5:17]} is"[:30],
        "the CSR is refused: its common",
        "the CSR is refused: basicConst",
        "the CSR is refused: subjectAlt",
        "a lifetime of 0s is not at lea",
    ]


@pytest.mark.parametrize("lifetime", [0.0, -5.0, float("nan"), float("inf")])
async def test_a_life_that_is_none(rig: Rig, lifetime: float) -> None:
    error = await rig.refused(Proof(peer=AUTH), CSR, lifetime=lifetime)
    assert error.status == 400


@pytest.mark.parametrize(
    ("service", "ttl", "status", "reason"),
    [
        ("claims-svc", 600, 403, "is for 'claims-svc', not 'auth-svc'"),
        ("auth-svc", 1, 401, "expired at"),
    ],
)
async def test_tokens_that_do_not_let_in(
    rig: Rig, service: str, ttl: float, status: int, reason: str
) -> None:
    token = await rig.token(service, ttl)
    rig.clock.step(2)
    error = await rig.refused(Proof(token=token), CSR)
    assert (error.status, reason in str(error)) == (status, True)
    unknown = await rig.refused(Proof(token="hms1.x.y"), CSR)
    assert unknown.status == 401


async def test_of_many_at_once_with_one_token_one_gets_an_svid(rig: Rig) -> None:
    token = await rig.token()
    results = await asyncio.gather(
        *(rig.enrolment.enrol(Proof(token=token), "auth-svc", CSR) for _ in range(8)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, EnrolmentError)]
    assert len(refused) == 7
    assert {error.status for error in refused} == {401}


async def test_if_the_signature_fails_the_token_is_good_again(rig: Rig) -> None:
    token = await rig.token(ttl=20 * 86400)
    end = rig.authority.state.active.intermediate.not_valid_after_utc.timestamp()
    late = end - rig.clock.wall() + 1
    rig.clock.step(late)
    token = await rig.token()
    with pytest.raises(CaError, match="expired"):
        await rig.enrolment.enrol(Proof(token=token), "auth-svc", CSR)
    await rig.authority.step()
    assert await rig.enrolment.enrol(Proof(token=token), "auth-svc", CSR)


class Busy(MeshAuthority):
    """Has so much to sign that it never comes to it."""

    signing = 0

    async def sign(self, *_: object) -> SignedSvid:
        self.signing += 1
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_caller_that_leaves_in_the_middle_does_not_spend_the_token(rig: Rig) -> None:
    token = await rig.token()
    authority = Busy(rig.store, rig.clock, "mpsa.mil")
    enrolment = Enrolment(authority, rig.tokens)
    task = asyncio.ensure_future(enrolment.enrol(Proof(token=token), "auth-svc", CSR))
    while not authority.signing:
        await rig.store.list("tokens/")
    with pytest.raises(TokenError, match="has been used"):
        await rig.tokens.check(token, "auth-svc")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rig.tokens.check(token, "auth-svc")


async def test_no_token_is_in_a_log_or_an_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = await rig.token()
    secret = token.rpartition(".")[2]
    await rig.enrolment.enrol(Proof(token=token), "auth-svc", CSR)
    error = await rig.refused(Proof(token=token), CSR)
    assert secret not in caplog.text + str(error) + repr(error)
