"""`hms config`: push files, and look at what has been pushed.

Whatever shows a version to its user notes that in `SeenVersions`; a push over one that this user has
never seen is refused.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from hms_addons.config.problems import Problem, Severity
from hms_addons.config.source import not_utf8, read_files
from hms_addons.identity.svid import iso_time
from hms_addons.operator_client.client import OperatorError, RefusedError
from hms_addons.operator_client.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from hms_addons.operator_client.client import OperatorClient
    from hms_addons.operator_client.seen_versions import SeenVersions

MAX_BYTES = 4 * 1024 * 1024
"""What the control plane takes."""
_JSON_OVERHEAD = 1.02

_PRECONDITION_FAILED = 412
_UNPROCESSABLE = 422


async def push(
    client: OperatorClient,
    paths: Sequence[Path],
    seen: SeenVersions,
    *,
    dry_run: bool = False,
    made_from: int | None = None,
    force: bool = False,
) -> Outcome:
    """Push some files as the configuration, the later over the earlier.

    Args:
        client: asks.
        paths: the files.
        seen: the versions that this user has seen.
        dry_run: only check them.
        made_from: the version they were made from. If another is in force, somebody else has
            pushed, and nothing is changed. None takes the one that is in force now, unless it is
            newer than what this user has seen.
        force: take it even so.

    Raises:
        OperatorError: it could not be done, for another reason than what is in the files.
    """
    files = _read(paths)
    if isinstance(files, Outcome):
        return files
    if made_from is None:
        version, unseen = await _in_force(client, seen, force=force)
    else:
        version, unseen = made_from, None
    try:
        answer = await client.ask(
            "PUT",
            "/v1/config",
            params={"dry_run": "1"} if dry_run else {},
            json={"files": files},
            headers={"If-Match": f'"{version}"'},
        )
    except RefusedError as error:
        if error.status == _UNPROCESSABLE and "problems" in error.document:
            return _refused(error)
        if error.status == _PRECONDITION_FAILED:
            raise await _overtaken(client, version, error) from error
        raise
    result = answer.json()
    if not dry_run:
        seen.saw_in_force(client.url, result["version"])
    return _pushed(result, version, unseen)


def _read(paths: Sequence[Path]) -> list[dict[str, str]] | Outcome:
    contents, problems = read_files(paths)
    problems += not_utf8(contents)
    if problems:
        return _told([problem.to_json() for problem in problems])
    size = sum(len(content) for _, content in contents)
    if size * _JSON_OVERHEAD > MAX_BYTES:
        message = f"{size} bytes of configuration; the control plane takes {MAX_BYTES}"
        raise OperatorError(message)
    return [{"name": name, "content": content.decode("utf-8")} for name, content in contents]


async def _in_force(
    client: OperatorClient, seen: SeenVersions, *, force: bool, rollback: bool = False
) -> tuple[int, Mapping[str, Any] | None]:
    """The version in force, 0 for none; and what is known of it, if this user has not seen it.

    Raises:
        OperatorError: it is newer than what this user has seen, and not `force`.
    """
    newest = await _newest(client)
    version = newest["version"] if newest else 0
    known = seen.get(client.url)
    if newest and known is not None and known < version and not force:
        raise _never_seen(newest, known, rollback=rollback)
    # What is remembered may be newer: of another control plane, which had this address before.
    return version, newest if known != version else None


async def _newest(client: OperatorClient) -> Mapping[str, Any] | None:
    """What is known of the version in force; None: nothing was pushed."""
    versions = (await client.ask("GET", "/v1/config/versions")).json()["versions"]
    return versions[0] if versions else None


def _origin(version: Mapping[str, Any]) -> str:
    """Who pushed what, and when."""
    return f"{version['source']}, by {version['author']}, {iso_time(version['created'])}"


def _replaces(unseen: Mapping[str, Any], verb: str = "replaces") -> str:
    return f"it {verb} one that was not shown here before: {_origin(unseen)}"


def _never_seen(newest: Mapping[str, Any], known: int, *, rollback: bool) -> OperatorError:
    version = newest["version"]
    last = f"the last that you have seen is {known}" if known else "you have seen none"
    look = f"hms config diff {known} {version}" if known else "hms config show"
    again = "and roll back again" if rollback else "take it into your files, and push again"
    return OperatorError(
        f"somebody else has pushed: version {version} is in force ({_origin(newest)}), and {last}; "
        f"nothing has changed. See what is new with `{look}`, {again}; or overwrite it with --force"
    )


def _refused(error: RefusedError) -> Outcome:
    problems = error.document["problems"]
    return _told(problems if isinstance(problems, list) else [])


def _told(problems: Iterable[Mapping[str, Any]]) -> Outcome:
    """A configuration is refused, said as `hms check` says it."""
    found = [_problem(problem) for problem in problems]
    errors = sum(problem.severity is Severity.ERROR for problem in found)
    warnings = len(found) - errors
    counts = [f"{errors} error{'' if errors == 1 else 's'}"]
    if warnings:
        counts.append(f"{warnings} warning{'' if warnings == 1 else 's'}")
    lines = [*map(str, found), f"refused: {', '.join(counts)}; nothing has changed"]
    document = {"ok": False, "problems": [problem.to_json() for problem in found]}
    return Outcome("\n".join(lines), document, ok=False)


def _problem(said: Mapping[str, Any]) -> Problem:
    severity = Severity.WARNING if said.get("severity") == "warning" else Severity.ERROR
    suggestion = said.get("suggestion")
    return Problem(
        severity,
        str(said.get("file", "")),
        int(said.get("line") or 1),
        int(said.get("column") or 1),
        str(said.get("path", "")),
        str(said.get("message", "")),
        None if suggestion is None else str(suggestion),
    )


def _pushed(result: Mapping[str, Any], before: int, unseen: Mapping[str, Any] | None) -> Outcome:
    lines = [str(_problem(problem)) for problem in result["problems"]]
    version = result["version"]
    if not result["changed"]:
        lines.append(f"ok: nothing has changed; version {version} says the same already")
    elif result["dry_run"]:
        lines.append(f"ok: nothing was done; it would become version {version}")
    else:
        lines.append(f"ok: version {version} is in force, after {before or 'none'}")
    if result["changed"] and unseen is not None:
        lines.append(_replaces(unseen, "would replace" if result["dry_run"] else "replaces"))
    return Outcome("\n".join(lines), {"ok": True, **result})


async def _overtaken(
    client: OperatorClient, version: int, error: RefusedError, *, rollback: bool = False
) -> OperatorError:
    """Somebody else has pushed: who, when, and how to go on."""
    newest = await _newest(client)
    if newest is None:
        return error
    yours = f"and not {version} any more" if rollback else f"and yours was made from {version}"
    again = (
        "and roll back again"
        if rollback
        else f"take it into your files, and push again with --made-from {newest['version']}"
    )
    return OperatorError(
        f"somebody else has pushed: version {newest['version']} is in force ({_origin(newest)}), "
        f"{yours}; nothing has changed. "
        f"See what is new with `hms config diff {version} {newest['version']}`, {again}"
    )


async def history(client: OperatorClient, seen: SeenVersions) -> Outcome:
    """The versions that are kept.

    Raises:
        OperatorError: they cannot be had.
    """
    document = (await client.ask("GET", "/v1/config/versions")).json()
    lines = [
        f"{item['version']:>5}  {iso_time(item['created'])}  {item['size']:>8} bytes  "
        f"{item['author']}  {item['source']}"
        for item in document["versions"]
    ]
    newest = document["versions"][:1]
    seen.saw_in_force(client.url, newest[0]["version"] if newest else 0)
    text = "\n".join(lines) or "nothing has been pushed yet: `hms config push FILE…`"
    return Outcome(text, document)


async def rollback(
    client: OperatorClient, version: int, seen: SeenVersions, *, force: bool = False
) -> Outcome:
    """Make an old version the newest.

    Raises:
        OperatorError: there is none such, it is not valid any more, or, unless `force`, what is in
            force is newer than what this user has seen.
    """
    before, unseen = await _in_force(client, seen, force=force, rollback=True)
    try:
        answer = await client.ask(
            "POST",
            f"/v1/config/versions/{version}/rollback",
            headers={"If-Match": f'"{before}"'},
        )
    except RefusedError as error:
        if error.status == _UNPROCESSABLE and "problems" in error.document:
            return _refused(error)
        if error.status == _PRECONDITION_FAILED:
            raise await _overtaken(client, before, error, rollback=True) from error
        raise
    result = answer.json()
    seen.saw_in_force(client.url, result["version"])
    if not result["changed"]:
        text = f"ok: nothing has changed; version {result['version']} says the same as {version}"
        return Outcome(text, result)
    text = f"ok: version {result['version']} is in force, and says what version {version} said"
    if unseen is not None:
        text += f"\n{_replaces(unseen)}"
    return Outcome(text, result)


async def show(client: OperatorClient, version: int | None, seen: SeenVersions) -> Outcome:
    """A version's files, or those in force.

    Raises:
        OperatorError: there is none such.
    """
    path = "/v1/config" if version is None else f"/v1/config/versions/{version}"
    document = (await client.ask("GET", path)).json()
    if version is None:
        seen.saw_in_force(client.url, document["version"])
    else:
        seen.saw(client.url, document["version"])
    return Outcome(_as_text(document["files"]), document)


async def diff_versions(client: OperatorClient, old: int, new: int, seen: SeenVersions) -> Outcome:
    """What lies between two versions.

    Raises:
        OperatorError: there is no such version.
    """
    document = (
        await client.ask("GET", "/v1/config/diff", params={"from": str(old), "to": str(new)})
    ).json()
    seen.saw(client.url, max(old, new))
    return Outcome(document["diff"] or f"versions {old} and {new} say the same", document)


async def diff_files(client: OperatorClient, paths: Sequence[Path], seen: SeenVersions) -> Outcome:
    """What pushing some files would change.

    Raises:
        OperatorError: what is in force cannot be had.
    """
    files = _read(paths)
    if isinstance(files, Outcome):
        return files
    try:
        pushed = (await client.ask("GET", "/v1/config")).json()
        version = pushed["version"]
        old, name = _as_text(pushed["files"]), f"version {version}"
    except RefusedError as error:
        if error.status != 404:  # noqa: PLR2004 - nothing has been pushed
            raise
        old, name, version = "", "nothing", 0
    seen.saw_in_force(client.url, version)
    new = _as_text(files)
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), name, ", ".join(map(str, paths)), lineterm=""
    )
    text = "\n".join(lines)
    return Outcome(text or f"{name} says the same", {"diff": text})


def _as_text(files: Sequence[Mapping[str, str]]) -> str:
    """Some files as one text; with their names, if there are several."""
    if len(files) == 1:
        return files[0]["content"]
    return "\n".join(f"# -- {file['name']}\n{file['content']}" for file in files)
