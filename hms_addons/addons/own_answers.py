"""`own_answers`: routes that answer by themselves, with a redirect or a fixed response.

In the forward phase and before `resilience`, so that nobody gets such an answer without a permit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.local_answers import DirectResponse
from hms_addons.config.shaping import shapings
from hms_addons.errors import reason_phrase
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer

if TYPE_CHECKING:
    from collections.abc import Collection

    from hms_addons.config.local_answers import Redirect
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange


class OwnAnswers:
    """The built-in plugin `own_answers`."""

    def __repr__(self) -> str:
        return "<OwnAnswers>"

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where every route leads to a cluster."""
        used = any(shaping.answer is not None for shaping in shapings(snapshot))
        return () if used else ("hms_forward",)

    @hookimpl
    def hms_forward(self, exchange: Exchange) -> Answer | None:
        """The route's own answer, if it has one."""
        route = exchange.route
        shaping = None if route is None else route.shaping
        answer = None if shaping is None else shaping.answer
        if answer is None:
            return None
        if isinstance(answer, DirectResponse):
            return _direct_response(answer, head=exchange.method_bytes == b"HEAD")
        return _redirect(answer, exchange)


def _direct_response(answer: DirectResponse, *, head: bool) -> Answer:
    body = answer.body
    return Answer(
        answer.status,
        reason_phrase(answer.status),
        answer.headers,
        b"" if head else body,
        length=len(body),
        local=True,
    )


def _redirect(redirect: Redirect, exchange: Exchange) -> Answer:
    downstream = exchange.downstream
    sockname = downstream.client.sockname
    location = redirect.location(
        downstream.scheme.decode(),
        exchange.head.get(b"host", b"").decode("latin-1"),
        sockname[1] if sockname else None,
        exchange.path,
        exchange.query,
    )
    fields = ((b"Location", location.encode("latin-1")),)
    return Answer(redirect.status, reason_phrase(redirect.status), fields, local=True)
