"""Answers that a route gives by itself: a redirect, or a fixed one. Nothing is forwarded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hms_addons.config.path_rewrite import PathRewrite
    from hms_addons.http_message import Fields

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectResponse:
    """A fixed answer."""

    status: int
    body: bytes = b""
    headers: Fields = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Where a request is sent instead; what is None stays the request's (Gateway API, RequestRedirect)."""

    status: int = 302
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: PathRewrite | None = None

    def location(self, scheme: str, host: str, port: int | None, path: str, query: str) -> str:
        """The value of `Location`.

        The port is the rule's own, else that of the scheme it names, else the one in the URL that
        was asked for, else the listener's. It is left out where it is the scheme's default.

        Args:
            scheme: `http` or `https`, as the connection is.
            host: as in `Host`; empty (HTTP/1.0) makes a relative location, if the rule names none.
            port: what the caller has connected to, if that is known.
            path: normalised, or `*`.
            query: as sent, without `?`; it is kept.
        """
        path = "/" if path == "*" else path
        if self.path is not None:
            path = self.path.apply(path)
        target = f"{path}?{query}" if query else path
        name, asked_port = _take_apart(host)
        if self.host is not None:
            name, asked_port = self.host, None
        if not name:
            return target
        if self.port is not None:
            port = self.port
        elif self.scheme is not None:
            port = None
        elif asked_port is not None:
            port = asked_port
        scheme = self.scheme or scheme
        if port is None or port == _DEFAULT_PORTS[scheme]:
            return f"{scheme}://{name}{target}"
        return f"{scheme}://{name}:{port}{target}"


def _take_apart(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host, None
    return name, int(port) if port.isdecimal() else None
