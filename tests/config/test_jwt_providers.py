from __future__ import annotations

import random
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.config.jwt_providers import RemoteKeys, make_provider, provider_status
from hms_addons.config.snapshot import JwtProvider
from hms_addons.errors import ConfigError
from hms_addons.tasks import TaskSet
from tests.fakes import pki
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_a_provider_without_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="'p' has no keys"):
        make_provider(JwtProvider(name="p"), {})


def test_a_secret_is_looked_up_in_the_environment_it_is_given() -> None:
    spec = JwtProvider(name="p", algorithms=("HS256",), hs256_secret_env="S")
    assert make_provider(spec, {"S": "x" * 32}).problem is None
    problem = make_provider(spec, {}).problem
    assert problem is not None
    assert "S" in problem


def test_keys_that_are_not_there_yet_are_its_problem() -> None:
    problem = make_provider(JwtProvider(name="p", jwks_file="/no/such.json"), {}).problem
    assert problem is not None
    assert "/no/such.json" in problem


# -- keys that are fetched ----------------------------------------------------------------------

ONE = JwtProvider(name="one", jwks_uri="http://id.example/one")
TWO = JwtProvider(name="two", jwks_uri="http://id.example/two")


class Network:
    """Issuers, by path, and what asks them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.asked: list[str] = []
        self.tasks = TaskSet("test")
        self.changes = 0
        self.remote = RemoteKeys(
            clock=self.clock,
            rng=random.Random(1),
            tasks=self.tasks,
            changed=self._change,
            transport=httpx.MockTransport(self._answer),
        )

    def _change(self) -> None:
        self.changes += 1

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        return httpx.Response(200, content=pki.jwks(pki.jwt_key("RS256")))

    async def settle(self, seconds: float = 0) -> None:
        for _ in range(4):
            await self.clock.advance(seconds)
            seconds = 0

    def use(self, *specs: JwtProvider, before: tuple[JwtProvider, ...] = ()) -> None:
        for spec in specs:
            make_provider(spec, {}, self.remote)
        self.remote.keep(specs, before)


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    made = Network()
    yield made
    made.remote.stop()
    await made.tasks.close()
    assert made.clock.pending == 0


async def test_nothing_is_fetched_before_the_start(network: Network) -> None:
    network.use(ONE)
    await network.settle()
    assert network.asked == []
    network.remote.start()
    await network.settle()
    assert network.asked == ["/one"]
    assert network.changes == 1


async def test_an_unchanged_address_keeps_its_keys_over_a_change(network: Network) -> None:
    network.use(ONE)
    network.remote.start()
    await network.settle()
    network.use(ONE, TWO, before=(ONE,))
    await network.settle()
    assert network.asked == ["/one", "/two"]
    provider = make_provider(ONE, {}, network.remote)
    assert len(provider.source.keys.keys) == 1


async def test_providers_of_one_address_share_its_keys(network: Network) -> None:
    other = JwtProvider(name="other", jwks_uri=ONE.jwks_uri, algorithms=("PS256",))
    network.use(ONE, other)
    network.remote.start()
    await network.settle()
    assert network.asked == ["/one"]


async def test_the_task_of_a_provider_that_is_gone_ends(network: Network) -> None:
    network.use(ONE)
    network.remote.start()
    await network.settle()
    network.use(TWO, before=(ONE,))
    await network.settle()
    assert len(network.tasks) == 1
    assert "/one" in repr(network.remote), "a refused change would go back to it"
    network.use(TWO, before=(TWO,))
    assert "/one" not in repr(network.remote)
    await network.settle(3600)
    assert network.asked.count("/one") == 1


async def test_a_refused_change_goes_back_to_the_keys_it_had(network: Network) -> None:
    network.use(ONE)
    network.remote.start()
    await network.settle()
    network.use(TWO, before=(ONE,))
    network.use(ONE, before=(TWO,))
    await network.settle()
    assert network.asked.count("/one") == 1
    await network.settle(3600)
    assert network.asked.count("/one") == 2
    assert network.asked.count("/two") <= 1


async def test_the_state_of_providers_is_told_without_keys(network: Network) -> None:
    network.use(ONE)
    network.remote.start()
    secret = JwtProvider(name="s", issuer="i", algorithms=("HS256",), hs256_secret_env="S")
    providers = [
        make_provider(ONE, {}, network.remote),
        make_provider(secret, {"S": "a-secret-of-more-than-thirty-two-bytes"}),
    ]
    await network.settle()
    one, other = provider_status(providers)
    assert one["keys"] == ["key-1"]
    assert one["problem"] is None
    assert one["fetched_at"] == "2027-01-15T08:00:00Z"
    assert other == {
        "name": "s",
        "issuer": "i",
        "algorithms": ["HS256"],
        "keys": [None],
        "problem": None,
    }
