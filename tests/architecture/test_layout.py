"""Where files may lie: the top level of DESIGN §4, and a test file for each module."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.architecture.source import MODULES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

TOP_LEVEL = {
    "hms_addons",
    "plugins",
    "configs",
    "tests",
    "scripts",
    "docker",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
}
# What installing and packaging leave behind; .gitignore names them too.
MADE = {"build", "dist", "hms_svc.egg-info", "__pycache__"}


def test_top_level_holds_nothing_else() -> None:
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert names - MADE <= TOP_LEVEL


def mirror(module: Path) -> Path:
    """The test file of a module: hms_addons/a/b.py has tests/a/test_b.py."""
    inner = module.relative_to(ROOT / "hms_addons")
    return ROOT / "tests" / inner.with_name(f"test_{inner.name.removeprefix('_')}")


def is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__init__.py"], ids=str)
def test_every_module_has_its_test_file(module: Path) -> None:
    path = mirror(ROOT / module)
    assert path.is_file(), f"write {path.relative_to(ROOT)}: it belongs to {module}"
    assert any(map(is_test, ast.walk(ast.parse(path.read_text())))), f"{path} tests nothing"


def test_every_test_file_has_its_module() -> None:
    """A test left behind by a renamed module is as misleading as a missing one."""
    expected = {mirror(ROOT / module) for module in MODULES}
    packages = {path.parent for path in expected}
    strays = {
        path.relative_to(ROOT)
        for package in packages
        for path in package.glob("test_*.py")
        # test_b_limits.py may stand beside test_b.py.
        if not any(path.stem == e.stem or path.stem.startswith(f"{e.stem}_") for e in expected)
    }
    assert not strays
