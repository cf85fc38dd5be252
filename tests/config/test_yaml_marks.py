from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.problems import ConfigProblems, Place
from hms_addons.config.yaml_marks import MAX_BYTES, MAX_NODES, Document, load_yaml, unmarked


def read(text: str) -> Document:
    return load_yaml(text.encode(), "f.yaml")


def refusal(content: str | bytes) -> str:
    raw = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(ConfigProblems) as caught:
        load_yaml(raw, "f.yaml")
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_every_key_and_value_has_its_place() -> None:
    marks = read("a: 1\nb:\n  - x: yes\n    y: {z: 2}\n").marks
    assert marks.place_of(("a",)) == Place("f.yaml", 1, 4)
    assert marks.place_of(("a",), at_key=True) == Place("f.yaml", 1, 1)
    assert marks.place_of(("b", 0, "y", "z")) == Place("f.yaml", 4, 12)
    assert marks.place_of(("b", 0, "y", "z"), at_key=True) == Place("f.yaml", 4, 9)
    assert marks.place_of(("b", 0)) == Place("f.yaml", 3, 5)


def test_what_is_missing_is_shown_where_it_belongs() -> None:
    marks = read("a: 1\nb:\n  - x: 1\n").marks
    assert marks.place_of(("b", 0, "nope")) == Place("f.yaml", 3, 5)
    assert marks.place_of(("b", 7, "x")) == Place("f.yaml", 3, 3)
    assert marks.place_of(("a", "deeper", 1)) == Place("f.yaml", 1, 4)
    assert marks.place_of(()) == Place("f.yaml", 1, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("0.25", 0.25),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2024-01-01", "2024-01-01"),
        ("0.25s", "0.25s"),
        ("'true'", "true"),
        ('"12"', "12"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("! 12", "12"),
        ("9" * 30, "9" * 30),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read(f"a: {text}").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_on_is_a_key_like_any_other() -> None:
    assert read("on: [reset]\nno: 1\ny: 2").data == {"on": ["reset"], "no": 1, "y": 2}


def test_aliases_and_merge_keys() -> None:
    document = read("a: &d {x: 1, y: 2}\nb:\n  <<: *d\n  y: 3\nc: {<<: [{x: 9}, *d]}\nd: *d\n")
    assert document.data["b"] == {"x": 1, "y": 3}
    assert document.data["c"] == {"x": 9, "y": 2}
    assert document.data["d"] == {"x": 1, "y": 2}
    assert document.marks.place_of(("b", "x")) == Place("f.yaml", 1, 11)
    assert document.marks.place_of(("b", "y")) == Place("f.yaml", 4, 6)
    assert read("'<<': 1").data == {"<<": 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: the key 'a' is here twice; first in line 1"),
        ("x:\n  a: 1\n  a: 1", "f.yaml:3:3: the key 'a' is here twice"),
        ("1: x", "f.yaml:1:1: the key '1' is not a text"),
        ("true: x", "f.yaml:1:1: the key 'true' is not a text"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be a text"),
        ("a: &k b\n*k : c", "f.yaml:2:1: a key must be a text"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document"),
        ("a: !!python/object:os.system ls", "f.yaml:1:4: the tag tag:yaml.org,2002:python"),
        ("a: !secret x", "f.yaml:1:4: the tag !secret is not understood"),
        ("a: !!set {b}", "f.yaml:1:4: the tag"),
        ("a:\n\tb: 1", "f.yaml:2:1: found character that cannot start any token"),
        ("a: [1, 2\nb: 3", "f.yaml:2:2: not valid YAML"),
        ("a: b: c", "f.yaml:1:5: not valid YAML: mapping values are not allowed"),
        ("a: *nope", "f.yaml:1:4: the alias *nope has no anchor"),
        ("a: &a [*a]", "f.yaml:1:8: the alias *a is inside"),
        ("a: {<<: 5}", "f.yaml:1:9: '<<' needs a mapping"),
        (b"a: \xff\xfe", "f.yaml:1:4: not readable as UTF-8 text"),
        (b"ok: 1\na: \x00", "f.yaml:2:4: not readable as UTF-8 text"),
        ("[" * 70, "f.yaml:1:66: nested deeper than 64 levels"),
        ("a: " + "[" * 100_000, "nested deeper"),
        (b"#" * (MAX_BYTES + 1), "at most 10485760 are read"),
    ],
)
def test_refused(content: str | bytes, problem: str) -> None:
    assert problem in refusal(content)


def test_a_tab_is_named_as_the_cause() -> None:
    assert "this line begins with a tab" in refusal("a:\n\tb: 1")


def test_a_billion_laughs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "the aliases stand for more than" in refusal("\n".join(lines))


def test_empty_documents() -> None:
    for text in ("", "# nothing\n", "---\n"):
        assert read(text).data is None


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text("aé\n: #'\"-", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("aé :#-", max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain_data)
def test_json_and_safe_dumps_are_read_back(data: Any) -> None:
    assert read(json.dumps(data, ensure_ascii=False)).data == data
    assert read(yaml.safe_dump(data, allow_unicode=True)).data == data


@given(st.binary(max_size=60) | st.text("a:-[]{}&*!|>'\"#%@,? \n\t", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_place(content: bytes) -> None:
    try:
        load_yaml(content, "f.yaml")
    except ConfigProblems as error:
        (problem,) = error.problems
    else:
        return
    assert problem.line >= 1
    assert problem.column >= 1


def test_data_that_was_written_nowhere_still_has_marks() -> None:
    document = unmarked({"a": [{"b": 1}]}, "(here)")
    assert document.marks.place_of(("a", 0, "b"), at_key=True) == Place("(here)", 1, 1)


def test_more_values_than_a_configuration_may_have_are_refused() -> None:
    def listed(count: int) -> Document:
        return load_yaml(b"a: [" + b"[]," * count + b"]", "f.yaml")

    assert listed(MAX_NODES - 2).nodes == MAX_NODES
    with pytest.raises(ConfigProblems, match=f"more than {MAX_NODES} values in one file"):
        listed(MAX_NODES - 1)


def test_five_thousand_routes_are_far_from_too_many() -> None:
    routes = "".join(
        f"- {{match: {{prefix: /r{n}}}, action: {{cluster: c, timeout: 1s}}}}\n"
        for n in range(5000)
    )
    assert load_yaml(routes.encode(), "f.yaml").nodes < MAX_NODES / 3
