"""The lab: the scratch folder, the upstream, and the contenders that run for one scenario."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmark import credentials
from scripts.benchmark.machine import Placement, running_on
from scripts.benchmark.process import Address, Child
from scripts.benchmark.upstream import Upstream, governance_stub

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self


class Lab:
    """Everything that contenders need; a context manager that ends every process on its way out.

    While it is open, this process itself stays on the cores of the load.
    """

    def __init__(self, placement: Placement) -> None:
        """Nothing is started before it is entered."""
        self.placement = placement
        self._stack = contextlib.ExitStack()
        self._names = itertools.count(1)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hms-bench-"))
            self.directory = Path(scratch)
            stack.enter_context(running_on(self.placement.load))
            self.credentials = credentials.create(self.directory)
            self.governance = stack.enter_context(governance_stub())
            self.upstream = Upstream(self.directory, self.placement.load)
            stack.callback(self.upstream.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def scratch(self, name: str) -> Path:
        """A path in the scratch folder that no other call gets."""
        return self.directory / f"{next(self._names):03d}-{name}"

    def spawn(self, name: str, argv: Sequence[str]) -> Child:
        """Start a proxy under test, on its core."""
        log_name = self.scratch(name).name
        return Child(log_name, argv, self.directory, self.placement.proxies)


class Contender:
    """One proxy, or a pair of them, that carries a job."""

    def __init__(
        self,
        name: str,
        address: Address,
        children: Sequence[Child],
        peer_address: Address | None = None,
    ) -> None:
        """`address` takes plain HTTP; `children` are in the order of the hops, maybe none.

        `peer_address` is where the inbound one of a pair takes mutual TLS.
        """
        self.name = name
        self.address = address
        self.children = tuple(children)
        self.peer_address = peer_address

    def __repr__(self) -> str:
        return f"<Contender {self.name} at {self.address[0]}:{self.address[1]} {self.children}>"

    def ensure_alive(self) -> None:
        """`BenchError` when one of its processes has ended by itself."""
        for child in self.children:
            child.ensure_alive()

    def rss_mb(self) -> float:
        """Resident memory of all its processes, MiB."""
        return sum(child.rss_mb() for child in self.children)

    def cpu_seconds(self) -> float:
        """Processor time that its processes have spent so far."""
        return sum(child.cpu_seconds() for child in self.children)

    def stop(self) -> None:
        """End its processes."""
        for child in self.children:
            child.stop()


@contextlib.contextmanager
def stopping(contenders: dict[str, Contender]) -> Iterator[dict[str, Contender]]:
    """Stop whatever is in `contenders` at the end, also what was put there meanwhile."""
    try:
        yield contenders
    finally:
        with contextlib.ExitStack() as stack:
            for contender in contenders.values():
                stack.callback(contender.stop)
