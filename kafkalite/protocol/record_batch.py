"""Record batches: the one module that knows what a batch looks like inside.

A batch is 61 bytes of big-endian header and a body of columns: one MessagePack array
`[offset_deltas, timestamp_deltas, keys, values, headers]`, compressed as the attributes say.
The header is Kafka's (magic 0x4C tells the body apart), and the CRC-32C covers everything from
`attributes` to the end. It leaves out the two fields that a leader sets, base offset and leader
epoch, so that a batch goes from a producer's socket to disk, to followers and to consumers as it
is: a leader writes a new header (:func:`patch_header`) in front of the same body.

Everything else works with the header. The body is made once, by the producer
(:func:`encode_batch`), checked once, by the leader (:func:`validate_batch`), and opened by
consumers (:func:`decode_batch`). No step makes an object a record besides the bytes themselves.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import msgspec
from crc32c import crc32c

from kafkalite.edge import Buffer
from kafkalite.protocol.compression import UNBOUNDED, Compression, compress, decompress
from kafkalite.protocol.errors import (
    CorruptMessageError,
    InvalidRecordError,
    InvalidTimestampError,
    MessageTooLargeError,
    RecordError,
    UnsupportedCompressionTypeError,
)

MAGIC: Final = 0x4C
HEADER_SIZE: Final = 61
LENGTH_OVERHEAD: Final = 12
"""Bytes of a batch that its `batch_length` does not count: base offset and the length itself."""
NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
NO_TIMESTAMP: Final = -1

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH: Final = struct.Struct(">i")
_OFFSET: Final = struct.Struct(">q")
_PRODUCER: Final = struct.Struct(">qhi")
_CRC: Final = struct.Struct(">I")
_EPOCH_AT: Final = 12
_CRC_AT: Final = 17
_ATTRIBUTES_AT: Final = 21
"""Where the part that the CRC covers begins."""
_MAX_TIMESTAMP_AT: Final = 35
_PRODUCER_AT: Final = 43

_COMPRESSION_BITS: Final = 0x07
_LOG_APPEND_TIME_BIT: Final = 0x08
_TRANSACTIONAL_BIT: Final = 0x10
_CONTROL_BIT: Final = 0x20
_DELETE_HORIZON_BIT: Final = 0x40
_KNOWN_BITS: Final = 0x7F

Header: TypeAlias = "tuple[str, bytes | None]"
"""A record header: its name and value."""


class TimestampType(IntEnum):
    """Whose clock a record's timestamp is from."""

    CREATE_TIME = 0
    LOG_APPEND_TIME = 1


_COMPRESSIONS: Final = tuple(Compression)
"""By their codes, which count from 0."""


