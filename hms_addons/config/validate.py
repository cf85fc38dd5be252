"""Checks a merged document: every fault at once, each in words a person can act on.

Two passes over the same data. The models say whether each value is what its key asks for; the
references (which route names which cluster, which cluster names which secret) are checked on the
plain data, so that a misspelt key here does not hide a misspelt name there.
"""

from __future__ import annotations

import re
import types
import typing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAliasType

from pydantic import BaseModel, ValidationError

from hms_addons.config.part import ANY, Part
from hms_addons.config.problems import closest, listing
from hms_addons.config.schema import Config
from hms_addons.config.schema_base import shown
from hms_addons.config.schema_forwarding import cluster_references

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.yaml_marks import Document

# Now rather than with the first value: those come from several threads, and pydantic 2.11 builds without a lock.
Config.model_rebuild()

_QUOTED = re.compile(r"'([^']*)'")
EXPECTED: Final = {
    "bool_type": "true or false",
    "dict_type": "a mapping (keys and values)",
    "finite_number": "a number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping (keys and values)",
    "string_type": "a text",
}
"""What pydantic's faults of type ask for."""
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]+)? ?%?")
BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
"""What pydantic's faults of size compare with: the key of their context, and words."""


class Validated(NamedTuple):
    """What is good of a configuration."""

    config: Config
    part: Part
    """What `config` was made from; all of what was written, unless something is wrong."""


def validate(
    document: Document,
    report: Report,
    *,
    control: bool = False,
    twice: Sequence[Path] = (),
    whole: bool = True,
) -> Validated:
    """The good part of a configuration, as models; `report` is told of everything else.

    Args:
        document: the merged configuration.
        report: takes the problems.
        control: a control plane provides the secrets that are not here.
        twice: items whose name an earlier one has; looked at, but not in the part.
        whole: all files could be read.
    """
    data = {} if document.data is None else document.data
    part = Part(data, whole=whole)
    config = _good(part, report)
    if twice:
        part.leave_out(twice)
        config = _good(part, report)
    _References(part, report).check(control=control)
    return Validated(config, part)


_GUESSES: Final = 500
"""Problems after which nobody guesses any more what was meant: that is slow, and only a courtesy."""


def _good(part: Part, report: Report) -> Config:
    """Validate again and again without what was found to be wrong: one fault may hide another."""
    while True:
        before = part.changes
        try:
            return Config.model_validate(part.good())
        except ValidationError as error:
            # A misspelt key first: what it was meant for is not missing.
            found = error.errors(include_url=False)
            faults = [_Fault(details, part, report) for details in found]
            for fault in sorted(faults, key=lambda f: f.kind != "extra_forbidden"):
                fault.tell()
            for fault in faults:
                fault.take_out()
        if part.changes == before:
            part.doubt(())  # nothing is good
            return Config()


