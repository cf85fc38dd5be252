"""Rules of DESIGN §4 and CONTRIBUTING that import-linter and ruff cannot say."""

from __future__ import annotations

import ast
import functools
import re
from typing import TYPE_CHECKING

import pytest

from tests.architecture.source import MODULES, ROOT, Import, called_name, dotted, imports, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

type Rule = Callable[[str, ast.Module], Iterator[tuple[int, str]]]

MITMPROXY_USERS = {
    "hms_addons.engine.mode",
    "hms_addons.engine.flow_builder",
    "hms_addons.engine.native_dns",
    "hms_addons.engine.native_lane",
    "hms_addons.engine.native_trailers",
    "hms_addons.replay.flow_file",
    "hms_addons.mesh",
}
CTX_USERS = {"hms_addons.engine.mode", "hms_addons.mesh"}
FLOW_TYPES = ("mitmproxy.http", "mitmproxy.flow", "mitmproxy.connection")  # … and its parts

COMPILED = {
    f"hms_addons.{module.replace('/', '.')}"
    for line in re.findall(
        r"^modules=\((.*?)\)",
        (ROOT / "scripts" / "compile").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    for module in line.split()
}

CLOCK_READERS = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time)(_ns)?"
    r"|time\.sleep"
    r"|(datetime\.)?datetime\.(now|utcnow|today)"
    r"|(.*\.)?call_(later|at)"
)
TASK_STARTERS = re.compile(
    r"asyncio\.(create_task|ensure_future)"
    r"|(.*\.)?\w*loop\.(\(\)\.)?create_task"
)
SHARED_RANDOM = re.compile(r"random\.[a-z]\w*")


@functools.lru_cache(maxsize=1)
def nodes(tree: ast.Module) -> list[ast.AST]:
    """All of a tree, for one rule after the other."""
    return list(ast.walk(tree))


@functools.lru_cache(maxsize=1)
def every_import(tree: ast.Module) -> list[Import]:
    """All that a tree imports, for one rule after the other."""
    return list(imports(tree))


