from __future__ import annotations

import pytest

from hms_addons.config.load import load

FETCHED = "rbac: {{providers: [{{name: p, jwks_uri: '{}'}}]}}"
PROVIDERS = "rbac: {providers: [{name: p, hs256_secret_env: S}]}\n"
INBOUND = ", {name: in, port: 2, direction: inbound, app: 'http://127.0.0.1:1'}"


def told(text: str, about: str, *, control: bool = False) -> list[str]:
    problems = load([("a.yaml", text.encode())], control=control).problems
    return [problem.message for problem in problems if about in problem.path]


@pytest.mark.parametrize(
    ("uri", "warned"),
    [
        ("http://id.example/keys?t=1", True),
        ("http://12.7.0.1/", True),
        ("https://id.example/keys?t=1", False),
        ("http://127.0.0.1:8000/keys", False),
        ("http://localhost/keys", False),
        ("http://[::1]/keys", False),
    ],
)
def test_keys_over_plain_http_from_elsewhere_are_warned_of(uri: str, warned: bool) -> None:
    found = told(FETCHED.format(uri), "jwks_uri")
    assert len(found) == warned
    assert all("can put keys of his own in" in message for message in found)


def test_identity_that_nothing_could_be_taken_from_is_warned_of() -> None:
    begin = f"{PROVIDERS}listeners: [{{name: out, port: 1, propagate_identity: true}}"
    (found,) = told(f"{begin}]", "propagate_identity")
    assert "there is no inbound listener" in found
    assert told(f"{begin}{INBOUND}]", "propagate_identity") == []
    assert told(f"{begin}]", "propagate_identity", control=True) == []
