"""Warnings: what works, but was hardly meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hms_addons.config.compile_balancing import warn_of_keyless
from hms_addons.config.compile_propagation import is_loopback
from hms_addons.config.compile_routes import UNKNOWN_SERVICE
from hms_addons.config.lint_health import lint_health
from hms_addons.config.lint_policies import lint_policies
from hms_addons.config.lint_shaping import lint_limits
from hms_addons.config.lint_tokens import lint_key_files, lint_tokens
from hms_addons.config.part import ANY
from hms_addons.config.problems import closest
from hms_addons.config.snapshot import Direction, TlsMode
from hms_addons.line_log import STDOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hms_addons.config.problems import Path as KeyPath
    from hms_addons.config.problems import Report
    from hms_addons.config.route_match import RouteMatch, ValueMatch
    from hms_addons.config.schema import Config
    from hms_addons.config.snapshot import Listener, Route, Snapshot


def lint(
    config: Config,
    snapshot: Snapshot,
    report: Report,
    *,
    control: bool = False,
    files: bool | None = None,
) -> None:
    """Add a warning to `report` for everything in `snapshot` that was hardly meant.

    With `control` a control plane adds what is not here: listeners, endpoints, certificates. With
    `files` somebody else looks at the secrets' files; with False nobody does, as they are elsewhere.
    """
    if control and config.secrets and snapshot.service is None:
        message = "left out of what sidecars get: the control plane provides their certificates"
        report.warning(("secrets",), message, at_key=True)
    if not config.listeners and not control and report.whole and report.known("listeners"):
        report.warning((), "there are no listeners: this sidecar would take no requests")
    positions = {model.name: index for index, model in enumerate(config.listeners)}
    for listener in snapshot.listeners:
        _unreachable_routes(listener, ("listeners", positions[listener.name]), report)
    _listeners(config, report)
    lint_tokens(config, report, control=control)
    _routes(config, report)
    _clusters(config, report, control=control)
    warn_of_keyless(config, snapshot.clusters, report)
    lint_health(config, report, control=control)
    lint_policies(config, snapshot, report)
    lint_limits(config, report)
    if files is not False and (not control or snapshot.service is not None):
        _files(snapshot, report, secrets=not files)
        lint_key_files(snapshot, report)


# Routes that an earlier one hides


def _unreachable_routes(listener: Listener, path: KeyPath, report: Report) -> None:
    """Routes are filed by path and host, so that 5,000 of them are not compared pair by pair."""
    filed: dict[tuple[str, str | None], list[tuple[RouteMatch, Route]]] = {}
    for index, (match, route) in enumerate(listener.routes.entries):
        if route.default or not report.known(*path, "routes", index, "match"):
            continue
        hidden_by = _hiding(match, filed)
        if hidden_by is not None:
            here: KeyPath = (*path, "routes", index)
            what = f"the earlier route {hidden_by.name} matches all that this one could"
            if route.answers or hidden_by.answers:  # which are in the tables of all services
                report.warning(here, f"never reached: {what}")
            elif route.service == UNKNOWN_SERVICE and listener.direction is Direction.OUTBOUND:
                report.warning(here, f"reached only by naming its service, if at all: {what}")
            elif listener.direction is Direction.OUTBOUND and hidden_by.service != route.service:
                report.warning(here, f"reached only by naming {route.service}.svc: {what}")
            else:
                report.warning(here, f"never reached: {what}")
        key = _path_key(match)
        for host in match.hosts or (None,):
            filed.setdefault((key, host), []).append((match, route))


def _hiding(
    match: RouteMatch, filed: dict[tuple[str, str | None], list[tuple[RouteMatch, Route]]]
) -> Route | None:
    for key in _covering_paths(match):
        for host in _covering_hosts(match):
            for earlier, route in filed.get((key, host), ()):
                if _covers(earlier, match):
                    return route
    return None


def _path_key(match: RouteMatch) -> str:
    if match.exact is not None:
        return f"={match.exact}"
    if match.prefix is not None:
        return match.prefix
    return "" if match.regex is None else f"~{match.regex.pattern}"


def _covering_paths(match: RouteMatch) -> Iterator[str]:
    """Keys of the path conditions that hold wherever `match`'s does."""
    yield ""
    if match.regex is not None:
        yield _path_key(match)
        return
    if match.exact is not None:
        yield _path_key(match)
    whole = match.exact or match.prefix or ""
    end = whole.find("/", 1)
    while end > 0:
        yield whole[:end]
        end = whole.find("/", end + 1)
    yield whole


def _covering_hosts(match: RouteMatch) -> Iterator[str | None]:
    """Host conditions of which one must be there if every host of `match` is covered."""
    yield None
    if match.hosts:
        first = match.hosts[0]
        yield first
        rest = first.removeprefix("*.")
        while "." in rest:
            rest = rest.partition(".")[2]
            yield f"*.{rest}"


def _covers(earlier: RouteMatch, later: RouteMatch) -> bool:
    """Whether `earlier` holds wherever `later` does, given that its path does."""
    if earlier.hosts and not (
        later.hosts and all(_host_covered(earlier, host) for host in later.hosts)
    ):
        return False
    if earlier.methods and not (later.methods and later.methods <= earlier.methods):
        return False
    return all(_implied(one, later.headers) for one in earlier.headers) and all(
        _implied(one, later.query) for one in earlier.query
    )


