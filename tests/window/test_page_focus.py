"""`@focus` follows what a page looks at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.addons.view import View
from mitmproxy.test import taddons

from hms_addons.window.page_focus import PageFocus
from tests.fakes.flows import make_flow


class Handler:
    """mitmweb's, as much of it as knows which flow is asked for."""

    asked: Any = None

    @property
    def flow(self) -> Any:
        return self.asked


@pytest.mark.parametrize("kept", [True, False])
async def test_a_flow_that_is_asked_for_has_the_focus(*, kept: bool) -> None:
    before = Handler.flow
    with taddons.context() as context:
        view = View()
        context.master.addons.add(view)
        flows = [make_flow(), make_flow()]
        view.add(flows if kept else flows[:1])
        focus = PageFocus(view, SimpleNamespace(RequestHandler=Handler))
        focus.follow()
        handler = Handler()
        handler.asked = flows[1]
        assert handler.flow is flows[1]
        assert view.focus.flow is flows[1 if kept else 0]
        focus.leave()
        assert Handler.flow is before
        assert repr(focus) == "<PageFocus off>"
