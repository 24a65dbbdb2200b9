"""One segment: a file of record batches, named by its first offset, and its two indexes.

A log is a row of segments; only the last, the *active* one, grows. A segment knows positions and
headers and nothing of epochs or producers. Reads return whole batches: the file is read once and
cut where a batch ends; the index says roughly where, so that few headers are looked at.

A read that must not wait (``wait=False``) raises BlockingIOError where the page cache has not got
the bytes; it is then repeated in a thread, while the segment is pinned (a pinned segment keeps its
files open until the last pin goes, even when it is closed or deleted in between).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from kafkalite.edge import Buffer
from kafkalite.log.config import LogConfig
from kafkalite.log.files import Files
from kafkalite.log.index import (
    RELATIVE_OFFSET_MAX,
    CorruptIndexError,
    OffsetIndex,
    TimeIndex,
    TimestampOffset,
)
from kafkalite.protocol.errors import CorruptMessageError
from kafkalite.protocol.record_batch import (
    HEADER_SIZE,
    LENGTH_OVERHEAD,
    BatchHeader,
    Columns,
    check_crc,
    decode_batch,
)

LOG_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
TIME_INDEX_SUFFIX: Final = ".timeindex"
SNAPSHOT_SUFFIX: Final = ".snapshot"
DELETED_SUFFIX: Final = ".deleted"

_SPAN: Final = struct.Struct(">qi11xi")
"""Of a header: base offset, batch length, last offset delta."""
_RECENT: Final = 16
"""Batches whose place is remembered: more than lie between a leader and its followers."""
_SCAN_CHUNK: Final = 256 * 1024


def file_name(offset: int, suffix: str) -> str:
    """Kafka's name of a file that begins at (or describes) ``offset``."""
    return f"{offset:020d}{suffix}"


class SegmentSlice(NamedTuple):
    """Whole batches of a segment."""

    records: Buffer
    base_offset: int
    """The first batch's first offset; may be below what was asked for."""
    next_offset: int
    """The offset after the last batch (exclusive)."""


_Span = tuple[int, int, int]


class ScannedBatch(msgspec.Struct, frozen=True):
    """A batch met by a scan, and where it lies."""

    header: BatchHeader
    position: int


