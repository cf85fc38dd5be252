"""The configuration that operators push: checked as `hms check` does, numbered, kept, rolled back.

Versions are 1, 2, 3 …; a push is one write that takes effect only if nobody else has pushed since it
was looked at. `config/current` holds the list of versions and names the one in force, so one key
decides; what each holds is under `config/versions/<n>`.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.load import load
from hms_addons.config.merge import merge
from hms_addons.config.problems import ConfigProblems, Place, Problem, Severity
from hms_addons.config.source import not_utf8
from hms_addons.config.yaml_marks import load_yaml
from hms_addons.control.store.protocol import ConflictError, Write
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hms_addons.clock import Clock
    from hms_addons.control.mirror import Mirror
    from hms_addons.control.store.protocol import Event, Store

CURRENT: Final = "config/current"
VERSIONS: Final = "config/versions/"
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of all files of one version together."""
KEPT: Final = 100
"""Versions, the newest."""

type Files = Sequence[tuple[str, bytes]]
"""Names and contents, the later over the earlier."""


class StaleConfigError(MeshError):
    """Another version is in force than the change was made from."""

    def __init__(self, expected: int, version: int) -> None:
        message = f"version {version} is in force, not {expected}: look at what has changed since"
        super().__init__(message)
        self.version = version


class FollowsFilesError(MeshError):
    """The configuration comes from files; nothing can be pushed."""


class ConfigTooLargeError(MeshError):
    """More than `MAX_BYTES`."""


class UnknownVersionError(MeshError):
    """There is no such version, or it is kept no longer."""


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One version, without its content."""

    version: int
    created: float
    """Seconds since the epoch, by the control plane's clock."""
    author: str
    source: str
    """The files' names, or what else it came from."""
    size: int
    """Bytes of all files."""
    digest: str
    """Of the contents."""


class ConfigContent(NamedTuple):
    """One version and what was pushed."""

    about: ConfigVersion
    files: tuple[tuple[str, bytes], ...]


class PutResult(NamedTuple):
    """What came of a push that was not refused."""

    version: int
    """In force now; of a dry run, what it would have been."""
    changed: bool
    problems: tuple[Problem, ...]
    """Warnings."""


@dataclass(frozen=True, slots=True)
class _State:
    """What `config/current` holds."""

    versions: tuple[ConfigVersion, ...] = ()
    """Oldest first; the last is in force."""
    revision: int = 0
    """Of the write."""

    @property
    def version(self) -> int:
        return self.versions[-1].version if self.versions else 0


