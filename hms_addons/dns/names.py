"""Which names are the mesh's, and what they stand for. A decision without sockets."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from hms_addons.config.request_target import SERVICE_SUFFIX
from hms_addons.dns.wire import IN, Rcode, Type

if TYPE_CHECKING:
    from hms_addons.config.snapshot_interception import DnsListener


class Answer(NamedTuple):
    """What a query is answered with."""

    rcode: Rcode = Rcode.NOERROR
    addresses: tuple[bytes, ...] = ()
    """Of 4 bytes or of 16. None with NOERROR: there is such a name, but nothing of that type."""


class Names:
    """The names of one listener.

    Args:
        listener: its configuration.

    Attributes:
        ttl: whole seconds for which answers may be remembered.
    """

    def __init__(self, listener: DnsListener) -> None:
        self._listener = listener
        addresses = tuple(map(ipaddress.ip_address, listener.addresses))
        self._by_type = {
            Type.A: tuple(one.packed for one in addresses if one.version == 4),  # noqa: PLR2004 - IPv4
            Type.AAAA: tuple(one.packed for one in addresses if one.version == 6),  # noqa: PLR2004 - IPv6
            Type.ANY: tuple(one.packed for one in addresses),
        }
        self.ttl = int(listener.ttl)

    def decide(self, name: str, kind: int, class_: int = IN) -> Answer | None:
        """What a query is answered with; None if it is somebody else's to answer.

        Args:
            name: in lower case, without the last dot.
            kind, class_: what is asked for.
        """
        known = self._knows(name)
        if known is None:
            return None if self._listener.forwards else Answer(Rcode.REFUSED)
        if class_ != IN:
            return Answer(Rcode.REFUSED)
        if not known:
            return Answer(Rcode.NXDOMAIN)
        if name == SERVICE_SUFFIX[1:]:
            return Answer()
        return Answer(
            Rcode.NOERROR, self._by_type.get(Type(kind), ()) if kind in self._by_type else ()
        )

    def _knows(self, name: str) -> bool | None:
        """Whether there is such a name; None: that is not the mesh's to say.

        What ends in `.svc` is always its own: a name with a slip in it is not told to the world.
        """
        listener = self._listener
        if name.endswith(SERVICE_SUFFIX):
            return name[: -len(SERVICE_SUFFIX)] in listener.services
        if name == SERVICE_SUFFIX[1:]:
            return True
        if name in listener.names or name.endswith(listener.suffixes or ("\n",)):
            return True
        return None
