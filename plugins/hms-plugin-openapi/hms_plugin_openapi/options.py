"""What stands under `plugins.openapi`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hms_addons.config.schema_base import Model, fault


def _base_path(value: str) -> str:
    if value and not value.startswith("/"):
        raise fault("a path begins with '/'", suggestion=f"/{value}")
    return value.rstrip("/")


class ServiceOptions(Model):
    """One service's document."""

    file: str | None = None
    """Its file (YAML or JSON), absolute or from the configuration's folder; read again with every
    change of the configuration."""
    document: dict[str, Any] | None = None
    """The document itself, for a configuration that a control plane sends to other machines."""
    base_path: Annotated[str, AfterValidator(_base_path)] | None = None
    """What stands before the document's paths; left out: the path of its first server."""
    unknown_paths: Literal["refuse", "pass"] = "refuse"
    """Requests for what the document does not have: 404 or 405, or unchecked."""
    unknown_query: Literal["refuse", "pass"] = "pass"
    """Query parameters that the document does not have."""
    streaming: Literal["refuse", "pass"] = "refuse"
    """Bodies that are too long to be held: 413, or unchecked."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.document is None):
            raise fault("give either file or document")
        return self


class Options(Model):
    """The services whose requests are checked."""

    services: Annotated[dict[str, ServiceOptions], Field(min_length=1)]
    """By service."""
    direction: Literal["inbound", "outbound", "both"] = "both"
    """The listeners that check."""
