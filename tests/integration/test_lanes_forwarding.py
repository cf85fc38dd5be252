"""One suite over every lane: failover, fallbacks, mirrors, hedged reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.servers import chunks, hang_up, silent, status
from tests.integration.test_lanes import check_problem

if TYPE_CHECKING:
    from tests.integration.conftest import Backends, Lane
    from tests.integration.servers import Upstream


def test_a_cluster_without_endpoints_hands_its_requests_on(lane: Lane, backends: Backends) -> None:
    answer = lane.fetch("POST", "/failover", body=b"hello")
    assert (answer.status, answer.json["port"]) == (200, backends.app.port)
    assert (answer.flag, answer.header("x-hms-fallback")) == (None, None), "a real answer"


def test_a_fixed_answer_stands_in_for_a_dead_cluster(lane: Lane) -> None:
    with lane.connect() as connection:
        for method in ("GET", "POST"):
            answer = connection.exchange(method, "/fall/fixed", body=b"")
            assert (answer.status, answer.body, answer.flag) == (203, b"[]", "FB")
            assert answer.header("content-type") == "application/json"
            assert answer.header("x-hms-fallback") == "response; because=UF"
        answer = connection.exchange("HEAD", "/fall/fixed")
        assert (answer.status, answer.header("content-length")) == (203, "2")
        assert connection.exchange("GET", "/fall/fixed").body == b"[]"


def test_another_cluster_stands_in(lane: Lane, backends: Backends) -> None:
    answer = lane.fetch("POST", "/fall/other", body=b"hello")
    assert (answer.status, answer.flag, answer.json["port"]) == (200, "FB", backends.app.port)
    assert answer.header("x-hms-fallback") == "cluster=dead-other; because=UF"


def test_the_last_good_answer_stands_in_for_the_same_caller_alone(
    lane: Lane, app: Upstream
) -> None:
    path = f"/fall/stale/{lane.port}"
    alice = "X-Api-Key: alice"
    app.on(path, status(200, "X-From: app", body=b"good"), status(503), hang_up)
    assert lane.fetch("GET", path, alice).flag is None
    for because in ("503", "UC"):
        answer = lane.fetch("GET", path, alice)
        assert (answer.status, answer.body, answer.flag) == (200, b"good", "FB")
        assert (answer.header("x-hms-fallback") or "").startswith("stale; age=")
        assert (answer.header("x-hms-fallback") or "").endswith(f"; because={because}")
        assert answer.header("x-from") == "app"
        assert answer.header("age") is not None
    check_problem(lane.fetch("GET", path, "X-Api-Key: bob"), 503, "UC")
    check_problem(lane.fetch("POST", path, alice, body=b""), 503, "UC")


def test_a_last_good_answer_that_streamed(lane: Lane, app: Upstream) -> None:
    path = f"/fall/stale/streams/{lane.port}"
    app.on(path, chunks(b"go", b"od"), status(503))
    assert lane.fetch("GET", path).body == b"good"
    answer = lane.fetch("GET", path)
    assert (answer.status, answer.body, answer.flag) == (200, b"good", "FB")


@pytest.mark.parametrize("body", [b"", b"x" * 100_000])
def test_a_copy_goes_to_the_mirror(lane: Lane, backends: Backends, body: bytes) -> None:
    path = f"/mirrored/{lane.port}/{len(body)}"
    backends.second.on(path, status(500))
    answer = lane.fetch("POST", path, "X-Kept: 1", host="shop.test:81", body=body)
    assert (answer.status, answer.json["port"]) == (200, backends.app.port)
    second = backends.second
    second.wait(lambda: second.got(path), "the copy")
    copy = second.one(path)
    assert copy.header("host") == "shop.test-shadow:81"
    assert (copy.header("x-hms-mirror"), copy.header("x-kept")) == ("1", "1")
    assert copy.header("content-length") == str(len(body))
    assert backends.app.one(path).header("x-hms-mirror") is None


def test_a_slow_read_is_overtaken_by_another_endpoint(lane: Lane, backends: Backends) -> None:
    path = f"/hedged/{lane.port}"
    backends.app.on(path, silent)
    for _ in range(4):  # by turns the silent one is asked first
        answer = lane.fetch("GET", path)
        assert (answer.status, answer.json["port"]) == (200, backends.second.port)
    assert backends.app.got(path), "it was asked, too"