class BatchHeader(NamedTuple):
    """The 61 bytes before a batch's body, as values."""

    base_offset: int
    """The offset of the first record; 0 until a leader appends the batch."""
    batch_length: int
    """Bytes after this field: the whole batch without its first twelve."""
    partition_leader_epoch: int
    """The epoch of the leader that appended the batch; -1 before."""
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    """The last offset that the batch stands for, less the base offset; compaction keeps it."""
    base_timestamp: int
    max_timestamp: int
    """The largest timestamp of the records; with LOG_APPEND_TIME everybody's."""
    producer_id: int
    producer_epoch: int
    base_sequence: int
    """The sequence of the first record; the others count on from it."""
    record_count: int

    @classmethod
    def parse(cls, buffer: Buffer, position: int = 0) -> BatchHeader:
        """Read the header at ``position``; only magic and length are looked at.

        Raises CorruptMessageError for fewer than 61 bytes, another magic, or a length that
        cannot be.
        """
        try:
            header = cls._make(_HEADER.unpack_from(buffer, position))
        except struct.error:
            raise CorruptMessageError(
                f"{max(len(buffer) - position, 0)} bytes are too few for the header of a record batch"
            ) from None
        if header.magic != MAGIC:
            raise CorruptMessageError(f"magic is {header.magic & 0xFF:#04x}, expected {MAGIC:#04x}")
        if header.batch_length < HEADER_SIZE - LENGTH_OVERHEAD:
            raise CorruptMessageError(f"batch_length {header.batch_length} is shorter than the header")
        return header

    def pack(self) -> bytes:
        """Write the 61 bytes, with ``crc`` as it stands."""
        return _HEADER.pack(*self)

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return LENGTH_OVERHEAD + self.batch_length

    @property
    def last_offset(self) -> int:
        """The last offset that the batch stands for (inclusive)."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The offset after the batch (exclusive end)."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """The sequence of the last record: wraps to 0 after 2**31 - 1; -1 without sequences."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & 0x7FFF_FFFF

    @property
    def compression(self) -> Compression:
        """How the body is compressed. Raises UnsupportedCompressionTypeError for unknown codes."""
        code = self.attributes & _COMPRESSION_BITS
        try:
            return _COMPRESSIONS[code]
        except IndexError:
            raise UnsupportedCompressionTypeError(f"compression code {code} is unknown") from None

    @property
    def timestamp_type(self) -> TimestampType:
        is_append_time = self.attributes & _LOG_APPEND_TIME_BIT
        return TimestampType.LOG_APPEND_TIME if is_append_time else TimestampType.CREATE_TIME

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        """Whether the batch holds a control record (a transaction marker) instead of data."""
        return bool(self.attributes & _CONTROL_BIT)

    @property
    def has_producer_id(self) -> bool:
        return self.producer_id >= 0


class Columns(msgspec.Struct, frozen=True):
    """The records of one batch, column by column; element i of each belongs to record i."""

    offsets: Sequence[int]
    """Absolute offsets, rising; a range unless compaction has taken records out."""
    base_timestamp: int
    timestamp_deltas: int | list[int]
    """What to add to the base timestamp: one for all, or one each."""
    keys: list[bytes | None] | None
    """None where no record has a key."""
    values: list[bytes | None]
    """None is a tombstone."""
    headers: list[list[Header] | None] | None
    """None where no record has any."""
    timestamp_type: TimestampType

    def __len__(self) -> int:
        return len(self.values)

    @property
    def timestamps(self) -> int | list[int]:
        """Milliseconds since the epoch: one for all, or one each, which are added up anew each time."""
        if isinstance(self.timestamp_deltas, int):
            return self.base_timestamp + self.timestamp_deltas
        base = self.base_timestamp
        return [base + delta for delta in self.timestamp_deltas]


class _Body(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The body as MessagePack. Values are read as bytes: 15 ns each, where memoryviews cost 49."""

    offset_deltas: list[int] | None
    timestamp_deltas: int | list[int]
    keys: list[bytes | None] | None
    values: list[bytes | None]
    headers: list[list[Header] | None] | None


class TimestampRuns(NamedTuple):
    """Timestamps of consecutive records, where neighbours share one more often than not."""

    starts: list[int]
    """The index of each run's first record, rising from 0."""
    timestamps: list[int]
    """Milliseconds since the epoch: of all records from that start on, up to the next."""

    def put(self, index: int, timestamp: int) -> None:
        """Say the timestamp of record ``index``, the first after those known, and of what follows it."""
        if not self.timestamps or self.timestamps[-1] != timestamp:
            self.starts.append(index)
            self.timestamps.append(timestamp)

    def at(self, index: int) -> int:
        """The timestamp of record ``index``."""
        return self.timestamps[bisect_right(self.starts, index) - 1]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Body)


# --- Making batches --------------------------------------------------------------------------


