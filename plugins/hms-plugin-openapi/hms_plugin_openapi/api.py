"""A service's document, compiled once: a request in, what is wrong with it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from hms_plugin_openapi.bodies import Body, compile_body
from hms_plugin_openapi.document import pointer
from hms_plugin_openapi.parameters import Parameter, Values, compile_parameter
from hms_plugin_openapi.templates import PathTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_plugin_openapi.document import Document
    from hms_plugin_openapi.options import ServiceOptions

MOST_FIELDS = 1000
"""Query parameters of a request that are looked at."""


class Verdict(NamedTuple):
    """Why a request is refused."""

    status: int
    detail: str
    allow: tuple[str, ...] = ()
    """With 405: the methods that there are."""


class Request(NamedTuple):
    """What is looked at of a request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """By lower-case name."""
    content: bytes | None
    """The body; None where it streams."""


class Operation(NamedTuple):
    """What can be done with a path."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    open_query: bool
    """It takes query parameters of any name."""


class Api:
    """A document, ready to judge requests.

    Args:
        document: the document.
        options: how strictly.

    Raises:
        DocumentError: something in it cannot be checked.
    """

    def __init__(self, document: Document, options: ServiceOptions) -> None:
        self._options = options
        base = options.base_path if options.base_path is not None else document.base_path
        self._base = base
        paths: dict[str, dict[str, Operation]] = {}
        for path, method, operation, at in document.operations():
            found = [
                compile_parameter(document, *parameter)
                for parameter in document.parameters(path, operation, at)
            ]
            body = None
            if "requestBody" in operation:
                written, where = document.resolve(
                    operation["requestBody"], at + pointer("requestBody")
                )
                body = compile_body(document, written, where)
            parameters = tuple(p for p in found if p is not None)
            paths.setdefault(path, {})[method] = Operation(
                f"{method} {path}", parameters, body, _open_query(parameters)
            )
        self._table = PathTable(paths)
        self.operations = sum(map(len, paths.values()))

    def check(self, request: Request) -> Verdict | None:
        """Why a request is refused; None if it is as the document says, or not to be checked."""
        unknown = self._options.unknown_paths == "refuse"
        base = self._base
        inside = request.path == base or request.path.startswith(f"{base}/")
        found = self._table.find(request.path[len(base) :] or "/") if inside else None
        if found is None:
            why = "the service's OpenAPI document has no such path"
            return Verdict(404, why) if unknown else None
        operations, variables = found
        operation = operations.get(request.method)
        if operation is None and request.method == "HEAD":
            operation = operations.get("GET")
        if operation is None:
            why = "the service's OpenAPI document has no such method for this path"
            return Verdict(405, why, tuple(operations)) if unknown else None
        fault = self._parameter_fault(operation, variables, request)
        if fault is None:
            fault = self._body_fault(operation, request)
        return fault

    def _parameter_fault(
        self, operation: Operation, variables: Mapping[str, str], request: Request
    ) -> Verdict | None:
        try:
            query = parse_qs(request.query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            return Verdict(400, f"{operation.name}: more than {MOST_FIELDS} query parameters")
        cookies: dict[str, list[str]] = {}
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            cookies.setdefault(name, []).append(value)
        values = Values(variables, query, request.headers, cookies)
        for parameter in operation.parameters:
            why = parameter.fault(values)
            if why is not None:
                where = f"{parameter.place} parameter {parameter.name!r}"
                return Verdict(400, f"{operation.name}: {where}: {why}")
        if self._options.unknown_query == "refuse" and not operation.open_query:
            known = {p.name for p in operation.parameters if p.place == "query"}
            for name in query:
                if name not in known and name.partition("[")[0] not in known:
                    shown = repr(name[:100])
                    return Verdict(400, f"{operation.name}: there is no query parameter {shown}")
        return None

    def _body_fault(self, operation: Operation, request: Request) -> Verdict | None:
        body = operation.body
        if body is None:
            if request.content == b"" or (
                request.content is None and self._options.streaming == "pass"
            ):
                return None
            return Verdict(400, f"{operation.name}: body: it takes none")
        kind = request.headers.get("content-type", "")
        if request.content is None:
            if self._options.streaming == "pass":
                fault = body.check_type(kind)
                return fault and Verdict(fault.status, f"{operation.name}: body: {fault.why}")
            return Verdict(413, f"{operation.name}: body: it is too long to be looked at")
        if not request.content:
            missing = Verdict(400, f"{operation.name}: body: it is missing")
            return missing if body.required else None
        coding = request.headers.get("content-encoding", "")
        found = body.check(request.content, kind, coding)
        return found and Verdict(found.status, f"{operation.name}: body: {found.why}")


def _open_query(parameters: tuple[Parameter, ...]) -> bool:
    """An object that is spread over the query brings names that nobody has listed."""
    return any(
        p.place == "query"
        and p.style == "form"
        and p.explode
        and not p.is_json
        and p.schema is not None
        and "object" in p.schema.types
        for p in parameters
    )
