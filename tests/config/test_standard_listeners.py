from __future__ import annotations

from typing import Any

import pytest

from hms_addons.config.load import load
from hms_addons.config.standard_listeners import ListenerOptionError, StandardListeners


def listeners(options: StandardListeners, *written: dict[str, Any]) -> list[dict[str, Any]]:
    """What a sidecar with these options has, as it was merged."""
    base = {"service": "x", "trust_domain": "mpsa.mil", "listeners": list(written)}
    snapshot = load([], base=base, finish=options.finish, control=True).snapshot
    assert snapshot is not None
    return list(snapshot.document["listeners"])


OUT = {"name": "a", "port": 1}
IN = {"name": "b", "port": 2, "direction": "inbound", "app": "127.0.0.1:3"}


def test_a_sidecar_that_is_told_nothing_has_both() -> None:
    assert listeners(StandardListeners()) == [
        {"name": "outbound", "direction": "outbound", "host": "127.0.0.1", "port": 15001},
        {
            "name": "inbound",
            "direction": "inbound",
            "host": "0.0.0.0",
            "port": 15006,
            "tls": "strict",
            "secret": "mesh_certs",
            "app": "http://127.0.0.1:8080",
        },
    ]


def test_each_direction_by_itself() -> None:
    assert [item["name"] for item in listeners(StandardListeners(), OUT)] == ["a", "inbound"]
    assert [item["name"] for item in listeners(StandardListeners(), IN)] == ["b", "outbound"]
    assert listeners(StandardListeners(), OUT, IN) == [OUT, IN]


def test_the_command_line_moves_the_only_one() -> None:
    options = StandardListeners(app="127.0.0.1:9", inbound="127.0.0.2:7", outbound="8")
    assert listeners(options, OUT, IN) == [
        {**OUT, "host": "127.0.0.1", "port": 8},
        {**IN, "host": "127.0.0.2", "port": 7, "app": "127.0.0.1:9"},
    ]
    (out, inbound) = listeners(options)
    assert (out["host"], out["port"]) == ("127.0.0.1", 8)
    assert (inbound["host"], inbound["port"], inbound["app"]) == ("127.0.0.2", 7, "127.0.0.1:9")


def test_of_several_it_moves_none() -> None:
    second = {"name": "c", "port": 5}
    assert listeners(StandardListeners(outbound="8"), OUT, second, IN) == [OUT, second, IN]


def test_off() -> None:
    assert [item["name"] for item in listeners(StandardListeners(inbound="off"))] == ["outbound"]
    assert listeners(StandardListeners(outbound="off"), OUT, IN) == [IN]
    assert [item["name"] for item in listeners(StandardListeners(app="off"))] == ["outbound"]
    assert listeners(StandardListeners(app="off"), OUT, IN) == [OUT, IN], "it has its own"


def test_a_free_port_and_a_taken_name() -> None:
    options = StandardListeners(outbound="127.0.0.1:0", inbound="[::1]:0")
    (out, inbound) = listeners(options)
    assert (out["port"], inbound["host"], inbound["port"]) == (0, "::1", 0)
    names = [item["name"] for item in listeners(options, {"name": "inbound", "port": 1})]
    assert names == ["inbound", "standard-inbound"]


@pytest.mark.parametrize("option", ["app", "inbound", "outbound"])
@pytest.mark.parametrize("value", ["nowhere", "h:99999", "", "h:", "https://h:1", "::1:5"])
def test_what_is_no_address_is_refused_at_once(option: str, value: str) -> None:
    with pytest.raises(ListenerOptionError, match=f"--{option} .*expected host:port|between"):
        StandardListeners(**{option: value})


def test_what_is_wrong_in_the_configuration_is_left_for_validation() -> None:
    for wrong in (5, [5], [{"port": 1}], [{"name": 5, "direction": "inbound"}]):
        base = {"service": "x", "listeners": wrong}
        for options in (StandardListeners(), StandardListeners(app="h:1", inbound="h:2")):
            loaded = load([], base=base, finish=options.finish, control=True)
            assert loaded.snapshot is None
            assert loaded.problems
