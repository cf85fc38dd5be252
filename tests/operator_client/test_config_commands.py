from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.check import check_files
from hms_addons.operator_client import config_commands as commands
from hms_addons.operator_client.client import OperatorClient, OperatorError
from hms_addons.operator_client.seen_versions import SeenVersions
from tests.fakes import pki
from tests.fakes.cli import BAD, GOOD
from tests.fakes.control_server import Answers, Scripted, pin_of, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hms_addons.operator_client.outcome import Outcome

NOTHING = SeenVersions(None, pytest.fail)
VERSIONS = {
    "etag": '"3"',
    "versions": [
        {"version": 3, "created": 0, "author": "admin", "source": "a.yaml", "size": 12},
        {"version": 2, "created": 0, "author": "admin", "source": "b.yaml", "size": 9},
    ],
}
PUSHED = {"version": 4, "changed": True, "dry_run": False, "problems": []}


@asynccontextmanager
async def connected(answers: Answers) -> AsyncIterator[tuple[OperatorClient, Scripted]]:
    known: Answers = {("GET", "/v1/config/versions"): (200, VERSIONS), **answers}
    async with scripted(known) as (url, app):
        client = OperatorClient(url, "hmsadm1.token", pin_of(pki.bundle()), SYSTEM_CLOCK)
        async with client:
            yield client, app


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def seen(tmp_path: Path) -> SeenVersions:
    return SeenVersions(tmp_path / "state" / "seen.json", pytest.fail)


async def push(
    client: OperatorClient, *paths: Path, seen: SeenVersions = NOTHING, **options: Any
) -> Outcome:
    return await commands.push(client, paths, seen, **options)


async def test_files_are_pushed_with_their_names_over_the_version_in_force(good: Path) -> None:
    async with connected({("PUT", "/v1/config"): (200, PUSHED)}) as (client, app):
        outcome = await push(client, good)
    assert outcome.ok
    assert outcome.text == (
        "ok: version 4 is in force, after 3\n"
        "it replaces one that was not shown here before: a.yaml, by admin, 1970-01-01T00:00:00Z"
    )
    method, path, headers, body = app.asked[-1]
    assert (method, path, headers["if-match"]) == ("PUT", "/v1/config", '"3"')
    assert json.loads(body) == {"files": [{"name": str(good), "content": GOOD}]}


async def test_the_version_that_they_were_made_from_may_be_said(good: Path) -> None:
    async with connected({("PUT", "/v1/config"): (200, PUSHED)}) as (client, app):
        await push(client, good, made_from=2)
    assert app.asked[-1][2]["if-match"] == '"2"'
    assert [path for _, path, *_ in app.asked] == ["/v1/bundle", "/v1/config"]


async def test_what_changes_nothing_says_so(good: Path) -> None:
    same = {**PUSHED, "version": 3, "changed": False}
    async with connected({("PUT", "/v1/config"): (200, same)}) as (client, _):
        outcome = await push(client, good)
    assert outcome.text == "ok: nothing has changed; version 3 says the same already"


async def test_a_dry_run_does_nothing_and_says_what_it_would(good: Path) -> None:
    would = {**PUSHED, "dry_run": True}
    async with connected({("PUT", "/v1/config"): (200, would)}) as (client, app):
        outcome = await push(client, good, dry_run=True)
    first, second = outcome.text.splitlines()
    assert first == "ok: nothing was done; it would become version 4"
    assert second.startswith("it would replace one that was not shown here before: a.yaml")
    assert app.asked[-1][1] == "/v1/config?dry_run=1"


