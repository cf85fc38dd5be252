from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.load import load
from hms_addons.control.completion import as_json, joined, own_part, service_of, shared_part
from hms_addons.control.registry import Instance

DOMAIN = "mpsa.mil"


def registered(*instances: Instance) -> dict[str, list[Instance]]:
    services: dict[str, list[Instance]] = {}
    for instance in instances:
        services.setdefault(instance.service, []).append(instance)
    return services


def at(port: int, service: str = "auth-svc", version: str = "", **more: Any) -> Instance:
    return Instance(f"i{port}", service, f"10.0.0.1:{port}", version=version, **more)


def clusters(text: str, *instances: Instance) -> dict[str, Any]:
    made = shared_part(yaml.safe_load(text) or {}, registered(*instances))
    return {cluster["name"]: cluster for cluster in made.get("clusters", [])}


def ports(cluster: dict[str, Any]) -> list[int]:
    return [int(e["address"].rpartition(":")[2]) for e in cluster["endpoints"]]


def document(text: str, service: str, *instances: Instance) -> dict[str, Any]:
    config = yaml.safe_load(text) or {}
    own = as_json(own_part(config, service, DOMAIN))
    made: dict[str, Any] = json.loads(
        joined(own, as_json(shared_part(config, registered(*instances))))
    )
    return made


def test_a_cluster_without_endpoints_gets_its_services_instances() -> None:
    found = clusters("clusters: [{name: auth-svc, load_balancer: random}]", at(1), at(2))
    assert found["auth-svc"]["load_balancer"] == "random"
    assert ports(found["auth-svc"]) == [1, 2]


def test_what_is_written_stays() -> None:
    found = clusters(
        "clusters: [{name: auth-svc, endpoints: ['h:9']}, {name: pay-svc, dns: 'p:9'}]",
        at(1),
        at(2, "pay-svc"),
    )
    assert found["auth-svc"]["endpoints"] == ["h:9"]
    assert "endpoints" not in found["pay-svc"]


def test_a_canary_gets_its_version_and_the_base_the_others() -> None:
    text = "clusters: [{name: auth-svc}, {name: auth-svc-v2, trafficPolicy: weight=10}]"
    found = clusters(text, at(1), at(2, version="v1"), at(3, version="v2"))
    assert ports(found["auth-svc"]) == [1, 2]
    assert ports(found["auth-svc-v2"]) == [3]


def test_a_canary_may_be_a_service_of_its_own() -> None:
    text = "clusters: [{name: auth-svc}, {name: auth-svc-v2, trafficPolicy: weight=10}]"
    found = clusters(text, at(1), at(2, "auth-svc-v2"), at(3, version="v2"))
    assert ports(found["auth-svc"]) == [1]
    assert ports(found["auth-svc-v2"]) == [3, 2]
    assert set(found) == {"auth-svc", "auth-svc-v2"}


def test_a_clusters_service_may_be_written() -> None:
    text = "clusters: [{name: blue, service: auth-svc}, {name: auth-svc}]"
    found = clusters(text, at(1), at(2, version="v2"), at(3, "blue"))
    assert ports(found["auth-svc"]) == [1, 2]
    assert ports(found["blue"]) == [3]


def test_nobody_there_is_an_empty_cluster() -> None:
    assert clusters("clusters: [{name: auth-svc}]")["auth-svc"]["endpoints"] == []


def test_every_registered_service_just_works() -> None:
    found = clusters("", at(1), at(2, "jobs-v3"))
    assert found["auth-svc"] == {
        "name": "auth-svc",
        "endpoints": [{"address": "10.0.0.1:1"}],
        "tls_context": {"sds": "mesh_certs"},
    }
    assert found["jobs-v3"]["service"] == "jobs-v3"


def test_weights_zones_and_those_that_get_nothing() -> None:
    found = clusters("", at(1, weight=3, zone="b", priority=1), at(2, weight=0))
    assert found["auth-svc"]["endpoints"] == [
        {"address": "10.0.0.1:1", "weight": 3, "zone": "b", "priority": 1}
    ]


