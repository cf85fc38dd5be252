"""A hook that nobody has described or tried is not a contract (after Datasette's own tests)."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.hook_chain import REQUEST_HOOKS
from hms_addons.hookspecs import ENTRY_POINT_GROUP, MeshSpecs
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HOOKS = [name for name in vars(MeshSpecs) if not name.startswith("__")]


def names_of_tests(folder: Path) -> set[str]:
    """The name of every test function below `folder`."""
    return {
        node.name
        for path in folder.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.fixture(scope="module")
def all_tests() -> set[str]:
    return names_of_tests(ROOT / "tests")


@pytest.fixture(scope="module")
def guide() -> str:
    return (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")


def test_hooks_are_found() -> None:
    assert set(REQUEST_HOOKS) < set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_it_is_named_as_a_hook(hook: str) -> None:
    assert hook.startswith("hms_")
    assert callable(getattr(MeshSpecs, hook))


@pytest.mark.parametrize("hook", HOOKS)
def test_it_has_a_docstring(hook: str) -> None:
    """It is the hook's documentation: what is asked of an implementation."""
    documentation = inspect.getdoc(getattr(MeshSpecs, hook)) or ""
    summary = documentation.partition("\n")[0]
    assert len(summary.split()) >= 3, f"describe {hook} in hookspecs.py"
    assert summary[-1] in ".?!"


@pytest.mark.parametrize("hook", HOOKS)
def test_it_has_a_test(hook: str, all_tests: set[str]) -> None:
    """A function `test_<hook>` or `test_<hook>_…`, anywhere under tests/."""
    named = re.compile(rf"test_{hook}(_.*)?")
    assert any(map(named.fullmatch, all_tests)), f"write a test_{hook}"


@pytest.mark.parametrize("hook", HOOKS)
def test_the_guide_names_it_with_its_arguments(hook: str, guide: str) -> None:
    """plugins/README.md has a table of hooks, which must not fall behind."""
    arguments = list(inspect.signature(getattr(MeshSpecs, hook)).parameters)[1:]
    assert f"| `{hook}({', '.join(arguments)})` |" in guide


def test_the_guide_names_no_hook_that_is_not_there(guide: str) -> None:
    named = set(re.findall(r"`(hms_\w+)\(", guide))
    assert named == set(HOOKS)


def test_the_guide_names_the_entry_point_group(guide: str) -> None:
    assert f"[project.entry-points.{ENTRY_POINT_GROUP}]" in guide
