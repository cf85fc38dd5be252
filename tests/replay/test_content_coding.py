from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import brotli  # type: ignore[import-untyped] # mitmproxy brings it
import pytest
import zstandard

from hms_addons.replay.content_coding import TooLongError, decoded

if TYPE_CHECKING:
    from collections.abc import Callable


def raw_deflate(body: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(body) + made.flush()


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    (" X-GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", lambda body: brotli.compress(body, quality=1)),
    ("zstd", zstandard.ZstdCompressor(level=1).compress),
]


def coded(name: str, body: bytes) -> bytes:
    return decoded(((b"Content-Encoding", name.encode()),), body)


@pytest.mark.parametrize(("name", "encode"), CODINGS)
def test_what_can_be_undone_is(name: str, encode: Callable[[bytes], bytes]) -> None:
    assert coded(name, encode(b"hello" * 9)) == b"hello" * 9
    assert coded(name, b"") == b""


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "bz2", "identity", "a, b"])
def test_what_cannot_is_left_as_it_came(name: str) -> None:
    assert coded(name, b"\xffhello") == b"\xffhello"
    assert decoded((), b"hello") == b"hello"


@pytest.mark.parametrize(("name", "encode"), [CODINGS[0], CODINGS[4]])
def test_what_is_cut_is_left_as_it_came(name: str, encode: Callable[[bytes], bytes]) -> None:
    cut = encode(bytes(range(256)) * 4)[:-9]
    assert coded(name, cut) == cut


def test_all_members_of_gzip_count() -> None:
    assert coded("gzip", gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"


@pytest.mark.parametrize(("name", "encode"), CODINGS)
def test_a_bomb_is_not_unpacked(
    name: str, encode: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_addons.replay.content_coding.MOST", most := 1_000_000)
    bomb = encode(bytes(16 * most))
    tracemalloc.start()
    try:
        with pytest.raises(TooLongError, match="when decoded"):
            coded(name, bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 * most
    finally:
        tracemalloc.stop()
