from __future__ import annotations

import pytest

from hms_addons.config.load import load


def errors(when: str) -> list[str]:
    text = f"rbac: {{policies: [{{name: p, action: DENY, when: [{when}]}}]}}"
    loaded = load([("a.yaml", text.encode())])
    return [str(p).split(": ", 1)[1] for p in loaded.problems if p.severity == "error"]


@pytest.mark.parametrize(
    "when",
    [
        "{claim: org.unit, values: [a, 'b*', '*c', '*']}",
        "{claim: org.unit, values: a}",
        "{claim: 'https://x/y', not_values: [a]}",
        "{header: X-Env, regex: 'a+'}",
        "{header: X-Env, present: false}",
        "{header: X-Env, present: true, not_values: a}",
    ],
)
def test_what_can_be_asked(when: str) -> None:
    assert errors(when) == []


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{values: [a]}", ": give exactly one of claim, header"),
        ("{claim: a, header: b, values: [a]}", ".header: give exactly one of claim, header"),
        ("{claim: a}", ": give one of values, not_values, regex, present"),
        ("{claim: a, values: []}", ".values: must not be empty"),
        (
            "{claim: 'a..b', present: true}",
            ".claim: expected the dotted path of a claim, as org.unit",
        ),
        ("{claim: a, values: ['a*b']}", ".values[0]: a value has at most one '*'"),
        ("{claim: a, values: ['*a*']}", ".values[0]: a value has at most one '*'"),
        ("{claim: a, values: ['**']}", ".values[0]: a value has at most one '*'"),
        ("{claim: a, values: ['']}", ".values[0]: an empty value"),
        ("{claim: a, values: [true]}", ".values[0]: expected a text, not true"),
        ("{claim: a, value: [x]}", ".value: unknown key 'value' (did you mean values?)"),
        ("{claim: a, regex: '(a+)+'}", ".regex: "),
        ("{header: Authorization, present: true}", ".header: no policy can ask for Authorization"),
        ("{header: 'X A', present: true}", ".header: 'X A' cannot be the name of a header"),
        ("{claim: a, present: false, values: [x]}", ".values: what must not be there"),
        (
            "{claim: a, values: [x], not_values: [x]}",
            ".not_values: 'x' is under values and not_values",
        ),
    ],
)
def test_what_cannot(when: str, message: str) -> None:
    (found,) = errors(when)
    assert found.startswith(f"rbac.policies[0].when[0]{message}"), found
