"""`hms plugins`: what is loaded, and from where."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from hms_addons.cli.output import Json, fail, print_json, write

DEFAULT_ADMIN = "127.0.0.1:15000"
_ASKING = 5.0
"""Seconds that a running sidecar has for its answer, besides what it measures."""


def plugins(
    admin: Annotated[
        str | None,
        typer.Option(
            "--admin",
            envvar="HMS_ADMIN",
            metavar="HOST:PORT",
            help=f"Admin port of a running sidecar; {DEFAULT_ADMIN} if one answers there.",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the plugins of a running sidecar; where there is none, those that it would have here.

    Example: `hms plugins --admin 127.0.0.1:15000`
    """
    found = _running(admin or DEFAULT_ADMIN, asked=admin is not None)
    if found is None:
        found = {"sidecar": None, "plugins": _here(), "errors": []}
    if as_json:
        print_json(found)
        return
    write(_text(found))


def _running(address: str, *, asked: bool) -> dict[str, Any] | None:
    """What the sidecar at `address` says; None if there is none and nobody has asked for it.

    Raises:
        typer.Exit: it was asked for, and does not answer as a sidecar would.
    """
    import httpx  # noqa: PLC0415 - start-up time

    url = f"http://{address}/plugins"
    try:
        with httpx.Client(trust_env=False, timeout=_ASKING) as client:
            answer = client.get(url, params={"format": "json"})
        page = answer.json() if answer.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, UnicodeDecodeError) as error:
        if not asked:
            return None
        why = str(error) or type(error).__name__
        raise fail(f"no sidecar answers on {address}: {why}; is its admin port open?") from None
    if not isinstance(page, dict) or not isinstance(page.get("plugins"), list):
        if not asked:
            return None
        raise fail(f"what answers on {address} ({answer.status_code}) is no sidecar's admin port")
    return {"sidecar": address} | page


def _here() -> list[dict[str, str]]:
    """The plugins that a sidecar of this machine would have.

    Raises:
        typer.Exit: one of them cannot be loaded.
    """
    import random  # noqa: PLC0415 - start-up time

    from hms_addons.bootstrap import build_plugins  # noqa: PLC0415
    from hms_addons.errors import MeshError  # noqa: PLC0415

    try:
        made = build_plugins(("127.0.0.1", 0), random.Random())  # noqa: S311 - nothing is drawn
    except MeshError as error:
        raise fail(f"a sidecar could not start here: {error}") from None
    return [{"name": name, "source": made.sources[name]} for name in made.names]


def _text(found: dict[str, Any]) -> str:
    from hms_addons.text_table import table  # noqa: PLC0415 - start-up time

    where = found["sidecar"]
    head = (
        f"in the sidecar at {where}" if where else "no sidecar asked; one started here would have"
    )
    text = f"{head}:\n{table(found['plugins'])}\n"
    if found.get("errors"):
        text += f"\nerrors since the start:\n{table(found['errors'])}\n"
    return text
