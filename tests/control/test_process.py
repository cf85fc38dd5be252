"""The process from within; as a process of its own it is in tests/integration."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hms_addons.control.assembly import Settings
from hms_addons.control.process import ControlProcess
from hms_addons.identity.trust_bundle import TrustBundle
from hms_addons.listening import ListenError, listen
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from pathlib import Path


class FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


async def until(check: Any) -> None:
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def test_it_announces_itself_serves_and_ends_with_a_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = ControlProcess(Settings(tmp_path / "data", port=0))
    tasks = TaskSet("test")
    running = tasks.start(process.run(), "process")
    said = ""

    def announced() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "ADMIN_TOKEN" in said

    await until(announced)
    exports = dict(
        line.removeprefix("export ").split("    ")[0].split("=", 1)
        for line in said.splitlines()
        if line.startswith("export ")
    )
    assert exports.keys() == {"HMS_CONTROL", "HMS_CA_PIN", "HMS_ADMIN_TOKEN"}
    async with httpx.AsyncClient(verify=False, base_url=exports["HMS_CONTROL"]) as client:
        answer = await client.get("/v1/bundle")
        bundle = TrustBundle.from_spiffe_json("mpsa.mil", answer.content)
        assert exports["HMS_CA_PIN"] == f"sha256:{bundle.fingerprints()[0]}"
        headers = {"Authorization": f"Bearer {exports['HMS_ADMIN_TOKEN']}"}
        assert (await client.get("/v1/ca", headers=headers)).status_code == 200
        assert "hms_control_connections 1.0" in (await client.get("/metrics")).text
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 15) == 0
    await tasks.close()


async def test_an_admin_token_that_could_not_be_shown_is_replaced_at_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(tmp_path / "data", port=0)
    with (
        contextlib.redirect_stdout(FullDisk()),
        pytest.raises(OSError, match="No space"),
    ):
        await ControlProcess(settings).run()
    tasks = TaskSet("test")
    for shown in (True, False):
        running = tasks.start(ControlProcess(settings).run(), "process")
        said: list[str] = []

        def announced(said: list[str] = said) -> bool:
            said.append(capsys.readouterr().out)
            return "admin token" in said[-1] or "ADMIN_TOKEN" in said[-1]

        await until(announced)
        assert ("export HMS_ADMIN_TOKEN=" in said[-1]) == shown
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 15) == 0
    await tasks.close()


async def test_a_taken_port_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with listen("another", "127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"control plane cannot listen on 127.0.0.1:{port}"):
            await ControlProcess(Settings(tmp_path / "data", port=port)).run()
    assert not (tmp_path / "data").exists()


def test_its_repr_says_where(tmp_path: Path) -> None:
    assert repr(ControlProcess(Settings(tmp_path))) == "<ControlProcess 127.0.0.1:15010>"
