from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_addons.config.safe_regex import UnsafeRegexError, compile_regex, compile_search

LONG = 8000


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"/users/[0-9]+", "/users/42"),
        (r"/.*\.png", "/a/b.png"),
        (r"/a/[^/]+/b/[^/]+", "/a/x/b/y"),
        (r"(?:/[^/]+)*", "/a/b/c"),
        (r"/v[12]/(?:users|groups)/\d+(?:/.*)?", "/v1/groups/3/x"),
        (r"(?i)/abc.*d[0-9]+", "/ABCxD9"),
        (r"[a-z]{1,3}[a-z0-9]{1,3}", "ab1"),
        (r"/.*/edit/[0-9]+", "/a/edit/1"),
        (r"\w+-\w+\.\w+", "a-b.c"),
        (r"(a|b)*", "abab"),
        (r"(?:ab)*ab*", "abababb"),
        (r"\d{4}-\d{2}", "2024-01"),
        (r"", ""),
    ],
)
def test_accepted(pattern: str, text: str) -> None:
    assert compile_regex(pattern).fullmatch(text)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a+)+", "repeat inside a repeat"),
        (r"(a*)*b", "repeat inside a repeat"),
        (r"(?:[a-z]+/?)*", "alternatives or an optional part"),
        (r"(?:/.+)*", "repeat inside a repeat"),
        (r"(a|ab)*c", "alternatives"),
        (r"(a?){50}a{50}", "alternatives or an optional part"),
        (r".*.*x", "two repeats"),
        (r"/a/.*/b/.*", "two repeats"),
        (r"[a-z]+[a-z0-9]+", "two repeats"),
        (r"(?i)[a-z]*K[k]*", "two repeats"),
        (r"a{1,5000}a{1,5000}", "two repeats"),
        ("a?" * 20 + "a" * 20, "more than 64 alternatives"),
        (r"(.)\1", "back-reference"),
        (r"(?=a)a", "look-around"),
        (r"(?<!a)b", "look-around"),
        (r"(", "not a regular expression"),
        (r"[z-a]", "not a regular expression"),
        (r"*", "not a regular expression"),
        (r"a{99999999999999999999}", "not a regular expression"),
        ("a" * 1001, "1001 characters"),
    ],
)
def test_refused(pattern: str, why: str) -> None:
    with pytest.raises(UnsafeRegexError, match=why):
        compile_regex(pattern)


atoms = st.sampled_from(["a", "b", "/", ".", "[ab]", "[^/]", "[^a]", "(?:ab)", "(?:a|b)"])
patterns = st.lists(
    st.tuples(atoms, st.sampled_from(["", "*", "+", "?", "{2,30}", "*?"])).map("".join), max_size=6
).flatmap(
    lambda parts: st.sampled_from(
        ["".join(parts), f"(?:{''.join(parts)})*", f"(?:{''.join(parts)})+c"]
    )
)
attacks = st.sampled_from(
    [c * LONG + end for c in ("a", "b", "ab", "a/", "/a", "/", "aab") for end in ("", "!", "c!")]
)


@settings(max_examples=300)
@given(patterns, attacks)
def test_what_is_accepted_is_never_slow(pattern: str, text: str) -> None:
    """The long texts above take a quadratic pattern many seconds, a worse one for ever."""
    try:
        compiled = compile_regex(pattern)
    except UnsafeRegexError:
        return
    begun = time.process_time()
    compiled.fullmatch(text)
    assert time.process_time() - begun < 0.5


@given(patterns, st.text("ab/c", max_size=12))
def test_it_is_python_s_own_regex(pattern: str, text: str) -> None:
    try:
        compiled = compile_regex(pattern)
    except UnsafeRegexError:
        return
    assert bool(compiled.fullmatch(text)) == bool(re.fullmatch(pattern, text))


def test_what_is_searched_for_is_short() -> None:
    assert compile_search(r"\+?\d{1,3}[ -]?\d{2,4}[ -]?\d{3,8}", 19).search("on +41 79 1234567")
    assert compile_search(r"[0-9]{13,19}", 19).sub("x", "a 4111111111111111 b") == "a x b"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"[0-9]+", "bound what it repeats"),
        (r"[0-9]{1,20}", "more than 19 characters"),
        (r"[0-9]*?", "empty text"),
        (r"\b", "empty text"),
        (r"(a+)+", "repeat inside a repeat"),
        (r"[a-z]{0,4}[a-z]{0,4}[a-z]{0,4}!", "two repeats"),
    ],
)
def test_what_cannot_be_searched_for(pattern: str, why: str) -> None:
    with pytest.raises(UnsafeRegexError, match=why):
        compile_search(pattern, 19)
