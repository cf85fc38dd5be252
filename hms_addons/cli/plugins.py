"""`hms plugins`: what is loaded, from where, and how long each hook takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hms_addons.cli.output import Json, fail, print_json, write

DEFAULT_ADMIN = "127.0.0.1:15000"
_ASKING = 5.0
"""Seconds that a running sidecar has for its answer, besides what it measures."""
_LONGEST = 60.0
"""Seconds that a sidecar measures at most."""


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
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            envvar="HMS_TIME",
            metavar="DURATION",
            help="Measure each hook for so long, as 5s; at most 60s.",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the plugins of a running sidecar; where there is none, those that it would have here.

    Example: `hms plugins --time 5s`
    """
    asked = admin is not None or time is not None
    found = _running(admin or DEFAULT_ADMIN, time, asked=asked)
    if found is None:
        found = {"sidecar": None, "plugins": _here(), "errors": []}
    if as_json:
        print_json(found)
        return
    write(_text(found))


def _running(address: str, time: str | None, *, asked: bool) -> dict[str, Any] | None:
    """What the sidecar at `address` says; None if there is none and nobody has asked for it.

    Raises:
        typer.Exit: it was asked for, and does not answer as a sidecar would.
    """
    import httpx  # noqa: PLC0415 - start-up time

    url = f"http://{address}/plugins"
    params = {"format": "json"} | ({} if time is None else {"time": time})
    patience = _ASKING if time is None else _ASKING + _LONGEST
    try:
        with httpx.Client(trust_env=False, timeout=patience) as client:
            answer = client.get(url, params=params)
        if time is not None and answer.status_code in {400, 409}:
            raise fail(answer.json()["detail"])
        page = answer.json() if answer.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError) as error:
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
    if "times" in found:
        text += f"\nhooks, in {found['seconds']:g}s:\n{table(found['times'])}\n"
    if found.get("errors"):
        text += f"\nerrors since the start:\n{table(found['errors'])}\n"
    return text
