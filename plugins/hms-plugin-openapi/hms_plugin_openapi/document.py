"""A document: read, its references followed, its schemas compiled by jsonschema-rs.

Schemas are compiled where they stand, by reference into the whole document, so that what they refer to is
found. OpenAPI 3.1 has JSON Schema 2020-12; the schemas of 3.0 are made into those of draft 4.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import jsonschema_rs
import yaml

if TYPE_CHECKING:
    from pathlib import Path

URI: Final = "urn:hms:document"
MAX_FILE: Final = 8 * 1024 * 1024
"""Bytes of a file."""
MAX_VALUES: Final = 500_000
"""Once aliases are written out."""
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_MOST_HOPS: Final = 20
"""References that lead to references."""


class DocumentError(ValueError):
    """A document cannot be used; the message says where in it, and why."""


def read_file(path: Path) -> Any:
    """What is in a file, as plain values.

    Raises:
        DocumentError: it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DocumentError(f"{path}: is no file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise DocumentError(f"{path}: longer than {MAX_FILE} bytes")
    try:
        if data.lstrip()[:1] == b"{":
            return json.loads(data)
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = str(error).replace("\n", " ")
        raise DocumentError(f"{path}: neither JSON nor YAML: {problem}") from None


def pointer(*keys: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


class Document:
    """An OpenAPI document.

    Args:
        content: as read; it is not changed.

    Raises:
        DocumentError: it is none, or refers to what is not there.
    """

    def __init__(self, content: Any) -> None:
        version = content.get("openapi") if isinstance(content, dict) else None
        if not isinstance(version, str) or version[:4] not in {"3.0.", "3.1."}:
            raise DocumentError("no OpenAPI document of version 3.0 or 3.1 (`openapi: 3.1.0`)")
        self._old = version.startswith("3.0.")
        _check_size(content)
        try:
            # As JSON has it: YAML reads `200:` as a number, and a date as one.
            content = json.loads(json.dumps(content, default=str))
            _refuse_foreign(content)
            self.content: dict[str, Any] = _for_requests(content, old=self._old)
        except DocumentError:
            raise
        except (ValueError, TypeError, RecursionError):
            message = "it is nested too deep, or has a key that is no text"
            raise DocumentError(message) from None
        draft = jsonschema_rs.Draft4 if self._old else jsonschema_rs.Draft202012
        try:
            self._registry = jsonschema_rs.Registry([(URI, self.content)], draft=draft)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise DocumentError(_first_line(error)) from None

    @property
    def base_path(self) -> str:
        """The path of the first server; empty where it has none, or one with variables."""
        servers = self.content.get("servers")
        first = servers[0] if isinstance(servers, list) and servers else {}
        url = first.get("url") if isinstance(first, dict) else ""
        if not isinstance(url, str) or "{" in url:
            return ""
        path = url.partition("://")[2] if "://" in url else url
        if "://" in url:
            path = path[path.find("/") :] if "/" in path else ""
        return path.rstrip("/")

    def resolve(self, value: Any, at: str) -> tuple[dict[str, Any], str]:
        """The object that is at `at`, or that what is there refers to; and where that is.

        Raises:
            DocumentError: it is no object, or the references go round in circles.
        """
        for _ in range(_MOST_HOPS):
            if not isinstance(value, dict):
                raise DocumentError(f"{at}: expected an object")
            reference = value.get("$ref")
            if not isinstance(reference, str):
                return value, at
            at = unquote(reference.removeprefix("#"))
            value = _at(self.content, reference)
        raise DocumentError(f"{at}: references that go round in circles")

    def validator(self, at: str) -> jsonschema_rs.Validator:
        """What checks values against the schema at `at`; its messages hold no values.

        Raises:
            DocumentError: it is no schema.
        """
        kind: Any = jsonschema_rs.Draft202012Validator
        if self._old:
            kind = jsonschema_rs.Draft4Validator
        try:
            made: jsonschema_rs.Validator = kind(
                {"$ref": f"{URI}#{_escaped(at)}"},
                registry=self._registry,
                mask="the value",
                validate_formats=True,
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise DocumentError(f"{at}: {_first_line(error)}") from None
        return made

    def operations(self) -> list[tuple[str, str, dict[str, Any], str]]:
        """Path, method, operation and where it is; the path's parameters are worked in.

        Raises:
            DocumentError: there is something else.
        """
        found = []
        paths = self.content.get("paths", {})
        if not isinstance(paths, dict):
            raise DocumentError("/paths: expected an object")
        for path, written in paths.items():
            if path.startswith("x-"):
                continue
            item, at = self.resolve(written, pointer("paths", path))
            for method in _METHODS:
                if method in item:
                    operation, where = self.resolve(item[method], at + pointer(method))
                    found.append((path, method.upper(), operation, where))
        return found

    def parameters(
        self, path: str, operation: dict[str, Any], at: str
    ) -> list[tuple[dict[str, Any], str]]:
        """The parameters of an operation, its own before its path's; and where each is."""
        item, item_at = self.resolve(self.content["paths"][path], pointer("paths", path))
        found: dict[tuple[Any, Any], tuple[dict[str, Any], str]] = {}
        for holder, where in ((operation, at), (item, item_at)):
            listed = holder.get("parameters", [])
            if not isinstance(listed, list):
                raise DocumentError(f"{where}/parameters: expected a list")
            for index, written in enumerate(listed):
                parameter, place = self.resolve(written, where + pointer("parameters", index))
                found.setdefault((parameter.get("in"), parameter.get("name")), (parameter, place))
        return list(found.values())

    def types(self, schema: Any, at: str) -> set[str]:
        """The types that a schema speaks of, itself and in what it is made of."""
        found: set[str] = set()
        seen: set[str] = set()
        left = [(schema, at)]
        while left:
            inner, at = left.pop()
            if not isinstance(inner, dict):
                continue
            inner, at = self.resolve(inner, at)
            if at in seen:  # schemas may refer to themselves
                continue
            seen.add(at)
            kind = inner.get("type", ())
            found |= {kind} if isinstance(kind, str) else set(_texts(kind))
            for key in ("allOf", "anyOf", "oneOf"):
                parts = inner.get(key)
                if isinstance(parts, list):
                    left += [(part, at + pointer(key, i)) for i, part in enumerate(parts)]
        return found

    def schema_at(self, schema: dict[str, Any], at: str, *keys: str) -> tuple[Any, str] | None:
        """A schema below another, whatever that refers to; and where it is."""
        for key in keys:
            schema, at = self.resolve(schema, at)
            if key not in schema:
                return None
            schema, at = schema[key], at + pointer(key)
        return schema, at


def _texts(value: Any) -> list[str]:
    """What is no list of texts is refused by whoever compiles the schema."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _check_size(content: Any) -> None:
    """Raise if it is large once YAML's aliases are written out; they can stand for anything."""
    left, values, characters = [content], 0, 0
    while left:
        value = left.pop()
        values += 1
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        if values + len(left) > MAX_VALUES or characters > MAX_FILE:
            raise DocumentError("it is too large, or its aliases go round in circles")


def _at(content: Any, reference: str) -> Any:
    value = content
    for part in unquote(reference.removeprefix("#")).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise DocumentError(f"$ref {reference!r}: nothing is there")
    return value


def _refuse_foreign(content: Any) -> None:
    """Raise if it refers to other documents: they would have to be fetched."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                if not reference.startswith("#/"):
                    raise DocumentError(
                        f"$ref {reference!r} leads out of the document; bundle it into one first"
                    )
                _at(content, reference)
            if isinstance(value.get("$id"), str):
                raise DocumentError(
                    f"$id {value['$id']!r}: schemas are found by their place; leave it out"
                )
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _for_requests(value: Any, *, old: bool) -> Any:
    """What is checked of requests, in JSON Schema's words.

    `required` does not hold for what is `readOnly` (OpenAPI 4.7.24.2), and 3.0 has `nullable`.
    """
    if isinstance(value, list):
        return [_for_requests(inner, old=old) for inner in value]
    if not isinstance(value, dict):
        return value
    made = {key: _for_requests(inner, old=old) for key, inner in value.items()}
    required, properties = made.get("required"), made.get("properties")
    if isinstance(required, list) and isinstance(properties, dict):
        hidden = {
            name
            for name, schema in properties.items()
            if isinstance(schema, dict) and schema.get("readOnly") is True
        }
        made["required"] = [name for name in required if name not in hidden]
        if not made["required"]:
            del made["required"]  # draft 4 takes no empty one
    if old and made.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    return made


def _escaped(at: str) -> str:
    """A pointer in a URI's fragment."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in "/~-._" else _percent(c) for c in at)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
