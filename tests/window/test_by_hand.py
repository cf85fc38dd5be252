"""What a person may change on a running sidecar, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import ConfigError
from hms_addons.window.by_hand import ByHand
from tests.fakes.configs import snapshot_of
from tests.fakes.hand import CONFIG, HandSidecar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Hand:
    def __init__(self) -> None:
        self.sidecar = HandSidecar()
        self.by_hand = ByHand(self.sidecar)  # type: ignore[arg-type] # a part of it
        self.sidecar.on_applied = self.by_hand.applied


@pytest.fixture
async def hand() -> AsyncIterator[Hand]:
    made = Hand()
    yield made
    await made.sidecar.upstream.close()


async def test_a_breaker_is_opened_shown_and_closed_again(hand: Hand) -> None:
    assert hand.by_hand.open("auth-svc", "127.0.0.1:9001", 60.0) == ["127.0.0.1:9001"]
    assert hand.by_hand.describe()["open_breakers"] == ["auth-svc 127.0.0.1:9001"]
    assert hand.by_hand.mend("auth-svc") == ["auth-svc 127.0.0.1:9001"]
    assert hand.by_hand.describe()["open_breakers"] == []


async def test_all_that_is_open_by_hand_is_closed_at_once(hand: Hand) -> None:
    hand.by_hand.open("auth-svc", None, 60.0)
    hand.by_hand.open("auth-svc-v2", None, 60.0)
    assert len(hand.by_hand.mend("")) == 3


@pytest.mark.parametrize(
    ("cluster", "address", "seconds", "says"),
    [
        ("auth-scv", None, 60.0, "no cluster 'auth-scv'"),
        ("auth-svc", "127.0.0.1:1", 60.0, "no endpoint 127.0.0.1:1 any more"),
        ("auth-svc", None, 0.0, "at most 1h"),
        ("auth-svc", None, 3601.0, "at most 1h"),
    ],
)
async def test_a_breaker_that_cannot_be_opened(
    hand: Hand, cluster: str, address: str | None, seconds: float, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        hand.by_hand.open(cluster, address, seconds)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("auth-scv", "did you mean auth-svc"),
        ("auth-svc", "nothing of auth-svc is open by hand"),
        ("", "nothing is open by hand"),
    ],
)
async def test_what_cannot_be_mended(hand: Hand, cluster: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        hand.by_hand.mend(cluster)


async def test_a_share_lasts_until_the_next_configuration_which_says_so(
    hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    hand.by_hand.share("auth-svc", "auth-svc-v2", 50)
    hand.by_hand.share("auth-svc", "auth-svc-v2", 60)
    assert hand.by_hand.describe()["shares"] == ["auth-svc-v2 60% of auth-svc"]
    assert hand.sidecar.snapshot is not None
    assert "auth-svc-v2 60% of auth-svc" in hand.sidecar.snapshot.source
    assert caplog.text == ""
    hand.sidecar.apply_now(replace(snapshot_of(CONFIG), version="next"))
    assert "configuration next is in force" in caplog.text
    assert "are gone: auth-svc-v2 60% of auth-svc" in caplog.text
    assert hand.by_hand.describe()["shares"] == []
    assert repr(hand.by_hand) == "<ByHand shares=[]>"
    caplog.clear()
    hand.sidecar.apply_now(snapshot_of(CONFIG))
    assert caplog.text == ""


async def test_a_share_that_is_refused_changes_nothing(hand: Hand) -> None:
    before = hand.sidecar.snapshot
    hand.sidecar.bad = True
    with pytest.raises(ConfigError, match="a plugin refused it"):
        hand.by_hand.share("auth-svc", "auth-svc-v2", 50)
    assert hand.sidecar.snapshot is before
    assert hand.by_hand.describe()["shares"] == []


async def test_before_there_is_a_configuration(hand: Hand) -> None:
    hand.sidecar.snapshot = None
    assert hand.by_hand.splits == {}
    with pytest.raises(ConfigError, match="no configuration yet"):
        hand.by_hand.share("auth-svc", "auth-svc-v2", 50)
