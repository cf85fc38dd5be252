"""The API as one ASGI application: FastAPI within a frame that guards it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from hms_addons.control.api import config, health, openapi, problems, services, sidecars, trust
from hms_addons.control.api.frame import RATES, Frame
from hms_addons.control.rate_limit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.control.auth import Kind
    from hms_addons.control.plane import ControlPlane
    from hms_addons.control.rate_limit import Rate

_ABOUT: Final = (
    "Configuration, registry and certificates of an HMS-SVC mesh. Errors are problem details "
    "(RFC 9457). Operators show the admin token, sidecars their SVID, new sidecars a join token."
)
_ROUTERS: Final = (
    trust.router,
    sidecars.router,
    config.router,
    services.router,
    health.router,
)


def build_api(plane: ControlPlane) -> FastAPI:
    """The API itself; to be served within a `Frame`, which tells it who calls."""
    api = FastAPI(
        title="HMS control plane",
        version=version("hms-svc"),
        description=_ABOUT,
        # Their own routes, guarded as all the others are.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.plane = plane
    problems.install(api)
    for router in _ROUTERS:
        api.include_router(router)
    made: list[dict[str, Any]] = []

    def document() -> dict[str, Any]:
        """Made once, when somebody asks: it takes longer than all the rest of the start."""
        if not made:
            made.append(openapi.document(api))
        return made[0]

    api.openapi = document  # type: ignore[method-assign] # FastAPI's documented way
    return api


def build_app(plane: ControlPlane, rates: Mapping[Kind | None, Rate] = RATES) -> Frame:
    """What the server serves."""
    return Frame(
        build_api(plane),
        authenticator=plane.authenticator,
        limiter=RateLimiter(plane.clock),
        metrics=plane.metrics,
        clock=plane.clock,
        rates=rates,
    )