def encode_batch(
    values: Sequence[bytes | None],
    *,
    timestamps: int | Sequence[int] | TimestampRuns,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Sequence[Header] | None] | None = None,
    offset_deltas: Sequence[int] | None = None,
    last_offset_delta: int | None = None,
    compression: Compression = Compression.NONE,
    level: int | None = None,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    is_transactional: bool = False,
    is_control: bool = False,
) -> bytearray:
    """Make a batch as a producer sends it: base offset 0, leader epoch -1.

    ``values`` must not be empty; every other column is None or as long. ``timestamps`` is one
    for all records, one each, or one for each run of them. ``offset_deltas`` is for compacted
    batches only, where ``last_offset_delta`` says how far the batch reached before; both default
    to records 0, 1, 2 … ``level`` is the compression's own, None its default.
    """
    count = len(values)
    assert count > 0, "a batch holds at least one record"
    assert keys is None or len(keys) == count, "as many keys as values"
    assert headers is None or len(headers) == count, "as many headers as values"
    assert offset_deltas is None or len(offset_deltas) == count, "as many offsets as values"
    base_timestamp, max_timestamp, timestamp_deltas = _timestamp_column(timestamps, count)
    if last_offset_delta is None:
        last_offset_delta = count - 1 if offset_deltas is None else offset_deltas[-1]
    columns = (offset_deltas, timestamp_deltas, keys, values, headers)
    batch = bytearray(HEADER_SIZE)
    if compression is Compression.NONE:
        _ENCODER.encode_into(columns, batch, HEADER_SIZE)
    else:
        batch += compress(compression, _ENCODER.encode(columns), level)
    _HEADER.pack_into(
        batch,
        0,
        0,
        len(batch) - LENGTH_OVERHEAD,
        -1,
        MAGIC,
        0,
        compression | (is_transactional and _TRANSACTIONAL_BIT) | (is_control and _CONTROL_BIT),
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    )
    _seal(batch)
    return batch


def _timestamp_column(
    timestamps: int | Sequence[int] | TimestampRuns, count: int
) -> tuple[int, int, int | list[int]]:
    """Split timestamps into base, maximum, and the column of deltas."""
    if isinstance(timestamps, int):
        return timestamps, timestamps, 0
    starts: list[int] | None = None
    if isinstance(timestamps, TimestampRuns):
        starts, timestamps = timestamps
    assert starts is not None or len(timestamps) == count, "as many timestamps as values"
    base = timestamps[0]
    largest = max(timestamps)
    if largest == base and min(timestamps) == base:
        return base, base, 0
    deltas = [timestamp - base for timestamp in timestamps]
    if starts is None or len(starts) == count:
        return base, largest, deltas
    column: list[int] = []
    for delta, end in zip(deltas, (*starts[1:], count), strict=True):
        column += [delta] * (end - len(column))  # Some 2 ns a record, where a step of Python costs 50.
    return base, largest, column


