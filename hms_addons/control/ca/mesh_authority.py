"""The control plane's own CA: kept in the store, signing while it runs, replacing its root in steps.

Made at the first start and read at every other. What cannot be read is an error for a person to
look at: a CA that silently made itself anew would lock out every sidecar there is.

Nothing is signed before the state that it depends on is written, and nothing is announced before it
is: a process that is killed at any point goes on from the step that it had written.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.control.ca import template
from hms_addons.control.ca.authority import CaError, check_svid_lifetime
from hms_addons.control.ca.authority_state import MARGIN, AuthorityState, Phase, pin_of
from hms_addons.control.ca.csr import load_csr
from hms_addons.control.ca.kept_authority import KeptAuthority
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography import x509

    from hms_addons.clock import Clock
    from hms_addons.control.ca.authority_state import SigningRoot
    from hms_addons.control.store.protocol import Store
    from hms_addons.identity.svid import Svid
    from hms_addons.identity.trust_bundle import TrustBundle

logger = logging.getLogger(__name__)

CONTROL_PATH: Final = "/hms/control"

LOOK_INTERVAL: Final = 30.0
ROTATION_INTERVAL: Final = 2.0
"""Seconds between looks at what is due; the second while a rotation is under way."""

SETTLE: Final = 30.0
"""Seconds that a new root is announced at least: as long as a silent sidecar's report is kept."""

MIN_CONTROL_LIFETIME: Final = 3600.0
"""Seconds; the control plane's own certificate is not renewed every other second for a test's sake."""

MAX_REFRESH_HINT: Final = 300.0
ROOT_WARNING: Final = 180 * 86400.0
"""Seconds before its end at which a root is complained of."""


@dataclass(frozen=True, slots=True)
class SignedSvid:
    """What a sidecar is sent: a PEM chain (leaf first), the bundle, and when (epoch) it ends."""

    spiffe_id: SpiffeId
    chain_pem: bytes = field(repr=False)
    bundle: TrustBundle
    not_after: float


