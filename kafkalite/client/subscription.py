"""What a consumer reads: its partitions, where it is in each, and what it has fetched but not handed out.

Pure bookkeeping. The *position* is the offset of the next record to be handed out; it moves only with what
the caller gets. Fetching runs ahead of it by at most two answers a partition. Batches wait as they came from
the wire; one at a time is opened into records, in bulk. Whatever moves a position by force (a seek, a
reset, a truncation) drops what was fetched and makes fetches in flight count for nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from kafkalite.client.errors import DeserializationError
from kafkalite.client.records import ConsumerRecord, RecordColumns, Timestamps
from kafkalite.common import TopicPartition
from kafkalite.edge import Buffer
from kafkalite.protocol.errors import BrokerError, CorruptMessageError
from kafkalite.protocol.record_batch import BatchHeader, LocatedBatch, batches, check_crc, decode_batch

MAX_BUFFERED: Final = 2
"""Answers a partition that may wait: one to read from, one ahead."""

Deserializer = Callable[[bytes], Any]


class Chunk:
    """The batches of one partition from one fetch answer."""

    __slots__ = ("batches", "buffer", "next_offset")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = memoryview(buffer)
        self.batches: deque[LocatedBatch] = deque(batches(buffer))
        if not self.batches:
            raise CorruptMessageError(f"{len(self.buffer)} bytes of records without a whole batch")
        self.next_offset = self.batches[-1].header.next_offset
        """Where the next fetch goes on."""


class PartitionState:
    """One assigned partition."""

    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.position: int | None = None
        """The offset of the next record to hand out; None until it is known."""
        self.position_epoch = -1
        """The leader epoch of the record before the position, -1 where it is not known."""
        self.reset_to: int | None = None
        """LATEST or EARLIEST, to be looked up, while there is no position."""
        self.fetch_offset = 0
        """Where the next fetch begins: the end of what is buffered."""
        self.fetching: object | None = None
        """The fetch that is under way."""
        self.is_paused = False
        self.is_withheld = False
        """Nothing may be handed out: the partition is being revoked, or is not quite taken over yet."""
        self.wants_committed = False
        """The position is to be what the group has committed."""
        self.held: int | None = None
        """The offset of the first record that the caller got and may not have processed yet."""
        self.retry_at = 0.0
        self.failures = 0
        self.error: Exception | None = None
        """Raised to the caller by the next read, once; reading goes on where it was."""
        self.leader_epoch = -1
        """The leader epoch that the position was found, or checked, to be right under."""
        self.must_validate = False
        """The leader has changed: was the log truncated behind the position?"""
        self.high_watermark: int | None = None
        self.last_stable_offset: int | None = None
        self.log_start_offset: int | None = None
        self._columns: RecordColumns | None = None
        """The open batch, from the position that it was opened at on."""
        self._records: list[ConsumerRecord] = []
        """The same as objects, made when the first is asked for."""
        self.count = 0
        """Records in the open batch."""
        self.index = 0
        """How many of those are handed out."""
        self._open_next = 0
        self._open_epoch = -1
        self._poison: DeserializationError | None = None
        self._chunks: deque[Chunk] = deque()
        self.enough_since: float | None = None
        """Since when (monotonic seconds) fetches leave it out because enough is buffered."""

    # --- Position ------------------------------------------------------------------------------

    def seek(self, offset: int, leader_epoch: int = -1) -> None:
        """Go on at ``offset``; the epoch is that of the record before it, if it is known."""
        self._drop()
        self.position = self.fetch_offset = offset
        self.position_epoch = leader_epoch
        self.reset_to = None
        self.wants_committed = False
        self.must_validate = False

    def reset(self, to: int) -> None:
        """Have the position looked up: LATEST or EARLIEST."""
        self._drop()
        self.position = None
        self.position_epoch = -1
        self.reset_to = to
        self.wants_committed = False
        self.must_validate = False

    def lose(self) -> None:
        """Have no position, and nobody look for one."""
        self._drop()
        self.position = None
        self.reset_to = None
        self.wants_committed = False
        self.must_validate = False

    def refetch(self) -> None:
        """Drop what is buffered, keep the position."""
        assert self.position is not None
        self.position_epoch = self.last_epoch
        self._drop()
        self.fetch_offset = self.position

    def _drop(self) -> None:
        self._chunks.clear()
        self._close()
        self._poison = None
        self.fetching = None
        self.error = None
        self.retry_at = 0.0
        self.failures = 0

    @property
    def last_epoch(self) -> int:
        """The leader epoch of the record before the position, -1 where it is not known.

        In the middle of a batch that is the batch's own, not that of the one before.
        """
        return self._open_epoch if self.index else self.position_epoch

    # --- Buffer --------------------------------------------------------------------------------

    @property
    def has_enough(self) -> bool:
        """Whether it is read, and so much of it is buffered that no more should be asked for now."""
        return len(self._chunks) >= MAX_BUFFERED and self.wants_data

    @property
    def wants_data(self) -> bool:
        """Whether this partition is read at all, however much is buffered."""
        return (
            self.position is not None
            and not self.is_paused
            and not self.is_withheld
            and self.fetching is None
            and self.error is None
            and not self.must_validate
        )

    def add(self, chunk: Chunk) -> None:
        """Buffer an answer."""
        self._chunks.append(chunk)
        self.fetch_offset = chunk.next_offset

    def left(self) -> int:
        """How many records of the open batch were not handed out."""
        return self.count - self.index

    @property
    def has_data(self) -> bool:
        """Whether a read would find something, an error included."""
        return self.error is not None or (
            not self.is_paused
            and not self.is_withheld
            and (self.index < self.count or self._poison is not None or bool(self._chunks))
        )

    def take(self, limit: int) -> list[ConsumerRecord]:
        """Hand out up to ``limit`` records of the open batch and move the position behind them."""
        records = self._records or self._make_records()
        end = min(self.index + limit, self.count)
        taken = records if end - self.index == self.count else records[self.index : end]
        self.index = end
        self._advance()
        return taken

    def take_columns(self, limit: int) -> RecordColumns:
        """The same, as columns."""
        assert self._columns is not None
        end = min(self.index + limit, self.count)
        taken = self._columns.part(self.index, end)
        self.index = end
        self._advance()
        return taken

    def _make_records(self) -> list[ConsumerRecord]:
        assert self._columns is not None
        self._records = list(self._columns.records())
        return self._records

    def take_error(self) -> Exception:
        """The pending error. It is gone afterwards, unless only the caller can end its reason."""
        error = self.error
        assert error is not None
        if self.position is not None or self.reset_to is not None:
            self.error = None
        return error

    def take_one(self) -> ConsumerRecord:
        """Hand out the next record of the open batch."""
        record = (self._records or self._make_records())[self.index]
        self.index += 1
        if self.index == self.count:
            self._advance()
        else:
            self.position = record.offset + 1
        return record

    def _advance(self) -> None:
        if self.index < self.count:
            assert self._columns is not None
            self.position = self._columns.offsets[self.index]
            return
        self._close()
        if self._poison is None:
            self.position = self._open_next
            self.position_epoch = self._open_epoch
        else:
            self.position = self._poison.offset

    def _close(self) -> None:
        self._columns = None
        self._records = []
        self.count = self.index = 0

    def open_next(
        self,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
        *,
        check_crcs: bool,
    ) -> bool:
        """Open batches until there are records; tell whether there are any.

        Raises a pending error; CorruptMessageError and others for a batch that is not right, whose
        partition is then fetched again; DeserializationError, before which the position stays.
        """
        if self.error is not None:
            raise self.take_error()
        while self.index >= self.count:
            if self._poison is not None:
                raise self._poison
            if not self._chunks:
                return False
            chunk = self._chunks[0]
            located = chunk.batches.popleft()
            if not chunk.batches:
                self._chunks.popleft()
            header = located.header
            self._open_next = header.next_offset
            self._open_epoch = header.partition_leader_epoch
            assert self.position is not None
            if not header.is_control and header.next_offset > self.position:
                batch = chunk.buffer[located.position : located.position + located.size]
                try:
                    if check_crcs:
                        check_crc(batch, header)
                    self._open(header, batch, key_deserializer, value_deserializer)
                except BrokerError as error:
                    position = self.position
                    self.refetch()
                    raise type(error)(
                        f"{self.tp} at offset {header.base_offset} (position {position}): {error.message}"
                    ) from error
            if not self.count and self._poison is None:
                # Nothing in it is to be handed out: a control batch, or compacted away.
                self.position = max(self.position, self._open_next)
                self.position_epoch = self._open_epoch
        return True

    def _open(
        self,
        header: BatchHeader,
        batch: memoryview,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> None:
        columns = decode_batch(batch)
        keys: list[Any] | None = columns.keys
        values: list[Any] = columns.values
        if (key_deserializer is not None and keys is not None) or value_deserializer is not None:
            keys, values = self._deserialize(
                columns.offsets, columns.keys, columns.values, key_deserializer, value_deserializer
            )
        count = len(values)
        base, deltas = columns.base_timestamp, columns.timestamp_deltas
        headers = columns.headers
        opened = RecordColumns(
            self.tp.topic,
            self.tp.partition,
            columns.offsets[:count],
            [base + deltas] * count if isinstance(deltas, int) else Timestamps([(base, deltas[:count])]),
            [int(columns.timestamp_type)] * count,
            keys,
            values,
            None if headers is None else [h if h is not None else () for h in headers[:count]],
        )
        assert self.position is not None
        if header.base_offset < self.position:  # The answer's first batch may begin before what was asked.
            opened = opened.part(bisect_left(opened.offsets, self.position), count)
        if self._poison is not None and self._poison.offset < self.position:
            self._poison = None
        self._columns = opened
        self.count = len(opened)

    def _deserialize(
        self,
        offsets: Sequence[int],
        keys: list[bytes | None] | None,
        values: list[bytes | None],
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> tuple[list[Any] | None, list[Any]]:
        """Deserialise both columns up to the first failure at or after the position."""
        made_keys: list[Any] = []
        made_values: list[Any] = []
        assert self.position is not None
        for index, value in enumerate(values):
            key = keys[index] if keys is not None else None
            part = "key"
            try:
                if offsets[index] < self.position:
                    made_keys.append(key)
                    made_values.append(value)
                    continue
                made_keys.append(key if key is None or key_deserializer is None else key_deserializer(key))
                part = "value"
                made_values.append(
                    value if value is None or value_deserializer is None else value_deserializer(value)
                )
            except Exception as error:  # Whatever the caller's code raises, it is the caller's to see.
                self._poison = DeserializationError(self.tp, offsets[index], part, error)
                self._poison.__cause__ = error
                break
        return (made_keys if keys is not None else None), made_values
