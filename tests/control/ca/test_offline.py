from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca import template
from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.offline import init_ca, issue_svid
from hms_addons.identity.file_secret import FileSecret, SecretFiles
from hms_addons.identity.identity_holder import IdentityHolder
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def test_init_then_issue_is_what_a_sidecar_reads(tmp_path: Path) -> None:
    made = init_ca(tmp_path / "ca", "claims.example")
    assert made.trust_domain == "claims.example"
    assert len(made.fingerprint) == 64
    assert made.not_after > time.time() + 9 * 365 * 86400
    issued = issue_svid("auth-svc", tmp_path / "ca", tmp_path / "certs", 3600)
    assert str(issued.spiffe_id) == "spiffe://claims.example/svc/auth-svc"
    assert issued.not_after == pytest.approx(time.time() + 3600, abs=5)
    files = SecretFiles(issued.certificate, issued.key, issued.bundle)
    identity = FileSecret(files, IdentityHolder("mesh_certs"), SYSTEM_CLOCK).load()
    assert identity.svid.serial == issued.serial
    assert sorted(path.name for path in (tmp_path / "certs").iterdir()) == [
        "auth-svc.key",
        "auth-svc.pem",
        "bundle.pem",
    ]


def test_private_things_are_private(tmp_path: Path) -> None:
    made = init_ca(tmp_path / "ca")
    issued = issue_svid("auth-svc", tmp_path / "ca", tmp_path / "certs")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ca", made.key, issued.key)]
    assert modes == [0o700, 0o600, 0o600]


def test_issue_again_renews_what_a_sidecar_watches(tmp_path: Path) -> None:
    init_ca(tmp_path)
    issued = issue_svid("auth-svc", tmp_path, tmp_path)
    holder = IdentityHolder("mesh_certs")
    files = SecretFiles(issued.certificate, issued.key, issued.bundle)
    secret = FileSecret(files, holder, SYSTEM_CLOCK)
    secret.load()
    renewed = issue_svid("auth-svc", tmp_path, tmp_path)
    identity = secret.poll()
    assert identity is not None
    assert identity.svid.serial == renewed.serial != issued.serial


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "bundle.pem"])
def test_an_existing_ca_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(CaError, match=f"already holds {name}: a CA is never overwritten"):
        init_ca(tmp_path)
    assert (tmp_path / name).read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_init_twice(tmp_path: Path) -> None:
    init_ca(tmp_path)
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(CaError, match=r"already holds ca\.pem, ca\.key, bundle\.pem"):
        init_ca(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() == before


def test_a_bad_trust_domain_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CaError, match="cannot make a CA: trust domain 'MPSA'"):
        init_ca(tmp_path / "ca", "MPSA")
    assert not (tmp_path / "ca").exists()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CaError, match=r"cannot write to .*/file/ca: Not a directory"):
        init_ca(tmp_path / "file" / "ca")
    init_ca(tmp_path / "ca")
    with pytest.raises(CaError, match=r"cannot write to .*/file: "):
        issue_svid("auth-svc", tmp_path / "ca", tmp_path / "file")


@pytest.mark.parametrize("service", ["", ".", "..", "a/b", "../../etc/passwd", "a b", "ä", "a\0"])
def test_bad_service_names(tmp_path: Path, service: str) -> None:
    init_ca(tmp_path / "ca")
    with pytest.raises(CaError, match="cannot be part of a SPIFFE ID"):
        issue_svid(service, tmp_path / "ca", tmp_path / "certs")
    assert not (tmp_path / "certs").exists()


@pytest.mark.parametrize("service", ["ca", "bundle"])
def test_a_service_cannot_replace_the_ca_or_the_bundle(tmp_path: Path, service: str) -> None:
    init_ca(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CaError, match="would overwrite"):
        issue_svid(service, tmp_path, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_service_named_bundle_keeps_its_bundle_apart(tmp_path: Path) -> None:
    init_ca(tmp_path / "ca")
    with pytest.raises(CaError, match="would overwrite"):
        issue_svid("bundle", tmp_path / "ca", tmp_path / "certs")


def test_no_ca_there(tmp_path: Path) -> None:
    with pytest.raises(CaError, match=r"ca\.pem: No such file.*hms certs init"):
        issue_svid("auth-svc", tmp_path, tmp_path / "certs")


def test_shortened_by_the_end_of_the_ca(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    made = init_ca(tmp_path, clock=clock)
    clock.tick(template.ROOT_LIFETIME - 3600)
    issued = issue_svid("auth-svc", tmp_path, tmp_path, clock=clock)
    assert issued.not_after == made.not_after
    assert "shortened" in caplog.text
