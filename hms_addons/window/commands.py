"""The mesh's commands, for mitmweb's command bar, mitmproxy's prompt and its keys.

A flow is named as in all of mitmproxy's commands: `@focus` (in mitmweb: the flow that was looked at last), a filter
such as `~marker :x:`, or `@` and its id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from mitmproxy import command, flow, http, types
from mitmproxy.exceptions import CommandError
from pydantic_core import PydanticCustomError

from hms_addons.config.schema_base import parse_duration
from hms_addons.errors import MeshError
from hms_addons.window.flow_story import story
from hms_addons.window.replay_guard import why_not

if TYPE_CHECKING:
    from hms_addons.sidecar import Sidecar
    from hms_addons.window.by_hand import ByHand
    from hms_addons.window.redaction import Redactor

logger = logging.getLogger(__name__)

MOST_EXPLAINED: Final = 5
"""Flows at once: each takes a dozen lines."""
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2."""
_ANYWAY: Final = "anyway"
_WHAT: Final = ("endpoint", "cluster")


class Known(types.Choice):
    """A choice that is completed, and whose errors are the command's own, which know what was meant."""


class _KnownType(types._ChoiceType):  # noqa: SLF001 - mitmproxy has no other way to a type of one's own
    typ = Known

    def parse(self, manager: Any, t: Any, s: str) -> str:  # noqa: ARG002 - its signature
        return s

    def is_valid(self, manager: Any, typ: Any, val: Any) -> bool:  # noqa: ARG002 - its signature
        return isinstance(val, str)


types.CommandTypes.typemap[Known] = _KnownType()

type _Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _command(name: str) -> _Decorator:
    """mitmproxy's decorator, with types."""
    decorate: _Decorator = command.command(name)
    return decorate


def _choice(parameter: str, options: str) -> _Decorator:
    """What a parameter is completed from: the list that the command `options` gives."""
    known = Known(options)  # type: ignore[no-untyped-call] # mitmproxy's
    decorate: _Decorator = command.argument(parameter, type=known)
    return decorate


