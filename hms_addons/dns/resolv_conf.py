"""Whom this system asks: the resolvers of /etc/resolv.conf, as they are now."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hms_addons.clock import Clock

PATH: Final = Path("/etc/resolv.conf")
LOOKED_AT_EVERY: Final = 5.0
"""Seconds between two looks at the file."""
MOST: Final = 3
"""Resolvers that are used, as glibc does (MAXNS)."""
_LONGEST: Final = 64 * 1024
_PORT: Final = 53


def parse(text: str) -> tuple[tuple[str, int], ...]:
    """The `nameserver` lines, in order; what is no address is passed over, as the system does."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            address = words[1]
            try:
                ipaddress.ip_address(address.partition("%")[0])
            except ValueError:
                continue
            found.append((address, _PORT))
    return tuple(found[:MOST])


class SystemResolvers:
    """Those resolvers, read again where the file may have changed.

    Args:
        clock: time.
        path: the file.
    """

    def __init__(self, clock: Clock, path: Path = PATH) -> None:
        self._clock = clock
        self._path = path
        self._looked = float("-inf")
        self._found: tuple[tuple[str, int], ...] = ()

    def __call__(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports, in order; none where the file cannot be read."""
        now = self._clock.monotonic()
        if now - self._looked >= LOOKED_AT_EVERY:
            self._looked = now
            try:
                with self._path.open(encoding="utf-8", errors="replace") as file:
                    self._found = parse(file.read(_LONGEST))
            except OSError:
                self._found = ()
        return self._found
