"""Whether a snapshot was handed out in this store's own past, or in one that a restored backup undid.

```
 run a ──1…100──┬──101…110──▶ lost with the disk: sidecars have 110 of run a
                └─ restored ─▶ run b ──101…   "run a ended at 100": 110 of run a is not ours
```

Revisions alone cannot tell: after a restore they are counted from the backup's on, and soon pass those
that were lost. So every start of a control plane is a *run* with a random name, kept in the store with
the revision that it began at; where a run begins, the one before it has ended. A snapshot carries the
name of its run as its `history`, and a version of a run that lies beyond that run's end was never handed
out by what is in this store.

What a sidecar has that is not ours may be newer than ours, so it is not replaced until somebody who can
know decides, by a push. [Compare timelines in PostgreSQL, terms in Raft.]
"""

from __future__ import annotations

import itertools
import json
import secrets
from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from hms_addons.control.store.protocol import Store

KEY: Final = "lineage"
KEPT: Final = 5000
"""Runs that are remembered; a snapshot of an older one counts as not ours."""


class LineageError(MeshError):
    """The store's record of runs cannot be used."""


class Lineage:
    """The runs of a store; `open` before anything is handed out.

    Attributes:
        run: the name of this one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.run = secrets.token_hex(4)
        self._ends: dict[str, int] = {}
        """The last revision of each run that is over."""

    def __repr__(self) -> str:
        return f"<Lineage run {self.run} after {len(self._ends)} others>"

    async def open(self) -> None:
        """Begin this run.

        Raises:
            LineageError: the record is damaged.
            StoreError: it cannot be read or written.
        """
        entry = await self._store.get(KEY)
        runs = [] if entry is None else _runs(entry.value)
        runs = [*runs, (self.run, self._store.revision)][-KEPT:]
        self._ends = {name: following[1] for (name, _), following in itertools.pairwise(runs)}
        await self._store.put(
            KEY, json.dumps(runs).encode(), expected=0 if entry is None else entry.revision
        )

    def is_ours(self, history: str, version: int) -> bool:
        """Whether a snapshot of that version and history was handed out by what is in this store.

        Of one whose history nobody told (""), only the version can say.
        """
        if history in {"", self.run}:
            return version <= self._store.revision
        return version <= self._ends.get(history, -1)


def _runs(value: bytes) -> list[tuple[str, int]]:
    try:
        return [(str(name), int(began)) for name, began in json.loads(value)]
    except (ValueError, TypeError) as error:
        message = f"the store's entry {KEY} is damaged: restore the data folder from a backup"
        raise LineageError(message) from error
