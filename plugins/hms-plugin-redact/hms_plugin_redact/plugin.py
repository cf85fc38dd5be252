"""The hooks: which messages are looked at, and what becomes of those that cannot be.

What cannot be looked at is refused: a request with 400, 413 or 415, an answer with 502.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.plugin_options import plugin_options
from hms_addons.errors import Failure, Flag, problem
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer, BodyStream, get_field, without_fields
from hms_plugin_redact.body import (
    UnreadableError,
    is_one_of,
    kind_of,
    to_bytes,
    to_text,
    type_of,
    types_of,
)
from hms_plugin_redact.options import Options
from hms_plugin_redact.rules import WINDOW, NotJsonError, Rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Generator, Iterator, Mapping

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh
    from hms_addons.http_message import Fields

logger = logging.getLogger(__name__)

NAME: Final = "redact"
_NO_BODY: Final = frozenset({204, 205, 304})
_PARTIAL: Final = 206
_ASKING: Final = frozenset({b"accept-encoding", b"range", b"if-range"})
_GZIP: Final = re.compile(rb"\b(?:x-)?gzip\s*(?:,|$|;\s*q\s*=\s*(?:1|0\.0*[1-9]))", re.IGNORECASE)
"""In `Accept-Encoding`, but for what has a weight of 0."""
_OF_THE_BYTES: Final = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest"})


class Redactor:
    """One configuration's options and rules, and the options as they were written."""

    def __init__(self, written: Mapping[str, Any], options: Options, counts: Counter[str]) -> None:
        self.written = written
        self.options = options
        self.rules = Rules(options.rules, counts)
        self._services = frozenset(options.services)

    def concerns(self, exchange: Exchange) -> bool:
        """Whether this exchange's messages are looked at."""
        if self.options.direction not in {"both", exchange.direction}:
            return False
        route = exchange.route
        return not self._services or (route is not None and route.service in self._services)

    def looks_at(self, fields: Fields) -> bool:
        """Whether bodies of this content type are looked at."""
        return any(is_one_of(kind, self.options.content_types) for kind in types_of(fields))

    def steps(self, data: bytes, fields: Fields) -> Generator[None, None, bytes]:
        """The body as it may be sent on; the very same bytes where no rule applies.

        Raises:
            UnreadableError: it cannot be looked at.
        """
        kind = kind_of(fields, decode=self.options.encoded == "decode")
        text = to_text(data, kind, self.options.max_size)
        try:
            if kind.is_json or (not kind.type and text.lstrip("\ufeff \t\r\n")[:1] in {"{", "["}):
                new = yield from self.rules.json(text)
            else:
                new = yield from self.rules.text(text)
        except NotJsonError as error:
            raise UnreadableError(400, str(error)) from None
        return data if new is text or new == text else to_bytes(new, kind)


