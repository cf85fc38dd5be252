from __future__ import annotations

import re
import uuid

from hms_addons.engine.identifiers import new_id, new_traceparent


def test_ids_are_unique_and_look_like_uuids() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(one)) == one for one in ids)


def test_a_trace_context_is_valid_and_new_each_time() -> None:
    """W3C Trace Context, section 3.2: lower-case hex, neither ID all zeroes."""
    seen = set()
    for _ in range(1000):
        value = new_traceparent().decode()
        match = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-00", value)
        assert match, value
        assert int(match[1], 16)
        assert int(match[2], 16)
        seen.add(value)
    assert len(seen) == 1000
