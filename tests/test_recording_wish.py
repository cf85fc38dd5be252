from __future__ import annotations

import pytest

from hms_addons.errors import ConfigError
from hms_addons.recording_wish import RecordingWish


def test_what_is_not_said_is_as_usual() -> None:
    assert RecordingWish.of({}) == RecordingWish(60.0, "inbound", 1024 * 1024)


def test_what_is_said_counts() -> None:
    query = {"for": "1m30s", "direction": "both", "max_body": "64KiB", "format": "json"}
    assert RecordingWish.of(query) == RecordingWish(90.0, "both", 65536)
    assert RecordingWish.of({"max_body": "0"}).most_body == 0


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"for": "5"}, "for: expected a duration"),
        ({"for": "0s"}, "for: more than 0, and at most 1h"),
        ({"for": "2h"}, "at most 1h"),
        ({"direction": "up"}, "direction: one of inbound, outbound, both"),
        ({"max_body": "lots"}, "max_body: expected a size"),
        ({"max_body": "1GiB"}, "max_body: at most 16MiB"),
        ({"fro": "5s"}, "fro: no such parameter; there are direction, for, max_body"),
    ],
)
def test_what_is_wrong_is_told(query: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        RecordingWish.of(query)
