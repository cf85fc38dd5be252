"""The mesh's control plane: its command, what it prints at its start, and what is asked of it."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hms_addons.control_client.client import TRUST_DOMAIN_HEADER
from hms_addons.control_client.trust import read_bundle
from hms_addons.errors import MeshError
from hms_addons.operator_client.client import OperatorClient, OperatorError, RefusedError
from hms_addons.operator_client.trust_commands import create_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.clock import Clock
    from hms_addons.up.run_state import RunState

TOKEN_LIFE: Final = 600.0
"""Seconds that a new instance has to join."""
_UNPROCESSABLE: Final = 422


def hms(*words: str) -> list[str]:
    """The `hms` command of this Python."""
    script = Path(sysconfig.get_path("scripts")) / "hms"
    if script.exists():
        return [str(script), *words]
    return [sys.executable, "-c", "from hms_addons.cli import main; main()", *words]


class RefusedConfigError(OperatorError):
    """The control plane does not take the configuration; one problem a line."""


class ControlPlane:
    """One control plane on this machine.

    Args:
        state: where its data and the admin token are.
        port: where it listens.
        clock: time, injected.
    """

    def __init__(self, state: RunState, port: int, clock: Clock) -> None:
        self._state = state
        self._port = port
        self._clock = clock
        self.url = f"https://127.0.0.1:{port}"
        self.pin = ""
        """Known once it has started."""
        self.ready = asyncio.Event()
        """Set once it has said where it is."""

    def __repr__(self) -> str:
        return f"<ControlPlane {self.url}>"

    def command(self, trust_domain: str, svid_lifetime: float) -> list[str]:
        """What starts it; its sidecars' certificates live so many seconds."""
        words = ["control", "--data", str(self._state.control)]
        words += ["--listen", f"127.0.0.1:{self._port}", "--trust-domain", trust_domain]
        words += ["--svid-lifetime", f"{svid_lifetime:g}s"]
        there = self._state.control.exists()
        if not there:
            self._state.admin_token = None  # of one that is no more
        # Whoever has lost the token gets a new one: the folder is theirs.
        lost = there and self._state.admin_token is None
        return hms(*words, "--log-level", "warning", *(["--reset-admin-token"] if lost else ()))

    def heard(self, line: str) -> bool:
        """Take a line that it has printed; whether it was meant for us, and is nobody else's."""
        if line.startswith("# "):
            return True
        name, equals, value = line.removeprefix("export ").partition("=")
        if not line.startswith("export ") or not equals:
            return False
        value = value.partition(" ")[0]
        if name == "HMS_ADMIN_TOKEN":
            self._state.admin_token = value
        elif name == "HMS_CA_PIN":
            self.pin = value
        if self.pin and (name == "HMS_ADMIN_TOKEN" or self._state.admin_token is not None):
            self.ready.set()
        return True

    def _client(self) -> OperatorClient:
        return OperatorClient(self.url, self._state.admin_token or "", self.pin, self._clock)

    async def push(self, files: Sequence[tuple[str, str]]) -> int | None:
        """Put a configuration in force; its version, None if that was in force already.

        Raises:
            RefusedConfigError: it cannot be.
            MeshError: the control plane is away.
        """
        body = {"files": [{"name": name, "content": content} for name, content in files]}
        async with self._client() as client:
            try:
                answer = (await client.ask("PUT", "/v1/config", json=body)).json()
            except RefusedError as error:
                problems = error.document.get("problems")
                if error.status == _UNPROCESSABLE and isinstance(problems, list):
                    raise RefusedConfigError(_told(problems)) from error
                raise
        return int(answer["version"]) if answer["changed"] else None

    async def agrees(self, sidecars: int, listed: int) -> bool:
        """Whether so many sidecars have what is in force, and so many are where others find them.

        Until then an instance that is ready may not be known to those that would call it.
        """
        try:
            async with self._client() as client:
                fleet = (await client.ask("GET", "/v1/sidecars")).json()["sidecars"]
        except MeshError:
            return False
        # What one refuses is told elsewhere, and it will not change its mind by itself.
        settled = [one for one in fleet if one["state"] in {"in sync", "refused"}]
        return len(settled) >= sidecars and sum(bool(one["address"]) for one in settled) >= listed

    async def roots(self) -> bytes:
        """The roots of its CA, PEM.

        Raises:
            MeshError: the control plane is away.
        """
        async with self._client() as client:
            answer = await client.ask("GET", "/v1/bundle")
        trust_domain = answer.headers.get(TRUST_DOMAIN_HEADER)
        return read_bundle(trust_domain, answer.body, self.url).to_pem()

    async def join_token(self, service: str) -> str:
        """A token that lets one instance of a service in.

        Raises:
            MeshError: the control plane is away.
        """
        async with self._client() as client:
            return (await create_token(client, service, TOKEN_LIFE)).text


def _told(problems: Sequence[dict[str, object]]) -> str:
    return "\n".join(
        f"{one.get('file')}:{one.get('line')}:{one.get('column')}: {one.get('message')}"
        for one in problems
        if one.get("severity") != "warning"
    )
