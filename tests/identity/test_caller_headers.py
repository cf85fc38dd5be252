from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.identity.caller_headers import (
    MAX_ROLE_HEADER,
    HeaderValueError,
    role_header,
    subject_header,
)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_roles_arrive_as_they_were_or_not_at_all(roles: list[str]) -> None:
    try:
        value = role_header(tuple(roles))
    except HeaderValueError:
        return
    assert not set(value) & set(b"\r\n\0")
    assert [part.strip(b" \t") for part in value.split(b",")] == [
        r.encode("latin-1") for r in roles
    ]


@given(st.text())
def test_a_subject_arrives_as_it_was_or_not_at_all(subject: str) -> None:
    try:
        value = subject_header(subject)
    except HeaderValueError:
        return
    assert value
    assert all(0x20 <= byte != 0x7F for byte in value)
    assert value.strip().decode("latin-1") == subject


def test_the_role_header_is_bounded() -> None:
    role_header(("x" * MAX_ROLE_HEADER,))
    with pytest.raises(HeaderValueError, match=str(MAX_ROLE_HEADER)):
        role_header(("x" * (MAX_ROLE_HEADER // 2), "y" * (MAX_ROLE_HEADER // 2)))
