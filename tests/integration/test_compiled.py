"""The compiled sidecar, which `scripts/compile` makes, does what the interpreted one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.basics import ROOT

SUITES = (
    "tests/integration/test_mutual_tls.py",
    "tests/integration/test_lifecycle.py",
    "tests/integration/test_streaming.py",
)
"""Those that call through `hms sidecar` processes; `mitmdump -s` runs the sources that it names."""
LANES = (
    "tests/integration/test_lanes.py",
    "tests/integration/test_lanes_access_log.py",
    "tests/integration/test_lanes_balancing.py",
    "tests/integration/test_lanes_forwarding.py",
    "tests/integration/test_lanes_metrics.py",
    "tests/integration/test_lanes_policies.py",
    "tests/integration/test_lanes_shaping.py",
    "tests/integration/test_lanes_tokens.py",
    "tests/integration/test_lanes_transfer.py",
    "tests/integration/test_clients.py",
    "tests/integration/test_bulk.py",
)
"""Those that are run over every lane; of these, `fast` is `hms sidecar`."""
NO_TRAFFIC = (
    "test_an_occupied_port_is_named",
    "test_a_bad_configuration_is_refused_with_its_places",
    "test_a_file_that_is_not_there",
    "test_a_sidecar_does_not_start_with_a_bad_certificate",
)
"""Of SUITES: what ends before there is anything that compiled code could do."""
UNITS = (
    "tests/engine/test_fast_lane_ends.py",
    "tests/engine/test_hook_chain.py",
    "tests/integration/test_resilience.py",
    "tests/upstream/test_attempt.py",
    "tests/upstream/test_elsewhere.py",
    "tests/upstream/test_forwarding_failover.py",
    "tests/upstream/test_forwarding_limits.py",
    "tests/upstream/test_hedging.py",
    "tests/upstream/test_http1_client.py",
    "tests/upstream/test_mirroring.py",
    "tests/test_access_line.py",
    "tests/test_line_log.py",
    "tests/test_request_tally.py",
)
"""Those of what must give back every slot (mypyc once narrowed an optional value in a `finally`), and of what
is written down of a request."""


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder with the compiled package."""
    done = subprocess.run(
        [ROOT / "scripts" / "compile"],
        env={**os.environ, "HMS_COMPILE_LEVEL": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 3:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    folder = done.stderr.rpartition("PYTHONPATH=")[2].split()[0]
    return ROOT / folder


def in_it(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where a child's `import hms_addons` finds the compiled package."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(package)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the compiler, too, on a busy machine
def test_it_passes_the_suites_of_the_interpreted_one(package: Path) -> None:
    look = "import hms_addons.upstream.forwarding as found; print(found.__file__)"
    found = in_it(package, "-P", "-c", look).stdout
    assert found.strip().startswith(str(package))
    assert found.strip().endswith(".so")
    suites = " or ".join(Path(suite).stem for suite in SUITES)
    chosen = f"(fast or {suites}) and not mitmdump and not {' and not '.join(NO_TRAFFIC)}"
    options = ("-q", "-p", "no:cacheprovider", "-k", chosen)
    done = in_it(package, "-m", "pytest", *options, *SUITES, *LANES)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the compiler, too, on a busy machine
def test_it_gives_back_what_it_takes(package: Path) -> None:
    pythonpath = ("-o", f"pythonpath={package} .")  # in this very process, too
    deprecated = ("-W", "ignore::DeprecationWarning")  # mypyc's coroutines have the old `throw`
    options = ("-q", "-p", "no:cacheprovider", *pythonpath, *deprecated)
    done = in_it(package, "-m", "pytest", *options, *UNITS)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
