from __future__ import annotations

from hms_addons.config.compile_values import compile_header_values, compile_values
from hms_addons.config.schema_values import ValueModel


def test_each_kind_of_condition() -> None:
    exact, regex, absent = compile_values(
        {
            "a": ValueModel(exact="1"),
            "B": ValueModel(regex="[0-9]+"),
            "c": ValueModel(present=False),
        }
    )
    assert (exact.name, exact.accepts(["1"]), exact.accepts(["2"])) == ("a", True, False)
    assert (regex.name, regex.accepts(["12"]), regex.accepts(["12x"])) == ("B", True, False)
    assert (absent.accepts([]), absent.accepts(["x"])) == (True, False)


def test_header_fields_are_found_in_any_spelling() -> None:
    (condition,) = compile_header_values({"X-Canary": ValueModel(exact="yes")})
    assert condition.name == "x-canary"
