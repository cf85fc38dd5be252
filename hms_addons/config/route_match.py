"""The conditions of one route, and whether a request meets them.

Plain values, compiled once per snapshot. `RouteTable` decides path and host by look-up where it can
and asks `RouteMatch.rest_matches` for what is left; `why_not` is the same decision, put into words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueMatch:
    """A condition on one header field or one query parameter. Exactly one kind is set."""

    name: str
    """A field name in lower case, or a parameter's name as it is."""
    exact: str | None = None
    regex: re.Pattern[str] | None = None
    present: bool | None = None
    """True: it must be there, whatever its value. False: it must not."""

    def accepts(self, values: Sequence[str]) -> bool:
        """Whether any of `values` (empty: it is absent) is what is asked for."""
        if self.present is not None:
            return bool(values) is self.present
        if self.exact is not None:
            return self.exact in values
        return self.regex is not None and any(self.regex.fullmatch(value) for value in values)

    def __str__(self) -> str:
        if self.present is not None:
            return f"{self.name} {'present' if self.present else 'absent'}"
        if self.exact is not None:
            return f"{self.name} = {self.exact!r}"
        return f"{self.name} ~ {self.regex.pattern if self.regex else ''!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """Every condition of one route; all must hold. None and empty mean any.

    At most one of `exact`, `prefix` and `regex` is set. `prefix` is by whole segments and without
    its trailing slash (SEMANTICS, Routing; the Gateway API's PathPrefix); a prefix `/` is None.
    """

    exact: str | None = None
    prefix: str | None = None
    regex: re.Pattern[str] | None = None
    hosts: tuple[str, ...] = ()
    """In lower case, without port: `api.example.org`, or `*.example.org` for all below it."""
    methods: frozenset[str] = frozenset()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()

    exact_hosts: tuple[str, ...] | None = field(init=False, repr=False, compare=False)
    """The hosts, if they can be looked up: there are some and none is a wildcard."""
    has_rest: bool = field(init=False, repr=False, compare=False)
    """Whether anything is left to ask once path and exact hosts were looked up."""

    def __post_init__(self) -> None:
        """Decide once what every request would ask."""
        wildcard = any(host.startswith("*") for host in self.hosts)
        rest = self.regex or wildcard or self.methods or self.headers or self.query
        object.__setattr__(self, "exact_hosts", self.hosts if self.hosts and not wildcard else None)
        object.__setattr__(self, "has_rest", bool(rest))

    def path_matches(self, path: str) -> bool:
        """Whether the normalised `path` is one of this route's."""
        if self.exact is not None:
            return path == self.exact
        if self.prefix is not None:
            return path == self.prefix or path.startswith(self.prefix + "/")
        return self.regex is None or self.regex.fullmatch(path) is not None

    def host_matches(self, host: str) -> bool:
        """Whether `host` (lower case, no port) is one of this route's."""
        return not self.hosts or any(covers_host(pattern, host) for pattern in self.hosts)

    def rest_matches(self, path: str, query: str, method: str, head: Mapping[bytes, bytes]) -> bool:
        """Whether all holds that a look-up by path and exact host does not tell."""
        if self.methods and method not in self.methods:
            return False
        if self.regex is not None and self.regex.fullmatch(path) is None:
            return False
        if self.hosts and self.exact_hosts is None and not self.host_matches(host_of(head)):
            return False
        for condition in self.headers:
            if not condition.accepts(_field_values(head, condition.name)):
                return False
        return not self.query or self._query_matches(query)

    def matches(self, path: str, query: str, method: str, head: Mapping[bytes, bytes]) -> bool:
        """Whether a request meets every condition; the plain, unindexed decision."""
        return (
            self.path_matches(path)
            and self.host_matches(host_of(head))
            and self.rest_matches(path, query, method, head)
        )

    def _query_matches(self, query: str) -> bool:
        values = parse_query(query)
        return all(condition.accepts(values.get(condition.name, ())) for condition in self.query)

    def why_not(
        self, path: str, query: str, method: str, head: Mapping[bytes, bytes]
    ) -> str | None:
        """The first condition that fails, in words; None when the request meets them all."""
        if not self.path_matches(path):
            return f"the path {path} is not {self.describe_path()}{self._near_miss(path)}"
        host = host_of(head)
        if not self.host_matches(host):
            shown = host or "(none)"
            return f"the host {shown} is not {' or '.join(self.hosts)}"
        if self.methods and method not in self.methods:
            return f"the method {method} is not {' or '.join(sorted(self.methods))}"
        for condition in self.headers:
            found = _field_values(head, condition.name)
            if not condition.accepts(found):
                return f"needs the header {condition}; {_found(found)}"
        parameters = parse_query(query)
        for condition in self.query:
            values = parameters.get(condition.name, [])
            if not condition.accepts(values):
                return f"needs the query parameter {condition}; {_found(values)}"
        return None

    def _near_miss(self, path: str) -> str:
        if self.prefix is not None and path.startswith(self.prefix):
            return " (a prefix matches whole segments only)"
        if self.exact is not None and path.rstrip("/") == self.exact.rstrip("/"):
            return " (they differ in the slash at the end)"
        return ""

    def describe_path(self) -> str:
        """The path condition in words."""
        if self.exact is not None:
            return f"exactly {self.exact}"
        if self.prefix is not None:
            return f"{self.prefix} or below it"
        return "any path" if self.regex is None else f"matched by the regex {self.regex.pattern}"


def covers_host(pattern: str, host: str) -> bool:
    """Whether `host` is `pattern`, or below the domain of a `*.domain` pattern."""
    if pattern.startswith("*"):
        return pattern == "*" or (host.endswith(pattern[1:]) and len(host) > len(pattern) - 1)
    return host == pattern


def host_of(head: Mapping[bytes, bytes]) -> str:
    """The request's host in lower case and without port; empty when it has none."""
    raw = head.get(b"host")
    if raw is None:
        return ""
    host = raw.decode("latin-1").lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


def parse_query(query: str) -> dict[str, list[str]]:
    """Every parameter's decoded values, in order. Never fails: what is no pair has an empty value."""
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        values.setdefault(name, []).append(value)
    return values


def _field_values(head: Mapping[bytes, bytes], name: str) -> tuple[str, ...]:
    value = head.get(name.encode("latin-1"))
    return () if value is None else (value.decode("latin-1"),)


def _found(values: Sequence[str]) -> str:
    return f"it is {' and '.join(map(repr, values))}" if values else "it is absent"
