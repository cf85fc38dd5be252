"""An instance in the control plane's registry: announced, renewed, and taken back.

Its lease is renewed three times in its life, so that one lost request costs nothing. What has not
been renewed is gone when the lease ends, so a sidecar that is killed takes itself out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from hms_addons.clock import within
from hms_addons.control_client.backoff import Backoff
from hms_addons.control_client.failures import ControlError
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from random import Random

    from hms_addons.clock import Clock

logger = logging.getLogger(__name__)

TTL: Final = 15.0
"""Seconds that an instance is listed after its last renewal."""
RENEWALS: Final = 3
JITTER: Final = 0.1
MAX_METADATA: Final = 64
MAX_METADATA_LENGTH: Final = 256
"""What the control plane takes: so many, of so many characters each, names and values alike."""
MAX_METADATA_BYTES: Final = 4096
"""What it takes of all of them together."""
FAREWELL: Final = 3.0
"""Seconds for taking it back; a control plane that is away must not hold up a drain."""


class Registry(Protocol):
    """Where instances are announced: `control_client.ControlClient`."""

    async def register(self, instance: str, body: Mapping[str, Any]) -> None:
        """Announce or renew."""

    async def deregister(self, instance: str) -> None:
        """Take back."""


class Traits(NamedTuple):
    """What the command line says of an instance, less its address."""

    version: str = ""
    weight: int = 1
    zone: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    """Whatever people want to know of it, by name."""
    priority: int = 0


def parse_metadata(words: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Names and values from `name=value`, one a word or several with commas.

    Raises:
        MeshError: the control plane would not take them.
    """
    found: dict[str, str] = {}
    for part in (part.strip() for word in words for part in word.split(",")):
        if not part:
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise MeshError(f"--metadata {part}: give name=value; commas separate several")
        if name in found:
            raise MeshError(f"--metadata {part}: {name} is there twice")
        if max(len(name), len(value)) > MAX_METADATA_LENGTH:
            message = f"--metadata {part[:40]}…: at most {MAX_METADATA_LENGTH} characters each"
            raise MeshError(message)
        found[name] = value
    if len(found) > MAX_METADATA:
        raise MeshError(f"--metadata: {len(found)} of them; at most {MAX_METADATA} are taken")
    size = sum(len(f"{name}{value}".encode("utf-8", "replace")) for name, value in found.items())
    if size > MAX_METADATA_BYTES:
        raise MeshError(f"--metadata: {size} bytes; at most {MAX_METADATA_BYTES} are taken")
    return tuple(found.items())


class Presence:
    """Keeps one instance registered while `run` runs.

    Args:
        registry: the control plane.
        instance: its ID.
        traits: what is told of it.
        address: where peers reach it now, `host:port`; None while it cannot be reached, and then it
            is not listed.
        clock, rng: time and jitter.
    """

    def __init__(
        self,
        registry: Registry,
        instance: str,
        traits: Traits,
        address: Callable[[], str | None],
        clock: Clock,
        rng: Random,
    ) -> None:
        self._registry = registry
        self._instance = instance
        self._traits = traits
        self._address = address
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(rng)
        self._poked = asyncio.Event()
        self.listed: str | None = None
        """The address that the control plane was told last."""
        self._announced = False
        """It may be listed: it was announced, whether or not that was answered."""
        self.on_change: Callable[[], object] = lambda: None
        """Called when `listed` has changed."""
        self.on_heard: Callable[[], object] = lambda: None
        """Called whenever the control plane has answered."""

    def __repr__(self) -> str:
        return f"<Presence {self._instance} listed={self.listed}>"

    def poke(self) -> None:
        """Something has changed that may have to be told."""
        if self._address() != self.listed:
            self._poked.set()

    async def run(self) -> None:
        """Announce and renew until cancelled."""
        while True:
            self._poked.clear()
            delay = await self._say()
            try:
                async with within(self._clock, delay):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def _say(self) -> float:
        """Tell how it is; seconds until it must be told again."""
        address = self._address()
        renewal = TTL / RENEWALS * self._rng.uniform(1 - JITTER, 1)
        try:
            if address is not None:
                self._announced = True
                await self._registry.register(self._instance, self._body(address))
                self.on_heard()
                if address != self.listed:
                    logger.info("registered as %s at %s", self._instance, address)
            elif self.listed is not None:
                await self._registry.deregister(self._instance)
            if address != self.listed:
                self.listed = address
                self.on_change()
        except ControlError as error:
            if not self._backoff.failures:
                logger.warning("the registration could not be renewed: %s", error)
            return min(renewal, self._backoff.next())
        self._backoff.reset()
        return renewal

    def _body(self, address: str) -> dict[str, Any]:
        traits = self._traits._asdict() | {"metadata": dict(self._traits.metadata)}
        if not traits["priority"]:
            del traits["priority"]  # a control plane of before knows none
        return {"address": address, **traits, "ttl": TTL}

    async def leave(self) -> bool:
        """Take the instance back, once `run` has ended. Returns whether it was listed, and is not now."""
        if not self._announced:
            return False
        try:
            async with within(self._clock, FAREWELL):
                try:
                    await self._registry.deregister(self._instance)
                except ControlError:
                    # A connection that was kept for too long, most likely: once more, on a new one.
                    await self._registry.deregister(self._instance)
        except (ControlError, TimeoutError) as error:
            logger.warning("could not deregister (%s): callers learn of it within %g s", error, TTL)
            return False
        self.listed, self._announced = None, False
        self.on_change()
        logger.info("deregistered %s", self._instance)
        return True


async def own_host(url: str) -> str:
    """The address of this machine that a connection to `url` comes from; sends nothing.

    Raises:
        OSError: there is no way there.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    # "Connecting" a datagram socket only asks the routing table.
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(parts.hostname or "", parts.port or 443)
    )
    try:
        host: str = transport.get_extra_info("sockname")[0]
        return host
    finally:
        transport.close()
