"""The mesh's names in mitmproxy's own dns mode: `mitmdump --mode dns@127.0.0.1:15053 -s hms_addons/mesh.py`.

mitmproxy reads the query and writes the answer, and shows both as a flow. What is not the mesh's is left to
mitmproxy's own resolver, which asks the system's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy import dns
from mitmproxy.net.dns import response_codes

from hms_addons.config.compile_interception import default_dns
from hms_addons.config.request_target import SERVICE_SUFFIX
from hms_addons.dns.names import Names
from hms_addons.dns.wire import IN, Rcode, Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.config.snapshot_interception import DnsListener

_IPV4_SIZE = 4


class NativeDns:
    """Answers mitmproxy's `dns_request` events.

    Args:
        snapshot: the configuration in force; None before the first.
    """

    def __init__(self, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot
        self._by: Snapshot | None = None
        self._names: dict[int, Names] = {}

    def dns_request(self, flow: dns.DNSFlow) -> None:
        """mitmproxy event: a query has come."""
        if flow.response is not None or flow.error is not None:
            return  # a script has answered
        request = flow.request
        if not request.query:
            return
        if request.op_code:
            flow.response = request.fail(response_codes.NOTIMP)
            return
        question = request.question
        if question is None:
            flow.response = request.fail(response_codes.FORMERR)
            return
        name = question.name.rstrip(".").lower()
        names = self._names_for(flow.client_conn.sockname)
        if names is None:
            if name.endswith(SERVICE_SUFFIX):  # not to be told to the world
                flow.response = request.fail(response_codes.SERVFAIL)
            return
        found = names.decide(name, question.type, question.class_)
        if found is None:
            return
        if found.rcode is not Rcode.NOERROR:
            flow.response = request.fail(int(found.rcode))
            return
        flow.response = request.succeed(
            [
                dns.ResourceRecord(
                    question.name,
                    Type.A if len(address) == _IPV4_SIZE else Type.AAAA,
                    IN,
                    names.ttl,
                    address,
                )
                for address in found.addresses
            ]
        )

    def _names_for(self, sockname: tuple[object, ...] | None) -> Names | None:
        """The names of the listener on this port, or of all; None before there is a configuration."""
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        if snapshot is not self._by:
            self._by, self._names = snapshot, {}
        port = sockname[1] if sockname is not None and isinstance(sockname[1], int) else 0
        names = self._names.get(port)
        if names is None:
            names = self._names[port] = Names(_listener(snapshot, port))
        return names


def _listener(snapshot: Snapshot, port: int) -> DnsListener:
    for listener in snapshot.dns:
        if listener.port == port:
            return listener
    return default_dns(snapshot.listeners)
