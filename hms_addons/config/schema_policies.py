"""What users write about governance, tokens, policies and the mesh's own headers."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.policy_header import name_flaw
from hms_addons.config.request_target import TargetError, normalise_path
from hms_addons.config.schema_audit import AuditLogModel
from hms_addons.config.schema_base import (
    AlsoAccepts,
    Duration,
    FieldName,
    Method,
    Model,
    Name,
    PositiveDuration,
    fault,
    one_or_many,
    shown,
)
from hms_addons.config.schema_when import ConditionModel

_HMAC: Final = ("HS256", "HS384", "HS512")
_PUBLIC_KEY: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
type Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip
_KEY_SOURCES: Final = ("hs256_secret_env", "public_key_file", "jwks_file", "jwks_uri")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_OURS: Final = frozenset(
    """authorization connection content-length content-type cookie date expect host keep-alive
    proxy-authorization set-cookie te trailer transfer-encoding upgrade via x-request-id
    """.split()
)
"""Fields with a meaning of their own, which the mesh must not remove and set."""

_TextList = Annotated[list[str], BeforeValidator(one_or_many), AlsoAccepts({"type": "string"})]


def plain_url(value: str) -> str:
    """`value`, a URL of http or https without user, query and fragment; raises a fault."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise fault(f"{shown(value)} is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise fault(f"expected a URL such as http://127.0.0.1:9100, not {shown(value)}")
    if parts.username is not None or parts.query or parts.fragment:
        raise fault("a URL here has no user, query or fragment")
    return value.rstrip("/")


def _jwks_uri(value: str) -> str:
    """As `plain_url`, but for the query, by which some issuers tell their tenants apart."""
    address, mark, query = value.partition("?")
    if mark and (not query or not query.isascii() or not query.isprintable() or " " in query):
        raise fault(f"{shown(value)} is not a URL: its query cannot be sent")
    return plain_url(address) + mark + query


def env_name(value: str) -> str:
    """`value`, the name of an environment variable; raises a fault."""
    if not _ENV_NAME.fullmatch(value):
        raise fault(
            "this is the name of an environment variable that holds the secret, "
            "as HMS_JWT_SECRET; never the secret itself"
        )
    return value


def _governed(value: str) -> str:
    flaw = name_flaw(value)
    if flaw is not None:
        raise fault(flaw)
    return value


type GovernedName = Annotated[str, AfterValidator(_governed)]
"""The name of a header that HMS-GOV may set."""


