"""The images built and tried by scripts/image: where there are the tools for it, and a base image.

What is made once is kept (base, packages, layers), so it takes half a minute; the first time takes minutes, and is
for a person: `scripts/image`, or HMS_TEST_IMAGES=1.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.conftest import ROOT

MISSING = 3


def image(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/image", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.podman
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_seeds_call_goes_through_two_containers_with_mutual_tls() -> None:
    if os.environ.get("HMS_TEST_IMAGES") != "1":
        probed = image("--probe")
        if probed.returncode == MISSING:
            pytest.skip(probed.stderr.strip().splitlines()[-1])
        assert probed.returncode == 0, probed.stderr
    done = image()
    if done.returncode == MISSING:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^hms-(sidecar|control): \d+ MB$", done.stdout, re.MULTILINE)) == 2
    assert "ok: the seed's call: ✅ verified" in done.stderr
    assert done.stderr.count("exit code 0") == 3
    assert done.stderr.endswith("ok: all\n")


def test_it_explains_itself_and_refuses_what_it_does_not_know() -> None:
    told = image("--help")
    assert told.returncode == 0
    assert "scripts/image --build" in told.stdout
    wrong = image("--buid")
    assert wrong.returncode == 1
    assert "unknown argument: --buid" in wrong.stderr
