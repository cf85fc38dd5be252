"""What a route does to traffic besides leading it somewhere, as `hms explain` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.local_answers import DirectResponse, Redirect
from hms_addons.config.shaping import LimitBy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.config.header_edits import HeaderEdits
    from hms_addons.config.shaping import Fault, RateLimit, Shaping
    from hms_addons.http_message import Fields


def explain_shaping(shaping: Shaping | None, path: str) -> dict[str, Any] | None:
    """JSON-ready types; None where nothing is shaped.

    Args:
        shaping: the route's.
        path: the request's, normalised.
    """
    if shaping is None:
        return None
    rewrite = shaping.rewrite
    return {
        "answer": _answer(shaping.answer),
        "rewrite": None
        if rewrite is None
        else {
            "path": path if rewrite.path is None else rewrite.path.apply(path),
            "host": None if rewrite.host is None else rewrite.host.decode(),
        },
        "rate_limits": [_limit(limit) for limit in shaping.rate_limits],
        "fault": None if shaping.fault is None else _fault(shaping.fault),
        "request_headers": [_edits(edits) for edits in shaping.request_headers],
        "response_headers": [_edits(edits) for edits in shaping.response_headers],
        "by_cluster": {
            name: {
                "request_headers": None if edits.request is None else _edits(edits.request),
                "response_headers": None if edits.response is None else _edits(edits.response),
            }
            for name, edits in shaping.by_cluster.items()
        },
    }


def sent_path(shaping: Shaping | None, path: str) -> str:
    """The path as it is sent, and so as policies judge it."""
    if shaping is None or shaping.rewrite is None or shaping.rewrite.path is None:
        return path
    return shaping.rewrite.path.apply(path)


def _answer(answer: DirectResponse | Redirect | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    if isinstance(answer, DirectResponse):
        return {
            "kind": "direct_response",
            "status": answer.status,
            "bytes": len(answer.body),
            "headers": _pairs(answer.headers),
        }
    return {
        "kind": "redirect",
        "status": answer.status,
        "scheme": answer.scheme,
        "host": answer.host,
        "port": answer.port,
        "path": None if answer.path is None else str(answer.path),
    }


def _limit(limit: RateLimit) -> dict[str, Any]:
    by = str(limit.by)
    if limit.by is LimitBy.HEADER:
        by = f"header:{(limit.header or b'').decode()}"
    return {
        "name": limit.name,
        "place": limit.place,
        "requests": limit.requests,
        "per_s": limit.per,
        "burst": limit.burst,
        "by": by,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "delay_s": fault.delay,
        "delay_percent": None if fault.delay is None else fault.delay_percent,
        "abort": fault.abort,
        "abort_percent": None if fault.abort is None else fault.abort_percent,
        "when": [str(condition) for condition in fault.when],
        "max_active": fault.max_active,
    }


def _pairs(fields: Fields) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields]


def _edits(edits: HeaderEdits) -> dict[str, Any]:
    return {
        "remove": [name.decode("latin-1") for name in edits.remove],
        "set": _pairs(edits.set),
        "add": _pairs(edits.add),
    }


# -- for a person ----------------------------------------------------------------------------------


def shaping_lines(found: Mapping[str, Any] | None) -> list[str]:
    """What `explain_shaping` found, a line each."""
    if found is None:
        return []
    lines = []
    answer = found["answer"]
    if answer is not None and answer["kind"] == "redirect":
        parts = [
            f"{key} {answer[key]}" for key in ("scheme", "host", "port", "path") if answer[key]
        ]
        lines.append(
            f"answered here: {answer['status']} redirect, {', '.join(parts) or 'the same URL'}"
        )
    elif answer is not None:
        lines.append(f"answered here: {answer['status']}, {answer['bytes']} bytes")
    rewrite = found["rewrite"]
    if rewrite is not None:
        host = "" if rewrite["host"] is None else f", Host {rewrite['host']}"
        lines.append(f"sent as {rewrite['path']}{host}")
    lines.extend(
        f"limit {limit['name']} ({limit['place']}): {limit['requests']} per {limit['per_s']:g}s, "
        f"{limit['burst']} at once, by {limit['by']}"
        for limit in found["rate_limits"]
    )
    if found["fault"] is not None:
        lines.append(_fault_line(found["fault"]))
    for name, edits in found["by_cluster"].items():
        for key, what in (("request_headers", "request"), ("response_headers", "answer")):
            if edits[key] is not None:
                lines.extend(_edit_lines(f"{what}, {name}", [edits[key]]))
    lines.extend(_edit_lines("request", found["request_headers"]))
    lines.extend(_edit_lines("answer", found["response_headers"]))
    return lines


def _fault_line(fault: Mapping[str, Any]) -> str:
    parts = []
    if fault["delay_s"] is not None:
        parts.append(f"delay {fault['delay_s']:g}s for {fault['delay_percent']:g}%")
    if fault["abort"] is not None:
        parts.append(f"abort with {fault['abort']} for {fault['abort_percent']:g}%")
    when = f" of those with {' and '.join(fault['when'])}" if fault["when"] else ""
    return f"fault: {', '.join(parts)}{when}"


def _edit_lines(what: str, rules: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for rule in rules:
        parts = []
        if rule["remove"]:
            parts.append(f"remove {', '.join(rule['remove'])}")
        for key in ("set", "add"):
            parts.extend(f"{key} {name}: {value}" for name, value in rule[key])
        lines.append(f"headers of the {what}: {'; '.join(parts)}")
    return lines
