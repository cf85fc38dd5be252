"""Checks a merged document: every fault at once, each in words a person can act on.

Two passes over the same data. The models say whether each value is what its key asks for; the
references (which route names which cluster, which cluster names which secret) are checked on the
plain data, so that a misspelt key here does not hide a misspelt name there.
"""

from __future__ import annotations

import re
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAliasType

from pydantic import BaseModel, ValidationError

from hms_addons.config.problems import closest, listing
from hms_addons.config.schema import Config
from hms_addons.config.schema_base import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.yaml_marks import Document

_QUOTED = re.compile(r"'([^']*)'")
_EXPECTED: Final = {
    "bool_type": "true or false",
    "dict_type": "a mapping (keys and values)",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping (keys and values)",
    "string_type": "a text",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def validate(document: Document, report: Report, *, control: bool = False) -> Config | None:
    """The configuration as models, or None when `report` now holds why not.

    Args:
        document: the merged configuration.
        report: takes the problems.
        control: a control plane provides the secrets that are not here.
    """
    data = {} if document.data is None else document.data
    config = None
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _explain(details, report)
    _check_clusters(data, report)
    if not control:
        _check_secrets(data, report)
    return None if report.failed else config


def _explain(details: ErrorDetails, report: Report) -> None:
    kind, context = details["type"], details.get("ctx", {})
    path: Path = details["loc"]
    value = details["input"]
    if path and path[-1] == "[key]":
        report.error(path[:-1], context.get("message", details["msg"]), at_key=True)
    elif kind == "hms":
        report.error((*path, *context["at"]), context["message"], context["suggestion"])
    elif kind == "extra_forbidden":
        _explain_unknown_key(path, report)
    elif kind == "missing":
        report.error(path[:-1], f"the key '{path[-1]}' is missing")
    elif kind == "literal_error":
        known = _QUOTED.findall(context["expected"])
        message = f"expected {' or '.join(known)}, not {shown(value)}"
        report.error(path, message, closest(value, known))
    elif kind in _EXPECTED:
        report.error(path, *_expected(kind, value))
    elif kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        report.error(path, f"must be {words} {context[key]}, not {shown(value)}")
    elif kind in {"too_short", "string_too_short"}:
        report.error(path, "must not be empty")
    else:
        report.error(path, details["msg"])


def _expected(kind: str, value: object) -> tuple[str, str | None]:
    guess = None
    if kind == "string_type" and isinstance(value, bool | int | float):
        guess = f'"{shown(value)}"'
    elif kind == "int_type" and isinstance(value, str) and value.isdecimal():
        guess = f"{value}, without quotes"
    elif kind == "bool_type" and isinstance(value, str):
        guess = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
    elif kind == "list_type" and isinstance(value, str):
        guess = f"[{value}]"
    return f"expected {_EXPECTED[kind]}, not {shown(value)}", guess


def _explain_unknown_key(path: Path, report: Report) -> None:
    known = _keys_at(path[:-1])
    guess = closest(path[-1], known)
    hint = "" if guess else f"; known here: {listing(known, limit=20)}"
    report.error(path, f"unknown key '{path[-1]}'{hint}", guess, at_key=True)


def _keys_at(path: Path) -> list[str]:
    """The keys that the model at `path` has."""
    annotation: Any = Config
    for part in path:
        model = _model_in(annotation)
        if isinstance(part, str) and model is not None and part in model.model_fields:
            annotation = model.model_fields[part].annotation
        # A list's position or a mapping's key: the annotation still leads to the item's model.
    model = _model_in(annotation)
    return [] if model is None else list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model that an annotation such as `list[Model] | None` leads to."""
    if isinstance(annotation, TypeAliasType):
        return _model_in(annotation.__value__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        return _model_in(arguments[0])
    if origin in {list, dict, types.UnionType, typing.Union}:
        for argument in reversed(arguments):
            if (model := _model_in(argument)) is not None:
                return model
    return None


def _check_clusters(data: Mapping[str, Any], report: Report) -> None:
    clusters = {name: path for path, name in _names(data, "clusters")}
    for path, name in _cluster_references(data):
        if name not in clusters:
            guess = closest(name, clusters)
            hint = "" if guess else f"; there are: {listing(clusters)}"
            report.error(path, f"there is no cluster {shown(name)}{hint}", guess)


def _check_secrets(data: Mapping[str, Any], report: Report) -> None:
    raw = data.get("secrets")
    secrets = list(raw) if isinstance(raw, dict) else []
    for path, name, user in _secret_references(data):
        if name in secrets:
            continue
        if secrets:
            guess = closest(name, secrets)
            hint = "" if guess else f"; there are: {listing(secrets)}"
            report.error(path, f"there is no secret {shown(name)}{hint}", guess)
        else:
            message = (
                f"nothing here provides the secret {shown(name)}: until someone does, {user} "
                "with 503, never in plain text; add it under `secrets:`"
            )
            report.warning(path, message)


def _items(value: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings in a list, with their positions; nothing for anything else."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield index, item


def _names(data: Mapping[str, Any], key: str) -> Iterator[tuple[Path, str]]:
    for index, item in _items(data.get(key)):
        if isinstance(name := item.get("name"), str):
            yield (key, index), name


def _cluster_references(data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for at, listener in _items(data.get("listeners")):
        for index, route in _items(listener.get("routes")):
            action = route.get("action")
            if not isinstance(action, dict):
                continue
            path: Path = ("listeners", at, "routes", index, "action")
            if isinstance(name := action.get("cluster"), str):
                yield (*path, "cluster"), name
            for number, item in _items(action.get("clusters")):
                if isinstance(name := item.get("name"), str):
                    yield (*path, "clusters", number, "name"), name


def _secret_references(data: Mapping[str, Any]) -> Iterator[tuple[Path, str, str]]:
    for index, cluster in _items(data.get("clusters")):
        tls = cluster.get("tls_context")
        if isinstance(tls, dict) and isinstance(name := tls.get("sds"), str):
            path: Path = ("clusters", index, "tls_context", "sds")
            yield path, name, "requests to this cluster are answered"
    for index, listener in _items(data.get("listeners")):
        if isinstance(name := listener.get("secret"), str):
            yield ("listeners", index, "secret"), name, "this listener answers"
