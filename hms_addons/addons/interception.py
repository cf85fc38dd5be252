"""`interception`: calls that were meant for somebody else, and that the machine has led here.

    app ──GET http://auth-svc.svc/──▶ (iptables) ──▶ transparent listener ──▶ as any outbound call
        ──GET http://example.com/──▶      〃      ──▶      〃    ──unmatched: original──▶ example.com

Which of them are the mesh's, `routing` decides. Here is what else becomes of them: what is passed through
leaves without the mesh's own headers, to the very address that the app had called; and what this sidecar
itself has sent is never taken in again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from hms_addons.errors import ExchangeFailed, Failure, Fault
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import spellings, without_fields

if TYPE_CHECKING:
    from collections.abc import Collection

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Upstream

_FORWARDING: Final = {
    b"x-forwarded-for": b"X-Forwarded-For",
    b"x-forwarded-proto": b"X-Forwarded-Proto",
    b"x-forwarded-host": b"X-Forwarded-Host",
    b"forwarded": b"Forwarded",
}
"""What the hop adds about its caller: the world need not know the addresses in here."""
_PROPAGATION: Final = "identity_propagation"


class Interception:
    """The built-in plugin `interception`."""

    def __init__(self) -> None:
        self._removed: frozenset[bytes] = frozenset()

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Take up the names of the mesh's own headers."""
        self._removed = spellings(snapshot.headers.all) | _FORWARDING.keys()

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """All, where no listener is transparent."""
        found = [it.intercept for it in snapshot.listeners if it.intercept is not None]
        if not found:
            return ("hms_prepare", "hms_forward")
        return () if any(it.passthrough is not None for it in found) else ("hms_prepare",)

    @hookimpl(trylast=True)
    def hms_prepare(self, exchange: Exchange) -> None:
        """What is passed through says what the app has said, and no more of the mesh than that it was here."""
        if not _passes_through(exchange):
            return
        kept = without_fields(exchange.fields, self._removed)
        head = exchange.head
        own = tuple((name, head[key]) for key, name in _FORWARDING.items() if key in head)
        exchange.fields = kept + own
        if exchange.notes.get(_PROPAGATION) == "attached":
            exchange.remove_field(b"authorization")  # a caller's token is for the mesh alone

    @hookimpl(tryfirst=True)
    def hms_forward(self, exchange: Exchange, upstream: Upstream) -> None:
        """See to it that it leads on, and not round in a circle.

        Raises:
            ExchangeFailed: it was sent by this very sidecar; or too many destinations are in use.
        """
        if exchange.listener.intercept is None:
            return
        context: Any = exchange.downstream
        manager: Any = cast("Any", upstream)
        if context.looped is None:
            # Asked with the first request, when the other end is surely among the connections.
            context.looped = manager.is_own(tuple(context.client.peername[:2]))
        if context.looped:
            raise ExchangeFailed(Failure.of(Fault.LOOP, _circle(exchange)))
        if _passes_through(exchange):
            manager.reach(exchange.cluster.name if exchange.cluster else "", context.original)


def _passes_through(exchange: Exchange) -> bool:
    intercept = exchange.listener.intercept
    return (
        intercept is not None
        and intercept.passthrough is not None
        and exchange.route is intercept.passthrough
    )


def _circle(exchange: Exchange) -> str:
    original = exchange.downstream.original
    meant = "this listener itself" if original is None else f"{original[0]}:{original[1]}"
    return (
        f"this sidecar has sent the request to {meant}, and it was led back to the listener "
        f"{exchange.listener.name}: the machine's rules must leave out the user that the sidecar runs "
        "as (hms iptables up --uid, see `id -u`), and no endpoint may be the listener's own address"
    )
