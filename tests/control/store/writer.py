"""Writes to a store until it is killed, and says after each write that it was acknowledged.

Run as `python -m tests.control.store.writer FILE ROUND`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.store.protocol import Write
from hms_addons.control.store.sqlite import SqliteStore


async def write_for_ever(store: SqliteStore, name: str) -> None:
    n = 0
    while True:
        n += 1
        lease = await store.grant(60)
        value = b"%d" % n
        revision = await store.write(
            [Write(f"{name}/a", value), Write(f"{name}/b", value, lease=lease)]
        )
        sys.stdout.write(f"{name} {n} {revision}\n")
        sys.stdout.flush()


async def main(path: Path, round_: str) -> None:
    store = await SqliteStore.open(path, SYSTEM_CLOCK)
    await asyncio.gather(*(write_for_ever(store, f"{round_}-{n}") for n in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
