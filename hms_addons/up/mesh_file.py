"""Reads `mesh.yaml` and the configuration that it holds or names; every problem with its place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from hms_addons.config.installed import Known
from hms_addons.config.load import load
from hms_addons.config.problems import ConfigProblems, Problem, Report, Severity
from hms_addons.config.source import not_utf8, read_files
from hms_addons.config.yaml_marks import load_yaml
from hms_addons.up.plan import instances_of, wanted_ports
from hms_addons.up.schema import validate_mesh_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hms_addons.config.yaml_marks import Document
    from hms_addons.up.plan import Instance

TRUST_DOMAIN: Final = "mpsa.mil"
"""Of a mesh whose configuration names none; the control plane's own default."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What a file asks for."""

    instances: Mapping[str, Instance]
    """By name, in the file's order."""
    config: tuple[tuple[str, str], ...]
    """Name and content of each configuration file, the later over the earlier."""
    meaning: tuple[Any, ...] = ()
    """What they say, as plain data: comments and moved lines change nothing."""
    trust_domain: str = TRUST_DOMAIN
    svid_lifetime: float = 86400.0
    """Seconds."""
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)
    """What was read: those to be watched."""


def read_mesh(path: Path) -> Mesh:
    """Read a file, and what it names.

    Raises:
        ConfigProblems: something in them cannot be; holds all that was found.
    """
    contents, problems = read_files([path])
    problems += not_utf8(contents)
    if problems:
        raise ConfigProblems(problems)
    name, content = contents[0]
    document = load_yaml(content, name)
    try:
        model = validate_mesh_file(document)
        instances = instances_of(model, path.parent)
        _check(instances, document)
    except ConfigProblems as error:
        problems = [*error.problems, *_problems_in_mesh(name, content, document)]
        raise ConfigProblems(problems) from None
    named: list[Path] = []
    if isinstance(model.mesh, dict):
        config = [(name, _section(content, document))]
    elif model.mesh is None:
        # The control plane wants a file, if an empty one.
        config = [(name, b"{}\n")]
    else:
        words = [model.mesh] if isinstance(model.mesh, str) else model.mesh
        named = [path.parent / word for word in words]
        config, problems = read_files(named)
        problems += not_utf8(config)
        if problems:
            raise ConfigProblems(problems)
    # Certificates are the control plane's, and may come yet.
    loaded = load(config, control=True, known=Known())
    if loaded.snapshot is None:
        raise ConfigProblems(loaded.problems)
    meaning = tuple(load_yaml(content, name).data for name, content in config)
    return Mesh(
        instances,
        tuple((name, content.decode("utf-8")) for name, content in config),
        meaning,
        _trust_domain(meaning),
        model.svid_lifetime,
        loaded.problems,
        (path, *named),
    )


def _problems_in_mesh(name: str, content: bytes, document: Document) -> tuple[Problem, ...]:
    """What is wrong in `mesh:` besides, so that all is told at once."""
    if not isinstance(document.data, dict) or not isinstance(document.data.get("mesh"), dict):
        return ()
    return load([(name, _section(content, document))], control=True, known=Known()).problems


def _check(instances: Mapping[str, Instance], document: Document) -> None:
    report = Report(document.marks.place_of)
    for port, names in wanted_ports(instances).items():
        if len(names) > 1:
            group = next(
                one.group for one in instances.values() if port in {one.port, one.outbound}
            )
            message = f"port {port} is wanted by {' and '.join(names)}: give each one of its own"
            report.error(("services", group), message)
        elif port > 65535:  # noqa: PLR2004 - the last one there is
            group = next(one.group for one in instances.values() if port == one.port)
            message = f"{names[0]} would need port {port}: begin lower"
            report.error(("services", group, "port"), message)
    for group, one in {one.group: one for one in instances.values()}.items():
        if not one.folder.is_dir():
            report.error(("services", group, "folder"), f"{one.folder} is no folder")
        elif not _can_run(one):
            where = (
                "there is no such program" if "/" in one.command[0] else "no such program on PATH"
            )
            message = f"cannot run {one.command[0]!r}: {where}; install it, or mend its name"
            report.error(("services", group, "command"), message)
    report.raise_errors()


def _can_run(one: Instance) -> bool:
    """Whether its program is there; PATH may be its own."""
    program = one.words(0, "")[0]
    if "/" in program:
        return (one.folder / program).exists()
    return shutil.which(program, path=dict(one.env).get("PATH")) is not None


def _section(content: bytes, document: Document) -> bytes:
    """The configuration in `mesh:` as a file of its own, each word at its line and column.

    All before and after it is blanked out. What cannot be cut out like this (flow style, an anchor
    from elsewhere) is written anew.
    """
    data: Any = document.data["mesh"]
    lines = content.decode("utf-8").splitlines(keepends=True)
    start = document.marks.keys["mesh"].line
    others = [place.line for place in document.marks.keys.values() if place.line > start]
    end = min(others, default=len(lines) + 1) - 1
    cut = "\n" * start + "".join(lines[start:end])
    try:
        if load_yaml(cut.encode(), "").data == data:
            return cut.encode()
    except ConfigProblems:
        pass
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()


def _trust_domain(meaning: tuple[Any, ...]) -> str:
    found = TRUST_DOMAIN
    for data in meaning:
        if isinstance(data, dict) and isinstance(written := data.get("trust_domain"), str):
            found = written
    return found


def told(problems: ConfigProblems) -> str:
    """The problems, one a line, and how many of them make it unusable."""
    errors = sum(problem.severity is Severity.ERROR for problem in problems.problems)
    lines = [*map(str, problems.problems), f"{errors} error{'' if errors == 1 else 's'}"]
    return "\n".join(lines)
