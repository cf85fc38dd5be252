"""A mitmweb inside a sidecar that serves already: opened, used, closed."""

from __future__ import annotations

import asyncio
import errno
import os
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mitmproxy.exceptions import OptionsError

from hms_addons.bootstrap import build_plugins
from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.errors import MeshError
from hms_addons.recording_wish import RecordingWish
from hms_addons.sidecar import Sidecar
from hms_addons.window.hosted import HostedWindow
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mitmproxy.flow import Flow

CONFIG = """
listeners:
  - name: out
    host: 127.0.0.1
    port: 0
    routes: [{ name: all, match: { prefix: / }, action: { direct_response: { status: 200, body: hi } } }]
"""


class Running:
    def __init__(self) -> None:
        self.sidecar = Sidecar(build_plugins(None, Random(0)), clock=SYSTEM_CLOCK, rng=Random(0))
        self.hosted = HostedWindow(self.sidecar)
        self.http = httpx.AsyncClient(trust_env=False)

    async def call(self, path: str = "/x") -> int:
        port = self.sidecar.port_of("out")
        assert port is not None
        assert port.address is not None
        answer = await self.http.get(f"http://127.0.0.1:{port.address[1]}{path}")
        return answer.status_code

    async def page(self, path: str) -> Any:
        url = self.hosted.url
        assert url is not None
        where, _, token = url.partition("?token=")
        answer = await self.http.get(f"{where}{path}", headers={"Authorization": f"Bearer {token}"})
        return answer.raise_for_status().json()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    await made.sidecar.start(snapshot_of(CONFIG))
    yield made
    await made.http.aclose()
    await made.hosted.close()
    await made.sidecar.stop()


async def test_it_watches_from_when_it_opens_until_it_closes(running: Running) -> None:
    await running.call("/before")
    url = await running.hosted.open()
    assert await running.hosted.open() == url, "it is open already"
    assert await running.call("/seen?token=secret") == 200
    [flow] = await running.page("flows")
    assert flow["request"]["path"].startswith("/seen?token=[redacted-")
    assert flow["comment"] == "outbound route=all"
    servers = (await running.page("state"))["servers"]
    assert [server["is_running"] for server in servers.values()] == [True]
    assert "hms.explain" in await running.page("commands")
    assert await running.hosted.close()
    assert running.hosted.url is None
    assert await running.call("/after") == 200
    assert not running.sidecar.events.watched
    with pytest.raises(httpx.ConnectError):
        await running.http.get(url)
    assert not await running.hosted.close()


async def test_it_is_opened_again_with_another_token(running: Running) -> None:
    first = await running.hosted.open()
    await running.hosted.close()
    assert await running.hosted.open() != first
    await running.call()
    assert len(await running.page("flows")) == 1
    assert running.sidecar.status()["window"]["flows"]["kept"] == 1
    exposition = await running.sidecar.metrics()
    assert exposition.body.count(b"# TYPE hms_window_flows gauge") == 1


async def test_nobody_enters_without_the_token(running: Running) -> None:
    url = (await running.hosted.open()).partition("?")[0]
    assert (await running.http.get(f"{url}flows")).status_code == 403


@pytest.mark.filterwarnings("ignore:.parse.* deprecated")  # mitmproxy's filters, by pyparsing
@pytest.mark.parametrize("cleared", [False, True])
async def test_what_is_held_goes_on_when_it_closes(running: Running, *, cleared: bool) -> None:
    await running.hosted.open()
    master = running.hosted._master
    assert master is not None
    master.options.update(intercept="~q")
    held = asyncio.Event()

    def note(flow: Flow) -> None:
        if flow.intercepted:
            held.set()

    master.view.sig_view_update.connect(note)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        calling = group.create_task(running.call())
        await held.wait()
        assert not calling.done()
        if cleared:
            master.view.clear()
        await running.hosted.close()
    assert calling.result() == 200


async def test_a_recording_goes_on_when_it_opens_and_when_it_closes(running: Running) -> None:
    stream = await running.sidecar.record(RecordingWish(direction="both"))
    await running.call("/before")
    await running.hosted.open()
    await running.call("/during")
    await running.hosted.close()
    await running.call("/after")
    assert running.sidecar.recording() == {
        "recording": True,
        "last": {"recorded": 3, "dropped": 0, "incomplete": 0},
    }
    stream.close()
    assert not running.sidecar.events.watched


async def test_what_the_page_saves_only_its_owner_reads(running: Running, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        await running.hosted.open()
        await running.call()
        master = running.hosted._master
        assert master is not None
        saved, cut = tmp_path / "flows", tmp_path / "cut"
        master.commands.call("save.file", master.view, str(saved))
        master.commands.call("cut.save", master.view, ["request.path", "request.method"], str(cut))
        assert [path.stat().st_mode & 0o777 for path in (saved, cut)] == [0o600, 0o600]
        await running.hosted.close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_who_opens_it_while_it_closes_has_it_open(running: Running) -> None:
    first = await running.hosted.open()
    closed, second = await asyncio.gather(running.hosted.close(), running.hosted.open())
    assert closed
    assert second != first
    await running.call()
    assert len(await running.page("flows")) == 1


async def test_no_port_is_a_reason(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    with monkeypatch.context() as patch:
        patch.setattr("tornado.netutil.bind_sockets", full)
        with pytest.raises(MeshError, match="no port for the window: Address already in use"):
            await running.hosted.open()
    assert running.hosted.url is None
    assert await running.hosted.open()


async def test_a_bad_option_is_refused_by_the_page(running: Running) -> None:
    await running.hosted.open()
    master = running.hosted._master
    assert master is not None
    with pytest.raises(Exception, match="hms_flow_bytes=lots"):
        master.options.update(hms_flow_bytes="lots")
    assert repr(running.hosted) == "<HostedWindow open>"


async def test_the_page_cannot_run_code_or_open_ports(running: Running) -> None:
    await running.hosted.open()
    master = running.hosted._master
    assert master is not None
    before = (await running.page("state"))["servers"]
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"scripts": ["x.py"]}, "Unknown options: scripts"),
        ({"mode": ["regular@0"]}, "mode: the mesh's configuration says"),
        ({"mode": []}, "mode: the mesh's configuration says"),
        ({"listen_port": 8080}, "listen_port: the mesh's configuration says"),
        ({"server": False}, "server: the mesh's configuration says"),
    )
    for change, reason in changes:
        with pytest.raises((OptionsError, KeyError), match=reason):
            master.options.update(**change)  # what the page's PUT of /options does
    assert not {"script.run", "browser.start"} & set(await running.page("commands"))
    assert (await running.page("state"))["servers"] == before != {}
    await running.sidecar.apply(snapshot_of(CONFIG.replace("name: out", "name: other")))
    assert list((await running.page("state"))["servers"]) != list(before)


async def test_a_sidecar_whose_plugins_host_mitmproxys_addons_has_none(running: Running) -> None:
    running.sidecar.events.host = lambda _addon: lambda: None
    with pytest.raises(MeshError, match="mitmweb -s hms_addons/mesh.py"):
        await running.hosted.open()


async def test_the_sidecar_offers_it_where_there_is_one(running: Running) -> None:
    with pytest.raises(MeshError, match="runs inside mitmproxy"):
        await running.sidecar.open_window()
    assert not await running.sidecar.close_window()
    running.sidecar.window = running.hosted
    assert (await running.sidecar.open_window()).startswith("http://127.0.0.1:")
    assert await running.sidecar.close_window()
