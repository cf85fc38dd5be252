"""Many calls at once, and what came back, counted."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scripts.demonstration.calls import Answer

AT_ONCE = 3
"""Calls in flight: no more than the retries that a cluster allows at once, so that even if all of them
meet a replica that dies, all can be repeated."""


def many(
    once: Callable[[], Answer], number: int, *, midway: Callable[[], object] | None = None
) -> list[Answer]:
    """`number` calls, `AT_ONCE` at a time; `midway` happens while they are under way."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls = [pool.submit(once) for _ in range(number)]
        if midway is not None:
            calls[number // 4].result()
            midway()
        return [one.result() for one in calls]


def replicas_of(answers: Iterable[Answer]) -> Counter[str]:
    """How many of the good answers each replica of Auth-SVC gave."""
    good = [answer for answer in answers if answer.status == HTTPStatus.OK]
    return Counter(answer.json()["replica"] for answer in good)


def statuses_of(answers: Iterable[Answer]) -> str:
    """Statuses and flags, counted, for messages."""
    seen = Counter(f"{answer.status} {answer.flag or ''}".strip() for answer in answers)
    return ", ".join(f"{number} x {status}" for status, number in seen.items())


def all_good(answers: Iterable[Answer]) -> bool:
    """Whether all are 2xx."""
    return all(answer.good for answer in answers)


def bars(counts: Mapping[str, int], names: Iterable[str]) -> str:
    """Counts as a bar chart of text, one name a line."""
    names = tuple(names)
    high = max(counts.values(), default=0)
    wide = max(map(len, names))
    lines = []
    for name in names:
        number = counts.get(name, 0)
        bar = "█" * round(40 * number / high) if high else ""
        lines.append(f"{name:<{wide}} {number:4}  {bar}".rstrip())
    return "\n".join(lines)
