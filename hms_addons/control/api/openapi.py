"""The OpenAPI document, and a page that shows it without a line of JavaScript from elsewhere.

What every operation has in common is written into the document here: who may use it comes from the
table of permissions, and what it answers to a caller that may not, from the same.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from hms_addons.control.api.models import ConfigFiles
from hms_addons.control.api.problems import PROBLEM_JSON, ProblemModel
from hms_addons.control.auth import PERMISSIONS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

_SCHEMES: Final[dict[Kind, tuple[str, dict[str, str]]]] = {
    Kind.ADMIN: (
        "adminToken",
        {"type": "http", "scheme": "bearer", "description": "The operators' token."},
    ),
    Kind.TOKEN: (
        "joinToken",
        {"type": "http", "scheme": "bearer", "description": "Made by `hms token create`."},
    ),
    Kind.SIDECAR: (
        "svid",
        {"type": "mutualTLS", "description": "A sidecar's SVID as the client certificate."},
    ),
}

_ANY: Final = {
    "400": "The request is not HTTP as it should be.",
    "429": "More requests than one caller may make; `Retry-After` says when to try again.",
    "500": "The control plane failed; its log says why.",
}
_GUARDED: Final = {
    "401": "No credential, or one that is not good.",
    "403": "The caller may not do this.",
}
_WITH_BODY: Final = {
    "408": "The body came too slowly.",
    "413": "The body has more than 4 MiB.",
}
_WITH_INPUT: Final = {
    "422": "The request is not understood; `problems` says what is wrong with it."
}

_REFERENCE: Final = {"$ref": "#/components/schemas/ProblemModel"}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application of `GuardedRoute`s."""
    made = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)  # FastAPI's own, which quote the input
    for model in (ProblemModel, ConfigFiles):  # named by hand, so unknown to FastAPI
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, inner in schema.pop("$defs").items():
            schemas.setdefault(name, inner)
        schemas[model.__name__] = schema
    components["securitySchemes"] = dict(_SCHEMES.values())
    for _, _, operation in _operations(made):
        _complete(operation)
    return made


def _operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete(operation: dict[str, Any]) -> None:
    kinds = PERMISSIONS[operation["operationId"]].kinds
    public = Kind.ANYONE in kinds
    operation["security"] = (
        [] if public else [{name: []} for kind, (name, _) in _SCHEMES.items() if kind in kinds]
    )
    common = dict(_ANY)
    if not public:
        common |= _GUARDED
    if "requestBody" in operation:
        common |= _WITH_BODY
    if "requestBody" in operation or operation.get("parameters"):
        common |= _WITH_INPUT
    responses = operation["responses"]
    for status, about in common.items():
        known = responses.get(status, {})
        written = known.get("description", "")
        description = about if written in {"", "Validation Error"} else written
        responses[status] = {
            **known,
            "description": description,
            "content": {PROBLEM_JSON: {"schema": _REFERENCE}},
        }
    for status, response in responses.items():
        if status >= "400" and "content" not in response:
            response["content"] = {PROBLEM_JSON: {"schema": _REFERENCE}}
    operation["responses"] = dict(sorted(responses.items()))


def page(made: dict[str, Any]) -> str:
    """The document for people: each operation, who may use it, what it takes and answers."""
    rows = "".join(_section(*operation) for operation in _operations(made))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{escape(made['info']['title'])}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "code{background:#8881;padding:.1em .3em}h2{margin-top:2.5rem;border-top:1px solid #8884;"
        "padding-top:1rem;font-size:1.1rem}dt{float:left;clear:left;width:6rem}"
        "dd{margin-left:7rem}</style>"
        f"<h1>{escape(made['info']['title'])}</h1><p>{escape(made['info']['description'])}</p>"
        "<p>The same for programs: <a href=/openapi.json>/openapi.json</a>.</p>" + rows + "</html>"
    )


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    allowed = ", ".join(name for scheme in operation["security"] for name in scheme) or "anyone"
    parameters = "".join(
        f"<dt><code>{escape(found['name'])}</code></dt><dd>{escape(found.get('description', ''))}"
        f" ({found['in']})</dd>"
        for found in operation.get("parameters", ())
    )
    bodies = ", ".join(operation.get("requestBody", {}).get("content", {}))
    takes = f"<p>Takes <code>{escape(bodies)}</code>.</p>" if bodies else ""
    answers = "".join(
        f"<dt>{status}</dt><dd>{escape(response['description'])}</dd>"
        for status, response in operation["responses"].items()
    )
    about = escape(operation.get("description") or operation.get("summary", ""))
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{about}</p>"
        f"<p>For: {escape(allowed)}.</p>{takes}<dl>{parameters}</dl><dl>{answers}</dl>"
    )
