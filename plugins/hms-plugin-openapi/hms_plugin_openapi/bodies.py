"""Bodies, compared with what an operation takes: `requestBody`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs

from hms_plugin_openapi.document import DocumentError, pointer
from hms_plugin_openapi.parameters import Typed, describe, read_form, read_json, typed

if TYPE_CHECKING:
    from hms_plugin_openapi.document import Document


_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([^\s;,\"']*)", re.IGNORECASE)
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class BodyFault(NamedTuple):
    """What is wrong with a body."""

    status: int
    why: str


class Body(NamedTuple):
    """What an operation takes as a body."""

    required: bool
    media: dict[str, Typed | None]
    """By media type or range, in lower case; None where nothing is said of its content."""

    def check_type(self, content_type: str) -> BodyFault | None:
        """Whether it takes that at all."""
        if self._schema(content_type) is not ...:
            return None
        return BodyFault(415, f"its Content-Type is not one of: {', '.join(self.media)}")

    def check(self, content: bytes, content_type: str, coding: str) -> BodyFault | None:
        """What is wrong with a body that is not empty."""
        schema = self._schema(content_type)
        if schema is ...:
            return self.check_type(content_type)
        if not isinstance(schema, Typed):
            return None
        kind = _plain(content_type)
        is_form = kind == "application/x-www-form-urlencoded"
        if not is_form and not _is_json(kind):
            return None
        if coding.strip().lower() not in {"", "identity"}:
            return BodyFault(415, "its Content-Encoding cannot be looked into")
        if not {found.lower() for found in _CHARSET.findall(content_type)} <= _CHARSETS:
            return BodyFault(415, "its charset is not UTF-8")
        try:
            if is_form:
                parsed = parse_qs(content.decode(), keep_blank_values=True, max_num_fields=1000)
                value: Any = read_form(parsed, schema)
            else:
                value = read_json(content.decode())
        except (ValueError, RecursionError):
            return BodyFault(
                400, "it is no form" if is_form else "it is no JSON, or has a key twice"
            )
        error = next(iter(schema.validator.iter_errors(value)), None)
        return None if error is None else BodyFault(400, describe(error))

    def _schema(self, content_type: str) -> Any:
        """The schema of a media type: the most exact one counts. `...` if none is."""
        kind = _plain(content_type)
        if "," in kind:  # two fields: services differ in which they read
            return ...
        for known in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if known in self.media:
                return self.media[known]
        return ...


def _plain(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind.endswith(("/json", "+json"))


def compile_body(document: Document, body: dict[str, Any], at: str) -> Body:
    """The `requestBody` of an operation.

    Raises:
        DocumentError: it cannot be checked.
    """
    content = body.get("content")
    if not isinstance(content, dict) or not content:
        raise DocumentError(f"{at}/content: expected media types")
    media: dict[str, Typed | None] = {}
    for kind, written in content.items():
        has_schema = isinstance(written, dict) and "schema" in written
        where = at + pointer("content", kind, "schema")
        media[_plain(kind)] = typed(document, written["schema"], where) if has_schema else None
    return Body(body.get("required") is True, media)
