"""Tells how a replay went: what differs, what was left out and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from hms_addons.replay.body_difference import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hms_addons.replay.body_difference import Difference
    from hms_addons.replay.flow_file import FlowFile
    from hms_addons.replay.player import Result, Tally

MOST: Final = 20
"""Differences of one request that are shown."""
DIFFERENT: Final = 1
INCOMPLETE: Final = 2
"""Exit code if something could not be compared, or nothing was."""


def text_of(result: Result) -> str:
    """What is to be said of one request; nothing if its answers are the same."""
    if result.error is None and not result.differences:
        return ""
    recorded = result.recorded
    when = ""
    if recorded.started is not None:
        at = datetime.fromtimestamp(recorded.started, UTC)
        when = f"  (recorded {at:%Y-%m-%d %H:%M:%S} UTC)"
    lines = [f"#{recorded.number} {printable(recorded.name, 200)}{when}"]
    if result.error is not None:
        lines.append(f"    error   {printable(result.error, 300)}")
    lines += [f"    {_line(one)}" for one in result.differences[:MOST]]
    if len(result.differences) > MOST:
        lines.append(f"    … and {len(result.differences) - MOST} more")
    if result.partly:
        lines.append(f"    ({result.partly})")
    return "\n".join(lines) + "\n"


def _line(one: Difference) -> str:
    head = f"{one.part:<7} "
    if not one.where and not one.before:
        return f"{head}{one.after}"  # a line of a unified diff
    where = f"{one.where}: " if one.where else ""
    return f"{head}{where}{one.before} → {one.after}"


def summary_of(tally: Tally, file: FlowFile, target: str) -> str:
    """The last lines."""
    counts = f"{tally.same} the same, {tally.different} different"
    lines = [f"{_count(tally.compared, 'request')} compared with {target}: {counts}"]
    if tally.partly:
        lines.append(f"{tally.partly} of them without their bodies, which are not known as a whole")
    if tally.failed:
        lines.append(f"{tally.failed} had no new answer")
    if tally.unsent:
        lines.append(f"{tally.unsent} were not sent: nobody seems to be there")
    for reason, number in tally.skipped.most_common():
        lines.append(f"{number} left out: {reason}")
    if file.other:
        lines.append(f"{file.other} left out: they are no HTTP")
    for name, number in tally.missing.most_common():
        lines.append(
            f"{number} sent without {printable(name)}, which is not in the file: "
            f"--header '{printable(name)}: …' gives it"
        )
    lines += _of_file(file)
    if not tally.compared:
        lines.append("nothing was compared")
    return "\n".join(lines) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _of_file(file: FlowFile) -> Iterator[str]:
    if file.unreadable:
        yield (
            f"{_count(file.unreadable, 'flow')} could not be read: {printable(file.reason)} "
            "(a newer mitmproxy's?)"
        )
    if file.cut is not None:
        yield str(file.cut)


def document_of(
    results: list[Result], tally: Tally, file: FlowFile, name: str, target: str
) -> dict[str, Any]:
    """All of it, JSON-ready."""
    cut = file.cut
    return {
        "file": name,
        "to": target,
        "compared": tally.compared,
        "same": tally.same,
        "different": tally.different,
        "errors": tally.failed,
        "unsent": tally.unsent,
        "skipped": dict(tally.skipped),
        "not_http": file.other,
        "missing_headers": dict(tally.missing),
        "unreadable": file.unreadable,
        "cut": None if cut is None else cut._asdict(),
        "requests": [
            {
                "number": one.recorded.number,
                "method": one.recorded.method,
                "target": one.recorded.target.decode("latin-1"),
                "started": one.recorded.started,
                "error": one.error,
                "note": one.partly,
                "differences": [difference._asdict() for difference in one.differences],
            }
            for one in results
        ],
    }


def exit_code(tally: Tally, file: FlowFile) -> int:
    """0: all that could be compared is the same; 1: something differs; 2: something could not be."""
    broken = file.cut is not None or file.unreadable or tally.failed or tally.unsent
    if broken or not tally.compared:
        return INCOMPLETE
    return DIFFERENT if tally.different else 0
