from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.authority_state import AuthorityState, Phase, RotationError
from hms_addons.control.ca.csr import CsrError
from hms_addons.control.ca.kept_authority import STATE_KEY
from hms_addons.control.ca.mesh_authority import (
    LOOK_INTERVAL,
    MIN_CONTROL_LIFETIME,
    ROTATION_INTERVAL,
    SETTLE,
    MeshAuthority,
)
from hms_addons.control.ca.template import INTERMEDIATE_LIFETIME
from hms_addons.control.store.protocol import ConflictError
from hms_addons.identity.enrolment import IssuedSvid, check_issued, new_request
from hms_addons.identity.identity_holder import SecretError, SecretMaterial
from hms_addons.identity.spiffe_id import SpiffeIdError
from hms_addons.identity.svid import validate_leaf
from tests.fakes.clock import FakeClock
from tests.fakes.faulty_store import CrashError, FaultyStore, faulty_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY = 86400.0


class Rig:
    """A control plane's CA that can be killed and started again over one store."""

    def __init__(self, store: FaultyStore, clock: FakeClock, lifetime: float = DAY) -> None:
        self.clock = clock
        self.store = store
        self.lifetime = lifetime
        self.authority = self.process()

    def process(self, trust_domain: str = "mpsa.mil") -> MeshAuthority:
        """A new process over the same store."""
        self.authority = MeshAuthority(self.store, self.clock, trust_domain, self.lifetime)
        return self.authority

    async def restart(self, lifetime: float | None = None) -> MeshAuthority:
        self.lifetime = lifetime or self.lifetime
        self.process()
        await self.authority.load_or_create()
        return self.authority

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and do what is due then."""
        await self.clock.advance(seconds)
        while await self.authority.step():
            pass

    async def svid(
        self, service: str = "auth-svc", lifetime: float | None = None
    ) -> SecretMaterial:
        """What a sidecar makes of what it is sent."""
        key, csr = new_request()
        signed = await self.authority.sign(csr, service, lifetime)
        bundle = signed.bundle.to_spiffe_json().encode()
        issued = IssuedSvid(signed.chain_pem, bundle, self.authority.trust_domain)
        material = check_issued(issued, key, service, self.clock.wall())
        assert material.svid.not_after == signed.not_after
        assert material.svid.spiffe_id == signed.spiffe_id
        return material

    async def report(self, sidecar: str, sequence: int | None) -> None:
        await self.store.put(
            f"sidecars/{sidecar}", json.dumps({"bundle_sequence": sequence}).encode()
        )

    def accepts(self, material: SecretMaterial) -> bool:
        """Whether a peer with the bundle in force accepts an SVID."""
        try:
            SecretMaterial(material.svid, self.authority.bundle).check(self.clock.wall())
        except ValueError:
            return False
        return True

    def phase(self) -> Phase:
        return self.authority.state.phase

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Event]:
        """While `run` runs; the event is set at each change."""
        changed = asyncio.Event()
        unsubscribe = self.authority.subscribe(changed.set)
        task = asyncio.ensure_future(self.authority.run())
        try:
            yield changed
        finally:
            unsubscribe()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert self.clock.pending == 0


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Rig]:
    clock = FakeClock()
    async with faulty_store(tmp_path, clock) as store:
        yield Rig(store, clock)


@pytest.fixture
async def rig(empty: Rig) -> Rig:
    await empty.authority.load_or_create()
    return empty


# -- start -----------------------------------------------------------------------------------------


async def test_made_at_the_first_start_and_read_at_the_next(rig: Rig) -> None:
    pin, bundle = rig.authority.pin, rig.authority.bundle
    document = await rig.store.get(STATE_KEY)
    again = await rig.restart()
    assert (again.pin, again.bundle, again.bundle.sequence) == (pin, bundle, 1)
    assert await rig.store.get(STATE_KEY) == document, "nothing was written"
    assert repr(again) == f"<MeshAuthority mpsa.mil steady sequence=1 {pin}>"
    assert rig.accepts(await rig.svid())


async def test_before_it_is_loaded_it_says_so(empty: Rig) -> None:
    with pytest.raises(CaError, match="not been loaded"):
        _ = empty.authority.bundle
    assert "not loaded" in repr(empty.authority)


async def test_another_trust_domains_ca_is_not_used(rig: Rig) -> None:
    with pytest.raises(CaError, match="'mpsa.mil', not 'other.example'"):
        await rig.process("other.example").load_or_create()


async def test_a_damaged_ca_is_an_error_and_stays_as_it_is(rig: Rig) -> None:
    damaged = (await rig.store.value(STATE_KEY))[:-50]
    await rig.store.put(STATE_KEY, damaged)
    with pytest.raises(CaError, match="restore the data folder from a backup"):
        await rig.restart()
    assert await rig.store.value(STATE_KEY) == damaged


@pytest.mark.parametrize("trace", ["ca/other", "tokens/ab", "sidecars/1"])
async def test_a_lost_ca_is_not_replaced_by_a_new_one(empty: Rig, trace: str) -> None:
    await empty.store.put(trace, b"{}")
    with pytest.raises(CaError, match="it has lost it"):
        await empty.authority.load_or_create()
    assert await empty.store.get(STATE_KEY) is None


@pytest.mark.parametrize(
    ("lifetime", "shown"),
    [
        (0.5, "0.5s"),
        (91 * DAY, "91d"),
        (1000 * DAY, "1000d"),
        (1000 * DAY + 3600, "24001h"),
        (1000 * DAY + 1, "86400001s"),
        (float("nan"), "nans"),
        (float("inf"), "infs"),
    ],
)
async def test_absurd_lives_are_refused(empty: Rig, lifetime: float, shown: str) -> None:
    with pytest.raises(
        CaError, match=f"live {shown} cannot be.*--svid-lifetime between 1s and 90d"
    ):
        await empty.restart(lifetime)


async def test_a_root_near_its_end_is_complained_of(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.restart()
    assert "rotate-root" not in caplog.text
    rig.clock.step(9.6 * 365 * DAY)
    await rig.restart()
    assert "replace it with `hms ca rotate-root`" in caplog.text


# -- signing ---------------------------------------------------------------------------------------


async def test_what_a_sidecar_is_sent_will_do(rig: Rig) -> None:
    material = await rig.svid()
    assert str(material.svid.spiffe_id) == "spiffe://mpsa.mil/svc/auth-svc"
    assert material.svid.not_after == rig.clock.wall() + DAY
    assert material.svid.not_before == rig.clock.wall() - 60
    assert len(material.svid.certificates) == 2, "leaf and intermediate, no root"
    assert material.bundle.refresh_hint == 300


@pytest.mark.parametrize(
    ("asked", "given"), [(None, DAY), (DAY, DAY), (2 * DAY, DAY), (2.0, 2.0), (1.5, 2.0)]
)
async def test_lives_are_what_was_asked_for_but_never_longer_than_allowed(
    rig: Rig, asked: float | None, given: float
) -> None:
    material = await rig.svid(lifetime=asked)
    assert material.svid.not_after == rig.clock.wall() + given


@pytest.mark.parametrize("lifetime", [0.0, -1.0, float("nan"), float("-inf")])
async def test_no_life_at_all_is_refused(rig: Rig, lifetime: float) -> None:
    with pytest.raises(CaError, match="at least 1s"):
        await rig.svid(lifetime=lifetime)


async def test_bad_requests_are_refused(rig: Rig) -> None:
    with pytest.raises(CsrError):
        await rig.authority.sign(b"no csr", "auth-svc", None)
    for name in ("", "a/b", "../hms/control", "hms/control", "a b"):
        with pytest.raises(SpiffeIdError):
            await rig.authority.sign(new_request()[1], name, None)


async def test_many_at_once(rig: Rig) -> None:
    materials = await asyncio.gather(*(rig.svid(f"svc-{number}") for number in range(50)))
    assert len({material.svid.serial for material in materials}) == 50


async def test_the_control_planes_own_certificate(rig: Rig) -> None:
    svid = rig.authority.issue_control(["localhost", "127.0.0.1", "::1", "cp.mpsa.mil"])
    assert svid.spiffe_id == rig.authority.control_id
    assert str(svid.spiffe_id) == "spiffe://mpsa.mil/hms/control"
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "cp.mpsa.mil"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    validate_leaf(svid.leaf, rig.clock.wall(), "mpsa.mil")
    for bad in ("ünï", "", "a b", "a..b", "*", "a" * 64, "b." * 130 + "b"):
        with pytest.raises(CaError, match="host name"):
            rig.authority.issue_control([bad])


async def test_the_control_planes_own_certificate_lives_an_hour_at_least(empty: Rig) -> None:
    rig = empty
    await rig.restart(lifetime=2)
    svid = rig.authority.issue_control(["localhost"])
    assert svid.not_after == rig.clock.wall() + MIN_CONTROL_LIFETIME
    assert rig.authority.bundle.refresh_hint == 1


# -- renewal of the intermediate -------------------------------------------------------------------


async def test_the_intermediate_is_renewed_while_it_runs(rig: Rig) -> None:
    before = await rig.svid()
    await rig.pass_time(INTERMEDIATE_LIFETIME * 0.5)
    assert rig.store.writes == 1
    async with rig.running() as changed:
        rig.clock.step(INTERMEDIATE_LIFETIME * 0.2)
        await rig.clock.advance(LOOK_INTERVAL)
        await changed.wait()
    after = await rig.svid()
    assert after.svid.certificates[1] != before.svid.certificates[1]
    assert after.bundle == before.bundle
    assert rig.authority.state.sequence == 1


async def test_an_intermediate_that_expired_while_it_was_off_is_renewed_at_the_start(
    rig: Rig,
) -> None:
    rig.clock.step(2 * INTERMEDIATE_LIFETIME)
    await rig.restart()
    assert rig.accepts(await rig.svid())
    assert rig.store.writes == 2


# -- the rotation of the root ----------------------------------------------------------------------


async def test_a_rotation_from_end_to_end(rig: Rig) -> None:
    told: list[int] = []
    unsubscribe = rig.authority.subscribe(lambda: told.append(rig.authority.state.sequence))
    old_pin = rig.authority.pin
    await rig.report("a", 1)
    await rig.report("b", 1)
    old = await rig.svid()
    await rig.authority.rotate_root()
    assert rig.phase() is Phase.ANNOUNCED
    await rig.report("a", 2)
    await rig.pass_time(SETTLE + 2)
    assert rig.phase() is Phase.ANNOUNCED
    assert (await rig.authority.describe())["waiting_for"] == ["b"]
    late = await rig.svid()
    await rig.report("b", 2)
    await rig.pass_time(0)
    assert rig.phase() is Phase.SIGNING
    new = await rig.svid()
    assert all(map(rig.accepts, (old, late, new)))
    assert rig.authority.pin == old_pin
    while late.svid.not_after >= rig.clock.wall():
        assert rig.accepts(late)
        await rig.pass_time(3600)
    await rig.pass_time(5)
    assert rig.phase() is Phase.STEADY
    assert not rig.accepts(late)
    assert rig.authority.pin != old_pin
    assert rig.accepts(await rig.svid())
    assert told == [2, 2, 3]
    unsubscribe()
    unsubscribe()


async def test_who_never_reports_is_waited_for_as_long_as_its_svid_may_live(rig: Rig) -> None:
    await rig.report("gone", None)
    await rig.authority.rotate_root()
    await rig.pass_time(DAY)
    assert rig.phase() is Phase.ANNOUNCED, "at its last second an SVID is still good"
    await rig.pass_time(2)
    assert rig.phase() is Phase.SIGNING


async def test_an_overlap_of_ones_own(rig: Rig) -> None:
    await rig.report("gone", 1)
    await rig.authority.rotate_root(overlap=100)
    await rig.pass_time(99)
    assert rig.phase() is Phase.ANNOUNCED
    await rig.pass_time(1)
    assert rig.phase() is Phase.SIGNING
    with pytest.raises(RotationError, match="phase 'signing'"):
        await rig.authority.rotate_root()


async def test_a_rotation_goes_its_way_while_it_runs(rig: Rig) -> None:
    async with rig.running() as changed:
        await rig.authority.rotate_root(overlap=0)
        changed.clear()
        await rig.clock.advance(ROTATION_INTERVAL)
        await changed.wait()
        assert rig.phase() is Phase.SIGNING


async def test_an_operator_may_end_each_phase(rig: Rig) -> None:
    old = await rig.svid()
    phases = []
    for _ in range(3):
        await rig.authority.rotate_root(now=True)
        phases.append(rig.phase())
    assert phases == [Phase.ANNOUNCED, Phase.SIGNING, Phase.STEADY]
    assert not rig.accepts(old)
    assert rig.authority.state.sequence == 3


async def test_the_control_plane_shows_the_old_root_until_it_is_retired(rig: Rig) -> None:
    """Whoever knows only the old root, by its pin, can still come in."""
    old = rig.authority.state.bundle()
    for expected in (True, True, False):
        await rig.authority.rotate_root(now=True)
        material = SecretMaterial(rig.authority.issue_control(["localhost"]), old)
        if expected:
            material.check(rig.clock.wall())
        else:
            with pytest.raises(ValueError, match="no root of the bundle"):
                material.check(rig.clock.wall())


async def test_longer_lives_of_an_earlier_run_are_waited_for(rig: Rig) -> None:
    long_lived = await rig.svid()
    await rig.restart(lifetime=60)
    await rig.authority.rotate_root(now=True)
    await rig.authority.rotate_root(now=True)
    await rig.pass_time(3600)
    assert rig.accepts(long_lived)
    await rig.pass_time(DAY)
    assert rig.phase() is Phase.STEADY


async def test_longer_lives_are_written_before_one_is_signed(rig: Rig) -> None:
    await rig.restart(lifetime=2 * DAY)
    document = await rig.store.value(STATE_KEY)
    state = AuthorityState.from_bytes(document, "mpsa.mil", rig.clock.wall())
    assert state.active.longest == 2 * DAY


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_crash_at_any_step_goes_on_from_what_was_written(
    rig: Rig, step: int, when: str
) -> None:
    svids = [await rig.svid()]
    if when == "before":
        rig.store.crash_before = 1 + step
    else:
        rig.store.crash_after = 1 + step
    crashes = 0
    for _ in range(6):
        if rig.phase() is Phase.STEADY and rig.authority.state.sequence == 3:
            break
        try:
            await rig.authority.rotate_root(now=True)
        except CrashError:
            crashes += 1
            await rig.restart()
        svids.append(await rig.svid())
        assert rig.accepts(svids[-1])
        if rig.authority.state.sequence < 3:
            assert all(map(rig.accepts, svids)), "an SVID was let down"
    assert crashes == 1
    assert rig.authority.state.sequence == 3
    assert len(rig.authority.bundle.roots) == 1


@pytest.mark.parametrize("when", ["crash_before", "crash_after"])
async def test_a_crash_while_it_is_made_leaves_none_or_a_whole_one(empty: Rig, when: str) -> None:
    setattr(empty.store, when, 1)
    with pytest.raises(CrashError):
        await empty.authority.load_or_create()
    await empty.restart()
    assert empty.accepts(await empty.svid())


async def test_a_write_that_fails_under_way_is_tried_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.authority.rotate_root(overlap=0)
    rig.store.crash_after = 3  # written, but the answer is lost
    async with rig.running() as changed:
        while "could not take its next step" not in caplog.text:
            await rig.clock.advance(0.001)
        await rig.clock.advance(ROTATION_INTERVAL)
        await changed.wait()
        assert rig.phase() is Phase.SIGNING


@pytest.mark.parametrize("when", ["crash_before", "crash_after"])
async def test_after_a_write_without_an_answer_the_store_says_what_is(rig: Rig, when: str) -> None:
    setattr(rig.store, when, 2)
    with pytest.raises(CrashError):
        await rig.authority.rotate_root()
    await rig.authority.rotate_root(now=True)
    expected = Phase.ANNOUNCED if when == "crash_before" else Phase.SIGNING
    assert rig.phase() is expected
    assert rig.accepts(await rig.svid())


async def test_a_rotation_that_is_cancelled_while_it_is_written_is_found_again(rig: Rig) -> None:
    task = asyncio.ensure_future(rig.authority.rotate_root())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.phase() is Phase.STEADY, "nobody has said that it is written"
    with pytest.raises(RotationError, match="phase 'announced'"):
        await rig.authority.rotate_root()
    assert rig.phase() is Phase.ANNOUNCED
    assert rig.accepts(await rig.svid())


async def test_a_ca_that_vanishes_from_the_store_is_not_written_anew(rig: Rig) -> None:
    await rig.store.delete(STATE_KEY)
    with pytest.raises(ConflictError):
        await rig.authority.rotate_root()
    with pytest.raises(CaError, match="has lost the CA"):
        await rig.authority.rotate_root()


async def test_how_things_stand_holds_no_secret(rig: Rig) -> None:
    await rig.report("a", 1)
    await rig.store.put("sidecars/b", b"junk")
    await rig.authority.rotate_root()
    shown = await rig.authority.describe()
    assert shown["phase"] == "announced"
    assert shown["pin"] == rig.authority.pin
    assert [root["pin"] for root in shown["roots"]] == [shown["pin"], shown["next_pin"]]
    assert [root["signs"] for root in shown["roots"]] == [True, False]
    assert shown["waiting_for"] == ["a", "b"]
    assert shown["bundle_sequence"] == 2
    assert "PRIVATE" not in json.dumps(shown)


async def test_a_listener_that_fails_stops_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    rig.authority.subscribe(fails)
    await rig.authority.rotate_root()
    assert rig.phase() is Phase.ANNOUNCED
    assert "a listener failed" in caplog.text


async def test_keys_are_in_no_log_or_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await rig.svid()
    for _ in range(3):
        await rig.authority.rotate_root(now=True)
    content = await rig.store.value(STATE_KEY)
    document = json.loads(content)
    await rig.store.put(STATE_KEY, content.replace(b"steady", b"stead"))
    with pytest.raises(CaError) as caught:
        await rig.restart()
    key = document["active"]["root_key"].splitlines()[1]
    shown = caplog.text + str(caught.value) + repr(caught.value.__cause__) + repr(rig.authority)
    assert "PRIVATE KEY" not in shown
    assert key not in shown


async def test_refused_by_a_sidecar_with_the_wrong_clock_by_name_of_the_difference(
    rig: Rig,
) -> None:
    key, csr = new_request()
    signed = await rig.authority.sign(csr, "auth-svc", None)
    issued = IssuedSvid(signed.chain_pem, signed.bundle.to_spiffe_json().encode(), "mpsa.mil")
    with pytest.raises(SecretError, match="about 120 s behind"):
        check_issued(issued, key, "auth-svc", rig.clock.wall() - 120)
