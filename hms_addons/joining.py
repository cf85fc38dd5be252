"""How a sidecar joins a mesh that has a control plane: prove who it is, get a configuration, start.

    options ──▶ StateFolder ─▶ identity (kept, or by token) ─▶ configuration (asked for, or kept) ─▶ start

Each step falls back on what an earlier run has kept in the state folder, so that a sidecar that has
been here before starts without the control plane. One that has not waits for it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from hms_addons.addons.config_sync import ConfigSync, Self
from hms_addons.config.control_source import ControlSource
from hms_addons.config.schema_base import parse_address
from hms_addons.config.standard_listeners import StandardListeners
from hms_addons.control_client.backoff import Backoff
from hms_addons.control_client.client import ControlClient, Join, parse_url
from hms_addons.control_client.failures import ControlRefusedError, ControlUntrustedError
from hms_addons.control_client.presence import Traits
from hms_addons.control_client.trust import parse_pins
from hms_addons.errors import MeshError
from hms_addons.identity.control_identity import ControlIdentity
from hms_addons.identity.enrolment import ControlSecret
from hms_addons.identity.identity_holder import IdentityHolder, SecretError
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.state_folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from hms_addons.clock import Clock
    from hms_addons.config.control_source import Candidate
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.identity.identity_holder import Identity

logger = logging.getLogger(__name__)

STATE: Final = ".hms"
"""Where state is kept unless `--state` says otherwise: a folder in it for each service."""
MOST_REPLICAS: Final = 100
"""Sidecars of one service that may share a working folder without a `--state` of their own."""
_LONGEST_TOKEN: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOptions:
    """What a sidecar is told of its control plane, and of itself.

    `state` None: a folder of its own in `.hms`. `token` and `token_file` are alternatives. Wrong
    values raise `MeshError`, with the option's name and the remedy.
    """

    urls: Sequence[str]
    service: str
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca_pin: str = ""
    state: Path | None = None
    listeners: StandardListeners = field(default_factory=StandardListeners)
    advertise: str | None = None
    traits: Traits = field(default_factory=Traits)

    def check(self) -> None:
        """Look at what can be looked at without asking anybody; raises `MeshError`."""
        for url in self.urls:
            parse_url(url)
        parse_pins(self.ca_pin)
        _check(self)

    def join(self) -> Join:
        """How to make contact for the first time."""
        return Join(parse_pins(self.ca_pin), self._read_token)

    def _read_token(self) -> str | None:
        if self.token_file is None:
            return self.token or None
        try:
            with self.token_file.open(encoding="ascii") as file:
                return file.read(_LONGEST_TOKEN).strip() or None
        except (OSError, ValueError) as error:
            logger.warning("--token-file %s cannot be read: %s", self.token_file, error)
            return None


class Startable(Protocol):
    """The sidecar."""

    async def open(self) -> None:
        """Answer probes from now on; raises `MeshError`."""

    async def apply(self, snapshot: Snapshot) -> None:
        """Put it in force; raises `MeshError`."""

    async def start(self, snapshot: Snapshot) -> None:
        """Begin with it."""

    def refuse(self, reason: str) -> None:
        """Tell of another that could not be used."""


class Joining:
    """One sidecar's ties to its control plane, from the first contact on.

    Args:
        options: the command line.
        files: local configuration files, over what the control plane says.
        clock, rng: time, and jitter.
        extra: see `FileSource`.

    Attributes:
        holder: the sidecar's identity; empty until `start`.
        plugin: what goes on once the sidecar has started; register it.

    Raises:
        MeshError: an option is wrong, or the state folder cannot be used.
    """

    def __init__(
        self,
        options: ControlOptions,
        clock: Clock,
        rng: Random,
        *,
        files: Sequence[Path] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        options.check()
        self._clock = clock
        self._backoff = Backoff(rng)
        self._lock, state = _open_state(options)
        self._client = ControlClient(
            options.urls, options.service, options.join(), clock, self._current
        )
        secret = ControlSecret(options.service, self._client, clock)
        self._identity = ControlIdentity(secret, clock, rng, state)
        self.holder: IdentityHolder = self._identity.holder
        self._source = ControlSource(
            self._client,
            state,
            options.service,
            clock,
            rng,
            files=files,
            standard=options.listeners,
            extra=extra,
        )
        me = Self(
            _sidecar_id(state, options.service),
            options.service,
            options.traits,
            options.advertise,
            _version(),
        )
        self.plugin = ConfigSync(self._source, self._client, self._identity, me, rng)

    def __repr__(self) -> str:
        return f"<Joining {self._client!r} {self._source!r}>"

    def _current(self) -> Identity | None:
        return self.holder.current

    async def start(self, sidecar: Startable) -> None:
        """Prove who this is, get a configuration, and start `sidecar` with it.

        Raises:
            MeshError: the control plane refuses this sidecar, or nothing it says can be used here.
        """
        await sidecar.open()
        await self._prove()
        self.plugin.begin()
        candidates = await self._source.load()
        for left, candidate in zip(reversed(range(len(candidates))), candidates, strict=True):
            try:
                await sidecar.apply(candidate.snapshot)
            except MeshError as error:
                self._source.reject(candidate.pushed, str(error))
                if not left:
                    await self.plugin.give_up()
                    raise
                logger.error("%s cannot be used here: %s", candidate.pushed.name, error)  # noqa: TRY400 - no fault of ours
                continue
            await self._begin(sidecar, candidate)
            return

    async def _begin(self, sidecar: Startable, candidate: Candidate) -> None:
        self._source.accept(candidate.pushed)
        await sidecar.start(candidate.snapshot)
        if self._source.refused is not None:
            sidecar.refuse(self._source.refused.reason)

    async def _prove(self) -> None:
        """Have an SVID: the kept one, or a new one."""
        if self._identity.restore() is not None:
            return
        told = ""
        while True:
            try:
                await self._identity.refresh()
            except SecretError as error:
                if isinstance(error.__cause__, ControlRefusedError | ControlUntrustedError):
                    raise
                if str(error) != told:
                    told = str(error)
                    logger.warning("waiting for the control plane: %s", error)
                await self._clock.sleep(self._backoff.next())
            else:
                return

    async def close(self) -> None:
        """Let go of the control plane and of the state folder."""
        await self.plugin.close()
        await self._client.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _check(options: ControlOptions) -> None:
    if not options.service:
        message = (
            "a control plane needs to know which service this sidecar stands beside: give "
            "--service NAME (HMS_SERVICE)"
        )
        raise MeshError(message)
    try:
        SpiffeId.for_service("check", options.service)
    except SpiffeIdError as error:
        message = f"--service {options.service}: {error}"
        raise MeshError(message) from None
    if options.token and options.token_file is not None:
        message = "give --token or --token-file, not both"
        raise MeshError(message)
    if options.advertise is not None:
        try:
            parse_address(options.advertise)
        except ValueError:
            _check_host(options.advertise)


def _check_host(advertise: str) -> None:
    try:
        parse_address(f"[{advertise}]:1" if advertise.count(":") > 1 else f"{advertise}:1")
    except ValueError:
        message = f"--advertise {advertise}: give the HOST or HOST:PORT where peers reach it"
        raise MeshError(message) from None


def _open_state(options: ControlOptions) -> tuple[int | None, StateFolder]:
    """A state folder that no other sidecar uses, and the lock on it.

    Two sidecars that shared one would overwrite each other's key. Replicas that are started side by
    side without `--state` get `.hms/<service>`, `.hms/<service>-2` and so on.
    """
    if options.state is not None:
        lock = _lock(options.state)
        if lock is None:
            message = (
                f"another sidecar uses the state folder {options.state}: give each its own --state"
            )
            raise MeshError(message)
        return lock, StateFolder(options.state)
    for number in range(1, MOST_REPLICAS + 1):
        name = options.service if number == 1 else f"{options.service}-{number}"
        folder = Path(STATE) / name
        lock = _lock(folder)
        if lock is not None:
            return lock, StateFolder(folder)
    message = f"{MOST_REPLICAS} sidecars of {options.service} run here: give this one a --state"
    raise MeshError(message)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder until it is closed; None if somebody else does."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = (
            f"cannot keep state in {folder}: {error.strerror or error}; name a folder of this "
            "user's with --state (HMS_STATE)"
        )
        raise MeshError(message) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sidecar_id(state: StateFolder, service: str) -> str:
    """The same in each run, so that one that comes back takes its own place in the registry."""
    kept = state.read("id")
    if kept is not None and kept.decode("ascii", "replace").startswith(f"{service}-"):
        return kept.decode("ascii", "replace")
    made = f"{service}-{secrets.token_hex(4)}"
    state.write("id", made.encode())
    return made


def _version() -> str:
    try:
        return version("hms-svc")
    except PackageNotFoundError:
        return ""