class Redact:
    """The plugin `redact`."""

    def __init__(self) -> None:
        self._redactors: list[Redactor] = []
        """Of the newest configuration that has one, and of the one before, which may come back."""
        self.replaced: Counter[str] = Counter()
        """By rule, since the start."""
        self.counts: Counter[str] = Counter()
        """`redacted`, `refused` and `passed` (unseen, by option), since the start."""

    def __repr__(self) -> str:
        return f"<Redact {dict(self.counts)}>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Check the options, compile the rules."""
        options = plugin_options(snapshot, NAME, Options)
        if options is None:
            return
        written = snapshot.plugins[NAME]
        made = self._known(written) or Redactor(written, options, self.replaced)
        self._redactors = [made, *(r for r in self._redactors if r is not made)][:2]

    def _known(self, written: Mapping[str, Any]) -> Redactor | None:
        for redactor in self._redactors:
            if redactor.written is written or redactor.written == written:
                return redactor
        return None

    def _of(self, exchange: Exchange) -> Redactor | None:
        """The rules of the configuration that the request began with, if they are about it."""
        written = exchange.snapshot.plugins.get(NAME)
        if written is None:
            return None
        redactor = self._known(written)
        if redactor is None:  # held while two other configurations came in
            redactor = Redactor(written, Options.model_validate(dict(written)), self.replaced)
        return redactor if redactor.concerns(exchange) else None

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where it is not configured."""
        options = plugin_options(snapshot, NAME, Options)
        if options is None:
            return ("hms_prepare", "hms_respond")
        return () if options.responses else ("hms_respond",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Have status and metrics tell what was done."""
        mesh.add_status(
            NAME, lambda: {"bodies": dict(self.counts), "replacements": dict(self.replaced)}
        )
        mesh.add_metrics(NAME, self)

    def collect(self) -> Iterator[Any]:
        """For `/metrics`."""
        core = importlib.import_module("prometheus_client.core")
        bodies = core.CounterMetricFamily(
            "redact_bodies", "Bodies that were changed, refused or passed unseen.", labels=("what",)
        )
        for what in ("redacted", "refused", "passed"):
            bodies.add_metric((what,), self.counts[what])
        rules = core.CounterMetricFamily(
            "redact_replacements", "What rules have replaced.", labels=("rule",)
        )
        for rule, count in sorted(self.replaced.items()):
            rules.add_metric((rule,), count)
        yield from (bodies, rules)

    # -- requests -------------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def hms_prepare(self, exchange: Exchange) -> Awaitable[None] | None:
        """Ask for an answer that can be looked at; look at the request, if that is wanted."""
        redactor = self._of(exchange)
        if redactor is None:
            return None
        options = redactor.options
        if options.responses and not _ASKING.isdisjoint(exchange.head):
            accepted = exchange.head.get(b"accept-encoding", b"")
            exchange.fields = without_fields(exchange.fields, _ASKING)
            if _GZIP.search(accepted) and options.encoded == "decode":
                exchange.set_request_header(b"Accept-Encoding", b"gzip")
        if not options.requests or not redactor.looks_at(exchange.fields):
            return None
        if exchange.body is not None:
            self._streams(exchange, options)
            return None
        content = exchange.content
        if not content:
            return None
        if not _is_short(content, exchange.fields):
            return self._prepare_slowly(exchange, content, redactor)
        try:
            new = _drained(redactor.steps(content, exchange.fields))
        except UnreadableError as error:
            self._refuse_request(exchange, error)
        else:
            self._put_request(exchange, content, new)
        return None

    async def _prepare_slowly(self, exchange: Exchange, content: bytes, redactor: Redactor) -> None:
        try:
            new = await _drained_slowly(redactor.steps(content, exchange.fields))
        except UnreadableError as error:
            self._refuse_request(exchange, error)
        else:
            self._put_request(exchange, content, new)

    def _streams(self, exchange: Exchange, options: Options) -> None:
        if options.streaming == "pass":
            self.counts["passed"] += 1
        else:
            self._refuse_request(exchange, UnreadableError(413, "it is too long to be looked at"))

    def _put_request(self, exchange: Exchange, content: bytes, new: bytes) -> None:
        if new is not content:
            exchange.fields = without_fields(exchange.fields, _OF_THE_BYTES)
            exchange.flow.request.data.content = new
            self.counts["redacted"] += 1

    def _refuse_request(self, exchange: Exchange, error: UnreadableError) -> None:
        self.counts["refused"] += 1
        detail = f"the request's body must be free of personal data, and {error}"
        exchange.deny(error.status, Flag.RBAC, detail)

    # -- answers --------------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def hms_respond(self, exchange: Exchange) -> Awaitable[None] | None:
        """Look at the answer. Whatever fails here, what was not looked at does not go out."""
        answer = exchange.answer
        # The mesh's own answers hold nothing of a body.
        if answer is None or answer.local:
            return None
        try:
            redactor = self._of(exchange)
            if redactor is None or not redactor.options.responses:
                return None
            return self._look(exchange, answer, redactor)
        except Exception as error:  # noqa: BLE001 - the chain would send the answer as it was
            self._give_up(exchange, answer, error)
            return None

    def _look(
        self, exchange: Exchange, answer: Answer, redactor: Redactor
    ) -> Awaitable[None] | None:
        body = answer.body
        if answer.status in _NO_BODY:
            return None
        if answer.tunnel is None and not redactor.looks_at(answer.fields):
            return None
        if exchange.method_bytes == b"HEAD":
            answer.length = None  # a GET's body may become another one
            return None
        if answer.tunnel is not None or isinstance(body, BodyStream):
            streaming = redactor.options.streaming
            if streaming == "pass":
                self.counts["passed"] += 1
                return None
            endless = answer.tunnel is not None or type_of(answer.fields) == "text/event-stream"
            if endless or streaming == "refuse" or not isinstance(body, BodyStream):
                raise UnreadableError(502, "it streams")
            return self._hold(exchange, answer, body, redactor)
        if not body:
            return None
        self._check_whole(answer)
        if not _is_short(body, answer.fields):
            return self._redact_slowly(exchange, answer, body, redactor)
        self._put(answer, body, _drained(redactor.steps(body, answer.fields)))
        return None

    @staticmethod
    def _check_whole(answer: Answer) -> None:
        if answer.status == _PARTIAL:
            raise UnreadableError(502, "it is a part of something")

    async def _hold(
        self, exchange: Exchange, answer: Answer, body: BodyStream, redactor: Redactor
    ) -> None:
        try:
            self._check_whole(answer)
            held = bytearray()
            while piece := await body.read():
                held += piece
                if len(held) > redactor.options.max_size:
                    raise UnreadableError(502, "it is too long to be looked at")  # noqa: TRY301 - one way out
        except Exception as error:  # noqa: BLE001 - see `hms_respond`
            self._give_up(exchange, answer, error)
            return
        answer.body = bytes(held)
        answer.length = len(held)
        answer.trailers = body.trailers
        await self._redact_slowly(exchange, answer, answer.body, redactor)

    async def _redact_slowly(
        self, exchange: Exchange, answer: Answer, body: bytes, redactor: Redactor
    ) -> None:
        try:
            self._put(answer, body, await _drained_slowly(redactor.steps(body, answer.fields)))
        except Exception as error:  # noqa: BLE001 - see `hms_respond`
            self._give_up(exchange, answer, error)

    def _put(self, answer: Answer, body: bytes, new: bytes) -> None:
        if new is not body:
            answer.fields = without_fields(answer.fields, _OF_THE_BYTES)
            answer.body = new
            answer.length = len(new)
            self.counts["redacted"] += 1

    def _give_up(self, exchange: Exchange, answer: Answer, error: Exception) -> None:
        """Answer with 502 in its place."""
        self.counts["refused"] += 1
        why = "it could not be looked at"
        if isinstance(error, UnreadableError):
            why = str(error)
        else:
            # Its type alone: its text may hold what is to be hidden.
            logger.error("an answer could not be looked at: %s", type(error).__name__)
        detail = f"the answer must be free of personal data, and {why}; it is withheld"
        failure = Failure(502, Flag.RBAC, "Answer withheld", detail)
        exchange.failure = exchange.failure or failure
        with suppress(Exception):
            answer.release()
        reason, fields, body = problem(failure, exchange.request_id)
        exchange.answer = Answer(failure.status, reason, fields, body, local=True)


def _drained(steps: Generator[None, None, bytes]) -> bytes:
    """All steps in one go."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: bytes = done.value
            return result


async def _drained_slowly(steps: Generator[None, None, bytes]) -> bytes:
    """All steps, and other requests' turn after each."""
    while True:
        await asyncio.sleep(0)
        try:
            next(steps)
        except StopIteration as done:
            result: bytes = done.value
            return result


def _is_short(body: bytes, fields: Fields) -> bool:
    """It is looked at in no time; what is packed may be long."""
    return len(body) <= WINDOW and get_field(fields, b"content-encoding") is None
