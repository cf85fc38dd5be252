from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration import __main__ as demo
from scripts.demonstration import leaving
from scripts.demonstration.lost_package import LostPackage
from scripts.demonstration.up import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in leaving.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_mesh_that_does_not_come_up_is_told_and_its_files_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: LostPackage) -> float:
        raise DemoError("port 15001 for claims-svc-1's sidecar is in use by process 7")

    monkeypatch.setattr(LostPackage, "start", start)
    work = tmp_path / "work"
    assert demo.main(["--work", str(work)]) == 1
    said = capsys.readouterr().err
    assert "scripts/demo: port 15001 for claims-svc-1's sidecar is in use by process 7" in said
    assert str(work) in said
    assert (work / "configs" / "lost-package" / "mesh.yaml").is_file()
    assert work.stat().st_mode & 0o777 == 0o700


def test_a_work_folder_with_something_in_it_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert demo.main(["--work", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_help_tells(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        demo.main(["--help"])
    assert left.value.code == 0
    assert "--keep" in capsys.readouterr().out
