"""DNS messages for tests, written by hand so that the code under test does not check itself."""

from __future__ import annotations

import struct

A, AAAA, TXT, HTTPS, ANY = 1, 28, 16, 65, 255


def name(text: str) -> bytes:
    """A name on the wire."""
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def query(
    text: str, kind: int = A, *, identifier: int = 7, flags: int = 0x0100, class_: int = 1
) -> bytes:
    """A query for `text`, recursion desired."""
    head = struct.pack("!6H", identifier, flags, 1, 0, 0, 0)
    return head + name(text) + struct.pack("!HH", kind, class_)


def foreign_answer(asked: bytes, *addresses: bytes) -> bytes:
    """What a resolver makes of a query: these IPv4 addresses."""
    records = b"".join(b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04" + one for one in addresses)
    return (
        asked[:2]
        + b"\x81\x80\0\x01"
        + struct.pack("!H", len(addresses))
        + bytes(4)
        + asked[12:]
        + records
    )


def read(data: bytes) -> tuple[int, list[bytes]]:
    """The rcode of an answer, and the data of its records."""
    _, flags, questions, answers, *_ = struct.unpack_from("!6H", data)
    assert flags & 0x8000, "it is no answer"
    at = 12
    for _ in range(questions):
        at = data.index(b"\0", at) + 5
    found = []
    for _ in range(answers):
        (size,) = struct.unpack_from("!H", data, at + 10)
        found.append(data[at + 12 : at + 12 + size])
        at += 12 + size
    assert at == len(data), "there is more in it than it says"
    return flags & 15, found
