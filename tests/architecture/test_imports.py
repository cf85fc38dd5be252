"""The import contracts in pyproject.toml bite: each is broken once, in a copy of the skeleton."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.architecture.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SKELETON = """
    errors clock tasks http_message identity identity.svid config config.snapshot exchange hookspecs
    upstream upstream.pool engine engine.mode engine.listener engine.flow_builder engine.native_lane
    addons addons.routing addons.rbac addons.resilience control control.app plugins bootstrap sidecar
    sidecar_process mesh cli
""".split()

ONE_WAY = "Imports run one way (DESIGN §4)"
CONTROL = "The control plane never imports the data plane"
ADDONS = "Addons never import each other"
RESILIENCE = "Of the addons, only resilience imports upstream"
MITMPROXY = "mitmproxy is imported by the engine's seam and the entry point alone"

BREACHES = [
    ("clock", "import hms_addons.config", ONE_WAY),
    ("identity.svid", "from hms_addons.config import snapshot", ONE_WAY),
    ("config", "import hms_addons.hookspecs", ONE_WAY),
    ("config.snapshot", "from hms_addons import exchange", ONE_WAY),
    ("exchange", "import hms_addons.engine.mode", ONE_WAY),
    ("upstream.pool", "import hms_addons.engine", ONE_WAY),
    ("engine.listener", "import hms_addons.plugins", ONE_WAY),
    ("engine.listener", "import hms_addons.addons.routing", ONE_WAY),
    ("addons.resilience", "import hms_addons.engine.listener", ONE_WAY),
    ("engine.listener", "import hms_addons.control.app", ONE_WAY),
    ("plugins", "import hms_addons.sidecar", ONE_WAY),
    ("sidecar", "import hms_addons.mesh", ONE_WAY),
    ("governor", "", ONE_WAY),  # a module that nobody gave a place
    ("control.app", "from hms_addons.exchange import Exchange", CONTROL),
    ("control.app", "import hms_addons.upstream", CONTROL),
    ("addons.routing", "import hms_addons.addons.rbac", ADDONS),
    ("addons.routing", "import hms_addons.upstream.pool", RESILIENCE),
    ("addons.rbac", "from hms_addons.upstream import Cluster", RESILIENCE),
    ("exchange", "import mitmproxy.http", MITMPROXY),
    ("addons.rbac", "def f():\n    from mitmproxy import http", MITMPROXY),
]

PERMITTED = {
    "config": "import hms_addons.identity.svid, hms_addons.errors",
    "exchange": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mitmproxy.http",
    "addons.resilience": "import hms_addons.upstream, hms_addons.upstream.pool, hms_addons.clock",
    "addons.routing": "import hms_addons.hookspecs, hms_addons.exchange, hms_addons.config",
    "control.app": "import hms_addons.config, hms_addons.identity.svid, hms_addons.tasks",
    "engine.mode": "import mitmproxy.proxy.mode_servers, hms_addons.upstream",
    "engine.flow_builder": "import mitmproxy.http",
    "engine.native_lane": "import mitmproxy.http",
    "plugins": "import hms_addons.addons.resilience, hms_addons.addons.rbac",
    "sidecar": "import hms_addons.plugins, hms_addons.engine.listener, hms_addons.upstream.pool",
    "mesh": "import mitmproxy.ctx, hms_addons.plugins, hms_addons.engine.mode",
    "cli": "import hms_addons.mesh, hms_addons.control.app",
}


def make_tree(folder: Path) -> None:
    """The skeleton of hms_addons, with every import that the design permits."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ["", *SKELETON]:
        write(folder, name, PERMITTED.get(name, ""))


def write(folder: Path, module: str, text: str) -> None:
    base = folder.joinpath("hms_addons", *filter(None, module.split(".")))
    has_children = not module or any(name.startswith(f"{module}.") for name in SKELETON)
    path = base / "__init__.py" if has_children else base.with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


LINT = """
import os, sys
from importlinter.cli import lint_imports

for folder in sys.argv[1:]:
    child = os.fork()  # each in a process of its own, but what they import is imported once
    if not child:
        os.chdir(folder)
        os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT), 1)
        code = lint_imports(no_cache=True, no_logo=True)
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def broken_contracts(folders: list[Path]) -> list[set[str]]:
    """The names of the contracts that import-linter finds broken, in each of the trees."""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", LINT, *folders],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    found = []
    for folder, code in zip(folders, ran.stdout.split(), strict=True):
        said = (folder / "said").read_text(encoding="utf-8")
        broken = {
            name
            for name in (ONE_WAY, CONTROL, ADDONS, RESILIENCE, MITMPROXY)
            if f"{name} BROKEN" in said
        }
        assert bool(broken) == (code != "0"), said + ran.stderr
        found.append(broken)
    return found


def test_what_the_design_permits_passes(tmp_path: Path) -> None:
    make_tree(tmp_path)
    assert broken_contracts([tmp_path]) == [set()]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    """By module and what is written there."""
    breaches = [(module, text) for module, text, _ in BREACHES]
    folders = []
    for module, text in breaches:
        folder = tmp_path_factory.mktemp("breach")
        make_tree(folder)
        write(folder, module, text)
        folders.append(folder)
    return dict(zip(breaches, broken_contracts(folders), strict=True))


@pytest.mark.parametrize(("module", "text", "contract"), BREACHES)
def test_contract_bites(
    broken: dict[tuple[str, str], set[str]], module: str, text: str, contract: str
) -> None:
    assert contract in broken[module, text]
