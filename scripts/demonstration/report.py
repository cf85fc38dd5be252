"""What a person reads: numbered steps, what was seen, and ✓ or ✗ for each thing checked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

INDENT = "    "


class Report:
    """Prints the tour and keeps the tally; plain text where there is no terminal.

    Attributes:
        steps: begun so far.
        checks: made so far.
        failures: what was not as it should be, one line each.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True, emoji=False)
        self._began = time.monotonic()
        self.steps = 0
        self.checks = 0
        self.failures: list[str] = []
        self._title = "the start"

    @property
    def seconds(self) -> float:
        """Since the report was made."""
        return time.monotonic() - self._began

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def heading(self, text: str) -> None:
        """A title without a number."""
        self._line(text, "bold")

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values, in two columns."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self._console.print(Text.assemble(INDENT, (f"{name:<{width}}", "cyan"), "  ", value))

    def step(self, title: str, promise: str) -> None:
        """Begin a step: what it is about, and what it shows."""
        self.steps += 1
        self._title = title
        self._console.print()
        self._line(f"{self.steps:2}. {title}", "bold")
        self._line(f"{INDENT}{promise}", "dim")

    def show(self, text: str) -> None:
        """Something that was seen or done; every line of it."""
        for line in text.splitlines():
            self._line(f"{INDENT}{line}")

    def check(self, ok: object, expectation: str, seen: str = "") -> bool:
        """Whether `expectation` holds; `seen` says what was there instead.

        Of several lines the tally at the end repeats the first.
        """
        self.checks += 1
        if ok:
            self._console.print(Text.assemble(INDENT, ("✓ ", "bold green"), expectation))
            return True
        first, *more = f"{expectation}{f': {seen}' if seen else ''}".splitlines()
        self.failures.append(f"{self._title}: {first}")
        self._console.print(Text.assemble(INDENT, ("✗ ", "bold red"), first))
        self.show("\n".join(f"  {line}" for line in more))
        return False

    def summary(self) -> bool:
        """Print the tally; True if everything was as it should be."""
        self._console.print()
        done = f"{self.steps} steps, {self.checks} checks, {self.seconds:.1f} s"
        if not self.failures:
            self._line(f"All as it should be: {done}.", "bold green")
            return True
        self._line(f"NOT as it should be ({done}):", "bold red")
        for failure in self.failures:
            self._line(f"  ✗ {failure}", "red")
        return False


def indented(text: str) -> str:
    """Each line two columns further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())
