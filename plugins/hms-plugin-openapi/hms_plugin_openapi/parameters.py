"""Parameters, read out of a request by their style and compared with their schemas.

Styles: `simple` for paths and headers; `form`, `spaceDelimited`, `pipeDelimited` and `deepObject` for queries;
`form` for cookies; and `content` with JSON. Others are refused when the document is read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_plugin_openapi.document import DocumentError, pointer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jsonschema_rs

    from hms_plugin_openapi.document import Document

_STYLES: Final = {
    "path": {"simple"},
    "header": {"simple"},
    "cookie": {"form"},
    "query": {"form", "spaceDelimited", "pipeDelimited", "deepObject"},
}
_DEFAULTS: Final = {"path": "simple", "header": "simple", "cookie": "form", "query": "form"}
_SEPARATORS: Final = {"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
_IGNORED: Final = frozenset({"accept", "content-type", "authorization"})
"""Header parameters that mean nothing (OpenAPI 4.8.12.2.1)."""
_BOOLEANS: Final = {"true": True, "false": False}


class Values(NamedTuple):
    """Where the values of a request's parameters are found."""

    path: Mapping[str, str]
    query: Mapping[str, list[str]]
    header: Mapping[str, str]
    cookie: Mapping[str, list[str]]


class Typed(NamedTuple):
    """A schema, and the types that a text may stand for under it."""

    validator: jsonschema_rs.Validator
    types: frozenset[str]
    items: frozenset[str]
    properties: Mapping[str, frozenset[str]]

    def fault(self, candidates: Sequence[Any]) -> str | None:
        """What is wrong with all of the values that a text can be read as; None if one is right."""
        first: str | None = None
        for candidate in candidates:
            error = next(iter(self.validator.iter_errors(candidate)), None)
            if error is None:
                return None
            first = first or describe(error)
        return first


def typed(document: Document, schema: Any, at: str) -> Typed:
    """Compile the schema at `at`."""
    items = document.schema_at(schema, at, "items") if isinstance(schema, dict) else None
    properties = document.schema_at(schema, at, "properties") if isinstance(schema, dict) else None
    known: dict[str, frozenset[str]] = {}
    if properties is not None and isinstance(properties[0], dict):
        for name, inner in properties[0].items():
            known[name] = frozenset(document.types(inner, properties[1] + pointer(name)))
    return Typed(
        document.validator(at),
        frozenset(document.types(schema, at)),
        frozenset() if items is None else frozenset(document.types(*items)),
        known,
    )


class Parameter(NamedTuple):
    """One parameter, ready to be checked."""

    name: str
    place: str
    required: bool
    style: str
    explode: bool
    schema: Typed | None
    is_json: bool

    def fault(self, values: Values) -> str | None:
        """What is wrong with it in a request, in words that hold no value."""
        given: Any = None
        if self.place == "query":
            given = self._query(values.query)
        elif self.place == "header":
            given = values.header.get(self.name.lower())
        else:
            given = getattr(values, self.place).get(self.name)
        if given is None:
            return "it is missing" if self.required else None
        if self.schema is None:
            return None
        if self.is_json:
            try:
                candidates = [read_json(given if isinstance(given, str) else _only(given))]
            except (ValueError, RecursionError):
                return "it is no JSON, has a key twice, or is given twice"
        else:
            candidates = self._candidates(given, self.schema)
        return self.schema.fault(candidates)

    def _query(self, query: Mapping[str, list[str]]) -> Any:
        schema = self.schema
        if self.style == "deepObject":
            prefix = f"{self.name}["
            found = {
                key[len(prefix) : -1]: texts
                for key, texts in query.items()
                if key.startswith(prefix) and key.endswith("]")
            }
            return found or None
        if schema is not None and "object" in schema.types and self.explode and not self.is_json:
            return {key: query[key] for key in schema.properties if key in query} or None
        return query.get(self.name)

    def _candidates(self, given: Any, schema: Typed) -> list[Any]:
        """The values that a text, or several, can stand for; always at least one."""
        if isinstance(given, dict):
            known = schema.properties
            return [{key: _read_all(texts, known.get(key, ())) for key, texts in given.items()}]
        texts = given if isinstance(given, list) else [given]
        candidates: list[Any] = []
        if "array" in schema.types:
            split = texts
            if not (self.explode and self.place == "query"):
                # Given twice: services read the first, the last or all.
                split = [part for text in texts for part in text.split(_SEPARATORS[self.style])]
            candidates.append([_read(text, schema.items)[0] for text in split])
        if "object" in schema.types:
            one = len(texts) == 1
            candidates.append(_object(texts[0], schema, explode=self.explode) if one else texts)
        if schema.types - {"array", "object"} or not candidates:
            # Twice where once is meant: services read the first or the last, so all must be right.
            if len(texts) > 1:
                return candidates or [texts]
            candidates.extend(_read(texts[0], schema.types))
        return candidates


