"""Constant load from many connections, kept alive and new ones alike, and what came of it."""

from __future__ import annotations

import threading
import time
from typing import Self

from tests.integration.basics import Closing
from tests.integration.clients import Connection, fetch

PACE = 0.02
"""Seconds between two requests of one client: the load is constant, not as much as there can be."""


class Load(Closing):
    """Clients that ask a port on 127.0.0.1 until the block ends.

        with Load(port, host="auth-svc.svc") as load:
            load.run(5)
        assert not load.failures

    Args:
        port: of an outbound listener.
        host: the service that is asked for.
        kept: clients that keep one connection.
        fresh: clients that make a new one for each request.

    Attributes:
        answered: how many requests were answered with 200.
        failures: what became of the others, with the time since the beginning in seconds.
    """

    def __init__(self, port: int, host: str, *, kept: int = 6, fresh: int = 3) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._port = port
        self._host = host
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._threads = [
            *(threading.Thread(target=self._kept) for _ in range(kept)),
            *(threading.Thread(target=self._fresh) for _ in range(fresh)),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def close(self) -> None:
        """End it, and wait for the requests under way."""
        self._ends.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(30)

    def run(self, seconds: float) -> None:
        """Let it go on for so long."""
        self._ends.wait(seconds)

    def _kept(self) -> None:
        while not self._ends.wait(PACE):
            try:
                connection = Connection(self._port)
            except OSError as error:
                self._failed(repr(error))
                continue
            with connection:
                while self._ask(connection) and not self._ends.wait(PACE):
                    pass

    def _fresh(self) -> None:
        while not self._ends.wait(PACE):
            self._ask(None)

    def _ask(self, connection: Connection | None) -> bool:
        """One request; whether the connection may have another."""
        try:
            if connection is None:
                answer = fetch(self._port, "GET", "/load", host=self._host)
            else:
                answer = connection.exchange("GET", "/load", host=self._host)
        except (OSError, EOFError) as error:
            self._failed(repr(error))
            return False
        if answer.status != 200:
            self._failed(f"{answer.status} {answer.body.decode(errors='replace')}")
        else:
            with self._lock:
                self.answered += 1
        return not answer.closes

    def _failed(self, how: str) -> None:
        with self._lock:
            self.failures.append(f"after {time.monotonic() - self._begun:.2f} s: {how}")
