"""Traffic shaping as users write it, compiled onto routes: `Route.shaping`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.compile_values import compile_header_values
from hms_addons.config.header_edits import HeaderEdits, why_not_name
from hms_addons.config.local_answers import DirectResponse, Redirect
from hms_addons.config.path_rewrite import PathRewrite, Rewrite
from hms_addons.config.shaping import ClusterEdits, Fault, LimitBy, RateLimit, Shaping
from hms_addons.http_message import get_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import Config, ListenerModel
    from hms_addons.config.schema_routes import ActionModel, MatchModel, RouteModel
    from hms_addons.config.schema_shaping import (
        DirectResponseModel,
        FaultModel,
        HeaderRulesModel,
        RateLimitModel,
        RedirectModel,
        RewriteModel,
    )
    from hms_addons.http_message import Fields


def compile_shaping(listener: ListenerModel, name: str, route: RouteModel | None) -> Shaping | None:
    """What a route does to its traffic, its listener's rules included; None if that is nothing.

    Args:
        listener: where it belongs.
        name: the route's, unique within the listener.
        route: as written; None for one that nobody has written.
    """
    place = f"listener {listener.name}"
    limits = _limits(listener.rate_limit, place)
    request = _edits(listener.request_headers)
    response = _edits(listener.response_headers)
    if route is None:
        if not (limits or request or response):
            return None
        return Shaping(rate_limits=limits, request_headers=request, response_headers=response)
    action = route.action
    shaping = Shaping(
        rate_limits=_limits(action.rate_limit, f"{place}, route {name}") + limits,
        fault=None if action.fault is None else _fault(action.fault),
        rewrite=None if action.rewrite is None else _rewrite(action.rewrite, route.match),
        request_headers=_edits(action.request_headers) + (() if action.answers else request),
        response_headers=_edits(action.response_headers) + response,
        by_cluster=_by_cluster(action),
        answer=_answer(action, route.match),
    )
    return None if shaping == Shaping() else shaping


# -- limits and faults -----------------------------------------------------------------------------


def _limits(models: Sequence[RateLimitModel] | None, place: str) -> tuple[RateLimit, ...]:
    found: list[RateLimit] = []
    names: set[str] = set()
    for index, model in enumerate(models or ()):
        kind, _, header = (model.by or LimitBy.ROUTE).partition(":")
        name = model.name or _limit_name(model, kind)
        if name in names:
            name = f"{name}-{index + 1}"
        names.add(name)
        found.append(
            RateLimit(
                name=name,
                place=place,
                requests=model.requests,
                per=model.per,
                burst=model.burst or model.requests,
                by=LimitBy(kind),
                header=header.lower().encode() if header else None,
            )
        )
    return tuple(found)


def _limit_name(model: RateLimitModel, kind: str) -> str:
    return f"{model.requests}-per-{model.per:.15g}s-by-{kind}"


def _fault(model: FaultModel) -> Fault:
    shared = 100.0 if model.percent is None else model.percent
    given: dict[str, Any] = {}
    for key, item in (("delay", model.delay), ("abort", model.abort)):
        if item is not None:
            given[f"{key}_percent"] = shared if item.percent is None else item.percent
    if model.delay is not None:
        given["delay"] = model.delay.duration
    if model.abort is not None:
        given["abort"] = model.abort.status
    if model.when is not None:
        given["when"] = compile_header_values(model.when.header)
    if model.max_active is not None:
        given["max_active"] = model.max_active
    return Fault(**given)


# -- edits -----------------------------------------------------------------------------------------


def _edits(model: HeaderRulesModel | None) -> tuple[HeaderEdits, ...]:
    if model is None:
        return ()
    added = [(name, value) for name, values in (model.add or {}).items() for value in values]
    return (
        HeaderEdits(
            set=_fields((model.set or {}).items()),
            add=_fields(added),
            remove=tuple(name.encode() for name in model.remove or ()),
        ),
    )


def _fields(pairs: Any) -> Fields:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)


def _by_cluster(action: ActionModel) -> dict[str, ClusterEdits]:
    found = {}
    for item in action.clusters or ():
        request, response = _edits(item.request_headers), _edits(item.response_headers)
        if request or response:
            found[item.name] = ClusterEdits(
                request=request[0] if request else None, response=response[0] if response else None
            )
    return found


def _path(path: str | None, prefix: str | None, match: MatchModel) -> PathRewrite | None:
    if path is not None:
        return PathRewrite(replacement=path)
    if prefix is None:
        return None
    return PathRewrite(matched=(match.prefix or "").rstrip("/"), replacement=prefix.rstrip("/"))


def _rewrite(model: RewriteModel, match: MatchModel) -> Rewrite:
    return Rewrite(
        path=_path(model.path, model.prefix, match),
        host=None if model.host is None else model.host.encode(),
    )


def _answer(action: ActionModel, match: MatchModel) -> Redirect | DirectResponse | None:
    if action.redirect is not None:
        return _redirect(action.redirect, match)
    if action.direct_response is not None:
        return _direct_response(action.direct_response)
    return None


def _redirect(model: RedirectModel, match: MatchModel) -> Redirect:
    given = {key: getattr(model, key) for key in ("scheme", "host", "port")}
    return Redirect(
        status=model.status or 302, path=_path(model.path, model.prefix, match), **given
    )


def _direct_response(model: DirectResponseModel) -> DirectResponse:
    body = (model.body or "").encode()
    headers = _fields((model.headers or {}).items())
    if body and get_field(headers, b"content-type") is None:
        headers = ((b"Content-Type", b"text/plain; charset=utf-8"), *headers)
    return DirectResponse(status=model.status, body=body, headers=headers)


# -- the mesh's own headers ------------------------------------------------------------------------


def check_owned(config: Config, owned: Sequence[bytes], report: Report) -> None:
    """Refuse rules for the headers that only the mesh may set, whatever they are called here."""
    for path, model in _header_rules(config):
        for key, names in (("set", model.set), ("add", model.add), ("remove", model.remove)):
            for index, name in enumerate(names or ()):
                reason = why_not_name(name, owned)
                if reason is not None:
                    at = index if key == "remove" else name
                    report.error((*path, key, at), reason, at_key=key != "remove")
    for path, direct in _direct_responses(config):
        for name in direct.headers or ():
            reason = why_not_name(name, owned)
            if reason is not None:
                report.error((*path, "headers", name), reason, at_key=True)
    for path, limits in _all_limits(config):
        for index, limit in enumerate(limits):
            header = (limit.by or "").partition(":")[2]
            if header and why_not_name(header, owned) != why_not_name(header):
                message = (
                    f"{header} is taken from whatever comes in, so no request would have it; "
                    "limit by role, subject or caller"
                )
                report.error((*path, index, "by"), message)


def _actions(config: Config) -> Iterator[tuple[Path, ActionModel]]:
    for at, listener in enumerate(config.listeners):
        for index, route in enumerate(listener.routes):
            yield ("listeners", at, "routes", index, "action"), route.action


def _header_rules(config: Config) -> Iterator[tuple[Path, HeaderRulesModel]]:
    places: list[tuple[Path, Any]] = [
        (("listeners", at), listener) for at, listener in enumerate(config.listeners)
    ]
    for path, action in _actions(config):
        places.append((path, action))
        for index, item in enumerate(action.clusters or ()):
            places.append(((*path, "clusters", index), item))
    for path, model in places:
        for key in ("request_headers", "response_headers"):
            rules = getattr(model, key)
            if rules is not None:
                yield (*path, key), rules


def _direct_responses(config: Config) -> Iterator[tuple[Path, DirectResponseModel]]:
    for path, action in _actions(config):
        if action.direct_response is not None:
            yield (*path, "direct_response"), action.direct_response


def _all_limits(config: Config) -> Iterator[tuple[Path, Sequence[RateLimitModel]]]:
    for at, listener in enumerate(config.listeners):
        if listener.rate_limit is not None:
            yield ("listeners", at, "rate_limit"), listener.rate_limit
    for path, action in _actions(config):
        if action.rate_limit is not None:
            yield (*path, "rate_limit"), action.rate_limit
