from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.policy_condition import Check, Condition, claim_texts

CLAIMS: dict[str, Any] = {
    "unit": "claims-east",
    "org": {"unit": {"name": "fraud"}, "tags": ["a", "b", 3, None]},
    "https://mpsa.mil/level": "gold",
    "mfa": True,
    "level": 3.0,
    "share": 0.5,
    "gone": None,
    "bag": {"x": 1},
}


def claim(path: str, **kinds: Any) -> Condition:
    return Condition(claim=path, **kinds)


def header(name: str, **kinds: Any) -> Condition:
    return Condition(header=name, **kinds)


def holds(condition: Condition, *fields: tuple[str, str], deny: bool = False) -> bool:
    encoded = tuple((name.encode(), value.encode("latin-1")) for name, value in fields)
    return Check(condition, deny=deny).holds(CLAIMS, encoded)


# -- claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        claim("unit", values=("claims-east",)),
        claim("unit", values=("other", "claims-*")),
        claim("unit", values=("*-east",)),
        claim("unit", values=("*",)),
        claim("unit", present=True),
        claim("unit", regex=re.compile("claims-[a-z]+")),
        claim("unit", not_values=("claims-west", "*-north")),
        claim("org.unit.name", values=("fraud",)),
        claim("org.tags", values=("b",)),
        claim("org.tags", values=("3",)),
        claim("https://mpsa.mil/level", values=("gold",)),
        claim("mfa", values=("true",)),
        claim("level", values=("3",)),
        claim("share", values=("0.5",)),
        claim("missing", present=False),
        claim("gone", present=False),
        claim("missing", not_values=("x",)),
        claim("unit", values=("claims-*",), not_values=("*-west",), regex=re.compile(".*east")),
    ],
)
@pytest.mark.parametrize("deny", [False, True])
def test_claims_that_are_as_asked(condition: Condition, deny: bool) -> None:
    assert holds(condition, deny=deny)


@pytest.mark.parametrize(
    "condition",
    [
        claim("unit", values=("claims",)),
        claim("unit", values=("Claims-east",)),
        claim("unit", values=("east*",)),
        claim("unit", present=False),
        claim("unit", regex=re.compile("claims")),
        claim("unit", not_values=("claims-*",)),
        claim("org.tags", not_values=("x", "b")),
        claim("unit", not_values=("*",)),
        claim("org.unit", values=("*",)),
        claim("org.unit.name.deeper", values=("*",)),
        claim("bag", present=True),
        claim("missing", values=("*",)),
        claim("missing", present=True),
        claim("missing", regex=re.compile(".*")),
        claim("gone", values=("*", "None", "null")),
        claim("unit", values=("claims-*",), not_values=("*-east",)),
    ],
)
@pytest.mark.parametrize("deny", [False, True])
def test_claims_that_are_not_as_asked(condition: Condition, deny: bool) -> None:
    assert not holds(condition, deny=deny)


def test_a_claim_is_looked_for_where_the_path_leads_only() -> None:
    assert claim_texts({"a": {"b": "x"}}, ("a", "b")) == ("x",)
    assert claim_texts({"a.b": "whole", "a": {"b": "x"}}, ("a", "b")) == ("whole",)
    assert claim_texts({"a": "x"}, ("a", "b")) == ()
    assert claim_texts({"a": [["nested"], {"b": 1}, "x"]}, ("a",)) == ("x",)


# -- headers --------------------------------------------------------------------------------------

BETA = header("x-env", values=("beta",))


@pytest.mark.parametrize("deny", [False, True])
def test_a_header_is_asked_for_by_its_name_in_any_case(deny: bool) -> None:
    assert holds(BETA, ("X-Env", "beta"), deny=deny)
    assert not holds(BETA, ("X-Env", "prod"), deny=deny)
    assert not holds(BETA, ("X-Other", "beta"), deny=deny)
    assert not holds(BETA, deny=deny)


def test_of_two_lines_a_deny_takes_any_and_an_allow_wants_all() -> None:
    """Which of them the app reads is not known."""
    lines = (("X-Env", "beta"), ("x-env", "prod"))
    assert holds(BETA, *lines, deny=True)
    assert not holds(BETA, *lines, deny=False)
    other = header("x-env", not_values=("beta",))
    assert holds(other, *lines, deny=True)
    assert not holds(other, *lines, deny=False)


def test_an_underscore_evades_no_deny_and_earns_no_allow() -> None:
    """WSGI and CGI hand an app `X_Env` as `X-Env`."""
    assert holds(BETA, ("X_Env", "beta"), deny=True)
    assert not holds(BETA, ("X_Env", "beta"), deny=False)
    assert not holds(BETA, ("X-Env", "beta"), ("X_Env", "prod"), deny=False)
    absent = header("x-env", present=False)
    assert not holds(absent, ("X_Env", "beta"), deny=False)
    assert holds(absent, ("X-Other", "beta"), deny=False)


@pytest.mark.parametrize("value", ["beta", "beta\xa0", "\x85beta", "\xa0\x85 beta"])
def test_what_an_app_may_strip_evades_no_deny_and_earns_no_allow(value: str) -> None:
    """As with `str.strip`; HTTP itself knows only spaces and tabs, which the parser has taken off."""
    beta = header("x-env", values=("beta",))
    assert holds(beta, ("X-Env", value), deny=True)
    assert holds(beta, ("X-Env", value)) == (value == "beta")
    others = header("x-env", not_values=("beta",))
    assert holds(others, ("X-Env", value), deny=True) == (value != "beta"), "in doubt it is met"


def test_what_is_missing_meets_every_not_values() -> None:
    condition = header("x-env", not_values=("beta",))
    assert holds(condition, deny=True)
    assert holds(condition, deny=False)


@given(st.lists(st.sampled_from(["beta", "prod", "x"]), max_size=3), st.booleans())
def test_a_deny_refuses_whatever_an_allow_of_the_same_would_take(
    values: list[str], negated: bool
) -> None:
    condition = header("x-env", **{"not_values" if negated else "values": ("beta", "pr*")})
    lines = [("X-Env", value) for value in values]
    if holds(condition, *lines, deny=False):
        assert holds(condition, *lines, deny=True)


def test_in_words() -> None:
    assert str(claim("a.b", values=("x", "y*"), not_values=("z",))) == (
        "the claim a.b to be x or y* and not to be z"
    )
    assert str(header("x-a", present=True)) == "the header x-a to be there"
    assert str(header("x-a", present=False)) == "the header x-a not to be there"
    assert str(header("x-a", regex=re.compile("a+"))) == "the header x-a to match a+"
    many = str(claim("a", values=tuple("v" * 99 for _ in range(9))))
    assert "or 4 more" in many
    assert len(many) < 400
    assert repr(Check(BETA, deny=True)) == "<Check the header x-env to be beta>"
