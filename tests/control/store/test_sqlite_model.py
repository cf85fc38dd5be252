from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.control.store.model import StoreMachine
from tests.control.store.test_sqlite import SqliteWorld

MEMORY = Path("/dev/shm")
"""Linux's. What a disk takes to have written something is of no interest here, and took most of the time."""


class SqliteMachine(StoreMachine):
    def make_world(self) -> SqliteWorld:
        folder = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(prefix="hms-store-", dir=folder)
        return SqliteWorld(Path(self.folder.name) / "control.db")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


def test_whatever_is_done_to_it_it_is_what_a_dict_would_be() -> None:
    run_state_machine_as_test(SqliteMachine, settings=settings(stateful_step_count=25))
