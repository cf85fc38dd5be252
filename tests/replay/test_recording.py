from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.errors import MeshError
from hms_addons.replay.recording import FlowWriter, Source, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE, TWO = b"3:0:~}", b"8:5:hello,}"
STATE = {"recording": False, "last": {"recorded": 1, "dropped": 2, "incomplete": 3}}
SOURCES = [Source("a-1", "127.0.0.1:1"), Source("a-2", "127.0.0.1:2")]


class Pieces(httpx.AsyncByteStream):
    """A body in pieces, which may fail, or never end."""

    def __init__(self, *pieces: bytes | Exception, ends: bool = True) -> None:
        self.pieces = pieces
        self.ends = ends

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece
        if not self.ends:
            await asyncio.Event().wait()


class Sidecars:
    """Admin ports, by their port."""

    def __init__(self, *bodies: httpx.Response | Exception) -> None:
        self.bodies = dict(enumerate(bodies, 1))
        self.asked: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.method == "GET":
            return httpx.Response(200, json=STATE)
        answer = self.bodies[request.url.port or 0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def body(*pieces: bytes | Exception, ends: bool = True) -> httpx.Response:
    return httpx.Response(200, stream=Pieces(*pieces, ends=ends))


async def recorded(path: Path, sidecars: Sidecars, most: int = 1000) -> FlowWriter:
    writer = FlowWriter(path, most)
    sources = SOURCES[: len(sidecars.bodies)]
    await record(sources, {"for": "1s"}, writer, transport=httpx.MockTransport(sidecars))
    writer.close()
    return writer


async def test_flows_of_several_sidecars_are_each_whole(tmp_path: Path) -> None:
    sidecars = Sidecars(body(ONE[:3], ONE[3:] + TWO), body(TWO, ONE[:2]))
    writer = await recorded(tmp_path / "f", sidecars)
    content = (tmp_path / "f").read_bytes()
    assert len(content) == len(ONE + TWO + TWO) == writer.tally.size
    assert content.replace(TWO, b"") == ONE
    assert (writer.tally.flows, writer.tally.dropped, writer.tally.incomplete) == (3, 4, 6)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert sidecars.asked[0].url.query == b"for=1s"


async def test_a_sidecar_that_ends_or_refuses_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    refusal = httpx.Response(409, json={"detail": "somebody records already"})
    writer = await recorded(tmp_path / "f", Sidecars(refusal, body(TWO)))
    assert writer.tally.problems == ["a-1: somebody records already"]
    assert (tmp_path / "f").read_bytes() == TWO
    cut = body(ONE, httpx.RemoteProtocolError("cut off"))
    writer = await recorded(tmp_path / "g", Sidecars(cut, httpx.ConnectError("refused")))
    assert {told.rpartition(": ")[2] for told in writer.tally.problems} == {"refused", "cut off"}
    assert (tmp_path / "g").read_bytes() == ONE


async def test_what_is_no_sidecar_is_told(tmp_path: Path) -> None:
    sidecars = Sidecars(httpx.Response(404, text="no"), body(b"<html>"))
    writer = await recorded(tmp_path / "f", sidecars)
    assert "(404) is no sidecar's admin port" in writer.tally.problems[0]
    assert "is no flow file" in writer.tally.problems[1]


async def test_a_full_file_ends_it(tmp_path: Path) -> None:
    sidecars = Sidecars(body(ONE, TWO, TWO), body(ends=False))
    writer = await recorded(tmp_path / "f", sidecars, most=len(ONE + TWO))
    assert writer.tally.full
    assert (tmp_path / "f").read_bytes() == ONE + TWO


def test_a_disk_that_takes_no_more_is_told() -> None:
    writer = FlowWriter(Path("/dev/full"), 1000, force=True)
    with pytest.raises(MeshError, match="cannot write /dev/full: No space left"):
        writer.add(ONE)
    assert writer.tally.flows == 0
    writer.close()


async def test_cancelled_it_keeps_what_there_is(tmp_path: Path) -> None:
    writer = FlowWriter(tmp_path / "f", 1000)
    sidecars = Sidecars(body(ONE, TWO[:3], ends=False))
    began = asyncio.Event()
    transport = httpx.MockTransport(sidecars)
    running = asyncio.ensure_future(record(SOURCES[:1], {}, writer, began.set, transport))
    await began.wait()
    for _ in range(1000):
        if writer.tally.flows:
            break
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    writer.close()
    assert (tmp_path / "f").read_bytes() == ONE
    assert writer.tally.dropped == 2, "it has asked how it went"


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"precious")
    with pytest.raises(MeshError, match="--force writes over it"):
        FlowWriter(path, 10)
    assert path.read_bytes() == b"precious"
    with pytest.raises(MeshError, match="cannot write"):
        FlowWriter(tmp_path / "no" / "f", 10)


def test_by_force_a_file_gives_way_once_all_is_recorded(tmp_path: Path) -> None:
    path, other = tmp_path / "f", tmp_path / "other"
    other.write_bytes(b"precious")
    other.chmod(0o644)
    path.symlink_to(other)
    writer = FlowWriter(path, 10, force=True)
    writer.add(ONE)
    assert path.read_bytes() == b"precious"
    writer.close()
    assert path.read_bytes() == ONE
    assert path.stat().st_mode & 0o777 == 0o600
    assert other.read_bytes() == b"precious", "a link is not followed"
    assert {one.name for one in tmp_path.iterdir()} == {"f", "other"}


@pytest.mark.parametrize("failed", [False, True])
def test_where_nothing_could_be_recorded_all_is_as_before(tmp_path: Path, failed: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"precious")
    for writer in (FlowWriter(path, 10, force=True), FlowWriter(tmp_path / "g", 10)):
        if not failed:
            writer.tally.problems.append("nobody there")
        writer.close(failed=failed)
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
    assert path.read_bytes() == b"precious"


def test_devices_are_written_to_and_folders_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = FlowWriter(pipe, 100, force=True)
    writer.add(ONE)
    writer.close()
    assert os.read(reader, 100) == ONE
    os.close(reader)
    writer = FlowWriter(Path("/dev/null"), 100, force=True)
    writer.close(failed=True)
    assert Path("/dev/null").is_char_device()
    with pytest.raises(MeshError, match="cannot write"):
        FlowWriter(tmp_path, 10, force=True)


def test_a_name_that_was_taken_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    writer = FlowWriter(path, 10, force=True)
    writer.add(ONE)
    path.mkdir()
    with pytest.raises(MeshError, match="what was recorded is in .*/.f[.]"):
        writer.close()