async def test_what_is_wrong_is_said_exactly_as_check_says_it(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(BAD)
    checked = check_files([bad])
    problems = [problem.to_json() for problem in checked.problems]
    refusal = {"status": 422, "detail": "refused", "problems": problems}
    async with connected({("PUT", "/v1/config"): (422, refusal)}) as (client, _):
        outcome = await push(client, bad)
    assert not outcome.ok
    assert outcome.text == checked.to_text() + "; nothing has changed"
    assert outcome.document == {"ok": False, "problems": problems}


async def test_warnings_are_said_too(good: Path) -> None:
    warning = {"severity": "warning", "file": "a.yaml", "line": 3, "column": 5, "path": "x"}
    pushed = {**PUSHED, "problems": [{**warning, "message": "odd", "suggestion": "y"}]}
    async with connected({("PUT", "/v1/config"): (200, pushed)}) as (client, _):
        outcome = await push(client, good)
    assert outcome.text.startswith("a.yaml:3:5: warning: x: odd (did you mean y?)\nok: version 4")


async def test_somebody_else_has_pushed(good: Path) -> None:
    stale = {"status": 412, "detail": "version 3 is in force"}
    async with connected({("PUT", "/v1/config"): (412, stale)}) as (client, _):
        with pytest.raises(OperatorError) as caught:
            await push(client, good, made_from=1)
    message = str(caught.value)
    assert (
        "somebody else has pushed: version 3 is in force (a.yaml, by admin, 1970-01-01T" in message
    )
    assert "yours was made from 1" in message
    assert "hms config diff 1 3" in message
    assert "--made-from 3" in message


async def test_files_that_cannot_be_read_are_all_said_and_nothing_is_sent(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\nb: \xff\n")
    async with connected({}) as (client, app):
        outcome = await push(client, tmp_path / "none.yaml", binary)
    assert not outcome.ok
    assert "none.yaml:1:1: cannot be read" in outcome.text
    assert "binary.yaml:2:1: not readable as UTF-8" in outcome.text
    assert [path for _, path, *_ in app.asked] == ["/v1/bundle"]


async def test_what_is_too_large_is_not_sent(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("#" * commands.MAX_BYTES)
    async with connected({}) as (client, _):
        with pytest.raises(OperatorError, match="the control plane takes 4194304"):
            await push(client, large)


async def test_other_refusals_are_told_as_they_are(good: Path) -> None:
    follows = {"status": 409, "detail": "this control plane follows /etc/hms"}
    async with connected({("PUT", "/v1/config"): (409, follows)}) as (client, _):
        with pytest.raises(OperatorError, match="this control plane follows /etc/hms"):
            await push(client, good)


async def test_the_history_has_a_line_for_each_version() -> None:
    async with connected({}) as (client, _):
        outcome = await commands.history(client, NOTHING)
    first, second = outcome.text.splitlines()
    assert first.split() == ["3", "1970-01-01T00:00:00Z", "12", "bytes", "admin", "a.yaml"]
    assert second.split()[0] == "2"


async def test_a_history_without_versions_says_how_to_begin() -> None:
    none: dict[str, Any] = {"versions": []}
    async with connected({("GET", "/v1/config/versions"): (200, none)}) as (client, _):
        assert "hms config push" in (await commands.history(client, NOTHING)).text


async def test_a_rollback_makes_a_new_version() -> None:
    answers: Answers = {("POST", "/v1/config/versions/2/rollback"): (200, PUSHED)}
    async with connected(answers) as (client, app):
        outcome = await commands.rollback(client, 2, NOTHING)
    assert outcome.text == (
        "ok: version 4 is in force, and says what version 2 said\n"
        "it replaces one that was not shown here before: a.yaml, by admin, 1970-01-01T00:00:00Z"
    )
    assert app.asked[-1][2]["if-match"] == '"3"'


async def test_a_rollback_to_the_same_says_so() -> None:
    same = {**PUSHED, "version": 3, "changed": False}
    answers: Answers = {("POST", "/v1/config/versions/2/rollback"): (200, same)}
    async with connected(answers) as (client, _):
        outcome = await commands.rollback(client, 2, NOTHING)
    assert outcome.text == "ok: nothing has changed; version 3 says the same as 2"


async def test_a_rollback_to_what_is_not_valid_any_more_is_refused() -> None:
    problem = {"severity": "error", "file": "a.yaml", "line": 1, "column": 2, "path": "x"}
    refusal = {"status": 422, "problems": [{**problem, "message": "gone", "suggestion": None}]}
    answers: Answers = {("POST", "/v1/config/versions/2/rollback"): (422, refusal)}
    async with connected(answers) as (client, _):
        outcome = await commands.rollback(client, 2, NOTHING)
    assert not outcome.ok
    assert outcome.text.startswith("a.yaml:1:2: x: gone\nrefused: 1 error")


@pytest.mark.parametrize(("version", "path"), [(None, "/v1/config"), (2, "/v1/config/versions/2")])
async def test_show_prints_the_content_as_it_was_pushed(version: int | None, path: str) -> None:
    content = {"version": 2, "files": [{"name": "a.yaml", "content": "a: 1\n"}]}
    async with connected({("GET", path): (200, content)}) as (client, _):
        outcome = await commands.show(client, version, NOTHING)
    assert outcome.text == "a: 1\n"


async def test_show_names_several_files() -> None:
    files = [{"name": "a.yaml", "content": "a: 1\n"}, {"name": "b.yaml", "content": "b: 1\n"}]
    async with connected({("GET", "/v1/config"): (200, {"version": 3, "files": files})}) as (
        client,
        _,
    ):
        outcome = await commands.show(client, None, NOTHING)
    assert outcome.text == "# -- a.yaml\na: 1\n\n# -- b.yaml\nb: 1\n"


async def test_the_difference_of_two_versions_is_the_control_planes() -> None:
    answers: Answers = {("GET", "/v1/config/diff"): (200, {"diff": "-a\n+b\n"})}
    async with connected(answers) as (client, app):
        assert (await commands.diff_versions(client, 2, 3, NOTHING)).text == "-a\n+b\n"
    assert app.asked[-1][1] == "/v1/config/diff?from=2&to=3"
    async with connected({("GET", "/v1/config/diff"): (200, {"diff": ""})}) as (client, _):
        same = await commands.diff_versions(client, 2, 3, NOTHING)
    assert same.text == "versions 2 and 3 say the same"


async def test_the_difference_of_files_is_to_what_is_in_force(good: Path) -> None:
    pushed = {"version": 3, "files": [{"name": "x", "content": GOOD.replace("15001", "15002")}]}
    async with connected({("GET", "/v1/config"): (200, pushed)}) as (client, _):
        outcome = await commands.diff_files(client, [good], NOTHING)
    assert "--- version 3" in outcome.text
    assert "-    port: 15002" in outcome.text
    assert "+    port: 15001" in outcome.text


async def test_where_nothing_is_in_force_all_is_new(good: Path) -> None:
    answers: Answers = {("GET", "/v1/config"): (404, {"status": 404})}
    async with connected(answers) as (client, _):
        outcome = await commands.diff_files(client, [good], NOTHING)
    assert outcome.text.count("\n+") == len(GOOD.splitlines()) + 1


# -- two operators ---------------------------------------------------------------------------------


async def test_a_push_over_what_its_maker_has_not_seen_is_refused(
    good: Path, seen: SeenVersions
) -> None:
    async with connected({("PUT", "/v1/config"): (200, PUSHED)}) as (client, app):
        seen.saw_in_force(client.url, 2)
        for dry_run in (False, True):
            with pytest.raises(OperatorError) as caught:
                await push(client, good, seen=seen, dry_run=dry_run)
        asked = [method for method, *_ in app.asked]
    assert "PUT" not in asked
    message = str(caught.value)
    assert "version 3 is in force (a.yaml, by admin, 1970-01-01T00:00:00Z)" in message
    assert "the last that you have seen is 2" in message
    assert "`hms config diff 2 3`" in message
    assert "--force" in message
    assert seen.get(client.url) == 2


async def test_who_saw_that_there_was_nothing_is_told_to_look(
    good: Path, seen: SeenVersions
) -> None:
    async with connected({}) as (client, _):
        seen.saw_in_force(client.url, 0)
        with pytest.raises(OperatorError, match="you have seen none; .* `hms config show`"):
            await push(client, good, seen=seen)


async def test_a_rollback_over_what_its_maker_has_not_seen_is_refused(seen: SeenVersions) -> None:
    answers: Answers = {("POST", "/v1/config/versions/1/rollback"): (200, PUSHED)}
    async with connected(answers) as (client, app):
        seen.saw_in_force(client.url, 2)
        with pytest.raises(OperatorError) as caught:
            await commands.rollback(client, 1, seen)
        assert "POST" not in [method for method, *_ in app.asked]
        assert seen.get(client.url) == 2
        message = str(caught.value)
        assert "version 3 is in force (a.yaml, by admin, 1970-01-01T00:00:00Z)" in message
        assert "with `hms config diff 2 3`, and roll back again; or overwrite it with" in message

        outcome = await commands.rollback(client, 1, seen, force=True)
        assert app.asked[-1][2]["if-match"] == '"3"'
        assert "\nit replaces one that was not shown here before: a.yaml" in outcome.text
        assert seen.get(client.url) == 4


async def test_a_rollback_of_what_was_seen_says_no_more(seen: SeenVersions) -> None:
    answers: Answers = {("POST", "/v1/config/versions/2/rollback"): (200, PUSHED)}
    async with connected(answers) as (client, _):
        seen.saw_in_force(client.url, 3)
        outcome = await commands.rollback(client, 2, seen)
    assert outcome.text == "ok: version 4 is in force, and says what version 2 said"


async def test_somebody_was_faster_than_a_rollback(seen: SeenVersions) -> None:
    stale = {"status": 412, "detail": "version 3 is in force"}
    answers: Answers = {("POST", "/v1/config/versions/2/rollback"): (412, stale)}
    async with connected(answers) as (client, _):
        with pytest.raises(OperatorError, match="`hms config diff 3 3`, and roll back again$"):
            await commands.rollback(client, 2, seen)


@pytest.mark.parametrize("known", [None, 3, 7])
@pytest.mark.parametrize("force", [False, True])
async def test_a_push_is_accepted_and_remembered(
    good: Path, seen: SeenVersions, known: int | None, *, force: bool
) -> None:
    async with connected({("PUT", "/v1/config"): (200, PUSHED)}) as (client, app):
        if known is not None:
            seen.saw_in_force(client.url, known)
        outcome = await push(client, good, seen=seen, force=force)
    assert app.asked[-1][2]["if-match"] == '"3"'
    # 7 was of another control plane, or of one that was restored.
    assert ("not shown here before: a.yaml" in outcome.text) == (known != 3)
    assert seen.get(client.url) == 4


async def test_force_overwrites_and_says_whose(good: Path, seen: SeenVersions) -> None:
    async with connected({("PUT", "/v1/config"): (200, PUSHED)}) as (client, _):
        seen.saw_in_force(client.url, 2)
        outcome = await push(client, good, seen=seen, force=True)
    assert "it replaces one that was not shown here before: a.yaml, by admin" in outcome.text


async def test_what_is_said_of_the_files_counts_more_than_what_was_seen(
    good: Path, seen: SeenVersions
) -> None:
    async with connected({("PUT", "/v1/config"): (200, PUSHED)}) as (client, app):
        seen.saw_in_force(client.url, 1)
        outcome = await push(client, good, seen=seen, made_from=3)
    assert app.asked[-1][2]["if-match"] == '"3"'
    assert outcome.text == "ok: version 4 is in force, after 3"


async def test_a_dry_run_and_a_refusal_are_not_remembered(good: Path, seen: SeenVersions) -> None:
    stale = {"status": 412, "detail": "version 3 is in force"}
    answers: Answers = {("PUT", "/v1/config"): (200, {**PUSHED, "dry_run": True})}
    async with connected(answers) as (client, app):
        await push(client, good, seen=seen, dry_run=True)
        app.answers["PUT", "/v1/config"] = (412, stale)
        with pytest.raises(OperatorError):
            await push(client, good, seen=seen)
    assert seen.get(client.url) is None


async def test_whatever_shows_a_version_remembers_it(good: Path, seen: SeenVersions) -> None:
    content = {"version": 3, "files": [{"name": "a.yaml", "content": GOOD}]}
    answers: Answers = {
        ("GET", "/v1/config"): (200, content),
        ("GET", "/v1/config/versions/2"): (200, {**content, "version": 2}),
        ("GET", "/v1/config/diff"): (200, {"diff": ""}),
        ("POST", "/v1/config/versions/2/rollback"): (200, PUSHED),
    }
    async with connected(answers) as (client, _):
        for look, then in (
            (commands.show(client, 2, seen), 2),
            (commands.history(client, seen), 3),
            (commands.show(client, 2, seen), 3),
            (commands.diff_versions(client, 1, 2, seen), 3),
            (commands.diff_versions(client, 6, 2, seen), 6),
            (commands.diff_files(client, [good], seen), 3),
            (commands.rollback(client, 2, seen), 4),
            (commands.show(client, None, seen), 3),
        ):
            await look
            assert seen.get(client.url) == then