@dataclass(slots=True)
class ConfigService:
    """Takes configurations, and hands out the one in force.

    Args:
        store: where they are kept.
        mirror: of that store; not yet started.
        clock: time for `created`.
        trust_domain: this control plane's; a configuration for another is refused.

    Attributes:
        follows: what the configuration comes from instead of pushes, if it does.
        trouble: what is wrong with what it follows; None: nothing.
        decided: what is in force is somebody's will today, and not just what a store was found to
            hold: it was put, or put again, since the start.
        on_decided: called when that has become true.
    """

    store: Store
    mirror: Mirror
    clock: Clock
    trust_domain: str
    follows: str | None = None
    trouble: str | None = None
    on_decided: Callable[[], object] = lambda: None
    decided: bool = False
    _state: _State = field(default_factory=_State)
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One at a time: each takes a processor, and the whole of Python's lock, for up to seconds."""

    def __post_init__(self) -> None:
        self.mirror.read(CURRENT, self._apply)

    def __repr__(self) -> str:
        return f"<ConfigService version={self._state.version} follows={self.follows}>"

    @property
    def current(self) -> ConfigVersion | None:
        """The version in force; None before the first."""
        return self._state.versions[-1] if self._state.versions else None

    def versions(self) -> tuple[ConfigVersion, ...]:
        """Those that are kept, the newest first."""
        return self._state.versions[::-1]

    async def version(self, number: int) -> ConfigContent:
        """One version with its content.

        Raises:
            UnknownVersionError: there is none of that number.
        """
        about = next((v for v in self._state.versions if v.version == number), None)
        entry = await self.store.get(f"{VERSIONS}{number}") if about is not None else None
        if about is None or entry is None:
            kept = [v.version for v in self._state.versions]
            known = f"{kept[0]} to {kept[-1]} are kept" if kept else "nothing was pushed yet"
            raise UnknownVersionError(f"there is no version {number}: {known}")
        return ConfigContent(about, _unpacked(entry.value))

    async def diff(self, old: int, new: int) -> str:
        """What lies between two versions, as a unified diff; 0 is nothing at all.

        Raises:
            UnknownVersionError: there is no such version.
        """
        before = (await self.version(old)).files if old else ()
        after = (await self.version(new)).files if new else ()
        return await asyncio.to_thread(_diff, before, after, f"version {old}", f"version {new}")

    async def rollback(
        self, number: int, *, author: str, expected: int | None = None, dry_run: bool = False
    ) -> PutResult:
        """Make what version `number` held the newest version; it is checked again.

        Raises:
            UnknownVersionError: there is no such version.
            MeshError: as `put`.
        """
        files = (await self.version(number)).files
        source = f"version {number}"
        return await self.put(
            files, author=author, source=source, expected=expected, dry_run=dry_run
        )

    async def put(
        self,
        files: Files,
        *,
        author: str,
        source: str = "",
        expected: int | None = None,
        dry_run: bool = False,
    ) -> PutResult:
        """Check a configuration and put it in force.

        Args:
            files: names and contents, the later over the earlier.
            author: who pushes.
            source: where it came from; default the files' names.
            expected: the version that must be in force; 0: none; None: any.
            dry_run: only check.

        Raises:
            ConfigProblems: it is refused; holds every problem.
            StaleConfigError: another version is in force than `expected`.
            FollowsFilesError: files decide.
            ConfigTooLargeError: it has more than `MAX_BYTES`.
            StoreError: it could not be written.
        """
        if self.follows is not None and not dry_run:
            message = f"this control plane follows {self.follows}; change that, or start it without"
            raise FollowsFilesError(f"{message} --config")
        return await self.accept(
            files, author=author, source=source, expected=expected, dry_run=dry_run
        )

    async def accept(
        self,
        files: Files,
        *,
        author: str,
        source: str = "",
        expected: int | None = None,
        dry_run: bool = False,
    ) -> PutResult:
        """`put`, also where files decide: for those who follow them."""
        files = tuple(files)
        size = sum(len(content) for _, content in files)
        if size > MAX_BYTES:
            raise ConfigTooLargeError(f"{size} bytes are more than {MAX_BYTES} that are taken")
        self._check_expected(expected)
        async with self._checking:
            problems = await asyncio.to_thread(check, files, self.trust_domain)
        if any(problem.severity is Severity.ERROR for problem in problems):
            raise ConfigProblems(problems)
        while True:
            state = self._state
            self._check_expected(expected)
            about = ConfigVersion(
                version=state.version + 1,
                created=self.clock.wall(),
                author=author,
                source=source or ", ".join(name for name, _ in files),
                size=size,
                digest=_digest(files),
            )
            if state.versions and state.versions[-1].digest == about.digest:
                if not dry_run:
                    self._decide()
                return PutResult(state.version, changed=False, problems=problems)
            if dry_run:
                return PutResult(about.version, changed=True, problems=problems)
            try:
                await self._write(state, about, files)
            except ConflictError as error:
                await self.mirror.reach(error.revision)  # somebody was faster: look again
                continue
            return PutResult(about.version, changed=True, problems=problems)

    def _decide(self) -> None:
        if not self.decided:
            self.decided = True
            self.on_decided()

    def _check_expected(self, expected: int | None) -> None:
        if expected is not None and expected != self._state.version:
            raise StaleConfigError(expected, self._state.version)

    async def _write(self, state: _State, about: ConfigVersion, files: Files) -> None:
        kept = (*state.versions, about)[-KEPT:]
        dropped = state.versions[: max(0, len(state.versions) + 1 - KEPT)]
        value = json.dumps([asdict(version) for version in kept]).encode()
        revision = await self.store.write(
            [
                Write(CURRENT, value, expected=state.revision),
                Write(f"{VERSIONS}{about.version}", _packed(files)),
                *(Write(f"{VERSIONS}{version.version}", None) for version in dropped),
            ]
        )
        self._decide()
        await self.mirror.reach(revision)

    def _apply(self, events: Sequence[Event]) -> None:
        event = events[-1]
        if event.value is None:
            self._state = _State()
            return
        versions = tuple(ConfigVersion(**item) for item in json.loads(event.value))
        self._state = _State(versions, event.revision)


def check(files: Files, trust_domain: str) -> tuple[Problem, ...]:
    """All that `hms check` finds in a pushed configuration, and whether it is for this mesh.

    And whether it is UTF-8: whoever asks for it gets it as text.
    """
    if unreadable := not_utf8(files):
        return tuple(unreadable)
    loaded = load(files, control=True)
    if loaded.snapshot is None or loaded.snapshot.trust_domain in {None, trust_domain}:
        return loaded.problems
    document = merge([load_yaml(content, name) for name, content in files])
    place: Place = document.marks.place_of(("trust_domain",))
    message = f"this control plane's trust domain is {trust_domain}: leave it out, or write that"
    problem = Problem(Severity.ERROR, *place, "trust_domain", message, trust_domain)
    return (*loaded.problems, problem)


def document_of(files: Files) -> dict[str, Any]:
    """The configuration that good files make together, as plain data."""
    data: dict[str, Any] = merge([load_yaml(content, name) for name, content in files]).data or {}
    return data


def _packed(files: Files) -> bytes:
    return json.dumps(
        [[name, content.decode("utf-8", "surrogateescape")] for name, content in files]
    ).encode()


def _unpacked(value: bytes) -> tuple[tuple[str, bytes], ...]:
    return tuple(
        (name, content.encode("utf-8", "surrogateescape")) for name, content in json.loads(value)
    )


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for _, content in files:
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.hexdigest()


def _diff(old: Files, new: Files, old_name: str, new_name: str) -> str:
    before, after = dict(old), dict(new)
    lines: list[str] = []
    for name in dict.fromkeys((*before, *after)):
        lines += difflib.unified_diff(
            before.get(name, b"").decode("utf-8", "replace").splitlines(keepends=True),
            after.get(name, b"").decode("utf-8", "replace").splitlines(keepends=True),
            f"{name} ({old_name})",
            f"{name} ({new_name})",
        )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ no newline here\n" for line in lines
    )
