"""`@focus` in mitmweb: the flow that a page has looked at, or acted on, last.

mitmproxy's view has a focus, which mitmweb's pages never move, so that `@focus` in their command bar meant the
first flow for ever. Whatever a page asks of one flow moves it now: opening its request or its answer, say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitmproxy.addons.view import View


class PageFocus:
    """Moves it.

    Args:
        view: whose focus it is.
        app: the module `mitmproxy.tools.web.app`.
    """

    def __init__(self, view: View, app: Any) -> None:
        self._view = view
        self._handler = app.RequestHandler
        self._before: Any = None

    def __repr__(self) -> str:
        return f"<PageFocus {'on' if self._before else 'off'}>"

    def follow(self) -> None:
        """Begin."""
        before = self._before = self._handler.flow
        view = self._view

        def found(handler: Any) -> Any:
            flow = before.fget(handler)
            if flow in view:
                view.focus.flow = flow
            return flow

        self._handler.flow = property(found)

    def leave(self) -> None:
        """End."""
        if self._before is not None:
            self._handler.flow = self._before
            self._before = None
