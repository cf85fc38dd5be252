from __future__ import annotations

import pytest

from hms_addons.control.store.protocol import (
    MAX_KEY_LENGTH,
    CompactedError,
    ConflictError,
    LeaseError,
    StoreError,
    check_key,
)


@pytest.mark.parametrize(
    "key", ["a", "services/auth-svc/7", "ключ", "\U0001f9ed", "x" * MAX_KEY_LENGTH]
)
def test_a_key_is_a_text(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "x" * (MAX_KEY_LENGTH + 1)])
def test_what_no_store_could_keep_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        check_key(key)


def test_a_conflict_says_how_the_key_is_now() -> None:
    changed = ConflictError("config/current", 7)
    gone = ConflictError("config/current", 0)

    assert (changed.key, changed.revision) == ("config/current", 7)
    assert "last written at revision 7" in str(changed)
    assert "does not exist" in str(gone)


def test_each_error_is_a_store_error_that_names_the_remedy() -> None:
    errors = [CompactedError(9), LeaseError("l1"), ConflictError("k", 1)]

    assert all(isinstance(error, StoreError) for error in errors)
    assert "read everything again" in str(errors[0])
    assert "take a new one" in str(errors[1])
    assert "read it again" in str(errors[2])
