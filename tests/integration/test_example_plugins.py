"""`plugins/` as a stranger would use it: its packages tested, installed with pip and found; its
README followed word by word.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from tests.integration.basics import ROOT, plugin_packages, until
from tests.integration.ports import FreePorts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GUIDE = ROOT / "plugins" / "README.md"
PACKAGES = plugin_packages()


def environ(*paths: Path) -> dict[str, str]:
    """The environment, with `paths` in front of what Python can import."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))}


def run(command: Sequence[str | Path], *, cwd: Path, path: Sequence[Path] = ()) -> str:
    """What a Python command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environ(*path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(*sources: Path, target: Path) -> None:
    """pip's part; what a package needs is here already, and no test waits for a package index."""
    command = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", "--no-index"]
    run([*command, "--target", target, *sources], cwd=target.parent)


def test_there_is_an_example() -> None:
    assert PACKAGES


def test_their_own_tests_pass() -> None:
    """All in one go: most of the time is that of the imports."""
    command: list[str | Path] = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    command += PACKAGES
    said = run(command, cwd=ROOT / "plugins", path=PACKAGES)
    assert "skipped" not in said, said  # what they need is among the tools of `scripts/test`


def test_pip_installs_them_and_the_sidecar_finds_them(tmp_path: Path) -> None:
    target = tmp_path / "target"
    sources = []
    for package in PACKAGES:
        # A copy: a build leaves its own folders behind.
        left_out = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*")
        sources.append(shutil.copytree(package, tmp_path / package.name, ignore=left_out))
    install(*sources, target=target)
    script = (
        "import json\n"
        "from hms_addons.plugins import PluginManager\n"
        "plugins = PluginManager()\n"
        "plugins.load_entry_points()\n"
        "print(json.dumps(plugins.sources))\n"
    )
    found = json.loads(run(["-c", script], cwd=tmp_path, path=[target]))
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        for name in project["entry-points"]["hms_addons"]:
            assert found[name] == f"{project['name']} {project['version']}"


# -- the guide ----------------------------------------------------------------------------------


def files_of_the_guide() -> dict[str, str]:
    """Its code blocks that say which file they are."""
    blocks = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with the guide's files, and in `target` what pip made of them."""
    source = tmp_path / "hms-plugin-freeze"
    source.mkdir()
    for name, content in files_of_the_guide().items():
        (source / name).write_text(content)
    install(source, target=tmp_path / "target")
    return source


@contextmanager
def sidecar(folder: Path, admin: int) -> Iterator[None]:
    """`hms sidecar --config mesh.yaml` in `folder`, until it has answered `/ready`."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["hms", "sidecar", "--config", "mesh.yaml", "--admin", f"127.0.0.1:{admin}"],
            cwd=folder,
            env=environ(folder.parent / "target"),
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: is_ready(admin) or process.poll() is not None, "ready sidecar")
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_ready(admin: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{admin}/ready", timeout=10).ok
    except requests.ConnectionError:
        return False


def test_the_guides_files_are_there() -> None:
    assert set(files_of_the_guide()) == {
        "pyproject.toml",
        "hms_plugin_freeze.py",
        "mesh.yaml",
        "test_freeze.py",
    }


def test_the_guides_test_passes(written: Path) -> None:
    said = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=written,
        path=[written.parent / "target"],
    )
    assert "2 passed" in said


def test_the_guides_plugin_does_what_the_guide_says(written: Path) -> None:
    ports = FreePorts()
    port, admin, nobody = ports.take(), ports.take(), ports.take()
    mesh = written / "mesh.yaml"
    text = mesh.read_text().replace("15001", str(port)).replace("9001", str(nobody))
    mesh.write_text(text)
    users = f"http://127.0.0.1:{port}/users/7"
    about = f"http://127.0.0.1:{admin}"
    with sidecar(written, admin):
        refused = requests.delete(users, timeout=10)
        assert refused.status_code == 403
        assert refused.json()["detail"] in GUIDE.read_text()
        passed = requests.get(users, timeout=10)
        assert (passed.status_code, passed.headers["X-HMS-Flag"]) == (503, "UF")
        listed = requests.get(f"{about}/plugins", timeout=10).text
        assert ["freeze", "hms-plugin-freeze", "1.0"] in [
            line.split() for line in listed.splitlines()
        ]

        mesh.write_text(text.replace("services: [auth-svc]", "services: auth-svc"))
        until(
            lambda: "give a list of services" in requests.get(f"{about}/config", timeout=10).text,
            "refusal of the wrong option",
        )
        assert requests.delete(users, timeout=10).status_code == 403, "the old one goes on"

        mesh.write_text(text.replace("services: [auth-svc]", "services: []"))
        until(lambda: requests.delete(users, timeout=10).status_code == 503, "end of the freeze")
