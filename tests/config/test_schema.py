from __future__ import annotations

import pytest

from hms_addons.config.schema import Config
from tests.fakes.configs import errors_of


def error(text: str) -> str:
    (found,) = errors_of(text)
    return found.partition(" ")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listners: []", "listners: unknown key 'listners' (did you mean listeners?)"),
        ("listeners:", "listeners: expected a list, not nothing"),
        ("listeners: [5]", "listeners[0]: expected a mapping (keys and values), not 5"),
        ("listeners: [{port: 1}]", "listeners[0]: the key 'name' is missing"),
        (
            "listeners: [{name: a, port: '80'}]",
            "listeners[0].port: expected a whole number, not '80' (did you mean 80, without quotes?)",
        ),
        (
            "listeners: [{name: a, port: 65536}]",
            "listeners[0].port: must be at most 65535, not 65536",
        ),
        (
            "listeners: [{name: 5, port: 1}]",
            'listeners[0].name: expected a text, not 5 (did you mean "5"?)',
        ),
        (
            "listeners: [{name: a, port: 1, direction: outbond}]",
            "listeners[0].direction: expected outbound or inbound, not 'outbond' (did you mean outbound?)",
        ),
        (
            "listeners: [{name: a, port: 1, direction: inbound}]",
            "listeners[0]: an inbound listener needs `app`, the local app's address, or routes",
        ),
        (
            "listeners: [{name: a, port: 1, app: 'h:1'}]",
            "listeners[0].app: app belongs to an inbound listener; add direction: inbound",
        ),
        (
            "listeners: [{name: a, port: 1, tls: strict}]",
            (
                "listeners[0].tls: an outbound listener is plain: only the local app calls it "
                "(did you mean direction: inbound?)"
            ),
        ),
        (
            (
                "secrets: {s: {certificate: a, key: b, bundle: c}}\n"
                "listeners: [{name: a, port: 1, direction: inbound, app: 'h:1', secret: s}]"
            ),
            "listeners[0].secret: a secret is used only with tls: strict or permissive",
        ),
        (
            "listeners: [{name: a, port: 1, direction: inbound, app: 'https://h:1'}]",
            (
                "listeners[0].app: expected the app's address, as http://127.0.0.1:8080, not "
                "'https://h:1' (plain HTTP, without a path)"
            ),
        ),
        (
            "listeners: [{name: a, port: 1, limits: {max_body: lots}}]",
            (
                "listeners[0].limits.max_body: expected a size such as 64KiB, 1MiB or a number of "
                "bytes, not 'lots'"
            ),
        ),
        (
            "clusters: [{name: a, endpoints: [localhost]}]",
            "clusters[0].endpoints[0]: expected host:port, as 127.0.0.1:9001 or [::1]:9001, not 'localhost'",
        ),
        (
            "clusters: [{name: a, endpoints: [{address: 'h:1', wieght: 2}]}]",
            "clusters[0].endpoints[0].wieght: unknown key 'wieght' (did you mean weight?)",
        ),
        (
            "clusters: [{name: a, endpoints: 'h:1'}]",
            "clusters[0].endpoints: expected a list, not 'h:1' (did you mean [h:1]?)",
        ),
        (
            "clusters: [{name: a, outlier_detection: 5}]",
            "clusters[0].outlier_detection: expected a mapping, or false to switch it off, not 5",
        ),
        (
            "clusters: [{name: a-v2, trafficPolicy: wait=10}]",
            "clusters[0].trafficPolicy: expected weight=10 or a mapping with weight, not 'wait=10'",
        ),
        (
            "clusters: [{name: a-v2, trafficPolicy: weight=101}]",
            "clusters[0].trafficPolicy.weight: must be at most 100, not 101",
        ),
        (
            "clusters: [{name: a-v2, traffic_policy: weight=10}, {name: a}]",
            "clusters[0].traffic_policy: unknown key 'traffic_policy' (did you mean trafficPolicy?)",
        ),
        (
            "clusters: [{name: a, tls_context: {}}]",
            "clusters[0].tls_context: the key 'sds' is missing",
        ),
        (
            "clusters: [{name: a, tls_context: {sds: s, peer: x}}]",
            (
                "clusters[0].tls_context.peer: 'x' is not a SPIFFE ID: it must begin with 'spiffe://' "
                "in lower case"
            ),
        ),
        (
            "clusters: [{name: a, healthy: {path: /}}]",
            (
                "clusters[0].healthy: unknown key 'healthy'; known here: circuit_breakers, "
                "connect_timeout, dns, endpoints, failover, hash_on, health_check, idle_timeout, "
                "load_balancer, name, outlier_detection, panic_threshold, service, slow_start, "
                "tls_context, trafficPolicy"
            ),
        ),
        ("secrets: {s: {key: k}}", None),
        (
            "secrets: {'a b': {certificate: c, key: k, bundle: b}}",
            (
                "secrets.a b: 'a b' cannot be a name: use letters, digits, '.', '_' and '-', at most "
                "128, the first a letter or a digit"
            ),
        ),
        ("plugins: {a: 5}", "plugins.a: expected a mapping (keys and values), not 5"),
        (
            "trust_domain: MPSA.mil",
            (
                "trust_domain: trust domain 'MPSA.mil' has characters outside a-z 0-9 . _ - "
                "(no capitals, port, user or percent-encoding)"
            ),
        ),
    ],
)
def test_messages(text: str, message: str | None) -> None:
    if message is None:
        assert [line.partition(" ")[2] for line in errors_of(text)] == [
            "secrets.s: the key 'certificate' is missing",
            "secrets.s: the key 'bundle' is missing",
        ]
    else:
        assert error(text) == message


def test_short_forms() -> None:
    config = Config.model_validate(
        {
            "clusters": [
                {
                    "name": "a",
                    "endpoints": ["h:1", {"address": "h:2"}],
                    "dns": "d:3",
                    "trafficPolicy": "weight = 10%",
                    "outlier_detection": True,
                },
                {
                    "name": "b",
                    "dns": [{"address": "d:4", "weight": 2}, "d:5"],
                    "outlier_detection": False,
                },
            ]
        }
    )
    first, second = config.clusters
    assert [endpoint.address for endpoint in first.endpoints] == ["h:1", "h:2"]
    assert [endpoint.address for endpoint in first.dns or ()] == ["d:3"]
    assert first.trafficPolicy is not None
    assert first.trafficPolicy.weight == 10
    assert first.outlier_detection is not None
    assert second.outlier_detection is None
    assert len(second.dns or ()) == 2


def test_every_key_has_a_description() -> None:
    """It is what an editor shows, and what the example is checked against by eye."""

    def undescribed(schema: dict[str, object], at: str) -> list[str]:
        properties = schema.get("properties", {})
        assert isinstance(properties, dict)
        return [f"{at}.{key}" for key, value in properties.items() if not value.get("description")]

    schema = Config.model_json_schema()
    missing = undescribed(schema, "")
    for name, definition in schema["$defs"].items():
        missing += undescribed(definition, name)
    assert not missing
