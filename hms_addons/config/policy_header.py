"""What HMS-GOV says about the policies in force: its answer to `GET /policy-header`, understood.

The answer is JSON, `{"version": "1.3.4"}` or any `{"X-…": "…"}` pairs, or response headers of those
names; `ttl` (seconds) or `Cache-Control: max-age` says how long it counts (SEMANTICS, Governance).
An answer is taken whole or not at all: half of what governance asks for is not what it asks for.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from hms_addons.http_message import Fields

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer's body."""
MAX_FIELD: Final = 1024
"""Bytes of one header value that governance may set."""
MAX_FIELDS: Final = 16
"""Headers that governance may set."""
TTL_RANGE: Final = (1.0, 86_400.0)
"""Seconds; a TTL outside is brought in: 0 would ask for every request, a year would be for ever."""

_FIELD_NAME = re.compile(r"[Xx]-[A-Za-z0-9-]{1,100}")
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,10})", re.IGNORECASE)
_RESERVED = re.compile(
    r"x-(forwarded-.*|request-id|real-ip|hms-.*|envoy-.*|b3-.*|accel-.*|sendfile|client-.*"
    r"|original-(url|uri|host|method)|rewrite-url|http-method(-override)?|method-override)",
    re.IGNORECASE,
)
"""Names that say who calls, by which way, and what a request is: governance has no part in that."""


class PolicyHeaderError(ValueError):
    """An answer that cannot be used; the message says what is wrong with it."""


class PolicyHeader(NamedTuple):
    """What every request is to carry."""

    fields: Fields
    """Ready to be sent, the policy version first."""
    version: str
    """The policy version, or `-` if the answer names none."""
    ttl: float | None
    """Seconds for which it counts; None leaves that to the configuration."""


def name_flaw(name: str) -> str | None:
    """Why governance cannot set a header of this name; None if it can."""
    if _FIELD_NAME.fullmatch(name) is None:
        return f"{name[:100]!r} is no name for an X-… header"
    if _RESERVED.fullmatch(name) is not None:
        return f"{name} is not governance's to set"
    return None


def parse_policy_header(
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    own: bytes,
    reserved: Collection[bytes],
    allowed: Collection[bytes] = (),
) -> PolicyHeader:
    """Understand a successful answer of HMS-GOV.

    Args:
        body: its body, possibly empty.
        headers: its header fields.
        own: the name of the policy version header, as it is to be sent.
        reserved: names in lower case that governance must not set: the mesh's other own headers.
        allowed: the only names in lower case that it may set besides `own`; empty: any `X-…`.

    Raises:
        PolicyHeaderError: it names no policy version and no `X-…` header, or wrong ones.
    """
    fields = dict(headers)
    found, ttl = _from_json(body, own)
    if not found:
        found = _from_headers(fields, own, allowed)
    if not found:
        raise PolicyHeaderError(
            'it holds neither {"version": "…"} nor {"X-…": "…"} pairs, and no header '
            f"{own.decode()}"
        )
    if len(found) > MAX_FIELDS:
        raise PolicyHeaderError(f"it sets {len(found)} headers; at most {MAX_FIELDS} are taken")
    for name, value in found.items():
        _check(name, value, own, reserved, allowed)
    if ttl is None:
        ttl = _max_age(fields)
    own_name = own.decode()
    version = next((v for name, v in found.items() if name.lower() == own_name.lower()), "-")
    # The configured spelling, and first.
    ordered = {own_name: version} if version != "-" else {}
    ordered |= {name: v for name, v in found.items() if name.lower() != own_name.lower()}
    return PolicyHeader(
        tuple((name.encode(), value.encode()) for name, value in ordered.items()),
        version,
        None if ttl is None else min(max(ttl, TTL_RANGE[0]), TTL_RANGE[1]),
    )


def _from_json(body: bytes, own: bytes) -> tuple[dict[str, str], float | None]:
    """The pairs and the TTL of a JSON object; nothing if the body is empty or no JSON at all."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}, None
    if not isinstance(document, dict):
        return {}, None
    found: dict[str, str] = {}
    for key, value in document.items():
        if key == "version":
            name = own.decode()
        elif key[:2].lower() == "x-":
            name = key
        else:
            continue
        if any(name.lower() == other.lower() for other in found):
            raise PolicyHeaderError(f"it names {name[:100]} twice")
        found[name] = _text(key, value)
    return found, _ttl(document.get("ttl"))


def _text(name: str, value: Any) -> str:
    # A version such as 1.10 written as a number has lost its last digit already.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PolicyHeaderError(f"the value of {name[:100]!r} is not a string")
    return str(value)


def _ttl(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not math.isfinite(seconds := float(value)):
            raise ValueError  # noqa: TRY301 - told like any other
    except (ValueError, TypeError, OverflowError):
        raise PolicyHeaderError("its `ttl` is not a number of seconds") from None
    return seconds


def _from_headers(
    fields: dict[bytes, bytes], own: bytes, allowed: Collection[bytes]
) -> dict[str, str]:
    """The policy version, and further `X-Policy-…` fields: a server's other ones mean no policy."""
    return {
        name.decode("latin-1"): value.decode("latin-1").strip()
        for name, value in fields.items()
        if name.lower() == own.lower()
        or (name.lower() in allowed if allowed else name.lower().startswith(b"x-policy-"))
    }


def _check(
    name: str, value: str, own: bytes, reserved: Collection[bytes], allowed: Collection[bytes]
) -> None:
    lower = name.lower().encode("latin-1", "replace")
    if lower != own.lower():
        flaw = name_flaw(name)
        if flaw is not None:
            raise PolicyHeaderError(flaw)
        if lower in reserved:
            raise PolicyHeaderError(f"{name} is not governance's to set")
        if allowed and lower not in allowed:
            raise PolicyHeaderError(f"it sets {name}, which is not under `governance.headers`")
    if len(value) > MAX_FIELD or _FIELD_VALUE.fullmatch(value) is None:
        raise PolicyHeaderError(
            f"the value of {name} is empty, longer than {MAX_FIELD} bytes, or not plain ASCII text"
        )


def _max_age(fields: dict[bytes, bytes]) -> float | None:
    for name, value in fields.items():
        if name.lower() == b"cache-control":
            found = _MAX_AGE.search(value.decode("latin-1"))
            return float(found[1]) if found is not None else None
    return None
