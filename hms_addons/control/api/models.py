"""What the API takes and gives, as pydantic models: the source of its OpenAPI document.

What comes in is checked strictly: unknown fields are refused, texts and numbers are bounded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hms_addons.control.api.problems import ConfigProblemModel

NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
"""Services and instances: one segment of a path and of a SPIFFE ID, not beginning with a dot."""

ServiceName = Annotated[
    str,
    Field(pattern=NAME, min_length=1, max_length=128, examples=["auth-svc"]),
]
Identifier = Annotated[str, Field(pattern=NAME, min_length=1, max_length=128, examples=["a1b2c3"])]
ShortText = Annotated[str, Field(max_length=256)]
EpochSeconds = Annotated[
    float,
    Field(
        description="Seconds since the Unix epoch, until the end of the year 9999.",
        allow_inf_nan=False,
        ge=0,
        le=253402300799,
    ),
]
Count = Annotated[int, Field(ge=0, le=2**31)]


class Input(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


# -- trust -------------------------------------------------------------------------------------


class BundleKey(BaseModel):
    """One root, as a JWK."""

    model_config = ConfigDict(extra="allow")
    use: Literal["x509-svid"]
    kty: str
    x5c: list[str]


class Bundle(BaseModel):
    """A SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4)."""

    keys: list[BundleKey]
    spiffe_sequence: int
    spiffe_refresh_hint: int


class SvidRequest(Input):
    """A certificate signing request."""

    service: ServiceName
    csr: Annotated[
        str,
        Field(max_length=16 * 1024, description="PKCS #10, PEM, for a key of the sidecar's own."),
    ]
    lifetime: Annotated[float | None, Field(ge=1, le=90 * 86400)] = None


class SignedSvid(BaseModel):
    """An SVID and what to trust."""

    chain: str = Field(description="PEM, leaf first, without a root.")
    bundle: Bundle
    trust_domain: str
    not_after: EpochSeconds


class TokenRequest(Input):
    """A wish for a join token."""

    service: ServiceName
    ttl: Annotated[float, Field(ge=1, le=30 * 86400)] = 600.0


class NewToken(BaseModel):
    """A join token, shown this once."""

    token: str = Field(examples=["hms1.…"])
    id: str
    service: str
    expires: EpochSeconds


class KnownToken(BaseModel):
    """A join token, without its secret."""

    id: str
    service: str
    state: Literal["valid", "used", "expired"]
    created: EpochSeconds
    expires: EpochSeconds
    used: EpochSeconds | None


class TokenList(BaseModel):
    """Join tokens."""

    tokens: list[KnownToken]


class RotateRequest(Input):
    """How to replace the root."""

    now: bool = Field(
        default=False,
        description="End the present phase without waiting; costs requests if it is too early.",
    )
    overlap: Annotated[float | None, Field(ge=0, le=10 * 365 * 86400)] = Field(
        default=None,
        description="Seconds after which sidecars that do not report are waited for no longer.",
    )


class RootState(BaseModel):
    """One root of the CA."""

    model_config = ConfigDict(extra="allow")


class CaState(BaseModel):
    """How the CA stands."""

    model_config = ConfigDict(extra="allow")
    trust_domain: str
    pin: str = Field(examples=["sha256:…"])
    phase: str
    bundle_sequence: int
    roots: list[RootState]


# -- sidecars ----------------------------------------------------------------------------------


class Snapshot(BaseModel):
    """A service's configuration, scoped and completed."""

    version: int
    digest: str
    service: str
    trust_domain: str
    config_version: int
    history: str = Field(description="Versions of one history can be compared.")
    document: dict[str, Any]


class CertificateReport(Input):
    """The SVID that a sidecar has."""

    not_after: EpochSeconds
    serial: ShortText


class EndpointsReport(Input):
    """How many endpoints a sidecar knows, and how many of them it would use now."""

    usable: Count
    total: Count