def restamp(batch: bytearray, *, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
    """Set the producer's fields of a finished batch in place and renew its CRC.

    A producer makes batches before it knows its id, and gives them new sequences after an
    epoch bump. The body is read once for the CRC and not copied.
    """
    _PRODUCER.pack_into(batch, _PRODUCER_AT, producer_id, producer_epoch, base_sequence)
    _seal(batch)


def _seal(batch: bytearray) -> None:
    _CRC.pack_into(batch, _CRC_AT, crc32c(memoryview(batch)[_ATTRIBUTES_AT:]))


def patch_header(header: Buffer, *, base_offset: int, leader_epoch: int) -> bytes:
    """Return the 61 bytes of ``header`` (or of a batch) with what the leader sets.

    The CRC leaves both fields out and stays right, so the body need not be touched.
    """
    return b"".join(
        (
            _OFFSET.pack(base_offset),
            header[8:_EPOCH_AT],
            _LENGTH.pack(leader_epoch),
            header[_EPOCH_AT + 4 : HEADER_SIZE],
        )
    )


def patch_in_place(batch: memoryview, *, base_offset: int, leader_epoch: int) -> None:
    """Like :func:`patch_header`, writing into ``batch`` itself."""
    _OFFSET.pack_into(batch, 0, base_offset)
    _LENGTH.pack_into(batch, _EPOCH_AT, leader_epoch)


def stamp_log_append_time(batch: Buffer, now_ms: int) -> bytes:
    """Return a header for ``batch`` that gives all its records the timestamp ``now_ms``.

    For topics with `message.timestamp.type=LogAppendTime`. These fields are under the CRC, so
    the body is read once more; it is not copied.
    """
    header = bytearray(batch[:HEADER_SIZE])
    header[_ATTRIBUTES_AT + 1] |= _LOG_APPEND_TIME_BIT
    _OFFSET.pack_into(header, _MAX_TIMESTAMP_AT, now_ms)
    crc = crc32c(memoryview(header)[_ATTRIBUTES_AT:])
    _CRC.pack_into(header, _CRC_AT, crc32c(memoryview(batch)[HEADER_SIZE:], crc))
    return bytes(header)


# --- Walking through batches -----------------------------------------------------------------


class LocatedBatch(NamedTuple):
    """A batch and where it lies in the buffer that was walked."""

    header: BatchHeader
    position: int
    size: int


def batches(buffer: Buffer, position: int = 0) -> Iterator[LocatedBatch]:
    """Walk the whole batches in ``buffer`` from ``position`` on; a partial one ends the walk.

    Raises CorruptMessageError where the bytes at a batch's place cannot be one.
    """
    end = len(buffer)
    while position + HEADER_SIZE <= end:
        header = BatchHeader.parse(buffer, position)
        size = LENGTH_OVERHEAD + header.batch_length
        if position + size > end:
            return
        yield LocatedBatch(header, position, size)
        position += size


def whole_batches_size(buffer: Buffer) -> int:
    """Return how many bytes at the start of ``buffer`` are whole batches; 0 where not even one is.

    Raises CorruptMessageError as :func:`batches` does.
    """
    size = 0
    for batch in batches(buffer):
        size = batch.position + batch.size
    return size


def first_batch_size(buffer: Buffer) -> int | None:
    """Return the size that the batch at the start of ``buffer`` claims; None if it is too short to say.

    The batch itself may go on beyond the buffer: a reader learns how much it must read.
    """
    if len(buffer) < LENGTH_OVERHEAD:
        return None
    length: int = _LENGTH.unpack_from(buffer, 8)[0]
    if length < HEADER_SIZE - LENGTH_OVERHEAD:
        raise CorruptMessageError(f"batch_length {length} is shorter than the header")
    return LENGTH_OVERHEAD + length


def check_crc(batch: Buffer, header: BatchHeader | None = None) -> BatchHeader:
    """Check the checksum of the one batch that ``batch`` holds and return its header.

    Raises CorruptMessageError also where length and magic are wrong. What a follower and a
    recovering log do; they need not open the body.
    """
    if header is None:
        header = BatchHeader.parse(batch)
    if header.size != len(batch):
        raise CorruptMessageError(f"the batch says it has {header.size} bytes, but {len(batch)} are here")
    crc = crc32c(memoryview(batch)[_ATTRIBUTES_AT:])
    if crc != header.crc:
        raise CorruptMessageError(f"CRC-32C is {crc:#010x}, the header says {header.crc:#010x}")
    return header


# --- Opening batches -------------------------------------------------------------------------


def inflate_limit(max_message_bytes: int) -> int:
    """Return how many bytes the body of one batch may inflate to where batches may have that size."""
    return max(16 * 1024 * 1024, 16 * max_message_bytes)


def decode_batch(batch: Buffer, *, limit: int = UNBOUNDED) -> Columns:
    """Open the one batch that ``batch`` holds.

    The CRC is not looked at (:func:`check_crc`). ``limit`` bounds what a compressed body may
    inflate to, in bytes. Raises CorruptMessageError, InvalidRecordError, MessageTooLargeError,
    UnsupportedCompressionTypeError.
    """
    header = BatchHeader.parse(batch)
    if header.size != len(batch):
        raise CorruptMessageError(f"the batch says it has {header.size} bytes, but {len(batch)} are here")
    body = _open(header, batch, limit)
    count = _check_columns(header, body)
    deltas = body.offset_deltas
    base = header.base_offset
    offsets: Sequence[int]
    if deltas is None:
        offsets = range(base, base + count)
    else:
        _check_compacted_offsets(header, deltas)
        offsets = [base + delta for delta in deltas]
    kind = header.timestamp_type
    base_timestamp, timestamp_deltas = header.base_timestamp, body.timestamp_deltas
    if kind is TimestampType.LOG_APPEND_TIME:
        base_timestamp, timestamp_deltas = header.max_timestamp, 0
    return Columns(offsets, base_timestamp, timestamp_deltas, body.keys, body.values, body.headers, kind)


def _open(header: BatchHeader, batch: Buffer, limit: int) -> _Body:
    """Inflate and decode the body; column types are checked here, lengths are not."""
    packed: Buffer = memoryview(batch)[HEADER_SIZE : header.size]
    compression = header.compression
    if compression is not Compression.NONE:
        packed = decompress(compression, packed, limit)
    try:
        return _DECODER.decode(packed)
    except msgspec.ValidationError as error:
        raise InvalidRecordError(f"the columns of the batch: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptMessageError(f"the body of the batch is not one MessagePack array: {error}") from None


def _check_columns(header: BatchHeader, body: _Body) -> int:
    """Check that all columns have `record_count` elements and return it."""
    count = len(body.values)
    if header.record_count != count:
        raise InvalidRecordError(f"record_count is {header.record_count}, but there are {count} values")
    for name, column in (
        ("keys", body.keys),
        ("headers", body.headers),
        ("offset_deltas", body.offset_deltas),
        ("timestamp_deltas", body.timestamp_deltas),
    ):
        if isinstance(column, list) and len(column) != count:
            raise InvalidRecordError(f"{len(column)} {name} for {count} values")
    return count


def _check_compacted_offsets(header: BatchHeader, deltas: list[int]) -> None:
    previous = -1
    for delta in deltas:
        if delta <= previous:
            raise InvalidRecordError(f"offset delta {delta} follows {previous}")
        previous = delta
    if previous > header.last_offset_delta:
        raise InvalidRecordError(f"offset delta {previous} is beyond the last, {header.last_offset_delta}")


# --- The leader's check ----------------------------------------------------------------------


def validate_batch(
    batch: Buffer,
    *,
    max_message_bytes: int,
    now_ms: int,
    timestamp_type: TimestampType = TimestampType.CREATE_TIME,
    timestamp_before_max_ms: int = 2**63 - 1,
    timestamp_after_max_ms: int = 2**63 - 1,
    is_compacted: bool = False,
) -> BatchHeader:
    """Check everything that a client's batch must be, and return its header.

    ``batch`` is what a produce request holds for one partition. ``timestamp_type`` and the
    bounds around ``now_ms`` are the topic's `message.timestamp.*` (bounds inclusive; a record
    with timestamp -1 has none and passes; they do not apply with LOG_APPEND_TIME).
    ``is_compacted``: the topic's cleanup policy has `compact`, so every record needs a key.

    Raises CorruptMessageError (length, magic, CRC, a body that does not inflate or is no
    MessagePack), MessageTooLargeError (the batch, or what it would inflate to),
    UnsupportedCompressionTypeError, InvalidTimestampError, InvalidRecordError (the rest). The
    last two name the records to blame where it is single ones.
    """
    header = BatchHeader.parse(batch)
    size = header.size
    if size > len(batch):
        raise CorruptMessageError(f"the batch says it has {size} bytes, but {len(batch)} are here")
    if size < len(batch):
        raise InvalidRecordError(
            f"{len(batch) - size} bytes follow the batch: exactly one a partition and request"
        )
    if size > max_message_bytes:
        raise MessageTooLargeError(
            f"the batch has {size} bytes, the topic allows {max_message_bytes} (max.message.bytes)"
        )
    check_crc(batch, header)
    _check_client_header(header)
    body = _open(header, batch, inflate_limit(max_message_bytes))
    count = _check_columns(header, body)
    deltas = body.offset_deltas
    if deltas is not None and deltas != list(range(count)):
        raise InvalidRecordError("the offset deltas of a producer's batch count 0, 1, 2, …")
    if is_compacted:
        _check_keys(body.keys, count)
    if timestamp_type is TimestampType.CREATE_TIME:
        _check_timestamps(
            header,
            body.timestamp_deltas,
            count,
            now_ms - timestamp_before_max_ms,
            now_ms + timestamp_after_max_ms,
        )
    return header


def _check_client_header(header: BatchHeader) -> None:
    """Check the fields that need no look at the body."""
    fault: str | None = None
    if header.base_offset != 0:
        fault = f"base_offset is {header.base_offset}; a producer sends 0"
    elif header.attributes & ~_KNOWN_BITS:
        fault = f"attributes {header.attributes & 0xFFFF:#06x} have unknown bits"
    elif header.attributes & _DELETE_HORIZON_BIT:
        fault = "only compaction sets a delete horizon"
    elif header.is_control:
        fault = "a client may not write control records"
    elif header.record_count <= 0:
        fault = f"record_count is {header.record_count}"
    elif header.last_offset_delta != header.record_count - 1:
        fault = f"last_offset_delta is {header.last_offset_delta} for {header.record_count} records"
    elif header.producer_id < NO_PRODUCER_ID:
        fault = f"producer_id is {header.producer_id}"
    elif header.has_producer_id and (header.producer_epoch < 0 or header.base_sequence < 0):
        fault = (
            f"producer_id {header.producer_id} with producer_epoch {header.producer_epoch} "
            f"and base_sequence {header.base_sequence}"
        )
    elif not header.has_producer_id and (header.producer_epoch, header.base_sequence) != (-1, -1):
        fault = (
            f"producer_epoch {header.producer_epoch} and base_sequence {header.base_sequence} "
            "without producer_id"
        )
    elif header.is_transactional and not header.has_producer_id:
        fault = "a transactional batch without producer_id"
    if fault is not None:
        raise InvalidRecordError(fault)


def _check_keys(keys: list[bytes | None] | None, count: int) -> None:
    missing: Sequence[int] = ()
    if keys is None:
        missing = range(count)
    elif None in keys:
        missing = [index for index, key in enumerate(keys) if key is None]
    if missing:
        message = "a record of a compacted topic needs a key"
        raise InvalidRecordError(message, record_errors=(RecordError(index, message) for index in missing))


def _check_timestamps(
    header: BatchHeader, deltas: int | list[int], count: int, earliest: int, latest: int
) -> None:
    """Check every timestamp, and that the header's maximum is theirs.

    A wrong maximum is refused rather than mended: the log's time index trusts it, and mending
    it would mean another CRC for bytes that the producer vouched for.
    """
    if header.timestamp_type is TimestampType.LOG_APPEND_TIME:
        raise InvalidTimestampError("a producer may not set the timestamp type to log append time")
    base = header.base_timestamp
    smallest, largest = (deltas, deltas) if isinstance(deltas, int) else (min(deltas), max(deltas))
    if base + largest != header.max_timestamp:
        raise InvalidRecordError(
            f"max_timestamp is {header.max_timestamp}, but the latest record's is {base + largest}"
        )
    if base + smallest >= max(earliest, 0) and base + largest <= latest:
        return
    each = [deltas] * count if isinstance(deltas, int) else deltas
    wrong = []
    for index, delta in enumerate(each):
        timestamp = base + delta
        if timestamp != NO_TIMESTAMP and not max(earliest, 0) <= timestamp <= latest:
            allowed = f"{max(earliest, 0)} to {latest}"
            wrong.append(RecordError(index, f"timestamp {timestamp} is outside of {allowed}"))
    if wrong:
        raise InvalidTimestampError(wrong[0].message, record_errors=wrong)
