"""Compiles what users write into the snapshot that the hot path reads.

Everything that can be decided once is decided here: defaults, addresses, which SPIFFE IDs a cluster
may have, canary shares, route tables. The result is consistent or there is none: each reference
leads somewhere, each weight sums to something, and no cluster that asks for TLS is left without.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from hms_addons.config.compile_access_log import compile_access_log
from hms_addons.config.compile_balancing import check_clusters, compile_balancing
from hms_addons.config.compile_forwarding import with_failover
from hms_addons.config.compile_health import (
    compile_health_check,
    compile_outlier_detection,
    compile_thresholds,
)
from hms_addons.config.compile_interception import (
    compile_dns,
    compile_intercept,
    original_cluster,
)
from hms_addons.config.compile_policies import (
    compile_governance,
    compile_headers,
    compile_rbac,
)
from hms_addons.config.compile_propagation import compile_propagation
from hms_addons.config.compile_routes import Traffic, compile_inbound, compile_outbound
from hms_addons.config.compile_shaping import check_owned
from hms_addons.config.compile_tracing import compile_tracing
from hms_addons.config.naming import digest, redacted
from hms_addons.config.places import places_of
from hms_addons.config.problems import listing
from hms_addons.config.schema_base import parse_address
from hms_addons.config.scope import belongs_to, overlap, scope
from hms_addons.config.snapshot import (
    Cluster,
    Direction,
    EndpointSpec,
    Limits,
    Listener,
    Secret,
    Snapshot,
    TlsMode,
    UpstreamTls,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import (
        ClusterModel,
        Config,
        EndpointModel,
        ListenerModel,
        TlsContextModel,
    )
    from hms_addons.config.yaml_marks import Document

APP_PREFIX: Final = "app:"
"""Begins the name of the cluster that an inbound listener's app becomes."""
_VERSION_SUFFIX = re.compile(r"-v[0-9]+$")
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound


OWN_CERTIFICATE: Final = "mesh_certs"
"""What the control plane's certificate is called where nothing names one."""


def compile_config(
    config: Config,
    document: Document,
    report: Report,
    *,
    source: str,
    service: str | None = None,
    control: bool = False,
) -> Snapshot:
    """The snapshot; only good for looking at if `report` holds any error.

    Args:
        config: the validated configuration.
        document: what it was read from.
        report: takes the problems; knows which file a relative path belongs to.
        source: where it came from, for people.
        service: the service this sidecar stands beside, if the command line says so.
        control: see `load`.
    """
    compiler = _Compiler(config, document, report, service or config.service, control=control)
    return compiler.compile(source)


