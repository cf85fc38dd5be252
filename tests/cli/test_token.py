from __future__ import annotations

import pytest

from tests.fakes.cli import hms
from tests.fakes.threaded_control import threaded

MADE = {"token": "hms1.1f2e3d4c5b6a.secret", "id": "1f2e3d4c5b6a", "service": "a", "expires": 0}


def test_the_token_alone_goes_to_standard_output() -> None:
    with threaded({("POST", "/v1/tokens"): (201, MADE)}) as env:
        result = hms("token", "create", "--service", "auth-svc", "--ttl", "2h", env=env)
    assert result.exit_code == 0
    assert result.stdout == "hms1.1f2e3d4c5b6a.secret\n"
    assert result.stderr == "good for one sidecar of auth-svc, for 2h; it is not shown again\n"


def test_as_json() -> None:
    with threaded({("POST", "/v1/tokens"): (201, MADE)}) as env:
        result = hms("token", "create", "--service", "auth-svc", "--json", env=env)
    assert '"id": "1f2e3d4c5b6a"' in result.stdout
    assert result.stderr == ""


def test_list_and_revoke() -> None:
    answers = {
        ("GET", "/v1/tokens"): (200, {"tokens": []}),
        ("DELETE", "/v1/tokens/1f2e3d4c5b6a"): (204, b""),
        ("DELETE", "/v1/tokens/none"): (404, {"detail": "there is no token with this id"}),
    }
    with threaded(answers) as env:
        assert "there is no token" in hms("token", "list", env=env).stdout
        assert hms("token", "revoke", "1f2e3d4c5b6a", env=env).exit_code == 0
        missing = hms("token", "revoke", "none", env=env)
    assert missing.exit_code == 1
    assert "there is no token with this id" in missing.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create"], "--service"),
        (["create", "--service", "a", "--ttl", "soon"], "--ttl soon"),
        (["create", "--service", "a"], "--control"),
        (["revoke"], "ID"),
    ],
)
def test_usage_errors(words: list[str], said: str) -> None:
    result = hms("token", *words, env={"HMS_CONTROL": "", "HMS_CA_PIN": "", "HMS_ADMIN_TOKEN": ""})
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("word", ["../x", "", "hms1.1f2e3d4c5b6a.not-to-be-shown", "a?b", "1F2E"])
def test_what_is_no_id_is_not_sent(word: str) -> None:
    env = {"HMS_CONTROL": "https://127.0.0.1:1", "HMS_CA_PIN": "", "HMS_ADMIN_TOKEN": "x"}
    result = hms("token", "revoke", word, env=env)
    assert result.exit_code == 2
    assert result.stderr == "hms: revoke: that is no token's ID; `hms token list` shows them\n"
