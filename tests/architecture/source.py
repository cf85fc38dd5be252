"""The source tree as the architecture tests read it: files and syntax trees, nothing imported."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "hms_addons").rglob("*.py"))
"""Every source file, relative to the repository."""


class Import(NamedTuple):
    """One imported name: `from a.b import c` is `a.b.c`, `import a.b` is `a.b`."""

    line: int
    name: str
    typing_only: bool


def dotted(path: Path) -> str:
    """`hms_addons/engine/mode.py` is `hms_addons.engine.mode`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file that is named relative to the repository."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.AST, *, typing_only: bool = False) -> Iterator[Import]:
    """Every import of a tree, wherever it stands, in the order of the file."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(node.lineno, alias.name, typing_only)
            case ast.ImportFrom():
                for alias in node.names:
                    yield Import(node.lineno, f"{node.module}.{alias.name}", typing_only)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from imports(ast.Module(node.body, []), typing_only=True)
                yield from imports(ast.Module(node.orelse, []), typing_only=typing_only)
            case _:
                yield from imports(node, typing_only=typing_only)


def called_name(node: ast.Call) -> str:
    """`asyncio.create_task(…)` is `asyncio.create_task`; a call inside the chain is `()`."""
    parts: list[str] = []
    target: ast.expr = node.func
    while True:
        match target:
            case ast.Attribute():
                parts.append(target.attr)
                target = target.value
            case ast.Call():
                parts.append("()")
                target = target.func
            case ast.Name():
                return ".".join(reversed([*parts, target.id]))
            case _:
                return ".".join(reversed(parts))
