"""`/v1/config`: the configuration that is handed out, and its history."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from hms_addons.config.problems import ConfigProblems
from hms_addons.control.api.access import PlaneOf
from hms_addons.control.api.guard import CallerOf, GuardedRoute
from hms_addons.control.api.models import (
    ConfigContent,
    ConfigDiff,
    ConfigFiles,
    ConfigVersions,
    PushResult,
)
from hms_addons.control.api.problems import ApiError
from hms_addons.control.configs import (
    ConfigTooLargeError,
    FollowsFilesError,
    StaleConfigError,
    UnknownVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hms_addons.control.configs import PutResult
    from hms_addons.control.plane import ControlPlane

router = APIRouter(route_class=GuardedRoute, tags=["config"])

YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
JSON_TYPE: Final = "application/json"
DEFAULT_NAME: Final = "config.yaml"

_TAG = re.compile(r'"([0-9]{1,15})"')
_ETAG: Final = {
    "ETag": {"description": "The version, in quotes.", "schema": {"type": "string"}},
}
_STALE: Final = {"description": "Another version is in force than `If-Match` names."}
_UNKNOWN: Final = {"description": "There is no such version."}
_FOLLOWS: Final = {"description": "This control plane follows files; nothing can be pushed."}

Version = Annotated[int, Path(ge=1, le=2**53, description="A version's number.")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="The ETag that the change was made from: refused if another version is in "
        "force. Without it, the change is made whatever is in force.",
        examples=['"3"'],
        max_length=200,
    ),
]
DryRun = Annotated[bool, Query(description="Only check.")]
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            JSON_TYPE: {"schema": {"$ref": "#/components/schemas/ConfigFiles"}},
        },
    }
}


@router.put(
    "/v1/config",
    operation_id="put_config",
    summary="Push a configuration",
    openapi_extra=_BODY,
    responses={
        200: {"headers": _ETAG},
        409: _FOLLOWS,
        412: _STALE,
        415: {"description": "The body is neither YAML nor JSON."},
    },
)
async def put_config(
    plane: PlaneOf,
    caller: CallerOf,
    request: Request,
    response: Response,
    if_match: IfMatch = None,
    *,
    dry_run: DryRun = False,
) -> PushResult:
    """Check a configuration as `hms check` does and hand it out.

    One file as YAML, or several as JSON, the later over the earlier. What is wrong with it is told
    as 422 with every problem's file, line and column; then nothing has changed. The same content
    again changes nothing either.
    """
    files = await _files_of(request)
    expected = _expected(if_match)
    with _told(plane):
        result = await plane.configs.put(
            files, author=caller.name, expected=expected, dry_run=dry_run
        )
    return _pushed(plane, response, result, dry_run=dry_run)


@router.post(
    "/v1/config/versions/{version}/rollback",
    operation_id="roll_back_config",
    summary="Go back to a version",
    responses={200: {"headers": _ETAG}, 404: _UNKNOWN, 409: _FOLLOWS, 412: _STALE},
)
async def roll_back_config(
    plane: PlaneOf,
    caller: CallerOf,
    response: Response,
    version: Version,
    if_match: IfMatch = None,
    *,
    dry_run: DryRun = False,
) -> PushResult:
    """Make what a version held the newest version. It is checked again, and nothing is lost."""
    expected = _expected(if_match)
    with _told(plane):
        result = await plane.configs.rollback(
            version, author=caller.name, expected=expected, dry_run=dry_run
        )
    return _pushed(plane, response, result, dry_run=dry_run)


@router.get(
    "/v1/config",
    operation_id="get_config",
    summary="The configuration in force",
    responses={
        200: {"headers": _ETAG},
        404: {"description": "Nothing has been pushed yet."},
    },
)
async def get_config(plane: PlaneOf, response: Response) -> ConfigContent:
    """The files in force, as they were pushed."""
    current = plane.configs.current
    if current is None:
        raise ApiError(404, "nothing has been pushed yet: `hms config push FILE…`")
    return await _content(plane, response, current.version)


@router.get(
    "/v1/config/versions",
    operation_id="list_config_versions",
    summary="The versions",
    responses={200: {"headers": _ETAG}},
)
async def list_config_versions(plane: PlaneOf, response: Response) -> ConfigVersions:
    """The versions that are kept, the newest first; the ETag names the one in force."""
    versions = plane.configs.versions()
    response.headers["ETag"] = f'"{versions[0].version if versions else 0}"'
    return ConfigVersions.model_validate({"versions": [asdict(version) for version in versions]})


@router.get(
    "/v1/config/versions/{version}",
    operation_id="get_config_version",
    summary="One version",
    responses={200: {"headers": _ETAG}, 404: _UNKNOWN},
)
async def get_config_version(plane: PlaneOf, response: Response, version: Version) -> ConfigContent:
    """One version's files, as they were pushed."""
    return await _content(plane, response, version)


