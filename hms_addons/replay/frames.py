"""Cuts a mitmproxy flow file into its records.

A record is a tnetstring: its length in decimal digits, `:`, so many bytes, and a letter for its type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST: Final = 1024 * 1024 * 1024
"""Bytes of one record; a file that announces more is no flow file."""
_DIGITS: Final = 12
_FLOW: Final = ord("}")
"""The type of a flow: a dictionary."""


class DamagedError(MeshError):
    """What comes next is no record."""


class Frames:
    """Takes bytes as they come, and gives whole records.

    Attributes:
        offset: bytes of the whole records so far: where the next one begins.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._rest = bytearray()

    def __repr__(self) -> str:
        return f"<Frames offset={self.offset} rest={len(self._rest)}>"

    @property
    def rest(self) -> int:
        """Bytes of a record that is not whole yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take more bytes; each record that is whole now.

        Raises:
            DamagedError: what comes next is no record of a flow.
        """
        self._rest += data
        while (length := self._length()) is not None and len(self._rest) >= length:
            if self._rest[length - 1] != _FLOW:
                raise DamagedError("a record does not end as a flow does")
            record = bytes(self._rest[:length])
            del self._rest[:length]
            self.offset += length
            yield record

    def _length(self) -> int | None:
        """Bytes of the record that begins here, its own length included; None if not yet known."""
        head = self._rest[: _DIGITS + 1]
        colon = head.find(b":")
        digits = head if colon < 0 else head[:colon]
        if (digits and not digits.isdigit()) or colon == 0 or (colon < 0 and len(head) > _DIGITS):
            raise DamagedError("there is no length where a record should begin")
        if colon < 0:
            return None
        length = int(digits)
        if length > MOST:
            raise DamagedError(f"a record would have {length} bytes")
        return colon + 1 + length + 1
