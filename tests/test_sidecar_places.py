"""Refusals that come after the files were read say where in them the cause is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import ConfigError
from tests.fakes.configs import snapshot_of
from tests.test_sidecar import Running, config

if TYPE_CHECKING:
    from pathlib import Path


async def why(*texts: str) -> str:
    """Why a sidecar does not start with these texts; `/config` says the same."""
    made = Running()
    try:
        with pytest.raises(ConfigError) as caught:
            await made.sidecar.start(snapshot_of(*texts))
        assert made.sidecar.rejected is not None
        assert made.sidecar.rejected["reason"] == str(caught.value)
        return str(caught.value)
    finally:
        await made.sidecar.stop()


async def test_a_balancer() -> None:
    clusters = (
        "clusters:\n  - {name: b, load_balancer: roundrobin}\n  - {name: c, load_balancer: x}\n"
    )
    first, second = (await why(config(1), clusters)).splitlines()
    assert first.startswith("2.yaml:2:30: clusters.b.load_balancer: 'roundrobin' is not known; use")
    assert first.endswith("(did you mean round_robin?)")
    assert second.startswith("2.yaml:3:30: ")


async def test_every_secret_that_cannot_be_loaded(tmp_path: Path) -> None:
    secrets = "\n".join(
        f"  {n}: {{certificate: {tmp_path}/{n}.pem, key: {tmp_path}/k, bundle: {tmp_path}/b}}"
        for n in "ab"
    )
    first, second = (await why(config(1), f"secrets:\n{secrets}\n")).splitlines()
    assert first.startswith("2.yaml:2:")
    assert "a.pem: No such file" in first
    assert second.startswith("2.yaml:3:")


async def test_a_plugin_that_is_not_there() -> None:
    text = "plugins:\n  prob: {}\n"
    reason = await why(config(1), text)
    assert reason.startswith("2.yaml:2:3: plugins.prob: no plugin of this name is here (")
    assert reason.endswith("(did you mean probe?)")


async def test_a_plugin_that_refuses_its_options() -> None:
    made = Running()
    made.probe.refuses = "auth-svc"
    try:
        with pytest.raises(
            ConfigError, match="'probe' refused the configuration: 2.yaml:1:11: not"
        ):
            await made.sidecar.start(snapshot_of(config(1), "plugins: {probe: {}}"))
    finally:
        await made.sidecar.stop()


async def test_options_of_a_plugin_that_is_left_out_are_no_fault() -> None:
    made = Running()
    made.sidecar.plugins.load_entry_points(["stamp"])
    try:
        await made.sidecar.start(snapshot_of(config(1), "plugins: {stamp: {value: x}}"))
        assert made.sidecar.ready
    finally:
        await made.sidecar.stop()