@router.get(
    "/v1/config/diff",
    operation_id="diff_config",
    summary="What lies between two versions",
    responses={404: _UNKNOWN},
)
async def diff_config(
    plane: PlaneOf,
    old: Annotated[int, Query(alias="from", ge=0, le=2**53, description="0 is nothing at all.")],
    new: Annotated[int, Query(alias="to", ge=0, le=2**53)],
) -> ConfigDiff:
    """A unified diff, file by file; empty if the two say the same."""
    with _told(plane):
        return ConfigDiff(diff=await plane.configs.diff(old, new))


async def _content(plane: ControlPlane, response: Response, version: int) -> ConfigContent:
    with _told(plane):
        found = await plane.configs.version(version)
    response.headers["ETag"] = f'"{version}"'
    files = [
        {"name": name, "content": content.decode("utf-8", "replace")}
        for name, content in found.files
    ]
    return ConfigContent.model_validate({**asdict(found.about), "files": files})


def _pushed(
    plane: ControlPlane, response: Response, result: PutResult, *, dry_run: bool
) -> PushResult:
    current = plane.configs.current
    response.headers["ETag"] = f'"{current.version if current else 0}"'
    problems = [problem.to_json() for problem in result.problems]
    return PushResult.model_validate(
        {
            "version": result.version,
            "changed": result.changed,
            "dry_run": dry_run,
            "problems": problems,
        }
    )


@contextmanager
def _told(plane: ControlPlane) -> Iterator[None]:
    """What can be wrong with a push, as the API tells it."""
    try:
        yield
    except ConfigProblems as error:
        plane.metrics.pushes_refused.inc()
        problems = [problem.to_json() for problem in error.problems]
        detail = f"the configuration is refused, and nothing has changed: {problems_in(problems)}"
        raise ApiError(422, detail, problems=problems) from None
    except StaleConfigError as error:
        raise ApiError(412, str(error), headers={"ETag": f'"{error.version}"'}) from None
    except FollowsFilesError as error:
        raise ApiError(409, str(error)) from None
    except ConfigTooLargeError as error:
        raise ApiError(413, str(error)) from None
    except UnknownVersionError as error:
        raise ApiError(404, str(error)) from None


def problems_in(problems: Sequence[dict[str, Any]]) -> str:
    """How many there are, and the first."""
    errors = [problem for problem in problems if problem["severity"] == "error"]
    first = errors[0]
    place = f"{first['file']}:{first['line']}:{first['column']}: {first['message']}"
    more = len(errors) - 1
    return place + (f" (and {more} more)" if more else "")


async def _files_of(request: Request) -> list[tuple[str, bytes]]:
    """The files in a body of either form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in YAML_TYPES:
        return [(DEFAULT_NAME, await request.body())]
    if kind != JSON_TYPE:
        detail = f"send one file as {min(YAML_TYPES)}, or several as {JSON_TYPE}"
        raise ApiError(415, detail, headers={"Accept": f"application/yaml, {JSON_TYPE}"})
    try:
        sent = ConfigFiles.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False)) from None
    names = [file.name for file in sent.files]
    if len(set(names)) < len(names):
        raise ApiError(422, "two files have the same name")
    return [(file.name, file.content.encode("utf-8", "surrogatepass")) for file in sent.files]


def _expected(if_match: str | None) -> int | None:
    """The version that must be in force, if there must be a certain one."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise ApiError(400, 'If-Match must be the ETag of a version, as "3"')
    return int(found[1])
