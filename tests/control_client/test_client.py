from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control_client.client import ControlClient, Join, parse_url
from hms_addons.control_client.failures import (
    ControlAnswerError,
    ControlAwayError,
    ControlRefusedError,
    ControlUntrustedError,
)
from hms_addons.errors import MeshError
from hms_addons.identity.control_identity import ControlIdentity
from hms_addons.identity.enrolment import ControlSecret
from hms_addons.identity.identity_holder import IdentityHolder, SecretError, SecretMaterial
from hms_addons.identity.svid import iso_time
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import FakeControlPlane, problem, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hms_addons.clock import Clock

TOKEN = "hms1.a.secret"


class Sidecar:
    """A client with the identity that it feeds."""

    def __init__(
        self,
        *urls: str,
        pins: tuple[str, ...] = (),
        token: str | None = TOKEN,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.token = token
        self.holder = IdentityHolder("none yet")
        join = Join(pins, lambda: self.token)
        self.client = ControlClient(urls, "claims-svc", join, clock, lambda: self.holder.current)
        secret = ControlSecret("claims-svc", self.client, clock)
        self.identity = ControlIdentity(secret, clock, Random(0))
        self.holder = self.identity.holder


@pytest.fixture
async def control() -> AsyncIterator[FakeControlPlane]:
    async with FakeControlPlane() as plane:
        yield plane


@pytest.fixture
async def sidecar(control: FakeControlPlane) -> AsyncIterator[Sidecar]:
    made = Sidecar(control.url, pins=(control.pin,))
    yield made
    await made.client.close()


async def test_a_token_and_a_pin_are_enough(control: FakeControlPlane, sidecar: Sidecar) -> None:
    await sidecar.identity.refresh()
    assert sidecar.holder.current is not None
    assert str(sidecar.holder.current.spiffe_id) == "spiffe://mpsa.mil/svc/claims-svc"
    assert [path for _, path, _ in control.requests] == ["/v1/bundle", "/v1/bundle", "/v1/svids"]
    assert not control.tokens


async def test_renewal_is_by_the_svid_in_use(control: FakeControlPlane, sidecar: Sidecar) -> None:
    await sidecar.identity.refresh()
    first = sidecar.holder.current
    sidecar.token = None
    await sidecar.identity.refresh()
    assert sidecar.holder.current is not first
    assert control.requests[-1] == ("POST", "/v1/svids", "/svc/claims-svc")
    assert await sidecar.client.snapshot(None, 0) is not None, "by the new one"


async def test_the_token_is_sent_to_a_proven_control_plane_only(control: FakeControlPlane) -> None:
    """The impostor knows the public bundle, and puts its own root beside the true one."""
    impostor = FakeControlPlane()
    impostor.bundle = control.bundle.with_roots(impostor.authority.bundle.roots)
    async with impostor:
        sidecar = Sidecar(impostor.url, pins=(control.pin,))
        with pytest.raises(SecretError, match="cannot prove to be the control plane"):
            await sidecar.identity.refresh()
        assert [path for _, path, _ in impostor.requests] == ["/v1/bundle"]
        await sidecar.client.close()


async def test_the_wrong_pin(control: FakeControlPlane) -> None:
    sidecar = Sidecar(control.url, pins=("0" * 64,))
    with pytest.raises(SecretError, match="not the control plane that was pinned") as caught:
        await sidecar.identity.refresh()
    assert isinstance(caught.value.__cause__, ControlUntrustedError)
    assert control.count("POST", "/v1/svids") == 0
    await sidecar.client.close()


async def test_without_a_pin_or_a_token_it_says_what_is_missing(control: FakeControlPlane) -> None:
    sidecar = Sidecar(control.url)
    with pytest.raises(SecretError, match=r"give --ca-pin sha256:… \(HMS_CA_PIN\)"):
        await sidecar.identity.refresh()
    sidecar = Sidecar(control.url, pins=(control.pin,), token=None)
    with pytest.raises(SecretError, match="hms token create --service claims-svc"):
        await sidecar.identity.refresh()
    await sidecar.client.close()


async def test_a_token_that_is_spent(control: FakeControlPlane, sidecar: Sidecar) -> None:
    control.tokens.clear()
    with pytest.raises(SecretError, match="spent.*makes a new token") as caught:
        await sidecar.identity.refresh()
    assert isinstance(caught.value.__cause__, ControlRefusedError)
    assert TOKEN not in str(caught.value)


async def test_who_is_refused_as_its_svid_has_expired_is_told_so_and_what_to_do(
    control: FakeControlPlane,
) -> None:
    clock = FakeClock(wall=SYSTEM_CLOCK.wall())
    sidecar = Sidecar(control.url, pins=(control.pin,), clock=clock)
    control.lifetime = 60.0
    await sidecar.identity.refresh()
    assert sidecar.holder.current is not None
    until = iso_time(sidecar.holder.current.svid.not_after)
    control.answers["/v1/snapshot"] = problem(401, "who is this")
    with pytest.raises(ControlRefusedError) as caught:
        await sidecar.client.snapshot(None, 0)
    assert "expired" not in str(caught.value), "it has not yet"
    del control.answers["/v1/snapshot"]
    clock.step(70)
    remedy = (
        f"its SVID expired at {until}; join anew with a new token: "
        "`hms token create --service claims-svc`"
    )
    with pytest.raises(ControlRefusedError) as caught:
        await sidecar.client.snapshot(None, 0)
    assert remedy in str(caught.value)
    for sidecar.token in (None, TOKEN):  # none, and one that is spent
        with pytest.raises(SecretError) as failed:
            await sidecar.identity.refresh()
        assert remedy in str(failed.value)
    await sidecar.client.close()


async def test_an_expired_svid_still_knows_whom_to_trust(control: FakeControlPlane) -> None:
    """So that a new token is all that a sidecar needs which has lost its pin."""
    clock = FakeClock(wall=SYSTEM_CLOCK.wall())
    first = Sidecar(control.url, pins=(control.pin,))
    control.lifetime = 60.0
    await first.identity.refresh()
    again = Sidecar(control.url, clock=clock)
    again.holder.current = first.holder.current
    control.tokens.add("hms1.b.new")
    again.token = "hms1.b.new"
    control.requests.clear()
    clock.step(70)
    with pytest.raises(SecretError):  # by this clock, what it gets has expired as well
        await again.identity.refresh()
    assert not control.tokens, "but it was given it"
    assert [path for _, path, _ in control.requests] == ["/v1/svids"]
    await first.client.close()
    await again.client.close()


async def test_a_control_plane_that_was_set_up_anew(control: FakeControlPlane) -> None:
    sidecar = Sidecar(control.url, pins=(control.pin,))
    await sidecar.identity.refresh()
    other = FakeControlPlane(CertificateAuthority.create("mpsa.mil"))
    async with other:
        again = Sidecar(other.url, pins=(other.pin,))
        again.identity.holder.replace(_material(sidecar), SYSTEM_CLOCK.wall())
        await again.identity.refresh()
        current = again.holder.current
        assert current is not None
        assert current.bundle.fingerprints() == (other.pin,)
        assert await again.client.snapshot(None, 0) is not None
        await again.client.close()
    await sidecar.client.close()


def _material(sidecar: Sidecar) -> SecretMaterial:
    current = sidecar.holder.current
    assert current is not None
    return SecretMaterial(current.svid, current.bundle)


async def test_the_snapshot_and_what_has_not_changed(
    control: FakeControlPlane, sidecar: Sidecar
) -> None:
    await sidecar.identity.refresh()
    pushed = await sidecar.client.snapshot(None, 0)
    assert pushed is not None
    assert (pushed.version, pushed.document["service"]) == (1, "claims-svc")
    assert await sidecar.client.snapshot(pushed.name, 0) is None
    waiting = asyncio.ensure_future(sidecar.client.snapshot(pushed.name, 30))
    await control.until(lambda: control.count("GET", "/v1/snapshot") == 3)
    control.push({"clusters": []})
    changed = await waiting
    assert changed is not None
    assert changed.version == 2


async def test_reports_and_registration(control: FakeControlPlane, sidecar: Sidecar) -> None:
    await sidecar.identity.refresh()
    assert await sidecar.client.report("a/b", {"x": 1}) == 1
    assert control.reports == [{"x": 1}]
    await sidecar.client.register("i-1", {"address": "h:1"})
    assert control.instances == {"i-1": {"address": "h:1"}}
    await sidecar.client.deregister("i-1")
    await sidecar.client.deregister("i-1")  # gone already
    await sidecar.client.leave("s-1")
    assert control.left == ["s-1 of claims-svc"]
    assert control.instances == {}
    paths = [path for _, path, _ in control.requests]
    assert "/v1/sidecars/a%2Fb/report" in paths


async def test_lies_are_no_answers(control: FakeControlPlane, sidecar: Sidecar) -> None:
    await sidecar.identity.refresh()
    for lie in (b"[]", b'{"version": 1}', b'{"version": 1, "digest": "a", "document": {}}'):
        control.answers["/v1/snapshot"] = reply(200, lie)
        with pytest.raises(ControlAnswerError):
            await sidecar.client.snapshot(None, 0)
    for lie in (b"", b'{"bundle_sequence": "x"}', b'{"bundle_sequence": true}'):
        control.answers["/v1/sidecars/s/report"] = reply(200, lie)
        assert await sidecar.client.report("s", {}) is None
    for lie in (b"{}", b'{"chain": 5, "trust_domain": "x"}'):
        control.answers["/v1/svids"] = reply(200, lie)
        with pytest.raises(SecretError, match="without a chain"):
            await sidecar.identity.refresh()


async def test_the_next_control_plane_is_asked_when_one_is_away(control: FakeControlPlane) -> None:
    async with FakeControlPlane(control.authority) as second:
        sidecar = Sidecar(control.url, second.url, pins=(control.pin,))
        await sidecar.identity.refresh()
        control.answers["/v1/snapshot"] = problem(503, "starting")
        assert await sidecar.client.snapshot(None, 0) is not None
        assert sidecar.client.where == second.url
        assert await sidecar.client.snapshot(None, 0) is not None
        assert control.count("GET", "/v1/snapshot") == 1, "it stays with the one that answers"
        second.answers["/v1/snapshot"] = problem(503, "leaving")
        with pytest.raises(ControlAwayError, match=r"leaving.*; .*starting"):
            await sidecar.client.snapshot(None, 0)
        await sidecar.client.close()


async def test_a_long_poll_outlives_a_rotation(control: FakeControlPlane, sidecar: Sidecar) -> None:
    await sidecar.identity.refresh()
    pushed = await sidecar.client.snapshot(None, 0)
    assert pushed is not None
    waiting = asyncio.ensure_future(sidecar.client.snapshot(pushed.name, 30))
    await control.until(lambda: control.count("GET", "/v1/snapshot") == 2)
    await sidecar.identity.refresh()
    await sidecar.client.report("s", {})
    assert len(sidecar.client._leaving) == 1
    control.push({})
    control.push({"clusters": []})
    assert await waiting is not None
    assert sidecar.client._leaving == [], "the old channel ends with its last request"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://c:15010", "https://c:15010"),
        ("c:15010", "https://c:15010"),
        ("https://[::1]:1/", "https://[::1]:1"),
        ("https://c/hms/", "https://c/hms"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "http://c:15010", "https://", "https://c:x", "https://u:p@c", "https://c?x=1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MeshError, match=r"address"):
        parse_url(text)
