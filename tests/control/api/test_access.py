from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from fastapi import Request

from hms_addons.control.api.access import PlaneOf
from hms_addons.control.app import build_api

if TYPE_CHECKING:
    from tests.fakes.plane import RunningPlane


def test_a_handler_gets_the_plane_of_its_application(control: RunningPlane) -> None:
    request = Request({"type": "http", "app": build_api(control.plane), "headers": []})
    (_, dependency) = get_args(PlaneOf)
    assert dependency.dependency(request) is control.plane
