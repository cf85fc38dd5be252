"""`tests/README.md` maps every line of SEMANTICS to tests that are there."""

from __future__ import annotations

import ast
import functools
import re
from typing import NamedTuple

import pytest

from tests.architecture.source import ROOT

TABLE = ROOT / "tests" / "README.md"
SEMANTICS = ROOT.parent / "shared" / "SEMANTICS.md"
QUOTED = "SEMANTICS, line by line"

CELLS = re.compile(r"(?<!\\)\|")
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
NAMED_FILE = re.compile(r"`([\w/]+\.py)`")


class Row(NamedTuple):
    """One promise, and the tests that show it: (file in tests/, name)."""

    promise: str
    tests: tuple[tuple[str, str], ...]


class Topic(NamedTuple):
    """A heading of the third level, under one of the second."""

    part: str
    name: str
    modules: tuple[str, ...]
    rows: tuple[Row, ...]


def topics(text: str) -> list[Topic]:
    """The tables of the page, in order."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, *sections = re.split(r"^### ", part, flags=re.MULTILINE)
        for section in sections:
            name, _, body = section.partition("\n")
            lines = body.splitlines()
            modules = [line for line in lines if line.startswith("Test modules: ")]
            rows = [CELLS.split(line) for line in lines if line.startswith("| ")][1:]
            found.append(
                Topic(
                    title.strip(),
                    name.strip(),
                    tuple(NAMED_FILE.findall("".join(modules))),
                    tuple(Row(row[1].strip(), tuple(NAMED_TEST.findall(row[2]))) for row in rows),
                )
            )
    return found


@functools.cache
def defined_in(file: str) -> frozenset[str]:
    """The tests of a file in tests/, by name; none where there is no such file."""
    path = ROOT / "tests" / file
    if not path.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def faults(found: list[Topic]) -> list[str]:
    """What is wrong with the tables, in words."""
    wrong = []
    for topic in found:
        named = {file for row in topic.rows for file, _ in row.tests}
        if not topic.rows or list(topic.modules) != sorted(named):
            wrong.append(f"{topic.name}: its modules are {sorted(named)}")
        for row in topic.rows:
            if not row.tests:
                wrong.append(f"{topic.name}: nothing shows {row.promise!r}")
            wrong.extend(
                f"{topic.name}: there is no {file}::{name}"
                for file, name in row.tests
                if name not in defined_in(file)
            )
    return wrong


def words(markdown: str) -> str:
    """The text without line breaks, bullets and what a table needs."""
    text = re.sub(r"^- ", "", markdown, flags=re.MULTILINE).replace("\\|", "|")
    return " ".join(text.split())


def test_every_promise_has_tests_and_they_are_there() -> None:
    found = topics(TABLE.read_text(encoding="utf-8"))
    assert sum(len(topic.rows) for topic in found) > 150
    assert not (wrong := faults(found)), "\n".join(wrong)


def test_it_quotes_every_word_of_semantics() -> None:
    if not SEMANTICS.is_file():
        pytest.skip(f"{SEMANTICS} is not there")
    _, *sections = re.split(r"^## ", SEMANTICS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    promised = {
        name.strip(): words(body) for name, _, body in (s.partition("\n") for s in sections)
    }
    found = {
        topic.name: words("\n".join(row.promise for row in topic.rows))
        for topic in topics(TABLE.read_text(encoding="utf-8"))
        if topic.part == QUOTED
    }
    assert list(found) == list(promised)
    for name, text in promised.items():
        assert found[name] == text, name


ITSELF = "`architecture/test_semantics_table.py"
NAME = "test_every_promise_has_tests_and_they_are_there"
GOOD = f"""\
## Part
### Topic

Test modules: {ITSELF}`.

| promise | shown by | remarks |
|---|---|---|
| `a: x\\|y` | {ITSELF}::{NAME}` | |
"""


def test_a_good_table_is_read() -> None:
    (topic,) = topics(GOOD)
    file = ITSELF.removeprefix("`")
    row = Row("`a: x\\|y`", ((file, NAME),))
    assert topic == Topic("Part", "Topic", (file,), (row,))
    assert faults([topic]) == []


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        (f"::{NAME}`", "::test_that_is_not_there`", "there is no"),
        ("table.py::", "other.py::", "there is no"),
        (f"{ITSELF}::{NAME}`", "", "nothing shows"),
        (f"Test modules: {ITSELF}`.", "", "its modules are"),
        (f"modules: {ITSELF}`", f"modules: {ITSELF}`, `conftest.py`", "its modules are"),
    ],
)
def test_a_bad_one_is_told(written: str, instead: str, told: str) -> None:
    assert written in GOOD
    assert any(told in fault for fault in faults(topics(GOOD.replace(written, instead, 1))))
