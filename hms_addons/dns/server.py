"""The sockets of one DNS listener: UDP, and TCP for answers that are too long for it.

Everything is bounded: queries that are passed on at once, TCP connections, their time. Past a bound the answer is
SERVFAIL, at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final

from hms_addons.clock import within
from hms_addons.dns.forwarder import Forwarder
from hms_addons.dns.names import Names
from hms_addons.dns.resolv_conf import SystemResolvers
from hms_addons.dns.wire import QueryError, Rcode, answer, parse_query
from hms_addons.listening import ListenError, listen
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot_interception import DnsListener
    from hms_addons.dns.wire import Query

logger = logging.getLogger(__name__)

PASSED_ON: Final = 256
"""Queries that may wait for resolvers at once."""
STREAMS: Final = 64
"""TCP connections at once."""
IDLE: Final = 10.0
"""Seconds for the next query on one."""
COMPLAIN_EVERY: Final = 60.0
"""Seconds between two log lines about the same trouble."""
_BATCH: Final = 64
"""Packets that are read in one turn of the event loop."""
_LARGEST: Final = 65535
_SHORTAGE_REST: Final = 1.0
_TRIES: Final = 16
"""For any free port: one that is free for UDP may be taken for TCP."""


class DnsServer:
    """Answers on one address.

    Args:
        listener: its configuration.
        clock: time.
        counts: takes how queries ended, by outcome.
        system: the resolvers of the system.
    """

    def __init__(
        self,
        listener: DnsListener,
        clock: Clock,
        counts: Counter[str] | None = None,
        system: Callable[[], tuple[tuple[str, int], ...]] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._listener = listener
        self._names = Names(listener)
        self._clock = clock
        self._system = system or SystemResolvers(clock)
        self._forwarder = Forwarder(clock)
        self._tasks = TaskSet("dns")
        self._packets: socket.socket | None = None
        self._streams: socket.socket | None = None
        self._waiting = self._connections = 0
        self._complained: dict[str, float] = {}

    def __repr__(self) -> str:
        state = "closed" if self.address is None else f"{self.address[0]}:{self.address[1]}"
        return f"<DnsServer {self._listener.name} {state} waiting={self._waiting}>"

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it listens; None when it does not."""
        return None if self._packets is None else self._packets.getsockname()[:2]

    @property
    def waiting(self) -> int:
        """Queries that wait for resolvers."""
        return self._waiting

    def configure(self, listener: DnsListener) -> None:
        """Answer by another configuration of the same address from now on."""
        self._listener = listener
        self._names = Names(listener)

    # -- start and end --------------------------------------------------------------------------

    def bind(self) -> None:
        """Take the address by UDP and by TCP; who asks waits until `start`.

        Raises:
            ListenError: one of them is not to be had.
        """
        tries = 1 if self._listener.port else _TRIES
        while self._packets is None:
            tries -= 1
            try:
                self._packets, self._streams = _bound(self._listener)
            except ListenError:
                if tries <= 0:
                    raise

    def start(self) -> None:
        """Answer from now on."""
        assert self._packets is not None  # noqa: S101 - it is bound
        assert self._streams is not None  # noqa: S101 - as above
        loop = asyncio.get_running_loop()
        loop.add_reader(self._packets.fileno(), self._read_packets, self._packets)
        loop.add_reader(self._streams.fileno(), self._accept, self._streams)

    async def close(self) -> None:
        """Answer no more; idempotent."""
        self.stop()
        await self._tasks.close()

    def stop(self) -> None:
        """Give up the address at once; what waits is still to be ended by `close`."""
        loop = asyncio.get_running_loop()
        for listening in (self._packets, self._streams):
            if listening is not None:
                loop.remove_reader(listening.fileno())
                listening.close()
        self._packets = self._streams = None

    # -- UDP ------------------------------------------------------------------------------------

    def _read_packets(self, packets: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = packets.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an answer that nobody took
            reply = self._reply(data, peer[:2])
            if isinstance(reply, bytes):
                self._send(packets, reply, peer)
            elif reply is not None:
                self._tasks.start(self._pass_on_packet(packets, reply, data, peer), "query")

    async def _pass_on_packet(
        self, packets: socket.socket, query: Query, data: bytes, peer: tuple[str, int]
    ) -> None:
        self._send(packets, await self._pass_on(query, data, stream=False), peer)

    @staticmethod
    def _send(packets: socket.socket, reply: bytes, peer: tuple[str, int]) -> None:
        try:
            packets.sendto(reply, peer)
        except OSError:
            return  # the socket is closed, or its buffer full: who asked will ask again

    # -- TCP ------------------------------------------------------------------------------------

    def _accept(self, streams: socket.socket) -> None:
        try:
            accepted, peer = streams.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._rest(streams, error)
            return
        if self._connections >= STREAMS:
            self.counts["overflow"] += 1
            accepted.close()
            return
        accepted.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._connections += 1
        self._tasks.start(self._serve(accepted, peer[:2]), "connection")

    def _rest(self, streams: socket.socket, error: OSError) -> None:
        """No open files are left: a socket that stays ready must not keep the loop busy."""
        self._complain("files", "no DNS connection can be accepted: %s", error.strerror or error)
        asyncio.get_running_loop().remove_reader(streams.fileno())
        self._clock.call_later(_SHORTAGE_REST, self._go_on, streams)

    def _go_on(self, streams: socket.socket) -> None:
        if streams is self._streams:
            asyncio.get_running_loop().add_reader(streams.fileno(), self._accept, streams)

    async def _serve(self, accepted: socket.socket, peer: tuple[str, int]) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=accepted)
            while True:
                async with within(self._clock, IDLE):
                    size = int.from_bytes(await reader.readexactly(2))
                    data = await reader.readexactly(size)
                reply = self._reply(data, peer)
                if reply is None:
                    return
                if not isinstance(reply, bytes):
                    reply = await self._pass_on(reply, data, stream=True)
                writer.write(len(reply).to_bytes(2) + reply)
                async with within(self._clock, IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            self._connections -= 1
            if writer is not None:
                writer.close()
            else:
                accepted.close()

    # -- a query --------------------------------------------------------------------------------

    def _reply(self, data: bytes, peer: tuple[str, int]) -> bytes | Query | None:
        """What is sent back; the query, if it is to be passed on; None: nothing."""
        try:
            query = parse_query(data)
        except QueryError as error:
            self.counts["malformed"] += 1
            return error.answer
        found = self._names.decide(query.name, query.type, query.class_)
        if found is not None:
            self.counts[_OUTCOMES.get(found.rcode, "refused")] += 1
            own = found.rcode is not Rcode.REFUSED
            return answer(query, found.rcode, found.addresses, self._names.ttl, own=own)
        if peer in self._forwarder.own:
            self.counts["looped"] += 1
            self._complain(
                "loop",
                "%s",
                "a query that was passed on has come back: the machine's rules must leave out the user that the "
                "sidecar runs as (hms iptables up --uid, see `id -u`), or `dns: {resolvers: …}` is this "
                "listener itself",
            )
            return answer(query, Rcode.SERVFAIL, own=False)
        if self._waiting >= PASSED_ON:
            self.counts["overflow"] += 1
            return answer(query, Rcode.SERVFAIL, own=False)
        return query

    async def _pass_on(self, query: Query, data: bytes, *, stream: bool) -> bytes:
        own = self.address
        asked = self._listener.resolvers or self._system()
        resolvers = [resolver for resolver in asked if resolver != own]
        if not resolvers:
            self._complain(
                "nobody",
                "listener %s: there is nobody to ask what is not the mesh's: /etc/resolv.conf names none but this "
                "listener; say who with `dns: {resolvers: [ADDRESS]}`",
                self._listener.name,
            )
        self._waiting += 1
        try:
            found = await self._forwarder.ask(query, data, resolvers, stream=stream)
        finally:
            self._waiting -= 1
        self.counts["failed" if found is None else "forwarded"] += 1
        return answer(query, Rcode.SERVFAIL, own=False) if found is None else found

    def _complain(self, about: str, message: str, *arguments: object) -> None:
        now = self._clock.monotonic()
        if now - self._complained.get(about, float("-inf")) >= COMPLAIN_EVERY:
            self._complained[about] = now
            logger.warning(message, *arguments)


_OUTCOMES: Final = {Rcode.NOERROR: "answered", Rcode.NXDOMAIN: "unknown"}


def _bound(listener: DnsListener) -> tuple[socket.socket, socket.socket]:
    """The sockets of an address, for UDP and for TCP.

    Raises:
        ListenError: one of them is not to be had.
    """
    who = f"listener '{listener.name}' (dns)"
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    packets = socket.socket(family, socket.SOCK_DGRAM)
    try:
        packets.setblocking(False)  # noqa: FBT003 - the socket module's signature
        packets.bind((listener.host, listener.port))
        return packets, listen(who, listener.host, packets.getsockname()[1])
    except OSError as error:
        packets.close()
        raise ListenError(_why(who, listener, error)) from error
    except ListenError:
        packets.close()
        raise


def _why(who: str, listener: DnsListener, error: OSError) -> str:
    start = f"{who} cannot listen on {listener.host}:{listener.port} (UDP): "
    if error.errno == errno.EADDRINUSE:
        return f"{start}the port is in use; `ss -lunp 'sport = :{listener.port}'` names who has it"
    if error.errno == errno.EACCES:
        return (
            f"{start}ports below 1024 need privileges; choose a higher one, which `hms iptables up --dns PORT` "
            "leads queries to"
        )
    return f"{start}{error.strerror or error}"
