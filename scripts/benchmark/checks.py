"""Before a contender is measured it must show that it does the whole job: nobody wins by cheating."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from scripts.benchmark import credentials as creds
from scripts.benchmark.contenders import DIRECT, request_headers
from scripts.benchmark.job import POLICY_VERSION, Job, Task
from scripts.benchmark.nginx_config import BODY_SIZES
from scripts.benchmark.process import Address, BenchError, get

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.benchmark.credentials import Credentials
    from scripts.benchmark.lab import Contender, Lab

FORGED = {
    "X-Caller-Role": "ADMIRAL",
    "X-Caller-Subject": "nobody",
    "X-Caller-Service": "spiffe://evil.example/svc/forged",
    "X-Policy-Version": "0.0.0",
}
"""What no caller may make the upstream believe."""
REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the upstream saw of a request, from its echo."""

    role: str
    version: str
    caller: str
    uri: str


def verify(lab: Lab, contender: Contender, job: Job) -> None:
    """`BenchError` naming the contender and what it does wrong, if it does not do the job."""
    if contender.name == DIRECT:
        return
    match job.task:
        case Task.PLAIN:
            _arrives(contender, job, {})
        case Task.POLICY:
            _verify_policy(contender, job, lab.credentials)
        case Task.PAIR:
            _verify_pair(contender, job, lab.credentials)


def verify_bodies(contender: Contender) -> None:
    """`BenchError` if a body of any size is not carried whole, down or up."""
    for name, size in BODY_SIZES.items():
        status, body = get(contender.address, f"/download/{name}", {})
        _require(
            status == HTTPStatus.OK and body == b"x" * size,
            contender,
            f"answered the download of {name} with {status} and {len(body)} bytes, not {size}",
        )
        status, body = get(contender.address, "/upload", {}, method="POST", body=b"x" * size)
        _require(
            status == HTTPStatus.OK and int(body) > size,
            contender,
            f"answered the upload of {name} with {status}, and {body[:50]!r} bytes arrived",
        )


def _verify_policy(contender: Contender, job: Job, credentials: Credentials) -> None:
    """The token is verified, the role decides, and the headers are the mesh's own."""
    valid = request_headers(job, credentials)
    for headers in (valid, {**FORGED, **valid}):
        arrived = _arrives(contender, job, headers)
        expected = Arrived(creds.ROLE, POLICY_VERSION, "", job.path)
        _require(
            arrived == expected, contender, f"let {arrived} reach the upstream, not {expected}"
        )
    _refuses(contender, job, "GET", {}, "a request without a token")
    _refuses(contender, job, "POST", valid, "a method that the policy does not allow")
    for token, what in (
        (credentials.token_of_other_role, "a token of another role"),
        (credentials.token_with_bad_signature, "a token with a bad signature"),
    ):
        _refuses(contender, job, "GET", {"Authorization": f"Bearer {token}"}, what)
    elsewhere = Job(job.task, job.upstream_port)
    status, _ = get(contender.address, f"/elsewhere{elsewhere.path}", valid)
    _require(
        status in REFUSED, contender, f"answered {status} on a path that the policy does not allow"
    )


def _verify_pair(contender: Contender, job: Job, credentials: Credentials) -> None:
    """The callee learns the caller's SPIFFE ID, and the hop between them is mutual TLS 1.3."""
    arrived = _arrives(contender, job, FORGED)
    _require(
        arrived.caller == creds.CALLER,
        contender,
        f"told the upstream that {arrived.caller!r} calls, not {creds.CALLER!r}",
    )
    assert contender.peer_address is not None
    version = _tls_version(contender.peer_address, credentials, with_certificate=True)
    _require(version == "TLSv1.3", contender, f"speaks {version} between the two hops, not TLS 1.3")
    try:
        version = _tls_version(contender.peer_address, credentials, with_certificate=False)
    except OSError:
        return
    raise BenchError(f"{contender.name} takes peers without a certificate ({version})")


def _arrives(contender: Contender, job: Job, headers: Mapping[str, str]) -> Arrived:
    """What reaches the upstream of a good request."""
    status, body = get(contender.address, job.path, headers)
    _require(
        status == HTTPStatus.OK, contender, f"answered {status} to a good request: {body[:300]!r}"
    )
    try:
        seen: dict[str, Any] = json.loads(body)
        arrived = Arrived(seen["role"], seen["version"], seen["caller"], seen["uri"])
    except (ValueError, KeyError) as error:
        raise BenchError(f"{contender.name} changed the body to {body[:300]!r}") from error
    _require(
        arrived.uri == job.path, contender, f"forwarded {arrived.uri!r} instead of {job.path!r}"
    )
    return arrived


def _refuses(
    contender: Contender, job: Job, method: str, headers: Mapping[str, str], what: str
) -> None:
    """The contender must answer 401 or 403."""
    status, _ = get(contender.address, job.path, headers, method=method)
    _require(status in REFUSED, contender, f"answered {status} to {what}")


def _tls_version(address: Address, credentials: Credentials, *, with_certificate: bool) -> str:
    """The TLS version that the inbound side agrees to, after it has answered a request.

    `OSError` when it refuses us: in TLS 1.3 that shows only when we read [RFC 8446 §4.4.2.4].
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(credentials.bundle)
    if with_certificate:
        context.load_cert_chain(credentials.caller.certificate, credentials.caller.key)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        if not secured.recv(1):
            raise ConnectionError("closed without an answer")
        return secured.version() or "no TLS"


def _require(condition: bool, contender: Contender, fault: str) -> None:  # noqa: FBT001 - as assert
    """`BenchError` that names the contender, unless the condition holds."""
    if not condition:
        raise BenchError(f"{contender.name} does not do its job: it {fault}")
