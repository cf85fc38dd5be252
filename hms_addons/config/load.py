"""From bytes to a snapshot: read, merge, validate, compile, look over.

The one road that every configuration takes, whether it comes from files, from `hms check`, or
from the control plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.config.compile import compile_config
from hms_addons.config.lint import lint
from hms_addons.config.merge import merge
from hms_addons.config.problems import ConfigProblems, Report
from hms_addons.config.validate import validate
from hms_addons.config.yaml_marks import load_yaml, unmarked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.config.problems import Problem
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.config.yaml_marks import Document


class Loaded(NamedTuple):
    """What came of loading a configuration."""

    snapshot: Snapshot | None
    """None when there was any error."""
    problems: tuple[Problem, ...]
    """All that was found, warnings included."""


def load(
    contents: Sequence[tuple[str, bytes]],
    *,
    source: str | None = None,
    service: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Loaded:
    """Make a snapshot of one or several files' contents. Never raises for what is in them.

    Args:
        contents: name and bytes of each file, the earlier first.
        source: where they came from, for people; default the names.
        service: the service this sidecar stands beside, if the command line says so.
        extra: a configuration whose listeners are added where `contents` has none on their port.
    """
    try:
        documents = _read_all(contents)
        document = merge(documents)
        if extra is not None:
            document = merge([*documents, _missing_listeners(document, extra)])
    except ConfigProblems as error:
        return Loaded(None, error.problems)
    report = Report(document.marks.place_of)
    config = validate(document, report)
    if config is None:
        return Loaded(None, report.sorted())
    name = source or ", ".join(name for name, _ in contents)
    snapshot = compile_config(config, document, report, source=name, service=service)
    if snapshot is not None:
        lint(config, snapshot, report)
    return Loaded(snapshot, report.sorted())


def _missing_listeners(document: Document, extra: Mapping[str, Any]) -> Document:
    """The listeners of `extra` on whose ports `document` has none."""
    written = document.data.get("listeners")
    items = written if isinstance(written, list) else []
    taken = {item.get("port") for item in items if isinstance(item, dict)}
    listeners = [item for item in extra.get("listeners", ()) if item["port"] not in taken]
    return unmarked({"listeners": listeners} if listeners else {}, "(command line)")


def _read_all(contents: Sequence[tuple[str, bytes]]) -> list[Document]:
    """Every file as data; the syntax errors of all of them at once."""
    documents = []
    problems: list[Problem] = []
    for name, content in contents:
        try:
            documents.append(load_yaml(content, name))
        except ConfigProblems as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigProblems(problems)
    return documents
