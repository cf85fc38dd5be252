"""Watchers against a model: each sees every content that lasts, once, in an order that only grows."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hms_addons.control.completion import as_json, joined, own_part, shared_part
from hms_addons.control.registry import Instance
from tests.fakes.clock import FakeClock
from tests.fakes.control_state import TRUST_DOMAIN, Plane, open_plane, published

if TYPE_CHECKING:
    from collections.abc import Coroutine

SERVICES = ["a", "b", "c"]
CONFIGS = [
    "clusters: [{name: a}]",
    "clusters: [{name: a}, {name: b, endpoints: ['h:1']}]",
    "listeners: [{name: l, port: 1, services: [a]}]",
    "listeners: [{name: l, port: 2, services: [a, b]}]\nclusters: [{name: a}, {name: a-v2}]",
]


class Watcher:
    """As a sidecar does it: ask with what one has, take what is not older."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.seen: list[tuple[int, str]] = []
        self.document: dict[str, Any] | None = None
        self.task: asyncio.Task[None] | None = None

    async def follow(self, plane: Plane) -> None:
        while True:
            etag = '"{}.{}"'.format(*self.seen[-1]) if self.seen else None
            snapshot = await plane.snapshots.wait(self.service, etag)
            if self.seen:
                assert snapshot.version > self.seen[-1][0], "a version came twice, or went back"
                assert snapshot.digest != self.seen[-1][1], "the same was sent again"
            self.seen.append((snapshot.version, snapshot.digest))
            self.document = json.loads(snapshot.body)["document"]


class SnapshotsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="hms-snapshots-")
        self.clock, self.pauses = FakeClock(), FakeClock()
        self.config = ""
        self.instances: dict[tuple[str, str], Instance] = {}
        self.ends: dict[tuple[str, str], float] = {}
        self.watchers = [Watcher(service) for service in SERVICES for _ in range(2)]
        self.plane: Plane = self.run(self.opened())

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def opened(self) -> Plane:
        plane = await open_plane(Path(self.folder.name) / "control.db", self.clock, self.pauses)
        for watcher in self.watchers:
            watcher.task = asyncio.ensure_future(watcher.follow(plane))
        return plane

    async def closed(self) -> None:
        for watcher in self.watchers:
            assert watcher.task is not None
            if watcher.task.done():
                watcher.task.result()
            watcher.task.cancel()
            await asyncio.wait([watcher.task])
        await self.plane.close()

    def teardown(self) -> None:
        self.run(self.closed())
        self.runner.close()
        self.folder.cleanup()

    @rule(text=st.sampled_from(CONFIGS))
    def push(self, text: str) -> None:
        self.run(self.plane.push(text))
        self.config = text

    @rule(
        service=st.sampled_from(SERVICES),
        id_=st.sampled_from(["1", "2"]),
        version=st.sampled_from(["", "v2"]),
        ttl=st.sampled_from([5.0, 15.0]),
    )
    def register(self, service: str, id_: str, version: str, ttl: float) -> None:
        made = Instance(id_, service, f"10.0.0.{id_}:1", version, ttl=ttl)
        self.run(self.plane.registry.register(made))
        self.instances[service, id_] = made
        self.ends[service, id_] = self.clock.monotonic() + ttl

    @rule(service=st.sampled_from(SERVICES), id_=st.sampled_from(["1", "2"]))
    def deregister(self, service: str, id_: str) -> None:
        there = self.instances.pop((service, id_), None)
        self.ends.pop((service, id_), None)
        assert self.run(self.plane.registry.deregister(service, id_)) == (there is not None)

    @rule(seconds=st.sampled_from([0.05, 1.0, 4.0, 20.0]), step=st.sampled_from([0, -120, 120]))
    def pass_time(self, seconds: float, step: float) -> None:
        self.clock.step(step)
        self.run(self.clock.advance(seconds))
        for key in [key for key, end in self.ends.items() if end <= self.clock.monotonic()]:
            del self.ends[key], self.instances[key]

    @rule()
    def restart(self) -> None:
        self.run(self.closed())
        self.plane = self.run(self.opened())
        now = self.clock.monotonic()
        self.ends = {key: now + made.ttl for key, made in self.instances.items()}

    @rule()
    def everybody_has_what_there_is(self) -> None:
        self.run(self.settled())
        config = yaml.safe_load(self.config) if self.config else {}
        services: dict[str, list[Instance]] = {}
        for _, made in sorted(self.instances.items()):
            services.setdefault(made.service, []).append(made)
        shared = as_json(shared_part(config, services))
        for watcher in self.watchers:
            own = as_json(own_part(config, watcher.service, TRUST_DOMAIN))
            assert watcher.document == json.loads(joined(own, shared))

    async def settled(self) -> None:
        """Wait until nothing is under way; the clock that leases live by stands still."""
        plane = self.plane
        await plane.store.get("a")  # whatever the store was told before has been done
        await plane.mirror.reach(plane.store.revision)
        await published(plane, self.pauses)


def test_nobody_misses_a_change_or_sees_one_twice() -> None:
    run_state_machine_as_test(SnapshotsMachine, settings=settings(stateful_step_count=15))
