"""The hooks: documents are compiled when a configuration comes in, requests judged at the end of authorize."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.plugin_options import plugin_options
from hms_addons.errors import ConfigError, Fault, Flag
from hms_addons.hookspecs import hookimpl
from hms_plugin_openapi.api import Api, Request
from hms_plugin_openapi.document import Document, DocumentError, read_file
from hms_plugin_openapi.options import Options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh
    from hms_plugin_openapi.options import ServiceOptions

NAME: Final = "openapi"
_FLAGS: Final = {404: Flag.NR, 405: Flag.DPE}


class Apis:
    """Everything that one configuration says."""

    def __init__(self, written: Mapping[str, Any], options: Options, apis: dict[str, Api]) -> None:
        self.written = written
        self.options = options
        self.apis = apis

    def of(self, exchange: Exchange) -> Api | None:
        """What this request is checked against."""
        if self.options.direction not in {"both", exchange.direction}:
            return None
        return None if exchange.route is None else self.apis.get(exchange.route.service)


class OpenApi:
    """The plugin `openapi`."""

    def __init__(self) -> None:
        self._known: list[Apis] = []
        """Of the newest configuration that has one, and of the one before, which may come back."""
        self._read: dict[str, tuple[Any, Any, Api]] = {}
        """Compiled documents by service: what from, with which options."""
        self.counts: Counter[str] = Counter()
        """`checked` and `refused`, since the start."""

    def __repr__(self) -> str:
        return f"<OpenApi {dict(self.counts)}>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Check the options; compile the documents that are new or have changed."""
        options = plugin_options(snapshot, NAME, Options)
        if options is None:
            return
        folder = _folder(snapshot)
        apis = {name: self._compiled(name, spec, folder) for name, spec in options.services.items()}
        made = Apis(snapshot.plugins[NAME], options, apis)
        self._known = [made, *self._known][:2]

    def _compiled(self, service: str, options: ServiceOptions, folder: Path) -> Api:
        path = f"plugins.openapi.services.{service}"
        try:
            content = options.document
            if options.file is not None:
                path += ".file"
                content = read_file(folder / options.file)
            known = self._read.get(service)
            if known is not None and known[:2] == (content, options):
                return known[2]
            api = Api(Document(content), options)
        except DocumentError as error:
            raise ConfigError(f"{path}: {error}") from None
        self._read[service] = (content, options, api)
        return api

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where it is not configured."""
        return () if NAME in snapshot.plugins else ("hms_authorize",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Have status and metrics tell what was done."""
        mesh.add_status(NAME, self.status)
        mesh.add_metrics(NAME, self)

    def status(self) -> dict[str, Any]:
        """JSON-ready: operations by service, and the counts."""
        apis = self._known[0].apis if self._known else {}
        operations = {service: api.operations for service, api in apis.items()}
        return {"operations": operations, "counts": dict(self.counts)}

    def collect(self) -> Iterator[Any]:
        """For `/metrics`."""
        core = importlib.import_module("prometheus_client.core")
        for what in ("checked", "refused"):
            yield core.CounterMetricFamily(
                f"openapi_{what}", f"Requests that were {what}.", value=self.counts[what]
            )

    @hookimpl(trylast=True)
    def hms_authorize(self, exchange: Exchange) -> None:
        """Refuse a request that is not as its service's document says."""
        api = self._of(exchange)
        if api is None:
            return
        self.counts["checked"] += 1
        verdict = api.check(
            Request(
                exchange.method,
                exchange.path,
                exchange.query,
                _headers(exchange),
                None if exchange.body is not None else exchange.content or b"",
            )
        )
        if verdict is None:
            return
        self.counts["refused"] += 1
        if verdict.status == Fault.METHOD_NOT_ALLOWED.value.status:
            allow = ", ".join(verdict.allow).encode("latin-1", "replace")
            exchange.fail(Fault.METHOD_NOT_ALLOWED, verdict.detail, headers=((b"Allow", allow),))
        else:
            exchange.deny(verdict.status, _FLAGS.get(verdict.status, Flag.DPE), verdict.detail)

    def _of(self, exchange: Exchange) -> Api | None:
        """That of the configuration which the request began with."""
        written = exchange.snapshot.plugins.get(NAME)
        for known in self._known:
            if known.written is written:
                return known.of(exchange)
        for known in self._known:
            if known.written == written:
                return known.of(exchange)
        # Held while two other configurations came in: its documents may be gone. The newest judges.
        return self._known[0].of(exchange) if self._known else None


def _headers(exchange: Exchange) -> dict[str, str]:
    """The fields by lower-case name; several of one name together, as a service may read any of them."""
    found: dict[str, str] = {}
    for name, value in exchange.fields:
        key, text = name.lower().decode("latin-1"), value.decode("latin-1")
        joint = "; " if key == "cookie" else ", "
        found[key] = f"{found[key]}{joint}{text}" if key in found else text
    return found


def _folder(snapshot: Snapshot) -> Path:
    """Where the configuration is, if it is in a file; else where the sidecar runs."""
    place = snapshot.places.get(f"plugins.{NAME}") or snapshot.places.get("plugins")
    return Path.cwd() if place is None else Path(place.file).parent
