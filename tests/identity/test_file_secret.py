from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.file_secret import MAX_FILE_BYTES, FileSecret, SecretFiles
from hms_addons.identity.identity_holder import (
    Identity,
    IdentityHolder,
    SecretError,
    SecretMaterial,
)
from tests.fakes import pki
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


class Watched:
    """A secret in a folder, with everything a test needs to disturb it."""

    def __init__(self, folder: Path, clock: FakeClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or FakeClock(wall=time.time())
        self.holder = IdentityHolder("mesh_certs")
        paths = pki.write_secret(folder, pki.svid("auth-svc"))
        self.files = SecretFiles(paths.certificate, paths.key, paths.bundle)
        self.secret = FileSecret(self.files, self.holder, self.clock)

    @property
    def serial(self) -> int:
        assert self.holder.current is not None
        return self.holder.current.svid.serial


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_load(watched: Watched) -> None:
    identity = watched.secret.load()
    assert watched.holder.current is identity
    assert identity.svid.serial == pki.svid("auth-svc").serial
    assert watched.secret.problem is None
    assert "in step" in repr(watched.secret)


def test_read_swaps_nothing(watched: Watched) -> None:
    assert watched.secret.read().svid.serial == pki.svid("auth-svc").serial
    assert watched.holder.current is None


def test_a_spiffe_json_bundle_will_do(watched: Watched) -> None:
    watched.files.bundle.write_text(pki.bundle().to_spiffe_json())
    assert watched.secret.load().bundle == pki.bundle()


def test_nothing_changes_while_the_files_do_not(watched: Watched) -> None:
    watched.secret.load()
    for _ in range(3):
        assert watched.secret.poll() is None
    assert watched.holder.current is not None
    assert watched.holder.current.generation == 1


def test_new_files_are_swapped_in(watched: Watched) -> None:
    watched.secret.load()
    new = pki.svid("auth-svc", lifetime=3600)
    pki.write_secret(watched.folder, new)
    identity = watched.secret.poll()
    assert identity is not None
    assert identity.generation == 2
    assert watched.serial == new.serial


def test_every_state_on_the_way_keeps_the_old_one(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate, key and bundle are replaced one after the other, as a person would."""
    watched.secret.load()
    old = watched.serial
    authority = CertificateAuthority.create(pki.TRUST_DOMAIN)
    new = pki.svid("auth-svc", authority=authority)
    watched.files.certificate.write_bytes(new.chain_pem()[:100])
    assert watched.secret.poll() is None
    watched.files.certificate.write_bytes(new.chain_pem())
    assert watched.secret.poll() is None
    assert "does not belong" in str(watched.secret.problem)
    watched.files.key.unlink()
    assert watched.secret.poll() is None
    watched.files.key.write_bytes(new.key_pem())
    assert watched.secret.poll() is None
    assert "no root of the bundle" in str(watched.secret.problem)
    assert watched.serial == old
    watched.files.bundle.write_bytes(authority.bundle.to_pem())
    assert watched.secret.poll() is not None
    assert watched.serial == new.serial
    assert watched.secret.problem is None
    assert caplog.text.count("the old one stays in use") == 4


def test_a_reason_is_logged_once(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.secret.load()
    watched.files.key.write_bytes(b"junk")
    for _ in range(5):
        watched.secret.poll()
    assert caplog.text.count("not a PEM private key") == 1


def test_a_swap_by_symlink_is_seen(tmp_path: Path) -> None:
    """As Kubernetes does: `..data` points to another folder from one moment to the next."""
    old, new = tmp_path / "v1", tmp_path / "v2"
    for folder in (old, new):
        folder.mkdir()
    watched = Watched(old)
    link = tmp_path / "data"
    link.symlink_to(old)
    files = SecretFiles(*(link / path.name for path in watched.files))
    secret = FileSecret(files, watched.holder, watched.clock)
    secret.load()
    fresh = pki.svid("auth-svc", lifetime=7200)
    pki.write_secret(new, fresh)
    replacement = tmp_path / "data.new"
    replacement.symlink_to(new)
    replacement.rename(link)
    assert secret.poll() is not None
    assert watched.serial == fresh.serial


def test_what_is_replaced_while_it_is_read_is_read_again(watched: Watched) -> None:
    new = pki.svid("auth-svc", lifetime=5400)

    class Meddling(IdentityHolder):
        """Replaces the files once, after they were read and before the load is done."""

        meddled = False

        def replace(self, material: SecretMaterial, now: float) -> Identity:
            if not self.meddled:
                self.meddled = True
                pki.write_secret(watched.folder, new)
            return super().replace(material, now)

    holder = Meddling("mesh_certs")
    secret = FileSecret(watched.files, holder, watched.clock)
    assert secret.load().svid.serial != new.serial
    identity = secret.poll()
    assert identity is not None
    assert identity.svid.serial == new.serial


def test_not_yet_valid_is_taken_when_its_time_comes(tmp_path: Path) -> None:
    svid = pki.svid("auth-svc")
    watched = Watched(tmp_path, FakeClock(wall=svid.not_before - 10))
    assert watched.secret.poll() is None
    assert "not valid before" in str(watched.secret.problem)
    watched.clock.tick(11)
    assert watched.secret.poll() is not None


def test_expiry_is_told_once_and_forgotten_on_renewal(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.secret.load()
    watched.clock.tick(25 * 3600)
    for _ in range(3):
        assert watched.secret.poll() is None
    assert caplog.text.count("peers refuse it") == 1
    assert watched.holder.current is not None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda files: files.certificate.unlink(), "svid.pem: No such file"),
        (lambda files: files.key.unlink(), "svid.key: No such file"),
        (lambda files: files.bundle.unlink(), "bundle.pem: No such file"),
        (lambda files: files.bundle.write_bytes(b""), "bundle.pem: not a PEM trust bundle"),
        (lambda files: files.bundle.write_bytes(b"{"), "not JSON"),
        (lambda files: files.bundle.write_bytes(b" " * (MAX_FILE_BYTES + 1)), "larger than"),
        (
            lambda files: files.bundle.write_bytes(pki.bundle("other.example").to_pem()),
            "belongs to another CA",
        ),
        (
            lambda files: files.key.write_bytes(pki.svid("claims-svc").key_pem()),
            "svid.key: the private key does not belong",
        ),
    ],
)
def test_load_names_the_file_and_the_reason(watched: Watched, spoil: object, reason: str) -> None:
    spoil(watched.files)  # type: ignore[operator]
    with pytest.raises(SecretError, match="'mesh_certs'") as caught:
        watched.secret.load()
    assert reason in str(caught.value)
    assert watched.holder.current is None


@pytest.mark.parametrize("kind", pki.BAD_KINDS)
def test_what_is_no_svid_is_not_loaded(tmp_path: Path, kind: str) -> None:
    paths = pki.write_secret(tmp_path, pki.bad_svid(kind))
    files = SecretFiles(paths.certificate, paths.key, paths.bundle)
    secret = FileSecret(files, IdentityHolder("bad"), SYSTEM_CLOCK, pki.TRUST_DOMAIN)
    with pytest.raises(SecretError):
        secret.load()


def test_the_configured_trust_domain_counts(watched: Watched) -> None:
    secret = FileSecret(watched.files, watched.holder, watched.clock, "claims.example")
    with pytest.raises(SecretError, match=r"not of the trust domain claims\.example"):
        secret.load()


def test_an_open_key_is_warned_of(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    watched.secret.load()
    assert caplog.text == ""
    watched.files.key.chmod(0o644)
    watched.secret.poll()
    assert "chmod 600" in caplog.text


async def test_watch_polls_each_second_until_cancelled(watched: Watched) -> None:
    watched.secret.load()
    task = asyncio.ensure_future(watched.secret.watch())
    await asyncio.sleep(0)
    new = pki.svid("auth-svc", lifetime=1800)
    pki.write_secret(watched.folder, new)
    await watched.clock.advance(0.9)
    assert watched.serial != new.serial
    await watched.clock.advance(0.2)
    assert watched.serial == new.serial
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watched.clock.pending == 0
