"""The control plane's API without a socket: an ASGI application, asked by httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from fastapi import APIRouter, FastAPI

from hms_addons.control.api import problems
from hms_addons.control.api.frame import RATES, Frame
from hms_addons.control.api.guard import GuardedRoute
from hms_addons.control.auth import NOBODY, AdminTokens, Authenticator, Peer
from hms_addons.control.metrics import ControlMetrics
from hms_addons.control.rate_limit import RateLimiter
from hms_addons.control.store.sqlite import SqliteStore
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import PeerLeaf
from tests.fakes.asgi import From
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hms_addons.control.auth import Kind
    from hms_addons.control.rate_limit import Rate
    from hms_addons.control.store.protocol import Store

BASE = "https://control.test"


def peer_of(service: str, clock: FakeClock, *, seconds: float = 3600) -> Peer:
    """The peer that shows a service's SVID."""
    now = clock.wall()
    return Peer(PeerLeaf(SpiffeId.for_service("mpsa.mil", service), now - 60, now + seconds))


class FramedRoutes:
    """A test's own routes, framed and guarded as the API's are."""

    def __init__(self, token: str, admins: AdminTokens, store: Store, clock: FakeClock) -> None:
        self.clock = clock
        self.token = token
        self.metrics = ControlMetrics()
        self.router = APIRouter(route_class=GuardedRoute)
        self.store = store
        self._authenticator = Authenticator(admins, clock)

    @classmethod
    async def make(cls, folder: Path) -> FramedRoutes:
        """With a store in a folder, to be closed at the end, and an admin token of its own."""
        clock = FakeClock()
        store = await SqliteStore.open(folder / "control.db", clock)
        admins = AdminTokens(store, clock)
        token = await admins.load()
        assert token is not None
        await admins.mark_shown()
        return cls(token, admins, store, clock)

    def app(self, rates: Mapping[Kind | None, Rate] = RATES) -> Frame:
        """The application, with the routes that are there now."""
        api = FastAPI(openapi_url=None)
        problems.install(api)
        api.include_router(self.router)
        return Frame(
            api,
            authenticator=self._authenticator,
            limiter=RateLimiter(self.clock),
            metrics=self.metrics,
            clock=self.clock,
            rates=rates,
        )

    @property
    def admin(self) -> dict[str, str]:
        """The header that makes an admin."""
        return {"Authorization": f"Bearer {self.token}"}


async def ask(
    app: Any, method: str, path: str, *, peer: Peer = NOBODY, **options: Any
) -> httpx.Response:
    """One request; `options` are httpx's."""
    transport = httpx.ASGITransport(From(app, peer), client=("192.0.2.7", 40000))
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        return await client.request(method, path, **options)
