from __future__ import annotations

from tests.replay.kit import recorded


def test_a_request_is_called_by_its_method_and_target() -> None:
    assert recorded(b"/a?b=\xff", method="PUT").name == "PUT /a?b=\xff"
