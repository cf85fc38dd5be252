from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.identity.svid import load_certificates, peer_spiffe_id
from hms_addons.identity.trust_bundle import TrustBundle
from tests.fakes.plane import RunningPlane, csr

if TYPE_CHECKING:
    import httpx
    from cryptography import x509


async def token_for(control: RunningPlane, service: str = "auth-svc", **more: Any) -> str:
    answer = await control.admin("POST", "/v1/tokens", json={"service": service, **more})
    assert answer.status_code == 201
    return str(answer.json()["token"])


async def enrol(control: RunningPlane, token: str, **changes: Any) -> httpx.Response:
    body = {"service": "auth-svc", "csr": csr(), "lifetime": None, **changes}
    headers = {"Authorization": f"Bearer {token}"}
    return await control.ask("POST", "/v1/svids", headers=headers, json=body)


def leaf(answer: httpx.Response) -> x509.Certificate:
    return load_certificates(answer.json()["chain"].encode())[0]


# -- the bundle ------------------------------------------------------------------------------------


async def test_anyone_may_have_the_bundle(control: RunningPlane) -> None:
    answer = await control.ask("GET", "/v1/bundle")
    assert answer.status_code == 200
    assert answer.headers["x-hms-trust-domain"] == "mpsa.mil"
    bundle = TrustBundle.from_spiffe_json("mpsa.mil", answer.content)
    assert bundle == control.plane.authority.bundle
    assert bundle.sequence == 1


# -- SVIDs -----------------------------------------------------------------------------------------


async def test_a_join_token_buys_one_svid(control: RunningPlane) -> None:
    token = await token_for(control)
    answer = await enrol(control, token)
    assert answer.status_code == 200
    told = answer.json()
    assert told["trust_domain"] == "mpsa.mil"
    assert told["not_after"] == leaf(answer).not_valid_after_utc.timestamp()
    document = json.dumps(told["bundle"])
    assert TrustBundle.from_spiffe_json("mpsa.mil", document) == control.plane.authority.bundle
    again = await enrol(control, token)
    assert again.status_code == 401
    assert "has been used" in again.json()["detail"]
    assert again.headers["www-authenticate"].startswith("Bearer")
    text = (await control.ask("GET", "/metrics")).text
    assert 'hms_control_svids_signed_total{credential="join token"} 1.0' in text


async def test_an_svid_renews_itself(control: RunningPlane) -> None:
    body = {"service": "auth-svc", "csr": csr(), "lifetime": 60}
    answer = await control.sidecar("auth-svc", "POST", "/v1/svids", json=body)
    assert answer.status_code == 200
    life = leaf(answer).not_valid_after_utc.timestamp() - control.clock.wall()
    assert 60 <= life < 62


async def test_and_no_other(control: RunningPlane) -> None:
    body = {"service": "auth-svc", "csr": csr()}
    answer = await control.sidecar("claims-svc", "POST", "/v1/svids", json=body)
    assert answer.status_code == 403


async def test_not_even_the_admin_gets_one_without_a_token(control: RunningPlane) -> None:
    body = {"service": "auth-svc", "csr": csr()}
    assert (await control.admin("POST", "/v1/svids", json=body)).status_code == 403
    assert (await control.ask("POST", "/v1/svids", json=body)).status_code == 401


async def test_an_expired_token_buys_nothing(control: RunningPlane) -> None:
    token = await token_for(control, ttl=60)
    control.clock.tick(61)
    answer = await enrol(control, token)
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


async def test_a_token_of_another_service_buys_nothing_and_is_not_spent(
    control: RunningPlane,
) -> None:
    token = await token_for(control)
    answer = await enrol(control, token, service="claims-svc")
    assert answer.status_code == 403
    assert "is for 'auth-svc'" in answer.json()["detail"]
    assert (await enrol(control, token)).status_code == 200


