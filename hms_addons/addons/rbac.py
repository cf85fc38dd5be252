"""`rbac`: who is asking, by token; may they, by policy; and telling the app their role.

    Authorization ──JwtVerifier──▶ Principal ──PolicyIndex──▶ allowed, or 403 `RBAC`
                                       └──▶ X-Caller-Role, X-Caller-Subject

What depends on the configuration is made in `hms_configure` and swapped in as one `_State`; what
depends on the token is made once per token and remembered by the verifier. A request is judged by
the snapshot it began with: a candidate that another plugin may still refuse decides about nothing.
Only one that was held while two changes came in is judged by the newest.
"""

from __future__ import annotations

import logging
import os
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.jwt_providers import RemoteKeys, make_provider, provider_status
from hms_addons.config.policy import PolicyIndex, PolicyRequest, own_caller
from hms_addons.config.snapshot import Direction
from hms_addons.errors import ConfigError, Fault
from hms_addons.exchange import ANONYMOUS, Principal
from hms_addons.hookspecs import hookimpl
from hms_addons.identity.caller_headers import HeaderValueError, role_header, subject_header
from hms_addons.identity.jwt_claims import JwtError, JwtErrorCode
from hms_addons.identity.jwt_verifier import (
    JwtKeyError,
    JwtProviderError,
    JwtVerifier,
    VerifiedToken,
    token_from_header,
)
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Mapping

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.policy import Decision
    from hms_addons.config.snapshot import Rbac as RbacSpec
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh

logger = logging.getLogger(__name__)

KEY_REFRESH: Final = 1.0
"""Seconds between two looks for newer keys."""

_NOT_DESCRIPTION = re.compile(r"[^ !#-\[\]-~]")
"""What an `error_description` may not hold (RFC 6750 section 3)."""


NO_ALLOW: Final = "-"
"""Stands for a policy's name where none refused, but none allowed it either."""


class _State(NamedTuple):
    """All that one snapshot decides."""

    snapshot: Snapshot
    verifier: JwtVerifier[Principal] | None
    policies: PolicyIndex | None
    role: bytes
    """Name of the role header."""
    subject: bytes
    """Name of the subject header."""
    own: str | None
    """Who calls on outbound listeners: this sidecar's own service."""


