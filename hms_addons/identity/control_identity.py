"""The one identity that a control plane gives a sidecar, from its first fetch to its last.

    state folder ──restore──▶ IdentityHolder ◀──swap── Rotator ◀── ControlSecret ◀── control plane
         ▲                          │                                                     │
         └──────────kept────────────┴──────────────── take_bundle ◀───── /v1/bundle ──────┘

The chain, its key and the bundle are kept on disk, so that a sidecar starts while the control plane
is away. Chain and key lie in one file: replaced in one step, they always belong together.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from hms_addons.identity.identity_holder import IdentityHolder, SecretError, SecretMaterial
from hms_addons.identity.rotator import Rotator
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.identity.svid import Svid, SvidError, load_certificates
from hms_addons.identity.trust_bundle import TrustBundle, TrustBundleError
from hms_addons.state_folder import StateError

if TYPE_CHECKING:
    import random

    from hms_addons.clock import Clock
    from hms_addons.identity.enrolment import ControlSecret
    from hms_addons.identity.identity_holder import Identity
    from hms_addons.state_folder import StateFolder

logger = logging.getLogger(__name__)

SVID_FILE: Final = "svid.pem"
BUNDLE_FILE: Final = "bundle.json"

HOLDER_NAME: Final = "control plane"


class ControlIdentity:
    """Feeds `holder` from the control plane and keeps what it got.

    Args:
        source: fetches from the control plane.
        clock: time, injected.
        rng: for jitter.
        state: where to keep it; None keeps nothing.

    Attributes:
        holder: what everyone reads; empty until `restore` or `refresh` succeeds.
    """

    def __init__(
        self,
        source: ControlSecret,
        clock: Clock,
        rng: random.Random,
        state: StateFolder | None = None,
    ) -> None:
        self.holder = IdentityHolder(HOLDER_NAME)
        self._source = source
        self._clock = clock
        self._state = state
        self._rotator = Rotator(source, self.holder, clock, rng, self._keep)

    def __repr__(self) -> str:
        return f"<ControlIdentity {self._source.service} {self.holder!r}>"

    @property
    def bundle_sequence(self) -> int | None:
        """The `spiffe_sequence` of the bundle in use."""
        current = self.holder.current
        return current.bundle.sequence if current is not None else None

    @property
    def problem(self) -> str | None:
        """Why the last renewal failed; None if it did not."""
        return self._rotator.problem

    async def refresh(self) -> Identity:
        """Fetch a new SVID now.

        Raises:
            SecretError: it cannot be had or will not do; the old identity stays.
        """
        return await self._rotator.refresh()

    async def run(self) -> None:
        """Renew on schedule until cancelled; fetches at once if there is no identity yet."""
        await self._rotator.run()

    def renew_soon(self) -> None:
        """Have `run` renew now instead of on schedule."""
        self._rotator.renew_soon()

    def restore(self) -> Identity | None:
        """Use what the state folder holds, if it is still good; asks nobody.

        What is damaged, or another service's, is set aside; what has expired is left where it is.
        Both are logged, and None is returned.
        """
        if self._state is None:
            return None
        pem, document = self._state.read(SVID_FILE), self._state.read(BUNDLE_FILE)
        if pem is None or document is None:
            return None
        try:
            svid = _own_svid(pem, self._source.service)
        except (SvidError, SpiffeIdError) as error:
            self._state.set_aside(SVID_FILE, f"cannot be used: {error}")
            return None
        try:
            bundle = TrustBundle.from_spiffe_json(svid.spiffe_id.trust_domain, document)
        except TrustBundleError as error:
            self._state.set_aside(BUNDLE_FILE, f"cannot be used: {error}")
            return None
        try:
            identity = self.holder.replace(SecretMaterial(svid, bundle), self._clock.wall())
        except SecretError as error:
            logger.warning("the SVID in %s is not taken: %s", self._state.path, error)
            return None
        self._source.trust_domain = identity.trust_domain
        return identity

    async def take_bundle(self, document: bytes) -> bool:
        """Trust what the control plane says is to be trusted now, without waiting for a new SVID.

        A bundle that is older than the one in use changes nothing. One that has no root for the
        SVID in use makes `run` fetch a new SVID at once; until it is there, the old bundle stays.

        Args:
            document: the SPIFFE bundle (JSON), from the verified control plane.

        Returns:
            Whether the bundle in use is another one now.

        Raises:
            SecretError: it cannot be read.
        """
        current = self.holder.current
        if current is None:
            return False
        try:
            bundle = TrustBundle.from_spiffe_json(current.trust_domain, document)
        except TrustBundleError as error:
            message = f"the control plane's bundle is refused: {error}"
            raise SecretError(message) from error
        if (bundle.sequence or 0) < (current.bundle.sequence or 0):
            logger.warning(
                "the control plane's bundle has the sequence %s, older than %s: it changes nothing",
                bundle.sequence,
                current.bundle.sequence,
            )
            return False
        if (bundle, bundle.sequence) == (current.bundle, current.bundle.sequence):
            return False
        material = SecretMaterial(current.svid, bundle)
        try:
            self.holder.replace(material, self._clock.wall())
        except SecretError as error:
            logger.warning("a new SVID is needed for the new bundle: %s", error)
            self.renew_soon()
            return False
        await self._keep(material)
        return True

    async def _keep(self, material: SecretMaterial) -> None:
        """Write it to the state folder, off the event loop; a failure is logged."""
        if self._state is not None:
            await asyncio.to_thread(_write, self._state, material)


def _write(state: StateFolder, material: SecretMaterial) -> None:
    svid = material.svid
    try:
        # The bundle first: while a root is replaced, the newer bundle fits both SVIDs.
        state.write(BUNDLE_FILE, material.bundle.to_spiffe_json().encode())
        state.write(SVID_FILE, svid.chain_pem() + svid.key_pem())
    except StateError as error:
        logger.warning("a restart would need the control plane: %s", error)


def _own_svid(pem: bytes, service: str) -> Svid:
    """The SVID in a PEM text that also holds its key, whether or not it has expired.

    Raises:
        SvidError: it is not readable, or not of `service`.
        SpiffeIdError: `service` is no service name.
    """
    leaf = load_certificates(pem)[0]
    middle = (leaf.not_valid_before_utc.timestamp() + leaf.not_valid_after_utc.timestamp()) / 2
    svid = Svid.from_pem(pem, pem, now=middle)
    if svid.spiffe_id != SpiffeId.for_service(svid.spiffe_id.trust_domain, service):
        message = f"it is {svid.spiffe_id}, not of the service {service!r}"
        raise SvidError(message)
    return svid
