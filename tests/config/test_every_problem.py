"""No fault hides another: whatever step of loading finds it, it is told of in the same run."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.check import check_files
from hms_addons.config.load import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE_OF_EACH = """\
listeners:
  - name: out
    port: 15001
    routes:
      - { match: { prefix: /a }, action: { cluster: auth-svc } }
      - { match: { prefix: /a/b }, action: { cluster: auth-svc } }
      - { match: { prefix: /c }, action: { cluster: auth-scv } }
      - { match: { prefix: /d }, action: { clusters: [{ name: auth-svc }, { name: pay, weight: 0 }] } }
  - { name: out, port: 15002 }
  - { name: two, port: 15001 }
  - { name: three, port: 15003, secret: s }
clusters:
  - { name: auth-svc, endpoints: ["h:1"], conect_timeout: 1s, idle_timeout: soon }
  - { name: pay, service: auth-svc, endpoints: ["h:1"] }
  - { name: lone-v2, trafficPolicy: weight=10, endpoints: ["h:1"] }
  - { name: idle, endpoints: ["h:1"] }
"""


def test_one_fault_of_each_step_is_told_in_one_run(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE_OF_EACH)
    result = check_files([tmp_path / "a.yaml"])
    found = [str(problem).partition("a.yaml:")[2] for problem in result.problems]
    for place in (
        "6:9: warning: listeners[0].routes[1]: never reached",
        "7:53: listeners[0].routes[2].action.cluster: there is no cluster 'auth-scv'",
        "8:96: warning: listeners[0].routes[3].action.clusters[1].weight: weight 0",
        "9:13: listeners[1].name: the name 'out' is here twice",
        "10:24: listeners[2].port: the port 15001 is taken",
        "11:41: listeners[3].secret: secret belongs to an inbound listener",
        "13:43: clusters[0].conect_timeout: unknown key",
        "13:77: clusters[0].idle_timeout: expected a duration",
        "15:37: clusters[2].trafficPolicy: lone-v2 is to get a share",
        "16:13: warning: clusters[3].name: unused",
    ):
        assert any(line.startswith(place) for line in found), (place, found)
    assert len(found) == 10, found
    assert (result.errors, result.warnings, result.version) == (7, 3, None)


def test_what_cannot_be_read_hides_nothing_in_the_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE_OF_EACH)
    (tmp_path / "b.yaml").write_text("clusters: [")
    (tmp_path / "c.yaml").write_text("- a list")
    files = [tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml", "d.yaml")]
    result = check_files(files)
    assert {problem.file for problem in result.problems} == set(map(str, files))
    text = result.to_text()
    assert all(
        word in text for word in ("here twice", "conect_timeout", "is taken", "never reached")
    )
    # What is not here may be there.
    assert "there is no cluster" not in text
    assert "unused" not in text
    assert result.version is None


class Fault(NamedTuple):
    """Something wrong, and the beginning of what is said of it (after the path)."""

    make: Callable[[dict[str, Any]], Any]
    message: str


def _route(**action: Any) -> dict[str, Any]:
    return {"match": {"prefix": f"/{action['cluster']}"}, "action": action}


BASE: dict[str, Any] = {
    "service": "me",
    "listeners": [
        {"name": f"l{n}", "port": 1000 + n, "routes": [_route(cluster=f"c{n}")]} for n in range(9)
    ],
    "clusters": [{"name": f"c{n}", "endpoints": ["h:1"]} for n in range(9)],
    "secrets": {"s": {"certificate": "/etc/hosts", "key": "/etc/hosts", "bundle": "/etc/hosts"}},
    "rbac": {"providers": [{"name": "p", "jwks_file": "/dev/null"}], "policies": []},
}
for _cluster in BASE["clusters"]:
    _cluster["tls_context"] = {"sds": "s"}
BASE["listeners"][7]["routes"].append(_route(cluster="c8"))


def _action(data: dict[str, Any], n: int) -> dict[str, Any]:
    action: dict[str, Any] = data["listeners"][n]["routes"][0]["action"]
    return action


FAULTS = [
    Fault(lambda d: d["listeners"][0].update(prot=1), "unknown key 'prot'"),
    Fault(lambda d: d["listeners"][0].update(port="x"), "expected a whole number, not 'x'"),
    Fault(lambda d: d["listeners"][1].pop("port"), "the key 'port' is missing"),
    Fault(lambda d: d["listeners"][2].update(port=1003), "the port 1003 is taken by"),
    Fault(lambda d: d["listeners"][4].update(secret="s"), "secret belongs to an inbound"),
    Fault(lambda d: d["listeners"].append({"name": "l5", "port": 1}), "the name 'l5' is here twice"),
    Fault(lambda d: _action(d, 8).update(cluster="nowhere"), "there is no cluster 'nowhere'"),
    Fault(lambda d: _action(d, 5).update(timeout="soon"), "expected a duration such as"),
    Fault(lambda d: _action(d, 6).update(retires=1), "unknown key 'retires'"),
    Fault(
        lambda d: d["listeners"][7]["routes"].append(_route(cluster="c7")),
        "never reached: the earlier route",
    ),
    Fault(lambda d: d["clusters"][0].update(service="x x"), "'x x' cannot be a name"),
    Fault(lambda d: d["clusters"][1].update(connect_timeout=5), "a duration needs a unit"),
    Fault(lambda d: d["clusters"][2].update(dns=5), "expected a list, not 5"),
    Fault(lambda d: d["clusters"][3]["tls_context"].update(sds="no"), "there is no secret 'no'"),
    Fault(lambda d: d["clusters"].append({"name": "c4"}), "the name 'c4' is here twice"),
    Fault(
        lambda d: d["clusters"].append(
            {"name": "spare", "endpoints": ["h:1"], "tls_context": {"sds": "s"}}
        ),
        "unused: no route leads to spare",
    ),
    Fault(lambda d: d["clusters"][6].update(endpoints=["h:99999"]), "the port 99999 is not between"),
    Fault(lambda d: d["clusters"][7].pop("endpoints"), "c7 has no endpoints"),
    Fault(lambda d: d["rbac"]["providers"][0].update(leeway="long"), "expected a duration such as"),
    Fault(lambda d: d["rbac"]["policies"].append({"name": "x"}), "the key 'action' is missing"),
    Fault(lambda d: d.update(governance={"url": "gov"}), "expected a URL such as"),
    Fault(lambda d: d.update(colour="red"), "unknown key 'colour'"),
    Fault(lambda d: d["headers"].update(role="Via") if "headers" in d else d.update(headers={"role": "Via"}), "Via has a meaning"),
]  # fmt: skip


def _told(faults: list[Fault], more: list[tuple[str, bytes]]) -> list[str]:
    data = copy.deepcopy(BASE)
    for fault in faults:
        fault.make(data)
    text = yaml.safe_dump(data, sort_keys=False).encode()
    loaded = load([("a.yaml", text), *more])
    assert (loaded.snapshot is None) is any(p.severity == "error" for p in loaded.problems)
    return [problem.message for problem in loaded.problems]


def test_the_base_is_good_and_each_fault_is_told_alone() -> None:
    assert _told([], []) == []
    for fault in FAULTS:
        (message,) = _told([fault], [])
        assert message.startswith(fault.message)


@given(st.lists(st.sampled_from(FAULTS), unique_by=id))
def test_no_fault_hides_another(faults: list[Fault]) -> None:
    found = _told(faults, [])
    missing = [f.message for f in faults if not any(m.startswith(f.message) for m in found)]
    assert not missing, found
    assert len(found) <= len(faults), "and nothing is told that only follows"


ELSEWHERE = ("there is no", "unused", "c7 has no endpoints", "the key")
"""What cannot be said while a file could not be read: it may be there."""


@given(st.lists(st.sampled_from(FAULTS), unique_by=id))
def test_no_fault_is_hidden_by_a_file_that_cannot_be_read(faults: list[Fault]) -> None:
    found = _told(faults, [("b.yaml", b"a: [")])
    wanted = [f.message for f in faults if not f.message.startswith(ELSEWHERE)]
    assert not [w for w in wanted if not any(m.startswith(w) for m in found)], found
    assert len(found) <= len(faults) + 1
