"""The places where mitmproxy shows or saves flows, and what is put before each: the redactor.

mitmproxy has no one place for it, so every function that leads out is wrapped while the mesh runs:

| what | where |
|---|---|
| mitmweb's pages: the list, its updates, the static viewer | `flow_to_json` |
| mitmweb's edits, on their way in | `FlowHandler.put` |
| `-w`, `save.file`, mitmweb's download | `FlowWriter.add`, `FilteredFlowWriter.add` |
| exports: curl, httpie, raw; of what was cut there are none | `export.formats` |
| HAR files | `SaveHar.flow_entry` |
| `cut` | `cut.extract` |
| mitmdump's lines | `Dumper.echo_flow` |
| content views, which show query parameters | `contentviews.prettify_message` |
| mitmproxy's terminal: the list, a flow | `format_flow`, `FlowDetails.conn_text` |

In mitmproxy's terminal, the editor of headers shows them as they are, as it takes what it shows for what is
meant.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Literal

from mitmproxy import contentviews, http
from mitmproxy.addons import cut, dumper, export, savehar
from mitmproxy.exceptions import CommandError
from mitmproxy.io import io

from hms_addons.window.kept_bodies import missing
from hms_addons.window.redaction import UnknownSecretError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.window.redaction import Redactor


class Screens:
    """All of them, with a redactor before each.

    Args:
        redactor: makes what is shown.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._undo: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Screens wrapped={len(self._undo)}>"

    def cover(self) -> None:
        """Put the redactor before each, of the program that runs."""
        shown = self._redactor.shown
        self._wrap(io.FlowWriter, "add", _second(shown))
        self._wrap(io.FilteredFlowWriter, "add", _second(shown))
        self._wrap(savehar.SaveHar, "flow_entry", _second(shown))
        self._wrap(dumper.Dumper, "echo_flow", _second(shown))
        self._wrap(cut, "extract", _second(shown))
        self._wrap(contentviews, "prettify_message", _first(self._message))
        before = dict(export.formats)
        for name, make in before.items():
            export.formats[name] = _first(shown)(_whole(name, make))
        self._undo.append(lambda: export.formats.update(before))
        web = "mitmproxy.tools.web"
        for module in (f"{web}.app", f"{web}.static_viewer"):
            if module in sys.modules:
                self._wrap(sys.modules[module], "flow_to_json", _first(shown))
        if (app := sys.modules.get(f"{web}.app")) is not None:
            self._wrap(app.FlowHandler, "put", self._restoring(app))
        console = "mitmproxy.tools.console"
        if (common := sys.modules.get(f"{console}.common")) is not None:
            self._wrap(common, "format_flow", _first(shown))
        if (flowview := sys.modules.get(f"{console}.flowview")) is not None:
            self._wrap(flowview.FlowDetails, "conn_text", _second(self._message))

    def uncover(self) -> None:
        """Have them as they were."""
        while self._undo:
            self._undo.pop()()

    def _wrap(
        self, owner: Any, name: str, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        before = getattr(owner, name)
        setattr(owner, name, wrapped(before))
        self._undo.append(lambda: setattr(owner, name, before))

    def _message(self, message: Any) -> Any:
        return self._redactor.message(message) if isinstance(message, http.Message) else message

    def _restoring(self, app: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """mitmweb's page sends whole lists of headers back, those that it was shown redacted too."""

        def wrapped(put: Callable[..., Any]) -> Callable[..., Any]:
            inner: Callable[..., Any] = put.__wrapped__  # type: ignore[attr-defined] # by _require_auth

            def restored(handler: Any, flow_id: str) -> Any:
                request = handler.request
                if b"[redacted-" in request.body and self._redactor.enabled:
                    try:
                        document = self._edit(handler.json, handler.flow)
                    except UnknownSecretError as error:
                        raise app.APIError(400, str(error)) from None
                    request.body = json.dumps(document).encode("ascii")
                return inner(handler, flow_id)

            made: Callable[..., Any] = app.AuthRequestHandler._require_auth(restored)  # noqa: SLF001 - as its own
            return made

        return wrapped

    def _edit(self, document: dict[str, Any], flow: Any) -> dict[str, Any]:
        """An edit as it is meant. Of comments and marks nothing is sent, so they stay."""
        return {
            key: self._restored(part, flow) if key in {"request", "response"} else part
            for key, part in document.items()
        }

    def _restored(self, document: Any, flow: Any) -> Any:
        """Texts in whatever holds them, but for bodies, which are shown as they are."""
        if isinstance(document, str):
            return self._redactor.restored(document, flow)
        if isinstance(document, list):
            return [self._restored(item, flow) for item in document]
        if isinstance(document, dict):
            return {
                key: item if key == "content" else self._restored(item, flow)
                for key, item in document.items()
            }
        return document


def _whole(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """An export that refuses a flow which lacks some of what it would hold."""
    parts: tuple[Literal["request", "response"], ...] = ("request", "response")
    if name != "raw":
        parts = ("response",) if name == "raw_response" else ("request",)

    def made(flow: Any) -> Any:
        for part in parts if isinstance(flow, http.HTTPFlow) else ():
            if (lack := missing(flow, part)) is not None:
                raise CommandError(f"the {part} cannot be exported: {lack}")
        return make(flow)

    return made


def _first(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function whose first argument is changed."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda first, *rest, **named: function(change(first), *rest, **named)

    return wrapped


def _second(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same of the second, as in methods."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda first, second, *rest, **named: function(first, change(second), *rest, **named)

    return wrapped
