from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.control_identity import ControlIdentity
from hms_addons.identity.enrolment import ControlSecret
from hms_addons.identity.identity_holder import SecretError
from hms_addons.state_folder import StateFolder
from tests.fakes.clock import FakeClock
from tests.fakes.control import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hms_addons.identity.identity_holder import Identity


class Rig:
    """A sidecar that can be started again and again from one state folder."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.issuer = FakeIssuer(self.clock)
        self.state = StateFolder(folder)
        self.identity = self.start()

    def start(self, service: str = "auth-svc") -> ControlIdentity:
        source = ControlSecret(service, self.issuer, self.clock)
        self.identity = ControlIdentity(source, self.clock, random.Random(1), self.state)
        return self.identity

    @property
    def current(self) -> Identity:
        assert self.identity.holder.current is not None
        return self.identity.holder.current

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.identity.run())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert self.clock.pending == 0

    def new_root(self) -> CertificateAuthority:
        return CertificateAuthority.create("mpsa.mil", self.clock)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "state")


async def test_a_restart_needs_no_control_plane(rig: Rig) -> None:
    assert rig.identity.restore() is None
    fetched = await rig.identity.refresh()
    assert sorted(path.name for path in rig.state.path.iterdir()) == ["bundle.json", "svid.pem"]
    rig.issuer.failure = SecretError("away")
    restored = rig.start().restore()
    assert restored is not None
    assert restored.svid.serial == fetched.svid.serial
    assert restored.bundle == fetched.bundle
    assert rig.identity.bundle_sequence == 1
    assert "auth-svc" in repr(rig.identity)


async def test_a_restored_trust_domain_is_kept_to(rig: Rig) -> None:
    await rig.identity.refresh()
    rig.start().restore()
    rig.issuer.authority = CertificateAuthority.create("other.example", rig.clock)
    with pytest.raises(SecretError, match="not 'mpsa.mil'"):
        await rig.identity.refresh()


@pytest.mark.parametrize("name", ["svid.pem", "bundle.json"])
async def test_a_corrupt_file_is_set_aside_and_done_without(
    rig: Rig, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    await rig.identity.refresh()
    path = rig.state.path / name
    path.write_bytes(path.read_bytes()[:-20])
    assert rig.start().restore() is None
    assert f"{path} does not fit its checksum" in caplog.text
    await rig.identity.refresh()
    assert rig.start().restore() is not None


async def test_files_that_do_not_fit_each_other_are_not_taken(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.identity.refresh()
    other = Rig(tmp_path / "other")
    await other.identity.refresh()
    shutil.copy(other.state.path / "bundle.json", rig.state.path / "bundle.json")
    assert rig.start().restore() is None
    assert "no root of the bundle" in caplog.text


async def test_another_services_svid_is_not_taken(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.identity.refresh()
    assert rig.start("payments-svc").restore() is None
    assert "it is spiffe://mpsa.mil/svc/auth-svc, not of the service 'payments-svc'" in caplog.text
    assert (rig.state.path / "svid.pem.damaged").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("svid.pem", b"junk"), ("bundle.json", b'{"keys": []}')]
)
async def test_what_was_written_whole_but_is_nonsense(
    rig: Rig, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    await rig.identity.refresh()
    rig.state.write(name, content)
    assert rig.start().restore() is None
    assert f"{name} cannot be used" in caplog.text


async def test_an_expired_svid_is_said_and_left_where_it_is(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.identity.refresh()
    rig.clock.step(25 * 3600)
    assert rig.start().restore() is None
    assert "expired at" in caplog.text
    assert (rig.state.path / "svid.pem").exists()


async def test_without_a_state_folder_nothing_is_kept(rig: Rig) -> None:
    source = ControlSecret("auth-svc", rig.issuer, rig.clock)
    identity = ControlIdentity(source, rig.clock, random.Random(1))
    assert identity.restore() is None
    assert (await identity.refresh()).generation == 1


async def test_a_state_folder_that_cannot_be_written_stops_nothing(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    rig.state = StateFolder(tmp_path / "file" / "state")
    await rig.start().refresh()
    assert rig.current.generation == 1
    assert "a restart would need the control plane" in caplog.text


async def test_a_new_root_is_trusted_without_a_new_svid(rig: Rig) -> None:
    await rig.identity.refresh()
    serial, told = rig.current.svid.serial, list[int]()
    rig.identity.holder.subscribe(lambda identity: told.append(identity.generation))
    rig.issuer.bundle = rig.issuer.authority.bundle.with_roots([rig.new_root().certificate])
    rig.issuer.sequence = 2
    assert await rig.identity.take_bundle(rig.issuer.bundle_json)
    assert told == [2]
    assert rig.current.svid.serial == serial
    assert rig.identity.bundle_sequence == 2
    assert len(rig.current.bundle.roots) == 2
    assert not await rig.identity.take_bundle(rig.issuer.bundle_json), "it is there already"
    assert told == [2]
    restored = rig.start().restore()
    assert restored is not None
    assert restored.bundle.sequence == 2


async def test_an_older_bundle_changes_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.issuer.sequence = 5
    await rig.identity.refresh()
    rig.issuer.sequence = 4
    rig.issuer.bundle = rig.issuer.authority.bundle.with_roots([rig.new_root().certificate])
    assert not await rig.identity.take_bundle(rig.issuer.bundle_json)
    assert "older than 5" in caplog.text
    assert rig.identity.bundle_sequence == 5


async def test_a_bundle_without_the_own_root_calls_for_a_new_svid_at_once(rig: Rig) -> None:
    await rig.identity.refresh()
    root = rig.new_root()
    rig.issuer.authority = root.subordinate()
    rig.issuer.sequence = 2
    swapped = asyncio.Event()
    rig.identity.holder.subscribe(lambda _: swapped.set())
    async with rig.running():
        assert not await rig.identity.take_bundle(rig.issuer.bundle_json)
        await swapped.wait()
        assert rig.current.bundle == root.bundle
        assert rig.current.bundle.sequence == 2
        assert rig.identity.problem is None


async def test_a_bundle_that_is_none_is_refused(rig: Rig) -> None:
    assert not await rig.identity.take_bundle(b"{}"), "there is nothing to go with it yet"
    await rig.identity.refresh()
    with pytest.raises(SecretError, match="no list `keys`"):
        await rig.identity.take_bundle(b"{}")
    assert rig.current.generation == 1
