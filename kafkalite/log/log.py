"""`Log`: one replica's ordered records, on one disk, seen from one event loop.

Appends go to the page cache, inline, and cost the same however much is stored. A leader's append
validates, gives offsets (by writing a new 61-byte header before the same body) and recognises
retries; a follower's takes batches as the leader wrote them. Reads never wait for the disk on the
loop: :meth:`Log.read` answers from memory or says :class:`WouldBlock`, and :meth:`Log.read_cold`
goes through a thread.

Invariants:

- ``log_start_offset <= high_watermark <= log_end_offset``;
- the log end offset moves only after the write call returned the full length, and after a failed
  append nothing is ever appended: the directory goes offline first;
- a refused batch leaves no trace;
- everything below ``recovery_point`` is durable, names and side files included, and stays so: a
  truncation below it first lowers the recovery point on disk;
- reads return whole batches.

All methods belong to the loop's thread. Every one raises KafkaStorageError where the log
directory is offline, and LogDirFailed (one of those) where it fails just then.
"""

from __future__ import annotations

import contextlib
import os
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, NoReturn

from kafkalite.common import LeaderEpoch, TopicPartition, Uuid
from kafkalite.edge import Buffer, Clock, Offload
from kafkalite.log.config import LogConfig
from kafkalite.log.epochs import LEADER_EPOCH_CHECKPOINT, LeaderEpochCache
from kafkalite.log.files import Files
from kafkalite.log.index import RELATIVE_OFFSET_MAX, TimestampOffset
from kafkalite.log.log_dir import LogDir
from kafkalite.log.newest import KeptOfLog, NewestBatches, held_bytes
from kafkalite.log.partition_metadata import PARTITION_METADATA, encode_partition_metadata
from kafkalite.log.producer_state import BatchMetadata, ProducerStates
from kafkalite.log.recovery import LoadedLog, LoadReport, load_producer_states
from kafkalite.log.segment import (
    DELETED_SUFFIX,
    SNAPSHOT_SUFFIX,
    Segment,
    SegmentSlice,
    file_name,
)
from kafkalite.protocol.errors import (
    CorruptMessageError,
    InconsistentTopicIdError,
    InvalidTxnStateError,
    KafkaStorageError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
)
from kafkalite.protocol.record_batch import (
    HEADER_SIZE,
    NO_TIMESTAMP,
    BatchHeader,
    TimestampType,
    batches,
    check_crc,
    patch_header,
    patch_in_place,
    stamp_log_append_time,
    validate_batch,
)

_WORTH_HOLDING: Final = 4
"""A batch that is kept holds the buffer that it came in. Where that is more than so many times as
large, a copy is kept."""
MAX_TIMESTAMP: Final = -3
"""Asks :meth:`Log.offset_for_timestamp` for the record with the largest timestamp."""


class UnexpectedOffset(Exception):
    """A leader sent batches that do not continue this follower's log. Nothing was appended."""

    def __init__(
        self, partition: TopicPartition, *, first_offset: int, last_offset: int, expected: int
    ) -> None:
        super().__init__(
            f"{partition}: batch {first_offset} to {last_offset} does not continue the log, "
            f"which ends at {expected}"
        )
        self.first_offset = first_offset
        self.last_offset = last_offset


class AppendInfo(NamedTuple):
    """What an append did."""

    first_offset: int
    last_offset: int
    """Inclusive."""
    max_timestamp: int
    log_append_time_ms: int
    """When the leader appended, for topics with LogAppendTime; else -1."""
    log_start_offset: int
    size: int
    """Bytes written; 0 for a duplicate."""
    record_count: int
    is_duplicate: bool = False
    """A producer's retry: these are the offsets of its first arrival, and nothing was appended."""


class Read(NamedTuple):
    """What a read found."""

    records: Buffer
    """Whole batches, as they lie in the log; empty where there is nothing (yet) within the limits."""
    base_offset: int
    """The first batch's base offset, at or below the offset asked for; that offset where empty."""
    next_offset: int
    """The offset after the last batch (exclusive); the offset asked for where empty."""


class WouldBlock(NamedTuple):
    """The records are not in memory: ask :meth:`Log.read_cold`."""

    offset: int


class FoundOffset(NamedTuple):
    """The answer to a question about time."""

    offset: int
    timestamp: int
    leader_epoch: LeaderEpoch


class DeletedFiles(NamedTuple):
    """Files taken out of a log, to be removed after `file.delete.delay.ms`."""

    paths: tuple[str, ...]
    first_offset: int
    next_offset: int
    """The offset after the deleted stretch (exclusive): the log's new first base offset."""
    reason: str