class Segment:
    """See the module. All methods raise OSError where the disk fails."""

    def __init__(
        self, files: Files, directory: str, base_offset: int, config: LogConfig, *, now_ms: int
    ) -> None:
        """Open or create the files of the segment; :meth:`load` makes an existing one usable."""
        self._files = files
        self.base_offset = base_offset
        self.directory = directory
        self.path = os.path.join(directory, file_name(base_offset, LOG_SUFFIX))
        offset_path = os.path.join(directory, file_name(base_offset, INDEX_SUFFIX))
        time_path = os.path.join(directory, file_name(base_offset, TIME_INDEX_SUFFIX))
        self._had_indexes = files.exists(offset_path) and files.exists(time_path)
        max_bytes = config.segment_index_bytes
        self._log = files.open(self.path, create=True)
        self._offset_index = OffsetIndex(files, offset_path, base_offset=base_offset, max_bytes=max_bytes)
        self._time_index = TimeIndex(files, time_path, base_offset=base_offset, max_bytes=max_bytes)
        self.size = self._log.size()
        """Bytes of whole batches in the file."""
        self.next_offset = base_offset
        """The offset after the last batch (exclusive); known after :meth:`load`."""
        self.created_ms = now_ms
        self._first_timestamp: int | None = None
        self._largest: TimestampOffset | None = None
        self._bytes_since_entry = 0
        self._recent: dict[int, tuple[int, _Span]] = {}
        """Where the last few appended batches lie, by base offset: what followers and readers at the end
        ask for. They need no look into index and file."""
        self._pins = 0
        self._closing = False
        self._index_interval_bytes = config.index_interval_bytes

    # --- Life ---------------------------------------------------------------------------------

    def activate(self) -> None:
        """Make this the segment that grows: its index entries move into memory."""
        self._offset_index.activate()
        self._time_index.activate()

    def seal(self) -> None:
        """End the segment: the time index gets its last entry, memory is given back."""
        self._recent.clear()
        self._index_largest_timestamp()
        self._offset_index.seal()
        self._time_index.seal()

    def check_indexes(self) -> None:
        """Raise :class:`CorruptIndexError` where an index is visibly not this log's."""
        if self.size and not self._had_indexes:
            raise CorruptIndexError(f"{self.path}: an index is missing")
        self._offset_index.check(self.size)
        self._time_index.check()
        if self.size and not self._time_index.entry_count:
            # A sealed segment has at least the entry forced at its end, and so has an active one
            # that was closed cleanly.
            raise CorruptIndexError(f"{self._time_index.path} is empty beside a log that is not")

    def load(self) -> bool:
        """Find the end of the log and its largest timestamp, from the last index entry on.

        Returns whether the file ends with a whole batch; where not, it needs :meth:`recover`.
        """
        self._largest = self._time_index.last()
        start = self._offset_index.lookup(RELATIVE_OFFSET_MAX + self.base_offset)
        end = start.position
        try:
            for batch in self.scan(start.position):
                self._note_timestamp(batch.header)
                self.next_offset = batch.header.next_offset
                end = batch.position + batch.header.size
        except CorruptMessageError:
            return False
        self._bytes_since_entry = end - start.position
        return end == self.size

    def recover(self, on_batch: Callable[[BatchHeader], None] = lambda header: None) -> int:
        """Check every batch (CRC, offsets) and rebuild both indexes.

        Calls ``on_batch`` with the header of each valid batch, and returns how many bytes after
        the last one are invalid: they no longer count as part of the segment, and
        :meth:`drop_tail` cuts them off.
        """
        self._offset_index.reset()
        self._time_index.reset()
        self._largest = None
        self._first_timestamp = None
        self._bytes_since_entry = 0
        self.next_offset = self.base_offset
        self.size = self._log.size()
        end = 0
        with contextlib.suppress(CorruptMessageError):
            for batch in self.scan(0):
                header = batch.header
                if (
                    header.base_offset < self.next_offset
                    or header.last_offset_delta < 0
                    or header.last_offset - self.base_offset > RELATIVE_OFFSET_MAX
                ):
                    break
                check_crc(self._log.pread(header.size, batch.position), header)
                self._index_batch(header, batch.position)
                self.next_offset = header.next_offset
                end = batch.position + header.size
                on_batch(header)
        invalid = self.size - end
        self.size = end
        self._index_largest_timestamp()
        return invalid

    def drop_tail(self) -> None:
        """Cut off what :meth:`recover` found to be invalid."""
        self._log.truncate(self.size)

    def rebuild_indexes(self, next_offset: int) -> None:
        """Rebuild the indexes of a segment whose records are trusted to end at ``next_offset``.

        Nothing is cut off: damage below the recovery point is for readers' checksums to find.
        """
        self.recover()
        self.size = self._log.size()
        self.next_offset = next_offset

    def load_sealed(self, next_offset: int) -> None:
        """Make a segment usable that is not the last: it ends where the next one begins."""
        self._largest = self._time_index.last()
        self.next_offset = next_offset

    def indexed_end(self) -> int:
        """The offset up to which the index speaks of batches (exclusive); the base for none."""
        if not self._offset_index.entry_count:
            return self.base_offset
        return self._offset_index.lookup(RELATIVE_OFFSET_MAX + self.base_offset).offset + 1

    @contextlib.contextmanager
    def pin(self) -> Iterator[None]:
        """Keep the files open inside the block, whatever happens to the segment."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1
            if self._closing and not self._pins:
                self._close_files()

    def close(self) -> None:
        """Close the files, or let the last pin do it."""
        self._closing = True
        if not self._pins:
            self._close_files()

    def _close_files(self) -> None:
        self._log.close()
        self._offset_index.close()
        self._time_index.close()

    def names(self) -> list[str]:
        """The names of the segment's files, the log last: it is what makes it a segment."""
        return [
            file_name(self.base_offset, suffix)
            for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX, SNAPSHOT_SUFFIX, LOG_SUFFIX)
        ]

    def write_indexes(self) -> None:
        """Bring the index files up to date; before :meth:`sync`, on the loop."""
        self._offset_index.write()
        self._time_index.write()

    def sync(self) -> None:
        """Make log and indexes durable; may run in a thread while the segment is pinned."""
        self._log.sync()
        self._offset_index.sync()
        self._time_index.sync()

    # --- Appending ----------------------------------------------------------------------------

    def fits(self, last_offset: int) -> bool:
        """Whether ``last_offset`` can be expressed relative to the base."""
        return last_offset - self.base_offset <= RELATIVE_OFFSET_MAX

    @property
    def is_index_full(self) -> bool:
        return self._offset_index.is_full or self._time_index.is_full

    def append(self, buffers: Sequence[Buffer], headers: Sequence[BatchHeader]) -> None:
        """Write batches (``headers`` of what ``buffers`` hold, in order) at the end.

        Nothing of this object changes unless the write returned the full length. After an
        OSError the file may hold a torn tail: the segment must not be appended to again.
        """
        position = self.size
        written = self._log.append(buffers)
        recent = self._recent
        for header in headers:
            self._index_batch(header, position)
            span = (header.base_offset, header.batch_length, header.last_offset_delta)
            recent[header.base_offset] = (position, span)
            position += header.size
        while len(recent) > _RECENT:
            del recent[next(iter(recent))]
        self.size += written
        self.next_offset = headers[-1].next_offset

    def _index_batch(self, header: BatchHeader, position: int) -> None:
        if self._first_timestamp is None and position == 0:
            self._first_timestamp = header.max_timestamp
        self._note_timestamp(header)
        if self._bytes_since_entry > self._index_interval_bytes and not self._offset_index.is_full:
            self._offset_index.append(header.last_offset, position)
            self._index_largest_timestamp()
            self._bytes_since_entry = 0
        self._bytes_since_entry += header.size

    def configure(self, config: LogConfig) -> None:
        """Take over what a changed configuration says about indexes."""
        self._index_interval_bytes = config.index_interval_bytes

    def _note_timestamp(self, header: BatchHeader) -> None:
        if self._largest is None or header.max_timestamp > self._largest.timestamp:
            self._largest = TimestampOffset(header.max_timestamp, header.last_offset)

    def _index_largest_timestamp(self) -> None:
        if self._largest is not None:
            self._time_index.maybe_append(*self._largest)

    def truncate_to(self, offset: int) -> None:
        """Drop every batch that reaches to ``offset`` or beyond. Raises CorruptMessageError."""
        position, next_offset = self._floor_batch(offset)
        self._recent.clear()
        self._log.truncate(position)
        self.size = position
        self.next_offset = next_offset
        self._offset_index.truncate_to(next_offset)
        self._time_index.truncate_to(next_offset)
        if position == 0:
            self._first_timestamp = None
        self._largest = self._time_index.last()
        start = self._offset_index.lookup(offset).position
        for batch in self.scan(start):
            self._note_timestamp(batch.header)
        self._bytes_since_entry = position - start

    def _floor_batch(self, offset: int) -> tuple[int, int]:
        """The position and offset at which the batches that end below ``offset`` end."""
        start = self._offset_index.lookup(offset - 1)
        position, next_offset = start.position, self.base_offset
        for batch in self.scan(start.position):
            if batch.header.last_offset >= offset:
                break
            position = batch.position + batch.header.size
            next_offset = batch.header.next_offset
        return position, next_offset

    def batch_start(self, offset: int) -> int:
        """The base offset of the batch that holds ``offset``; beyond the last batch, ``offset``."""
        start = self._offset_index.lookup(offset).position
        first = self._first_at_or_after(offset, start, self.size, True)
        return offset if first is None else first[1][0]

    # --- Reading ------------------------------------------------------------------------------

    def read(
        self,
        offset: int,
        *,
        max_bytes: int,
        upper_bound: int,
        min_one_message: bool,
        wait: bool,
    ) -> SegmentSlice | None:
        """Return whole batches from the one that holds ``offset`` on, or None where none begins.

        Only batches that end below ``upper_bound`` (exclusive); at most ``max_bytes``, except that
        a first batch that is larger comes alone where ``min_one_message``. An empty slice says
        that there are batches, but none within the limits.
        """
        size = self.size
        first = self._recent.get(offset)
        if first is None or first[0] >= size:
            start = self._offset_index.lookup(offset, wait=wait).position
            first = self._first_at_or_after(offset, start, size, wait)
            if first is None:
                return None
        position, (base, length, delta) = first
        if base + delta >= upper_bound:
            return SegmentSlice(b"", offset, offset)
        first_size = LENGTH_OVERHEAD + length
        if first_size >= max_bytes:
            if first_size > max_bytes and not min_one_message:
                return SegmentSlice(b"", offset, offset)
            records = self._pread(first_size, position, wait)
            return SegmentSlice(records, base, base + delta + 1)
        limit = min(position + max_bytes, size)
        data = self._pread(limit - position, position, wait)
        # Whole batches only: walk from the last index entry before the limits, not from the start.
        near = self._offset_index.lookup_position(limit - HEADER_SIZE, wait=wait)
        bound = self._offset_index.lookup(upper_bound - 1, wait=wait)
        walk = max(min(near.position, bound.position) - position, 0)
        end, next_offset = walk, _SPAN.unpack_from(data, walk)[0]
        while walk + HEADER_SIZE <= len(data):
            batch_base, batch_length, batch_delta = _SPAN.unpack_from(data, walk)
            walk += LENGTH_OVERHEAD + batch_length
            if walk > len(data) or batch_base + batch_delta >= upper_bound:
                break
            end, next_offset = walk, batch_base + batch_delta + 1
            if batch_length < HEADER_SIZE - LENGTH_OVERHEAD:
                raise CorruptMessageError(f"{self.path}: a batch of length {batch_length}")
        if end != len(data):
            data = memoryview(data)[:end]
        return SegmentSlice(data, base, next_offset)

    def _first_at_or_after(
        self, offset: int, position: int, size: int, wait: bool
    ) -> tuple[int, _Span] | None:
        """The first batch from ``position`` on that ends at or after ``offset``."""
        while position < size:
            span = self._span(position, wait)
            if span[0] + span[2] >= offset:
                return position, span
            position += LENGTH_OVERHEAD + span[1]
        return None

    def _span(self, position: int, wait: bool) -> _Span:
        data = self._pread(_SPAN.size, position, wait)
        try:
            span: _Span = _SPAN.unpack(data)
        except struct.error:
            raise CorruptMessageError(f"{self.path}: no batch at position {position}") from None
        if span[1] < HEADER_SIZE - LENGTH_OVERHEAD:
            raise CorruptMessageError(f"{self.path}: a batch of length {span[1]} at position {position}")
        return span

    def _pread(self, size: int, position: int, wait: bool) -> Buffer:
        return self._log.pread(size, position) if wait else self._log.pread_nowait(size, position)

    def scan(self, position: int) -> Iterator[ScannedBatch]:
        """Walk the headers of the batches from ``position`` (where one begins) to the end.

        Raises CorruptMessageError where something else than a whole batch is met.
        """
        chunk: Buffer = b""
        chunk_at = position
        while position < self.size:
            if position + HEADER_SIZE > chunk_at + len(chunk) or position < chunk_at:
                # A large batch is jumped over; small ones are walked within one chunk.
                chunk_at = position
                chunk = self._log.pread(min(_SCAN_CHUNK, self.size - position), position)
            header = BatchHeader.parse(chunk, position - chunk_at)
            if position + header.size > self.size:
                raise CorruptMessageError(f"{self.path}: the batch at position {position} is cut off")
            yield ScannedBatch(header, position)
            position += header.size

    def headers_from(self, offset: int) -> Iterator[BatchHeader]:
        """The headers of the batches that end at or after ``offset``."""
        if offset >= self.next_offset:
            return
        for batch in self.scan(self._offset_index.lookup(offset).position):
            if batch.header.last_offset >= offset:
                yield batch.header

    # --- Time ---------------------------------------------------------------------------------

    @property
    def first_timestamp(self) -> int | None:
        """The timestamp of the first batch; None while there is none."""
        if self._first_timestamp is None and self.size:
            self._first_timestamp = BatchHeader.parse(self._log.pread(HEADER_SIZE, 0)).max_timestamp
        return self._first_timestamp

    @property
    def largest(self) -> TimestampOffset | None:
        """The largest timestamp and the last offset of its batch; None for an empty segment."""
        return self._largest

    def retention_timestamp_ms(self) -> int:
        """What retention by time goes by: the largest timestamp, or when the file was written."""
        if self._largest is not None and self._largest.timestamp >= 0:
            return self._largest.timestamp
        return self._files.modified_ms(self.path)

    def find_timestamp(self, timestamp: int, start_offset: int) -> TimestampOffset | None:
        """The first record at or after ``start_offset`` that is from ``timestamp`` or later."""
        # Up to that entry every record is older, so none of them can be the first.
        indexed = self._time_index.lookup(timestamp - 1)
        position = self._offset_index.lookup(max(indexed.offset, start_offset)).position
        for batch in self.scan(position):
            header = batch.header
            if header.max_timestamp < timestamp or header.last_offset < start_offset:
                continue
            columns = decode_batch(self._log.pread(header.size, batch.position))
            for offset, found in zip(columns.offsets, _timestamps(columns), strict=True):
                if found >= timestamp and offset >= start_offset:
                    return TimestampOffset(found, offset)
        return None

    def find_largest_timestamp(self) -> TimestampOffset | None:
        """The first record with the segment's largest timestamp."""
        if self._largest is None:
            return None
        return self.find_timestamp(self._largest.timestamp, self.base_offset)


def _timestamps(columns: Columns) -> Sequence[int]:
    timestamps = columns.timestamps
    return [timestamps] * len(columns) if isinstance(timestamps, int) else timestamps
