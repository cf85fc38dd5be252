from __future__ import annotations

import asyncio
import json
import os
import stat
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.bootstrap import build_plugins
from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.standard_listeners import StandardListeners
from hms_addons.control_client.presence import Traits
from hms_addons.errors import MeshError
from hms_addons.joining import ControlOptions, Joining
from hms_addons.sidecar import Sidecar
from hms_addons.state_folder import StateFolder
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import FakeControlPlane, problem
from tests.fakes.upstream_server import RawServer, read_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hms_addons.clock import Clock

TOKEN = "hms1.a.secret"
LOCAL = StandardListeners(inbound="127.0.0.1:0", outbound="127.0.0.1:0")


async def passes(clock: FakeClock, seconds: float) -> None:
    """Let time pass, and what is due go over the wire."""
    for _ in range(round(seconds / 2)):
        await clock.advance(2)
        await SYSTEM_CLOCK.sleep(0.01)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await SYSTEM_CLOCK.sleep(0.01)


@pytest.fixture
async def control() -> AsyncIterator[FakeControlPlane]:
    async with FakeControlPlane() as plane:
        yield plane


@pytest.fixture
async def app() -> AsyncIterator[RawServer]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with RawServer(answer) as server:
        yield server


class Running:
    """A sidecar that has joined."""

    def __init__(self, joining: Joining, sidecar: Sidecar, drained: asyncio.Event) -> None:
        self.joining = joining
        self.sidecar = sidecar
        self.drained = drained

    @property
    def control(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.sidecar.status()["control"]
        return shown

    async def drain(self) -> None:
        self.sidecar.drain()
        await asyncio.wait_for(self.drained.wait(), 20)


@asynccontextmanager
async def joined(
    url: str,
    folder: Path,
    *files: Path,
    pin: str = "",
    token: str | None = TOKEN,
    clock: Clock = SYSTEM_CLOCK,
    **more: Any,
) -> AsyncIterator[Running]:
    options = {"listeners": LOCAL, "state": folder, **more}
    joining = Joining(
        ControlOptions(urls=[url], service="claims-svc", token=token, ca_pin=pin, **options),
        clock,
        Random(0),
        files=files,
    )
    drained = asyncio.Event()
    sidecar = Sidecar(
        build_plugins(None, Random(0), config_sync=joining.plugin),
        clock=clock,
        on_drained=drained.set,
        provided=joining.holder,
    )
    try:
        await joining.start(sidecar)
        yield Running(joining, sidecar, drained)
    finally:
        await sidecar.stop()
        await joining.close()


def pin_of(control: FakeControlPlane) -> str:
    return f"sha256:{control.pin}"


async def test_a_name_an_address_and_a_token_are_enough(
    control: FakeControlPlane, app: RawServer, tmp_path: Path
) -> None:
    listeners = StandardListeners(f"127.0.0.1:{app.port}", "127.0.0.1:0", "127.0.0.1:0")
    traits = Traits("v2", 3, "b")
    async with joined(
        control.url, tmp_path, pin=pin_of(control), listeners=listeners, traits=traits
    ) as running:
        assert running.sidecar.ready
        assert [c["secret"] for c in running.sidecar.certificates()] == ["mesh_certs"]
        await until(lambda: control.instances and control.reports)
        ((name, instance),) = control.instances.items()
        port = running.sidecar.port_of("inbound").address[1]  # type: ignore[union-attr, index]
        assert instance == {
            "address": f"127.0.0.1:{port}",
            "version": "v2",
            "weight": 3,
            "zone": "b",
            "metadata": {},
            "ttl": 15.0,
        }
        await until(lambda: control.reports[-1]["address"])
        report = control.reports[-1]
        assert (report["state"], report["version"], report["ready"]) == ("ack", 1, True)
        assert control.count("POST", f"/v1/sidecars/{name}/report")
    for file in ("snapshot.json", "svid.pem", "bundle.json", "id"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


async def test_it_follows_and_acknowledges(control: FakeControlPlane, tmp_path: Path) -> None:
    async with joined(control.url, tmp_path, pin=pin_of(control)) as running:
        control.push({"clusters": [{"name": "auth-svc"}]})
        await until(lambda: "auth-svc" in running.sidecar.snapshot.clusters)  # type: ignore[union-attr]
        assert running.sidecar.status()["version"].startswith("2.")
        await until(lambda: control.reported(version=2))
        assert running.control["in_sync"]


async def test_what_cannot_be_used_is_refused_with_the_reason_and_asked_for_once(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    async with joined(control.url, tmp_path, pin=pin_of(control)) as running:
        good = running.sidecar.snapshot
        control.push({"clusters": [{"name": "a", "load_balancer": "no-such"}]})
        await until(lambda: control.reported(state="nack"))
        assert "no-such" in control.reports[-1]["reason"]
        assert control.reports[-1]["version"] == 2
        assert running.sidecar.snapshot is good
        assert running.sidecar.ready
        assert running.control["refused"]["version"] == 2
        asked = control.count("GET", "/v1/snapshot")
        control.push({"clusters": [{"name": "a", "typo": 1}]})
        await until(lambda: control.reported(version=3))
        assert "unknown key 'typo'" in control.reports[-1]["reason"]
        assert control.count("GET", "/v1/snapshot") <= asked + 2
        control.push({"clusters": [{"name": "a"}]})
        await until(lambda: control.reported(state="ack"))
        assert running.control["in_sync"]


async def test_it_starts_without_the_control_plane_from_what_it_has_kept(tmp_path: Path) -> None:
    async with FakeControlPlane() as control:
        control.push({"clusters": [{"name": "auth-svc"}]})
        async with joined(control.url, tmp_path, pin=pin_of(control)) as running:
            first = running.joining.holder.current
        url = control.url
    async with joined(url, tmp_path, token=None) as running:
        assert running.sidecar.ready
        assert "auth-svc" in running.sidecar.snapshot.clusters  # type: ignore[union-attr]
        assert running.joining.holder.current.svid.serial == first.svid.serial  # type: ignore[union-attr]
        assert "cannot be reached" in running.control["problem"]


async def test_a_damaged_file_is_set_aside(control: FakeControlPlane, tmp_path: Path) -> None:
    async with joined(control.url, tmp_path, pin=pin_of(control)):
        pass
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes()[:-5])
    async with joined(control.url, tmp_path, token=None) as running:
        assert running.sidecar.ready
        assert (tmp_path / "snapshot.json.damaged").exists()


async def test_an_older_control_plane_wipes_nothing(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    control.push({"clusters": [{"name": "auth-svc"}]}, version=100)
    async with joined(control.url, tmp_path, pin=pin_of(control)) as running:
        control.push({}, version=3)
        await until(lambda: running.control["problem"])
        assert "older than 100" in running.control["problem"]
        assert "auth-svc" in running.sidecar.snapshot.clusters  # type: ignore[union-attr]
        await until(lambda: control.reported(version=100))
        control.push({"clusters": [{"name": "new-svc"}]}, version=101)
        await until(lambda: "new-svc" in running.sidecar.snapshot.clusters)  # type: ignore[union-attr]
        assert running.control["in_sync"]
    control.push({}, version=3)
    async with joined(control.url, tmp_path, token=None) as running:
        assert "new-svc" in running.sidecar.snapshot.clusters, "nor after a restart"  # type: ignore[union-attr]


async def test_what_else_gets_through_ends_the_wait_for_the_configuration(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    clock = FakeClock(wall=SYSTEM_CLOCK.wall())
    async with joined(control.url, tmp_path, pin=pin_of(control), clock=clock) as running:
        control.answers["/v1/snapshot"] = problem(500, "not now")
        control.push({})
        await until(lambda: running.control["problem"])
        await passes(clock, 120)
        asked, told = control.count("GET", "/v1/snapshot"), len(control.reports)
        await passes(clock, 120)
        assert len(control.reports) - told >= 10
        assert control.count("GET", "/v1/snapshot") - asked >= 10, "8 are the most by itself"


async def test_local_files_go_over_it_and_are_followed(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    control.push({"clusters": [{"name": "a"}]})
    local = tmp_path / "local.yaml"
    local.write_text('clusters: [{name: a, endpoints: ["127.0.0.1:1"]}]')
    async with joined(control.url, tmp_path / "s", local, pin=pin_of(control)) as running:

        def endpoints() -> int:
            return len(running.sidecar.snapshot.clusters["a"].endpoints)  # type: ignore[union-attr]

        assert endpoints() == 1
        local.write_text('clusters: [{name: a, endpoints: ["127.0.0.1:1", "127.0.0.1:2"]}]')
        await until(lambda: endpoints() == 2)
        local.write_text("clusters: [{name: a, typo: 1}]")
        await until(lambda: control.reported(state="nack"))
        assert "local.yaml" in control.reports[-1]["reason"]
        control.push({"clusters": [{"name": "a", "connect_timeout": "1s"}]})
        await until(lambda: control.reported(state="ack"))
        assert endpoints() == 2, "with the files that were good"


async def test_it_leaves_in_order(
    control: FakeControlPlane, app: RawServer, tmp_path: Path
) -> None:
    listeners = StandardListeners(f"127.0.0.1:{app.port}", "127.0.0.1:0", "127.0.0.1:0")
    async with joined(control.url, tmp_path, pin=pin_of(control), listeners=listeners) as running:
        await until(lambda: control.instances)
        running.sidecar.drain()
        assert not running.sidecar.ready
        await until(lambda: not control.instances)
        assert running.sidecar.serving, "callers have not heard yet"
        await asyncio.wait_for(running.drained.wait(), 20)
        assert not running.sidecar.serving
        assert control.reports[-1]["ready"] is False
        assert not control.left, "requests in flight are still reported on"
        (name,) = {path.split("/")[3] for _, path, _ in control.requests if "/report" in path}
    assert control.left == [f"{name} of claims-svc"]
    assert control.requests[-1][:2] == ("DELETE", f"/v1/sidecars/{name}"), "the last word"


async def test_who_ends_without_being_asked_to_is_missed(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    async with joined(control.url, tmp_path, pin=pin_of(control)):
        await until(lambda: control.reports)
    assert not control.left


async def test_a_control_plane_that_is_away_does_not_hold_up_the_end(
    app: RawServer, tmp_path: Path
) -> None:
    async with FakeControlPlane() as control:
        listeners = StandardListeners(f"127.0.0.1:{app.port}", "127.0.0.1:0", "127.0.0.1:0")
        context = joined(control.url, tmp_path, pin=pin_of(control), listeners=listeners)
        running = await context.__aenter__()
        await until(lambda: control.instances)
    await running.drain()
    await context.__aexit__(None, None, None)


async def test_an_app_that_does_not_listen_yet_is_waited_for(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with RawServer(nothing) as server:
        port = server.port
    listeners = StandardListeners(f"127.0.0.1:{port}", "127.0.0.1:0", "127.0.0.1:0")
    async with joined(control.url, tmp_path, pin=pin_of(control), listeners=listeners) as running:
        await until(lambda: control.reported(ready=True))
        assert not control.instances
        async with RawServer(nothing, port=port):
            await until(lambda: control.instances)
        await running.drain()


async def test_a_new_bundle_is_taken_when_the_report_s_answer_tells_of_it(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    other = FakeControlPlane()
    async with joined(control.url, tmp_path, pin=pin_of(control)) as running:
        await until(lambda: control.reports)
        control.bundle = control.bundle.with_roots(other.bundle.roots)
        control.sequence = 2
        control.push({})
        await until(lambda: len(running.joining.holder.current.bundle.roots) == 2)  # type: ignore[union-attr]
        await until(lambda: control.reported(bundle_sequence=2))


async def test_it_waits_for_a_control_plane_that_is_late(tmp_path: Path) -> None:
    async with FakeControlPlane() as probe:
        authority, port = probe.authority, int(probe.url.rpartition(":")[2])
    context = joined(f"https://127.0.0.1:{port}", tmp_path, pin=pin_of(probe))
    starting = asyncio.ensure_future(context.__aenter__())
    await SYSTEM_CLOCK.sleep(0.3)
    assert not starting.done()
    async with FakeControlPlane(authority, port):
        running = await starting
        assert running.sidecar.ready
        await context.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pin": "sha256:" + "0" * 64}, "not the control plane that was pinned"),
        ({"pin": ""}, "give --ca-pin sha256:"),
        ({"token": None}, "hms token create --service claims-svc"),
        ({"token": "hms1.x.wrong"}, "hms token create --service claims-svc"),
    ],
)
async def test_a_stranger_is_told_what_is_missing(
    control: FakeControlPlane, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(MeshError, match=message):
        async with joined(control.url, tmp_path, **{"pin": pin_of(control), **change}):
            pass


async def test_a_first_configuration_that_cannot_be_used_gives_way_to_the_last_good(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    control.push({"clusters": [{"name": "a"}]})
    async with joined(control.url, tmp_path, pin=pin_of(control)):
        pass
    for bad in ({"clusters": [{"name": "a", "load_balancer": "x"}]}, {"clusters": 5}):
        control.push(bad)
        asked = control.count("GET", "/v1/snapshot")
        async with joined(control.url, tmp_path, token=None) as running:
            assert running.sidecar.status()["version"].startswith("2.")
            assert running.sidecar.status()["rejected"]
            await until(lambda: control.reported(state="nack"))
            # httpcore leaks a connection that is cancelled in its handshake: let it be made.
            await until(lambda: control.count("GET", "/v1/snapshot") > asked + 1)  # noqa: B023 - used at once


async def test_a_first_configuration_that_cannot_be_used_alone_ends_the_start(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    control.push({"clusters": [{"name": "a", "load_balancer": "no-such"}]})
    with pytest.raises(MeshError, match="no-such"):
        async with joined(control.url, tmp_path, pin=pin_of(control)):
            pass
    (report,) = control.reports
    assert (report["state"], report["version"], report["ready"]) == ("nack", 2, False)
    assert "no-such" in report["reason"]
    assert report["certificate"]["not_after"]
    assert not control.left, "that would take the reason away again"


async def test_a_control_plane_that_hears_nothing_does_not_hold_up_a_failed_start(
    control: FakeControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    StateFolder(tmp_path).write("id", b"claims-svc-1")
    control.answers["/v1/sidecars/claims-svc-1/report"] = b""
    control.push({"clusters": [{"name": "a", "load_balancer": "no-such"}]})
    clock = FakeClock(wall=SYSTEM_CLOCK.wall())
    context = joined(control.url, tmp_path, pin=pin_of(control), clock=clock)
    starting = asyncio.ensure_future(context.__aenter__())
    await control.until(lambda: bool(control.count("POST", "/v1/sidecars")))
    await passes(clock, 2)
    assert not starting.done()
    await passes(clock, 4)
    with pytest.raises(MeshError, match="no-such"):
        await asyncio.wait_for(starting, 10)
    assert "could not tell the control plane of it: no answer" in caplog.text


async def test_who_waits_for_a_configuration_that_can_be_used_is_in_the_fleet(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    """The local file is what makes it unusable, so the control plane cannot know."""
    local = tmp_path / "local.yaml"
    local.write_text("clusters: [{name: a, lb_policy: x}]")
    clock = FakeClock(wall=SYSTEM_CLOCK.wall())
    more: dict[str, Any] = {"pin": pin_of(control), "clock": clock}
    context = joined(control.url, tmp_path / "s", local, **more)
    starting = asyncio.ensure_future(context.__aenter__())
    await until(lambda: control.reports)
    assert control.reports[0]["state"] == "nack"
    assert "local.yaml:1:" in control.reports[0]["reason"]
    await passes(clock, 60)
    assert len(control.reports) >= 5, "a report lives for half a minute"
    assert not control.left
    # Told to stop, it says goodbye.
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert len(control.left) == 1
    # Told something better, it starts, and one task reports.
    local.write_text("clusters: [{name: a}]")
    async with joined(control.url, tmp_path / "s", local, **more):
        await until(lambda: control.reported(state="ack"))
        told = len(control.reports)
        await passes(clock, 60)
        assert 5 <= len(control.reports) - told <= 8


async def test_the_certificate_is_renewed_while_the_first_configuration_is_waited_for(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    control.answers["/v1/snapshot"] = problem(503, "not now")
    control.lifetime = 300.0
    clock = FakeClock(wall=SYSTEM_CLOCK.wall())
    begun = clock.monotonic()
    context = joined(control.url, tmp_path, pin=pin_of(control), clock=clock)
    starting = asyncio.ensure_future(context.__aenter__())
    await until(lambda: control.count("GET", "/v1/snapshot"))
    assert control.count("POST", "/v1/svids") == 1
    await passes(clock, 140)
    assert control.count("POST", "/v1/svids") == 1
    await clock.advance(12)
    await until(lambda: control.count("POST", "/v1/svids") == 2)  # at half of its five minutes
    assert not starting.done()
    # The same task goes on after the start, and no other. (The control plane's clock stands still, so
    # the next one has only half as long to live.)
    del control.answers["/v1/snapshot"]
    while not starting.done():
        await passes(clock, 2)
    running = await starting
    assert running.sidecar.ready
    while clock.monotonic() - begun < 215:
        await passes(clock, 2)
    while control.count("POST", "/v1/svids") == 2:
        await clock.advance(1)
        await SYSTEM_CLOCK.sleep(0.05)
    assert 215 < clock.monotonic() - begun < 260
    await passes(clock, 6)
    renewed = running.joining.holder.current
    assert renewed is not None
    serial = f"{renewed.svid.serial:x}"
    await until(lambda: control.reports[-1]["certificate"]["serial"] == serial)
    assert control.count("POST", "/v1/svids") == 3
    await context.__aexit__(None, None, None)


async def test_told_to_stop_while_it_waits_it_leaves_nothing(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    control.answers["/v1/snapshot"] = problem(503, "not now")
    context = joined(control.url, tmp_path, pin=pin_of(control))
    starting = asyncio.ensure_future(context.__aenter__())
    await until(lambda: control.count("GET", "/v1/snapshot"))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not control.reports
    assert not control.left, "who was never there says no goodbye"


async def test_replicas_side_by_side_do_not_share_a_key(
    control: FakeControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    control.tokens = {TOKEN, "hms1.b.other"}
    pin = pin_of(control)
    async with joined(control.url, tmp_path, pin=pin, state=None):
        async with joined(control.url, tmp_path, pin=pin, state=None, token="hms1.b.other"):
            assert sorted(os.listdir(".hms")) == ["claims-svc", "claims-svc-2"]  # noqa: PTH208 - no waiting
        with pytest.raises(MeshError, match="another sidecar uses the state folder"):
            async with joined(control.url, tmp_path, state=Path(".hms/claims-svc")):
                pass
    async with joined(control.url, tmp_path, token=None, state=Path(".hms/claims-svc")):
        pass


def test_options_are_looked_at_at_once(tmp_path: Path) -> None:
    def check(**change: Any) -> None:
        given = {"urls": ["https://c:1"], "service": "a", **change}
        ControlOptions(**given).check()

    check(advertise="10.0.0.1")
    check(advertise="host.example:5")
    check(advertise="fd00::1")
    for change, message in (
        ({"service": ""}, "--service NAME"),
        ({"service": "a/b"}, "--service a/b"),
        ({"urls": ["http://c:1"]}, "https://host:port"),
        ({"ca_pin": "x"}, "fingerprint"),
        ({"token": "x", "token_file": tmp_path}, "not both"),
        ({"advertise": "a b"}, "--advertise"),
    ):
        with pytest.raises(MeshError, match=message):
            check(**change)


def test_a_token_s_file_is_read_when_it_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    options = ControlOptions(urls=["https://c:1"], service="a", token_file=file)
    assert options.join().token() is None
    assert str(file) in caplog.text
    file.write_text(" hms1.x.y\n")
    assert options.join().token() == "hms1.x.y"
    assert "hush" not in repr(ControlOptions(urls=[], service="a", token="hush"))


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    options = ControlOptions(urls=["https://c:1"], service="a", state=file / "state")
    with pytest.raises(MeshError, match="--state"):
        Joining(options, SYSTEM_CLOCK, Random(0))


async def test_a_control_plane_that_lies_harms_nothing(
    control: FakeControlPlane, tmp_path: Path
) -> None:
    deep = json.loads("[" * 200 + "]" * 200)
    lies: list[Any] = [
        {"clusters": deep},
        {"plugins": {"p": {"x": deep}}},
        {"listeners": [{"name": "a", "port": 1}] * 2},
        {"service": "other"},
        {"listeners": {"a": 1}, "clusters": None},
    ]
    async with joined(control.url, tmp_path, pin=pin_of(control)) as running:
        good = running.sidecar.snapshot
        for lie in lies:
            control.push(lie)
            control.push(lie)
        control.answers["/v1/snapshot"] = problem(418, "I am a teapot")
        await until(lambda: running.control["problem"])
        assert running.sidecar.ready
        del control.answers["/v1/snapshot"]
        control.push({"clusters": [{"name": "z"}]})
        await until(lambda: "z" in running.sidecar.snapshot.clusters)  # type: ignore[union-attr]
        assert good is not running.sidecar.snapshot
