from __future__ import annotations

from typing import Any

import pytest

from hms_addons.config.plugin_options import plugin_options
from hms_addons.config.problems import Place
from hms_addons.config.schema_base import Model, PositiveDuration
from hms_addons.errors import ConfigError
from tests.fakes.exchange import make_snapshot


class Inner(Model):
    deep: int = 1


class Options(Model):
    url: str
    timeout: PositiveDuration = 1.0
    inner: Inner = Inner()


def read(options: dict[str, Any]) -> Options | None:
    return plugin_options(make_snapshot(plugins={"x": options}), "x", Options)


def test_what_is_not_configured_has_no_options() -> None:
    assert plugin_options(make_snapshot(), "x", Options) is None


def test_values_are_read_as_everywhere_in_a_configuration() -> None:
    assert read({"url": "u", "timeout": "250ms"}) == Options(url="u", timeout="250ms")  # type: ignore[arg-type]
    assert read({"url": "u", "timeout": "250ms"}).timeout == 0.25  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "plugins.x: the key 'url' is missing"),
        ({"url": 7}, "plugins.x.url: Input should be a valid string, not 7"),
        ({"url": "u", "timeout": 5}, "plugins.x.timeout: a duration needs a unit"),
        (
            {"url": "u", "timeuot": "1s"},
            "plugins.x.timeuot: there is no such option (did you mean timeout?)",
        ),
        ({"url": "u", "zzzzz": 1}, "known here: inner, timeout, url"),
        ({"url": "u", "inner": {"depe": 1}}, "plugins.x.inner.depe: there is no such option"),
    ],
)
def test_a_fault_is_told_with_its_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(options)
    assert message in str(caught.value)


def test_several_faults_are_told_at_once_and_with_their_places() -> None:
    snapshot = make_snapshot(
        plugins={"x": {"url": 1, "timeout": "soon"}},
        places={"plugins.x.timeout": Place("mesh.yaml", 4, 5)},
    )
    with pytest.raises(ConfigError) as caught:
        plugin_options(snapshot, "x", Options)
    first, second = str(caught.value).splitlines()
    assert first.startswith("plugins.x.url: ")
    assert second.startswith("mesh.yaml:4:5")
    assert "expected a duration" in second
