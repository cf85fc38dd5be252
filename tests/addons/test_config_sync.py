"""The plugin's parts that `tests/test_joining.py` does not meet on the way."""

from __future__ import annotations

import pytest

from hms_addons.addons.config_sync import _advertised, _app
from tests.fakes.configs import snapshot_of


@pytest.mark.parametrize(
    ("told", "host", "known"),
    [
        (None, "10.0.0.1", "10.0.0.1:15006"),
        (None, "fd00::1", "[fd00::1]:15006"),
        (None, "", None),
        ("peer.example", "10.0.0.1", "peer.example:15006"),
        ("peer.example:9", "10.0.0.1", "peer.example:9"),
        ("fd00::2", "10.0.0.1", "[fd00::2]:15006"),
        ("[fd00::2]", "10.0.0.1", "[fd00::2]:15006"),
        ("[fd00::2]:9", "", "[fd00::2]:9"),
        ("peer.example", "", "peer.example:15006"),
    ],
)
def test_what_the_registry_is_told(told: str | None, host: str, known: str | None) -> None:
    assert _advertised(told, host, "15006") == known


def test_the_app_is_that_of_the_inbound_listener() -> None:
    listeners = """\
        listeners:
          - {name: out, port: 1, routes: [{action: {cluster: a}}]}
          - {name: in, port: 2, direction: inbound, app: "127.0.0.1:8080"}
        clusters: [{name: a}]
        """
    app = _app(snapshot_of(listeners))
    assert app is not None
    assert app.port == 8080
    assert _app(snapshot_of("{}")) is None
    assert _app(None) is None
