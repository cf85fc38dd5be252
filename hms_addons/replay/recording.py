"""Reads what sidecars record, and writes it into one flow file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import httpx

from hms_addons.errors import MeshError
from hms_addons.replay.frames import DamagedError, Frames
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ASKING: Final = 10.0
"""Seconds for a sidecar to begin; it loads what it needs first."""


@dataclass(frozen=True, slots=True)
class Source:
    """A sidecar to record.

    Attributes:
        name: what a person calls it.
        admin: its admin port, as host:port.
    """

    name: str
    admin: str


@dataclass(slots=True)
class Tally:
    """What was recorded so far.

    Attributes:
        flows, size: in the file.
        dropped, incomplete: as the sidecars tell at the end.
        problems: what went wrong, each with the sidecar's name.
        full: the file may not become larger.
    """

    flows: int = 0
    size: int = 0
    dropped: int = 0
    incomplete: int = 0
    problems: list[str] = field(default_factory=list)
    full: bool = False


class FlowWriter:
    """The file: flows of several sidecars, each whole.

    It is its user's alone. One that is there stays as it is until `close`, and if nothing was recorded.

    Args:
        path: must not exist, unless `force`; a device or a pipe is written to.
        most: bytes that it may have.

    Raises:
        MeshError: it cannot be written.
    """

    def __init__(self, path: Path, most: int, *, force: bool = False) -> None:
        self._path = path
        self._most = most
        self.tally = Tally()
        self.full = asyncio.Event()
        self._made: Path | None = path
        """What is ours to move or remove."""
        try:
            if not force:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            elif path.exists() and not path.is_file():
                descriptor = os.open(path, os.O_WRONLY)  # a folder is refused here
                self._made = None
            else:
                descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
                self._made = Path(made)
        except FileExistsError:
            raise MeshError(f"{path} is there already; --force writes over it") from None
        except OSError as error:
            raise MeshError(f"cannot write {path}: {error.strerror}") from error
        self._file: IO[bytes] = os.fdopen(descriptor, "wb", buffering=0)

    def add(self, record: bytes) -> bool:
        """Write one flow; False if there is no room left.

        Raises:
            MeshError: the disk does not take it; the file holds the flows before it.
        """
        if self.full.is_set() or self.tally.size + len(record) > self._most:
            self.tally.full = True
            self.full.set()
            return False
        try:
            written = 0
            while written < len(record):
                written += self._file.write(record[written:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):  # where it is no file, there is nothing to mend
                self._file.truncate(self.tally.size)
            raise MeshError(f"cannot write {self._path}: {error.strerror}") from error
        self.tally.flows += 1
        self.tally.size += len(record)
        return True

    def close(self, *, failed: bool = False) -> None:
        """No more is written: the file has its name now, or is gone if nothing could be recorded.

        Raises:
            MeshError: it cannot have its name.
        """
        self._file.close()
        made, self._made = self._made, None
        if made is None:
            return
        if not self.tally.flows and (failed or self.tally.problems):
            made.unlink(missing_ok=True)
            return
        try:
            made.replace(self._path)
        except OSError as error:
            raise MeshError(
                f"cannot write {self._path}: {error.strerror}; what was recorded is in {made}"
            ) from error


async def record(
    sources: Sequence[Source],
    query: dict[str, str],
    writer: FlowWriter,
    began: Callable[[], object] = lambda: None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Record all of `sources` at once, until each has ended; cancelled, it keeps what there is.

    Args:
        sources: the sidecars.
        query: `for`, `direction`, `max_body`, as `recording_wish` reads them.
        writer: where to; its tally says how it went.
        began: called once all that can has begun.
        transport: httpx's; for tests.
    """
    begun = asyncio.Semaphore(0)
    timeout = httpx.Timeout(_ASKING, read=None)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout, transport=transport) as client:
        tasks = TaskSet("record")
        running = {
            tasks.start(_one(client, source, query, writer, begun), source.name)
            for source in sources
        }
        try:
            for _ in sources:
                await begun.acquire()
            began()
            full = tasks.start(writer.full.wait(), "full")
            while running and not full.done():
                _, rest = await asyncio.wait({*running, full}, return_when=asyncio.FIRST_COMPLETED)
                running &= rest
        finally:
            await tasks.close()
            await asyncio.gather(*(_ask_how(client, source, writer) for source in sources))


async def _one(
    client: httpx.AsyncClient,
    source: Source,
    query: dict[str, str],
    writer: FlowWriter,
    begun: asyncio.Semaphore,
) -> None:
    """One sidecar, to its end; `begun` is released once it has begun, or failed to."""
    problems = writer.tally.problems
    frames = Frames()
    try:
        url = f"http://{source.admin}/record"
        async with (
            asyncio.timeout(_ASKING) as limit,
            client.stream(
                "POST", url, params=query, headers={"Accept": "application/json"}
            ) as answer,
        ):
            limit.reschedule(None)
            begun.release()
            if answer.status_code != httpx.codes.OK:
                problems.append(f"{source.name}: {await _refusal(answer, source)}")
                return
            async for piece in answer.aiter_raw():
                for flow in frames.feed(piece):
                    if not writer.add(flow):
                        return
    except DamagedError as error:
        problems.append(f"{source.name}: what {source.admin} sends is no flow file: {error}")
    except MeshError as error:
        problems.append(f"{source.name}: {error}")
        writer.full.set()  # the others would fare no better
    except TimeoutError:
        problems.append(f"{source.name}: {source.admin} does not answer")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        problems.append(
            f"{source.name}: no sidecar answers on {source.admin}, or it has ended: {why}"
        )
    finally:
        begun.release()  # once more is harmless


async def _refusal(answer: httpx.Response, source: Source) -> str:
    await answer.aread()
    try:
        page: Any = answer.json()
        return str(page["detail"])
    except (ValueError, LookupError, TypeError):
        return f"what answers on {source.admin} ({answer.status_code}) is no sidecar's admin port"


async def _ask_how(client: httpx.AsyncClient, source: Source, writer: FlowWriter) -> None:
    """How it went, as the sidecar saw it."""
    try:
        url = f"http://{source.admin}/record"
        answer = await client.get(url, params={"format": "json"}, timeout=_ASKING)
        last = answer.json()["last"]
        writer.tally.dropped += int(last["dropped"])
        writer.tally.incomplete += int(last["incomplete"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
        return  # it has gone, which has been told