def test_an_address_that_is_registered_twice_is_one_endpoint() -> None:
    again = Instance("other", "auth-svc", "10.0.0.1:1", weight=5)
    assert clusters("", at(1), again)["auth-svc"]["endpoints"] == [
        {"address": "10.0.0.1:1", "weight": 5}
    ]


def test_names_that_differ_only_in_case_harm_nobody() -> None:
    found = clusters("clusters: [{name: auth-svc}]", at(1, "AUTH-svc"))
    assert set(found) == {"auth-svc"}


def test_a_document_is_scoped_and_holds_no_secret() -> None:
    text = """
    trust_domain: mpsa.mil
    service: nobody
    zone: nowhere
    secrets: {s: {certificate: a, key: b, bundle: c}}
    listeners:
      - {name: all, port: 1}
      - {name: mine, port: 2, services: [auth-svc, x]}
      - {name: other, port: 3, services: [x]}
    governance: {url: "http://127.0.0.1:1"}
    """
    assert document(text, "auth-svc") == {
        "service": "auth-svc",
        "trust_domain": DOMAIN,
        "listeners": [{"name": "all", "port": 1}, {"name": "mine", "port": 2}],
        "governance": {"url": "http://127.0.0.1:1"},
    }


def test_nothing_pushed_and_nobody_there_is_a_document_too() -> None:
    assert document("", "x") == {"service": "x", "trust_domain": DOMAIN, "listeners": []}


NAMES = st.sampled_from(["a", "a-v1", "a-v2", "b", "b-v1", "c"])
CLUSTERS = st.lists(
    st.builds(
        lambda name, service, where: (
            {"name": name} | ({"service": service} if service else {}) | where
        ),
        NAMES,
        st.none() | NAMES,
        st.sampled_from([{}, {"endpoints": []}, {"endpoints": ["h:1"]}, {"dns": "h:1"}]),
    ),
    unique_by=lambda cluster: cluster["name"],
)
INSTANCES = st.lists(
    st.builds(
        lambda n, service, version, weight: Instance(
            f"i{n}", service, f"10.0.0.{n}:1", version, weight
        ),
        st.integers(1, 9),
        st.sampled_from(["a", "A", "a-v1", "b", "d", "d-v1"]),
        st.sampled_from(["", "v1", "v2"]),
        st.integers(0, 2),
    ),
    max_size=8,
)


@given(CLUSTERS, INSTANCES)
def test_whatever_was_accepted_makes_a_document_that_a_sidecar_takes(
    written: list[dict[str, Any]], instances: list[Instance]
) -> None:
    text = yaml.safe_dump({"clusters": written})
    if load([("mesh.yaml", text.encode())], control=True).snapshot is None:
        return
    made = document(text, "a", *instances)
    loaded = load([], base=made, service="a", control=True)
    assert loaded.snapshot is not None, loaded.problems
    names = [cluster["name"] for cluster in made.get("clusters", [])]
    assert names[: len(written)] == [cluster["name"] for cluster in written]
    for instance in instances:
        known = {n.lower() for c in made["clusters"] for n in (c["name"], service_of(c))}
        assert instance.service.lower() in known


def test_endpoints_from_the_registry_are_checked_as_their_cluster_says() -> None:
    text = "clusters: [{name: auth-svc, health_check: {path: /health, interval: 2s}}]"
    made = document(text, "claims-svc", at(1), at(2))
    loaded = load([], base=made, service="claims-svc", control=True)
    assert loaded.snapshot is not None, loaded.problems
    cluster = loaded.snapshot.clusters["auth-svc"]
    assert [endpoint.port for endpoint in cluster.endpoints] == [1, 2]
    assert cluster.health_check is not None
    assert (cluster.health_check.path, cluster.health_check.interval) == ("/health", 2.0)
