from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hms_addons.engine.log_limit import PER_SECOND, LogLimit
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    import pytest


def test_so_many_a_second_and_then_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = FakeClock()
    limit = LogLimit(logging.getLogger("mine"), clock)
    for number in range(1000):
        limit.info("line %d", number)
    assert caplog.messages == [f"line {number}" for number in range(PER_SECOND)]
    assert repr(limit) == f"<LogLimit mine kept_back={1000 - PER_SECOND}>"
    caplog.clear()
    clock.tick(1.0)
    limit.info("again")
    assert caplog.messages == ["990 further lines like these were left out", "again"]
    caplog.clear()
    clock.tick(60.0)
    limit.info("and later")
    assert caplog.messages == ["and later"]
