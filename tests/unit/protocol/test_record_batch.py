"""Record batches: the header's layout, the leader's check case by case, walking and opening."""

import struct
from typing import Any

import msgspec
import pytest
from crc32c import crc32c

from kafkalite.protocol.compression import Compression, compress
from kafkalite.protocol.errors import (
    BrokerError,
    CorruptMessageError,
    InvalidRecordError,
    InvalidTimestampError,
    MessageTooLargeError,
    UnsupportedCompressionTypeError,
)
from kafkalite.protocol.record_batch import (
    HEADER_SIZE,
    BatchHeader,
    TimestampType,
    batches,
    check_crc,
    decode_batch,
    encode_batch,
    first_batch_size,
    inflate_limit,
    patch_header,
    restamp,
    stamp_log_append_time,
    validate_batch,
    whole_batches_size,
)

NOW = 1_700_000_000_000
LAYOUT = struct.Struct(">qiibIhiqqqhii")  # DESIGN section 5, written down a second time on purpose.
pack = msgspec.msgpack.encode


def check(batch: Any, **options: Any) -> BatchHeader:
    return validate_batch(batch, **{"max_message_bytes": 1 << 20, "now_ms": NOW, **options})


def craft(columns: Any = None, *, body: bytes | None = None, **fields: int) -> bytes:
    """A batch put together field by field, with a right length and CRC unless given."""
    if body is None:
        body = pack(columns if columns is not None else [None, 0, None, [b"a", b"b"], None])
    values = {
        "base_offset": 0,
        "batch_length": 49 + len(body),
        "partition_leader_epoch": -1,
        "magic": 0x4C,
        "crc": 0,
        "attributes": 0,
        "last_offset_delta": 1,
        "base_timestamp": NOW,
        "max_timestamp": NOW,
        "producer_id": -1,
        "producer_epoch": -1,
        "base_sequence": -1,
        "record_count": 2,
        **fields,
    }
    batch = bytearray(LAYOUT.pack(*values.values()) + body)
    if "crc" not in fields:
        struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
    return bytes(batch)


def test_the_header_lies_as_designed() -> None:
    batch = encode_batch(
        [b"v1", None],
        keys=[b"k1", None],
        timestamps=[NOW, NOW - 5],
        headers=[None, [("h", b"x"), ("n", None)]],
        producer_id=2**40,
        producer_epoch=7,
        base_sequence=99,
        is_transactional=True,
    )
    assert batch[16] == 0x4C
    assert LAYOUT.unpack_from(batch) == (
        *(0, len(batch) - 12, -1, 0x4C, crc32c(bytes(batch[21:])), 0x10, 1, NOW, NOW, 2**40, 7, 99, 2),
    )
    assert msgspec.msgpack.decode(bytes(batch[61:])) == [
        *(None, [0, -5], [b"k1", None], [b"v1", None], [None, [["h", b"x"], ["n", None]]])
    ]


def test_columns_that_all_records_share_are_written_once() -> None:
    assert msgspec.msgpack.decode(bytes(encode_batch([b"a", b"b"], timestamps=NOW)[61:])) == [
        *(None, 0, None, [b"a", b"b"], None)
    ]
    same = encode_batch([b"a", b"b"], timestamps=[NOW, NOW])
    assert same == encode_batch([b"a", b"b"], timestamps=NOW)


def test_a_header_packs_to_the_bytes_it_was_parsed_from() -> None:
    batch = encode_batch([b"a"] * 3, timestamps=NOW, producer_id=5, producer_epoch=0, base_sequence=2**31 - 2)
    header = BatchHeader.parse(batch)
    assert header.pack() == batch[:HEADER_SIZE]
    assert header.size == len(batch)
    assert (header.last_offset, header.next_offset) == (2, 3)
    assert header.last_sequence == 0  # After 2**31 - 1 comes 0.
    assert header.has_producer_id
    assert not header.is_transactional
    assert not header.is_control
    assert BatchHeader.parse(encode_batch([b"a"], timestamps=0)).last_sequence == -1


def test_a_leader_patches_the_header_and_the_crc_stays_right() -> None:
    batch = encode_batch([b"a", b"b"], timestamps=NOW)
    header = patch_header(memoryview(batch), base_offset=2**40, leader_epoch=12)
    assert len(header) == HEADER_SIZE
    patched = check_crc(header + batch[HEADER_SIZE:])
    assert (patched.base_offset, patched.partition_leader_epoch) == (2**40, 12)
    columns = decode_batch(header + batch[HEADER_SIZE:])
    assert columns.offsets == range(2**40, 2**40 + 2)
    assert BatchHeader.parse(batch)._replace(base_offset=2**40, partition_leader_epoch=12) == patched


