from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from hms_plugin_stamp import Stamp
from mitmproxy.test import tflow

from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Direction, Listener, Snapshot
from hms_addons.errors import ConfigError
from hms_addons.exchange import Exchange
from hms_addons.http_message import Answer
from hms_addons.plugins import PluginManager

LISTENER = Listener(
    name="app", host="127.0.0.1", port=15001, direction=Direction.OUTBOUND, routes=RouteTable()
)


def snapshot(**options: Any) -> Snapshot:
    return Snapshot(version="1", source="test", plugins={"stamp": options})


def stamps(answer: Answer) -> list[bytes]:
    return [value for name, value in answer.fields if name.lower() == b"x-stamp"]


def respond(plugin: Stamp, current: Snapshot, *fields: tuple[bytes, bytes]) -> Answer:
    """What becomes of an answer, in the chain that a sidecar would run."""
    plugins = PluginManager()
    plugins.register(plugin, "stamp")
    plugins.configure(current, None)
    exchange = Exchange(tflow.tflow(), current, LISTENER, started=0.0)
    exchange.answer = Answer(200, b"OK", fields, b"hello")
    asyncio.run(plugins.compile_chain(Random(1)).respond(exchange))
    return exchange.answer


def test_every_answer_is_stamped() -> None:
    answer = respond(Stamp(), snapshot(value="by claims-svc"), (b"Server", b"nginx"))
    assert answer.fields == ((b"Server", b"nginx"), (b"X-Stamp", b"by claims-svc"))


def test_a_stamp_of_somebody_elses_is_replaced() -> None:
    assert stamps(respond(Stamp(), snapshot(), (b"x-stamp", b"forged"))) == [b"hms"]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"valeu": "x"}, r"plugins\.stamp\.valeu: there is no such option"),
        ({"value": 7}, r"plugins\.stamp\.value"),
        ({"value": "a\r\nSet-Cookie: b"}, r"plugins\.stamp\.value"),
        ({"value": "é"}, r"plugins\.stamp\.value"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Stamp().hms_configure(snapshot(**options))


def test_a_refused_change_leaves_the_old_value() -> None:
    plugin = Stamp()
    plugin.hms_configure(snapshot(value="old"))
    with pytest.raises(ConfigError):
        plugin.hms_configure(snapshot(value="\n"))
    plugin.hms_configure(snapshot(value="old"))
    assert stamps(respond(plugin, snapshot(value="old"))) == [b"old"]
