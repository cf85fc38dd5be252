"""From bytes to a snapshot: read, merge, validate, compile, look over.

The one road that every configuration takes, whether it comes from files, from `hms check`, or
from the control plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.compile import compile_config
from hms_addons.config.installed import SIDECAR, Known, check_installed
from hms_addons.config.lint import lint
from hms_addons.config.merge import merge_good, without_listeners
from hms_addons.config.problems import ConfigProblems, Problem, Report, Severity
from hms_addons.config.pushed import check_pushed
from hms_addons.config.scope import scope
from hms_addons.config.secret_files import check_secret_files
from hms_addons.config.validate import validate
from hms_addons.config.yaml_marks import MAX_NODES, load_yaml, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from hms_addons.config.merge import Merged
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
    known: Known = SIDECAR,
) -> Loaded:
    """Make a snapshot of one or several files' contents. Never raises for what is in them.

    Every fault of every step is told at once: what is wrong is left out, and the next step looks at
    the rest (see `part`). With any error there is no snapshot.

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
        known: what else is looked at.
    """
    documents, problems = _read_all(contents)
    whole = known.complete and not problems
    if base is not None:
        documents.insert(0, unmarked(base, PUSHED))
    merged = merge_good(documents)
    whole = whole and merged.whole
    if extra is not None:
        merged = _over(merged, _missing_listeners(merged.document, extra, service))
    if finish is not None:
        last = finish(scope(merged.document.data, _own_service(merged.document, service)))
        merged = _over(merged, unmarked(last.added, _COMMAND_LINE), last.dropped)
    document = merged.document
    report = Report(document.marks.place_of)
    report.problems.update(dict.fromkeys((*problems, *merged.problems)))
    config, part = validate(document, report, control=control, twice=merged.twice, whole=whole)
    good = report.on(part)
    if control and service is None and base is None:
        check_pushed(config, good)
    names = [name for name, _ in contents]
    snapshot = compile_config(
        config, document, good, source=source or ", ".join(names), service=service, control=control
    )
    lint(config, snapshot, good, control=control, files=known.files)
    check_installed(config, good, known.installed, elsewhere=control)
    if known.files:
        check_secret_files(snapshot, good)
    return Loaded(None if report.failed else snapshot, report.sorted(names))


def _over(merged: Merged, last: Document, dropped: Collection[str] = ()) -> Merged:
    """`merged` with what the command line says over it."""
    again = merge_good([merged.document, last])
    if dropped:
        again = merge_good([without_listeners(again.document, dropped)])
    # The names that are twice have been told of already.
    return again._replace(problems=merged.problems)


def _missing_listeners(
    document: Document, extra: Mapping[str, Any], service: str | None
) -> Document:
    """The listeners of `extra` on whose ports `document` has none."""
    written = scope(document.data, _own_service(document, service)).get("listeners")
    items = written if isinstance(written, list) else []
    taken = [item.get("port") for item in items if isinstance(item, dict)]
    listeners = [item for item in extra.get("listeners", ()) if item["port"] not in taken]
    return unmarked({"listeners": listeners} if listeners else {}, _COMMAND_LINE)


def _own_service(document: Document, told: str | None) -> str | None:
    written = document.data.get("service")
    return told or (written if isinstance(written, str) else None)


def _read_all(contents: Sequence[tuple[str, bytes]]) -> tuple[list[Document], list[Problem]]:
    """Every file that can be read, as data; and the syntax errors of all others."""
    documents: list[Document] = []
    problems: list[Problem] = []
    nodes = 0
    for name, content in contents:
        try:
            document = load_yaml(content, name)
        except ConfigProblems as error:
            problems.extend(error.problems)
            continue
        nodes += document.nodes
        if nodes > MAX_NODES:
            message = f"more than {MAX_NODES} values up to here, in all files together"
            problems.append(Problem(Severity.ERROR, name, 1, 1, "", message))
            break
        documents.append(document)
    return documents, problems
