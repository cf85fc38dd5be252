"""`hms token` and `hms ca`: who may join, and what everyone trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hms_addons.identity.svid import iso_time
from hms_addons.operator_client.outcome import Outcome, when

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.clock import Clock
    from hms_addons.operator_client.client import OperatorClient

_PHASES: Final = {
    "steady": "no rotation is under way",
    "announced": "the new root is announced and signs nothing yet",
    "signing": "the new root signs; the old one is trusted until the last SVID below it has expired",
}


async def create_token(client: OperatorClient, service: str, ttl: float) -> Outcome:
    """Make a join token; the text is the token alone, so that a script can take it.

    Raises:
        OperatorError: it could not be made.
    """
    answer = await client.ask("POST", "/v1/tokens", json={"service": service, "ttl": ttl})
    document = answer.json()
    return Outcome(document["token"], document)


async def list_tokens(client: OperatorClient, clock: Clock) -> Outcome:
    """The tokens that are remembered; never their secrets.

    Raises:
        OperatorError: they cannot be had.
    """
    document = (await client.ask("GET", "/v1/tokens")).json()
    now = clock.wall()
    lines = [_token(token, now) for token in document["tokens"]]
    return Outcome("\n".join(lines) or "there is no token: `hms token create` makes one", document)


def _token(token: Mapping[str, Any], now: float) -> str:
    state = {
        "valid": f"valid for {when(token['expires'], now)}",
        "used": f"used {when(token['used'] or now, now)} ago",
        "expired": f"expired {when(token['expires'], now)} ago",
    }.get(token["state"], token["state"])
    return f"{token['id']}  {token['service']}  {state}"


async def revoke_token(client: OperatorClient, token_id: str) -> Outcome:
    """Let a token let nobody in any more.

    Raises:
        OperatorError: there is none with this id.
    """
    await client.ask("DELETE", f"/v1/tokens/{quote(token_id, safe='')}")
    return Outcome(f"ok: the token {token_id} is revoked", {"revoked": token_id})


async def show_ca(client: OperatorClient, clock: Clock) -> Outcome:
    """The CA's roots, the pin for new sidecars, and how far a rotation is.

    Raises:
        OperatorError: it cannot be had.
    """
    document = (await client.ask("GET", "/v1/ca")).json()
    return Outcome(_ca(document, clock.wall()), document)


async def rotate_root(
    client: OperatorClient, clock: Clock, *, now: bool, overlap: float | None
) -> Outcome:
    """Begin to replace the root, or end the present phase of it.

    Raises:
        OperatorError: one is under way already, or it could not be written.
    """
    wish = {"now": now, "overlap": overlap}
    document = (await client.ask("POST", "/v1/ca/rotate-root", json=wish)).json()
    return Outcome(_ca(document, clock.wall()), document)


def _ca(document: Mapping[str, Any], now: float) -> str:
    phase = document["phase"]
    lines = [
        f"trust domain  {document['trust_domain']}",
        f"pin           {document['pin']}",
    ]
    if document.get("next_pin"):
        lines.append(f"next pin      {document['next_pin']}  (once the old root is retired)")
    lines.append(f"phase         {phase}: {_PHASES.get(phase, 'unknown to this version')}")
    if document.get("until"):
        until = document["until"]
        lines.append(f"              at most until {iso_time(until)} ({when(until, now)})")
    if document.get("waiting_for"):
        lines.append(f"waiting for   {', '.join(document['waiting_for'])}")
    lines.append(f"SVIDs live    {when(now + document['svid_lifetime'], now)}")
    lines += [_root(root, now) for root in document["roots"]]
    return "\n".join(lines)


def _root(root: Mapping[str, Any], now: float) -> str:
    signs = "signs" if root["signs"] else "is trusted"
    below = root["intermediate"]
    return (
        f"root          {root['pin'][:23]}… {signs}, {when(root['not_after'], now)} left; its "
        f"intermediate {below['serial'][:12]}…, {when(below['not_after'], now)} left"
    )
