"""Tunnels that are open when the policy changes, in a real sidecar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.integration.basics import free_port, until
from tests.integration.clients import Connection
from tests.integration.processes import hms_sidecar

if TYPE_CHECKING:
    from tests.integration.conftest import ConfigFile
    from tests.integration.servers import Upstream, Visit

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"


async def echo_chat(visit: Visit) -> bool:
    await visit.send(SWITCHING)
    while data := await visit.reader.read(100):
        await visit.send(data.upper())
    return False


def config_text(port: int, app: int, policies: str = "") -> str:
    return f"""
        listeners:
          - {{name: out, port: {port}, routes: [{{match: {{prefix: /}}, action: {{cluster: app}}}}]}}
        clusters: [{{name: app, endpoints: ["127.0.0.1:{app}"]}}]
        rbac:
          audit_log: {{path: audit.log}}
          policies: [{policies}]
        """


def opened(port: int, path: str) -> Connection:
    connection = Connection(port)
    connection.request("GET", path, "Connection: Upgrade", "Upgrade: chat")
    assert connection.head().status == 101
    connection.send(b"a;")
    assert connection.read_until(b";") == b"A;"
    return connection


def test_a_tunnel_that_a_new_policy_denies_is_closed_and_the_others_go_on(
    config: ConfigFile, app: Upstream
) -> None:
    port = free_port()
    denied, allowed = app.on("/denied", echo_chat), app.on("/allowed", echo_chat)
    file = config.write(config_text(port, app.port))
    with hms_sidecar("--config", file) as sidecar:
        sidecar.wait_listening(port)
        with opened(port, denied) as first, opened(port, allowed) as second:
            policy = f"{{name: lately, action: DENY, paths: ['{denied}*']}}"
            config.write(config_text(port, app.port, policy))
            assert first.ended
            sidecar.wait_for("does not allow it: policy 'lately' denies GET")
            second.send(b"b;")
            assert second.read_until(b";") == b"B;"
        log = file.parent / "audit.log"
        until(lambda: log.read_text().count('"decision":"denied"') == 1, "the refusal's line")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    about = [(line["decision"], line["policy"]) for line in lines if line["path"] == denied]
    assert about == [("allowed", None), ("denied", "lately")]
