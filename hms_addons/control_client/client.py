"""What a sidecar asks of its control plane; a method for each request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from hms_addons.control_client.channel import Channel, Question, Reply
from hms_addons.control_client.failures import (
    ControlAnswerError,
    ControlAwayError,
    ControlError,
    ControlHoldsError,
    ControlRefusedError,
    ControlUntrustedError,
)
from hms_addons.control_client.pushed import MOST_BYTES as MOST_SNAPSHOT_BYTES
from hms_addons.control_client.pushed import PushedSnapshot
from hms_addons.control_client.trust import control_context, pinned, read_bundle, unproven_context
from hms_addons.errors import MeshError
from hms_addons.identity.enrolment import IssuedSvid
from hms_addons.identity.identity_holder import SecretError
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hms_addons.clock import Clock
    from hms_addons.identity.identity_holder import Identity
    from hms_addons.identity.trust_bundle import TrustBundle

MARGIN: Final = 10.0
"""Seconds beyond a long poll's wait in which it must be answered."""
TRUST_DOMAIN_HEADER: Final = "x-hms-trust-domain"
_UNAUTHENTICATED: Final = frozenset({401, 403})


class Join(NamedTuple):
    """What a sidecar was started with to make itself known; neither is needed once it is.

    `pins` are SHA-256 fingerprints of roots, in lower-case hex. `token` is asked each time, so that
    a file may be replaced; it is sent to a proven control plane only, and never logged.
    """

    pins: tuple[str, ...] = ()
    token: Callable[[], str | None] = lambda: None


