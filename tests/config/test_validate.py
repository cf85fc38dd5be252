from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.load import load
from tests.fakes.configs import errors_of, load_texts, warnings_of


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """Misspelt keys, wrong values and unknown names, each with its place; none hides another."""
    assert errors_of(
        """\
        # a file with many faults
        trust_domian: mpsa.mil
        listeners:
          - name: out
            port: 99999
            routes:
              - match: { prefix: verify }
                action:
                  cluster: auth-scv
                  retrys: 2
                  timeout: soon
              - action: { clusters: [{ name: nope }, { name: auth-svc, weight: x }] }
        clusters:
          - name: auth-svc
            tls_context: { sds: mesh_cert }
        secrets:
          mesh_certs: { certificate: a, key: b, bundle: c }
        """
    ) == [
        "1.yaml:2:1: trust_domian: unknown key 'trust_domian' (did you mean trust_domain?)",
        "1.yaml:5:11: listeners[0].port: must be at most 65535, not 99999",
        (
            "1.yaml:7:26: listeners[0].routes[0].match.prefix: a path begins with '/', not 'verify' "
            "(did you mean /verify?)"
        ),
        (
            "1.yaml:9:20: listeners[0].routes[0].action.cluster: there is no cluster 'auth-scv' "
            "(did you mean auth-svc?)"
        ),
        (
            "1.yaml:10:11: listeners[0].routes[0].action.retrys: unknown key 'retrys' "
            "(did you mean retries?)"
        ),
        (
            "1.yaml:11:20: listeners[0].routes[0].action.timeout: expected a duration such as 250ms, "
            "1s, 5m or 24h, not 'soon'"
        ),
        (
            "1.yaml:12:38: listeners[0].routes[1].action.clusters[0].name: there is no cluster 'nope'; "
            "there are: auth-svc"
        ),
        (
            "1.yaml:12:72: listeners[0].routes[1].action.clusters[1].weight: expected a whole number, "
            "not 'x'"
        ),
        (
            "1.yaml:15:25: clusters[0].tls_context.sds: there is no secret 'mesh_cert' "
            "(did you mean mesh_certs?)"
        ),
    ]


def test_a_secret_is_missed_only_where_others_are_provided() -> None:
    """The seed's file names one that the control plane, or a second file, will provide."""
    alone = "clusters: [{name: a, tls_context: {sds: mesh_certs}}]"
    (warning,) = [line for line in warnings_of(alone) if "secret" in line]
    assert "1.yaml:1:41: warning: clusters[0].tls_context.sds: nothing here provides" in warning
    assert "never in plain text" in warning
    with_other = f"{alone}\nsecrets: {{other: {{certificate: a, key: b, bundle: c}}}}"
    (error,) = errors_of(with_other)
    assert error.endswith("there is no secret 'mesh_certs'; there are: other")


def test_a_listener_s_secret_is_a_reference_too() -> None:
    (error,) = errors_of(
        """\
        listeners:
          - {name: p, port: 1, direction: inbound, tls: strict, secret: x, app: "h:1"}
        secrets: {y: {certificate: a, key: b, bundle: c}}
        """
    )
    assert "listeners[0].secret: there is no secret 'x'" in error


def test_each_file_is_named_for_what_it_wrote() -> None:
    errors = errors_of("clusters: [{name: a}]", "clusters: [{name: a, conect_timeout: 1s}]", "x: 1")
    assert [error.partition(": ")[0] for error in errors] == ["2.yaml:1:22", "3.yaml:1:1"]


def test_a_listener_whose_secret_nothing_provides_is_refused_as_a_sidecar_would() -> None:
    text = "listeners: [{name: i, port: 1, direction: inbound, tls: strict, secret: s, app: 'h:1'}]"
    (error,) = errors_of(text)
    assert "1.yaml:1:73: listeners[0].secret: nothing here provides the secret 's'; add it" in error


def test_syntax_errors_of_all_files_at_once() -> None:
    errors = errors_of("a: [", "ok: 1", "a:\n\tb: 1")
    assert [error.split(":")[0] for error in errors] == ["1.yaml", "2.yaml", "3.yaml"]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["name", "listeners", "clusters", "routes", "match", "action", "cluster", "clusters",
             "tls_context", "sds", "secrets", "secret", "endpoints", "dns", "retries", "rbac",
             "policies", "providers", "headers", "plugins", "trafficPolicy", "port", "x"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["listeners", "clusters", "secrets", "rbac"]), json_like))
def test_no_shape_of_data_breaks_the_checks(data: dict[str, Any]) -> None:
    loaded = load([], base=data)
    assert (loaded.snapshot is None) is any(p.severity == "error" for p in loaded.problems)
    for problem in loaded.problems:
        assert "Input should" not in problem.message
        assert "unknown-" not in problem.message
        assert "(unknown" not in problem.message


def test_an_empty_configuration_is_valid() -> None:
    assert load_texts("").snapshot is not None


def test_the_models_are_whole_before_threads_use_them() -> None:
    code = "import hms_addons.config.validate as v; print(v.Config.__pydantic_complete__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "True\n"