def _host_covered(earlier: RouteMatch, host: str) -> bool:
    if host in earlier.hosts:
        return True
    return earlier.host_matches(host if not host.startswith("*.") else f"x{host[1:]}")


def _implied(wanted: ValueMatch, given: tuple[ValueMatch, ...]) -> bool:
    """Whether one of the conditions `given` makes `wanted` hold."""
    for condition in given:
        if condition.name != wanted.name:
            continue
        if condition == wanted:
            return True
        if wanted.present is True and condition.present is None:
            return True
        if wanted.regex and condition.exact is not None and wanted.accepts([condition.exact]):
            return True
    return False


# Sections


def _listeners(config: Config, report: Report) -> None:
    tls = any(cluster.tls_context for cluster in config.clusters) or bool(config.secrets)
    for index, listener in enumerate(config.listeners):
        path: KeyPath = ("listeners", index)
        plain = listener.tls in {None, TlsMode.NONE} and not is_loopback(listener.host)
        plain = plain and report.whole
        known = report.known(*path, "tls") and report.known(*path, "direction")
        if listener.direction == "inbound" and tls and plain and known:
            message = (
                "takes plain text from anyone, though the mesh has certificates; add tls: strict"
            )
            report.warning((*path, "name"), message)


def _routes(config: Config, report: Report) -> None:
    for at, listener in enumerate(config.listeners):
        for index, route in enumerate(listener.routes):
            path: KeyPath = ("listeners", at, "routes", index, "action")
            for number, item in enumerate(route.action.clusters or ()):
                if item.weight == 0:
                    here: KeyPath = (*path, "clusters", number, "weight")
                    name = item.name if report.known(*path, "clusters", number, "name") else "this"
                    report.warning(here, f"weight 0: {name} gets nothing from this route")
            retries, timeout = route.action.retries, route.action.timeout
            per_try = None if retries is None else retries.per_try_timeout
            if per_try is not None and timeout and per_try >= timeout:
                here = (*path, "retries", "per_try_timeout")
                message = f"not shorter than the route's timeout of {timeout:g}s, which includes it"
                report.warning(here, message)


def _clusters(config: Config, report: Report, *, control: bool) -> None:
    routed = {
        name
        for listener in config.listeners
        for route in listener.routes
        for name in (route.action.cluster, *(item.name for item in route.action.clusters or ()))
    }
    if report.part is not None:
        routed |= report.part.named
    names = [cluster.name for cluster in config.clusters]
    misspelt = {closest(name, names) for name in routed if name and name not in names}
    routes: KeyPath = ("listeners", ANY, "routes", ANY, "action")
    routes_known = report.whole and all(report.known(*routes, k) for k in ("cluster", "clusters"))
    outbound = any(listener.direction == "outbound" for listener in config.listeners)
    tls = any(cluster.tls_context for cluster in config.clusters)
    for index, cluster in enumerate(config.clusters):
        path: KeyPath = ("clusters", index)
        name = cluster.name if report.known(*path, "name") else "this cluster"
        canary = cluster.trafficPolicy
        if canary is not None and canary.weight == 0:
            message = f"weight 0: {name} gets nothing but what names it"
            report.warning((*path, "trafficPolicy"), message)
        unused = routes_known and cluster.name not in routed and cluster.name not in misspelt
        named = all(report.known(*path, key) for key in ("name", "trafficPolicy"))
        if unused and named and canary is None and not control:
            but = f" but requests that name {name}.svc" if outbound else ""
            report.warning((*path, "name"), f"unused: no route leads to {name}, nothing{but}")
        keys = ("endpoints", "dns", "failover")
        there = report.whole and all(report.known(*path, key) for key in keys)
        alone = not cluster.endpoints and not cluster.dns and cluster.failover is None
        if alone and not control and there:
            message = f"{name} has no endpoints: requests to it are answered with 503"
            report.warning((*path, "name"), f"{message}; add `endpoints:` or `dns:`")
        if (
            tls
            and cluster.tls_context is None
            and report.whole
            and report.known(*path, "tls_context")
        ):
            message = f"{name} is called in plain text, though others have TLS"
            report.warning((*path, "name"), f"{message}; add `tls_context:`")


def _files(snapshot: Snapshot, report: Report, *, secrets: bool) -> None:
    """Files that are named but not there; they may yet be mounted or issued, so it is no error."""
    for name, secret in snapshot.secrets.items() if secrets else ():
        for key in ("certificate", "key", "bundle"):
            _file(getattr(secret, key), ("secrets", name, key), report)
    for index, provider in enumerate(snapshot.rbac.providers):
        for key in ("public_key_file", "jwks_file", "jwks_ca_file"):
            if (named := getattr(provider, key)) is not None:
                _file(named, ("rbac", "providers", index, key), report)

    for log, path in (
        (snapshot.rbac.audit_log, ("rbac", "audit_log", "path")),
        (snapshot.access_log, ("access_log", "path")),
    ):
        if log is not None and log.path != STDOUT and not Path(log.path).parent.is_dir():
            report.warning(path, f"there is no folder {Path(log.path).parent}")


def _file(named: str, path: KeyPath, report: Report) -> None:
    if not Path(named).exists() and report.known(*path):
        report.warning(path, f"there is no file {named}")
