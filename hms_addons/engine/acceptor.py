"""Taking connections off a listening socket, also when there is nothing left to take them with.

asyncio's own server answers a full table of open files with a traceback for each place in the
backlog, several thousand a second, and libuv's by closing connections unseen. Here the listener
rests, the clients wait in the backlog, and one line says what is short and what helps.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hms_addons.clock import Clock, Timer

logger = logging.getLogger(__name__)

BATCH: Final = 64
"""Connections taken in one turn of the event loop: those that are there want to be served too."""

REST: Final = 1.0
"""Seconds until it is tried again, if nothing could be given back."""

SHORT_REST: Final = 0.05
"""The same, if something was."""

COMPLAIN_EVERY: Final = 60.0
"""Seconds between two log lines about the same want."""

_REMEDIES: Final = {
    errno.EMFILE: "raise this process's limit of open files (`ulimit -n`, LimitNOFILE= of its unit)",
    errno.ENFILE: "raise the machine's, fs.file-max",
}


class Acceptor:
    """Accepts from one listening socket.

    Args:
        who: what accepts, for log lines.
        listening: bound and listening, not blocking; closed with this.
        protocol: makes the protocol of a new connection.
        clock: time.
        make_room: called when there is nothing left to accept with; closes what can be spared, and
            returns how much that was.
    """

    __slots__ = (
        "_clock",
        "_complained",
        "_listening",
        "_make_room",
        "_protocol",
        "_tasks",
        "_timer",
        "who",
    )

    def __init__(
        self,
        who: str,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        clock: Clock,
        make_room: Callable[[], int],
    ) -> None:
        self.who = who
        self._listening = listening
        self._protocol = protocol
        self._clock = clock
        self._make_room = make_room
        self._tasks = TaskSet("accept")
        self._timer: Timer | None = None
        self._complained = float("-inf")

    def __repr__(self) -> str:
        state = "closed" if self._listening.fileno() < 0 else "resting" if self._timer else "open"
        return f"<Acceptor {self.who} {state}>"

    def start(self) -> None:
        """Accept from now on."""
        self._timer = None
        asyncio.get_running_loop().add_reader(self._listening.fileno(), self._ready)

    def close(self) -> None:
        """Accept no more, and close the socket. Idempotent."""
        if self._listening.fileno() < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()

    def _ready(self) -> None:
        for _ in range(BATCH):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it left while it waited
            except OSError as error:
                self._rest(error)
                return
            accepted.setblocking(False)  # noqa: FBT003 - the socket module's signature
            self._tasks.start(self._take(accepted), self.who)

    async def _take(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._protocol, accepted)
        except OSError as error:
            accepted.close()
            logger.info("%s: a connection was lost while it was accepted: %s", self.who, error)
        except BaseException:
            accepted.close()
            raise

    def _rest(self, error: OSError) -> None:
        """Let the clients wait, rather than be asked again at once by a socket that stays ready."""
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        freed = self._make_room()
        now = self._clock.monotonic()
        if now - self._complained >= COMPLAIN_EVERY:
            self._complained = now
            remedy = _REMEDIES.get(
                error.errno or 0, "see the machine's memory and its kernel's log"
            )
            logger.warning(
                "%s: no connection can be accepted for now: %s; %s%s",
                self.who,
                (error.strerror or str(error)).lower(),
                remedy,
                f"; {freed} idle ones are closed to make room" if freed else "",
            )
        self._timer = self._clock.call_later(SHORT_REST if freed else REST, self.start)
