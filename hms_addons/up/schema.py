"""What `mesh.yaml` may say, as pydantic models, and its faults with their places."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from hms_addons.config.problems import ConfigProblems, Report, closest, listing
from hms_addons.config.schema_base import (
    MAX_PORT,
    Duration,
    Model,
    Name,
    UrlPath,
    fault,
    shown,
)
from hms_addons.config.validate import BOUNDS, EXPECTED, expected_instead
from hms_addons.identity.enrolment import MAX_LIFETIME
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.up.file_watch import why_not

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from hms_addons.config.yaml_marks import Document

PLACEHOLDERS: Final = ("{port}", "{name}", "{python}", "{mesh}")
"""What a command's words and variables may hold: the app's port, the instance's name, this Python, and
where the app calls the mesh, which is its own sidecar."""
MAX_REPLICAS: Final = 100
MIN_SVID_LIFETIME: Final = 5.0
"""Seconds; a busy machine needs some to renew a certificate."""

_PLACEHOLDER_NAMES: Final = [text[1:-1] for text in PLACEHOLDERS]
_IN_BRACES = re.compile(r"\{[a-z]+\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _command(value: object) -> object:
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise fault(f"cannot be split into words: {error}") from None
    elif isinstance(value, list) and all(isinstance(word, str) for word in value):
        words = value
    else:
        raise fault(f"expected a command, as text or as a list of texts, not {shown(value)}")
    if not words:
        raise fault("is empty: which program is it?")
    for word in words:
        _placeholders(word)
    return words


def _placeholders(text: str) -> None:
    """Other words in braces are the app's own, unless one of ours was meant."""
    for found in _IN_BRACES.findall(text):
        guess = None if found in PLACEHOLDERS else closest(found[1:-1], _PLACEHOLDER_NAMES)
        if guess:
            raise fault(f"{found} is not filled in", suggestion=f"{{{guess}}}")


def _some(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _entry(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int) and 1 <= value <= MAX_PORT):
        return value
    raise fault(f"expected true (port 15001), a port or false, not {shown(value)}")


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise fault(f"{shown(name)} cannot be the name of a variable", at=(name,))
        if name.startswith("HMS_"):
            message = f"{name} would change the sidecar: variables of HMS_… are the mesh's own"
            raise fault(message, at=(name,))
        if "\0" in text:
            raise fault("holds a zero byte", at=(name,))
        _placeholders(text)
    return value


def _service_name(value: str) -> str:
    try:
        SpiffeId.for_service("check", value)
    except SpiffeIdError as error:
        raise fault(str(error)) from None
    return value


