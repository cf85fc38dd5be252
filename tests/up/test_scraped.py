from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.errors import MeshError
from hms_addons.up.scraped import LOOK, RETRY, ScrapeFiles, targets
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

ONE: dict[str, Any] = {"name": "a-1", "service": "a", "version": "v1", "admin": 7}


@pytest.fixture
def files(tmp_path: Path) -> ScrapeFiles:
    (tmp_path / ".hms").mkdir()
    return ScrapeFiles(tmp_path / "mesh.yaml")


def test_every_sidecar_and_the_control_plane_is_a_target() -> None:
    plain, alone = ONE | {"name": "b-1", "version": ""}, ONE | {"name": "gov-1", "admin": None}
    assert targets("https://127.0.0.1:5", [ONE, plain, alone]) == [
        {
            "targets": ["127.0.0.1:5"],
            "labels": {"service": "control-plane", "instance": "control-plane", "version": "-"},
        },
        {
            "targets": ["127.0.0.1:7"],
            "labels": {"service": "a", "instance": "a-1", "version": "v1"},
        },
        {
            "targets": ["127.0.0.1:7"],
            "labels": {"service": "a", "instance": "b-1", "version": "-"},
        },
    ]


def test_what_is_told_is_whole_readable_for_others_and_written_only_if_it_changes(
    files: ScrapeFiles,
) -> None:
    files.tell("https://c:1", [ONE])
    before = files.targets.stat()
    assert before.st_mode & 0o777 == 0o644
    assert json.loads(files.targets.read_text()) == targets("https://c:1", [ONE])
    files.tell("https://c:1", [ONE])
    assert files.targets.stat().st_ino == before.st_ino
    files.tell("https://c:1", [])
    assert len(json.loads(files.targets.read_text())) == 1
    files.remove()
    files.remove()
    assert not files.targets.exists()
    assert repr(files) == f"<ScrapeFiles {files.targets}>"


def test_meshes_side_by_side_have_files_of_their_own(tmp_path: Path) -> None:
    other = ScrapeFiles(tmp_path / "other.yaml")
    assert other.targets.name == "prometheus-other.yaml.json"
    assert other.ca.name == "prometheus-other.yaml-ca.pem"


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="cannot write .*prometheus.json: No such file"):
        ScrapeFiles(tmp_path / "mesh.yaml").tell("https://c:1", [])


async def test_the_roots_are_followed_and_stay_at_the_end(files: ScrapeFiles) -> None:
    clock = FakeClock()
    given: list[MeshError | bytes] = [MeshError("away"), b"first", b"second"]

    async def roots() -> bytes:
        answer = given.pop(0)
        if isinstance(answer, MeshError):
            raise answer
        return answer

    following = asyncio.ensure_future(files.follow(roots, clock))
    for pause, there in ((RETRY, None), (LOOK, b"first"), (LOOK, b"second")):
        await asyncio.sleep(0)
        content = files.ca.read_bytes() if files.ca.exists() else None
        assert content == there
        if given:
            await clock.advance(pause)
    following.cancel()
    files.remove()
    assert files.ca.read_bytes() == b"second", "Prometheus does not start without it"
    await asyncio.wait({following})
