"""The README's plugin, read from it and put into a sidecar's chain."""

from __future__ import annotations

import re
from random import Random
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.bootstrap import build_plugins
from hms_addons.exchange import Principal
from tests.conftest import ROOT
from tests.fakes.exchange import make_exchange, make_route, make_snapshot

if TYPE_CHECKING:
    from hms_addons.plugins import PluginManager


def plugin_text() -> str:
    """The block of Python under "Policy in ten lines"."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(
        r" *```python\n(.*?)```", text[text.index("Policy in ten lines") :], re.DOTALL
    )
    assert block is not None
    return dedent(block[1])


@pytest.fixture
def plugins() -> PluginManager:
    made: dict[str, Any] = {}
    exec(compile(plugin_text(), "README.md", "exec"), made)
    plugins = build_plugins(None, Random(0))
    plugins.register(made["OfficeHours"](), "office-hours")
    return plugins


def test_it_has_about_ten_lines() -> None:
    assert len([line for line in plugin_text().splitlines() if line]) <= 10


@pytest.mark.parametrize(
    ("method", "role", "refused"),
    [("POST", "AUDITOR", True), ("GET", "AUDITOR", False), ("POST", "CLERK", False)],
)
async def test_auditors_may_look_but_not_change(
    plugins: PluginManager, method: str, role: str, *, refused: bool
) -> None:
    snapshot = make_snapshot()
    plugins.configure(snapshot, None)
    exchange = make_exchange(method=method, snapshot=snapshot, route=make_route())
    exchange.principal = Principal(subject="x", roles=(role,))
    for hook in plugins.hooks("hms_authorize"):
        hook.call(exchange)
    denied = exchange.failure
    assert (denied is not None) is refused
    if denied is not None:
        assert (denied.status, denied.flag) == (403, "RBAC")
        assert denied.detail == "auditors may look, not change"