class MeshAuthority:
    """Signs the SVIDs of one trust domain, below a root that can be replaced without a gap.

    Args:
        store: where its state is kept, under `ca/`; no other process may write there.
        clock: time, injected.
        trust_domain: whose CA it is.
        svid_lifetime: seconds; what an SVID gets unless it asks for less.

    Raises:
        CaError: `svid_lifetime` is not between a second and 90 days.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        trust_domain: str,
        svid_lifetime: float = template.DEFAULT_SVID_LIFETIME,
    ) -> None:
        check_svid_lifetime(svid_lifetime)
        self._store = store
        self._clock = clock
        self.trust_domain = trust_domain
        self.svid_lifetime = svid_lifetime
        self._state: AuthorityState | None = None
        self._kept = KeptAuthority(store, clock, trust_domain)
        self._lock = asyncio.Lock()
        # One at a time: signing holds the interpreter's lock, and threads that compete for it would
        # only make the event loop wait longer for its turn.
        self._signing = asyncio.Semaphore(1)
        self._wake = asyncio.Event()
        self._listeners: dict[object, Callable[[], object]] = {}

    def __repr__(self) -> str:
        if self._state is None:
            return f"<MeshAuthority {self.trust_domain} not loaded>"
        return (
            f"<MeshAuthority {self.trust_domain} {self._state.phase} "
            f"sequence={self._state.sequence} {self.pin}>"
        )

    # -- what is in force -----------------------------------------------------------------------

    @property
    def state(self) -> AuthorityState:
        """What is in force.

        Raises:
            CaError: `load_or_create` has not been awaited yet.
        """
        if self._state is None:
            message = "the CA has not been loaded"
            raise CaError(message)
        return self._state

    @property
    def bundle(self) -> TrustBundle:
        """What workloads must trust now; its sequence grows with every change."""
        return self.state.bundle(max(1, int(min(MAX_REFRESH_HINT, self.svid_lifetime / 2))))

    @property
    def pin(self) -> str:
        """What a new sidecar must be given as `--ca-pin`: the root that the control plane shows."""
        return pin_of(self.state.active.root)

    @property
    def control_id(self) -> SpiffeId:
        """The control plane's own SPIFFE ID, which no sidecar can obtain."""
        return SpiffeId(self.trust_domain, CONTROL_PATH)

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback()` after each change of the bundle or of who signs.

        Returns:
            A function that ends the subscription; idempotent.
        """
        subscription = object()
        self._listeners[subscription] = callback

        def unsubscribe() -> None:
            self._listeners.pop(subscription, None)

        return unsubscribe

    # -- signing --------------------------------------------------------------------------------

    async def sign(
        self, csr: bytes | x509.CertificateSigningRequest, service: str, lifetime: float | None
    ) -> SignedSvid:
        """Sign an SVID of `service`, which the caller has proved to be, for the key of a CSR.

        In a thread, for it takes more than a millisecond.

        Args:
            csr: PEM or DER.
            service: the service's name.
            lifetime: seconds; more than `svid_lifetime`, or None, gets that.

        Raises:
            CsrError: the CSR asks for something else, is unreadable, or its key is weak.
            SpiffeIdError: `service` is no service name.
            CaError: a bad lifetime, or the CA has expired.
            CredentialError: the result did not pass validation (a defect of the CA).
        """
        request = load_csr(csr) if isinstance(csr, bytes) else csr
        spiffe_id = SpiffeId.for_service(self.trust_domain, service)
        life = self.svid_lifetime if lifetime is None else min(lifetime, self.svid_lifetime)
        async with self._signing:
            state, bundle = self.state, self.bundle
            authority = state.authority(state.signer, self._clock)
            chain = await asyncio.to_thread(authority.sign_svid, request, spiffe_id, life)
        not_after = chain[0].not_valid_after_utc.timestamp()
        logger.info(
            "signed an SVID of %s, serial %x, valid until %s",
            spiffe_id,
            chain[0].serial_number,
            iso_time(not_after),
        )
        chain_pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
        return SignedSvid(spiffe_id, chain_pem, bundle, not_after)

    def issue_control(self, names: Iterable[str]) -> Svid:
        """A certificate for the control plane itself: `/hms/control`, and its hosts' names.

        It stays below the root in force until that is retired: who knows only the old root (by
        its pin) can still come in. To be made anew after each change (`subscribe`) and at half
        of its life.

        Args:
            names: host names and IP addresses.

        Raises:
            CaError: a name that no certificate can carry, or the CA has expired.
        """
        state = self.state
        authority = state.authority(state.active, self._clock)
        lifetime = max(self.svid_lifetime, MIN_CONTROL_LIFETIME)
        try:
            hosts = [template.host_name(name) for name in names]
        except ValueError as error:
            raise CaError(str(error)) from error
        return authority.issue(self.control_id, lifetime, hosts)

    # -- start, and what is due -----------------------------------------------------------------

    async def load_or_create(self) -> None:
        """Read the CA from the store; make it if the store has never held one.

        Raises:
            CaError: it is damaged, foreign or expired; or the store has lost it.
            SpiffeIdError: bad trust domain.
        """
        async with self._lock:
            state = await self._kept.read()
            if state is None:
                state = AuthorityState.create(self.trust_domain, self.svid_lifetime, self._clock)
                await self._save(state)
                logger.info("made the CA of %s: %s", self.trust_domain, self.pin)
                return
            ready = state.with_renewed_intermediates(self._clock).with_longest(self.svid_lifetime)
            if ready != state:
                await self._kept.write(ready)
            self._use(ready)
        end = ready.active.root.not_valid_after_utc.timestamp()
        if end - self._clock.wall() < ROOT_WARNING:
            logger.warning(
                "the root of %s ends at %s: replace it with `hms ca rotate-root`",
                self.trust_domain,
                iso_time(end),
            )

    async def run(self) -> None:
        """Do what is due, until cancelled: renew intermediates, take a rotation's next step."""
        while True:
            try:
                while await self.step():
                    pass
            except Exception:
                logger.exception("the CA could not take its next step")
            rotating = self.state.phase is not Phase.STEADY
            pause = min(ROTATION_INTERVAL, self.svid_lifetime / 4) if rotating else LOOK_INTERVAL
            self._wake.clear()
            timer = self._clock.call_later(pause, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def step(self) -> bool:
        """Take one step that is due. Returns whether there was one.

        Raises:
            StoreError: it could not be written; nothing has changed.
        """
        async with self._lock:
            await self._catch_up()
            state, now = self.state, self._clock.wall()
            renewed = state.with_renewed_intermediates(self._clock)
            if renewed is not state:
                await self._save(renewed)
                logger.info("renewed the intermediate of %s", self.trust_domain)
                return True
            if state.coming is None:
                return False
            settle = min(SETTLE, self.svid_lifetime)
            if not state.is_over(now, (await self._reports()).values(), settle):
                return False
            await self._advance()
            return True

    async def rotate_root(self, *, now: bool = False, overlap: float | None = None) -> None:
        """Begin to replace the root; or, with `now`, end the present phase without waiting.

        A phase that is ended too early costs requests: sidecars that do not trust the new root yet
        refuse its SVIDs, and those that still have an SVID of the old one are refused.

        Args:
            now: do not wait for the present phase; begins a rotation if none is under way.
            overlap: seconds after which sidecars that have not reported the new root are waited
                for no longer; an SVID's life if not given, for then theirs have expired.

        Raises:
            RotationError: one is under way, and `now` was not said.
            StoreError: it could not be written; nothing has changed.
        """
        async with self._lock:
            await self._catch_up()
            state = self.state
            if now and state.coming is not None:
                await self._advance()
            else:
                wait = state.active.longest + MARGIN if overlap is None else overlap
                await self._save(state.announced(wait, self._clock))
                logger.warning(
                    "a new root of %s is announced: %s", self.trust_domain, self._coming_pin()
                )
        self._wake.set()

    async def describe(self) -> dict[str, Any]:
        """How things stand, as JSON-ready types; no secret in it."""
        state = self.state
        behind = [
            name
            for name, sequence in (await self._reports()).items()
            if sequence is None or sequence < state.sequence
        ]
        return {
            "trust_domain": self.trust_domain,
            "pin": self.pin,
            "next_pin": self._coming_pin(),
            "phase": str(state.phase),
            "since": state.since,
            "until": state.until,
            "bundle_sequence": state.sequence,
            "waiting_for": sorted(behind) if state.phase is Phase.ANNOUNCED else [],
            "svid_lifetime": self.svid_lifetime,
            "roots": [
                _describe(signing, signs=signing is state.signer)
                for signing in filter(None, (state.active, state.coming))
            ],
        }

    # -- within ---------------------------------------------------------------------------------

    async def _advance(self) -> None:
        state = self.state.advanced(self._clock.wall())
        await self._save(state)
        if state.phase is Phase.SIGNING:
            logger.warning("%s: SVIDs are signed below the new root from now on", self.trust_domain)
        else:
            logger.warning(
                "%s: the old root is retired; the pin is %s", self.trust_domain, self.pin
            )

    async def _save(self, state: AuthorityState) -> None:
        """Write a state, then use it.

        Raises:
            StoreError: it may not be written, and is not used.
        """
        await self._kept.write(state)
        self._use(state)

    def _use(self, state: AuthorityState) -> None:
        self._state = state
        for listener in tuple(self._listeners.values()):
            try:
                listener()
            except Exception:
                logger.exception("a listener failed on the CA's change")

    async def _catch_up(self) -> None:
        """Use what the store holds, if the last write got no answer."""
        state = await self._kept.read_again()
        if state is not None:
            self._use(state)

    async def _reports(self) -> dict[str, int | None]:
        """The bundle sequence that each sidecar has reported, by `<service>/<id>`."""
        found: dict[str, int | None] = {}
        for entry in await self._store.list("sidecars/"):
            try:
                sequence = json.loads(entry.value).get("bundle_sequence")
            except (ValueError, AttributeError):
                sequence = None
            name = entry.key.removeprefix("sidecars/")
            found[name] = sequence if isinstance(sequence, int) else None
        return found

    def _coming_pin(self) -> str | None:
        coming = self.state.coming
        return pin_of(coming.root) if coming is not None else None


def _describe(signing: SigningRoot, *, signs: bool) -> dict[str, Any]:
    return {
        "pin": pin_of(signing.root),
        "not_after": signing.root.not_valid_after_utc.timestamp(),
        "signs": signs,
        "intermediate": {
            "serial": f"{signing.intermediate.serial_number:x}",
            "not_after": signing.intermediate.not_valid_after_utc.timestamp(),
        },
    }
