#!/opt/hms/bin/python -I
"""`hms-probe`: asks the sidecar or the control plane of its own container how it is.

    hms-probe ready       200 on the admin port's /ready (the sidecar's HEALTHCHECK and readiness)
    hms-probe live        200 on its /live
    hms-probe drain [S]   POST /drain, then wait until the sidecar has ended, at most S seconds (40): preStop
    hms-probe control     200 on the control plane's /readyz

It asks where HMS_ADMIN and HMS_LISTEN say that they listen. Exit code 0: yes; 1: no, and why on stderr;
2: usage. The standard library alone: `hms` itself would take half a second of processor time each time.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
import time

TIMEOUT = 2.5
"""Seconds for one question."""
LONGEST_DRAIN = 40.0
"""Seconds: what is in flight has 30."""
ADMIN, LISTEN = "127.0.0.1:15000", "0.0.0.0:15010"


def address(value: str) -> tuple[str, int]:
    """Host and port of `host:port`; where all addresses are listened on, the loopback one."""
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104


def ask(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, str]:
    """The answer's status and text."""
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("utf-8", "replace").strip()
    finally:
        connection.close()


def sidecar(method: str, path: str) -> tuple[int, str]:
    """Ask the sidecar."""
    host, port = address(os.environ.get("HMS_ADMIN") or ADMIN)
    return ask(http.client.HTTPConnection(host, port, timeout=TIMEOUT), method, path)


def control() -> tuple[int, str]:
    """Ask the control plane. Its certificate is not checked: nothing secret is said or believed."""
    host, port = address(os.environ.get("HMS_LISTEN") or LISTEN)
    trusting = ssl._create_unverified_context()  # noqa: S323, SLF001 - see above
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=trusting)
    return ask(connection, "GET", "/readyz")


def drain(longest: float) -> tuple[int, str]:
    """Have it drained, and wait for its end. Refused connections mean that it has come."""
    deadline = time.monotonic() + longest
    try:
        status, text = sidecar("POST", "/drain")
        while status < http.HTTPStatus.BAD_REQUEST and time.monotonic() < deadline:
            time.sleep(0.1)
            sidecar("GET", "/live")
    except (ConnectionError, http.client.HTTPException):
        return 200, "drained"
    return (status, text) if status >= http.HTTPStatus.BAD_REQUEST else (504, "it still drains")


def main(words: list[str]) -> int:
    """Answer for the words of the command line. Returns the exit code."""
    try:
        match words:
            case ["ready" | "live" as what]:
                status, text = sidecar("GET", f"/{what}")
            case ["control"]:
                status, text = control()
            case ["drain"]:
                status, text = drain(LONGEST_DRAIN)
            case ["drain", seconds] if seconds.isdigit():
                status, text = drain(float(seconds))
            case _:
                sys.stderr.write(__doc__ or "")
                return 2
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stderr.write(f"hms-probe: {error}\n")
        return 1
    if status != http.HTTPStatus.OK:
        sys.stderr.write(f"hms-probe: {status}: {text}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
