"""`admin`: the sidecar's own port, for people, probes and scripts.

Plain HTTP on the loopback interface. Readable text by default; JSON with `?format=json` or
`Accept: application/json`. It holds no keys and takes no configuration: it shows, and drains.

A browser on the same machine can be made to send requests here by any web page. So a `Host` that
is a name other than `localhost` is refused (DNS rebinding), and so is a POST from another origin.

Programs on this machine, the app in the same pod among them, are not told apart. So `/window`, which shows
and changes whole requests, is refused unless the sidecar was started with `--window`.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from hms_addons.config.schema_base import parse_duration
from hms_addons.errors import (
    ConfigError,
    Failure,
    Flag,
    MeshError,
    NotAllowedError,
    problem,
    reason_phrase,
)
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer
from hms_addons.recording_wish import RecordingWish
from hms_addons.text_table import flat, indent, table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hms_addons.hookspecs import AdminRequest, Mesh
    from hms_addons.http_message import BodyStream, Fields

logger = logging.getLogger(__name__)

_PROBES: Final = frozenset({"/live", "/ready"})
"""Asked by orchestrators under whatever name they know the sidecar by; they tell nothing."""
_READ: Final = ("GET", "HEAD")
MOST_TIMED: Final = 60.0
"""Seconds for which hooks are measured at most."""
_NO_STORE: Final = (b"Cache-Control", b"no-store")


class _Page(NamedTuple):
    """What an endpoint shows: `data` to machines, `text` to people."""

    data: Any
    text: str
    status: int = 200


class _Scrape(NamedTuple):
    """What an endpoint shows to a program that has asked for a format of its own."""

    content_type: str
    body: bytes


class _Recording(NamedTuple):
    """A flow file, as it comes to be."""

    body: BodyStream


class _Endpoint(NamedTuple):
    """One path of the admin port."""

    show: Callable[[Mesh, AdminRequest], _Page | Awaitable[_Page | _Scrape | _Recording]]
    about: str
    methods: tuple[str, ...] = _READ
    local: bool = False
    """Only for this machine: what it shows is more than states and counts."""


class _Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A request that is not served."""

    def __init__(self, status: int, title: str, detail: str, headers: Fields = ()) -> None:
        super().__init__(detail)
        self.failure = Failure(status, Flag.DPE, title, detail, headers=headers)


