from __future__ import annotations

import pytest

from tests.fakes.configs import warnings_of


def limit_warnings(by: str, listener: str = "", more: str = "") -> list[str]:
    found = warnings_of(
        f"""
        service: s
        listeners:
        - name: l
          port: 1
          {listener}
          routes: [{{action: {{cluster: c, rate_limit: {{requests: 1, per: 1s, by: "{by}"}}}}}}]
        clusters: [{{name: c, endpoints: ["h:1"]}}]
        {more}
        """
    )
    return [text for text in found if "share one bucket" in text]


@pytest.mark.parametrize("by", ["role", "subject", "caller"])
def test_a_limit_by_what_no_request_has_is_warned_of(by: str) -> None:
    (warning,) = limit_warnings(by)
    assert f"by {by}, but" in warning
    assert "listeners[0].routes[0].action.rate_limit" in warning


@pytest.mark.parametrize("by", ["route", "header:X-Key"])
def test_other_limits_are_not(by: str) -> None:
    assert limit_warnings(by) == []


def test_who_verifies_tokens_or_certificates_may_limit_by_them() -> None:
    providers = "rbac: {providers: [{name: p, hs256_secret_env: X}]}"
    assert limit_warnings("subject", more=providers) == []
    secrets = "secrets: {s: {certificate: a, key: b, bundle: c}}"
    assert limit_warnings("caller", "direction: inbound\n          tls: strict", secrets) == []


def test_a_listener_s_own_limit_is_looked_at_too() -> None:
    found = warnings_of(
        "listeners: [{name: l, port: 1, rate_limit: {requests: 1, per: 1s, by: role}}]"
    )
    assert [text for text in found if "listeners[0].rate_limit" in text]
