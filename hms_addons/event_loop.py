"""Which event loop a process runs on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

logger = logging.getLogger(__name__)

NAMES = ("uvloop", "asyncio")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop named `name`: `uvloop` (where it is installed) or `asyncio`."""
    if name == "uvloop":
        try:
            import uvloop  # noqa: PLC0415 - not on every platform
        except ImportError:
            logger.info("uvloop is not installed; using asyncio's own loop")
        else:
            return uvloop.new_event_loop
    return None
