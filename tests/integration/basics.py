"""What every kit here stands on: places, ports, patience, things that close, and header fields."""

from __future__ import annotations

import abc
import socket
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Self

from packaging.specifiers import SpecifierSet

from tests.integration.ports import FreePorts

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
MESH = ROOT / "hms_addons" / "mesh.py"

PATIENCE = 60.0
"""Seconds that anything may take on a busy machine: ten times what it takes on an idle one. Only who
fails waits so long."""

type Fields = list[tuple[str, str]]

free_port = FreePorts().take


class Closing(abc.ABC):
    """`with` closes it at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of it. Idempotent."""


class Headed:
    """A message with header fields, as they came."""

    fields: Fields

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a header; fails if it came twice."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


def parse_fields(block: bytes) -> Fields:
    """Header or trailer lines, without the line that ends them."""
    pairs = [line.split(b":", 1) for line in block.split(b"\r\n") if line]
    return [(name.decode("latin-1"), value.strip().decode("latin-1")) for name, value in pairs]


def plugin_packages() -> list[Path]:
    """The packages in `plugins/` that this Python can have."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = []
    for file in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        wanted = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["requires-python"]
        if SpecifierSet(wanted).contains(version):
            found.append(file.parent)
    return found


def accepts(port: int) -> bool:
    """Something takes connections on `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until[T](ask: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """What `ask` says once it says something true; asks every 20 ms.

    For what goes on in another process, whose inside cannot be waited for.

    Raises:
        AssertionError: it does not, within `patience` seconds.
    """
    pause = threading.Event()
    deadline = time.monotonic() + patience
    while True:
        if found := ask():
            return found
        assert time.monotonic() < deadline, f"in {patience:g} s there was no {what}"
        pause.wait(0.02)
