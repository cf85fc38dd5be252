"""The OpenAPI document is true: about who may, about errors, and about nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control.api.openapi import page
from hms_addons.control.auth import PERMISSIONS, Kind

if TYPE_CHECKING:
    from tests.fakes.plane import RunningPlane


@pytest.fixture
async def document(control: RunningPlane) -> dict[str, Any]:
    return dict((await control.ask("GET", "/openapi.json")).json())


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = [op for methods in document["paths"].values() for op in methods.values()]
    return {operation["operationId"]: operation for operation in found}


def test_every_operation_of_the_table_is_there_and_no_other(document: dict[str, Any]) -> None:
    assert operations(document).keys() == PERMISSIONS.keys()


def test_who_may_is_what_the_table_says(document: dict[str, Any]) -> None:
    names = {Kind.ADMIN: "adminToken", Kind.TOKEN: "joinToken", Kind.SIDECAR: "svid"}
    assert set(document["components"]["securitySchemes"]) == set(names.values())
    for name, operation in operations(document).items():
        kinds = PERMISSIONS[name].kinds
        shown = {scheme for need in operation["security"] for scheme in need}
        assert shown == (set() if Kind.ANYONE in kinds else {names[kind] for kind in kinds}), name


def test_every_error_is_problem_details(document: dict[str, Any]) -> None:
    reference = {"$ref": "#/components/schemas/ProblemModel"}
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if status >= "400":
                content = response["content"]
                assert content == {"application/problem+json": {"schema": reference}}, (
                    name,
                    status,
                )
                assert response["description"]


def test_guarded_operations_say_401_and_403(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        public = Kind.ANYONE in PERMISSIONS[name].kinds
        assert ("401" in operation["responses"]) == (not public), name
        assert ("403" in operation["responses"]) == (not public), name
        assert {"400", "429", "500"} <= operation["responses"].keys()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def follow(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(target := value.get("$ref"), str):
                assert target.removeprefix("#/components/schemas/") in schemas
            for item in value.values():
                follow(item)
        elif isinstance(value, list):
            for item in value:
                follow(item)

    follow(document)
    assert "HTTPValidationError" not in schemas


def test_no_example_looks_like_a_secret(document: dict[str, Any]) -> None:
    text = str(document)
    assert "hmsadm1." not in text
    assert "PRIVATE KEY" not in text


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["description"], name


def test_the_page_escapes_what_it_shows() -> None:
    made = {
        "info": {"title": "<b>", "description": "a & b"},
        "paths": {
            "/<x>": {
                "get": {
                    "security": [],
                    "summary": "<i>",
                    "parameters": [{"name": "<p>", "in": "query"}],
                    "responses": {"200": {"description": "<d>"}},
                }
            }
        },
    }
    text = page(made)
    for raw in ("<b>", "<i>", "<p>:", "<d>", "/<x>"):
        assert raw not in text.replace("<p>For", "")
    assert "&lt;d&gt;" in text
