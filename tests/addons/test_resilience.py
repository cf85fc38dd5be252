"""The plugin that forwards. What becomes of a request is `Forwarding`'s, and tested with it."""

from __future__ import annotations

from hms_addons.addons.resilience import Resilience
from tests.fakes.upstream import World


async def test_it_carries_a_request_out() -> None:
    world = World()
    answer = await Resilience().hms_forward(world.exchange(), world.manager)
    assert (answer.status, answer.body) == (200, b"ok")
    world.check_quiet()
    await world.close()


def test_it_comes_last_so_that_a_plugin_can_answer_in_its_place() -> None:
    assert Resilience.hms_forward.hms_impl["trylast"]  # type: ignore[attr-defined] # pluggy's mark
