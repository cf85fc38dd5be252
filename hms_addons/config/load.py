"""From bytes to a snapshot: read, merge, validate, compile, look over.

The one road that every configuration takes, whether it comes from files, from `hms check`, or
from the control plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.compile import compile_config
from hms_addons.config.lint import lint
from hms_addons.config.merge import merge, without_listeners
from hms_addons.config.problems import ConfigProblems, Report
from hms_addons.config.pushed import check_pushed
from hms_addons.config.scope import scope
from hms_addons.config.validate import validate
from hms_addons.config.yaml_marks import load_yaml, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hms_addons.config.problems import Problem
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.config.standard_listeners import Finish
    from hms_addons.config.yaml_marks import Document


PUSHED: Final = "(control plane)"
"""The file that a problem in what a control plane has sent is shown in."""
_COMMAND_LINE: Final = "(command line)"


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
    base: Mapping[str, Any] | None = None,
    finish: Callable[[Mapping[str, Any]], Finish] | None = None,
    control: bool = False,
) -> Loaded:
    """Make a snapshot of one or several files' contents. Never raises for what is in them.

    Args:
        contents: name and bytes of each file, the earlier first.
        source: where they came from, for people; default the names.
        service: the service this sidecar stands beside, if the command line says so.
        extra: a configuration whose listeners are added where `contents` has none on their port.
        base: what a control plane has sent, as plain data; `contents` go over it.
        finish: given what has come of all that for this service, says what the command line adds
            to it and leaves out.
        control: a control plane provides the certificates that nothing here does. Without a
            `service` it is a whole mesh's configuration that is looked at, as an operator pushes
            it: each sidecar will know which service it stands beside.
    """
    try:
        documents = _read_all(contents)
        if base is not None:
            documents.insert(0, unmarked(base, PUSHED))
        document = merge(documents)
        if extra is not None:
            document = merge([document, _missing_listeners(document, extra, service)])
        if finish is not None:
            last = finish(scope(document.data, _own_service(document, service)))
            document = merge([document, unmarked(last.added, _COMMAND_LINE)])
            document = without_listeners(document, last.dropped)
    except ConfigProblems as error:
        return Loaded(None, error.problems)
    report = Report(document.marks.place_of)
    config = validate(document, report, control=control)
    if config is None:
        return Loaded(None, report.sorted())
    if control and service is None and base is None:
        check_pushed(config, report)
    name = source or ", ".join(name for name, _ in contents)
    snapshot = compile_config(
        config, document, report, source=name, service=service, control=control
    )
    if snapshot is not None:
        lint(config, snapshot, report, control=control)
    return Loaded(snapshot, report.sorted())


def _missing_listeners(
    document: Document, extra: Mapping[str, Any], service: str | None
) -> Document:
    """The listeners of `extra` on whose ports `document` has none."""
    written = scope(document.data, _own_service(document, service)).get("listeners")
    items = written if isinstance(written, list) else []
    taken = {item.get("port") for item in items if isinstance(item, dict)}
    listeners = [item for item in extra.get("listeners", ()) if item["port"] not in taken]
    return unmarked({"listeners": listeners} if listeners else {}, _COMMAND_LINE)


def _own_service(document: Document, told: str | None) -> str | None:
    written = document.data.get("service")
    return told or (written if isinstance(written, str) else None)


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
