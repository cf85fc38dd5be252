"""What the sample services share: the command line, JSON in and out, and a server."""

from __future__ import annotations

import argparse
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests
    from flask.typing import ResponseReturnValue

MAX_BODY = 64 * 1024
"""Bytes of a request body."""
PATIENCE = 20.0
"""Seconds that a service waits for another's answer."""
_SECRETS = {"authorization", "cookie"}
_CARRIED_ON = ("X-Request-ID", "traceparent", "tracestate")


def make_app(module: str, name: str) -> Flask:
    """A Flask app that answers in JSON; `name` is what it calls itself until `run` says otherwise."""
    app = Flask(module)
    app.config["NAME"] = name
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.compact = False  # type: ignore[attr-defined]  # people read it
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_error_handler(HTTPException, _problem)
    app.add_url_rule("/healthz", view_func=_health)
    return app


def _health() -> ResponseReturnValue:
    return {"name": my_name(), "pid": os.getpid()}


def _problem(error: Exception) -> ResponseReturnValue:
    status = getattr(error, "code", None) or HTTPStatus.INTERNAL_SERVER_ERROR
    return {"error": getattr(error, "description", ""), "by": my_name()}, status


def my_name() -> str:
    """What this instance calls itself."""
    name: str = current_app.config["NAME"]
    return name


def json_object() -> dict[str, Any]:
    """The request's body, a JSON object whatever it calls itself; anything else is answered with 400."""
    found = request.get_json(force=True, silent=True)
    if not isinstance(found, dict):
        raise BadBody
    return found


class BadBody(HTTPException):
    """The body is no JSON object."""

    code = HTTPStatus.BAD_REQUEST
    description = "send a JSON object"


def seen_headers() -> dict[str, str]:
    """The header fields of the request being answered, as they arrived, less what is secret."""
    return {name: text for name, text in request.headers.items() if name.lower() not in _SECRETS}


def same_request() -> dict[str, str]:
    """What a call that is made for this request carries on, so that logs and traces show them together."""
    return {name: request.headers[name] for name in _CARRIED_ON if name in request.headers}


def answer_of(response: requests.Response) -> dict[str, Any]:
    """What another service has said, as a JSON object; empty when it is none."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def hop(name: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """What one service on a request's way saw of it."""
    return {"at": name, "headers": headers}


def my_hop() -> dict[str, Any]:
    """What this service sees of the request."""
    return hop(my_name(), seen_headers())


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: programs ask all the time."""


def server(
    app: Flask, port: int, host: str = "127.0.0.1", *, quiet: bool = False
) -> BaseWSGIServer:
    """A server that answers with `app`, a thread a request; port 0 picks a free one."""
    handler = _Quiet if quiet else WSGIRequestHandler
    return make_server(host, port, app, threaded=True, request_handler=handler)


def run(app: Flask, about: str | None, environ: Mapping[str, str], *, quiet: bool = False) -> None:
    """Read the command line, then answer requests until a signal ends the process.

    Args:
        app: made by `make_app`.
        about: for `--help`.
        environ: where `PORT` is, unless `--port` is given.
        quiet: requests are not logged.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--port", type=int, default=environ.get("PORT"), help="port to listen on (default: $PORT)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--name", default=app.config["NAME"], help="what it calls itself")
    arguments = parser.parse_args()
    if arguments.port is None:
        parser.error("say where to listen: --port, or the variable PORT")
    app.config["NAME"] = arguments.name
    made = server(app, arguments.port, arguments.host, quiet=quiet)
    print(f"{arguments.name} serves on {arguments.host}:{made.server_port}", flush=True)
    made.serve_forever()
