from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration import __main__ as demo
from scripts.demonstration import leaving
from scripts.demonstration.mesh_files import LISTENER_PORT
from scripts.demonstration.ports import is_free

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in leaving.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_seeds_port_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    if is_free(LISTENER_PORT):
        with socket.create_server(("127.0.0.1", LISTENER_PORT)):
            code = demo.main(["--work", str(work)])
    else:
        code = demo.main(["--work", str(work)])
    assert code == 1
    said = capsys.readouterr().err
    assert "port 15001 on 127.0.0.1 is taken, and the seed's caller needs it" in said
    assert "Remedy:" in said
    assert not work.exists()


def test_a_work_folder_with_something_in_it_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not is_free(LISTENER_PORT):
        pytest.skip(f"port {LISTENER_PORT} is taken")
    (tmp_path / "mine").touch()
    assert demo.main(["--work", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_there_are_two_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.parse(["--part", "2"]).part == 2
    assert demo.parse([]).part is None
    with pytest.raises(SystemExit) as left:
        demo.parse(["--part", "3"])
    assert left.value.code == 2
    assert "--part" in capsys.readouterr().err


def test_help_tells(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        demo.main(["--help"])
    assert left.value.code == 0
    assert "--keep" in capsys.readouterr().out
