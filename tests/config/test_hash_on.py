"""`HashOn` in words."""

from __future__ import annotations

from hms_addons.config.hash_on import HashKey, HashOn


def test_a_key_in_words() -> None:
    assert str(HashOn(kind=HashKey.HEADER, name="x-user")) == "header x-user"
    assert str(HashOn(kind=HashKey.SOURCE)) == "source"
    made = HashOn(kind=HashKey.COOKIE, name="s", attributes="; HttpOnly")
    assert str(made) == "cookie s, made where it is missing"