class _Compiler:
    def __init__(
        self,
        config: Config,
        document: Document,
        report: Report,
        service: str | None,
        *,
        control: bool,
    ) -> None:
        self._config = config
        self._document = document
        self._report = report
        self._service = service
        self._control = control
        self._listeners = [
            (index, model)
            for index, model in enumerate(config.listeners)
            if belongs_to(model.services, service)
        ]

    def compile(self, source: str) -> Snapshot:
        config = self._config
        traffic = self._traffic()
        self._check_own_service()
        self._check_addresses()
        check_clusters(config.clusters, self._report)
        clusters = dict(traffic.clusters)
        listeners = []
        for index, model in self._listeners:
            if model.kind == "dns":
                continue
            app = self._app_cluster(model) or original_cluster(model)
            if app is not None:
                clusters[app.name] = app
            listeners.append(self._listener(model, ("listeners", index), traffic, app))
        headers = compile_headers(config.headers, config.governance)
        check_owned(config, headers.all, self._report)
        document = {}
        if not self._report.failed:
            document = scope(self._document.data or {}, self._service)
        return Snapshot(
            version=digest(document, self._service),
            source=source,
            service=self._service,
            trust_domain=config.trust_domain,
            zone=config.zone or "",
            listeners=tuple(listeners),
            dns=compile_dns((model for _, model in self._listeners), listeners),
            clusters=clusters,
            secrets=self._secrets(),
            governance=compile_governance(config.governance),
            rbac=compile_rbac(config.rbac, self._file),
            headers=headers,
            access_log=compile_access_log(config.access_log, self._file),
            tracing=compile_tracing(config.tracing),
            plugins=config.plugins,
            places=places_of(self._document),
            document=redacted(document),
        )

    # Clusters

    def _traffic(self) -> Traffic:
        models = self._config.clusters
        clusters = {model.name: self._cluster(model) for model in models}
        clusters = with_failover(models, clusters, self._report)
        self._check_names(clusters)
        shares = {m.name: m.trafficPolicy.weight for m in models if m.trafficPolicy is not None}
        members: dict[str, list[str]] = {}
        for name, cluster in clusters.items():
            members.setdefault(cluster.service, []).append(name)
        bases = {}
        for service, names in members.items():
            steady = [name for name in names if name not in shares]
            bases[service] = [service] if service in steady else steady
        canaries: dict[str, list[tuple[str, int]]] = {}
        for index, model in enumerate(models):
            if model.name in shares:
                service = clusters[model.name].service
                self._check_canary(index, model, service, bases[service])
                for base in bases[service]:
                    canaries.setdefault(base, []).append((model.name, shares[model.name]))
        self._check_shares(canaries)
        # A service of canaries alone is an error by now; its table must not be empty all the same.
        return Traffic(clusters, canaries, {s: found or members[s] for s, found in bases.items()})

    def _check_names(self, clusters: Mapping[str, Cluster]) -> None:
        """Host names know no case, so names must differ in more."""
        seen: dict[str, str] = {}
        for index, cluster in enumerate(clusters.values()):
            if not self._named(index):
                continue
            for name in dict.fromkeys((cluster.name, cluster.service)):
                other = seen.setdefault(name.lower(), name)
                if other != name:
                    message = f"{name!r} and {other!r} differ only in case, which hosts do not tell"
                    self._report.error(("clusters", index, "name"), message)

    def _named(self, index: int) -> bool:
        """Whether it is known what a cluster is called, and to which service it belongs."""
        keys = ("name", "service", "trafficPolicy")
        return all(self._report.known("clusters", index, key) for key in keys)

    def _check_canary(
        self, index: int, model: ClusterModel, service: str, bases: Sequence[str]
    ) -> None:
        others_known = all(map(self._named, range(len(self._config.clusters))))
        if bases or not others_known or not self._report.whole:
            return
        path: Path = ("clusters", index, "trafficPolicy")
        others = [m.name for m in self._config.clusters if m.trafficPolicy is None]
        message = (
            f"{model.name} is to get a share of the service {service}, but no other cluster belongs "
            f"to it; name the base's with `service:` (clusters: {listing(others)})"
        )
        self._report.error(path, message)

    def _check_shares(self, canaries: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        positions = {model.name: index for index, model in enumerate(self._config.clusters)}
        for base, shares in canaries.items():
            total = sum(percent for _, percent in shares)
            if not all(self._named(positions[name]) for name in (base, *(n for n, _ in shares))):
                continue
            if total > 100:  # noqa: PLR2004 - percent
                named = " + ".join(f"{name} {percent}" for name, percent in shares)
                path: Path = ("clusters", positions[shares[-1][0]], "trafficPolicy")
                message = f"the shares of {base} sum to {total}%, more than there is: {named}"
                self._report.error(path, message)

    def _cluster(self, model: ClusterModel) -> Cluster:
        service = model.service or _VERSION_SUFFIX.sub("", model.name)
        given = {
            key: value
            for key in ("connect_timeout", "idle_timeout")
            if (value := getattr(model, key)) is not None
        }
        if model.circuit_breakers is not None:
            given["thresholds"] = compile_thresholds(model.circuit_breakers)
        if model.outlier_detection is not None:
            given["outlier_detection"] = compile_outlier_detection(model.outlier_detection)
        elif "outlier_detection" in model.model_fields_set:
            given["outlier_detection"] = None
        return Cluster(
            name=model.name,
            service=service,
            endpoints=tuple(map(_endpoint, model.endpoints)),
            dns=tuple(map(_endpoint, model.dns or ())),
            tls=self._upstream_tls(model.tls_context, service, model.name),
            health_check=compile_health_check(model.health_check),
            **given,
            **compile_balancing(model),
        )

    def _upstream_tls(
        self, model: TlsContextModel | None, service: str, name: str
    ) -> UpstreamTls | None:
        if model is None:
            return None
        peers = model.peers or ([model.peer] if model.peer is not None else None)
        if peers is None:
            domain = self._config.trust_domain
            prefix = "" if domain is None else f"spiffe://{domain}/"
            peers = [f"{prefix}svc/{service}", f"{prefix}svc/{name}"]
        return UpstreamTls(secret=model.sds, peers=frozenset(peers))

    # Listeners

    def _app_cluster(self, model: ListenerModel) -> Cluster | None:
        if model.app is None:
            return None
        host, port = parse_address(model.app)
        # No outlier detection: one app is all there is, and ejecting it at its own door would turn
        # a few 500s into 503s for every caller. Their own sidecars decide that (as Istio's do).
        return Cluster(
            name=f"{APP_PREFIX}{model.name}",
            service=self._service or model.name,
            endpoints=(EndpointSpec(host=host, port=port),),
            outlier_detection=None,
        )

    def _listener(
        self, model: ListenerModel, path: Path, traffic: Traffic, app: Cluster | None
    ) -> Listener:
        """`app` is the cluster that the listener makes: its app's, or that of what it passes through."""
        direction = Direction(model.direction)
        if direction is Direction.OUTBOUND:
            routes, services = compile_outbound(model, path, traffic, self._report)
        else:
            own = self._service or model.name
            routes = compile_inbound(model, path, traffic, app, self._report, own=own)
            services = {}
        tls = TlsMode(model.tls or TlsMode.NONE)
        default_host = "127.0.0.1" if direction is Direction.OUTBOUND else "0.0.0.0"  # noqa: S104 - peers must reach it
        return Listener(
            name=model.name,
            host=model.host or default_host,
            port=model.port,
            direction=direction,
            tls=tls,
            secret=None if tls is TlsMode.NONE else self._listener_secret(model, path),
            routes=routes,
            services=services,
            limits=Limits(**({} if model.limits is None else model.limits.given())),
            propagate_identity=compile_propagation(
                model, path, self._config, self._report, control=self._control
            ),
            intercept=compile_intercept(model, routes, app),
        )

    def _listener_secret(self, model: ListenerModel, path: Path) -> str | None:
        """The secret named, or the only one there is."""
        if model.secret is not None:
            return model.secret
        config = self._config
        if self._control:
            asked = {c.tls_context.sds for c in config.clusters if c.tls_context is not None}
            provided = asked - config.secrets.keys()
            return provided.pop() if len(provided) == 1 else OWN_CERTIFICATE
        names = sorted(config.secrets)
        if len(names) == 1:
            return names[0]
        if not (
            self._report.whole
            and self._report.known("secrets")
            and self._report.known(*path, "secret")
        ):
            return None
        which = f"name one of them with `secret:` ({listing(names)})" if names else "add `secrets:`"
        message = f"tls: {model.tls} needs a certificate to show; {which}"
        self._report.error((*path, "tls"), message)
        return None

    def _check_addresses(self) -> None:
        seen: list[tuple[str, int, ListenerModel]] = []
        for index, model in self._listeners:
            keys = ("port", "host", "direction", "services")
            if not all(self._report.known("listeners", index, key) for key in keys):
                continue
            default_host = "127.0.0.1" if model.direction == "outbound" else ""
            host = model.host or default_host
            for other_host, at, other in seen:
                both = host == other_host or _ANY_ADDRESS & {host, other_host}
                if (
                    other.port == model.port != 0
                    and both
                    and overlap(other.services, model.services)
                ):
                    named = self._report.known("listeners", at, "name")
                    which = f"the listener {other.name}" if named else "another listener"
                    message = f"the port {model.port} is taken by {which}"
                    self._report.error(("listeners", index, "port"), message)
            seen.append((host, index, model))

    def _check_own_service(self) -> None:
        if self._service is not None or self._control:
            return
        if not (self._report.whole and self._report.known("service")):
            return
        for index, model in self._listeners:
            if model.services is not None:
                message = (
                    "this listener is for certain services, but which one this sidecar stands "
                    "beside is not known; add `service:` to the configuration, or --service"
                )
                self._report.error(("listeners", index, "services"), message)
        if all(model.app is None for _, model in self._listeners):
            return
        for index, policy in enumerate(self._config.rbac.policies):
            if policy.services is not None:
                message = (
                    "this policy is for certain services, but which one this sidecar stands beside "
                    "is not known, so it could not be applied; add `service:` to the configuration"
                )
                self._report.error(("rbac", "policies", index, "services"), message)

    # Files and policies

    def _file(self, path: Path, value: str) -> str:
        """`value` as an absolute path; relative ones are relative to the file that wrote them."""
        written_in = self._report.place(path).file
        return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(written_in)), value))  # noqa: PTH100, PTH118, PTH120 - a text in, a text out

    def _secrets(self) -> dict[str, Secret]:
        return {
            name: Secret(
                name=name,
                **{
                    key: self._file(("secrets", name, key), getattr(model, key))
                    for key in ("certificate", "key", "bundle")
                },
            )
            for name, model in self._config.secrets.items()
        }


def _endpoint(model: EndpointModel) -> EndpointSpec:
    host, port = parse_address(model.address)
    values = model.given()
    del values["address"]
    return EndpointSpec(host=host, port=port, **values)