def read_form(form: Mapping[str, list[str]], schema: Typed) -> dict[str, Any]:
    """The object that a form stands for: each property by its type."""
    return {
        key: list(texts) if "array" in types else _read_all(texts, types)
        for key, texts in form.items()
        for types in (schema.properties.get(key, frozenset()),)
    }


def read_json(text: str) -> Any:
    """A JSON document as every reader reads it: no NaN, no key twice.

    Raises:
        ValueError: it is none.
    """
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; readers differ about which of two like keys counts, so there may be no two."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands in it twice")
    return made


def _only(texts: Sequence[str]) -> str:
    if len(texts) > 1:
        raise ValueError("it is given twice")
    return texts[0]


def _read_all(texts: Sequence[str], types: Any) -> Any:
    """The value of a text; of several the list, which is no such value, as services differ in which they read."""
    return _read(texts[0], types)[0] if len(texts) == 1 else list(texts)


def _object(text: str, schema: Typed, *, explode: bool) -> dict[str, Any]:
    """`a=1,b=2` or `a,1,b,2`."""
    parts = text.split(",")
    if explode:
        pairs = [part.partition("=")[::2] for part in parts]
    else:
        pairs = list(zip(parts[::2], parts[1::2], strict=False))
    return {key: _read(value, schema.properties.get(key, ()))[0] for key, value in pairs}


def _read(text: str, types: Any) -> list[Any]:
    """The values of one of these types that a text can stand for; itself if of none."""
    found: list[Any] = []
    if "integer" in types or "number" in types:
        digits = text[1:] if text[:1] == "-" else text
        if digits.isascii() and digits.isdecimal() and len(digits) < 1000:  # noqa: PLR2004 - Python's bound is 4300
            found.append(int(text))
        elif "number" in types:
            found.extend(_number(text))
    if "boolean" in types and text in _BOOLEANS:
        found.append(_BOOLEANS[text])
    if "null" in types and not text:
        found.append(None)
    if "string" in types or not found:
        found.append(text)
    return found


def _number(text: str) -> list[float]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return []
    return [value] if isinstance(value, float) else []


def _no_constant(name: str) -> None:
    raise ValueError(name)


def compile_parameter(document: Document, parameter: dict[str, Any], at: str) -> Parameter | None:
    """A parameter of a document; None if it means nothing.

    Raises:
        DocumentError: it cannot be checked; says where it is and why.
    """
    name, place = parameter.get("name"), parameter.get("in")
    if not isinstance(name, str) or not isinstance(place, str) or place not in _STYLES:
        raise DocumentError(f"{at}: a parameter needs `name`, and `in: path|query|header|cookie`")
    if place == "header" and name.lower() in _IGNORED:
        return None
    style = parameter.get("style", _DEFAULTS[place])
    if style not in _STYLES[place]:
        known = ", ".join(sorted(_STYLES[place]))
        raise DocumentError(f"{at}/style: {style!r} in a {place} is not known here; use {known}")
    explode = parameter.get("explode", style == "form") is True
    schema = None
    content = parameter.get("content")
    if isinstance(content, dict) and content:
        media = next(iter(content))
        if not isinstance(content[media], dict):
            raise DocumentError(f"{at}/content: expected media types")
        if "schema" in content[media] and media.endswith("json"):
            where = at + pointer("content", media, "schema")
            schema = typed(document, content[media]["schema"], where)
    elif "schema" in parameter:
        schema = typed(document, parameter["schema"], at + pointer("schema"))
    required = parameter.get("required") is True or place == "path"
    is_json = isinstance(content, dict) and bool(content)
    return Parameter(name, place, required, style, explode, schema, is_json)


def describe(error: jsonschema_rs.ValidationError) -> str:
    """Where in a value it is wrong, and how; without the value. Keys are the caller's: at most so long."""
    place = pointer(*error.instance_path)[:200]
    message = error.message[:300]
    return f"at {place}: {message}" if place else message
