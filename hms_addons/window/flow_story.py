"""What the mesh did with a flow and why, in words: `hms.explain`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
from hms_addons.engine.flow_marks import MARKS
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from hms_addons.config.snapshot import Snapshot


def story(flow: HTTPFlow, shown: HTTPFlow, snapshot: Snapshot | None) -> list[str]:
    """Lines: what happened, as it was noted then; and what would by the configuration in force.

    Args:
        flow: as it is; its token and headers decide.
        shown: the same as it may be shown.
        snapshot: the configuration in force.
    """
    noted = flow.metadata.get("hms")
    told = _what_happened(shown, noted) if isinstance(noted, dict) and "direction" in noted else []
    would = ["there is no configuration in force"]
    if snapshot is not None:
        would = _what_would(flow, shown.request.path, snapshot)
    return [*(told or ["the mesh has not decided on this flow"]), *would]


def _what_happened(flow: HTTPFlow, noted: dict[str, Any]) -> list[str]:
    status = flow.response.status_code if flow.response is not None else "no answer"
    what = f"{flow.request.method} {flow.request.path}: {status}"
    lines = [f"happened  {what}, {noted['direction']} on {noted['listener']}"]
    if noted.get("mark"):
        lines.append(f"          {MARKS[noted['mark']]}")
    if noted["flag"]:
        lines.append(f"flag      {noted['flag']}: {noted['detail'] or 'see the answer'}")
    route = noted["route"] or "none"
    service = f", for the service {noted['service']}" if noted["service"] else ""
    lines.append(f"route     {route}{service}, to cluster {noted['cluster'] or 'none'}")
    lines += [
        f"attempt   {number}. {one['endpoint']}: {one['outcome']} in {one['ms']:g} ms"
        for number, one in enumerate(noted["attempts"], 1)
    ]
    if noted["fallback"]:
        lines.append(f"fallback  {noted['fallback']['what']}")
    who = [f"{key} {noted[key]}" for key in ("peer", "subject", "role") if noted[key]]
    lines.append(f"caller    {', '.join(who) or 'anonymous'}")
    if noted["policy"]:
        lines.append(f"policy    decided by {noted['policy']!r}")
    if noted["would_deny"]:
        lines.append(f"audit     would be denied: {noted['would_deny']}")
    if noted["policy_version"]:
        lines.append(f"version   of the policy: {noted['policy_version']}")
    lines += [f"note      {name}: {note}" for name, note in noted["notes"].items()]
    return lines


def _what_would(flow: HTTPFlow, path: str, snapshot: Snapshot) -> list[str]:
    noted = flow.metadata.get("hms")
    own = noted.get("listener") if isinstance(noted, dict) else None
    # Which listener it is cannot be told from the request: its Host is the service's.
    listeners = tuple(one for one in snapshot.listeners if one.name == own) or snapshot.listeners
    try:
        found = explain(
            replace(snapshot, listeners=listeners),
            f"{flow.request.method} {path}",
            [(name, value) for name, value in flow.request.headers.items(multi=True)],
        )
    except MeshError as error:
        return [f"the configuration in force cannot explain it: {error}"]
    return [f"now, by configuration {snapshot.version}:", *to_text(found).splitlines()]
