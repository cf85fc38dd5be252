from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.problems import ConfigProblems
from hms_addons.control.configs import (
    KEPT,
    MAX_BYTES,
    ConfigTooLargeError,
    ConfigVersion,
    FollowsFilesError,
    StaleConfigError,
    UnknownVersionError,
    check,
)
from tests.fakes.control_state import Plane, control_plane

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.config.problems import Problem
    from hms_addons.control.configs import Files

ONE = "clusters: [{name: auth-svc, tls_context: {sds: mesh_certs}}]\n"
TWO = "clusters: [{name: payments-svc, tls_context: {sds: mesh_certs}}]\n"
BAD = "clusters:\n  - name: a\n    endpoint: [h:1]\n"


async def test_versions_count_from_one(plane: Plane) -> None:
    assert plane.configs.current is None
    assert await plane.push(ONE) == (1, True, ())
    assert await plane.push(TWO, source="git 4f2a") == (2, True, ())
    first, second = plane.configs.versions()[::-1]
    assert plane.configs.current == second
    assert first == ConfigVersion(
        1, plane.clock.wall(), "a test", "mesh.yaml", len(ONE), first.digest
    )
    assert second.source == "git 4f2a"
    assert (await plane.configs.version(1)).files == (("mesh.yaml", ONE.encode()),)
    assert repr(plane.configs) == "<ConfigService version=2 follows=None>"


async def test_the_same_again_changes_nothing(plane: Plane) -> None:
    await plane.push(ONE)
    revision = plane.store.revision
    assert await plane.push(ONE) == (1, False, ())
    assert await plane.configs.put([("elsewhere/m.yaml", ONE.encode())], author="b") == (
        1,
        False,
        (),
    )
    assert plane.store.revision == revision


async def test_a_bad_one_is_refused_as_hms_check_does(plane: Plane) -> None:
    await plane.push(ONE)
    with pytest.raises(ConfigProblems) as caught:
        await plane.push(BAD)
    assert [str(problem) for problem in caught.value.problems] == [
        "mesh.yaml:3:5: clusters[0].endpoint: unknown key 'endpoint' (did you mean endpoints?)"
    ]
    with pytest.raises(ConfigProblems):
        await plane.push(BAD, dry_run=True)
    assert len(plane.configs.versions()) == 1


async def test_what_is_no_utf_8_is_refused_as_nobody_could_be_shown_it(plane: Plane) -> None:
    files = [("a.yaml", ONE.encode()), ("b.yaml", TWO.encode("utf-16"))]
    with pytest.raises(ConfigProblems) as caught:
        await plane.configs.put(files, author="a test")
    (problem,) = caught.value.problems
    assert str(problem) == "b.yaml:1:1: not readable as UTF-8 text: invalid start byte"
    assert plane.configs.current is None


async def test_warnings_come_with_it(plane: Plane) -> None:
    text = "secrets: {s: {certificate: a, key: b, bundle: c}}"
    (warning,) = (await plane.push(text)).problems
    assert "left out of what sidecars get" in warning.message


async def test_a_bomb_is_refused(plane: Plane) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)
    ]
    with pytest.raises(ConfigProblems, match="aliases"):
        await plane.push("\n".join(lines))


