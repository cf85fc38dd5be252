"""Rewriting a path: by whole segments, as the Gateway API's ReplacePrefixMatch, or as a whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRewrite:
    """What becomes of a path. Normal paths become normal paths: no empty one, no double slash."""

    matched: str | None = None
    """The prefix that is replaced, without its trailing slash; None: the whole path is."""
    replacement: str
    """Normalised; for a prefix without its trailing slash, so that `/` is empty."""

    def apply(self, path: str) -> str:
        """`path` (which the route has matched) as it is sent; `*` has no path and stays."""
        if path == "*":
            return path
        if self.matched is None:
            return self.replacement
        return self.replacement + path[len(self.matched) :] or "/"

    def __str__(self) -> str:
        if self.matched is None:
            return self.replacement
        return f"{self.matched or '/'} becomes {self.replacement or '/'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """What a request is sent as; None stays."""

    path: PathRewrite | None = None
    host: bytes | None = None