class Commands:
    """A mitmproxy addon with nothing but commands.

    Args:
        master: mitmproxy's, whose view and replay are used.
        sidecar: what is asked and changed.
        by_hand: what a person has changed.
        redactor: hides secrets in what is told.
    """

    name = "hms-commands"

    def __init__(self, master: Any, sidecar: Sidecar, by_hand: ByHand, redactor: Redactor) -> None:
        self._master = master
        self._sidecar = sidecar
        self._by_hand = by_hand
        self._redactor = redactor

    # -- explain --------------------------------------------------------------------------------

    @_command("hms.explain")
    def explain(self, flows: Sequence[flow.Flow]) -> Sequence[str]:
        """Say what the mesh did with a flow and why, and what it would do now."""
        chosen = _http(flows)[-MOST_EXPLAINED:]
        lines: list[str] = []
        for one in chosen:
            lines += story(one, self._redactor.shown(one), self._sidecar.snapshot)
        for line in lines:
            logger.info("%s", line)  # mitmweb's command bar shows one long line only
        return lines

    # -- retry ----------------------------------------------------------------------------------

    @_command("hms.retry")
    @_choice("anyway", "hms.retry.options")
    def retry(self, flows: Sequence[flow.Flow], anyway: str = "") -> str:
        """Send a flow's request through the mesh again, as a new flow; `anyway` if doing it twice may do harm."""
        if anyway not in {"", _ANYWAY}:
            raise CommandError(f"{anyway!r}: the only word after the flow is {_ANYWAY!r}")
        chosen = _http(flows)
        for one in chosen:
            self._check_retry(one, sure=anyway == _ANYWAY)
        copies = []
        for one in chosen:
            copied = one.copy()
            copied.marked, copied.comment = "", f"sent again by hms.retry, after {one.id}"
            noted = copied.metadata.get("hms")
            if isinstance(noted, dict):
                # The listener and the peer say how it came in; the rest is the new one's to say.
                noted = {key: noted.get(key) for key in ("listener", "peer")}
                copied.metadata["hms"] = noted | {"comment": copied.comment}
            copies.append(copied)
        if (view := self._master.addons.get("view")) is not None:
            view.add(copies)
        self._master.commands.call("replay.client", copies)
        return f"sending {_count(len(copies), 'request')} again"

    @_command("hms.retry.options")
    def retry_options(self) -> Sequence[str]:
        """What `hms.retry` takes besides flows."""
        return [_ANYWAY]

    def _check_retry(self, one: http.HTTPFlow, *, sure: bool) -> None:
        what = f"{one.request.method} {one.request.path.partition('?')[0]}"
        if one.live or one.intercepted:
            raise CommandError(f"{what} is still under way: wait for its end, or resume it")
        if one.websocket is not None:
            raise CommandError(f"{what} was a WebSocket, whose messages are not sent again")
        if (lack := why_not(one)) is not None:
            raise CommandError(f"{what} cannot be sent again: {lack}")
        safe = one.request.method in _IDEMPOTENT or "idempotency-key" in one.request.headers
        if not safe and not sure:
            raise CommandError(
                f"{what} may have been carried out already, and would be twice: "
                "`hms.retry @focus anyway`, if you mean it"
            )

    # -- break and mend -------------------------------------------------------------------------

    @_command("hms.break")
    @_choice("what", "hms.break.options")
    def open_breaker(
        self, flows: Sequence[flow.Flow], what: str = "endpoint", seconds: str = "60s"
    ) -> str:
        """Open the breaker of a flow's endpoint, or of its whole cluster, for a while; `hms.mend` closes it."""
        if what not in _WHAT:
            raise CommandError(f"{what!r}: say {' or '.join(_WHAT)}, and then for how long, as 60s")
        [*_, chosen] = _http(flows)
        noted = chosen.metadata.get("hms")
        cluster = noted.get("cluster") if isinstance(noted, dict) else None
        address = noted.get("endpoint") if isinstance(noted, dict) else None
        if cluster is None:
            raise CommandError("this flow was sent to no cluster: choose one that was")
        if what == "endpoint" and address is None:
            raise CommandError(
                "this flow has met no endpoint: `hms.break @focus cluster` opens all of its cluster"
            )
        try:
            time = parse_duration(seconds)
            opened = self._by_hand.open(cluster, address if what == "endpoint" else None, time)
        except PydanticCustomError as error:
            raise CommandError(error.message()) from None
        except MeshError as error:
            raise CommandError(str(error)) from None
        return self._said(
            f"cluster {cluster}: open by hand for {time:g}s: {', '.join(opened)}; hms.mend closes it"
        )

    @_command("hms.break.options")
    def break_options(self) -> Sequence[str]:
        """What `hms.break` can open."""
        return _WHAT

    @_command("hms.mend")
    def mend(self, cluster: str = "") -> str:
        """Close the breakers that were opened by hand: of a cluster, or all."""
        try:
            mended = self._by_hand.mend(cluster)
        except MeshError as error:
            raise CommandError(str(error)) from None
        return self._said(f"closed again: {', '.join(mended)}")

    # -- weight ---------------------------------------------------------------------------------

    @_command("hms.weight")
    @_choice("where", "hms.weight.options")
    @_choice("subset", "hms.weight.options")
    def weight(self, where: str, subset: str, percent: str) -> str:
        """Have PERCENT of what a route, service or cluster gets go to SUBSET, on this sidecar, until its configuration changes."""
        number = percent.removesuffix("%")
        if not number.isdecimal():
            raise CommandError(f"{percent!r} is no share: give a whole number of percent, 0 to 100")
        try:
            self._by_hand.share(where, subset, int(number))
        except MeshError as error:
            raise CommandError(str(error)) from None
        return self._said(
            f"{subset} has {number}% of {where} on this sidecar, until its next configuration: "
            "what is pushed or reloaded puts an end to it"
        )

    @_command("hms.weight.options")
    def weight_options(self) -> Sequence[str]:
        """What has shares that can be moved."""
        return list(self._by_hand.splits)

    def _said(self, text: str) -> str:
        logger.warning("by hand: %s", text)
        return text


def _http(flows: Sequence[flow.Flow]) -> list[http.HTTPFlow]:
    found = [one for one in flows if isinstance(one, http.HTTPFlow)]
    if not found:
        raise CommandError(
            "no such flow: name one by @focus, by a filter such as '~marker :x:', or by @ and its id"
        )
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
