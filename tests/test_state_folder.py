from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.state_folder import MAX_STATE_BYTES, StateError, StateFolder
from tests.fakes import pki

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "deep" / "state")


def test_what_was_written_is_read(state: StateFolder) -> None:
    for content in (b"", b"one", b"\x00" * 100, b"two\nlines"):
        state.write("it", content)
        assert state.read("it") == content
    assert state.read("other") is None
    assert str(state.path) in repr(state)


def test_only_this_user_can_look(state: StateFolder) -> None:
    state.write("it", b"x")
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((state.path / "it").stat().st_mode) == 0o600


def test_an_open_folder_is_closed(state: StateFolder) -> None:
    state.path.mkdir(parents=True)
    state.path.chmod(0o755)
    state.write("it", b"x")
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda whole: whole[:-1], "does not fit its checksum"),
        (lambda whole: whole + b"x", "does not fit its checksum"),
        (lambda whole: whole[:30], "does not begin with a checksum"),
        (lambda whole: b"", "does not begin with a checksum"),
        (lambda whole: b"{}", "does not begin with a checksum"),
        (lambda whole: whole.replace(b"the", b"The"), "does not fit its checksum"),
        (lambda whole: whole + bytes(MAX_STATE_BYTES), "is larger than"),
    ],
)
def test_a_damaged_file_is_set_aside_and_said(
    state: StateFolder, caplog: pytest.LogCaptureFixture, damage: object, reason: str
) -> None:
    state.write("it", b"the content")
    path = state.path / "it"
    broken = damage(path.read_bytes())  # type: ignore[operator]
    path.write_bytes(broken)
    assert state.read("it") is None
    assert f"{path} {reason}" in caplog.text
    assert not path.exists()
    assert (state.path / "it.damaged").read_bytes() == broken
    assert state.read("it") is None
    state.write("it", b"anew")
    assert state.read("it") == b"anew"


def test_what_is_no_file_is_done_without(
    state: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    (state.path / "it").mkdir(parents=True)
    assert state.read("it") is None
    assert "cannot be read" in caplog.text


def test_what_cannot_be_set_aside_is_still_done_without(
    state: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    state.set_aside("missing", "is of another service")
    assert "is of another service; going on without it" in caplog.text


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = StateFolder(tmp_path / "file" / "state")
    with pytest.raises(StateError, match="--state"):
        state.write("it", b"x")
    assert state.read("it") is None


def test_remove(state: StateFolder) -> None:
    state.remove("it")
    state.write("it", b"x")
    state.remove("it")
    assert state.read("it") is None
    (state.path / "folder").mkdir()
    with pytest.raises(StateError, match="cannot delete"):
        state.remove("folder")


def test_openssl_reads_a_pem_in_spite_of_the_head(state: StateFolder) -> None:
    svid = pki.svid("auth-svc")
    state.write("svid.pem", svid.chain_pem() + svid.key_pem())
    whole = (state.path / "svid.pem").read_bytes()
    assert type(svid).from_pem(whole, whole, now=svid.not_before).serial == svid.serial


@given(st.binary(max_size=300))
def test_any_bytes_in_its_place_are_no_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    state = StateFolder(tmp_path_factory.getbasetemp())
    (state.path / "junk").write_bytes(junk)
    assert state.read("junk") is None


def test_a_full_disk_has_another_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hms_addons.state_folder.write_atomic", full)
    with pytest.raises(StateError, match="No space left on device: make room on its disk"):
        StateFolder(tmp_path).write("a", b"")