def mitmproxy_only_for_the_flow_type(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Import-linter sees imports that run; this one also reads those for type checkers."""
    if name in MITMPROXY_USERS or name.startswith("hms_addons.window."):
        return
    for line, imported, typing_only in every_import(tree):
        if imported.split(".")[0] != "mitmproxy":
            continue
        if not typing_only:
            yield line, f"imports {imported}: outside {sorted(MITMPROXY_USERS)} only for types"
        elif not imported.startswith(FLOW_TYPES):
            yield line, f"imports {imported}: only the flow's type may be named here"


def no_global_context(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """mitmproxy's `ctx` is a global; those who read it cannot run beside a second master."""
    if name in CTX_USERS:
        return
    for line, imported, _ in every_import(tree):
        if imported.startswith("mitmproxy.ctx"):
            yield line, f"reads mitmproxy's global ctx: only {sorted(CTX_USERS)} may"


def engine_names_no_addon(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Nor in a string: what the engine does for one plugin it must do for any."""
    if not name.startswith("hms_addons.engine"):
        return
    for node in nodes(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if node.value.startswith("hms_addons.addons"):
            yield node.lineno, f"names {node.value}"


def time_is_injected(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Whoever reads a clock or sets a timer takes a `hms_addons.clock.Clock`."""
    if name == "hms_addons.clock":
        return
    for node in nodes(tree):
        if not isinstance(node, ast.Call):
            continue
        called = called_name(node)
        if CLOCK_READERS.fullmatch(called) and "clock." not in called:
            yield node.lineno, f"calls {called}: take a hms_addons.clock.Clock"
        if called == "asyncio.sleep" and not is_zero(node.args[:1]):
            yield node.lineno, "calls asyncio.sleep: take a hms_addons.clock.Clock"


def is_zero(arguments: list[ast.expr]) -> bool:
    """`asyncio.sleep(0)` gives others a turn; it waits for no time to pass."""
    return [isinstance(a, ast.Constant) and a.value == 0 for a in arguments] == [True]


def tasks_are_supervised(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The loop keeps only a weak reference to a task, and nobody reads its exception."""
    if name == "hms_addons.tasks":
        return
    for node in nodes(tree):
        if isinstance(node, ast.Call) and TASK_STARTERS.fullmatch(called_name(node)):
            yield node.lineno, f"calls {called_name(node)}: use a hms_addons.tasks.TaskSet"


def randomness_is_injected(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """`random.random()` shares one unseeded generator; a test can only hope."""
    del name
    for node in nodes(tree):
        if isinstance(node, ast.Call) and SHARED_RANDOM.fullmatch(called_name(node)):
            yield node.lineno, f"calls {called_name(node)}: take a random.Random"


def compiled_classes_have_compiled_heirs(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """mypyc: an interpreted class derived from a compiled one fails when its first object is made."""
    if name in COMPILED:
        return
    compiled = {
        found.rpartition(".")[2]: found
        for _, found, _ in every_import(tree)
        if found.rpartition(".")[0] in COMPILED
    }
    for node in nodes(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in compiled:
                    yield node.lineno, f"derives from {compiled[base.id]}, which is compiled"


RULES: list[Rule] = [
    mitmproxy_only_for_the_flow_type,
    no_global_context,
    engine_names_no_addon,
    time_is_injected,
    tasks_are_supervised,
    randomness_is_injected,
    compiled_classes_have_compiled_heirs,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    found = violations()[rule]
    assert not found, "\n".join(found)


@functools.cache
def violations() -> dict[Rule, list[str]]:
    """Of all rules at once: each file is read and walked through once."""
    found: dict[Rule, list[str]] = {rule: [] for rule in RULES}
    for path in MODULES:
        name, tree = dotted(path), parse(path)
        for rule, messages in found.items():
            messages += [f"{path}:{line}: {message}" for line, message in rule(name, tree)]
    return found


BREACHES: list[tuple[Rule, str, str]] = [
    (
        compiled_classes_have_compiled_heirs,
        "engine.flow_view",
        "from hms_addons.http_message import BodyStream\nclass Watched(BodyStream): ...",
    ),
    (mitmproxy_only_for_the_flow_type, "addons.routing", "from mitmproxy import http"),
    (mitmproxy_only_for_the_flow_type, "errors", "def f():\n    import mitmproxy.http"),
    (
        mitmproxy_only_for_the_flow_type,
        "exchange",
        "if TYPE_CHECKING:\n    from mitmproxy.options import Options",
    ),
    (no_global_context, "engine.native_lane", "from mitmproxy import ctx"),
    (no_global_context, "addons.admin", "import mitmproxy.ctx"),
    (engine_names_no_addon, "engine.listener", "load('hms_addons.addons.rbac')"),
    (time_is_injected, "upstream.pool", "time.monotonic()"),
    (time_is_injected, "upstream.pool", "asyncio.sleep(1)"),
    (time_is_injected, "upstream.pool", "asyncio.get_running_loop().call_later(1, f)"),
    (time_is_injected, "control.app", "datetime.now(UTC)"),
    (time_is_injected, "control.app", "datetime.datetime.now(UTC)"),
    (tasks_are_supervised, "engine.drain", "asyncio.create_task(f())"),
    (tasks_are_supervised, "engine.drain", "asyncio.get_running_loop().create_task(f())"),
    (tasks_are_supervised, "engine.drain", "self._loop.create_task(f())"),
    (randomness_is_injected, "upstream.retry", "random.uniform(0, 1)"),
]


@pytest.mark.parametrize(("rule", "module", "source"), BREACHES)
def test_rule_bites(rule: Rule, module: str, source: str) -> None:
    assert list(rule(f"hms_addons.{module}", ast.parse(source)))


PERMITTED: list[tuple[Rule, str, str]] = [
    (mitmproxy_only_for_the_flow_type, "engine.mode", "from mitmproxy.proxy import mode_servers"),
    (
        mitmproxy_only_for_the_flow_type,
        "exchange",
        "if TYPE_CHECKING:\n    from mitmproxy.http import HTTPFlow",
    ),
    (no_global_context, "mesh", "from mitmproxy import ctx"),
    (time_is_injected, "upstream.pool", "self._clock.call_later(1, f)"),
    (time_is_injected, "upstream.pool", "clock.monotonic()"),
    (time_is_injected, "upstream.pool", "asyncio.sleep(0)"),
    (tasks_are_supervised, "engine.drain", "group.create_task(f())"),
    (randomness_is_injected, "upstream.retry", "random.Random(7).uniform(0, 1)"),
]


@pytest.mark.parametrize(("rule", "module", "source"), PERMITTED)
def test_rule_permits(rule: Rule, module: str, source: str) -> None:
    assert not list(rule(f"hms_addons.{module}", ast.parse(source)))
