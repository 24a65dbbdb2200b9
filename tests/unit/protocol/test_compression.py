"""Compression: what others' tools write is read, and nothing inflates beyond its bound."""

import gzip
import struct
import tracemalloc
import zlib

import cramjam
import pytest

from kafkalite.protocol.compression import LEVELS, Compression, compress, decompress
from kafkalite.protocol.errors import CorruptMessageError, MessageTooLargeError

BODY = b"the quick brown fox " * 20_000 + bytes(range(256)) * 10
REAL = [c for c in Compression if c is not Compression.NONE]
LIMIT = 1 << 20


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("body", [b"", b"a", BODY])
def test_what_went_in_comes_out(compression: Compression, body: bytes) -> None:
    packed = compress(compression, memoryview(body))
    assert bytes(decompress(compression, packed, max(len(body), 1))) == body


@pytest.mark.parametrize("compression", LEVELS)
def test_levels_at_both_ends_are_accepted(compression: Compression) -> None:
    for level in (LEVELS[compression][0], LEVELS[compression][-1]):
        packed = compress(compression, BODY, level)
        assert bytes(decompress(compression, packed, LIMIT)) == BODY


def test_what_other_programs_write_is_read() -> None:
    assert decompress(Compression.GZIP, gzip.compress(BODY), LIMIT) == BODY
    streamed = zlib.compressobj(wbits=31)
    pieces = [
        streamed.compress(BODY[:1000]),
        streamed.flush(zlib.Z_FULL_FLUSH),
        streamed.compress(BODY[1000:]),
    ]
    assert decompress(Compression.GZIP, b"".join(pieces) + streamed.flush(), LIMIT) == BODY
    for library, compression in ((cramjam.lz4, Compression.LZ4), (cramjam.zstd, Compression.ZSTD)):
        compressor = library.Compressor()  # Writes no content size into the frame's header.
        compressor.compress(BODY)
        assert bytes(decompress(compression, bytes(compressor.finish()), LIMIT)) == BODY


def test_snappy_is_framed_as_xerial_does() -> None:
    packed = compress(Compression.SNAPPY, BODY)
    assert packed[:16] == b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    size = int.from_bytes(packed[16:20], "big")
    assert bytes(cramjam.snappy.decompress_raw(packed[20 : 20 + size])) == BODY[: 32 * 1024]


def bomb(compression: Compression, size: int) -> bytes:
    return compress(compression, bytes(size))


@pytest.mark.parametrize("compression", REAL)
def test_a_bomb_is_refused_without_inflating_on(compression: Compression) -> None:
    packed = bomb(compression, 64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLargeError, match="1048576"):
            decompress(compression, packed, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("library", [cramjam.lz4, cramjam.zstd])
def test_a_bomb_without_a_stated_size_is_refused(library: object) -> None:
    compression = Compression.LZ4 if library is cramjam.lz4 else Compression.ZSTD
    compressor = library.Compressor()  # type: ignore[attr-defined]
    compressor.compress(bytes(64 << 20))
    with pytest.raises(MessageTooLargeError):
        decompress(compression, bytes(compressor.finish()), LIMIT)


@pytest.mark.parametrize("compression", REAL)
def test_the_bound_is_inclusive(compression: Compression) -> None:
    packed = compress(compression, BODY)
    assert bytes(decompress(compression, packed, len(BODY))) == BODY
    with pytest.raises(MessageTooLargeError):
        decompress(compression, packed, len(BODY) - 1)


@pytest.mark.parametrize("compression", REAL)
def test_garbage_after_the_frame_is_corrupt(compression: Compression) -> None:
    packed = compress(compression, BODY)
    for more in (b"\x00", b"garbage", packed):
        if compression is Compression.SNAPPY and more is packed:
            continue  # Xerial's blocks have no end: a second header reads as a block of absurd size.
        with pytest.raises(CorruptMessageError):
            decompress(compression, packed + more, LIMIT)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.LZ4, Compression.ZSTD])
def test_not_even_an_empty_frame_may_follow(compression: Compression) -> None:
    with pytest.raises(CorruptMessageError, match="follow"):
        decompress(compression, compress(compression, BODY) + compress(compression, b""), LIMIT)


@pytest.mark.parametrize("compression", [c for c in REAL if c is not Compression.SNAPPY])
def test_every_truncation_is_corrupt(compression: Compression) -> None:
    packed = compress(compression, b"some words, and some words again, and some words again" * 3)
    for size in range(len(packed)):
        with pytest.raises(CorruptMessageError):
            decompress(compression, packed[:size], LIMIT)


def test_snappy_cut_inside_a_block_is_corrupt() -> None:
    packed = compress(Compression.SNAPPY, BODY)
    for size in (0, 5, 15, 17, 19, 20, 40, len(packed) - 1):
        with pytest.raises(CorruptMessageError):
            decompress(Compression.SNAPPY, packed[:size], LIMIT)


def test_a_frame_that_lies_about_its_size_is_corrupt() -> None:
    packed = bytearray(cramjam.zstd.compress(b"x" * 1000))
    at = packed.index((1000 - 256).to_bytes(2, "little"))
    packed[at : at + 2] = (900 - 256).to_bytes(2, "little")
    with pytest.raises(CorruptMessageError):
        decompress(Compression.ZSTD, bytes(packed), LIMIT)


@pytest.mark.parametrize("compression", REAL)
def test_another_format_is_corrupt(compression: Compression) -> None:
    for other in REAL:
        if other is not compression:
            with pytest.raises(CorruptMessageError):
                decompress(compression, compress(other, BODY), LIMIT)
    with pytest.raises(CorruptMessageError):
        decompress(compression, b"", LIMIT)