@pytest.mark.parametrize("text", ["", "no csr", "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n"])
async def test_a_bad_csr_costs_no_token(control: RunningPlane, text: str) -> None:
    token = await token_for(control)
    answer = await enrol(control, token, csr=text)
    assert answer.status_code == 400
    assert "the CSR is refused" in answer.json()["detail"]
    assert (await enrol(control, token)).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"service": "../control"},
        {"service": ""},
        {"service": ".."},
        {"csr": 7},
        {"csr": "x" * 20_000},
        {"lifetime": 0},
        {"lifetime": "a while"},
        {"more": 1},
    ],
)
async def test_what_is_not_understood_costs_no_token_and_shows_none(
    control: RunningPlane, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = await token_for(control)
    answer = await enrol(control, token, **change)
    assert answer.status_code == 422
    assert token not in answer.text + caplog.text
    assert (await enrol(control, token)).status_code == 200


@pytest.mark.parametrize("lifetime", [1e300, float("inf")])
async def test_a_lifetime_beyond_all_measure_is_no_fault_of_ours(
    control: RunningPlane, lifetime: float
) -> None:
    body = json.dumps({"service": "auth-svc", "csr": csr(), "lifetime": lifetime})
    headers = {"Content-Type": "application/json"}
    answer = await control.sidecar("auth-svc", "POST", "/v1/svids", content=body, headers=headers)
    assert answer.status_code == 422


async def test_whose_svid_it_is_does_not_come_from_the_csr(control: RunningPlane) -> None:
    answer = await enrol(control, await token_for(control))
    found = peer_spiffe_id(leaf(answer).public_bytes(_der()))
    assert str(found) == "spiffe://mpsa.mil/svc/auth-svc"


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - here alone

    return Encoding.DER


# -- join tokens -----------------------------------------------------------------------------------


async def test_a_token_is_shown_once(
    control: RunningPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await control.admin("POST", "/v1/tokens", json={"service": "auth-svc", "ttl": 60})
    made = answer.json()
    assert made["expires"] == control.clock.wall() + 60
    secret = made["token"].rpartition(".")[2]
    listed = await control.admin("GET", "/v1/tokens")
    assert secret not in listed.text + caplog.text
    assert listed.json()["tokens"] == [
        {
            "id": made["id"],
            "service": "auth-svc",
            "state": "valid",
            "created": control.clock.wall(),
            "expires": made["expires"],
            "used": None,
        }
    ]


async def test_a_used_token_is_listed_as_used(control: RunningPlane) -> None:
    await enrol(control, await token_for(control))
    (listed,) = (await control.admin("GET", "/v1/tokens")).json()["tokens"]
    assert listed["state"] == "used"
    assert listed["used"] == control.clock.wall()


async def test_a_revoked_token_buys_nothing(control: RunningPlane) -> None:
    token = await token_for(control)
    path = f"/v1/tokens/{token.split('.')[1]}"
    answer = await control.admin("DELETE", path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await enrol(control, token)).status_code == 401
    assert (await control.admin("DELETE", path)).status_code == 404


@pytest.mark.parametrize("change", [{"service": "a b"}, {"ttl": 0}, {"ttl": 1e9}, {"ttl": "1h"}])
async def test_a_token_that_cannot_be_is_refused(
    control: RunningPlane, change: dict[str, Any]
) -> None:
    body = {"service": "auth-svc", **change}
    assert (await control.admin("POST", "/v1/tokens", json=body)).status_code == 422


# -- the CA ----------------------------------------------------------------------------------------


async def test_the_ca_is_shown_without_its_keys(control: RunningPlane) -> None:
    answer = await control.admin("GET", "/v1/ca")
    assert answer.json()["pin"] == control.plane.authority.pin
    assert answer.json()["phase"] == "steady"
    assert "PRIVATE" not in answer.text


async def test_a_rotation_is_begun_once_and_can_be_hurried(control: RunningPlane) -> None:
    begun = await control.admin("POST", "/v1/ca/rotate-root")
    assert begun.status_code == 202
    assert begun.json()["phase"] == "announced"
    assert len(begun.json()["roots"]) == 2
    again = await control.admin("POST", "/v1/ca/rotate-root", json={})
    assert again.status_code == 409
    hurried = await control.admin("POST", "/v1/ca/rotate-root", json={"now": True})
    assert hurried.json()["phase"] == "signing"


@pytest.mark.parametrize("overlap", [-1, "long", 1e300])
async def test_an_overlap_that_cannot_be_is_refused(control: RunningPlane, overlap: Any) -> None:
    body = {"overlap": overlap}
    assert (await control.admin("POST", "/v1/ca/rotate-root", json=body)).status_code == 422
