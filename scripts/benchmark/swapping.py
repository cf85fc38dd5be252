"""A sidecar that puts another snapshot in force 50 times a second, for as long as it is told to.

Run as a child: `python -m scripts.benchmark.swapping PORT UPSTREAM_PORT`. SIGUSR1 begins the
swaps, SIGUSR2 ends them. Each is what a pushed configuration costs once it is here: validated, compiled, put in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from random import Random
from typing import TYPE_CHECKING

from hms_addons.bootstrap import build_plugins
from hms_addons.config.load import load
from hms_addons.sidecar import Sidecar
from hms_addons.sidecar_process import _settle_memory, run

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot

RATE = 50


def snapshot(port: int, upstream: int, number: int) -> Snapshot:
    """The configuration of that number; each differs from the one before."""
    action = {"cluster": "upstream", "timeout": f"{30_000 + number}ms"}
    listener = {
        "name": "outbound",
        "port": port,
        "routes": [{"match": {"prefix": "/"}, "action": action}],
    }
    cluster = {"name": "upstream", "endpoints": [f"127.0.0.1:{upstream}"]}
    # As `ControlSource` does it with what a control plane has sent, which is JSON by then.
    document = {"listeners": [listener], "clusters": [cluster]}
    loaded = load([], base=document, control=True)
    assert loaded.snapshot is not None, loaded.problems
    return loaded.snapshot


async def main(port: int, upstream: int) -> int:
    """Serve, and swap when told to, until SIGTERM."""
    swapping, stop = asyncio.Event(), asyncio.Event()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, swapping.set)
    loop.add_signal_handler(signal.SIGUSR2, swapping.clear)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    rng = Random(1)  # noqa: S311 - load balancing
    sidecar = Sidecar(build_plugins(None, rng), rng=rng)
    await sidecar.start(snapshot(port, upstream, 0))
    _settle_memory()
    number = 0
    ended = asyncio.ensure_future(stop.wait())
    while not stop.is_set():
        begun = asyncio.ensure_future(swapping.wait())
        await asyncio.wait({begun, ended}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        next_at = time.monotonic()
        while swapping.is_set() and not stop.is_set():
            number += 1
            await sidecar.apply(snapshot(port, upstream, number))
            next_at += 1 / RATE
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
    await sidecar.stop()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(run(lambda: main(int(sys.argv[1]), int(sys.argv[2])), loop="uvloop"))
