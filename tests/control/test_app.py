from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.control.app import build_api, build_app
from hms_addons.control.auth import Kind
from hms_addons.control.rate_limit import Rate
from tests.fakes.api import ask
from tests.fakes.plane import running_plane

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_document_is_made_once_and_names_the_version(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as made:
        api = build_api(made.plane)
        document = api.openapi()
        assert document is api.openapi()
        assert document["info"]["title"] == "HMS control plane"
        assert document["info"]["version"]


async def test_fastapis_own_pages_are_not_there(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as made:
        for path in ("/redoc", "/docs/oauth2-redirect", "/v1/bundle/"):
            assert (await made.ask("GET", path)).status_code == 404


async def test_rates_may_be_others(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as made:
        app = build_app(made.plane, {kind: Rate(1, 1) for kind in (None, *Kind)})
        statuses = [(await ask(app, "GET", "/healthz")).status_code for _ in range(2)]
    assert statuses == [200, 429]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}])
async def test_nothing_but_what_is_public_is_open(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running_plane(tmp_path) as made:
        document = build_api(made.plane).openapi()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                url = path.format(id="x", service="x", version="1")
                answer = await made.ask(method.upper(), url, headers=headers)
                assert (answer.status_code == 401) == bool(operation["security"]), (method, path)
