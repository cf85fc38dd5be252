"""Where files may lie: the top level of DESIGN §4, and a test file for each module."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

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


def test_every_module_has_its_test_file() -> None:
    modules = [ROOT / module for module in MODULES if module.name != "__init__.py"]
    missing = [mirror(module) for module in modules if not mirror(module).is_file()]
    assert not missing, "write " + "\nwrite ".join(str(p.relative_to(ROOT)) for p in missing)


def test_every_test_file_tests_something() -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    empty = [p for p in files if not any(map(is_test, ast.walk(ast.parse(p.read_text()))))]
    assert not empty
