"""The images built and tried by scripts/image: where there are the tools for it, and who asks for it.

It takes minutes and gigabytes, so the suite does not do it by itself: HMS_TEST_IMAGES=1 does.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.conftest import ROOT

TOOLS_MISSING = 3


def image(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/image", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(
    os.environ.get("HMS_TEST_IMAGES") != "1",
    reason="building images takes minutes: HMS_TEST_IMAGES=1, or scripts/image itself",
)
def test_the_seeds_call_goes_through_two_containers_with_mutual_tls() -> None:
    done = image()
    if done.returncode == TOOLS_MISSING:
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