def _mesh(value: object) -> object:
    if isinstance(value, dict | str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    message = f"expected a configuration, a file's name or a list of names, not {shown(value)}"
    raise fault(message)


def _svid_lifetime(value: float) -> float:
    if MIN_SVID_LIFETIME <= value <= MAX_LIFETIME:
        return value
    message = f"must be at least {MIN_SVID_LIFETIME:g}s and at most {MAX_LIFETIME / 86400:g} days"
    raise fault(message)


def _pattern(value: str) -> str:
    if problem := why_not(value):
        raise fault(problem)
    return value


type Pattern = Annotated[str, AfterValidator(_pattern)]
type ServiceName = Annotated[Name, AfterValidator(_service_name)]


class ServiceModel(Model):
    """One program, in one or several instances, each behind a sidecar of its own."""

    command: Annotated[list[str], BeforeValidator(_command)]
    """The app; `{port}`, `{name}`, `{python}` and `{mesh}` are filled in. No shell sees it."""
    service: ServiceName | None = None
    """The service that it is of; default the name that it stands under here."""
    port: Annotated[int, Field(ge=1, le=MAX_PORT)] | None = None
    """Where the first instance listens, the next one a port further; default any that are free."""
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    """How many instances."""
    version: str = ""
    """As v2."""
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Each instance's share, relative to other instances of the service. A change starts them anew, one after the other; a
    cluster's `trafficPolicy: weight=…` changes shares without that."""
    env: Annotated[dict[str, str], AfterValidator(_variables)] = {}
    """Variables, beside those of the shell, PORT and HMS_URL; filled in as in `command`."""
    folder: Annotated[str, Field(min_length=1)] = "."
    """Where it runs, relative to this file."""
    health: UrlPath | None = None
    """A path of the app that answers 2xx while it is well."""
    watch: Annotated[list[Pattern], BeforeValidator(_some)] = []
    """Files, as `*.py` or `src/**/*.py` below `folder`, whose change restarts it."""
    entry: Annotated[bool | int | None, BeforeValidator(_entry)] = None
    """true: the sidecar of its first instance takes the app's calls on port 15001; or another port."""
    sidecar: bool = True
    """false: it runs alone, outside the mesh, as what the sidecars themselves ask does: HMS-GOV, an issuer of tokens."""

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if not self.sidecar:
            for key in ("service", "version", "weight", "entry"):
                if key in self.model_fields_set:
                    message = f"{key} is the sidecar's, and `sidecar: false` says that it has none"
                    raise fault(message, at=(key,))
            for key, words in (("command", self.command), ("env", self.env.values())):
                if any("{mesh}" in word for word in words):
                    message = "{mesh} is its sidecar, and `sidecar: false` says that it has none"
                    raise fault(message, at=(key,))
        return self


class MeshFileModel(Model):
    """`mesh.yaml`."""

    services: Annotated[dict[ServiceName, ServiceModel], Field(min_length=1)]
    """The programs, by name."""
    mesh: Annotated[Any, BeforeValidator(_mesh)] = None
    """The mesh's configuration: listeners, clusters, rbac …; or the file that says it, or several."""
    svid_lifetime: Annotated[Duration, AfterValidator(_svid_lifetime)] = 86400.0
    """How long sidecars' certificates live; each is replaced at half its life, or after an hour. Default 24h."""


def validate_mesh_file(document: Document) -> MeshFileModel:
    """The document as a model.

    Raises:
        ConfigProblems: it is none; every fault with its place.
    """
    try:
        return MeshFileModel.model_validate({} if document.data is None else document.data)
    except ValidationError as error:
        report = Report(document.marks.place_of)
        # A misspelt key first: what it was meant for is not missing.
        found = error.errors(include_url=False)
        meant: set[tuple[str | int, ...]] = set()
        for details in sorted(found, key=lambda one: one["type"] != "extra_forbidden"):
            _tell(details, report, meant)
        raise ConfigProblems(report.sorted()) from None


def _tell(details: ErrorDetails, report: Report, meant: set[tuple[str | int, ...]]) -> None:
    """One fault, in the words of `hms check`."""
    kind, path, value = details["type"], details["loc"], details["input"]
    context = details.get("ctx", {})
    if path and path[-1] == "[key]":
        message = str(context.get("message", details["msg"]))
        report.error(path[:-1], message, at_key=True)
    elif kind == "hms":
        report.error((*path, *context["at"]), context["message"], context["suggestion"])
    elif kind == "extra_forbidden":
        model = MeshFileModel if len(path) == 1 else ServiceModel
        known = list(model.model_fields)
        guess = closest(path[-1], known)
        hint = "" if guess else f"; known here: {listing(known, limit=20)}"
        report.error(path, f"unknown key '{path[-1]}'{hint}", guess, at_key=True)
        meant.add((*path[:-1], guess or ""))
    elif kind == "missing":
        if path in meant:
            return
        report.error(path[:-1], f"the key '{path[-1]}' is missing")
    elif kind in EXPECTED:
        report.error(path, *expected_instead(kind, value))
    elif kind in BOUNDS:
        key, words = BOUNDS[kind]
        report.error(path, f"must be {words} {context[key]}, not {shown(value)}")
    elif kind in {"too_short", "string_too_short"}:
        report.error(path, "must not be empty")
    else:
        report.error(path, details["msg"])
