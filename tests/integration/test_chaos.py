"""A minute of chaos (seeded): five replicas that fail by turns under a steady load."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.integration.basics import free_port
from tests.integration.chaos_kit import FAULTS, Lateness, Load, Replica, ask, quantile, trouble
from tests.integration.processes import hms_sidecar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS = 60.0
TIMEOUT = 2.5
"""Of a claim that is read: all tries together."""
PAY_TIMEOUT = 1.0
"""Of a payment, which is tried once."""
EJECTED = 3
"""Of the five replicas, that may be ejected at once."""
GRACE = 0.05
"""Seconds by which 99% of all requests, and 90% of those that time out, may outlive their timeout."""


def config(port: int, ports: Sequence[int]) -> str:
    tries = {
        "attempts": 3,
        "on": ["connect-failure", "reset", "5xx"],
        "per_try_timeout": "500ms",
    }
    return json.dumps(
        {
            "listeners": [
                {
                    "name": "out",
                    "port": port,
                    "routes": [
                        {
                            "match": {"methods": ["POST"]},
                            "action": {
                                "cluster": "claims",
                                "timeout": f"{PAY_TIMEOUT}s",
                                "retries": tries | {"per_try_timeout": f"{PAY_TIMEOUT}s"},
                            },
                        },
                        {
                            "match": {},
                            "action": {
                                "cluster": "claims",
                                "timeout": f"{TIMEOUT}s",
                                "retries": tries,
                            },
                        },
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "claims",
                    "endpoints": [f"127.0.0.1:{port}" for port in ports],
                    "circuit_breakers": {"max_retries": 50},
                    "outlier_detection": {
                        "consecutive_5xx": 3,
                        "consecutive_gateway_failure": 3,
                        "base_ejection_time": "500ms",
                        "max_ejection_time": "1s",
                        # Where the machine itself halts for a moment, all seem to fail at once.
                        "max_ejection_percent": 60,
                    },
                }
            ],
        }
    )


async def states(admin: int) -> dict[str, str]:
    """The breakers' states, by the endpoint's port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin)
    writer.write(
        b"GET /clusters?format=json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    (cluster,) = json.loads(answer.partition(b"\r\n\r\n")[2])
    return {one["address"].rpartition(":")[2]: one["state"] for one in cluster["endpoints"]}


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_minute_of_chaos(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    async with AsyncExitStack() as stack:
        replicas = [Replica() for _ in range(5)]
        for replica in replicas:
            await replica.start()
            stack.push_async_callback(replica.stop)
        file = tmp_path / "chaos.json"
        file.write_text(config(port, [replica.port for replica in replicas]))
        program = stack.enter_context(
            hms_sidecar("--config", file, "--admin", f"127.0.0.1:{admin}")
        )
        await asyncio.to_thread(program.wait_listening, port)
        await through_a_minute(port, replicas)
        await and_back_to_health(port, admin, replicas)


async def through_a_minute(port: int, replicas: list[Replica]) -> None:
    reads = Load(port, "GET", "/claims", every=1 / 60)
    pays = Load(port, "POST", "/payments", every=1 / 20)
    faults: Counter[str] = Counter()
    lateness = Lateness()
    watching = asyncio.create_task(lateness.watch())
    async with asyncio.TaskGroup() as group:
        group.create_task(trouble(replicas, random.Random(4711), SECONDS - 1, faults))
        group.create_task(reads.run(SECONDS))
        group.create_task(pays.run(SECONDS))
    watching.cancel()
    assert set(faults) == set(FAULTS), "not every kind of trouble has had its turn"

    # Idempotent requests succeed.
    good = sum(one.status == 200 for one in reads.outcomes)
    failed = Counter(one.status for one in reads.outcomes if one.status != 200)
    assert good >= 0.995 * len(reads.outcomes), f"{good} of {len(reads.outcomes)}: {failed}"

    # Nobody is paid twice, and those who were told 200 are paid.
    paid: Counter[str] = Counter()
    for replica in replicas:
        paid.update({name: times for name, times in replica.done.items() if "POST" in name})
    assert max(paid.values()) == 1, [name for name, times in paid.items() if times > 1]
    assert {one.name for one in pays.outcomes if one.status == 200} <= set(paid)

    # Nothing outlives its timeout by much, but for what this machine itself is late.
    late = [
        one.took - limit
        for load, limit in ((reads, TIMEOUT), (pays, PAY_TIMEOUT))
        for one in load.outcomes
    ]
    over = [seconds for seconds in late if seconds >= 0]
    assert over, "nothing has timed out, so nothing is shown"
    assert quantile(late, 0.99) <= GRACE
    allowed = GRACE + quantile(lateness.found, 0.99)
    assert quantile(over, 0.9) <= allowed, f"{quantile(over, 0.9):.3f} s, {allowed:.3f} s allowed"


async def and_back_to_health(port: int, admin: int, replicas: list[Replica]) -> None:
    """All fail until as many are ejected as may be; well again, each is back after one request."""
    for replica in replicas:
        await replica.turn("500")
    for number in range(500):
        await ask(port, "GET", "/claims", f"down-{number}")
        if sum(state != "closed" for state in (await states(admin)).values()) == EJECTED:
            break
    for replica in replicas:
        await replica.turn(None)
    async with asyncio.timeout(60):
        while "open" in (ejected := await states(admin)).values():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    assert list(ejected.values()).count("half-open") == EJECTED
    for number in range(500):
        assert (await ask(port, "GET", "/claims", f"up-{number}")).status == 200
        now = await states(admin)
        for replica in replicas:
            name = str(replica.port)
            probed = "closed" if replica.served else ejected[name]
            assert now[name] == probed, "one request is the probe, and enough"
        if set(now.values()) == {"closed"}:
            return
    pytest.fail("not all are back")
