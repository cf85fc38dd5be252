"""What `hms explain` tells of calls that a transparent listener has intercepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.snapshot_interception import ORIGINAL_DESTINATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hms_addons.config.route_table import RouteTable
    from hms_addons.config.snapshot import Cluster, Listener


def meant_for_another(listener: Listener, head: Mapping[bytes, bytes]) -> bool:
    """Whether a call would have been intercepted: its host is not the transparent listener's own port."""
    if listener.intercept is None:
        return False
    port = head.get(b"host", b"").rpartition(b":")[2]
    return port != str(listener.port).encode()


def of_any_host(listener: Listener, table: RouteTable) -> Iterator[dict[str, str]]:
    """The listener's routes that do not count for such a call."""
    counted = {route.name for route in table}
    for route in listener.routes:
        if route.name not in counted:
            reason = "it names no host, so it is not for calls that were meant for somebody else"
            yield {"route": route.name, "reason": reason}


def refused(listener: Listener, host: str) -> str:
    """Why such a call is refused, and what helps."""
    return (
        f"{host!r} is no host of the mesh, and the listener {listener.name} refuses intercepted calls that "
        "are not the mesh's; `unmatched: original` there sends them on to where they were meant to go"
    )


def endpoints_of(cluster: Cluster) -> list[str]:
    """A cluster's endpoints as they are shown."""
    if cluster.load_balancer == ORIGINAL_DESTINATION:
        return ["wherever the call was meant to go"]
    return [endpoint.address for endpoint in cluster.endpoints]
