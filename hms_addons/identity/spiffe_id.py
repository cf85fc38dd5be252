"""SPIFFE IDs, parsed strictly.

The rules are those of the SPIFFE-ID standard, sections 2.1 to 2.4: lower-case trust domain of
letters, digits, dots, dashes and underscores; path segments of letters, digits, dots, dashes and
underscores, none of them empty, `.` or `..`; no percent-encoding, port, user, query or fragment.
Nothing is normalised: an ID that is not already canonical is refused, so that comparing IDs is
comparing strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from hms_addons.errors import MeshError

MAX_SPIFFE_ID_BYTES: Final = 2048
"""Longest ID that an implementation must take (SPIFFE-ID §2.3); longer ones are refused here."""

MAX_TRUST_DOMAIN_BYTES: Final = 255
"""Longest trust domain name (SPIFFE-ID §2.1, from the URI host rule)."""

_SCHEME: Final = "spiffe://"
_SERVICE_PREFIX: Final = "/svc/"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class SpiffeIdError(MeshError, ValueError):
    """A text is not a SPIFFE ID, trust domain or service name; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One workload's name, e.g. `spiffe://mpsa.mil/svc/auth-svc`.

    `path` is empty (the trust domain itself) or begins with a slash. `str()` gives the URI and
    costs an attribute read.

    Raises:
        SpiffeIdError: the trust domain or the path breaks the SPIFFE-ID standard.
    """

    trust_domain: str
    path: str = ""
    uri: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Validate, and build the URI once: it goes into a header of every forwarded request."""
        validate_trust_domain(self.trust_domain)
        _validate_path(self.path)
        uri = f"{_SCHEME}{self.trust_domain}{self.path}"
        if len(uri) > MAX_SPIFFE_ID_BYTES:
            message = f"SPIFFE ID of {len(uri)} bytes: at most {MAX_SPIFFE_ID_BYTES} are allowed"
            raise SpiffeIdError(message)
        object.__setattr__(self, "uri", uri)

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse a URI such as `spiffe://mpsa.mil/svc/auth-svc`.

        Raises:
            SpiffeIdError: it is not a canonical SPIFFE ID.
        """
        if len(text) > MAX_SPIFFE_ID_BYTES:
            message = f"SPIFFE ID of {len(text)} bytes: at most {MAX_SPIFFE_ID_BYTES} are allowed"
            raise SpiffeIdError(message)
        if not text.startswith(_SCHEME):
            message = f"{text!r} is not a SPIFFE ID: it must begin with {_SCHEME!r} in lower case"
            raise SpiffeIdError(message)
        trust_domain, slash, path = text[len(_SCHEME) :].partition("/")
        return cls(trust_domain, slash + path)

    @classmethod
    def for_service(cls, trust_domain: str, service: str) -> SpiffeId:
        """Name a service of the mesh: `spiffe://<trust_domain>/svc/<service>` (DESIGN §8).

        Raises:
            SpiffeIdError: the service is not a single path segment, or the trust domain is bad.
        """
        if not _is_segment(service):
            message = (
                f"service name {service!r} cannot be part of a SPIFFE ID: use letters, digits, "
                "'.', '-' and '_' only (and not '.' or '..' alone)"
            )
            raise SpiffeIdError(message)
        return cls(trust_domain, _SERVICE_PREFIX + service)

    @property
    def service(self) -> str | None:
        """The service's name if the path is `/svc/<name>`, else None."""
        name = self.path.removeprefix(_SERVICE_PREFIX)
        return name if name and name != self.path and "/" not in name else None

    def __str__(self) -> str:
        return self.uri


def validate_trust_domain(name: str) -> str:
    """Return `name` if it is a trust domain name such as `mpsa.mil`.

    Raises:
        SpiffeIdError: it is empty, too long, or has characters outside `[a-z0-9._-]`.
    """
    if not name:
        message = "the trust domain is empty: a SPIFFE ID looks like spiffe://example.org/svc/name"
        raise SpiffeIdError(message)
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        message = f"trust domain of {len(name)} bytes: at most {MAX_TRUST_DOMAIN_BYTES} are allowed"
        raise SpiffeIdError(message)
    if not _TRUST_DOMAIN.fullmatch(name):
        message = (
            f"trust domain {name!r} has characters outside a-z 0-9 . _ - "
            "(no capitals, port, user or percent-encoding)"
        )
        raise SpiffeIdError(message)
    return name


def _is_segment(text: str) -> bool:
    return bool(_SEGMENT.fullmatch(text)) and text not in {".", ".."}


def _validate_path(path: str) -> None:
    if not path:
        return
    if not path.startswith("/"):
        message = f"SPIFFE path {path!r} must begin with '/'"
        raise SpiffeIdError(message)
    for segment in path[1:].split("/"):
        if not segment:
            message = f"SPIFFE path {path!r} has an empty segment or a trailing slash"
            raise SpiffeIdError(message)
        if not _is_segment(segment):
            message = (
                f"SPIFFE path {path!r} has the segment {segment!r}: only letters, digits, "
                "'.', '-' and '_' are allowed, and neither '.' nor '..' alone"
            )
            raise SpiffeIdError(message)
