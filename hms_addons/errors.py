"""Every way a request can fail, decided once: status, response flag, title, and the answer's body.

Nothing else in the mesh chooses a status for a failure. Code that fails says *what* happened
(`Failure(Fault.CONNECT_FAILURE, detail)`), this table says what the caller is told.

Flags are Envoy's where Envoy has one (access-log `%RESPONSE_FLAGS%`), so dashboards and habits
carry over; RBAC, JWT, GOV, PE, DRAIN and FB are ours.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum, StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hms_addons.http_message import Fields


class MeshError(Exception):
    """Base of every error that the mesh raises on purpose."""


class ConfigError(MeshError):
    """A snapshot cannot be used; raised by `hms_configure`, shown to whoever pushed the config."""


class NotAllowedError(MeshError):
    """It could be done, but whoever runs the sidecar has not allowed it."""


class Flag(StrEnum):
    """Response flags: a closed set, safe as a metric label."""

    UH = "UH"  # no healthy upstream
    UF = "UF"  # upstream connection failure
    UO = "UO"  # upstream overflow: a circuit breaker is full
    UC = "UC"  # upstream connection terminated
    UT = "UT"  # upstream request timeout
    UPE = "UPE"  # upstream protocol error
    URX = "URX"  # retries exhausted
    NR = "NR"  # no route
    RL = "RL"  # rate limited
    DI = "DI"  # delayed by an injected fault
    FI = "FI"  # aborted by an injected fault
    DC = "DC"  # downstream connection terminated
    DPE = "DPE"  # downstream protocol error
    DT = "DT"  # downstream took too long to send its request head
    SI = "SI"  # stream idle: a body made no progress
    RBAC = "RBAC"  # a policy refused
    JWT = "JWT"  # the token is bad
    GOV = "GOV"  # no policy version to be had
    PE = "PE"  # a plugin failed
    DRAIN = "DRAIN"  # this sidecar is leaving
    FB = "FB"  # a fallback's answer, in place of a failure


class Verdict(NamedTuple):
    """What one kind of fault looks like from outside."""

    status: int
    flag: Flag
    title: str


class Fault(Enum):
    """The kinds of failure. Each value is what the caller is told."""

    NO_ROUTE = Verdict(404, Flag.NR, "No route")
    UNKNOWN_SERVICE = Verdict(404, Flag.NR, "Unknown service")
    NOT_OF_THE_MESH = Verdict(502, Flag.NR, "Not of the mesh")
    LOOP = Verdict(508, Flag.NR, "Loop detected")
    NO_HEALTHY_UPSTREAM = Verdict(503, Flag.UH, "No healthy upstream")
    CONNECT_FAILURE = Verdict(503, Flag.UF, "Upstream connection failure")
    LOCAL_FAILURE = Verdict(503, Flag.UF, "This sidecar could not connect")
    OVERFLOW = Verdict(503, Flag.UO, "Circuit breaker is full")
    UPSTREAM_RESET = Verdict(503, Flag.UC, "Upstream closed the connection")
    UPSTREAM_PROTOCOL = Verdict(502, Flag.UPE, "Upstream broke the protocol")
    TIMEOUT = Verdict(504, Flag.UT, "Upstream timed out")
    RATE_LIMITED = Verdict(429, Flag.RL, "Rate limited")
    FAULT_INJECTED = Verdict(503, Flag.FI, "Fault injected")  # the status is the rule's
    CLIENT_GONE = Verdict(499, Flag.DC, "Client closed the connection")
    BAD_REQUEST = Verdict(400, Flag.DPE, "Bad request")
    METHOD_NOT_ALLOWED = Verdict(405, Flag.DPE, "Method not allowed")
    BODY_TOO_LARGE = Verdict(413, Flag.DPE, "Request body too large")
    TARGET_TOO_LONG = Verdict(414, Flag.DPE, "Request target too long")
    EXPECTATION_FAILED = Verdict(417, Flag.DPE, "Expectation failed")
    HEADERS_TOO_LARGE = Verdict(431, Flag.DPE, "Request headers too large")
    VERSION_UNSUPPORTED = Verdict(505, Flag.DPE, "HTTP version not supported")
    HEAD_TIMEOUT = Verdict(408, Flag.DT, "Request head took too long")
    BODY_TIMEOUT = Verdict(408, Flag.SI, "Request body made no progress")
    POLICY_DENIED = Verdict(403, Flag.RBAC, "Denied by policy")
    TOKEN_INVALID = Verdict(401, Flag.JWT, "Invalid token")
    TOKEN_AUDIENCE = Verdict(403, Flag.JWT, "Token is for another audience")
    NO_POLICY_VERSION = Verdict(503, Flag.GOV, "No policy version")
    PLUGIN_ERROR = Verdict(500, Flag.PE, "Plugin error")
    NOT_HERE = Verdict(501, Flag.DPE, "Not possible in this proxy mode")
    DRAINING = Verdict(503, Flag.DRAIN, "Sidecar is draining")


@dataclass(frozen=True, slots=True)
class Failure:
    """One request's failure: what `exchange.failure` holds and the access log prints.

    Args:
        status: the HTTP status given to the caller.
        flag: the response flag; a plugin may use any of the closed set.
        title: a few words that are the same for every failure of this kind.
        detail: what happened, to which route, cluster and endpoint, and what to do about it.
            Never holds a token, a key or a body.
        retry_after: seconds after which trying again makes sense, for `Retry-After`.
        headers: further fields of the answer, such as `WWW-Authenticate`.
        close: the downstream connection cannot go on after this answer.
    """

    status: int
    flag: Flag
    title: str
    detail: str
    retry_after: float | None = None
    headers: Fields = ()
    close: bool = False

    @classmethod
    def of(
        cls,
        fault: Fault,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Fields = (),
        close: bool = False,
    ) -> Failure:
        """A failure with the table's status, flag and title for `fault`."""
        status, flag, title = fault.value
        return cls(status, flag, title, detail, retry_after, headers, close)


class ExchangeFailed(MeshError):  # noqa: N818 - an event of the exchange, not a programming error
    """Ends an exchange from anywhere below it; carries the `Failure` to answer with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def reason_phrase(status: int) -> bytes:
    """The standard reason phrase of `status`; empty when there is none (as 499)."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Client Closed Request" if status == 499 else b""  # noqa: PLR2004 - nginx's code


def problem(failure: Failure, request_id: str) -> tuple[bytes, Fields, bytes]:
    """The local answer to `failure`, as RFC 9457 problem details.

    Returns:
        The reason phrase, the header fields (without framing), and the body.
    """
    body = (
        json.dumps(
            {
                "type": f"urn:hms:problem:{failure.flag}",
                "title": failure.title,
                "status": failure.status,
                "detail": failure.detail,
                "flag": failure.flag,
                "request_id": request_id,
            },
            ensure_ascii=False,
        ).encode("utf-8", "replace")
        + b"\n"
    )
    fields = [
        (b"Content-Type", b"application/problem+json"),
        (b"X-HMS-Flag", failure.flag.encode()),
    ]
    if failure.retry_after is not None:
        # Whole seconds (RFC 9110 section 10.2.3), never 0: that would invite a busy loop.
        fields.append((b"Retry-After", b"%d" % max(1, math.ceil(failure.retry_after))))
    fields.extend(failure.headers)
    return reason_phrase(failure.status), tuple(fields), body
