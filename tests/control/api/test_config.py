from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.check import check_files
from tests.fakes.cli import BAD, GOOD

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.fakes.plane import RunningPlane

YAML = {"Content-Type": "application/yaml"}
OTHER = GOOD.replace("9001", "9002")


async def push(control: RunningPlane, text: str | bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await control.admin("PUT", "/v1/config", content=text, headers={**YAML, **named})


async def push_files(control: RunningPlane, **files: str) -> httpx.Response:
    sent = [{"name": f"{name}.yaml", "content": content} for name, content in files.items()]
    return await control.admin("PUT", "/v1/config", json={"files": sent})


async def version(control: RunningPlane) -> int:
    return int((await control.admin("GET", "/v1/config/versions")).headers["etag"].strip('"'))


# -- pushing ---------------------------------------------------------------------------------------


async def test_a_good_configuration_is_in_force_at_once(control: RunningPlane) -> None:
    answer = await push(control, GOOD)
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"1"'
    result = answer.json()
    assert (result["version"], result["changed"], result["dry_run"]) == (1, True, False)
    shown = await control.admin("GET", "/v1/config")
    assert shown.headers["etag"] == '"1"'
    assert shown.json()["files"] == [{"name": "config.yaml", "content": GOOD}]
    assert shown.json()["author"] == "admin"


async def test_the_same_again_changes_nothing_and_says_so(control: RunningPlane) -> None:
    await push(control, GOOD)
    answer = await push(control, GOOD)
    assert (answer.json()["version"], answer.json()["changed"]) == (1, False)


async def test_several_files_are_one_configuration(control: RunningPlane) -> None:
    answer = await push_files(control, a=GOOD, b="clusters:\n  - { name: auth-svc, priority: 1 }\n")
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["file"] == "b.yaml"
    more = "clusters:\n  - { name: auth-svc, connect_timeout: 1s }\n"
    assert (await push_files(control, a=GOOD, b=more)).status_code == 200
    files = (await control.admin("GET", "/v1/config")).json()["files"]
    assert [file["name"] for file in files] == ["a.yaml", "b.yaml"]


async def test_what_is_wrong_is_told_as_check_tells_it(
    control: RunningPlane, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    wanted = [
        {**problem.to_json(), "file": "config.yaml"} for problem in check_files([path]).problems
    ]
    answer = await push(control, BAD)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["problems"] == wanted
    assert answer.json()["detail"].startswith(
        "the configuration is refused, and nothing has changed"
    )
    assert await version(control) == 0
    assert (await control.admin("GET", "/v1/config")).status_code == 404
    assert "hms_control_config_rejected_total 1.0" in (await control.ask("GET", "/metrics")).text


async def test_what_could_not_be_shown_again_is_refused(control: RunningPlane) -> None:
    answer = await push(control, GOOD.encode("utf-16"))
    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert (problem["file"], problem["line"]) == ("config.yaml", 1)
    assert problem["message"].startswith("not readable as UTF-8 text")
    assert await version(control) == 0


async def test_a_dry_run_changes_nothing(control: RunningPlane) -> None:
    path = "/v1/config?dry_run=1"
    answer = await control.admin("PUT", path, content=GOOD, headers=YAML)
    assert (answer.json()["version"], answer.json()["dry_run"]) == (1, True)
    assert answer.headers["etag"] == '"0"'
    assert (await control.admin("PUT", path, content=BAD, headers=YAML)).status_code == 422
    assert await version(control) == 0


async def test_a_stale_if_match_is_refused(control: RunningPlane) -> None:
    assert (await push(control, GOOD, If_Match='"0"')).status_code == 200
    answer = await push(control, OTHER, If_Match='"0"')
    assert answer.status_code == 412
    assert answer.headers["etag"] == '"1"'
    assert "version 1 is in force, not 0" in answer.json()["detail"]
    assert (await push(control, OTHER, If_Match='"1"')).json()["version"] == 2
    assert (await push(control, GOOD, If_Match="*")).json()["version"] == 3


@pytest.mark.parametrize("tag", ["3", 'W/"1"', '"one"', '"1", "2"', '"-1"', '"' + "9" * 40 + '"'])
async def test_an_if_match_that_is_no_tag_of_ours_is_refused(
    control: RunningPlane, tag: str
) -> None:
    answer = await push(control, GOOD, If_Match=tag)
    assert answer.status_code == 400
    assert await version(control) == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
async def test_another_content_type_is_refused(control: RunningPlane, kind: str) -> None:
    answer = await push(control, GOOD, Content_Type=kind)
    assert answer.status_code == 415
    assert "application/yaml" in answer.headers["accept"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"files": []},
        {"files": [{"name": "a"}]},
        {"files": [{"name": "a", "content": 1}]},
        {"files": [{"name": "a", "content": "", "more": 1}]},
        {"files": [{"name": "a", "content": ""}] * 2},
        {"files": "a: 1"},
        [],
        "a: 1",
    ],
)
async def test_json_that_is_no_files_is_refused(control: RunningPlane, body: Any) -> None:
    assert (await control.admin("PUT", "/v1/config", json=body)).status_code == 422


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"a", b"\xff\xfe", b"a: &a [*a]", b"---\n---\n", b"{" * 10_000]
)
async def test_no_bytes_are_a_fault_of_ours(control: RunningPlane, body: bytes) -> None:
    answer = await push(control, body)
    assert answer.status_code in {200, 422}


