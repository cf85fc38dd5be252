"""A replica: an app, and the inbound sidecar that stands before it and runs it."""

from __future__ import annotations

import http.client
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts.demonstration.calls import call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.demonstration.children import Child


@dataclass(slots=True)
class Replica:
    """One of a service's processes, with its sidecar.

    Args:
        service: as `auth-svc`; its app is `scripts/lost_package/auth_svc.py`.
        name: as `auth-1`.
        port: where peers call its sidecar.
        app_port: where its app listens.
        admin_port: its sidecar's.
        options: of `hms sidecar`: how it comes to its configuration.
    """

    service: str
    name: str
    port: int
    app_port: int
    admin_port: int
    options: Sequence[str] = field(default=(), repr=False)
    sidecar: Child | None = field(default=None, repr=False)
    """The process; None until it is started."""

    @property
    def address(self) -> str:
        """Where peers call, as an endpoint of a cluster."""
        return f"127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        """What starts both."""
        module = f"scripts.lost_package.{self.service.replace('-', '_')}"
        app = [sys.executable, "-m", module, "--port", str(self.app_port), "--name", self.name]
        admin = f"127.0.0.1:{self.admin_port}"
        return ["hms", "sidecar", *self.options, "--admin", admin, "--", *app]

    def app_pid(self) -> int | None:
        """The process id that the app itself gives; None when it does not answer."""
        try:
            found = call(self.app_port, "/healthz").json()
        except (OSError, ValueError, http.client.HTTPException):
            return None
        # Its name, in case that a stranger has taken the port since.
        ours = isinstance(found, dict) and found.get("name") == self.name
        return int(found["pid"]) if ours else None
