"""One question to an issuer: its JWK set, over HTTP. Hostile answers are refused, never waited for.

Bounds: 1 MiB, no packed bodies, no redirects (one could lead to another scheme or host), 100 keys.
Whoever calls bounds the time: httpx's own time-outs are per read, and an answer can drip in.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.errors import MeshError
from hms_addons.identity.key_set import HMAC_ALGORITHMS, KeySet, KeySetError, key_set_of_jwks

if TYPE_CHECKING:
    import httpx

MAX_JWKS_BYTES: Final = 1024 * 1024
"""A set of a hundred RSA keys takes a twentieth of it."""

_OK: Final = 200
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,10})", re.IGNORECASE)
_NOT_KEPT: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b", re.IGNORECASE)


class JwksFetchError(MeshError):
    """An issuer's keys could not be had; the message says why."""


class FetchedKeys(NamedTuple):
    """An issuer's answer: its keys, and for how many seconds it says that they count, if it does."""

    keys: KeySet
    max_age: float | None


async def fetch_jwks(
    uri: str, ca_file: str | None, transport: httpx.AsyncBaseTransport | None = None
) -> FetchedKeys:
    """Ask for a JWK set.

    Args:
        uri: http:// or https://.
        ca_file: PEM file of the authorities that its certificate may come from; None: the system's.
        transport: stands in for the network (httpx's own seam); None is the network.

    Raises:
        JwksFetchError: no connection, no trust, another status than 200, or no usable JWK set.
    """
    import httpx  # noqa: PLC0415 - 8 MB that a sidecar without it need not hold

    verify: bool | ssl.SSLContext = False  # nothing to verify with plain http
    if uri.lower().startswith("https:") and transport is None:
        try:
            # In a thread: reading all of a system's roots takes tens of milliseconds.
            verify = await asyncio.to_thread(_trust, ca_file)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise JwksFetchError(f"{ca_file or 'the roots of the system'}: {error}") from error
    try:
        async with httpx.AsyncClient(
            verify=verify,
            # Neither a proxy from the environment nor a redirect may choose whom to trust.
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
            transport=transport,
        ) as client:
            return await _ask(client, uri)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise JwksFetchError(said) from error
    except KeySetError as error:
        raise JwksFetchError(str(error)) from error


async def _ask(client: httpx.AsyncClient, uri: str) -> FetchedKeys:
    asked = {
        "Accept": "application/jwk-set+json, application/json",
        # No packed body: a small one could hold a huge one.
        "Accept-Encoding": "identity",
        "User-Agent": "hms-svc",
    }
    async with client.stream("GET", uri, headers=asked) as response:
        if response.is_redirect:
            raise JwksFetchError(
                f"it redirects (status {response.status_code}), which is not followed: write the "
                "final address"
            )
        if response.status_code != _OK:
            raise JwksFetchError(f"its status is {response.status_code}, not 200")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise JwksFetchError("it is packed (Content-Encoding), though it must not be")
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_JWKS_BYTES:
                raise JwksFetchError(f"it is larger than {MAX_JWKS_BYTES} bytes")
    keys = key_set_of_jwks(bytes(body))
    if any(key.algorithms & HMAC_ALGORITHMS for key in keys.keys):
        raise JwksFetchError("it publishes a shared secret (`oct`): whoever reads it could sign")
    return FetchedKeys(keys, _max_age(response.headers.get("cache-control", "")))


def _max_age(value: str) -> float | None:
    if _NOT_KEPT.search(value) is not None:
        return 0.0
    found = _MAX_AGE.search(value)
    return None if found is None else float(found[1])


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """Verifies servers, by `ca_file`, else by the system's roots, else (a bare image) by certifi's."""
    if ca_file is None and not _system_has_roots():
        import certifi  # noqa: PLC0415 - httpx brings it

        ca_file = certifi.where()
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _system_has_roots() -> bool:
    paths: Any = ssl.get_default_verify_paths()  # None where the file or folder is not there
    return bool(paths.cafile) or (bool(paths.capath) and any(Path(paths.capath).iterdir()))