def test_restamping_gives_the_batch_that_would_have_been_made() -> None:
    batch = encode_batch([b"a"], timestamps=NOW)
    restamp(batch, producer_id=3, producer_epoch=1, base_sequence=17)
    assert batch == encode_batch([b"a"], timestamps=NOW, producer_id=3, producer_epoch=1, base_sequence=17)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_log_append_time_stamps_every_record(compression: Compression) -> None:
    batch = encode_batch([b"a", b"b"], timestamps=[1, 2], compression=compression)
    stamped = stamp_log_append_time(batch, NOW) + batch[HEADER_SIZE:]
    header = check_crc(stamped)
    assert header.timestamp_type is TimestampType.LOG_APPEND_TIME
    assert header.max_timestamp == NOW
    assert header.compression is compression
    columns = decode_batch(stamped)
    assert (columns.timestamps, columns.timestamp_type) == (NOW, TimestampType.LOG_APPEND_TIME)


def test_opening_a_batch_gives_columns() -> None:
    headers = [None, [("h", b"x"), ("n", None)], None]
    batch = encode_batch([b"1", None, b""], timestamps=[10, 5, 20], keys=[b"k", None, b""], headers=headers)
    columns = decode_batch(batch)
    assert len(columns) == 3
    assert columns.offsets == range(3)
    assert columns.timestamps == [10, 5, 20]
    assert columns.keys == [b"k", None, b""]
    assert columns.values == [b"1", None, b""]
    assert columns.headers == headers
    assert BatchHeader.parse(batch).max_timestamp == 20
    assert decode_batch(encode_batch([b"a", b"b"], timestamps=NOW)).timestamps == NOW
    assert decode_batch(craft([None, -5, None, [b"a", b"b"], None])).timestamps == NOW - 5


def test_a_compacted_batch_keeps_its_offsets_and_its_reach() -> None:
    batch = encode_batch([b"a", b"b"], timestamps=1, offset_deltas=[2, 7], last_offset_delta=9)
    moved = patch_header(batch, base_offset=100, leader_epoch=0) + batch[HEADER_SIZE:]
    assert decode_batch(moved).offsets == [102, 107]
    assert BatchHeader.parse(moved).next_offset == 110


@pytest.mark.parametrize("deltas", [[1, 1], [3, 2], [-1, 0], [0, 2]])
def test_offsets_that_do_not_rise_within_the_batch_are_refused(deltas: list[int]) -> None:
    with pytest.raises(InvalidRecordError):
        decode_batch(craft([deltas, 0, None, [b"a", b"b"], None]))


# --- The leader's check ----------------------------------------------------------------------


@pytest.mark.parametrize("compression", Compression)
def test_a_producers_batch_passes(compression: Compression) -> None:
    batch = encode_batch([b"x" * 100] * 50, timestamps=NOW, compression=compression)
    assert check(batch) == BatchHeader.parse(batch)
    assert check(memoryview(batch)) == BatchHeader.parse(batch)


