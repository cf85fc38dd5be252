"""`/v1/bundle`, `/v1/svids`, `/v1/tokens`, `/v1/ca`: what sidecars trust, and how they get an SVID."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import APIRouter, Response

from hms_addons.control.api.access import PlaneOf
from hms_addons.control.api.guard import CallerOf, GuardedRoute
from hms_addons.control.api.models import (
    Bundle,
    CaState,
    Identifier,
    NewToken,
    RotateRequest,
    SignedSvid,
    SvidRequest,
    TokenList,
    TokenRequest,
)
from hms_addons.control.api.problems import ApiError
from hms_addons.control.auth import authorize_service
from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.authority_state import RotationError
from hms_addons.control.enrolment import EnrolmentError, Proof
from hms_addons.control.tokens import TokenError

TRUST_DOMAIN_HEADER: Final = "X-HMS-Trust-Domain"

router = APIRouter(route_class=GuardedRoute, tags=["trust"])


@router.get(
    "/v1/bundle",
    operation_id="get_bundle",
    summary="The trust bundle",
    response_model=Bundle,
)
async def get_bundle(plane: PlaneOf) -> Response:
    """The roots that the mesh trusts, as a SPIFFE bundle.

    Whoever does not know them yet compares the SHA-256 of a root with the pin that the control
    plane printed. `X-HMS-Trust-Domain` says whose bundle it is.
    """
    bundle = plane.authority.bundle
    headers = {TRUST_DOMAIN_HEADER: bundle.trust_domain}
    return Response(bundle.to_spiffe_json(), headers=headers, media_type="application/json")


@router.post("/v1/svids", operation_id="issue_svid", summary="Sign an SVID")
async def issue_svid(plane: PlaneOf, caller: CallerOf, body: SvidRequest) -> SignedSvid:
    """Sign a CSR: for a join token, which it uses up, or for the SVID that it renews."""
    authorize_service("issue_svid", caller, body.service)
    proof = Proof(peer=caller.peer, token=caller.token)
    try:
        signed = await plane.enrolment.enrol(
            proof, body.service, body.csr.encode("utf-8", "replace"), body.lifetime
        )
    except EnrolmentError as error:
        challenge = {"WWW-Authenticate": 'Bearer realm="hms"'} if error.status == 401 else None  # noqa: PLR2004
        raise ApiError(error.status, str(error), headers=challenge) from error
    except CaError as error:
        raise ApiError(503, str(error)) from error
    plane.metrics.svids.labels(caller.kind).inc()
    return SignedSvid.model_validate(
        {
            "chain": signed.chain_pem.decode("ascii"),
            "bundle": json.loads(signed.bundle.to_spiffe_json()),
            "trust_domain": signed.bundle.trust_domain,
            "not_after": signed.not_after,
        }
    )


# -- join tokens -------------------------------------------------------------------------------


@router.post("/v1/tokens", operation_id="create_token", status_code=201, summary="Make a token")
async def create_token(plane: PlaneOf, body: TokenRequest) -> NewToken:
    """Make a join token, good for one SVID of one service. It is shown in this answer only."""
    try:
        made = await plane.tokens.create(body.service, body.ttl)
    except TokenError as error:
        raise ApiError(422, str(error)) from error
    token = made.token
    return NewToken(token=made.text, id=token.id, service=token.service, expires=token.expires)


@router.get("/v1/tokens", operation_id="list_tokens", summary="The join tokens")
async def list_tokens(plane: PlaneOf) -> TokenList:
    """The tokens that are remembered, used and expired ones for a day; never their secrets."""
    now = plane.clock.wall()
    return TokenList.model_validate(
        {
            "tokens": [
                {
                    "id": token.id,
                    "service": token.service,
                    "created": token.created,
                    "expires": token.expires,
                    "used": token.used,
                    "state": token.state(now),
                }
                for token in await plane.tokens.list()
            ]
        }
    )


@router.delete(
    "/v1/tokens/{id}",
    operation_id="revoke_token",
    status_code=204,
    summary="Revoke a token",
    responses={404: {"description": "There is no such token."}},
)
async def revoke_token(plane: PlaneOf, id: Identifier) -> None:  # noqa: A002 - the path says so
    """Forget a token: it lets nobody in any more. SVIDs it was spent on are not touched."""
    if await plane.tokens.revoke(id) is None:
        raise ApiError(
            404, "there is no token with this id: `hms token list` shows those there are"
        )


# -- the CA ------------------------------------------------------------------------------------


@router.get("/v1/ca", operation_id="get_ca", summary="How the CA stands")
async def get_ca(plane: PlaneOf) -> CaState:
    """The roots, the pin for new sidecars, and the phase of a rotation that is under way."""
    return CaState.model_validate(await plane.authority.describe())


@router.post(
    "/v1/ca/rotate-root",
    operation_id="rotate_root",
    status_code=202,
    summary="Replace the root",
    responses={409: {"description": "A rotation is under way already."}},
)
async def rotate_root(plane: PlaneOf, body: RotateRequest | None = None) -> CaState:
    """Begin to replace the root: announce, then sign with it, then retire the old one.

    Each phase waits until it is safe; `now` ends the present one at once.
    """
    wish = body or RotateRequest()
    try:
        await plane.authority.rotate_root(now=wish.now, overlap=wish.overlap)
    except RotationError as error:
        raise ApiError(409, str(error)) from error
    state: dict[str, Any] = await plane.authority.describe()
    return CaState.model_validate(state)