async def test_what_is_too_large_is_refused(plane: Plane) -> None:
    half = b"#" * (MAX_BYTES // 2)
    assert (await plane.configs.put([("a", half), ("b", half)], author="x")).changed
    with pytest.raises(ConfigTooLargeError):
        await plane.configs.put([("a", half), ("b", half + b"#")], author="x")


async def test_another_meshs_configuration_is_refused(plane: Plane) -> None:
    assert (await plane.push("trust_domain: mpsa.mil")).changed
    with pytest.raises(ConfigProblems) as caught:
        await plane.push("service: x\ntrust_domain: other.mil")
    assert str(caught.value.problems[-1]).startswith(
        "mesh.yaml:2:15: trust_domain: this control plane's trust domain is mpsa.mil"
    )


async def test_a_dry_run_changes_nothing(plane: Plane) -> None:
    assert await plane.push(ONE, dry_run=True) == (1, True, ())
    assert plane.configs.current is None
    await plane.push(ONE)
    assert await plane.push(ONE, dry_run=True) == (1, False, ())
    assert await plane.push(TWO, dry_run=True) == (2, True, ())
    assert len(plane.configs.versions()) == 1


async def test_nobody_overwrites_what_he_has_not_seen(plane: Plane) -> None:
    await plane.push(ONE, expected=0)
    for wrong in (0, 2):
        with pytest.raises(StaleConfigError, match=f"version 1 is in force, not {wrong}") as caught:
            await plane.push(TWO, expected=wrong)
        assert caught.value.version == 1
    assert (await plane.push(TWO, expected=1)).version == 2


async def test_of_two_operators_at_once_one_is_told(plane: Plane) -> None:
    await plane.push(ONE)
    texts = [f"clusters: [{{name: s{n}}}]" for n in range(8)]
    results = await asyncio.gather(
        *(plane.push(text, expected=1) for text in texts), return_exceptions=True
    )
    assert sum(isinstance(result, StaleConfigError) for result in results) == 7
    assert len(plane.configs.versions()) == 2

    await asyncio.gather(*(plane.push(text) for text in texts))
    found = [version.version for version in plane.configs.versions()]
    assert found == sorted(set(found), reverse=True)
    digests = {version.digest for version in plane.configs.versions()}
    assert len(digests) == 9


async def test_going_back_is_going_forward(plane: Plane) -> None:
    await plane.push(ONE)
    await plane.push(TWO)
    assert await plane.configs.rollback(1, author="b", dry_run=True) == (3, True, ())
    assert await plane.configs.rollback(1, author="b", expected=2) == (3, True, ())
    assert plane.configs.current is not None
    assert plane.configs.current.source == "version 1"
    assert (await plane.configs.version(3)).files == (await plane.configs.version(1)).files
    with pytest.raises(UnknownVersionError, match="1 to 3 are kept"):
        await plane.configs.rollback(7, author="b")


async def test_what_lies_between_two(plane: Plane) -> None:
    with pytest.raises(UnknownVersionError, match="nothing was pushed yet"):
        await plane.configs.diff(0, 1)
    await plane.push(ONE)
    await plane.configs.put(
        [("mesh.yaml", TWO.encode()), ("more.yaml", b"listeners: []")], author="b"
    )
    assert await plane.configs.diff(1, 1) == ""
    assert (await plane.configs.diff(1, 2)).splitlines() == [
        "--- mesh.yaml (version 1)",
        "+++ mesh.yaml (version 2)",
        "@@ -1 +1 @@",
        "-clusters: [{name: auth-svc, tls_context: {sds: mesh_certs}}]",
        "+clusters: [{name: payments-svc, tls_context: {sds: mesh_certs}}]",
        "--- more.yaml (version 1)",
        "+++ more.yaml (version 2)",
        "@@ -0,0 +1 @@",
        "+listeners: []",
        "\\ no newline here",
    ]
    assert "+clusters: [{name: auth-svc" in await plane.configs.diff(0, 1)


async def test_only_the_newest_are_kept(plane: Plane) -> None:
    for n in range(KEPT + 3):
        await plane.push(f"clusters: [{{name: s{n}}}]")
    assert [v.version for v in plane.configs.versions()] == list(range(KEPT + 3, 3, -1))
    assert len(await plane.store.list("config/versions/")) == KEPT
    with pytest.raises(UnknownVersionError):
        await plane.configs.version(3)


async def test_versions_go_on_after_a_restart(tmp_path: Path, plane: Plane) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        await first.push(ONE)
    plane.clock.step(-120)
    async with control_plane(path, plane.clock) as second:
        assert second.configs.current is not None
        assert second.configs.current.version == 1
        assert (await second.push(ONE)).changed is False
        assert (await second.push(TWO)).version == 2


async def test_where_files_decide_nothing_can_be_pushed(plane: Plane) -> None:
    plane.configs.follows = "/etc/hms/mesh"
    with pytest.raises(FollowsFilesError, match="follows /etc/hms/mesh"):
        await plane.push(ONE)
    assert (await plane.push(ONE, dry_run=True)).changed


async def test_bytes_that_are_no_text_come_back_as_they_were(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    utf16 = ONE.encode("utf-16")
    with monkeypatch.context() as earlier:  # a store may hold what used to be taken
        earlier.setattr("hms_addons.control.configs.not_utf8", lambda _: [])
        await plane.configs.put([("mesh.yaml", utf16)], author="x")
    assert (await plane.configs.version(1)).files == (("mesh.yaml", utf16),)


async def test_one_check_at_a_time(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[str] = []
    seen: list[int] = []

    def counted(files: Files, trust_domain: str) -> tuple[Problem, ...]:
        running.append(trust_domain)
        found = check(files, trust_domain)
        seen.append(len(running))
        running.pop()
        return found

    monkeypatch.setattr("hms_addons.control.configs.check", counted)
    many = "clusters:\n" + "\n".join(f"  - {{name: c{n}}}" for n in range(300))
    await asyncio.gather(*(plane.push(many, dry_run=True) for _ in range(6)))
    assert seen == [1] * 6
