"""Configurations for tests, written as YAML in the test itself."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from hms_addons.config.load import load

if TYPE_CHECKING:
    from hms_addons.config.load import Loaded
    from hms_addons.config.snapshot import Snapshot


def load_texts(*texts: str, service: str | None = None, control: bool = False) -> Loaded:
    """Load texts as the files `1.yaml`, `2.yaml` …, the later over the earlier."""
    contents = [(f"{n}.yaml", dedent(text).encode()) for n, text in enumerate(texts, start=1)]
    return load(contents, service=service, control=control)


def snapshot_of(*texts: str, service: str | None = None, control: bool = False) -> Snapshot:
    """The snapshot of texts that are good; their warnings do not matter."""
    loaded = load_texts(*texts, service=service, control=control)
    assert loaded.snapshot is not None, "\n".join(map(str, loaded.problems))
    return loaded.snapshot


def errors_of(*texts: str, service: str | None = None) -> list[str]:
    """Why texts are refused, one line for each error."""
    loaded = load_texts(*texts, service=service)
    return [str(problem) for problem in loaded.problems if problem.severity == "error"]


def warnings_of(*texts: str, service: str | None = None) -> list[str]:
    """What is said of texts that are good."""
    loaded = load_texts(*texts, service=service)
    assert loaded.snapshot is not None, "\n".join(map(str, loaded.problems))
    return [str(problem) for problem in loaded.problems]
