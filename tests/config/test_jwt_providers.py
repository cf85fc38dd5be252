from __future__ import annotations

import pytest

from hms_addons.config.jwt_providers import make_provider
from hms_addons.config.snapshot import JwtProvider
from hms_addons.errors import ConfigError


def test_a_provider_without_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="'p' has no keys"):
        make_provider(JwtProvider(name="p"), {})


def test_a_secret_is_looked_up_in_the_environment_it_is_given() -> None:
    spec = JwtProvider(name="p", algorithms=("HS256",), hs256_secret_env="S")
    assert make_provider(spec, {"S": "x" * 32}).problem is None
    problem = make_provider(spec, {}).problem
    assert problem is not None
    assert "S" in problem


def test_keys_that_are_not_there_yet_are_its_problem() -> None:
    problem = make_provider(JwtProvider(name="p", jwks_file="/no/such.json"), {}).problem
    assert problem is not None
    assert "/no/such.json" in problem
