"""Undoes `Content-Encoding`, within bounds: a few bytes can stand for gigabytes."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, Final

import brotli  # type: ignore[import-untyped] # mitmproxy brings it
import zstandard

from hms_addons.errors import MeshError
from hms_addons.http_message import get_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.http_message import Fields

MOST: Final = 16 * 1024 * 1024
"""Bytes of a decoded body that are compared."""
_WINDOW: Final = 8 * 1024 * 1024
"""Bytes that zstd may look back: what RFC 9659 allows on the web."""


class TooLongError(MeshError):
    """Decoded, a body would be longer than `MOST`."""


def decoded(fields: Fields, body: bytes) -> bytes:
    """A body without its `Content-Encoding`; as it came if that cannot be undone.

    Raises:
        TooLongError: it would be longer than `MOST` bytes.
    """
    named = get_field(fields, b"content-encoding")
    decode = _CODINGS.get((named or b"").strip().lower())
    if decode is None or not body:
        return body
    try:
        plain = decode(body, MOST + 1)
    except (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError, brotli.error):
        return body
    if len(plain) > MOST:
        raise TooLongError(f"longer than {MOST} bytes when decoded")
    return plain


def _gzip(body: bytes, most: int) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(body)).read(most)


def _deflate(body: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, most)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, most)  # as some servers do


def _brotli(body: bytes, most: int) -> bytes:
    decoder = brotli.Decompressor()
    plain: bytes = decoder.process(body, output_buffer_limit=most)
    if len(plain) < most and not decoder.is_finished():
        raise EOFError
    return plain


def _zstd(body: bytes, most: int) -> bytes:
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    return decoder.stream_reader(io.BytesIO(body), read_across_frames=True).read(most)


_CODINGS: Final[dict[bytes, Callable[[bytes, int], bytes]]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"br": _brotli,
    b"zstd": _zstd,
}
