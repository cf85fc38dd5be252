from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from hms_addons.operator_client.seen_versions import MAX_KNOWN, SeenVersions, default_path

HERE = "https://127.0.0.1:15010"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "hms" / "seen-versions.json"


def test_each_control_plane_has_its_own(path: Path) -> None:
    seen = SeenVersions(path, pytest.fail)
    assert seen.get(HERE) is None
    seen.saw_in_force(HERE, 5)
    seen.saw_in_force("https://[::1]:1", 2)
    assert SeenVersions(path, pytest.fail).get(HERE) == 5
    assert seen.get("https://[::1]:1") == 2
    assert repr(seen) == f"<SeenVersions {path}>"


def test_what_is_in_force_may_be_older_than_what_was_seen(path: Path) -> None:
    seen = SeenVersions(path, pytest.fail)
    seen.saw(HERE, 5)
    seen.saw(HERE, 3)
    assert seen.get(HERE) == 5
    seen.saw_in_force(HERE, 1)
    assert seen.get(HERE) == 1


def test_the_file_is_its_users_alone(path: Path) -> None:
    SeenVersions(path, pytest.fail).saw_in_force(HERE, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"seen": []}',
        b'{"seen": {"https://127.0.0.1:15010": "5"}}',
        b'{"seen": {"https://127.0.0.1:15010": -5}}',
        b'{"seen": {"https://127.0.0.1:15010": true}}',
        b"[" * 200_000,
        b" " * 300_000,
    ],
)
def test_one_that_is_damaged_is_said_ignored_and_replaced(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    said: list[str] = []
    seen = SeenVersions(path, said.append)
    assert seen.get(HERE) is None
    (told,) = said
    assert told.startswith(f"{path}, which remembers the versions")
    assert told.endswith("that you have seen, is damaged, and is ignored")
    seen.saw_in_force(HERE, 3)
    assert SeenVersions(path, pytest.fail).get(HERE) == 3


def test_one_that_cannot_be_used_is_said_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    seen = SeenVersions(tmp_path / "file" / "seen.json", said.append)
    seen.saw_in_force(HERE, 3)
    assert [what.rpartition(" (")[0].rpartition(", ")[2] for what in said] == [
        "cannot be read",
        "cannot be written",
    ]
    assert seen.get(HERE) is None


def test_without_a_home_nothing_is_remembered() -> None:
    seen = SeenVersions(None, pytest.fail)
    seen.saw_in_force(HERE, 3)
    assert seen.get(HERE) is None


def test_it_does_not_grow_for_ever(path: Path) -> None:
    path.parent.mkdir(parents=True)
    many = {f"https://h:{n}": n for n in range(MAX_KNOWN)}
    path.write_text(json.dumps({"seen": many}))
    seen = SeenVersions(path, pytest.fail)
    seen.saw_in_force(HERE, 3)
    assert (seen.get("https://h:0"), seen.get("https://h:1"), seen.get(HERE)) == (None, 1, 3)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_path() == Path("/var/state/hms/seen-versions.json")
    monkeypatch.setenv("HOME", "/home/somebody")
    for useless in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", useless)
        assert default_path() == Path("/home/somebody/.local/state/hms/seen-versions.json")
