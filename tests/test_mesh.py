from __future__ import annotations

import asyncio
import subprocess
import sys
import types
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.test import taddons

from hms_addons import mesh
from hms_addons.bootstrap import DEFAULT_ADMIN
from hms_addons.config.snapshot import Direction
from hms_addons.control_client.presence import Traits
from hms_addons.errors import MeshError
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = Path(mesh.__file__).resolve()


class Loaded:
    """The addon inside mitmproxy, which has not begun to run."""

    def __init__(self, context: taddons.context) -> None:
        self.context = context
        self.options: Any = context.options
        self.mesh = mesh.Mesh()
        context.master.addons.add(self.mesh)


@pytest.fixture
async def loaded() -> AsyncIterator[Loaded]:
    with taddons.context() as context:
        yield Loaded(context)


async def test_every_option_has_its_default_and_its_help(loaded: Loaded) -> None:
    names = [name for name in loaded.options.keys() if name.startswith("hms_")]  # noqa: SIM118
    assert {name: getattr(loaded.options, name) for name in names} == {
        "hms_config": "",
        "hms_service": "",
        "hms_admin": DEFAULT_ADMIN,
        "hms_disable": "",
        "hms_flow_ring": 2000,
        "hms_flow_body_limit": "64KiB",
        "hms_flow_bytes": "32MiB",
        "hms_redact": True,
        "hms_redact_names": "",
        **dict.fromkeys(mesh._CONTROL_OPTIONS, ""),
    }
    assert all(loaded.options._options[name].help for name in names)
    assert all(name in (mesh.__doc__ or "") for name in names)


async def test_a_mesh_that_never_ran_has_nothing_to_stop(loaded: Loaded) -> None:
    assert loaded.mesh.done() is None


async def test_an_option_that_comes_too_late_is_said_to(
    loaded: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    loaded.mesh.configure({"hms_admin"})
    assert caplog.text == "", "it has not started yet: that is in time"
    loaded.mesh._task = loaded.mesh._tasks.start(asyncio.sleep(0), "run")
    loaded.mesh.configure({"hms_admin", "listen_port"})
    assert "hms_admin: used from the next start on" in caplog.text
    assert "listen_port" not in caplog.text
    await loaded.mesh._tasks.close()
    loaded.mesh._task = None


async def test_a_misspelt_option_is_refused(loaded: Loaded) -> None:
    mesh._refuse_unknown_options()
    loaded.options.set("hms_confg=a.yaml", "other_addons=1", defer=True)
    with pytest.raises(MeshError, match="no option hms_confg; .*hms_config"):
        mesh._refuse_unknown_options()


async def test_the_registry_is_told_of_this_instance_by_options(
    loaded: Loaded, tmp_path: Path
) -> None:
    loaded.options.update(
        hms_control="https://127.0.0.1:1", hms_service="a-svc", hms_state=str(tmp_path)
    )
    loaded.options.update(hms_version="v2", hms_weight="3", hms_zone="a", hms_priority="1")
    joining = mesh._make_joining(Random(1), {})
    assert joining is not None
    assert joining.plugin.me.traits == Traits("v2", 3, "a", priority=1)
    await joining.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("hms_weight", "0"), ("hms_weight", "x"), ("hms_priority", "101"), ("hms_priority", "-1")],
)
async def test_what_is_no_such_number_is_refused(loaded: Loaded, name: str, value: str) -> None:
    loaded.options.update(hms_control="https://127.0.0.1:1", **{name: value})
    with pytest.raises(MeshError, match=f"{name}={value}: give a whole number"):
        mesh._make_joining(Random(1), {})


@pytest.mark.parametrize(
    ("value", "parts"),
    [("", []), ("a.yaml", ["a.yaml"]), (" a.yaml , b.yaml,", ["a.yaml", "b.yaml"]), (",", [])],
)
def test_split(value: str, parts: list[str]) -> None:
    assert mesh._split(value) == parts


async def test_config_files_are_those_named(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded.options.update(hms_config="a.yaml, ~/b.yaml")
    assert mesh._config_files() == [Path("a.yaml"), tmp_path / "b.yaml"]


async def test_config_files_bare_are_here_before_the_projects_own(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mesh._config_files() == [HERE.parent.parent / "configs" / "routes.yaml"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "routes.yaml").touch()
    assert mesh._config_files() == [Path("configs/routes.yaml")]


async def test_a_reverse_mode_is_an_inbound_listener_before_its_target(loaded: Loaded) -> None:
    assert loaded.mesh._reverse_listeners() == {}
    loaded.mesh._stock_modes = ["reverse:http://127.0.0.1:9001@8081", "regular@8082"]
    extra = loaded.mesh._reverse_listeners()
    assert extra == {
        "listeners": [
            {
                "name": "reverse-8081",
                "port": 8081,
                "direction": "inbound",
                "app": "http://127.0.0.1:9001",
            }
        ]
    }
    [item] = extra["listeners"]
    text = f"listeners: [{{name: {item['name']}, port: 8081, direction: inbound, "
    [listener] = snapshot_of(text + f"app: '{item['app']}'}}]\n").listeners
    assert listener.direction is Direction.INBOUND


async def test_a_reverse_mode_without_a_port_takes_mitmproxys(loaded: Loaded) -> None:
    loaded.options.update(listen_port=9999)
    loaded.mesh._stock_modes = ["reverse:http://127.0.0.1:9001"]
    assert [port for port, _ in loaded.mesh._stock_ports()] == [9999]


def test_a_listener_is_a_mode_of_mitmproxys() -> None:
    mode = mesh._mode_of(make_listener(name="peers", host="127.0.0.1", port=15006))
    assert mode.full_spec == "mesh:peers@127.0.0.1:15006"
    assert mode.listen_port(8080) == 15006


async def test_a_change_that_comes_after_the_end_is_passed_over() -> None:
    bare = mesh.Mesh()
    await bare._changed(snapshot_of(""))
    assert bare._sidecar is None


def test_the_packages_folder_is_not_on_the_path(tmp_path: Path) -> None:
    """mitmproxy puts a script's folder there; `clock` or `errors` would then shadow others'."""
    script = f"""
import sys, runpy
sys.path.insert(0, {str(HERE.parent)!r})
runpy.run_path({str(HERE)!r}, run_name="__mitmproxy_script__.mesh")
assert {str(HERE.parent)!r} not in sys.path, sys.path
assert {str(HERE.parent.parent)!r} in sys.path
import importlib.util
assert importlib.util.find_spec("errors") is None
import hms_addons.errors
print(hms_addons.errors.__file__)
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(HERE.parent / "errors.py")


@pytest.mark.parametrize(
    ("serving", "draining", "flag"),
    [(True, False, None), (True, True, None), (False, False, "UH"), (False, True, "DRAIN")],
)
def test_the_native_lane_waits_for_the_plugins_and_ends_with_the_drain(
    serving: bool, draining: bool, flag: str | None
) -> None:
    sidecar: Any = types.SimpleNamespace(serving=serving, draining=draining)
    failure = mesh._why_not(sidecar)
    assert (failure.flag if failure else None) == flag