TOO_LONG = pack([None, 0, None, [b"a", b"b"], None]) + b"\xc0"


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        (b"", CorruptMessageError, "0 bytes"),
        (craft()[:60], CorruptMessageError, "60 bytes"),
        (craft()[:-1], CorruptMessageError, "are here"),
        (craft(magic=2), CorruptMessageError, "magic is 0x02"),
        (craft(batch_length=48), CorruptMessageError, "shorter than the header"),
        (craft(batch_length=-1), CorruptMessageError, "shorter than the header"),
        (craft(batch_length=2**31 - 1), CorruptMessageError, "are here"),
        (craft(crc=1), CorruptMessageError, "CRC-32C"),
        (craft() + craft(), InvalidRecordError, "exactly one"),
        (craft() + b"\x00", InvalidRecordError, "exactly one"),
        (craft(base_offset=5), InvalidRecordError, "base_offset is 5"),
        (craft(attributes=0x80), InvalidRecordError, "unknown bits"),
        (craft(attributes=-(2**15)), InvalidRecordError, "unknown bits"),
        (craft(attributes=0x40), InvalidRecordError, "delete horizon"),
        (craft(attributes=0x20), InvalidRecordError, "control"),
        (craft(attributes=0x10), InvalidRecordError, "transactional"),
        (craft(attributes=0x05), UnsupportedCompressionTypeError, "code 5"),
        (craft(attributes=0x07), UnsupportedCompressionTypeError, "code 7"),
        (craft(attributes=0x08), InvalidTimestampError, "log append time"),
        (craft(attributes=0x01), CorruptMessageError, "gzip"),
        (craft(record_count=0, last_offset_delta=-1), InvalidRecordError, "record_count is 0"),
        (craft([None, 0, None, [], None], record_count=0), InvalidRecordError, "record_count is 0"),
        (craft(record_count=-2), InvalidRecordError, "record_count is -2"),
        (craft(record_count=3, last_offset_delta=2), InvalidRecordError, "2 values"),
        (craft(last_offset_delta=5), InvalidRecordError, "last_offset_delta is 5"),
        (craft(producer_id=4), InvalidRecordError, "producer_epoch -1"),
        (craft(producer_id=4, producer_epoch=0), InvalidRecordError, "base_sequence -1"),
        (craft(producer_id=4, base_sequence=0), InvalidRecordError, "producer_epoch -1"),
        (craft(producer_id=-2), InvalidRecordError, "producer_id is -2"),
        (craft(producer_epoch=3), InvalidRecordError, "without producer_id"),
        (craft(base_sequence=0), InvalidRecordError, "without producer_id"),
        (craft(max_timestamp=NOW + 1), InvalidRecordError, "max_timestamp"),
        (craft(max_timestamp=-1), InvalidRecordError, "max_timestamp"),
        (craft(body=b""), CorruptMessageError, "MessagePack"),
        (craft(body=b"\xc1"), CorruptMessageError, "MessagePack"),
        (craft(body=TOO_LONG), CorruptMessageError, "MessagePack"),
        (craft(body=TOO_LONG[:-3]), CorruptMessageError, "MessagePack"),
        (craft(body=b"\x91" * 200_000), InvalidRecordError, "columns"),
        (craft({}), InvalidRecordError, "columns"),
        (craft([None, 0, None, [b"a", b"b"]]), InvalidRecordError, "columns"),
        (craft([None, 0, None, [b"a", b"b"], None, None]), InvalidRecordError, "columns"),
        (craft([None, 0, None, None, None]), InvalidRecordError, "columns"),
        (craft([None, 0, None, ["a", "b"], None]), InvalidRecordError, "columns"),
        (craft([None, 0, None, [1, b"b"], None]), InvalidRecordError, "columns"),
        (craft([None, None, None, [b"a", b"b"], None]), InvalidRecordError, "columns"),
        (craft([None, 0.5, None, [b"a", b"b"], None]), InvalidRecordError, "columns"),
        (craft([None, 0, ["k", b"k"], [b"a", b"b"], None]), InvalidRecordError, "columns"),
        (craft([None, 0, None, [b"a", b"b"], [[["h"]], None]]), InvalidRecordError, "columns"),
        (craft([None, 0, None, [b"a", b"b"], [[[b"h", b"v"]], None]]), InvalidRecordError, "columns"),
        (craft([None, 0, [b"k"], [b"a", b"b"], None]), InvalidRecordError, "1 keys for 2"),
        (craft([None, 0, None, [b"a", b"b"], [None]]), InvalidRecordError, "1 headers"),
        (craft([None, [0], None, [b"a", b"b"], None]), InvalidRecordError, "1 timestamp_deltas"),
        (craft([[0], 0, None, [b"a", b"b"], None]), InvalidRecordError, "1 offset_deltas"),
        (craft([[0, 2], 0, None, [b"a", b"b"], None]), InvalidRecordError, "count 0, 1, 2"),
        (craft([[1, 0], 0, None, [b"a", b"b"], None]), InvalidRecordError, "count 0, 1, 2"),
    ],
)
def test_what_a_client_may_not_send(batch: bytes, error: type[BrokerError], words: str) -> None:
    with pytest.raises(error) as caught:
        check(batch)
    assert type(caught.value) is error
    assert words in caught.value.message


def test_crafted_batches_are_good_but_for_what_a_case_changes() -> None:
    check(craft())
    check(craft([[0, 1], 0, None, [b"a", b"b"], None]))
    check(craft(producer_id=4, producer_epoch=0, base_sequence=0, attributes=0x10))
    check(craft([None, [0, -5], [b"k", None], [None, b""], [None, [["h", None]]]]))


def test_the_size_limit_is_inclusive() -> None:
    batch = craft()
    check(batch, max_message_bytes=len(batch))
    with pytest.raises(MessageTooLargeError, match=r"max\.message\.bytes"):
        check(batch, max_message_bytes=len(batch) - 1)


