"""How a handler gets at the control plane."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from hms_addons.control.plane import ControlPlane


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.plane
    return plane


PlaneOf = Annotated[ControlPlane, Depends(_plane)]
