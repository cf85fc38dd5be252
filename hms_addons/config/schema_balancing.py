"""What users write about the choice of an endpoint, beside the balancer's name."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.schema_base import Duration, FieldName, Model, fault, is_token, shown

_KEYS: Final = ("header", "cookie", "query", "source")
_COOKIE_KEYS: Final = ("ttl", "path", "secure", "same_site")


def _cookie_name(value: str) -> str:
    # RFC 6265 §4.1.1: cookie-name is a token.
    if not is_token(value):
        message = f"{shown(value)} cannot be the name of a cookie: use letters, digits and"
        raise fault(f"{message} -_.~!#$%&'*+^`|")
    return value


def _cookie_path(value: str) -> str:
    # RFC 6265 §4.1.1: path-value is any CHAR but CTLs and ";".
    if not value.startswith("/") or ";" in value or not value.isascii() or not value.isprintable():
        raise fault(f"expected a path such as /, without ';' and in ASCII, not {shown(value)}")
    return value


class HashOnModel(Model):
    """What requests are told apart by: those with the same value go to the same endpoint.

    Exactly one of header, cookie, query and source. A request without that value goes anywhere.
    """

    header: FieldName | None = None
    """The name of a request header."""
    cookie: Annotated[str, AfterValidator(_cookie_name)] | None = None
    """The name of a cookie."""
    query: Annotated[str, Field(min_length=1)] | None = None
    """The name of a query parameter."""
    source: Literal[True] | None = None
    """true: the caller, by SPIFFE ID over mutual TLS, else by address."""
    ttl: Duration | None = None
    """Of a cookie: makes the mesh set it where a request has none, for so long; 0: for the session."""
    path: Annotated[str, AfterValidator(_cookie_path)] | None = None
    """Of a cookie that the mesh sets: the paths that browsers send it to; default those below the
    request's own."""
    secure: bool | None = None
    """Of a cookie that the mesh sets: true: browsers send it over https only."""
    same_site: Literal["strict", "lax", "none"] | None = None
    """Of a cookie that the mesh sets: whether browsers send it from other sites."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [key for key in _KEYS if getattr(self, key) is not None]
        if len(given) != 1:
            about = tuple((key,) for key in _KEYS)
            message = "give exactly one of header, cookie, query and source"
            raise fault(message, at=(given[1],) if given else (), about=about)
        extra = [key for key in _COOKIE_KEYS if getattr(self, key) is not None]
        if extra and self.cookie is None:
            raise fault(f"{extra[0]} belongs to a cookie, not to {given[0]}", at=(extra[0],))
        if extra and self.ttl is None:
            message = f"{extra[0]} is of a cookie that the mesh sets, which it does only with `ttl`"
            raise fault(message, at=(extra[0],), about=(("ttl",),))
        if self.same_site == "none" and not self.secure:
            message = "browsers take same_site: none only with secure: true"
            raise fault(message, at=("same_site",), about=(("secure",),))
        return self


def _hash_on(value: object) -> object:
    if isinstance(value, dict):
        return value
    message = f"expected a mapping with header, cookie, query or source, not {shown(value)}"
    suggestion = f"{{header: {value}}}" if isinstance(value, str) and value.isascii() else None
    raise fault(message, suggestion=suggestion)


type HashOnSetting = Annotated[HashOnModel, BeforeValidator(_hash_on)]
"""`hash_on`, of a cluster or a route."""
