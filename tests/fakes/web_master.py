"""mitmweb's master without its server, its proxy and its default addons."""

from __future__ import annotations

from typing import Any

from mitmproxy import options
from mitmproxy.addons.view import View
from mitmproxy.master import Master
from mitmproxy.tools.web.master import WebMaster


class FakeWebMaster(Master):
    """A view, and mitmweb's own functions that tell pages of it."""

    def __init__(self) -> None:
        super().__init__(options.Options())
        self.view = View()
        self.view.sig_view_add.connect(self._sig_view_add)
        self.view.sig_view_remove.connect(self._sig_view_remove)
        self.view.sig_view_update.connect(self._sig_view_update)
        self.view.sig_view_refresh.connect(self._sig_view_refresh)
        self.addons.add(self.view)

    def close(self) -> None:
        """Let go of what masters take hold of."""
        self._legacy_log_events.uninstall()

    _sig_view_add: Any = WebMaster._sig_view_add
    _sig_view_remove: Any = WebMaster._sig_view_remove
    _sig_view_update: Any = WebMaster._sig_view_update
    _sig_view_refresh: Any = WebMaster._sig_view_refresh
