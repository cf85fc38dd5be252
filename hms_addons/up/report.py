"""What `hms up` says: lines for people, with a live table on a terminal, or JSON events for scripts."""

from __future__ import annotations

import contextlib
import json
from itertools import cycle
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from hms_addons.up.plain_line import plain_line, without_colours
from hms_addons.up.table import table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import ConsoleOptions

    from hms_addons.clock import Clock, Timer
    from hms_addons.up.stats import Row

TOGETHER: Final = 0.1
"""Seconds that lines wait for others above the table."""
MOST_LINES: Final = 500
"""Of apps, that are put out together."""
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


class Written:
    """Lines for rich's console that are as the terminal is to have them: laying out costs too much."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """See rich's protocol."""
        del console, options
        yield Segment(self._text)


class TextReport:
    """Lines, each after its instance's name; in colours on a terminal.

    Args:
        console: rich's, where they go.
    """

    shows_table = False

    def __init__(self, console: Console) -> None:
        self.console = console
        self.on_gone: Callable[[], object] = lambda: None
        self._coloured = console.color_system is not None and not console.no_color
        self._colours = cycle(_COLOURS)
        self._styles: dict[str, str] = {}
        self._width = 8

    def _line(self, name: str, text: str) -> str:
        style = self._styles.get(name)
        if style is None:
            style = self._styles[name] = "bold" if name == _ME else next(self._colours)
        self._width = max(self._width, len(name))
        return f"{self._styled(f'{name:<{self._width}} │ ', style)}{text}\n"

    def _styled(self, text: str, style: str) -> str:
        return Style.parse(style).render(text) if self._coloured and style else text

    def _write(self, text: str) -> None:
        """Put whole lines out."""
        try:
            self.console.file.write(text)
            self.console.file.flush()
        except OSError:
            self.on_gone()

    def log(self, name: str, line: str) -> None:
        """See `Report`; an app's own colours stay, where there are any."""
        self._write(self._line(name, line if self._coloured else without_colours(line)))

    def state(self, name: str, state: str, detail: str) -> None:
        """See `Report`."""
        text = _safe(f"{name} {detail}" if detail else f"{name} is {state}")
        style = _STATE_COLOURS.get(state, "")
        lines = (self._styled(line, style) for line in text.splitlines())
        self._write("".join(self._line(_ME, line) for line in lines))

    def say(self, message: str, **about: Any) -> None:
        """See `Report`."""
        del about
        self._write("".join(self._line(_ME, line) for line in _safe(message).splitlines()))

    def table(self, rows: Iterable[Row]) -> None:
        """See `Report`."""

    def close(self) -> None:
        """See `Report`."""


def _safe(text: str) -> str:
    """What may quote files, and strangers' commands."""
    return "\n".join(without_colours(plain_line(line)) for line in text.split("\n"))


class LiveReport(TextReport):
    """The same, above a table that is always the last thing on the terminal.

    Each time that something is put above the table, it is drawn anew, which takes milliseconds. So lines are
    put out together, a few times a second, and no more of them than can be read.

    Args:
        console: rich's.
        clock: time, injected.
    """

    shows_table = True

    def __init__(self, console: Console, clock: Clock) -> None:
        super().__init__(console)
        self._clock = clock
        self._lines: list[str] = []
        self._left_out = 0
        self._timer: Timer | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def log(self, name: str, line: str) -> None:
        """See `Report`."""
        if len(self._lines) < MOST_LINES:
            super().log(name, line)
        else:
            self._left_out += 1

    def _write(self, text: str) -> None:
        self._lines.append(text)
        if self._timer is None:
            self._timer = self._clock.call_later(TOGETHER, self._put)

    def _put(self) -> None:
        """Put out what has come together."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        text = "".join(self._lines)
        if self._left_out:
            text += self._line(
                _ME, f"{self._left_out} lines more; `hms logs SERVICE` has the newest"
            )
        self._lines.clear()
        self._left_out = 0
        try:
            self.console.print(Written(text), end="", soft_wrap=True)
        except OSError:
            self.on_gone()

    def table(self, rows: Iterable[Row]) -> None:
        """See `Report`."""
        self._put()
        try:
            self._live.update(Group(Text(""), table_of(rows)), refresh=True)
        except OSError:
            self.on_gone()

    def close(self) -> None:
        """See `Report`."""
        self._put()
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
