from __future__ import annotations

import json
from typing import Any

import pytest

from hms_addons.control_client.failures import ControlAnswerError
from hms_addons.control_client.pushed import PushedSnapshot

GOOD: dict[str, Any] = {
    "version": 17,
    "digest": "ab12cd34ef56",
    "service": "x",
    "document": {"clusters": []},
}


def test_its_name_is_the_etag() -> None:
    assert PushedSnapshot.read(GOOD, "x", "c").name == "17.ab12cd34ef56"


def test_it_survives_the_state_folder() -> None:
    pushed = PushedSnapshot.read(GOOD, "x", "c")
    assert PushedSnapshot.read(json.loads(pushed.to_json("x")), "x", "c") == pushed


@pytest.mark.parametrize(
    "change",
    [
        {"version": "17"},
        {"version": True},
        {"version": -1},
        {"version": 2**70},
        {"version": 1.5},
        {"digest": ""},
        {"digest": 'a"b'},
        {"digest": "x" * 12},
        {"digest": "a" * 65},
        {"digest": None},
        {"document": []},
        {"document": None},
    ],
)
def test_what_is_no_snapshot_is_not_taken(change: dict[str, Any]) -> None:
    with pytest.raises(ControlAnswerError, match="c has sent a snapshot without a proper"):
        PushedSnapshot.read({**GOOD, **change}, "x", "c")


@pytest.mark.parametrize("change", [{"service": "y"}, {"document": {"service": "y"}}])
def test_another_service_s_is_not_taken(change: dict[str, Any]) -> None:
    with pytest.raises(ControlAnswerError, match="not x's"):
        PushedSnapshot.read({**GOOD, **change}, "x", "c")