class Rbac:
    """The built-in plugin `rbac`.

    Args:
        clock: for token times and for the rhythm of key refreshes.
        environ: where `hs256_secret_env` is looked up.
        rng: spreads the questions of many sidecars for keys.
        transport: stands in for the network (httpx's own seam); None is the network.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        environ: Mapping[str, str] = os.environ,
        rng: random.Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._environ = environ
        self._state: _State | None = None
        self._previous: _State | None = None
        self._tasks = TaskSet("rbac")
        self.would_deny: Counter[str] = Counter()
        """Requests that policies of `mode: audit` would have refused, by policy."""
        self._remote = RemoteKeys(
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - jitter, not a secret
            tasks=self._tasks,
            changed=self._refresh,
            transport=transport,
        )

    def __repr__(self) -> str:
        state = self._state
        if state is None:
            return "<Rbac unconfigured>"
        return f"<Rbac {state.verifier} {state.policies}>"

    # -- life -----------------------------------------------------------------------------------

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Compile the policies and ready the providers; tokens known under the same ones stay so."""
        previous = self._previous
        if previous is None or previous.snapshot is not snapshot:
            policies = snapshot.rbac.policies
            previous = _State(
                snapshot=snapshot,
                verifier=self._verifier_for(snapshot.rbac),
                policies=PolicyIndex(policies) if policies else None,
                role=snapshot.headers.role,
                subject=snapshot.headers.subject,
                own=own_caller(snapshot),
            )
        self._previous, self._state = self._state, previous
        old = self._previous.snapshot.rbac.providers if self._previous is not None else ()
        self._remote.keep(snapshot.rbac.providers, old)

    def _verifier_for(self, spec: RbacSpec) -> JwtVerifier[Principal] | None:
        state = self._state
        if state is not None:
            old = state.snapshot.rbac
            if old.providers == spec.providers and old.role_order == spec.role_order:
                return state.verifier
        return self._make_verifier(spec)

    def _state_of(self, exchange: Exchange) -> _State | None:
        previous = self._previous
        if previous is not None and previous.snapshot is exchange.snapshot:
            return previous
        return self._state

    def _make_verifier(self, spec: RbacSpec) -> JwtVerifier[Principal] | None:
        if not spec.providers:
            return None
        rank = {role: index for index, role in enumerate(spec.role_order)}
        try:
            providers = [
                make_provider(provider, self._environ, self._remote) for provider in spec.providers
            ]
            verifier = JwtVerifier(providers, self._clock, lambda token: principal_of(token, rank))
        except JwtProviderError as error:
            raise ConfigError(f"rbac.providers: {error}") from error
        # Not a refusal: the keys may come later, and what needs no token can be served.
        for problem in verifier.problems:
            logger.warning("%s; its tokens are refused until that is mended", problem)
        return verifier

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Without providers nobody is identified; without policies everything is allowed."""
        idle = [] if snapshot.rbac.providers else ["hms_identify"]
        return idle if snapshot.rbac.policies else [*idle, "hms_authorize"]

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Begin to look for newer keys. Does not wait: a source that is away blocks no start."""
        mesh.add_status("rbac", self._status)
        self._tasks.start(self._watch_keys(), "keys")
        self._remote.start()

    def _status(self) -> dict[str, Any]:
        """JSON-ready: whose keys are here, and what audited policies would have refused, by policy."""
        state = self._state
        verifier = state.verifier if state is not None else None
        return {
            "providers": [] if verifier is None else provider_status(verifier.providers),
            "would_deny": dict(self.would_deny),
        }

    async def _watch_keys(self) -> None:
        while True:
            await self._clock.sleep(KEY_REFRESH)
            self._refresh()

    def _refresh(self) -> None:
        for state in (self._state, self._previous):
            if state is not None and state.verifier is not None:
                state.verifier.refresh()

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Stop looking."""
        self._remote.stop()
        await self._tasks.close()

    # -- a request ------------------------------------------------------------------------------

    @hookimpl
    def hms_identify(self, exchange: Exchange) -> Awaitable[None] | None:
        """A genuine token makes the principal; a bad one is refused; none leaves it anonymous.

        Without providers tokens are the app's own business. A plain call, but for a token that names a
        key which its issuer may have begun to use just now: that waits for a moment.
        """
        value = exchange.head.get(b"authorization")
        if value is None:
            return None
        state = self._state_of(exchange)
        if state is None or state.verifier is None:
            return None
        token = token_from_header(value.decode("latin-1"))
        if token is None:
            return None
        try:
            exchange.principal = state.verifier.verify(token)
        except JwtKeyError as error:
            renewal = error.renewal()
            if renewal is not None:
                return _verify_later(exchange, state.verifier, token, renewal)
            _refuse(exchange, error)
        except JwtError as error:
            _refuse(exchange, error)
        return None

    @hookimpl
    def hms_authorize(self, exchange: Exchange) -> None:
        """Ask the policies. Without any, everything is allowed."""
        state = self._state_of(exchange)
        route = exchange.route
        if state is None or route is None:
            # Unreachable in the chain; a permit must never rest on that.
            exchange.fail(Fault.POLICY_DENIED, "there is no configuration or no route to judge by")
            return
        policies = state.policies
        if policies is None:
            return
        principal = exchange.principal
        inbound = exchange.listener.direction is Direction.INBOUND
        decision = policies.decide(
            PolicyRequest(
                route.service,
                exchange.method,
                exchange.path,
                principal.roles,
                principal.subject,
                exchange.peer if inbound else state.own,
                principal.claims,
                exchange.fields if policies.asks_fields else (),
            )
        )
        exchange.decision = decision
        if not decision.allowed:
            detail = decision.reason
            if principal is ANONYMOUS and state.verifier is not None:
                detail += "; the request carries no token (Authorization: Bearer …)"
            exchange.fail(Fault.POLICY_DENIED, detail)
        elif decision.would_deny is not None:
            self._tell_of(decision)

    @hookimpl
    def hms_recheck(self, exchange: Exchange) -> None:
        """Ask the policies in force about an open tunnel; its token must be one that is still taken.

        That the token has expired meanwhile closes nothing: it was good for letting the tunnel in, as in
        Envoy and Istio. That its issuer is not trusted any more does.
        """
        issuer, providers = exchange.principal.issuer, exchange.snapshot.rbac.providers
        if not providers:
            exchange.principal = ANONYMOUS  # tokens are the app's own business then
        elif issuer is not None and not any(p.issuer in {None, issuer} for p in providers):
            exchange.fail(Fault.TOKEN_INVALID, "the token's issuer is not trusted any more")
            return
        self.hms_authorize(exchange)

    def _tell_of(self, decision: Decision) -> None:
        """A policy of `mode: audit` would have refused a request."""
        name = decision.audit_policy or NO_ALLOW
        self.would_deny[name] += 1
        count = self.would_deny[name]
        # The 1st, 2nd, 4th, 8th … time: a policy that is being tried out must not fill a disk.
        if count & (count - 1) == 0:
            logger.warning(
                "a request would be denied (mode: audit, %d so far): %s", count, decision.would_deny
            )

    @hookimpl
    def hms_prepare(self, exchange: Exchange) -> None:
        """Tell the app the caller's roles and subject, and keep the token from it where told so."""
        principal = exchange.principal
        if principal is ANONYMOUS:
            return
        if not principal.forward:
            exchange.remove_field(b"authorization")
        state = self._state_of(exchange)
        if state is None:
            return
        role, subject = principal.role_header, principal.subject_header
        try:
            # A principal that another plugin has made may come without them.
            if role is None and principal.roles:
                role = role_header(principal.roles)
            if subject is None and principal.subject is not None:
                subject = subject_header(principal.subject)
        except HeaderValueError as error:
            exchange.fail(Fault.TOKEN_INVALID, f"the caller cannot be named to the app: {error}")
            return
        if role is not None and subject is not None:
            exchange.add_vouched(((state.role, role), (state.subject, subject)))
        elif role is not None:
            exchange.add_vouched(((state.role, role),))
        elif subject is not None:
            exchange.add_vouched(((state.subject, subject),))


