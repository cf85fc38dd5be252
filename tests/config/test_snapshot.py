from __future__ import annotations

import dataclasses

import pytest

from hms_addons.config.snapshot import EndpointSpec, HeaderNames, Snapshot
from tests.fakes.configs import snapshot_of


def test_a_snapshot_is_frozen() -> None:
    snapshot = Snapshot(version="1", source="test")
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.version = "2"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("a.b", "a.b:80")]
)
def test_an_endpoint_s_address(host: str, address: str) -> None:
    assert EndpointSpec(host=host, port=80).address == address


def test_the_headers_that_the_mesh_owns() -> None:
    assert HeaderNames(role=b"X-R").all == (
        b"X-Policy-Version",
        b"X-R",
        b"X-Caller-Subject",
        b"X-Caller-Service",
    )


def test_the_secrets_that_somebody_asks_for() -> None:
    text = """\
        listeners: [{name: i, port: 1, direction: inbound, tls: strict, secret: s, app: "h:1"}]
        clusters: [{name: a, tls_context: {sds: t}}, {name: b}]
        """
    assert snapshot_of(text, control=True).asked_secrets == {"s", "t"}