async def test_a_yaml_bomb_is_refused_with_its_place(control: RunningPlane) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    answer = await push(control, "\n".join(lines))
    assert answer.status_code == 422
    assert "aliases" in answer.json()["problems"][0]["message"]


async def test_what_is_pushed_is_not_logged(
    control: RunningPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hms_addons")
    await push(control, GOOD + "\n# a-secret-in-a-comment\n")
    await push(control, BAD + "\n# a-secret-in-a-comment\n")
    assert "a-secret-in-a-comment" not in caplog.text


# -- looking back ----------------------------------------------------------------------------------


async def test_versions_are_listed_with_the_newest_first(control: RunningPlane) -> None:
    await push(control, GOOD)
    await push(control, OTHER)
    versions = (await control.admin("GET", "/v1/config/versions")).json()["versions"]
    assert [item["version"] for item in versions] == [2, 1]
    assert versions[0]["source"] == "config.yaml"
    old = await control.admin("GET", "/v1/config/versions/1")
    assert old.json()["files"][0]["content"] == GOOD


async def test_a_rollback_is_a_new_version(control: RunningPlane) -> None:
    await push(control, GOOD)
    await push(control, OTHER)
    answer = await control.admin("POST", "/v1/config/versions/1/rollback")
    assert (answer.status_code, answer.json()["version"]) == (200, 3)
    assert (await control.admin("GET", "/v1/config")).json()["files"][0]["content"] == GOOD
    stale = await control.admin(
        "POST", "/v1/config/versions/2/rollback", headers={"If-Match": '"2"'}
    )
    assert stale.status_code == 412


async def test_the_difference_of_two_versions(control: RunningPlane) -> None:
    await push(control, GOOD)
    await push(control, OTHER)
    diff = (await control.admin("GET", "/v1/config/diff?from=1&to=2")).json()["diff"]
    assert "9001" in diff
    assert "9002" in diff
    assert (await control.admin("GET", "/v1/config/diff?from=1&to=1")).json() == {"diff": ""}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/config/versions/7", 404),
        ("GET", "/v1/config/versions/0", 422),
        ("GET", "/v1/config/versions/x", 422),
        ("GET", "/v1/config/versions/99999999999999999999", 422),
        ("POST", "/v1/config/versions/7/rollback", 404),
        ("GET", "/v1/config/diff?from=1&to=7", 404),
        ("GET", "/v1/config/diff?from=1", 422),
    ],
)
async def test_what_is_not_there_is_said_not_to_be(
    control: RunningPlane, method: str, path: str, status: int
) -> None:
    await push(control, GOOD)
    assert (await control.admin(method, path)).status_code == status


async def test_a_sidecar_may_not_see_the_configuration(control: RunningPlane) -> None:
    assert (await control.sidecar("a-svc", "GET", "/v1/config")).status_code == 403
    body = json.dumps({"files": []})
    assert (await control.sidecar("a-svc", "PUT", "/v1/config", content=body)).status_code == 403
