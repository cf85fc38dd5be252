"""Whether the control plane can serve, and why not: said in the log once a change.

`/readyz` is open to anyone and so tells nobody what is wrong with a file system. The log does; but a
probe comes every few seconds.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hms_addons.control.ca.kept_authority import STATE_KEY

if TYPE_CHECKING:
    from hms_addons.control.store.protocol import Store

logger = logging.getLogger(__name__)


class Readiness:
    """Looks whether the store answers.

    Args:
        store: asked each time.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._problem: str | None = None

    def __repr__(self) -> str:
        return f"<Readiness problem={self._problem!r}>"

    async def look(self) -> bool:
        """Whether it does."""
        try:
            await self._store.get(STATE_KEY)
        except Exception as error:  # noqa: BLE001 - whatever it is, it does not answer
            self._set(str(error) or type(error).__name__)
        else:
            self._set(None)
        return self._problem is None

    def _set(self, problem: str | None) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        if problem is None:
            logger.info("ready again: the store answers")
        else:
            logger.error("not ready: the store does not answer: %s", problem)
