"""What users write of listeners that take what was not sent to them: intercepted calls, DNS queries."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from hms_addons.config.schema_base import Duration, HostPattern, Model, fault, parse_address, shown

if TYPE_CHECKING:
    from hms_addons.config.schema import ListenerModel

type Kind = Literal["http", "transparent", "dns"]
type UnmatchedWord = Literal["refuse", "original"]

_NOT_OF_DNS: Final = (
    "app",
    "routes",
    "tls",
    "secret",
    "limits",
    "propagate_identity",
    "rate_limit",
    "request_headers",
    "response_headers",
)
"""Keys of a listener that are about HTTP."""
_DNS_PORT: Final = 53


def _ip(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise fault(f"expected an IP address, as 127.0.0.1, not {shown(value)}") from None


def _resolver(value: str) -> str:
    try:
        return (
            f"[{value}]:{_DNS_PORT}" if ":" in str(ipaddress.ip_address(value)) else f"{value}:53"
        )
    except ValueError:
        host, _ = parse_address(value)
        _ip(host)  # a name would have to be resolved first
        return value


class DnsModel(Model):
    """What a listener of `kind: dns` answers, and whom it asks."""

    addresses: (
        Annotated[list[Annotated[str, AfterValidator(_ip)]], Field(min_length=1, max_length=8)]
        | None
    ) = None
    """What the mesh's names stand for: where the sidecar takes the app's calls. Default 127.0.0.1; beside a
    transparent listener 127.240.240.1, which `hms iptables up` leads there."""
    names: list[HostPattern] | None = None
    """The mesh's names besides NAME.svc and the hosts of outbound routes: api.example.org, or *.example.org for
    all below it."""
    resolvers: (
        Annotated[
            list[Annotated[str, AfterValidator(_resolver)]], Field(min_length=1, max_length=8)
        ]
        | None
    ) = None
    """IP addresses, with a port where it is not 53, of those who are asked what is not the mesh's, in order.
    Default those of /etc/resolv.conf."""
    ttl: Duration | None = None
    """For how long an answer may be remembered; default 5s."""


def check_kind(model: ListenerModel) -> bool:
    """Whether a listener takes HTTP; what contradicts its kind is refused.

    Raises:
        PydanticCustomError: there is such a thing.
    """
    about: tuple[tuple[str | int, ...], ...] = (("kind",),)
    kind = model.kind or "http"
    if kind == "http" and model.unmatched is not None:
        message = "it is about listeners of kind: transparent or dns"
        raise fault(message, at=("unmatched",), about=about)
    if kind != "dns":
        if model.dns is not None:
            raise fault("it is about listeners of kind: dns", at=("dns",), about=about)
        if kind == "transparent":
            _check_transparent(model, about)
        return True
    _check_dns(model, about)
    return False


def _check_transparent(model: ListenerModel, about: tuple[tuple[str | int, ...], ...]) -> None:
    if model.direction == "inbound":
        message = (
            "a transparent listener takes the app's own calls: it is outbound. For calls to the app an "
            "ordinary inbound listener is enough: where they lead to is known (`hms iptables up "
            "--inbound`)"
        )
        raise fault(message, at=("kind",), about=(("direction",),))
    if model.host in {"::", "*"}:
        message = (
            "the original destination of a call is found by IP version, so a transparent listener has "
            "one: host: 127.0.0.1, and another listener with host: ::1 for IPv6"
        )
        raise fault(message, at=("host",), about=about)


def _check_dns(model: ListenerModel, about: tuple[tuple[str | int, ...], ...]) -> None:
    if model.direction == "inbound":
        message = "a dns listener answers the local app's queries: it is outbound"
        raise fault(message, at=("direction",), about=about)
    for key in _NOT_OF_DNS:
        value: Any = getattr(model, key)
        if value is not None and value != []:
            raise fault(f"{key} is about HTTP, and this listener is dns", at=(key,), about=about)
    if model.host is not None:
        try:
            ipaddress.ip_address(model.host)
        except ValueError:
            message = f"a dns listener needs an IP address, not {shown(model.host)}"
            raise fault(message, at=("host",), about=about) from None
    resolvers = None if model.dns is None else model.dns.resolvers
    if resolvers is not None:
        if model.unmatched == "refuse":
            message = "resolvers are never asked with unmatched: refuse"
            at = ("dns", "resolvers")
            raise fault(message, at=at, about=(*about, ("unmatched",)))
        own = (model.host or "127.0.0.1", model.port)
        if any(parse_address(resolver) == own for resolver in resolvers):
            message = "that is this listener: it would ask itself"
            raise fault(message, at=("dns", "resolvers"), about=(*about, ("port",), ("host",)))
