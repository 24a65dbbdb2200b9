"""A batch on its way out: the records of one partition that travel together, as columns.

It is *open* while it takes records, then *sealed* (encoded), *in flight* in one request at a time, and at
last *done*: acknowledged or failed. There is no object a record but the awaitable that `send` returns
(:mod:`.delivery`). Sizes are upper bounds: exact ones would cost as much as encoding.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, repeat
from typing import Final, NamedTuple, cast

from kafkalite.client.records import Header
from kafkalite.common import TopicPartition
from kafkalite.protocol.compression import Compression
from kafkalite.protocol.record_batch import HEADER_SIZE, TimestampRuns, encode_batch, restamp

BATCH_OVERHEAD: Final = HEADER_SIZE + 32
"""An upper bound of what a batch weighs without its records."""
RECORD_OVERHEAD: Final = 8
"""The same for a value alone: its bin header and a small timestamp delta."""
FIELD_OVERHEAD: Final = 6
"""The same for a key, a header's name or a header's value."""


class Identity(NamedTuple):
    """Who a producer is to a partition's leader."""

    producer_id: int
    producer_epoch: int


class Batch:
    """Records of one partition that travel, and are acknowledged, together."""

    __slots__ = (
        "attempts",
        "base_offset",
        "base_sequence",
        "count",
        "created",
        "done",
        "encoded",
        "error",
        "flight",
        "headers",
        "identity",
        "is_sealed",
        "is_uncertain",
        "keys",
        "last_error",
        "last_timestamp",
        "limit",
        "log_append_time",
        "log_start_offset",
        "order",
        "parts",
        "reserved",
        "retry_at",
        "sent_alone",
        "sent_to",
        "size",
        "timestamps",
        "tp",
        "values",
        "waiters",
    )

    def __init__(self, tp: TopicPartition, order: tuple[int, ...], created: float, limit: int) -> None:
        self.tp = tp
        self.order = order
        """Its place among the batches of the partition; the parts of a split one sort in its place."""
        self.created = created
        """Monotonic seconds; `linger_ms` and `delivery_timeout_ms` count from here."""
        self.limit = limit
        """How large it may grow by `send`'s short cut; 0 where that must not add to it."""
        self.size = BATCH_OVERHEAD
        """An upper bound of its encoded size before compression."""
        self.reserved = 0
        """Its share of the producer's buffer, in bytes."""
        self.timestamps = TimestampRuns([], [])
        self.last_timestamp = -1
        """That of the last record."""
        self.keys: list[bytes | None] | None = None
        self.values: list[bytes | None] = []
        self.headers: list[Sequence[Header] | None] | None = None
        self.count = 0
        """The number of records; set when it is sealed."""
        self.is_sealed = False
        self.encoded: bytearray | None = None
        self.identity: Identity | None = None
        """None until it is first sent, and always without idempotence."""
        self.base_sequence = -1
        self.attempts = 0
        """Requests that it was in and that ended."""
        self.retry_at = 0.0
        self.flight: object | None = None
        """The request that it is in; None while it waits."""
        self.sent_to = (-1, -1)
        """Leader and leader epoch that the last attempt was for."""
        self.sent_alone = False
        """Nothing older was unresolved when it was last sent: the answer is about itself."""
        self.is_uncertain = False
        """Some attempt may have appended it without telling."""
        self.last_error: BaseException | None = None
        self.done = False
        self.error: BaseException | None = None
        self.base_offset = -1
        self.log_append_time = -1
        self.log_start_offset = -1
        self.parts: list[Batch] | None = None
        """What it was split into."""
        self.waiters: list[asyncio.Future[None]] = []

    def add(
        self,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] | None,
        size: int,
    ) -> int:
        """Append a record that is ``size`` bytes by :func:`record_size`; return its index."""
        index = len(self.values)
        self.timestamps.put(index, timestamp)
        self.last_timestamp = timestamp
        if self.keys is not None:
            self.keys.append(key)
        elif key is not None:
            self.keys = [None] * index
            self.keys.append(key)
            self.limit = 0
        if self.headers is not None:
            self.headers.append(headers)
        elif headers is not None:
            self.headers = [None] * index
            self.headers.append(headers)
            self.limit = 0
        self.values.append(value)
        self.size += size
        return index

    def extend(self, columns: OutgoingColumns, start: int, end: int) -> int:
        """Append the records ``start`` to ``end`` (exclusive) of ``columns``; return the first's index."""
        index = len(self.values)
        count = end - start
        timestamps = columns.timestamps
        if isinstance(timestamps, int):
            self.timestamps.put(index, timestamps)
            self.last_timestamp = timestamps
        else:
            self.timestamps.starts.extend(range(index, index + count))
            self.timestamps.timestamps.extend(timestamps[start:end])
            self.last_timestamp = timestamps[end - 1]
        if self.keys is not None or columns.keys is not None:
            if self.keys is None:
                self.keys = [None] * index
            self.keys += columns.keys[start:end] if columns.keys is not None else [None] * count
            self.limit = 0
        if self.headers is not None or columns.headers is not None:
            if self.headers is None:
                self.headers = [None] * index
            self.headers += columns.headers[start:end] if columns.headers is not None else [None] * count
            self.limit = 0
        self.values += columns.values[start:end]
        self.size += columns.size_of(start, end)
        return index

    def seal(self, compression: Compression, level: int | None) -> None:
        """Encode it; it takes no more records. Its columns are let go, its timestamps stay."""
        self.limit = 0
        self.is_sealed = True
        self.count = len(self.values)
        self.encoded = encode_batch(
            self.values,
            timestamps=self.timestamps,
            keys=self.keys,
            headers=self.headers,
            compression=compression,
            level=level,
        )
        self.values, self.keys, self.headers = [], None, None

    def identify(self, identity: Identity | None, base_sequence: int) -> None:
        """Give it an identity, or another one. Never for a batch that is uncertain or in flight."""
        assert self.encoded is not None
        assert not self.is_uncertain
        assert self.flight is None
        self.identity = identity
        self.base_sequence = base_sequence
        if identity is not None:
            restamp(
                self.encoded,
                producer_id=identity.producer_id,
                producer_epoch=identity.producer_epoch,
                base_sequence=base_sequence,
            )

    def timestamp_of(self, index: int) -> int:
        """The producer's timestamp of a record."""
        return self.timestamps.at(index)

    def finish(self, error: BaseException | None) -> None:
        """Make the outcome known."""
        self.done = True
        self.error = error
        self.encoded = None
        self.wake()

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    async def settled(self) -> None:
        """Wait until it is done, or was split."""
        while not self.done and self.parts is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter


