"""DNS messages, as far as the mesh reads and writes them (RFC 1035 section 4).

Of a query: its head and its one question. Of an answer: addresses. All else passes as it came.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD: Final = struct.Struct("!6H")
_TYPE_AND_CLASS: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHHIH")
_QR: Final = 0x8000
_AA: Final = 0x0400
_RD: Final = 0x0100
_RA: Final = 0x0080
_OPCODE: Final = 0x7800
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 255
_TO_QUESTION: Final = 0xC000 | HEAD.size
"""A pointer to the question's name (section 4.1.4)."""
_IPV4_SIZE: Final = 4


class Type(IntEnum):
    """Types of records that matter here."""

    A = 1
    AAAA = 28
    ANY = 255


IN: Final = 1
"""The class of the Internet."""


class Rcode(IntEnum):
    """How a query went."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class Query(NamedTuple):
    """A query for one name."""

    head: bytes
    """As it came, 12 bytes."""
    question: bytes
    """As it came: spelling of the name, type and class."""
    name: str
    """In lower case, without the last dot; empty for the root, or if it cannot be written so."""
    type: int
    class_: int


class QueryError(MeshError):
    """A message that is no query to be looked up.

    Attributes:
        answer: what is sent back; None: nothing, as that would answer an answer.
    """

    def __init__(self, message: str, answer: bytes | None = None) -> None:
        super().__init__(message)
        self.answer = answer


def parse_query(data: bytes) -> Query:
    """Read a message from a client.

    Raises:
        QueryError: it is no query, or one that is not understood.
    """
    if len(data) < HEAD.size:
        raise QueryError("it is shorter than a head")
    _, flags, questions, *_ = HEAD.unpack_from(data)
    if flags & _QR:
        raise QueryError("it is an answer")
    if flags & _OPCODE:
        raise QueryError("it is no ordinary query", _failed(data, Rcode.NOTIMP))
    try:
        if questions != 1:
            raise QueryError(f"it has {questions} questions, not one")  # noqa: TRY301 - all are FORMERR
        labels, end = _read_name(data, HEAD.size)
        kind, class_ = _TYPE_AND_CLASS.unpack_from(data, end)
    except (QueryError, struct.error, IndexError) as error:
        message = str(error) if isinstance(error, QueryError) else "it ends in its question"
        raise QueryError(message, _failed(data, Rcode.FORMERR)) from None
    question = data[HEAD.size : end + _TYPE_AND_CLASS.size]
    return Query(data[: HEAD.size], question, _text(labels), kind, class_)


def _read_name(data: bytes, at: int) -> tuple[list[bytes], int]:
    labels: list[bytes] = []
    begin = at
    while (length := data[at]) != 0:
        if length > _LONGEST_LABEL:  # among others a pointer, which a question has no use for
            raise QueryError("its name has a label that is none")
        if at + length + 2 - begin > _LONGEST_NAME:
            raise QueryError("its name is longer than names are")
        label = data[at + 1 : at + 1 + length]
        labels.append(label)
        at += 1 + length
    return labels, at + 1


def _text(labels: Sequence[bytes]) -> str:
    if any(b"." in label or not label.isascii() for label in labels):
        return ""  # no name of the mesh's
    return b".".join(labels).lower().decode("ascii")


def _failed(data: bytes, rcode: Rcode) -> bytes:
    """An answer without any section."""
    identifier, flags, *_ = HEAD.unpack_from(data)
    return HEAD.pack(identifier, _QR | flags & (_OPCODE | _RD) | _RA | rcode, 0, 0, 0, 0)


def answer(
    query: Query,
    rcode: Rcode = Rcode.NOERROR,
    addresses: Sequence[bytes] = (),
    ttl: int = 0,
    *,
    own: bool = True,
) -> bytes:
    """An answer to `query`.

    Args:
        query: it.
        rcode: how it went.
        addresses: of 4 bytes or of 16, each a record.
        ttl: seconds for which they may be remembered.
        own: the name is the mesh's: there is nobody who would know better.
    """
    identifier, flags, *_ = HEAD.unpack(query.head)
    flags = _QR | flags & _RD | _RA | (_AA if own else 0) | rcode
    records = [
        _RECORD.pack(
            _TO_QUESTION, Type.A if len(one) == _IPV4_SIZE else Type.AAAA, IN, ttl, len(one)
        )
        + one
        for one in addresses
    ]
    head = HEAD.pack(identifier, flags, 1, len(records), 0, 0)
    return head + query.question + b"".join(records)


def is_answer_to(query: Query, data: bytes) -> bool:
    """Whether `data` is an answer to that very query: who else could have written it would have to guess."""
    end = HEAD.size + len(query.question)
    return (
        len(data) >= HEAD.size
        and data[:2] == query.head[:2]
        and bool(data[2] & (_QR >> 8))
        # An error may come without the question.
        and (data[HEAD.size : end].lower() == query.question.lower() or data[4:6] == bytes(2))
    )
