"""Who may get which SVID, and the order in which it is given.

    prove (token or SVID) ──▶ may_enrol ──▶ CSR checked ──▶ token spent ──▶ signed ──▶ answer

The decision is a pure function, and every reason against a request is told at once. The token is
spent after everything that can be wrong with the request has been looked at, and before the
signature: a mistake costs no token, and no token buys two SVIDs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from hms_addons.control.ca.authority import MIN_LIFETIME
from hms_addons.control.ca.csr import CsrError, check_csr, load_csr
from hms_addons.control.tokens import TokenError
from hms_addons.errors import MeshError
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError

if TYPE_CHECKING:
    from cryptography import x509

    from hms_addons.control.ca.mesh_authority import MeshAuthority, SignedSvid
    from hms_addons.control.tokens import JoinTokens

BAD_REQUEST = 400
UNAUTHORIZED = 401
FORBIDDEN = 403


class EnrolmentError(MeshError):
    """An SVID is refused; `problems` holds every reason, `status` is HTTP's for the weightiest.

    401: the caller has not proved to be anybody; 403: what it proved is not enough for what it
    asks; 400: what it asks is wrong in itself.
    """

    def __init__(self, status: int, *problems: str) -> None:
        self.status = status
        self.problems = problems
        super().__init__("; ".join(problems))


class Proof(NamedTuple):
    """What a caller brings: a join token, or the verified SVID of its connection; or both."""

    peer: SpiffeId | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"<Proof peer={self.peer} token={'given' if self.token else 'none'}>"


class Verdict(NamedTuple):
    """Who may have an SVID: by its own SVID (`renews`), by a token (`needs_token`), or why not."""

    renews: bool = False
    needs_token: bool = False
    status: int = 200
    reason: str | None = None


def may_enrol(proof: Proof, spiffe_id: SpiffeId) -> Verdict:
    """Whether a caller may have an SVID for `spiffe_id`; the token itself is still to be looked at.

    An SVID renews itself and nothing else. A join token is good for its service. The control
    plane's own name, or any that is not a service's, is given to nobody.
    """
    if spiffe_id.service is None:
        return Verdict(status=FORBIDDEN, reason=f"{spiffe_id} is no service's: nobody can have it")
    if proof.peer == spiffe_id:
        return Verdict(renews=True)
    if proof.token is not None:
        return Verdict(needs_token=True)
    if proof.peer is not None:
        return Verdict(
            status=FORBIDDEN,
            reason=f"{proof.peer} can renew its own SVID only, not have one of {spiffe_id}",
        )
    return Verdict(
        status=UNAUTHORIZED,
        reason="bring a join token (`Authorization: Bearer hms1.…`), or the SVID to be renewed",
    )


class Enrolment:
    """Gives SVIDs to those who may have them.

    Args:
        authority: signs.
        tokens: knows the join tokens.
    """

    __slots__ = ("_authority", "_tokens")

    def __init__(self, authority: MeshAuthority, tokens: JoinTokens) -> None:
        self._authority = authority
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"<Enrolment {self._authority!r}>"

    async def enrol(
        self, proof: Proof, service: str, csr: bytes, lifetime: float | None = None
    ) -> SignedSvid:
        """Sign an SVID of `service` for the key of a CSR.

        Args:
            proof: what the caller has brought.
            service: whose SVID is asked for.
            csr: PEM or DER.
            lifetime: seconds; None for the usual.

        Raises:
            EnrolmentError: with every reason; no token has been spent.
            CaError, CredentialError: the CA cannot sign; the token is good again.
            StoreError: as the store says.
        """
        try:
            spiffe_id = SpiffeId.for_service(self._authority.trust_domain, service)
        except SpiffeIdError as error:
            raise EnrolmentError(BAD_REQUEST, str(error)) from error
        verdict = may_enrol(proof, spiffe_id)
        found = [(verdict.status, verdict.reason)] if verdict.reason is not None else []
        if verdict.needs_token and proof.token is not None:
            try:
                await self._tokens.check(proof.token, service)
            except TokenError as error:
                found.append((FORBIDDEN if error.known else UNAUTHORIZED, str(error)))
        request, problems = _looked_at(csr, spiffe_id)
        found += [(BAD_REQUEST, problem) for problem in problems]
        if lifetime is not None and not (math.isfinite(lifetime) and lifetime >= MIN_LIFETIME):
            found.append((BAD_REQUEST, f"a lifetime of {lifetime:g}s is not at least a second"))
        if found or request is None:
            raise EnrolmentError(found[0][0], *(reason for _, reason in found))
        if verdict.renews or proof.token is None:
            return await self._authority.sign(request, service, lifetime)
        return await self._by_token(proof.token, request, service, lifetime)

    async def _by_token(
        self,
        token: str,
        request: x509.CertificateSigningRequest,
        service: str,
        lifetime: float | None,
    ) -> SignedSvid:
        try:
            spent = await self._tokens.spend(token, service)
        except TokenError as error:  # somebody was quicker
            status = FORBIDDEN if error.known else UNAUTHORIZED
            raise EnrolmentError(status, str(error)) from error
        try:
            return await self._authority.sign(request, service, lifetime)
        except BaseException:
            await self._tokens.give_back(spent)
            raise


def _looked_at(
    csr: bytes, spiffe_id: SpiffeId
) -> tuple[x509.CertificateSigningRequest | None, tuple[str, ...]]:
    """A CSR, and all that is wrong with it."""
    try:
        request = load_csr(csr)
        check_csr(request, spiffe_id)
    except CsrError as error:
        return None, tuple(f"the CSR is refused: {problem}" for problem in error.problems)
    return request, ()
