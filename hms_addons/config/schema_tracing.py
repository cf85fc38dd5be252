"""What users write under `tracing`."""

from __future__ import annotations

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.schema_base import (
    AlsoAccepts,
    FieldName,
    Model,
    PositiveDuration,
    fault,
    shown,
)
from hms_addons.config.schema_policies import env_name, plain_url
from hms_addons.redaction import is_secret

_OWN: Final = frozenset({"content-type", "content-length", "host", "transfer-encoding"})
_MAX_ATTRIBUTE: Final = 1024


def _collector(value: str) -> str:
    url = plain_url(value)
    if urlsplit(url).port == 4317:  # noqa: PLR2004 - OTLP's other port
        raise fault("4317 is the port of OTLP over gRPC; HTTP's is 4318", suggestion="port 4318")
    return url


def _text(value: str) -> str:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise fault("a header's value is printable ASCII, without spaces around it")
    return value


def _header(value: object) -> object:
    return {"value": value} if isinstance(value, str) else value


class HeaderModel(Model):
    """A header that goes with every batch."""

    value: Annotated[str, AfterValidator(_text)] | None = None
    """As it is sent."""
    env: Annotated[str, AfterValidator(env_name)] | None = None
    """The environment variable that holds it."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.value is None) == (self.env is None):
            message = "give its value, or env, the variable that holds it"
            raise fault(message, about=(("value",), ("env",)))
        return self


type Header = Annotated[HeaderModel, BeforeValidator(_header), AlsoAccepts({"type": "string"})]


def _attribute(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"expected a text, not {shown(value)}"
        raise fault(message)
    if len(text := str(value)) > _MAX_ATTRIBUTE:
        raise fault(f"an attribute has {_MAX_ATTRIBUTE} characters at most")
    return text


class TracingModel(Model):
    """Spans for requests and their tries, sent to an OpenTelemetry collector by OTLP/HTTP (protobuf).

    Needs the extra `otel` (`pip install 'hms-svc[otel]'`). Without this section no span is recorded, and
    `traceparent` is passed on, or made where it is missing, all the same.
    """

    otlp: Annotated[str, AfterValidator(_collector)]
    """The collector, as http://127.0.0.1:4318; `/v1/traces` is added unless it ends so."""
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the traces that begin here, as 0.1 (the default). A request that comes with a `traceparent`
    is recorded if its caller says that it records it (`…-01`), and not otherwise, so that traces are whole.
    A sidecar without `tracing` makes a `traceparent` that says no (`…-00`), and those behind it follow: give
    the section to all, at least to those where requests come in. And a stranger's yes counts as well,
    whatever the share: where that is unwanted, have what stands before the mesh take his `traceparent` out."""
    timeout: PositiveDuration | None = None
    """Of one batch; default 10s. No request ever waits for it."""
    headers: dict[FieldName, Header] | None = None
    """Sent with every batch; a secret by `{env: NAME}`, the environment variable that holds it."""
    resource: (
        dict[
            Annotated[str, Field(min_length=1, max_length=128)],
            Annotated[str, BeforeValidator(_attribute)],
        ]
        | None
    ) = None
    """Attributes of the sidecar, as `deployment.environment.name: prod`, besides `service.name` and the like."""

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        seen: set[str] = set()
        for name, header in (self.headers or {}).items():
            if name.lower() in _OWN:
                raise fault(f"{name} is the exporter's own to set", at=("headers", name))
            if name.lower() in seen:
                raise fault(f"{name} is here twice", at=("headers", name))
            seen.add(name.lower())
            if header.value is not None and is_secret(name):
                message = f"{name} looks like a secret, which a configuration must not hold"
                suggestion = f"{name}: {{env: HMS_OTLP_SECRET}}"
                raise fault(message, at=("headers", name), suggestion=suggestion)
        return self