class ControlClient:
    """Requests of one sidecar; also the `SvidIssuer` of its identity.

    Args:
        urls: where control planes are; tried in turn, beginning with the one that answered last.
        service: whose sidecar it is.
        join: how to make contact for the first time.
        clock: time.
        identity: reads the identity in use; None until there is one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        service: str,
        join: Join,
        clock: Clock,
        identity: Callable[[], Identity | None],
    ) -> None:
        self.urls = tuple(map(parse_url, urls))
        self.service = service
        self._join = join
        self._clock = clock
        self._identity = identity
        self._at = 0
        self._bundle: TrustBundle | None = None
        self._channel: Channel | None = None
        self._made_of: tuple[Identity | None, TrustBundle | None] = (None, None)
        self._leaving: list[Channel] = []

    def __repr__(self) -> str:
        return f"<ControlClient {self.where} of {self.service}>"

    @property
    def where(self) -> str:
        """The control plane that is asked next, for people."""
        return self.urls[self._at]

    # -- first contact --------------------------------------------------------------------------

    async def meet(self) -> None:
        """Learn whom to trust, by the pin; needed only while there is no identity.

        Raises:
            ControlUntrustedError: the pin is missing, or is not this control plane's.
            ControlError: it cannot be had.
        """
        if not self._join.pins:
            message = (
                f"nothing says how to know the control plane at {self.where}: give --ca-pin "
                "sha256:… (HMS_CA_PIN), which `hms control` prints at its start"
            )
            raise ControlUntrustedError(message)
        channel = Channel(unproven_context(), self._clock)
        try:
            reply = await self._each(channel, Question("GET", "/v1/bundle"))
        finally:
            await channel.close()
        claimed = read_bundle(reply.headers.get(TRUST_DOMAIN_HEADER), reply.body, self.where)
        self._bundle = pinned(claimed, self._join.pins, self.where)
        # Now by a connection that the pinned root vouches for: the whole bundle.
        reply = await self._ask(Question("GET", "/v1/bundle"), joining=True)
        self._bundle = read_bundle(self._bundle.trust_domain, reply.body, self.where)

    async def bundle(self) -> bytes:
        """The trust bundle as it is now: a SPIFFE bundle, in JSON."""
        return (await self._ask(Question("GET", "/v1/bundle"))).body

    async def issue(self, service: str, csr: bytes) -> IssuedSvid:
        """See `identity.enrolment.SvidIssuer`: by the SVID in use, else with the join token."""
        try:
            return await self._issue(service, csr)
        except ControlError as error:
            raise SecretError(str(error)) from error

    async def _issue(self, service: str, csr: bytes) -> IssuedSvid:
        body = {"service": service, "csr": csr.decode("ascii"), "lifetime": None}
        question = Question("POST", "/v1/svids", body=body)
        token = self._join.token()
        if self._valid_identity() is not None:
            try:
                return self._issued(await self._ask(question))
            except ControlRefusedError as error:
                if error.status not in _UNAUTHENTICATED or token is None:
                    raise
            except ControlUntrustedError:
                # A control plane that was set up anew, if the pin and the token are its own.
                if not self._join.pins or token is None:
                    raise
                await self.meet()
        known, expired = self._identity(), self._expired()
        if token is None and expired is not None:
            message = f"{self.where} does not know this sidecar any longer: {expired}"
            raise ControlRefusedError(message, 401)
        if self._bundle is None and known is not None and not self._join.pins:
            self._bundle = known.bundle  # an expired one still knows whom to trust
        if self._bundle is None:
            await self.meet()
        if token is None:
            message = (
                f"{self.where} does not know this sidecar yet: give it a join token with "
                f"--token-file or HMS_TOKEN; `hms token create --service {service}` makes one"
            )
            raise ControlRefusedError(message, 401)
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return self._issued(await self._ask(question._replace(headers=headers), joining=True))
        except ControlRefusedError as error:
            if error.status not in _UNAUTHENTICATED:
                raise
            remedy = expired or f"`hms token create --service {service}` makes a new token"
            message = f"{error}; {remedy}"
            raise ControlRefusedError(message, error.status) from error

    def _issued(self, reply: Reply) -> IssuedSvid:
        found = reply.json(self.where)
        chain, domain, bundle = (found.get(key) for key in ("chain", "trust_domain", "bundle"))
        if not isinstance(chain, str) or not isinstance(domain, str):
            message = f"{self.where} has answered a CSR without a chain and a trust domain"
            raise ControlAnswerError(message)
        text = bundle if isinstance(bundle, str) else json.dumps(bundle)
        return IssuedSvid(chain.encode("ascii", "replace"), text.encode(), domain)

    # -- configuration and fleet ----------------------------------------------------------------

    async def snapshot(self, known: str | None, wait: float) -> PushedSnapshot | None:
        """This service's configuration if it is another than `known`; None when it still is.

        Args:
            known: the `etag` of the snapshot seen last.
            wait: seconds that the control plane may wait for a change.

        Raises:
            ControlHoldsError: `known` is to be kept.
            ControlError: it cannot be had.
        """
        question = Question(
            "GET",
            "/v1/snapshot",
            params={"service": self.service, "wait": f"{wait:g}s"},
            headers={"If-None-Match": f'"{known}"'} if known is not None else {},
            seconds=wait + MARGIN,
            most=MOST_SNAPSHOT_BYTES,
        )
        try:
            reply = await self._ask(question)
        except ControlRefusedError as error:
            if error.status != 409:  # noqa: PLR2004 - what it has does not fit what we have
                raise
            raise ControlHoldsError(str(error)) from error
        if reply.status == 304:  # noqa: PLR2004 - not modified
            return None
        return PushedSnapshot.read(reply.json(self.where), self.service, self.where)

    async def report(self, sidecar: str, body: Mapping[str, Any]) -> int | None:
        """Tell how this sidecar is. Returns the sequence of the trust bundle that is in force."""
        path = f"/v1/sidecars/{_segment(sidecar)}/report"
        reply = await self._ask(Question("POST", path, body=body))
        sequence = reply.json(self.where).get("bundle_sequence") if reply.body else None
        return sequence if isinstance(sequence, int) and not isinstance(sequence, bool) else None

    async def leave(self, sidecar: str) -> None:
        """Say goodbye: this sidecar ends in order, and is not to be missed."""
        path = f"/v1/sidecars/{_segment(sidecar)}"
        await self._ask(Question("DELETE", path, params={"service": self.service}))

    async def register(self, instance: str, body: Mapping[str, Any]) -> None:
        """Announce an instance of this service, or say that it is still there."""
        await self._ask(Question("PUT", self._instance_path(instance), body=body))

    async def deregister(self, instance: str) -> None:
        """Take an instance back; one that is not there is no fault."""
        try:
            await self._ask(Question("DELETE", self._instance_path(instance)))
        except ControlRefusedError as error:
            if error.status != 404:  # noqa: PLR2004 - it is not there
                raise

    def _instance_path(self, instance: str) -> str:
        return f"/v1/services/{_segment(self.service)}/instances/{_segment(instance)}"

    # -- channels -------------------------------------------------------------------------------

    async def close(self) -> None:
        """End every connection."""
        channels, self._leaving = self._leaving, []
        if self._channel is not None:
            channels.append(self._channel)
            self._channel = None
        for channel in channels:
            await channel.close()

    def _valid_identity(self) -> Identity | None:
        identity = self._identity()
        if identity is None or identity.svid.not_after <= self._clock.wall():
            return None
        return identity

    def _expired(self) -> str | None:
        """What to do if the SVID in use is out of time; None if it is not, or there is none."""
        identity = self._identity()
        if identity is None or self._valid_identity() is not None:
            return None
        return (
            f"its SVID expired at {iso_time(identity.svid.not_after)}; join anew with a new token: "
            f"`hms token create --service {self.service}`"
        )

    async def _ask(self, question: Question, *, joining: bool = False) -> Reply:
        channel = await self._current(joining=joining)
        expired = None if joining else self._expired()
        try:
            return await self._each(channel, question)
        except ControlRefusedError as error:
            if expired is None or error.status != 401:  # noqa: PLR2004 - unauthenticated
                raise
            message = f"{self.where} does not know this sidecar any longer: {expired} ({error})"
            raise ControlRefusedError(message, error.status) from error
        finally:
            if channel in self._leaving and not channel.users:
                self._leaving.remove(channel)
                await channel.close()

    async def _current(self, *, joining: bool) -> Channel:
        """The channel for the identity and the roots of this moment; to join, without one."""
        identity = None if joining else self._valid_identity()
        known = self._identity()  # an expired one still knows whom to trust
        bundle = self._bundle if joining or known is None else known.bundle
        if self._channel is not None and self._made_of == (identity, bundle):
            return self._channel
        if bundle is None:
            message = f"no contact with the control plane at {self.where} yet"
            raise ControlUntrustedError(message)
        svid = identity.svid if identity is not None else None
        fresh = Channel(control_context(bundle, svid, self._clock), self._clock)
        old, self._channel = self._channel, fresh
        self._made_of = (identity, bundle)
        if old is not None and old.users:
            self._leaving.append(old)
        elif old is not None:
            await old.close()
        return fresh

    async def _each(self, channel: Channel, question: Question) -> Reply:
        """Ask the control planes in turn until one answers."""
        failures: list[ControlError] = []
        for _ in self.urls:
            try:
                return await channel.ask(self.where, question)
            except (ControlAwayError, ControlUntrustedError) as error:
                failures.append(error)
                self._at = (self._at + 1) % len(self.urls)
        if len(failures) == 1:
            raise failures[0]
        message = "; ".join(map(str, failures))
        if all(isinstance(failure, ControlUntrustedError) for failure in failures):
            raise ControlUntrustedError(message)
        raise ControlAwayError(message)


def parse_url(text: str) -> str:
    """A control plane's base address, as `https://control.mpsa.mil:15010`.

    Raises:
        MeshError: it is none, or not https.
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        parts.port  # noqa: B018 - raises when it is no number
    except ValueError as error:
        message = f"{text[:100]!r} is no address of a control plane: {error}"
        raise MeshError(message) from None
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        message = (
            f"{text[:100]!r} is no address of a control plane: give https://host:port, as "
            "https://127.0.0.1:15010"
        )
        raise MeshError(message)
    if parts.username is not None:
        message = "the control plane's address holds a user name: sidecars have certificates"
        raise MeshError(message)
    return f"https://{parts.netloc}{parts.path.rstrip('/')}"


def _segment(text: str) -> str:
    return quote(text, safe="")
