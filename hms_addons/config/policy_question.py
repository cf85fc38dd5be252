"""One question to HMS-GOV, `GET {url}/policy-header`: how it is put, and which answers are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.config.policy_header import (
    MAX_ANSWER,
    PolicyHeader,
    PolicyHeaderError,
    parse_policy_header,
)

if TYPE_CHECKING:
    import httpx

    from hms_addons.config.snapshot import Governance, HeaderNames

_OK: Final = frozenset({200, 204})


def open_client(spec: Governance, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """What the questions are put through.

    Args:
        spec: where, and how long an answer may take.
        transport: stands in for the network (httpx's own seam); None is the network.
    """
    import httpx  # noqa: PLC0415 - 8 MB that a sidecar without governance need not hold

    return httpx.AsyncClient(
        # A context of all public roots is large, and plain http needs none.
        verify=spec.url.startswith("https:"),
        # Neither a proxy from the environment nor a redirect may choose who governs.
        trust_env=False,
        follow_redirects=False,
        timeout=spec.timeout,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
        transport=transport,
    )


async def ask_policy(
    client: httpx.AsyncClient, spec: Governance, headers: HeaderNames
) -> PolicyHeader | str:
    """The answer, or in words why there is none.

    httpx's time-outs are per read: whoever asks has to end an answer that drips in.
    """
    import httpx  # noqa: PLC0415 - see open_client

    try:
        return await _fetch(client, spec, headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except PolicyHeaderError as error:
        return f"the answer cannot be used: {error}"


async def _fetch(client: httpx.AsyncClient, spec: Governance, headers: HeaderNames) -> PolicyHeader:
    url = spec.url.rstrip("/") + "/policy-header"
    asked = {
        "Accept": "application/json",
        # No packed body: a small one could hold a huge one.
        "Accept-Encoding": "identity",
        "User-Agent": "hms-svc",
    }
    async with client.stream("GET", url, headers=asked) as response:
        if response.status_code not in _OK:
            raise PolicyHeaderError(f"its status is {response.status_code}, not 200")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PolicyHeaderError("it is packed (Content-Encoding), though it must not be")
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER:
                raise PolicyHeaderError(f"it is larger than {MAX_ANSWER} bytes")
        own = headers.policy_version
        allowed = {name.lower() for name in headers.governance}
        reserved = {name.lower() for name in headers.all} - {own.lower()} - allowed
        return parse_policy_header(bytes(body), response.headers.raw, own, reserved, allowed)