class _Fault:
    """One thing that the models found, told of unless it only follows from another."""

    def __init__(self, details: ErrorDetails, part: Part, report: Report) -> None:
        self.kind = details["type"]
        self.take_out: Callable[[], object] = lambda: None
        """Takes it out of the part; called when all that were found together have been told."""
        self._details = details
        self._here: Path = details["loc"]
        self._path = part.original(self._here)
        self._part = part
        self._report = report

    def tell(self) -> None:
        kind, context = self.kind, self._details.get("ctx", {})
        path, value = self._path, self._details["input"]
        if path and path[-1] == "[key]":
            message = context.get("message", self._details["msg"])
            self._tell(path[:-1], message, at_key=True)
        elif kind == "hms":
            self._explain_own(context)
        elif kind == "extra_forbidden":
            self._explain_unknown_key()
        elif kind == "missing":
            if self._part.whole and self._part.known(path) and not self._part.is_meant(path):
                self._report.error(path[:-1], f"the key '{path[-1]}' is missing")
            self.take_out = partial(self._part.fill, path, self._here)
        elif kind == "literal_error":
            known = _QUOTED.findall(context["expected"])
            message = f"expected {' or '.join(known)}, not {shown(value)}"
            self._tell(path, message, closest(value, known))
        elif kind in EXPECTED:
            self._tell(path, *expected_instead(kind, value))
        elif kind in BOUNDS:
            key, words = BOUNDS[kind]
            bound = context[key]
            if isinstance(bound, float) and bound.is_integer():
                bound = int(bound)  # 100 reads better than 100.0
            self._tell(path, f"must be {words} {bound}, not {shown(value)}")
        elif kind in {"too_short", "string_too_short"}:
            if self._part.known(path):  # else it has items, all of them wrong
                self._report.error(path, "must not be empty")
            self.take_out = partial(self._part.cut, path)
        else:
            self._tell(path, self._details["msg"])

    def _tell(
        self, path: Path, message: str, suggestion: str | None = None, *, at_key: bool = False
    ) -> None:
        # What does not even fit where a misspelt key is read was perhaps not meant for it.
        if not self._part.is_renamed(path):
            self._report.error(path, message, suggestion, at_key=at_key)
        self.take_out = partial(self._part.cut, path)

    def _explain_own(self, context: Mapping[str, Any]) -> None:
        """A fault by one of our own checks, some of which compare several keys of a model."""
        about = [(*self._path, *keys) for keys in context["about"]]
        lacks = context["lacks"]
        follows = not all(map(self._part.known, about)) or (lacks and not self._part.whole)
        where: Path = (*self._path, *context["at"])
        if follows:
            pass
        elif about or lacks:
            self._report.error(where, context["message"], context["suggestion"])
        else:
            self._tell(where, context["message"], context["suggestion"])
        if lacks:
            fill = self._part.fill
            self.take_out = partial(fill, (*self._path, *lacks), (*self._here, *lacks))
        else:
            self.take_out = partial(self._part.cut, where, about)

    def _explain_unknown_key(self) -> None:
        known = _keys_at(self._here[:-1])
        key = self._path[-1]
        guess = closest(key, known) if len(self._report.problems) < _GUESSES else None
        hint = "" if guess else f"; known here: {listing(known, limit=20)}"
        self._report.error(self._path, f"unknown key '{key}'{hint}", guess, at_key=True)
        if guess is None or not self._part.rename(self._path, guess):
            self.take_out = partial(self._part.cut, self._path)


def expected_instead(kind: str, value: object) -> tuple[str, str | None]:
    """What a value of a wrong type should have been, and what was probably meant.

    Args:
        kind: pydantic's name of the fault, one of `EXPECTED`.
        value: what was written.
    """
    guess = None
    if kind == "string_type" and isinstance(value, bool | int | float):
        guess = f'"{shown(value)}"'
    elif kind == "float_type" and isinstance(value, str) and _NUMBER.fullmatch(value):
        guess = f"{value.rstrip('% ')}, without quotes"
    elif kind == "int_type" and isinstance(value, str) and value.isdecimal():
        guess = f"{value}, without quotes"
    elif kind == "bool_type" and isinstance(value, str):
        guess = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
    elif kind == "list_type" and isinstance(value, str):
        guess = f"[{value}]"
    return f"expected {EXPECTED[kind]}, not {shown(value)}", guess


