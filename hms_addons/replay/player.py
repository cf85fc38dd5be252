"""Sends recorded requests to a new version, a few at a time, and compares what it answers."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import httpx

from hms_addons.errors import MeshError
from hms_addons.replay.comparison import Rules, compare
from hms_addons.replay.message import Answered, Recorded
from hms_addons.replay.selection import SAFE, Wishes, prepare, why_not
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from hms_addons.http_message import Fields
    from hms_addons.replay.body_difference import Difference
    from hms_addons.replay.flow_file import FlowFile

MOST_BODY: Final = 64 * 1024 * 1024
"""Bytes of an answer that are read; a longer one is not compared."""
MOST_AT_ONCE: Final = 64
HOPELESS: Final = 3
"""Requests in a row that cannot even be sent, until the others are not tried any more."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one request went.

    Attributes:
        recorded: the request.
        differences: between the answers; empty if they are the same.
        error: why there is no new answer.
        partly: what could not be compared.
    """

    recorded: Recorded
    differences: list[Difference]
    error: str | None = None
    partly: str | None = None


@dataclass(slots=True)
class Tally:
    """How all went so far."""

    same: int = 0
    different: int = 0
    failed: int = 0
    partly: int = 0
    """Of those compared: with a body that could not be."""
    unsent: int = 0
    """Not even tried, as nobody seems to be there."""
    skipped: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    """Secret headers that requests went without."""

    @property
    def compared(self) -> int:
        """Requests with two answers."""
        return self.same + self.different

    def add(self, result: Result) -> None:
        """Count one more."""
        if result.error is not None:
            self.failed += 1
        elif result.differences:
            self.different += 1
        else:
            self.same += 1
        self.partly += result.partly is not None


class Target:
    """Where recorded requests are sent: `http://host:port`.

    Raises:
        MeshError: it is no such address.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            wrong = parts.scheme not in {"http", "https"} or not parts.hostname
            wrong = wrong or parts.port == 0 or parts.path not in {"", "/"} or bool(parts.query)
        except ValueError:
            wrong = True
        if wrong:
            raise MeshError(
                f"{url!r} is no address: give scheme, host and port, as http://127.0.0.1:9002"
            )
        self.url = f"{parts.scheme}://{parts.netloc}"

    def __repr__(self) -> str:
        return f"<Target {self.url}>"


class Player:
    """Replays to one target, as an async context manager.

    Args:
        target: where to.
        wishes, rules: what is sent, and what may differ.
        timeout: seconds for a whole answer.
        at_once: requests in flight at most.
        transport: httpx's; for tests.
    """

    def __init__(
        self,
        target: Target,
        wishes: Wishes,
        rules: Rules,
        *,
        timeout: float = 15.0,
        at_once: int = 1,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._target = target
        self._wishes = wishes
        self._rules = rules
        self._timeout = timeout
        self._at_once = at_once
        self.tally = Tally()
        self._hopeless = 0
        self._http = httpx.AsyncClient(
            trust_env=False,
            timeout=timeout,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=at_once),
            verify=ssl.create_default_context() if target.url.startswith("https") else False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def play(
        self, file: FlowFile | Iterable[Recorded], on_result: Callable[[Result], object]
    ) -> None:
        """Replay what can be, in the file's order; `on_result` hears of each in that order, too.

        Raises:
            MeshError: it is no flow file.
        """
        async for result in self._results(file):
            self.tally.add(result)
            on_result(result)

    async def _results(self, file: Iterable[Recorded]) -> AsyncIterator[Result]:
        """At most `at_once` are in flight, and no more of the file is held."""
        waiting: deque[asyncio.Task[Result]] = deque()
        tasks = TaskSet("replay")
        try:
            for recorded in file:
                reason = why_not(recorded, self._wishes)
                if reason is not None:
                    self.tally.skipped[reason] += 1
                    continue
                if self._hopeless >= HOPELESS:
                    self.tally.unsent += 1
                    continue
                waiting.append(tasks.start(self._one(recorded), recorded.name))
                if len(waiting) >= self._at_once:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            await tasks.close()

    async def _one(self, recorded: Recorded) -> Result:
        sent, missing = prepare(recorded, self._wishes)
        self.tally.missing.update(set(missing))
        try:
            async with asyncio.timeout(self._timeout):
                new = await self._send(sent)
            self._hopeless = 0
            return self._compared(recorded, new)
        except TimeoutError:
            return Result(recorded, [], f"no whole answer within {self._timeout:g} s")
        # The file and the target may be hostile: whatever a library trips over is this request's.
        except Exception as error:  # noqa: BLE001 - as above
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                self._hopeless += 1
            return Result(recorded, [], str(error) or type(error).__name__)

    def _compared(self, recorded: Recorded, new: Answered) -> Result:
        partly = None
        if recorded.answer is not None and recorded.answer.body is None:
            partly = "its body was not recorded as a whole: compared by status and headers only"
        elif new.body is None:
            partly = f"its new body is longer than {MOST_BODY} bytes: compared by status and headers only"
        return Result(recorded, compare(recorded, new, self._rules), None, partly)

    async def _send(self, sent: Recorded) -> Answered:
        try:
            return await self._ask(sent)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # A connection that the server has just let go of, most likely.
            if sent.method not in SAFE:
                raise
            return await self._ask(sent)

    async def _ask(self, sent: Recorded) -> Answered:
        request = httpx.Request(
            sent.method,
            self._target.url,
            headers=list(sent.fields),
            content=sent.body or None,
            # As it was sent, byte for byte: httpx would normalise a URL.
            extensions={"target": sent.target},
        )
        answer = await self._http.send(request, stream=True)
        try:
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MOST_BODY:
                    return Answered(answer.status_code, _fields(answer), None)
            return Answered(answer.status_code, _fields(answer), bytes(body))
        finally:
            await answer.aclose()


def _fields(answer: httpx.Response) -> Fields:
    return tuple(answer.headers.raw)
