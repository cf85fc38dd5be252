"""The headers that tell an app who is calling: what claims may travel in them, and how."""

from __future__ import annotations

import re
from typing import Final

MAX_ROLE_HEADER: Final = 4096
"""Bytes of `X-Caller-Role`: half of the smallest header block that common servers take."""
MAX_SUBJECT_HEADER: Final = 1024
"""Bytes of `X-Caller-Subject`."""

_FIELD_VALUE = re.compile(r"[!-~\xa1-\xff](?:[ -~\xa1-\xff]*[!-~\xa1-\xff])?")
"""What a field can carry unchanged (RFC 9110 section 5.5): no control characters, and no space at
either end, as recipients strip it: a role ` ADMIN` must not arrive as `ADMIN`."""


class HeaderValueError(ValueError):
    """A claim cannot travel in a header; the message says why, without the claim."""


def role_header(roles: tuple[str, ...]) -> bytes:
    """The value of `X-Caller-Role`: `roles` joined by commas.

    Raises:
        HeaderValueError: a role is empty, has a comma (it would arrive as two), or cannot be sent.
    """
    for role in roles:
        if "," in role:
            raise HeaderValueError("a role has a comma in it")
        if _FIELD_VALUE.fullmatch(role) is None:
            raise HeaderValueError(
                "a role is empty, or has a control character, a character beyond Latin-1, or a "
                "space at its ends"
            )
    value = ",".join(roles).encode("latin-1")
    if len(value) > MAX_ROLE_HEADER:
        raise HeaderValueError(f"its roles take {len(value)} bytes, more than {MAX_ROLE_HEADER}")
    return value


def subject_header(subject: str) -> bytes:
    """The value of `X-Caller-Subject`.

    Raises:
        HeaderValueError: it cannot be sent as it is.
    """
    if _FIELD_VALUE.fullmatch(subject) is None:
        raise HeaderValueError(
            "its subject (`sub`) is empty, or has a control character, a character beyond Latin-1, "
            "or a space at its ends"
        )
    value = subject.encode("latin-1")
    if len(value) > MAX_SUBJECT_HEADER:
        raise HeaderValueError(
            f"its subject (`sub`) takes {len(value)} bytes, more than {MAX_SUBJECT_HEADER}"
        )
    return value