class SidecarReport(Input):
    """How a sidecar is."""

    service: ServiceName
    version: Annotated[
        int, Field(ge=0, le=2**53, description="Of the snapshot that was taken or refused.")
    ]
    digest: Annotated[str, Field(max_length=64)] = ""
    history: Annotated[
        str, Field(max_length=16, description="Of the same snapshot, as it came with it.")
    ] = ""
    state: Literal["ack", "nack"]
    reason: Annotated[str, Field(max_length=16 * 1024, description="Why it was refused.")] = ""
    certificate: CertificateReport | None = None
    bundle_sequence: Count | None = None
    address: ShortText = ""
    ready: bool = False
    endpoints: EndpointsReport | None = None
    breakers_open: Annotated[list[ShortText], Field(max_length=256)] = []
    hms_version: ShortText = ""


class ReportAnswer(BaseModel):
    """What a report is answered with."""

    bundle_sequence: int = Field(
        description="Of the trust bundle in force: fetch it if yours differs."
    )


class SidecarStatus(BaseModel):
    """One sidecar, as it last reported."""

    id: str
    service: str
    state: Literal["in sync", "behind", "ahead", "refused", "gone"]
    version: int
    wanted: int
    reason: str
    problems: list[str] = Field(description="All that is wrong with it.")
    ready: bool
    address: str
    certificate: CertificateReport | None
    endpoints: EndpointsReport | None
    breakers_open: list[str]
    hms_version: str
    seen: EpochSeconds


class FleetStatus(BaseModel):
    """The fleet."""

    config_version: int = Field(description="In force; 0: nothing was pushed.")
    problems: list[str] = Field(description="What is wrong, beside the sidecars' own problems.")
    sidecars: list[SidecarStatus]


# -- configuration -----------------------------------------------------------------------------


class ConfigFile(Input):
    """One of several files."""

    name: Annotated[str, Field(min_length=1, max_length=1024, examples=["routes.yaml"])]
    content: str


class ConfigFiles(Input):
    """Several files, the later over the earlier."""

    files: Annotated[list[ConfigFile], Field(min_length=1, max_length=256)]


class PushResult(BaseModel):
    """What came of a configuration that was pushed."""

    version: int = Field(description="In force now; with dry_run the one it would get.")
    changed: bool
    dry_run: bool = False
    problems: list[ConfigProblemModel] = Field(description="Warnings.")


class ConfigVersion(BaseModel):
    """One version of the configuration, without its content."""

    version: int
    created: EpochSeconds
    author: str
    source: str = Field(description="The files' names, or what else it came from.")
    size: int = Field(description="Bytes of all files.")
    digest: str


class ConfigVersions(BaseModel):
    """The versions that are kept, the newest first."""

    versions: list[ConfigVersion]


class ConfigContent(BaseModel):
    """The configuration as it was pushed."""

    version: int
    created: EpochSeconds
    author: str
    source: str
    size: int
    digest: str
    files: list[ConfigFile]


class ConfigDiff(BaseModel):
    """What lies between two versions, as a unified diff; empty if nothing does."""

    diff: str


# -- services ----------------------------------------------------------------------------------


class InstanceInput(Input):
    """An instance of a service."""

    address: Annotated[
        str,
        Field(
            pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
            max_length=300,
            examples=["10.0.0.7:15006"],
        ),
    ]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=64)] = ""
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    zone: Annotated[str, Field(max_length=128)] = ""
    priority: Annotated[int, Field(ge=0, le=100)] = 0
    metadata: Annotated[
        dict[ShortText, ShortText],
        Field(max_length=64, description="4 KiB of UTF-8 together, names and values."),
    ] = {}
    ttl: Annotated[float, Field(ge=1, le=3600, description="Seconds; renew by repetition.")] = 15.0


class Instance(BaseModel):
    """A registered instance."""

    id: str
    service: str
    address: str
    version: str
    weight: int
    zone: str
    priority: int
    metadata: dict[str, str]
    ttl: float


class Service(BaseModel):
    """A service and its instances."""

    name: str
    instances: list[Instance]


class ServiceList(BaseModel):
    """All services."""

    services: list[Service]


class Health(BaseModel):
    """Whether it is well."""

    status: Literal["ok", "not ready"]
    detail: str = ""
