"""A whole control plane without a port: its real parts over a data folder, asked by httpx."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hms_addons.control.api.frame import RATES
from hms_addons.control.app import build_app
from hms_addons.control.assembly import Settings, assembled
from hms_addons.identity.enrolment import new_request
from tests.fakes.api import ask, peer_of
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from hms_addons.control.auth import Peer
    from hms_addons.control.plane import ControlPlane


class RunningPlane:
    """A control plane and how to ask it.

    Attributes:
        plane: its parts.
        token: the admin token.
        clock: a test moves it by hand.
    """

    def __init__(self, plane: ControlPlane, token: str, clock: FakeClock) -> None:
        self.plane = plane
        self.token = token
        self.clock = clock
        self.app = build_app(plane, RATES)

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """As anyone, or with the `peer` or `headers` given."""
        return await ask(self.app, method, path, **options)

    async def admin(self, method: str, path: str, **options: Any) -> httpx.Response:
        """As the admin."""
        headers = {**options.pop("headers", {}), "Authorization": f"Bearer {self.token}"}
        return await ask(self.app, method, path, headers=headers, **options)

    async def sidecar(self, service: str, method: str, path: str, **options: Any) -> httpx.Response:
        """As a sidecar of a service."""
        return await ask(self.app, method, path, peer=self.peer(service), **options)

    def peer(self, service: str) -> Peer:
        """What a sidecar of a service shows."""
        return peer_of(service, self.clock)


def csr() -> str:
    """A CSR in PEM, for a key of its own."""
    return new_request()[1].decode()


@asynccontextmanager
async def running_plane(folder: Path, **settings: Any) -> AsyncIterator[RunningPlane]:
    """A control plane over a folder, closed at the end."""
    clock = FakeClock()
    made = Settings(data=folder, **settings)
    async with assembled(made, clock, asyncio.Event()) as plane:
        token = await plane.admins.load()
        token = token or await plane.admins.reset()
        await plane.admins.mark_shown()
        yield RunningPlane(plane, token, clock)