def _keys_at(path: Path) -> list[str]:
    """The keys that the model at `path` has."""
    annotation: Any = Config
    for part in path:
        model = _model_in(annotation)
        if isinstance(part, str) and model is not None and part in model.model_fields:
            annotation = model.model_fields[part].annotation
        # A list's position or a mapping's key: the annotation still leads to the item's model.
    model = _model_in(annotation)
    return [] if model is None else list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model that an annotation such as `list[Model] | None` leads to."""
    if isinstance(annotation, TypeAliasType):
        return _model_in(annotation.__value__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        return _model_in(arguments[0])
    if origin in {list, dict, types.UnionType, typing.Union}:
        for argument in reversed(arguments):
            if (model := _model_in(argument)) is not None:
                return model
    return None


class _References:
    """Which names lead somewhere, by all that was written: what is wrong elsewhere hides nothing."""

    def __init__(self, part: Part, report: Report) -> None:
        self._part = part
        self._report = report
        self._data = part.corrected()

    def check(self, *, control: bool) -> None:
        if not isinstance(self._data, dict):
            return
        names = list(_cluster_references(self._data))
        self._part.named = frozenset(name for _, name in names)
        if not self._part.whole:
            return  # what a name leads to may be in what could not be read
        if self._usable("clusters"):
            self._check_clusters(names)
        if not control and self._usable("secrets"):
            self._check_secrets()

    def _usable(self, section: str) -> bool:
        """Whether the names in a section are known; not if it is no list or mapping at all."""
        return self._part.original_of_corrected((section,)) not in self._part.unknown

    def _check_clusters(self, names: Sequence[tuple[Path, str]]) -> None:
        clusters = [name for _, name in _names(self._data, "clusters")]
        there = set(clusters)
        unnamed = not self._part.known(("clusters", ANY, "name")) and len(clusters) < len(
            list(_items(self._data.get("clusters")))
        )
        for path, name in names:
            if name in there:
                continue
            guess = closest(name, clusters)
            if guess is None and unnamed:
                continue  # it may be the one whose name is missing
            hint = "" if guess else f"; there are: {listing(clusters)}"
            self._error(path, f"there is no cluster {shown(name)}{hint}", guess)

    def _check_secrets(self) -> None:
        raw = self._data.get("secrets")
        secrets = list(raw) if isinstance(raw, dict) else []
        for path, name, needed in _secret_references(self._data):
            if name in secrets or self._part.original_of_corrected(path) in self._part.unknown:
                continue
            if secrets:
                guess = closest(name, secrets)
                hint = "" if guess else f"; there are: {listing(secrets)}"
                self._error(path, f"there is no secret {shown(name)}{hint}", guess)
            elif needed:
                message = f"nothing here provides the secret {shown(name)}; add it under `secrets:`"
                self._error(path, message, None)
            else:
                message = (
                    f"nothing here provides the secret {shown(name)}: until someone does, requests "
                    "to this cluster are answered with 503, never in plain text; add it under "
                    "`secrets:`"
                )
                self._report.warning(self._part.original_of_corrected(path), message)

    def _error(self, path: Path, message: str, guess: str | None) -> None:
        self._report.error(self._part.original_of_corrected(path), message, guess)


def _items(value: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings in a list, with their positions; nothing for anything else."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield index, item


def _names(data: Mapping[str, Any], key: str) -> Iterator[tuple[Path, str]]:
    for index, item in _items(data.get(key)):
        if isinstance(name := item.get("name"), str):
            yield (key, index), name


def _cluster_references(data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for at, listener in _items(data.get("listeners")):
        for index, route in _items(listener.get("routes")):
            action = route.get("action")
            if not isinstance(action, dict):
                continue
            path: Path = ("listeners", at, "routes", index, "action")
            if isinstance(name := action.get("cluster"), str):
                yield (*path, "cluster"), name
            for number, item in _items(action.get("clusters")):
                if isinstance(name := item.get("name"), str):
                    yield (*path, "clusters", number, "name"), name
            for place, name in cluster_references(action):
                yield (*path, *place), name
    for index, cluster in _items(data.get("clusters")):
        if isinstance(name := cluster.get("failover"), str):
            yield ("clusters", index, "failover"), name


def _secret_references(data: Mapping[str, Any]) -> Iterator[tuple[Path, str, bool]]:
    """Where a secret is named, which, and whether a sidecar does not start without it."""
    for index, cluster in _items(data.get("clusters")):
        tls = cluster.get("tls_context")
        if isinstance(tls, dict) and isinstance(name := tls.get("sds"), str):
            path: Path = ("clusters", index, "tls_context", "sds")
            yield path, name, False
    for index, listener in _items(data.get("listeners")):
        if isinstance(name := listener.get("secret"), str):
            yield ("listeners", index, "secret"), name, True