def record_size(key: bytes | None, value: bytes | None, headers: Sequence[Header] | None) -> int:
    """An upper bound of what a record adds to a batch, in bytes before compression."""
    size = RECORD_OVERHEAD + 6 + (len(value) if value is not None else 0)
    if key is not None:
        size += FIELD_OVERHEAD + len(key)
    if headers is not None:
        for name, content in headers:
            size += 2 * FIELD_OVERHEAD + 4 * len(name) + (len(content) if content is not None else 0)
    return size


class OutgoingColumns:
    """Records to be sent, column by column, and how much room each takes."""

    __slots__ = ("_each", "_ends", "headers", "keys", "timestamps", "values")

    def __init__(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        timestamps: int | Sequence[int],
        headers: Sequence[Sequence[Header] | None] | None,
    ) -> None:
        """All columns are as long as ``values``, which has at least one element."""
        self.values = values
        self.keys = keys
        self.timestamps = timestamps
        self.headers = headers
        self._each = 0
        """The size of every record, where they are all alike: the usual case, and much cheaper."""
        self._ends: list[int] | None = None
        """Else how much the records up to and with each take."""
        if keys is None and headers is None and _are_as_long(values):
            self._each = record_size(None, values[0], None)
            return
        none = repeat(None)
        self._ends = list(
            accumulate(
                map(
                    record_size,
                    keys if keys is not None else none,
                    values,
                    headers if headers is not None else none,
                )
            )
        )

    def __len__(self) -> int:
        return len(self.values)

    def pick(self, which: Sequence[int]) -> OutgoingColumns:
        """The records with these indices."""
        return OutgoingColumns(
            [self.values[i] for i in which],
            None if self.keys is None else [self.keys[i] for i in which],
            self.timestamps if isinstance(self.timestamps, int) else [self.timestamps[i] for i in which],
            None if self.headers is None else [self.headers[i] for i in which],
        )

    def size_of(self, start: int, end: int) -> int:
        """What the records ``start`` to ``end`` (exclusive) add to a batch, as an upper bound in bytes."""
        if self._ends is None:
            return (end - start) * self._each
        return self._ends[end - 1] - (self._ends[start - 1] if start else 0)

    def fitting(self, start: int, room: int) -> int:
        """The end (exclusive) of the records from ``start`` on that together fit into ``room`` bytes."""
        if self._ends is None:
            return min(start + max(room, 0) // self._each, len(self.values))
        return max(bisect_right(self._ends, room + (self._ends[start - 1] if start else 0)), start)

    def largest(self) -> int:
        """The size of the largest record."""
        if self._ends is None:
            return self._each
        return max(self._ends[0], max(map(int.__sub__, self._ends[1:], self._ends), default=0))


def _are_as_long(values: Sequence[bytes | None]) -> bool:
    """Whether no value is None and all have the same length."""
    try:
        return len(set(map(len, cast("Sequence[bytes]", values)))) == 1
    except TypeError:
        return False  # One is None. To look for it beforehand would be a walk of its own.