class _FlushPlan(NamedTuple):
    """What to fsync so that all below ``up_to`` is durable. Runs in any thread."""

    files: Files
    segments: tuple[Segment, ...]
    paths: tuple[str, ...]
    directories: tuple[str, ...]
    up_to: int
    truncations: int

    def run(self) -> None:
        for segment in self.segments:
            segment.sync()
        for path in self.paths:
            # A side file may have been replaced or pruned since; then its successor is on the list.
            with contextlib.suppress(FileNotFoundError):
                file = self.files.open(path)
                try:
                    file.sync()
                finally:
                    file.close()
        for directory in self.directories:
            self.files.sync_dir(directory)


class Log:
    """See the module. Made by :class:`kafkalite.log.manager.LogManager`."""

    def __init__(
        self,
        directory: LogDir,
        loaded: LoadedLog,
        config: LogConfig,
        *,
        clock: Clock,
        offload: Offload,
        chance: random.Random,
        newest: NewestBatches,
        high_watermark: int = 0,
        on_roll: Callable[[Log], None] = lambda log: None,
        before_truncation: Callable[[Log, int], None] = lambda log, offset: None,
    ) -> None:
        """Take over what was loaded. ``newest`` bounds what all logs keep in memory.

        ``on_roll`` is called after a new segment was begun (the old one wants a flush);
        ``before_truncation(log, offset)`` must make a recovery point and a log start of at most
        ``offset`` durable before it returns, and may raise OSError.
        """
        self.topic_partition = loaded.partition
        self.topic_id: Uuid | None = loaded.topic_id
        self.log_dir = directory
        self.path = loaded.path
        self.report: LoadReport = loaded.report
        self._config = config
        self._files = directory.files
        self._clock = clock
        self._offload = offload
        self._chance = chance
        self._on_roll = on_roll
        self._before_truncation = before_truncation
        self._segments = loaded.segments
        self._bases = [segment.base_offset for segment in self._segments]
        self._epochs = loaded.epochs
        self._producers = loaded.producers
        self.log_start_offset = loaded.log_start_offset
        """The first offset that may be read. This, and the next two, are for others to read only."""
        self.log_end_offset = self._active.next_offset
        """The offset that the next record will get (exclusive end)."""
        self._recovery_point = loaded.recovery_point
        self.high_watermark = 0
        """Everything below is committed (exclusive)."""
        self.update_high_watermark(high_watermark)
        self._snapshots = list(loaded.snapshots)
        self._unsynced_paths: dict[str, None] = dict.fromkeys(loaded.unsynced_paths)
        self._unsynced_dirs: dict[str, None] = dict.fromkeys(loaded.unsynced_dirs)
        self._truncations = 0
        self._newest = KeptOfLog(newest)
        self._last_flush_ms = clock.wall_ms()
        self._is_closed = False
        self._active.activate()
        self._jitter_ms = self._draw_jitter()

    # --- What it is ---------------------------------------------------------------------------

    @property
    def config(self) -> LogConfig:
        """The effective configuration; assign another one to change it."""
        return self._config

    @config.setter
    def config(self, config: LogConfig) -> None:
        self._config = config
        for segment in self._segments:
            segment.configure(config)
        self._jitter_ms = self._draw_jitter()

    @property
    def last_stable_offset(self) -> int:
        """Everything below is committed and decided: with no transactions, the high watermark."""
        return self.high_watermark

    @property
    def recovery_point(self) -> int:
        """The first offset not known to be durable."""
        return self._recovery_point

    @property
    def latest_epoch(self) -> LeaderEpoch:
        """The newest leader epoch in the cache, -1 where there is none."""
        return self._epochs.latest_epoch

    @property
    def epochs(self) -> LeaderEpochCache:
        """The leader-epoch cache, to be read."""
        return self._epochs

    @property
    def producers(self) -> ProducerStates:
        """The producer state, to be read."""
        return self._producers

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def segment_base_offsets(self) -> Sequence[int]:
        """The first offset of each segment, rising."""
        return self._bases

    @property
    def size(self) -> int:
        """Bytes of records on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def last_flush_ms(self) -> int:
        """Wall time of the last flush (or of loading)."""
        return self._last_flush_ms

    @property
    def is_closed(self) -> bool:
        """Whether the log was closed or deleted."""
        return self._is_closed

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    def _check_usable(self) -> None:
        self.log_dir.check_online()
        if self._is_closed:
            raise KafkaStorageError(f"the log of {self.topic_partition} is closed")

    def _fail(self, error: OSError, doing: str) -> NoReturn:
        raise self.log_dir.failed(error, f"{doing} {self.topic_partition}") from error

    # --- Appending ----------------------------------------------------------------------------

    def append_as_leader(
        self, records: Buffer, *, leader_epoch: LeaderEpoch, now_ms: int, keep: bool = False
    ) -> AppendInfo:
        """Validate and append one batch from a client; it gets the offsets from the log end on.

        With ``keep`` the batch stays in memory for a while, for followers who are about to ask for
        it: ``records`` then belongs to the log, which changes it in place where it can be written.

        A batch that repeats one of its producer's last five returns that one's offsets. Raises the
        BrokerErrors of :func:`validate_batch`, RecordListTooLargeError (larger than a segment),
        InvalidProducerEpochError, OutOfOrderSequenceNumberError, InvalidTxnStateError
        (transactional: no transaction can be open in this version).
        """
        self._check_usable()
        config = self._config
        header = validate_batch(
            records,
            max_message_bytes=config.max_message_bytes,
            now_ms=now_ms,
            timestamp_type=config.timestamp_type,
            timestamp_before_max_ms=config.timestamp_before_max_ms,
            timestamp_after_max_ms=config.timestamp_after_max_ms,
            is_compacted=config.is_compacted,
        )
        if header.size > config.segment_bytes:
            raise RecordListTooLargeError(
                f"{self.topic_partition}: the batch has {header.size} bytes, "
                f"a segment {config.segment_bytes} (segment.bytes)"
            )
        if header.is_transactional:
            raise InvalidTxnStateError(
                f"{self.topic_partition}: producer {header.producer_id} has no transaction here"
            )
        log_append_time_ms = NO_TIMESTAMP
        if header.has_producer_id:
            duplicate = self._producers.check(header)
            if duplicate is not None:
                return self._duplicate(header, duplicate)
        head: Buffer = records
        if config.timestamp_type is TimestampType.LOG_APPEND_TIME:
            head = stamp_log_append_time(records, now_ms)
            log_append_time_ms = now_ms
        first_offset = self.log_end_offset
        view = memoryview(records)
        buffers: tuple[Buffer, ...]
        if keep and head is records and not view.readonly and held_bytes(view) <= _WORTH_HOLDING * len(view):
            patch_in_place(view, base_offset=first_offset, leader_epoch=leader_epoch)
            buffers = (view,)
        else:
            patched = patch_header(head, base_offset=first_offset, leader_epoch=leader_epoch)
            buffers = (patched, view[HEADER_SIZE:])
            if keep:
                buffers = (b"".join(buffers),)
        placed = BatchHeader.parse(buffers[0])
        self._append(buffers, (placed,), now_ms)
        if keep:
            self._newest.keep(first_offset, placed.next_offset, buffers[0])
        return AppendInfo(
            first_offset=first_offset,
            last_offset=placed.last_offset,
            max_timestamp=placed.max_timestamp,
            log_append_time_ms=log_append_time_ms,
            log_start_offset=self.log_start_offset,
            size=placed.size,
            record_count=placed.record_count,
        )

    def _duplicate(self, header: BatchHeader, earlier: BatchMetadata) -> AppendInfo:
        is_append_time = self._config.timestamp_type is TimestampType.LOG_APPEND_TIME
        return AppendInfo(
            first_offset=earlier.first_offset,
            last_offset=earlier.last_offset,
            max_timestamp=earlier.timestamp,
            log_append_time_ms=earlier.timestamp if is_append_time else NO_TIMESTAMP,
            log_start_offset=self.log_start_offset,
            size=0,
            record_count=header.record_count,
            is_duplicate=True,
        )

    def append_as_follower(self, records: Buffer) -> AppendInfo:
        """Append whole batches from the leader as they are: offsets and epochs are the leader's.

        Only checksums and rising offsets are checked; the leader has validated the rest. An empty
        log whose end lies within the first batch begins anew at that batch. Raises
        CorruptMessageError, :class:`UnexpectedOffset`; then nothing was appended.
        """
        self._check_usable()
        view = memoryview(records)
        headers: list[BatchHeader] = []
        expected = self.log_end_offset
        position = 0
        for header, position, size in batches(view):
            check_crc(view[position : position + size], header)
            if header.last_offset_delta < 0 or (
                header.base_offset < expected and (headers or not self._spans_empty_log(header))
            ):
                raise UnexpectedOffset(
                    self.topic_partition,
                    first_offset=header.base_offset,
                    last_offset=header.last_offset,
                    expected=expected,
                )
            expected = header.next_offset
            headers.append(header)
            position += size
        if position != len(view):
            raise CorruptMessageError(
                f"{self.topic_partition}: {len(view) - position} bytes after the last whole batch"
            )
        if not headers:
            end = self.log_end_offset
            return AppendInfo(end, end - 1, NO_TIMESTAMP, NO_TIMESTAMP, self.log_start_offset, 0, 0)
        if headers[0].base_offset < self.log_end_offset:
            self.truncate_fully_and_start_at(headers[0].base_offset)
        self._append((view,), headers, self._clock.wall_ms())
        return AppendInfo(
            first_offset=headers[0].base_offset,
            last_offset=headers[-1].last_offset,
            max_timestamp=max([header.max_timestamp for header in headers]),
            log_append_time_ms=NO_TIMESTAMP,
            log_start_offset=self.log_start_offset,
            size=len(view),
            record_count=sum([header.record_count for header in headers]),
        )

    def _spans_empty_log(self, header: BatchHeader) -> bool:
        is_empty = self.log_start_offset == self.log_end_offset and not self._active.size
        return is_empty and header.base_offset < self.log_end_offset <= header.last_offset

    def _append(self, buffers: Sequence[Buffer], headers: Sequence[BatchHeader], now_ms: int) -> None:
        """Write validated batches; the only way into the log."""
        try:
            for header in headers:
                # Before the write, so that the log never holds an epoch that the cache does not.
                if header.partition_leader_epoch != self._epochs.latest_epoch:
                    self._assign_epoch(LeaderEpoch(header.partition_leader_epoch), header.base_offset)
            if self._must_roll(sum(map(len, buffers)), headers[-1], now_ms):
                self._roll(max(self.log_end_offset, headers[-1].last_offset - RELATIVE_OFFSET_MAX), now_ms)
            self._active.append(buffers, headers)
        except OSError as error:
            self._fail(error, "appending to")
        for header in headers:
            self._producers.update(header)
        self.log_end_offset = headers[-1].next_offset
        if self.log_end_offset - self._recovery_point >= self._config.flush_messages:
            self.flush_now()

    def _must_roll(self, incoming: int, last: BatchHeader, now_ms: int) -> bool:
        active = self._active
        if not active.fits(last.last_offset):
            return True
        if not active.size:
            return False
        if active.size > self._config.segment_bytes - incoming or active.is_index_full:
            return True
        first_timestamp = active.first_timestamp
        if first_timestamp is not None and first_timestamp >= 0:
            waited_ms = last.max_timestamp - first_timestamp
        else:
            waited_ms = now_ms - active.created_ms
        return waited_ms > self._config.segment_ms - self._jitter_ms

    def _draw_jitter(self) -> int:
        bound = min(self._config.segment_jitter_ms, self._config.segment_ms)
        return self._chance.randrange(bound) if bound > 0 else 0

    def _roll(self, base_offset: int, now_ms: int) -> None:
        """End the active segment and begin one at ``base_offset``."""
        old = self._active
        if old.size:
            old.seal()
            self._write_snapshot(base_offset)
        else:
            self._remove_segment(old)
        self._add_segment(base_offset, now_ms)
        self._prune_snapshots()
        self._jitter_ms = self._draw_jitter()
        self._on_roll(self)

    def _add_segment(self, base_offset: int, now_ms: int) -> None:
        segment = Segment(self._files, self.path, base_offset, self._config, now_ms=now_ms)
        self._unsynced_dirs[self.path] = None
        segment.activate()
        self._segments.append(segment)
        self._bases.append(base_offset)
        self.log_end_offset = max(self.log_end_offset, base_offset)
        segment.next_offset = base_offset

    def _remove_segment(self, segment: Segment) -> None:
        """Remove a segment and its files for good, at once."""
        index = self._segments.index(segment)
        del self._segments[index], self._bases[index]
        segment.close()
        for name in segment.names():
            if not name.endswith(SNAPSHOT_SUFFIX):
                self._files.remove(os.path.join(self.path, name))
        self._unsynced_dirs[self.path] = None

    # --- Leader epochs ------------------------------------------------------------------------

    def assign_epoch(self, epoch: LeaderEpoch, start_offset: int) -> None:
        """Let ``epoch`` begin at ``start_offset``; called on becoming leader with the log end."""
        self._check_usable()
        try:
            self._assign_epoch(epoch, start_offset)
        except OSError as error:
            self._fail(error, "writing the leader epochs of")

    def _assign_epoch(self, epoch: LeaderEpoch, start_offset: int) -> None:
        if epoch >= 0 and self._epochs.assign(epoch, start_offset):
            self._write_epochs()

    def _write_epochs(self) -> None:
        # Not fsynced: what lies below the recovery point is synced by the flush that raises it,
        # and what lies above is read from the batches again after a crash.
        path = os.path.join(self.path, LEADER_EPOCH_CHECKPOINT)
        self._files.write_atomically(path, self._epochs.encode(), sync=False)
        self._unsynced_paths[path] = None
        self._unsynced_dirs[self.path] = None

    def end_offset_for_epoch(self, epoch: LeaderEpoch) -> tuple[LeaderEpoch, int]:
        """Tell where ``epoch`` ended here: (largest epoch ≤ it, end offset, exclusive).

        (-1, -1) where that is not known. The newest epoch ends at the log end.
        """
        self._check_usable()
        return self._epochs.end_offset_for(epoch, self.log_end_offset)

    def ranges_above(self, offset: int) -> list[tuple[LeaderEpoch, int, int]]:
        """What a truncation to ``offset`` would drop: (epoch, first, last exclusive), rising.

        Reaches down to the base of the batch that holds ``offset``: batches are dropped whole.
        """
        self._check_usable()
        if offset >= self.log_end_offset:
            return []
        first = max(offset, self.log_start_offset)
        index = bisect_right(self._bases, first) - 1
        if index >= 0:
            try:
                first = min(first, self._segments[index].batch_start(first))
            except OSError as error:
                self._fail(error, "reading")
        return self._epochs.ranges_between(max(first, self.log_start_offset), self.log_end_offset)

    # --- Reading ------------------------------------------------------------------------------

    def read(
        self,
        offset: int,
        *,
        max_bytes: int,
        upper_bound: int | None = None,
        min_one_message: bool = True,
    ) -> Read | WouldBlock:
        """Read whole batches from the one that holds ``offset`` on, from memory only.

        Only batches that end below ``upper_bound`` (exclusive: high watermark, last stable offset;
        None for the log end), at most ``max_bytes`` (a first batch that is larger comes alone
        where ``min_one_message``) and of one segment. Raises OffsetOutOfRangeError below the log
        start or beyond the log end, CorruptMessageError where no batch is found in its place.
        """
        self._check_readable(offset)
        bound = self.log_end_offset if upper_bound is None else min(upper_bound, self.log_end_offset)
        kept = self._newest.read(
            offset, max_bytes=max_bytes, upper_bound=bound, min_one_message=min_one_message
        )
        if kept is not None:
            records, next_offset = kept
            return Read(records, offset, next_offset)
        plan = self._plan_read(offset, upper_bound)
        if isinstance(plan, Read):
            return plan
        try:
            found = plan.run(max_bytes, min_one_message, wait=False)
        except BlockingIOError:
            return WouldBlock(offset)
        except OSError as error:
            self._fail(error, "reading")
        return Read(*found)

    async def read_cold(
        self,
        offset: int,
        *,
        max_bytes: int,
        upper_bound: int | None = None,
        min_one_message: bool = True,
    ) -> Read:
        """Like :meth:`read`, waiting for the disk in a thread."""
        while True:
            plan = self._plan_read(offset, upper_bound)
            if isinstance(plan, Read):
                return plan
            truncations = self._truncations
            with contextlib.ExitStack() as pins:
                for segment in plan.segments:
                    pins.enter_context(segment.pin())
                try:
                    found = await self._offload.run(plan.run, max_bytes, min_one_message, wait=True)
                except (OSError, CorruptMessageError, IndexError) as error:
                    if self._truncations != truncations:
                        continue
                    if isinstance(error, OSError):
                        self._check_usable()
                        self._fail(error, "reading")
                    raise
            if self._truncations == truncations:
                return Read(*found)
            # What was read may have been cut off, and other records written in its place.

    def _check_readable(self, offset: int) -> None:
        self._check_usable()
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRangeError(
                f"{self.topic_partition}: offset {offset} is outside of "
                f"[{self.log_start_offset}, {self.log_end_offset}]"
            )

    def _plan_read(self, offset: int, upper_bound: int | None) -> Read | _ReadPlan:
        self._check_readable(offset)
        bound = self.log_end_offset if upper_bound is None else min(upper_bound, self.log_end_offset)
        if offset >= bound:
            return Read(b"", offset, offset)
        index = max(bisect_right(self._bases, offset) - 1, 0)
        return _ReadPlan(tuple(self._segments[index:]), offset, bound)

    async def offset_for_timestamp(
        self, timestamp: int, *, upper_bound: int | None = None
    ) -> FoundOffset | None:
        """Find the first record from ``timestamp`` or later, at or beyond the log start.

        :data:`MAX_TIMESTAMP` asks for the (first) record with the largest timestamp. None where
        there is none below ``upper_bound`` (exclusive; None for the log end).
        """
        self._check_usable()
        bound = self.log_end_offset if upper_bound is None else min(upper_bound, self.log_end_offset)
        while True:
            segments = tuple(self._segments)
            truncations = self._truncations
            with contextlib.ExitStack() as pins:
                for segment in segments:
                    pins.enter_context(segment.pin())
                try:
                    found = await self._offload.run(
                        _find_timestamp, segments, timestamp, self.log_start_offset
                    )
                except (OSError, CorruptMessageError, IndexError) as error:
                    if self._truncations != truncations:
                        continue
                    if isinstance(error, OSError):
                        self._check_usable()
                        self._fail(error, "reading")
                    raise
            if self._truncations == truncations:
                break
        if found is None or found.offset >= bound or found.offset < self.log_start_offset:
            return None
        return FoundOffset(found.offset, found.timestamp, self._epochs.epoch_at(found.offset))

    # --- Watermarks ---------------------------------------------------------------------------

    def update_high_watermark(self, offset: int) -> int:
        """Set the high watermark, kept within [log start, log end]; return what it is now.

        It may go down: a new leader's may lag behind what this follower knew.
        """
        self.high_watermark = min(max(offset, self.log_start_offset), self.log_end_offset)
        return self.high_watermark

    def raise_log_start_offset(self, offset: int) -> bool:
        """Let the log begin at ``offset``; return whether that is news. Never lowers it.

        For DeleteRecords and for followers of it; segments that lie below go with the next
        retention check. Raises OffsetOutOfRangeError beyond the high watermark.
        """
        self._check_usable()
        if offset > self.high_watermark:
            raise OffsetOutOfRangeError(
                f"{self.topic_partition}: offset {offset} is beyond the high watermark {self.high_watermark}"
            )
        if offset <= self.log_start_offset:
            return False
        try:
            self._raise_log_start_offset(offset)
        except OSError as error:
            self._fail(error, "writing the leader epochs of")
        return True

    def _raise_log_start_offset(self, offset: int) -> None:
        if offset <= self.log_start_offset:
            return
        self.log_start_offset = offset
        self.update_high_watermark(self.high_watermark)
        if self._epochs.truncate_from_start(offset):
            self._write_epochs()

    # --- Truncation ---------------------------------------------------------------------------

    def truncate_to(self, offset: int) -> int:
        """Drop every batch that reaches to ``offset`` or beyond; return the new log end offset.

        That may lie below ``offset``, since batches are dropped whole. It is durable when this
        returns (a truncation that a power cut undid would bring back what other replicas have
        replaced), so it waits for the disk; it is rare. Whoever calls it has written a loss
        receipt for :meth:`ranges_above` before.
        """
        self._check_usable()
        assert offset >= 0, "offsets are not negative"
        if offset >= self.log_end_offset:
            try:
                if self._epochs.truncate_from_end(offset):
                    self._write_epochs()
            except OSError as error:
                self._fail(error, "writing the leader epochs of")
            return self.log_end_offset
        if offset < self._bases[0]:
            self.truncate_fully_and_start_at(offset)
            return self.log_end_offset
        try:
            self._truncate_to(offset)
        except OSError as error:
            self._fail(error, "truncating")
        return self.log_end_offset

    def _truncate_to(self, offset: int) -> None:
        self._truncations += 1
        self._newest.clear()
        if offset < max(self._recovery_point, self.log_start_offset):
            # After a crash nothing below the recovery point is checked: it must not promise, on
            # disk, what is about to be overwritten.
            self._before_truncation(self, self._segments[bisect_right(self._bases, offset) - 1].base_offset)
        while len(self._segments) > 1 and self._active.base_offset >= offset:
            # From the end, so that a crash in between leaves a log without a hole.
            self._remove_segment(self._active)
        active = self._active
        active.activate()
        active.truncate_to(offset)
        end = active.next_offset
        self.log_end_offset = end
        self.log_start_offset = min(self.log_start_offset, end)
        self._recovery_point = min(self._recovery_point, end)
        self.high_watermark = min(self.high_watermark, end)
        self._drop_snapshots(lambda snapshot: snapshot > end)
        if self._epochs.truncate_from_end(end):
            self._write_epochs()
        load_producer_states(
            self._files,
            self.path,
            self._segments,
            self._producers,
            self._snapshots,
            self.log_start_offset,
            end,
        )
        self._sync_truncation()

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Drop everything and begin anew, empty, at ``offset``. Durable when it returns."""
        self._check_usable()
        try:
            self._truncations += 1
            self._newest.clear()
            first = min(offset, self._segments[0].base_offset)
            if first < self._recovery_point or offset < self.log_start_offset:
                self._before_truncation(self, first)
            while self._segments:
                self._remove_segment(self._active)
            self._drop_snapshots(lambda snapshot: True)
            self._producers.clear()
            self._epochs.clear()
            self._write_epochs()
            self.log_end_offset = offset
            self._add_segment(offset, self._clock.wall_ms())
            self.log_start_offset = self.log_end_offset = offset
            self._recovery_point = self.high_watermark = offset
            self._sync_truncation()
        except OSError as error:
            self._fail(error, "truncating")

    def _sync_truncation(self) -> None:
        """Make a truncation durable: cut file, removed names, side files."""
        self._active.write_indexes()
        plan = _FlushPlan(
            self._files,
            (self._active,),
            tuple(self._unsynced_paths),
            tuple(self._unsynced_dirs),
            self._recovery_point,
            self._truncations,
        )
        plan.run()
        self._unsynced_paths.clear()
        self._unsynced_dirs.clear()

    # --- Durability ---------------------------------------------------------------------------

    async def flush(self, up_to: int | None = None) -> int:
        """Make everything below ``up_to`` (None: the log end) durable; return the recovery point.

        The fsyncs run in a thread; appends go on meanwhile.
        """
        self._check_usable()
        plan = self._plan_flush(up_to)
        if plan is None:
            return self._recovery_point
        with contextlib.ExitStack() as pins:
            for segment in plan.segments:
                pins.enter_context(segment.pin())
            try:
                await self._offload.run(plan.run)
            except BaseException as error:
                self._unsynced_paths = {**dict.fromkeys(plan.paths), **self._unsynced_paths}
                self._unsynced_dirs = {**dict.fromkeys(plan.directories), **self._unsynced_dirs}
                if not isinstance(error, OSError):
                    raise
                if self._is_closed:
                    return self._recovery_point  # Deleted meanwhile: its directory has another name.
                self._fail(error, "flushing")
        self._flushed(plan)
        return self._recovery_point

    def flush_now(self) -> None:
        """Like :meth:`flush`, waiting on the spot: for `flush.messages` and for closing."""
        self._check_usable()
        plan = self._plan_flush(None)
        if plan is None:
            return
        try:
            plan.run()
        except OSError as error:
            self._fail(error, "flushing")
        self._flushed(plan)

    def _plan_flush(self, up_to: int | None) -> _FlushPlan | None:
        target = self.log_end_offset if up_to is None else min(up_to, self.log_end_offset)
        if target <= self._recovery_point and not self._unsynced_paths and not self._unsynced_dirs:
            return None
        first = max(bisect_right(self._bases, self._recovery_point) - 1, 0)
        try:
            self._active.write_indexes()
        except OSError as error:
            self._fail(error, "flushing")
        plan = _FlushPlan(
            self._files,
            tuple(segment for segment in self._segments[first:] if segment.base_offset < target),
            tuple(self._unsynced_paths),
            tuple(self._unsynced_dirs),
            target,
            self._truncations,
        )
        # What becomes unsynced from here on is for the next flush.
        self._unsynced_paths = {}
        self._unsynced_dirs = {}
        return plan

    def _flushed(self, plan: _FlushPlan) -> None:
        if plan.truncations == self._truncations:
            self._recovery_point = max(self._recovery_point, plan.up_to)
        self._last_flush_ms = self._clock.wall_ms()

    # --- Producers ----------------------------------------------------------------------------

    def expire_producers(self, now_ms: int, expiration_ms: int) -> list[int]:
        """Forget producers silent for ``expiration_ms``; return their ids."""
        return self._producers.expire(now_ms, expiration_ms)

    def _write_snapshot(self, offset: int) -> None:
        """Write the producer state as of ``offset``, which is the log end."""
        path = os.path.join(self.path, file_name(offset, SNAPSHOT_SUFFIX))
        self._files.write_atomically(path, self._producers.encode(), sync=False)
        if offset not in self._snapshots:
            self._snapshots.append(offset)
        self._unsynced_paths[path] = None
        self._unsynced_dirs[self.path] = None

    def _prune_snapshots(self) -> None:
        """Keep those of the last two segments and the one at the log end."""
        kept = {*self._bases[-2:], self.log_end_offset}
        self._drop_snapshots(lambda snapshot: snapshot not in kept)

    def _drop_snapshots(self, is_dropped: Callable[[int], bool]) -> None:
        for snapshot in [snapshot for snapshot in self._snapshots if is_dropped(snapshot)]:
            path = os.path.join(self.path, file_name(snapshot, SNAPSHOT_SUFFIX))
            self._files.remove(path)
            self._snapshots.remove(snapshot)
            self._unsynced_paths.pop(path, None)
            self._unsynced_dirs[self.path] = None

    # --- Retention ----------------------------------------------------------------------------

    def delete_old_segments(self, now_ms: int) -> list[DeletedFiles]:
        """Apply retention by start offset, size and time, in this order.

        Segments go from the oldest on, only below the high watermark; their files are renamed and
        returned, to be removed after `file.delete.delay.ms`.
        """
        self._check_usable()
        try:
            deleted = []
            for reason, count_doomed in (
                ("start offset", self._count_below_start_offset),
                ("size", self._count_beyond_size),
                ("time", self._count_beyond_time),
            ):
                count = count_doomed(now_ms)
                if count:
                    deleted.append(self._delete_oldest(count, reason, now_ms))
            return deleted
        except OSError as error:
            self._fail(error, "deleting old segments of")

    def _upper_bound(self, index: int) -> int:
        """The offset after segment ``index`` (exclusive)."""
        return self._bases[index + 1] if index + 1 < len(self._bases) else self.log_end_offset

    def _deletable(self) -> Iterable[Segment]:
        """The segments that retention may take, oldest first."""
        for index, segment in enumerate(self._segments):
            is_last = index + 1 == len(self._segments)
            if self.high_watermark < self._upper_bound(index) or (is_last and not segment.size):
                return
            yield segment

    def _count_below_start_offset(self, now_ms: int) -> int:
        count = 0
        for index, _ in enumerate(self._deletable()):
            if index + 1 >= len(self._bases) or self._bases[index + 1] > self.log_start_offset:
                break
            count += 1
        return count

    def _count_beyond_size(self, now_ms: int) -> int:
        if not self._config.is_deleted or self._config.retention_bytes < 0:
            return 0
        excess = self.size - self._config.retention_bytes
        count = 0
        for segment in self._deletable():
            excess -= segment.size
            if excess < 0:
                break
            count += 1
        return count

    def _count_beyond_time(self, now_ms: int) -> int:
        if not self._config.is_deleted or self._config.retention_ms < 0:
            return 0
        count = 0
        for segment in self._deletable():
            if now_ms - segment.retention_timestamp_ms() <= self._config.retention_ms:
                break
            count += 1
        return count

    def _delete_oldest(self, count: int, reason: str, now_ms: int) -> DeletedFiles:
        """Take the oldest ``count`` segments out of the log."""
        if count == len(self._segments):
            self._roll(self.log_end_offset, now_ms)
        first_offset = self.log_start_offset
        next_offset = self._bases[count]
        # The log begins beyond them before they go, so nobody reads what is being deleted.
        self._raise_log_start_offset(next_offset)
        paths: list[str] = []
        for segment in self._segments[:count]:
            segment.close()
            # The log file first: without it the others are nobody's and go at the next start.
            for name in reversed(segment.names()):
                path = os.path.join(self.path, name)
                if self._files.exists(path):
                    self._files.rename(path, path + DELETED_SUFFIX)
                    paths.append(path + DELETED_SUFFIX)
        del self._segments[:count], self._bases[:count]
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot >= self._bases[0]]
        for path in paths:
            self._unsynced_paths.pop(path.removesuffix(DELETED_SUFFIX), None)
        self._unsynced_dirs[self.path] = None
        return DeletedFiles(tuple(paths), first_offset, next_offset, reason)

    # --- Its end ------------------------------------------------------------------------------

    def assign_topic_id(self, topic_id: Uuid) -> None:
        """Learn the id of the topic, once. Raises InconsistentTopicIdError for another one."""
        self._check_usable()
        if self.topic_id == topic_id:
            return
        if self.topic_id is not None:
            raise InconsistentTopicIdError(
                f"{self.topic_partition}: the log here is of topic id {self.topic_id}, not {topic_id}"
            )
        path = os.path.join(self.path, PARTITION_METADATA)
        try:
            self._files.write_atomically(path, encode_partition_metadata(topic_id), sync=False)
        except OSError as error:
            self._fail(error, "writing the topic id of")
        self._unsynced_paths[path] = None
        self._unsynced_dirs[self.path] = None
        self.topic_id = topic_id

    def close_cleanly(self) -> None:
        """Make everything durable, leave a snapshot at the log end, close the files.

        Waits for the disk: may run in a thread when nothing else uses the log any more. OSError
        is left to the caller, who must then not mark the directory as cleanly shut down.
        """
        self._active.seal()
        self._write_snapshot(self.log_end_offset)
        self._prune_snapshots()
        plan = self._plan_flush(None)
        if plan is not None:
            plan.run()
            self._flushed(plan)
        self.close()

    def close(self) -> None:
        """Close the files as they are; every later use raises KafkaStorageError."""
        if not self._is_closed:
            self._is_closed = True
            self._newest.clear()
            for segment in self._segments:
                segment.close()


class _ReadPlan(NamedTuple):
    """Where to look for an offset. Runs in any thread while its segments are pinned."""

    segments: tuple[Segment, ...]
    offset: int
    upper_bound: int

    def run(self, max_bytes: int, min_one_message: bool, *, wait: bool) -> SegmentSlice:
        for segment in self.segments:
            found = segment.read(
                self.offset,
                max_bytes=max_bytes,
                upper_bound=self.upper_bound,
                min_one_message=min_one_message,
                wait=wait,
            )
            if found is not None:
                return found
            # Nothing at or after the offset here: it lies between two segments.
        return SegmentSlice(b"", self.offset, self.offset)


def _find_timestamp(segments: Sequence[Segment], timestamp: int, start_offset: int) -> TimestampOffset | None:
    if timestamp == MAX_TIMESTAMP:
        candidates = [segment for segment in segments if segment.largest is not None]
        if not candidates:
            return None
        return max(
            candidates, key=lambda segment: segment.largest.timestamp if segment.largest else NO_TIMESTAMP
        ).find_largest_timestamp()
    for segment in segments:
        largest = segment.largest
        if largest is not None and largest.timestamp >= timestamp:
            found = segment.find_timestamp(timestamp, start_offset)
            if found is not None:
                return found
    return None
