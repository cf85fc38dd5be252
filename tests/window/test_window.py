"""The window's parts, put into a mitmproxy and taken out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.addons.serverplayback import ServerPlayback
from mitmproxy.tools.web import app

from hms_addons.errors import MeshError
from hms_addons.window.window import LIVE, Window, add_options, size
from tests.fakes.clock import FakeClock
from tests.fakes.flows import make_flow
from tests.fakes.mesh import FakeMesh
from tests.fakes.web_master import FakeWebMaster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class FakeSidecar(FakeMesh):
    """As much of a sidecar as the window asks of it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.snapshot = None


class Declares:
    """An addon that declares the window's options, as the mesh does."""

    def load(self, loader: Any) -> None:
        add_options(loader)


class Running:
    def __init__(self) -> None:
        self.sidecar = FakeSidecar()
        self.master = FakeWebMaster()
        self.master.addons.add(Declares())
        self.window = Window(self.sidecar)  # type: ignore[arg-type] # a part of it


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    yield made
    made.window.close()
    made.master.close()


async def test_it_is_put_in_and_taken_out(running: Running) -> None:
    before = app.flow_to_json
    running.master.addons.add(playback := ServerPlayback())
    chain = list(running.master.addons.chain)
    running.window.open(running.master)
    assert app.flow_to_json is not before
    assert running.master.addons.get("hms-flow-ring") is not None
    assert "add_flows" in vars(playback)
    assert running.sidecar.shown("window")["flows"] == {"kept": 0, "max": 2000}
    assert running.sidecar.measured("window")["hms_window_flows_dropped_total",] == 0
    running.window.close()
    assert app.flow_to_json is before
    assert "add_flows" not in vars(playback)
    assert running.master.addons.chain == chain


async def test_options_may_change_while_it_runs(running: Running) -> None:
    running.window.open(running.master)
    flow = make_flow(headers=[("X-Pin", "1234")])
    assert "1234" in str(app.flow_to_json(flow))
    running.master.options.update(hms_redact_names="x-pin, y", hms_flow_ring=5)
    running.window.changed()
    assert "1234" not in str(app.flow_to_json(flow))
    assert running.sidecar.shown("window")["flows"]["max"] == 5
    assert "redactor" in repr(running.window).lower()
    assert {name for name in running.master.options.keys() if name.startswith("hms_")} == LIVE  # noqa: SIM118


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("hms_flow_body_limit", "lots", "hms_flow_body_limit=lots: .*as 64KiB"),
        ("hms_flow_bytes", "-1", "hms_flow_bytes=-1"),
        ("hms_flow_ring", -1, "hms_flow_ring=-1: give a number"),
    ],
)
async def test_what_is_no_such_value_is_refused(
    running: Running, name: str, value: object, says: str
) -> None:
    running.master.options.update(**{name: value})
    with pytest.raises(MeshError, match=says):
        running.window.open(running.master)


@pytest.mark.parametrize(("text", "found"), [("0", 0), ("100", 100), ("64KiB", 65536)])
def test_sizes(text: str, found: int) -> None:
    assert size("hms_flow_bytes", text) == found
