"""What `hms up` says: lines for people, with a live table on a terminal, or JSON events for scripts."""

from __future__ import annotations

import contextlib
import json
from itertools import cycle
from typing import IO, TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hms_addons.up.table import table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hms_addons.clock import Clock
    from hms_addons.up.stats import Row

_COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_magenta")
_ME = "up"
_STATE_COLOURS = {"ready": "green", "waiting": "red", "unhealthy": "red"}


class Terminal(Console):
    """Rich's console; when nobody reads any more it says so, and does not end the process."""

    def on_broken_pipe(self) -> None:
        """See rich: the default ends the process, and the mesh would be left alone."""
        self.quiet = True
        raise BrokenPipeError


class Report(Protocol):
    """Where it is said."""

    on_gone: Callable[[], object]
    """Called when nobody listens any more."""
    shows_table: bool
    """Whether `table` has a use."""

    def log(self, name: str, line: str) -> None:
        """An instance has written a line."""

    def state(self, name: str, state: str, detail: str) -> None:
        """An instance is otherwise than before."""

    def say(self, message: str, **about: Any) -> None:
        """Something happened to the mesh; `about` for scripts, `event` first."""

    def table(self, rows: Iterable[Row]) -> None:
        """How everything is now."""

    def close(self) -> None:
        """Nothing more will be said."""


class TextReport:
    """Lines, each after its instance's name; in colours on a terminal.

    Args:
        console: rich's, where they go.
    """

    shows_table = False

    def __init__(self, console: Console) -> None:
        self.console = console
        self.on_gone: Callable[[], object] = lambda: None
        self._colours = cycle(_COLOURS)
        self._styles: dict[str, str] = {}
        self._width = 8

    def _print(self, name: str, text: Text) -> None:
        style = self._styles.get(name)
        if style is None:
            style = self._styles[name] = "bold" if name == _ME else next(self._colours)
        self._width = max(self._width, len(name))
        try:
            self.console.print(
                Text(f"{name:<{self._width}} │ ", style=style) + text, soft_wrap=True
            )
        except OSError:
            self.on_gone()

    def log(self, name: str, line: str) -> None:
        """See `Report`; an app's own colours stay."""
        self._print(name, Text.from_ansi(line))

    def state(self, name: str, state: str, detail: str) -> None:
        """See `Report`."""
        text = f"{name} {detail}" if detail else f"{name} is {state}"
        self._print(_ME, Text(text, style=_STATE_COLOURS.get(state, "")))

    def say(self, message: str, **about: Any) -> None:
        """See `Report`."""
        del about
        for line in message.splitlines():
            self._print(_ME, Text(line))

    def table(self, rows: Iterable[Row]) -> None:
        """See `Report`."""

    def close(self) -> None:
        """See `Report`."""


class LiveReport(TextReport):
    """The same, above a table that is always the last thing on the terminal."""

    shows_table = True

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def table(self, rows: Iterable[Row]) -> None:
        """See `Report`."""
        try:
            self._live.update(Group(Text(""), table_of(rows)), refresh=True)
        except OSError:
            self.on_gone()

    def close(self) -> None:
        """See `Report`."""
        with contextlib.suppress(OSError):
            self._live.stop()


class JsonReport:
    """A JSON object a line.

    Args:
        stream: where they go.
        clock: time, injected.
    """

    shows_table = False

    def __init__(self, stream: IO[str], clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self.on_gone: Callable[[], object] = lambda: None

    def _write(self, event: str, **about: Any) -> None:
        line = json.dumps({"event": event, "time": self._clock.wall(), **about})
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except OSError:
            self.on_gone()

    def log(self, name: str, line: str) -> None:
        """See `Report`."""
        self._write("log", instance=name, line=line)

    def state(self, name: str, state: str, detail: str) -> None:
        """See `Report`."""
        self._write("state", instance=name, state=state, detail=detail)

    def say(self, message: str, **about: Any) -> None:
        """See `Report`."""
        self._write(about.pop("event", "message"), message=message, **about)

    def table(self, rows: Iterable[Row]) -> None:
        """See `Report`."""

    def close(self) -> None:
        """See `Report`."""
