"""What stands in for a process and for a terminal in the tests of `hms up`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hms_addons.up.stats import Row


class FakeChild:
    """A process that ends when it is told to, with SIGTERM at once."""

    def __init__(self) -> None:
        self.last = ["first", "", "last"]
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.signals: list[str] = []

    async def wait(self) -> int:
        return await self.ended

    def terminate(self) -> None:
        self.signals.append("TERM")
        self.end(0)

    def kill(self) -> None:
        self.signals.append("KILL")
        self.end(-9)

    def end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)


class Launcher:
    """Starts `FakeChild`ren; `failing` says why it cannot."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.failing = ""

    async def __call__(self) -> FakeChild:
        if self.failing:
            raise MeshError(self.failing)
        self.children.append(FakeChild())
        return self.children[-1]


class FakeReport:
    """Remembers what was said."""

    shows_table = False

    def __init__(self) -> None:
        self.on_gone: Callable[[], object] = lambda: None
        self.said: list[str] = []

    def log(self, name: str, line: str) -> None:
        self.said.append(f"{name}| {line}")

    def state(self, name: str, state: str, detail: str) -> None:
        self.said.append(f"{name} {state} {detail}".rstrip())

    def say(self, message: str, **about: Any) -> None:
        del about
        self.said.append(message)

    def table(self, rows: Iterable[Row]) -> None:
        self.said.append(str(list(rows)))

    def close(self) -> None:
        self.said.append("closed")
