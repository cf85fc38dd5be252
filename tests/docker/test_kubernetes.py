"""docker/kubernetes.yaml, read: what a cluster would refuse, and what would make it unsafe."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hms_addons.sidecar import DRAIN_GRACE
from tests.docker.kit import DOCKER, PORTS, USER, manifests, named_variables, variables
from tests.fakes.cli import hms

FOUND = manifests()
AUTH = FOUND["Deployment/auth-svc"]["spec"]["template"]["spec"]
CONTROL = FOUND["StatefulSet/hms-control"]["spec"]["template"]["spec"]
PODS = {"auth-svc": AUTH, "hms-control": CONTROL}
CONTAINERS: dict[str, dict[str, Any]] = {
    f"{pod}/{it['name']}": it
    for pod, spec in PODS.items()
    for it in (*spec.get("initContainers", ()), *spec["containers"])
}
SIDECAR = CONTAINERS["auth-svc/hms-sidecar"]
API = {
    "Namespace": "v1",
    "Service": "v1",
    "StatefulSet": "apps/v1",
    "Deployment": "apps/v1",
}


def test_each_object_has_its_version_and_the_one_namespace() -> None:
    for it in FOUND.values():
        assert it["apiVersion"] == API[it["kind"]]
        if it["kind"] != "Namespace":
            assert it["metadata"]["namespace"] == "lost-package"


def test_selectors_find_the_pods_that_they_are_for() -> None:
    for key in ("Deployment/auth-svc", "StatefulSet/hms-control"):
        spec = FOUND[key]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    service = FOUND["Service/hms-control"]["spec"]
    assert (
        service["selector"] == FOUND["StatefulSet/hms-control"]["spec"]["selector"]["matchLabels"]
    )
    assert FOUND["StatefulSet/hms-control"]["spec"]["serviceName"] == "hms-control"


def test_the_sidecar_is_a_native_one_that_starts_after_it_has_a_token() -> None:
    first, second = AUTH["initContainers"]
    assert first["command"] == ["hms-handover", "join"]
    assert "restartPolicy" not in first
    assert second is SIDECAR
    assert second["restartPolicy"] == "Always"


def test_readiness_is_the_sidecars_own() -> None:
    assert SIDECAR["readinessProbe"]["exec"]["command"] == ["hms-probe", "ready"]
    assert SIDECAR["startupProbe"]["exec"]["command"] == ["hms-probe", "ready"]
    assert SIDECAR["livenessProbe"]["exec"]["command"] == ["hms-probe", "live"]


def test_the_pods_end_leaves_time_to_drain() -> None:
    *probe, seconds = SIDECAR["lifecycle"]["preStop"]["exec"]["command"]
    assert probe == ["hms-probe", "drain"]
    assert DRAIN_GRACE < int(seconds) < AUTH["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("pod", PODS)
def test_each_pod_is_what_the_restricted_level_demands(pod: str) -> None:
    context = PODS[pod]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["fsGroup"] == USER
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert PODS[pod]["automountServiceAccountToken"] is False
    assert "hostNetwork" not in PODS[pod]


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_container_has_no_rights_and_a_read_only_root(name: str) -> None:
    assert CONTAINERS[name]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in CONTAINERS[name]["resources"]["limits"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_it_mounts_the_pod_has(name: str) -> None:
    spec = PODS[name.split("/", maxsplit=1)[0]]
    has = {volume["name"] for volume in spec.get("volumes", ())}
    claims = FOUND["StatefulSet/hms-control"]["spec"]["volumeClaimTemplates"]
    has |= {claim["metadata"]["name"] for claim in claims} if spec is CONTROL else set()
    assert {mount["name"] for mount in CONTAINERS[name].get("volumeMounts", ())} <= has


def test_only_the_one_that_makes_a_token_sees_the_admin_token() -> None:
    sees = [name for name, it in CONTAINERS.items() if "hms-operator" in str(it)]
    assert sees == ["auth-svc/join"]


def test_every_variable_is_one_that_hms_reads_and_ports_are_the_meshs() -> None:
    text = (DOCKER / "kubernetes.yaml").read_text(encoding="utf-8")
    assert named_variables(text) <= variables()
    ports = {port["containerPort"] for it in CONTAINERS.values() for port in it.get("ports", ())}
    assert ports <= PORTS
    assert FOUND["Service/hms-control"]["spec"]["ports"][0]["targetPort"] == "control"


def test_each_variable_has_a_text_or_a_source() -> None:
    for it in CONTAINERS.values():
        for variable in it.get("env", ()):
            assert isinstance(variable.get("value", ""), str)
            assert ("value" in variable) is not ("valueFrom" in variable)


def test_the_container_that_makes_rules_is_a_sound_one_once_it_is_wanted() -> None:
    """It is commented out; without the signs it is YAML, in its place, and alone has a capability."""
    text = (DOCKER / "kubernetes.yaml").read_text(encoding="utf-8")
    begin = text.index("        # - name: redirect")
    end = text.index("        # A native sidecar")
    wanted = text[:begin] + text[begin:end].replace("        # ", "        ") + text[end:]
    spec = next(
        it["spec"]["template"]["spec"]
        for it in yaml.safe_load_all(wanted)
        if it["kind"] == "Deployment"
    )
    names = [it["name"] for it in spec["initContainers"]]
    assert names == ["join", "redirect", "hms-sidecar"], "before the sidecar and the app"
    redirect = spec["initContainers"][1]
    context = redirect["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert context["readOnlyRootFilesystem"]
    assert "restartPolicy" not in redirect
    others = [it for it in (*spec["initContainers"], *spec["containers"]) if it is not redirect]
    assert all("add" not in it["securityContext"]["capabilities"] for it in others)
    assert hms(*("iptables", *redirect["args"][:-1])).exit_code == 0
    assert redirect["args"][-1] == "--apply"