@pytest.mark.parametrize("compression", [c for c in Compression if c is not Compression.NONE])
def test_a_bomb_is_too_large(compression: Compression) -> None:
    assert inflate_limit(1000) == 16 << 20
    assert inflate_limit(2 << 20) == 32 << 20
    value = bytes((16 << 20) + 1)
    batch = craft(
        body=compress(compression, pack([None, 0, None, [value], None])),
        attributes=compression,
        record_count=1,
        last_offset_delta=0,
    )
    with pytest.raises(MessageTooLargeError, match="inflate"):
        check(batch)
    with pytest.raises(MessageTooLargeError, match="inflate"):
        decode_batch(batch, limit=1 << 20)
    assert decode_batch(batch).values == [value]


def test_a_compacted_topic_names_the_records_without_a_key() -> None:
    check(encode_batch([b"a", b"b"], timestamps=NOW, keys=[b"", b"k"]), is_compacted=True)
    with pytest.raises(InvalidRecordError) as caught:
        check(encode_batch([b"a", b"b", b"c"], timestamps=NOW, keys=[None, b"k", None]), is_compacted=True)
    assert [e.batch_index for e in caught.value.record_errors] == [0, 2]
    with pytest.raises(InvalidRecordError) as caught:
        check(encode_batch([b"a", b"b"], timestamps=NOW), is_compacted=True)
    assert [e.batch_index for e in caught.value.record_errors] == [0, 1]


def test_timestamps_outside_the_bounds_are_named() -> None:
    bounds = {"timestamp_before_max_ms": 1000, "timestamp_after_max_ms": 50}
    check(encode_batch([b"a"] * 3, timestamps=[NOW - 1000, NOW + 50, -1]), **bounds)
    check(encode_batch([b"a"], timestamps=-1), **bounds)
    with pytest.raises(InvalidTimestampError) as caught:
        check(encode_batch([b"a"] * 4, timestamps=[NOW, NOW - 1001, NOW + 51, -1]), **bounds)
    assert [e.batch_index for e in caught.value.record_errors] == [1, 2]
    assert str(NOW - 1001) in caught.value.message
    with pytest.raises(InvalidTimestampError) as caught:
        check(encode_batch([b"a"] * 2, timestamps=NOW + 51), **bounds)
    assert [e.batch_index for e in caught.value.record_errors] == [0, 1]


def test_a_time_before_1970_is_no_timestamp() -> None:
    with pytest.raises(InvalidTimestampError):
        check(encode_batch([b"a"], timestamps=-2))


def test_with_log_append_time_the_producers_clock_does_not_matter() -> None:
    options = {"timestamp_type": TimestampType.LOG_APPEND_TIME, "timestamp_after_max_ms": 0}
    check(encode_batch([b"a"], timestamps=NOW * 2), **options)
    check(craft(attributes=0x08), **options)


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    batch = bytes(encode_batch([b"a", b"b"], timestamps=NOW, keys=[b"k", b"l"]))
    for position in [*range(8, 12), *range(16, len(batch))]:
        damaged = bytearray(batch)
        damaged[position] ^= 0x10
        with pytest.raises(BrokerError):
            check(bytes(damaged))


# --- Walking ---------------------------------------------------------------------------------


def test_walking_finds_whole_batches_and_stops_at_a_part() -> None:
    first, second = encode_batch([b"a"], timestamps=1), encode_batch([b"b" * 99], timestamps=2)
    buffer = memoryview(bytes(first + second + first[:-1]))
    found = list(batches(buffer))
    assert [(b.position, b.size) for b in found] == [(0, len(first)), (len(first), len(second))]
    assert [b.header for b in found] == [BatchHeader.parse(first), BatchHeader.parse(second)]
    assert whole_batches_size(buffer) == len(first) + len(second)
    assert list(batches(buffer, len(first))) == found[1:]
    assert list(batches(b"")) == []
    assert whole_batches_size(first[:-1]) == 0
    assert whole_batches_size(first) == len(first)


def test_walking_over_what_is_no_batch_is_an_error() -> None:
    batch = encode_batch([b"a"], timestamps=1)
    with pytest.raises(CorruptMessageError):
        list(batches(batch + bytes(100)))


def test_a_reader_learns_how_much_to_read() -> None:
    batch = encode_batch([b"a" * 1000], timestamps=1)
    assert first_batch_size(batch[:12]) == len(batch)
    assert first_batch_size(batch[:11]) is None
    with pytest.raises(CorruptMessageError):
        first_batch_size(bytes(12))


def test_the_crc_is_checked_for_followers() -> None:
    batch = encode_batch([b"a"], timestamps=1)
    assert check_crc(batch) == BatchHeader.parse(batch)
    for damaged in (batch[:-1], batch + b"x", batch[:-1] + b"\xff"):
        with pytest.raises(CorruptMessageError):
            check_crc(damaged)
