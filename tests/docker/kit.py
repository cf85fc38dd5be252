"""What the tests of the images share: the files, and the options that `hms` has."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import typer.main
import yaml

from hms_addons.cli import app
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER = ROOT / "docker"
PORTS = {15000, 15001, 15006, 15010}
"""Those of README.md's table."""
USER = 1337


def dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def stages() -> dict[str, str]:
    """The text of each stage, by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)\n", dockerfile(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@cache
def variables() -> frozenset[str]:
    """Every `HMS_…` that an option of some `hms` command reads."""

    def walk(command: Any) -> Iterator[str]:
        for option in command.params:
            if isinstance(option.envvar, str):
                yield option.envvar
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)

    return frozenset(walk(typer.main.get_command(app)))


def named_variables(text: str) -> set[str]:
    return set(re.findall(r"\bHMS_[A-Z_]+", text))


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    return found


def manifests() -> dict[str, dict[str, Any]]:
    """Kubernetes objects, by kind and name."""
    text = (DOCKER / "kubernetes.yaml").read_text(encoding="utf-8")
    return {f"{it['kind']}/{it['metadata']['name']}": it for it in yaml.safe_load_all(text)}