def principal_of(token: VerifiedToken, rank: Mapping[str, int]) -> Principal:
    """What a verified token says, with its headers ready to be sent.

    Args:
        token: genuine and current.
        rank: the position of each role in `role_order`; others come last, in token order.

    Raises:
        JwtError: a claim cannot travel in a header. It is not dropped: a role that is lost could
            evade a DENY policy.
    """
    roles = token.roles
    if rank and len(roles) > 1:
        last = len(rank)
        roles = tuple(sorted(roles, key=lambda role: rank.get(role, last)))
    try:
        return Principal(
            subject=token.subject,
            roles=roles,
            claims=token.claims,
            issuer=token.issuer,
            role_header=role_header(roles) if roles else None,
            subject_header=None if token.subject is None else subject_header(token.subject),
            forward=token.forward,
        )
    except HeaderValueError as error:
        raise JwtError(JwtErrorCode.INVALID_TOKEN, f"the token is unusable: {error}") from None


async def _verify_later(
    exchange: Exchange, verifier: JwtVerifier[Principal], token: str, renewal: Awaitable[bool]
) -> None:
    await renewal
    try:
        exchange.principal = verifier.verify(token)
    except JwtError as error:
        _refuse(exchange, error)


def _refuse(exchange: Exchange, error: JwtError) -> None:
    """401 or 403, with the challenge of RFC 6750 section 3."""
    fault = Fault.TOKEN_INVALID if error.status == 401 else Fault.TOKEN_AUDIENCE  # noqa: PLR2004
    description = _NOT_DESCRIPTION.sub("?", error.detail.replace('"', "'"))
    challenge = f'Bearer error="{error.code}", error_description="{description}"'
    exchange.fail(fault, error.detail, headers=((b"WWW-Authenticate", challenge.encode("ascii")),))