class GovernanceModel(Model):
    """Where the policy version header comes from."""

    url: Annotated[str, AfterValidator(plain_url)]
    """HMS-GOV; `/policy-header` is asked for below it."""
    ttl: PositiveDuration | None = None
    """How long an answer counts, unless it says so itself; default 60s."""
    max_stale: Duration | None = None
    """How long an old answer serves while HMS-GOV is away; default 10 times the TTL."""
    on_failure: Literal["open", "closed"] | None = None
    """Without any answer: send requests without the header, or refuse them (the default)."""
    timeout: PositiveDuration | None = None
    """Of one question to HMS-GOV; default 5s."""
    headers: Annotated[list[GovernedName], Field(min_length=1, max_length=15)] | None = None
    """The only X-… headers that HMS-GOV may set besides the policy version; the mesh then owns them: they are
    removed from whatever comes in, on every hop. Default: any that it names."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen: set[str] = set()
        for index, name in enumerate(self.headers or ()):
            if name.lower() in seen:
                raise fault(f"{name} is here twice", at=("headers", index))
            seen.add(name.lower())
        return self


class JwtProviderModel(Model):
    """One issuer of tokens, and how its tokens are verified."""

    name: Name
    """For logs and metrics."""
    issuer: str | None = None
    """What `iss` must be. It alone says whose a token is: no two providers have the same one, and the
    one that names none takes the tokens that no other's issuer is in."""
    audiences: _TextList | None = None
    """`aud` must hold one of them."""
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] | None = None
    """The only ones taken; default RS256, or HS256 with hs256_secret_env."""
    hs256_secret_env: Annotated[str, AfterValidator(env_name)] | None = None
    """Environment variable that holds the shared secret."""
    public_key_file: str | None = None
    """PEM file with the public key, relative to this file."""
    jwks_file: str | None = None
    """JWKS file, relative to this file."""
    jwks_uri: Annotated[str, AfterValidator(_jwks_uri)] | None = None
    """Address of the JWKS, fetched in the background, never on a request's way. Kept for 10 minutes, or as
    its `Cache-Control: max-age` says (1 minute to 1 hour); asked for again, at most every 10 seconds, when
    a token names an unknown `kid`; the old keys serve while it is away. Redirects are not followed."""
    jwks_ca_file: str | None = None
    """PEM file of the authorities for an https jwks_uri, relative to this file; default the system's."""
    forward: bool | None = None
    """false: its tokens end at this sidecar. They are verified, and taken out of what is sent on, to the app
    as well as to other services. Default true."""
    role_claim: Annotated[str, Field(min_length=1)] | None = None
    """Dotted path of the claim that holds the roles: a string is one role, a list several; default
    `roles`. A token with a role that has a comma in it is refused, as two would arrive."""
    leeway: Duration | None = None
    """Allowed difference of clocks; default 60s."""

    @model_validator(mode="after")
    def _keys(self) -> Self:
        about = tuple((name,) for name in _KEY_SOURCES)
        sources = [name for name in _KEY_SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            message = f"give exactly one of {', '.join(_KEY_SOURCES)}"
            if sources:
                raise fault(message, at=(sources[1],))
            raise fault(message, about=about, lacks=("public_key_file",))
        allowed = _HMAC if self.hs256_secret_env is not None else _PUBLIC_KEY
        for index, algorithm in enumerate(self.algorithms or ()):
            if algorithm not in allowed:
                # A public key taken for an HMAC secret lets anyone sign (CVE-2015-9235).
                message = f"{algorithm} does not go with {sources[0]}; use {', '.join(allowed)}"
                raise fault(message, at=("algorithms", index), about=about)
        if self.jwks_ca_file is not None and not (self.jwks_uri or "").startswith("https:"):
            message = "authorities are asked about only with an https:// jwks_uri"
            raise fault(message, at=("jwks_ca_file",), about=about)
        return self


def _path_pattern(value: str) -> str:
    if value == "*":
        return value
    bare = value.removesuffix("*")
    if not bare.startswith("/") or "*" in bare:
        message = "expected a path that begins with '/', with at most one '*', at its end"
        raise fault(f"{message}, not {shown(value)}")
    try:
        normal = normalise_path(bare)
    except TargetError as error:
        raise fault(f"{error}; no request can have this path") from None
    if normal != bare:
        raise fault(
            "no request can have this path: requests' paths are normalised first",
            suggestion=normal + value[len(bare) :],
        )
    return value


def _caller_pattern(value: str) -> str:
    if value != "*" and (not value.startswith("spiffe://") or "*" in value[:-1]):
        message = (
            "expected a SPIFFE ID such as spiffe://mpsa.mil/svc/claims-svc, or one that ends in *"
        )
        raise fault(f"{message}, not {shown(value)}")
    return value


_SOME: Final = Field(min_length=1)
"""An empty list would match anything, which nobody means who writes one."""


class PolicyModel(Model):
    """An authorisation policy: a condition left out matches anything, several must all match."""

    name: Name
    """For logs and for the answer to a refused caller."""
    action: Literal["ALLOW", "DENY"]
    """Any matching DENY refuses; where ALLOW policies apply, one of them must match."""
    services: Annotated[list[Name], _SOME] | None = None
    """The services called."""
    methods: Annotated[list[Method], _SOME] | None = None
    """Request methods."""
    paths: Annotated[list[Annotated[str, AfterValidator(_path_pattern)]], _SOME] | None = None
    """Paths, exact, or a prefix when it ends in *."""
    roles: Annotated[list[str], _SOME] | None = None
    """Roles, of which the caller has one."""
    subjects: Annotated[list[str], _SOME] | None = None
    """Subjects of tokens."""
    callers: Annotated[list[Annotated[str, AfterValidator(_caller_pattern)]], _SOME] | None = None
    """SPIFFE IDs of calling services; a trailing * matches any suffix."""
    when: Annotated[list[ConditionModel], _SOME] | None = None
    """Conditions on claims of the token and on headers; every one must hold."""
    mode: Literal["enforce", "audit"] | None = None
    """`audit` refuses nothing: what it would have refused is logged, and passes. Default: rbac.mode."""


class RbacModel(Model):
    """Who issues tokens, and what callers may do."""

    providers: list[JwtProviderModel] = []
    """Issuers of tokens."""
    policies: list[PolicyModel] = []
    """What callers may do."""
    role_order: list[str] | None = None
    """Roles, the most senior first; others follow in the order of the token."""
    mode: Literal["enforce", "audit"] | None = None
    """Of the policies that do not say themselves; default enforce."""
    audit_log: AuditLogModel | None = None
    """Where decisions are written; default nowhere."""

    @model_validator(mode="after")
    def _issuers(self) -> Self:
        seen: dict[str | None, str] = {}
        for index, provider in enumerate(self.providers):
            other = seen.setdefault(provider.issuer, provider.name)
            if other != provider.name:
                what = (
                    "names no issuer either" if provider.issuer is None else "has this issuer too"
                )
                message = f"the provider {other} {what}: whose a token is would be left to chance"
                at = ("providers", index, "name" if provider.issuer is None else "issuer")
                raise fault(message, at=at, about=(("providers",),))
        return self


class HeadersModel(Model):
    """Names of the headers that the mesh owns on every hop."""

    policy_version: FieldName | None = None
    """Default X-Policy-Version."""
    role: FieldName | None = None
    """Default X-Caller-Role."""
    subject: FieldName | None = None
    """Default X-Caller-Subject."""
    service: FieldName | None = None
    """Default X-Caller-Service."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen: dict[str, str] = {}
        for key, value in self.given().items():
            lower = value.lower()
            if lower in _NOT_OURS:
                raise fault(f"{value} has a meaning of its own in HTTP", at=(key,))
            if lower in seen:
                raise fault(f"{value} is also the name for {seen[lower]}", at=(key,))
            seen[lower] = key
        return self