class Admin:
    """The built-in plugin `admin`.

    Args:
        host: address to listen on.
        port: 0 picks a free one; None leaves the admin port closed.
    """

    def __init__(self, host: str = "127.0.0.1", port: int | None = 15000) -> None:
        self._host = host
        self._port = port
        self._mesh: Mesh | None = None
        self.address: tuple[str, int] | None = None
        """Where it listens, once started."""

    def __repr__(self) -> str:
        return f"<Admin {self.url or 'closed'}>"

    @property
    def url(self) -> str | None:
        """Where to look, None while it is closed."""
        if self.address is None:
            return None
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @hookimpl
    async def hms_open(self, mesh: Mesh) -> None:
        """Open the port, before there is a configuration. One that is taken ends the start of the sidecar."""
        if self._port is None:
            return
        self._mesh = mesh
        self.address = await mesh.serve(self._host, self._port, self.handle)
        logger.info("admin on %s", self.url)
        if not _is_loopback(self.address[0]):
            logger.warning(
                "the admin port is open beyond this machine, on %s: whoever reaches it can read "
                "the configuration and drain the sidecar",
                self.url,
            )

    async def handle(self, request: AdminRequest) -> Answer:
        """Answer one request."""
        as_json = _wants_json(request)
        try:
            shown = self._page(request)
            page = shown if isinstance(shown, _Page) else await shown
        except _Refused as refused:
            return _refusal(refused.failure, as_json=as_json)
        if isinstance(page, _Scrape):
            fields = ((b"Content-Type", page.content_type.encode()), _NO_STORE)
            return _answer(request, 200, fields, page.body)
        if isinstance(page, _Recording):
            fields = ((b"Content-Type", b"application/octet-stream"), _NO_STORE)
            return Answer(200, b"OK", fields, page.body, local=True)
        if as_json:
            body, kind = json.dumps(page.data, indent=2, ensure_ascii=False), "application/json"
        else:
            body, kind = page.text, "text/plain; charset=utf-8"
        fields = ((b"Content-Type", kind.encode()), _NO_STORE)
        return _answer(request, page.status, fields, body.rstrip("\n").encode() + b"\n")

    def _page(self, request: AdminRequest) -> _Page | Awaitable[_Page | _Scrape | _Recording]:
        mesh = self._mesh
        if mesh is None:
            raise _Refused(503, "Not started", "the sidecar has not started yet")
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None:
            known = ", ".join(_ENDPOINTS)
            raise _Refused(404, "Not found", f"there is no {request.path}; there are {known}")
        self._check_origin(request)
        if request.method not in endpoint.methods:
            allowed = ", ".join(endpoint.methods)
            raise _Refused(
                405,
                "Method not allowed",
                f"{request.path} ({endpoint.about}) takes {allowed}, not {request.method}; "
                f"as in: curl -X {endpoint.methods[0]} {self.url}{request.path}",
                ((b"Allow", allowed.encode()),),
            )
        if endpoint.local and not self._only_local:
            raise _Refused(
                403,
                "Only for this machine",
                f"{request.path} shows whole requests, and this admin port is open beyond its machine",
            )
        return endpoint.show(mesh, request)

    def _check_origin(self, request: AdminRequest) -> None:
        """Let no web page use a browser to read or to act here."""
        host = request.headers.get("host", "")
        reading = request.method in _READ
        if reading and (request.path in _PROBES or not self._only_local):
            return
        if not self._is_own(host):
            raise _Refused(
                403,
                "Host refused",
                f"the Host header is {host[:100]!r}: a browser may have been led here by another "
                f"site (DNS rebinding); use {self.url}",
            )
        origin = request.headers.get("origin")
        if not reading and origin is not None and not _is_page_of(origin, host):
            raise _Refused(
                403,
                "Origin refused",
                f"a page of {origin[:100]!r} may not do this; use curl, or the admin port itself",
            )

    @property
    def _only_local(self) -> bool:
        return self.address is not None and _is_loopback(self.address[0])

    def _is_own(self, host: str) -> bool:
        """Whether `host` cannot be a foreign site's name: none, an address, `localhost`, or ours."""
        if not host:
            return True  # HTTP/1.0 without it, which no browser speaks
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name == self._host.lower():
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_page_of(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from `host`. An origin that nobody can read came from elsewhere."""
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


# -- the endpoints ------------------------------------------------------------------------------


def _index(mesh: Mesh, request: AdminRequest) -> _Page:
    del mesh, request
    data = {
        path: {"about": endpoint.about, "methods": list(endpoint.methods)}
        for path, endpoint in _ENDPOINTS.items()
    }
    rows = [
        {"": f"{endpoint.methods[0]:<5}{path}", " ": endpoint.about}
        for path, endpoint in _ENDPOINTS.items()
    ]
    text = f"hms sidecar\n{table(rows)}\n\nJSON: ?format=json, or Accept: application/json"
    return _Page(data, text)


def _live(mesh: Mesh, request: AdminRequest) -> _Page:
    del mesh, request
    return _Page({"live": True}, "live")


def _ready(mesh: Mesh, request: AdminRequest) -> _Page:
    del request
    reason = mesh.not_ready
    if reason is None:
        return _Page({"ready": True, "reason": None}, "ready")
    return _Page({"ready": False, "reason": reason}, f"not ready: {reason}", 503)


def _config(mesh: Mesh, request: AdminRequest) -> _Page:
    del request
    import yaml  # noqa: PLC0415 - seldom asked for

    snapshot = mesh.snapshot
    data = {**mesh.status(), "document": dict(snapshot.document) if snapshot is not None else None}
    if snapshot is None:
        lines, later = ["# no configuration yet"], "what came was refused at"
    else:
        lines = [f"# version {snapshot.version}, from {snapshot.source}"]
        later = "this one goes on, as a later change was refused at"
    lines.extend(_control_lines(data.get("control")))
    for provider in data.get("rbac", {}).get("providers", ()):
        told = str(provider["problem"] or "").splitlines()
        lines.extend(f"# tokens: {line}" for line in told)
    rejected = data.get("rejected")
    if rejected:
        lines.append(f"# {later} {rejected['at']}:")
        lines.extend(f"#   {line}" for line in str(rejected["reason"]).splitlines())
    if snapshot is not None:
        lines.append(yaml.safe_dump(data["document"], sort_keys=False, allow_unicode=True))
    return _Page(data, "\n".join(lines))


def _control_lines(control: dict[str, Any] | None) -> list[str]:
    """Whether the sidecar is in step with its control plane, if it has one."""
    if control is None:
        return []
    lines = []
    if control["in_sync"]:
        lines.append(f"# in sync with {control['address']}")
    if control["problem"]:
        lines.append(f"# out of touch with {control['address']}: {control['problem']}")
    if control["refused"]:
        lines.append(
            f"# version {control['refused']['version']} of {control['address']} is refused"
        )
    return lines


def _clusters(mesh: Mesh, request: AdminRequest) -> _Page:
    del request
    clusters = mesh.clusters()
    parts = []
    for cluster in clusters:
        apart = {"name", "endpoints", "routes"}
        rest = {key: value for key, value in cluster.items() if key not in apart}
        parts.append(f"{cluster['name']}: {flat(rest)}")
        endpoints = cluster.get("endpoints", [])
        parts.append(indent(table(endpoints)) if endpoints else "  no endpoints")
        parts.extend(f"  {flat(route)}" for route in cluster.get("routes", []))
    return _Page(clusters, "\n".join(parts) or "no clusters")


def _certs(mesh: Mesh, request: AdminRequest) -> _Page:
    del request
    certificates = mesh.certificates()
    return _Page(certificates, table(certificates) or "no certificates")


def _plugins(mesh: Mesh, request: AdminRequest) -> _Page | Awaitable[_Page]:
    wanted = request.query.get("time")
    return _plugin_page(mesh) if wanted is None else _timed_plugins(mesh, wanted)


async def _timed_plugins(mesh: Mesh, wanted: str) -> _Page:
    try:
        seconds = parse_duration(wanted)
    except PydanticCustomError as error:
        raise _Refused(400, "Bad request", f"time: {error.message()}") from None
    if not 0 < seconds <= MOST_TIMED:
        raise _Refused(400, "Bad request", f"time: more than 0, and at most {MOST_TIMED:g}s")
    try:
        times = await mesh.time_hooks(seconds)
    except MeshError as error:
        raise _Refused(409, "Not now", str(error)) from None
    page = _plugin_page(mesh)
    text = f"{page.text}\n\nhooks, in {seconds:g}s:\n{table(times) or 'none'}"
    return _Page(page.data | {"seconds": seconds, "times": times}, text)


def _plugin_page(mesh: Mesh) -> _Page:
    status = mesh.status()
    data = {"plugins": status.get("plugins", []), "errors": status.get("plugin_errors", [])}
    text = table(data["plugins"]) or "no plugins"
    if data["errors"]:
        text += f"\n\nerrors since the start:\n{table(data['errors'])}"
    return _Page(data, text)


async def _metrics(mesh: Mesh, request: AdminRequest) -> _Scrape:
    return _Scrape(*await mesh.metrics(request.headers.get("accept", "")))


def _record(mesh: Mesh, request: AdminRequest) -> _Page | Awaitable[_Recording]:
    if request.method == "POST":
        return _recording(mesh, request)
    state = mesh.recording()
    last = "nothing yet" if state["last"] is None else flat(state["last"])
    how = "somebody records" if state["recording"] else "nobody records"
    return _Page(state, f"{how}; {last}")


async def _recording(mesh: Mesh, request: AdminRequest) -> _Recording:
    try:
        wish = RecordingWish.of(request.query)
    except ConfigError as error:
        raise _Refused(400, "Bad request", str(error)) from None
    try:
        return _Recording(await mesh.record(wish))
    except MeshError as error:
        raise _Refused(409, "Not now", str(error)) from None


def _explain(mesh: Mesh, request: AdminRequest) -> _Page:
    from hms_addons.config.explain_text import to_text  # noqa: PLC0415 - seldom asked for

    line = request.query.get("request")
    if not line:
        raise _Refused(
            400,
            "Bad request",
            "say which request, as in /explain?request=GET+http://auth-svc.svc/verify-id, with "
            "&header=Name:+value for each header",
        )
    headers = []
    # The engine's requests also have every repetition of a parameter.
    pairs = getattr(request, "query_list", None) or request.query.items()
    for key, value in pairs:
        if key == "header":
            name, colon, content = value.partition(":")
            if not colon or not name.strip():
                raise _Refused(400, "Bad request", f"{value[:100]!r} is no 'Name: value'")
            headers.append((name.strip(), content.strip()))
    try:
        found = mesh.explain(line, headers)
    except MeshError as error:
        raise _Refused(400, "Cannot be explained", str(error)) from error
    return _Page(found, to_text(found))


async def _window(mesh: Mesh, request: AdminRequest) -> _Page:
    wanted = request.query.get("open", "yes")
    if wanted == "no":
        closed = await mesh.close_window()
        text = "the window is closed" if closed else "no window was open"
        return _Page({"closed": closed}, text)
    if wanted != "yes":
        raise _Refused(400, "Bad request", "open: yes or no")
    try:
        url = await mesh.open_window()
    except NotAllowedError as error:
        raise _Refused(403, "Window not allowed", str(error)) from None
    except MeshError as error:
        raise _Refused(409, "Not now", str(error)) from None
    return _Page({"url": url}, url)


def _drain(mesh: Mesh, request: AdminRequest) -> _Page:
    del request
    already = mesh.draining
    mesh.drain()
    text = "already draining" if already else "draining: no new connections; it exits when done"
    return _Page({"draining": True}, text, 202)


def _quit(mesh: Mesh, request: AdminRequest) -> _Page:
    del request
    mesh.quit()
    return _Page({"quitting": True}, "quitting: what was in flight is cut off", 202)


_ENDPOINTS: Final[dict[str, _Endpoint]] = {
    "/": _Endpoint(_index, "this list"),
    "/live": _Endpoint(_live, "200 as soon as the sidecar runs"),
    "/ready": _Endpoint(_ready, "200 while requests may be sent to it, else 503 and why not"),
    "/config": _Endpoint(_config, "the configuration in force, and the last refused change"),
    "/clusters": _Endpoint(_clusters, "clusters and endpoints, as they are now"),
    "/certs": _Endpoint(_certs, "certificates and how long they are good for"),
    "/plugins": _Endpoint(
        _plugins, "plugins in the order in which their hooks run; with ?time=5s what those take"
    ),
    "/metrics": _Endpoint(_metrics, "what has been counted, for Prometheus"),
    "/explain": _Endpoint(
        _explain, "what would happen to ?request=GET+http://…&header=Name:+value"
    ),
    "/record": _Endpoint(
        _record,
        "POST ?for=30s: requests as a mitmproxy flow file, without secrets; GET: how the last one went",
        ("POST", *_READ),
        local=True,
    ),
    "/window": _Endpoint(
        _window,
        "open mitmweb on this sidecar (started with --window), and tell where; with ?open=no close it",
        ("POST",),
        local=True,
    ),
    "/drain": _Endpoint(_drain, "finish what is in flight, take nothing new, then exit", ("POST",)),
    "/quit": _Endpoint(_quit, "exit at once; what is in flight is cut off", ("POST",)),
}


# -- forms --------------------------------------------------------------------------------------


def _wants_json(request: AdminRequest) -> bool:
    chosen = request.query.get("format")
    if chosen is not None:
        return chosen == "json"
    return "application/json" in request.headers.get("accept", "")


def _answer(request: AdminRequest, status: int, fields: Fields, body: bytes) -> Answer:
    sent = b"" if request.method == "HEAD" else body
    return Answer(status, reason_phrase(status), fields, sent, length=len(body), local=True)


def _refusal(failure: Failure, *, as_json: bool) -> Answer:
    reason, fields, body = problem(failure, "")
    if not as_json:
        kind = (b"Content-Type", b"text/plain; charset=utf-8")
        fields, body = (kind, *failure.headers), f"{failure.title}: {failure.detail}\n".encode()
    return Answer(failure.status, reason, (*fields, _NO_STORE), body, local=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
