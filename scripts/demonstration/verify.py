"""Claims-SVC's call to Auth-SVC through its sidecar, as the tour makes it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from scripts.demonstration.calls import Answer, call
from scripts.demonstration.mesh_files import LISTENER_PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TARGET = "/verify-id?host=auth-svc.svc"
"""What the seed's caller asks its sidecar for."""
AT_ONCE = 3
"""Calls in flight in `verify_many`: no more than the retries that a cluster allows at once, so that
even if all of them meet a replica that dies, all can be repeated."""


def verify(
    token: str | None, headers: Mapping[str, str] | None = None, *, port: int = LISTENER_PORT
) -> Answer:
    """One call with `token`, or without one."""
    own = {} if token is None else {"Authorization": token}
    return call(port, TARGET, {**own, **(headers or {})})


def verify_many(
    token: str, count: int, *, midway: Callable[[], object] | None = None
) -> list[Answer]:
    """`count` calls, `AT_ONCE` at a time; `midway` happens while they are under way."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls = [pool.submit(verify, token) for _ in range(count)]
        if midway is not None:
            calls[count // 4].result()
            midway()
        return [one.result() for one in calls]


def replicas_of(answers: Iterable[Answer]) -> Counter[str]:
    """How many of the good answers each replica gave."""
    return Counter(answer.json()["replica"] for answer in answers if answer.status == 200)  # noqa: PLR2004 - OK


def statuses_of(answers: Iterable[Answer]) -> str:
    """The statuses and flags that are no 200, counted, for messages."""
    seen = Counter(
        f"{a.status} {a.flag or ''}".strip()
        for a in answers
        if a.status != 200  # noqa: PLR2004 - OK
    )
    return ", ".join(f"{count} x {status}" for status, count in seen.items()) or "all 200"


def received(answer: Answer, name: str) -> list[str]:
    """Every value of the field `name` that reached the app, however the name was spelt."""
    wanted = name.lower().replace("_", "-")
    fields: dict[str, str] = answer.json()["headers"]
    return [value for field, value in fields.items() if field.lower().replace("_", "-") == wanted]


def bars(counts: Mapping[str, int], names: Iterable[str]) -> str:
    """Counts as a bar chart of text, one name a line."""
    wide = max(counts.values(), default=0)
    lines = []
    for name in names:
        count = counts.get(name, 0)
        bar = "█" * round(40 * count / wide) if wide else ""
        lines.append(f"{name:<8} {count:4}  {bar}".rstrip())
    return "\n".join(lines)
