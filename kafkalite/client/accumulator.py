"""Records on their way out: a queue of batches for each partition, and the memory that they share.

Pure bookkeeping: time comes in as a number, sending is somebody else's (:mod:`.sender`). What a batch is
and goes through stands in :mod:`.batch`; in which order batches go, and why no record is lost or written
twice, in :mod:`.partition_queue`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from kafkalite.client.batch import BATCH_OVERHEAD, Batch, OutgoingColumns, record_size
from kafkalite.client.partition_queue import PartitionQueue
from kafkalite.client.records import Header
from kafkalite.common import TopicPartition
from kafkalite.protocol.compression import Compression


class Accumulator:
    """All queues, and the memory that their batches share."""

    def __init__(
        self,
        *,
        max_batch_size: int,
        linger_ms: float,
        buffer_memory: int,
        delivery_timeout_ms: float,
        compression: Compression,
        compression_level: int | None,
        idempotent: bool,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.linger = linger_ms / 1000
        self.delivery_timeout = delivery_timeout_ms / 1000
        self.idempotent = idempotent
        self.queues: dict[TopicPartition, PartitionQueue] = {}
        self.busy: dict[TopicPartition, PartitionQueue] = {}
        """The queues that have batches."""
        self.incomplete: dict[Batch, None] = {}
        """All batches that are not done, oldest first."""
        self.flushing = 0
        """How many want everything sent at once, lingering or not."""
        self._compression = compression
        self._level = compression_level
        self._memory = buffer_memory
        self._free = buffer_memory
        self._blocked: dict[asyncio.Future[None], int] = {}
        """Who waits for how much memory, in the order of their coming."""
        self._numbers = 0

    # --- Adding --------------------------------------------------------------------------------

    def queue(self, tp: TopicPartition) -> PartitionQueue:
        """The queue of ``tp``."""
        queue = self.queues.get(tp)
        if queue is None:
            queue = self.queues[tp] = PartitionQueue(tp)
        return queue

    def append(
        self,
        tp: TopicPartition,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] | None,
        now: float,
        *,
        in_turn: bool = False,
    ) -> tuple[Batch, int, bool] | None:
        """Add a record: its batch, its index there, and whether that sealed a batch.

        None where there is no memory; then :meth:`wait_for_room` and try again ``in_turn``.
        """
        size = record_size(key, value, headers)
        queue = self.queue(tp)
        batch = queue.open
        sealed = False
        if batch is not None:
            if batch.size + size <= self.max_batch_size:
                index = batch.add(timestamp, key, value, headers, size)
                return batch, index, self._seal_if_full(batch)
            self.seal(batch)
            sealed = True
        need = max(self.max_batch_size, BATCH_OVERHEAD + size)
        if self._free < need or (self._blocked and not in_turn):
            return None
        batch = self._begin(queue, need, now)
        index = batch.add(timestamp, key, value, headers, size)
        # `send` comes here again before the batch is full, so that it is sealed when it is.
        batch.limit = min(batch.limit, self.max_batch_size - size)
        sealed |= self._seal_if_full(batch)
        return batch, index, sealed

    def extend(
        self, tp: TopicPartition, columns: OutgoingColumns, start: int, now: float, *, in_turn: bool = False
    ) -> tuple[Batch, int, int, bool] | None:
        """Add the records from ``start`` on that go into one batch, one at least.

        Returns the batch, the first one's index there, the end (exclusive) of what was added, and
        whether that sealed a batch. None where there is no memory; then as with :meth:`append`.
        """
        queue = self.queue(tp)
        batch = queue.open
        sealed = False
        if batch is not None:
            end = columns.fitting(start, self.max_batch_size - batch.size)
            if end > start:
                index = batch.extend(columns, start, end)
                return batch, index, end, self._seal_if_full(batch)
            self.seal(batch)
            sealed = True
        need = max(self.max_batch_size, BATCH_OVERHEAD + columns.size_of(start, start + 1))
        if self._free < need or (self._blocked and not in_turn):
            return None
        batch = self._begin(queue, need, now)
        end = max(columns.fitting(start, self.max_batch_size - batch.size), start + 1)
        index = batch.extend(columns, start, end)
        sealed |= self._seal_if_full(batch)
        return batch, index, end, sealed

    def _seal_if_full(self, batch: Batch) -> bool:
        """Close a batch that has no room for another record of its average size; tell whether it did.

        It need not wait for one that does not fit. And the turn of the loop that a sealed batch means for
        whoever sends falls between two batches: the next one's records share the time read after it.
        """
        if batch.size + batch.size // len(batch.values) <= self.max_batch_size:
            return False
        self.seal(batch)
        return True

    def _begin(self, queue: PartitionQueue, need: int, now: float) -> Batch:
        """Open a batch and take its memory, which is there."""
        self._free -= need
        batch = Batch(queue.tp, (self._numbers,), now, self.max_batch_size)
        self._numbers += 1
        batch.reserved = need
        queue.waiting.append(batch)
        self.busy[queue.tp] = queue
        self.incomplete[batch] = None
        return batch

    def seal(self, batch: Batch) -> None:
        """Close an open batch and give back the memory that it did not need."""
        batch.seal(self._compression, self._level)
        assert batch.encoded is not None
        self._release(batch, keep=min(len(batch.encoded), batch.reserved))

    # --- Memory --------------------------------------------------------------------------------

    def fits(self, size: int) -> bool:
        """Whether a record of ``size`` could ever be buffered."""
        return max(self.max_batch_size, BATCH_OVERHEAD + size) <= self._memory

    def wait_for_room(self, size: int) -> asyncio.Future[None]:
        """A future that is done when a batch for a record of ``size`` fits, in the order of the calls.

        Whoever is woken appends at once. Hand it to :meth:`stop_waiting` in any case.
        """
        need = max(self.max_batch_size, BATCH_OVERHEAD + size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._blocked[turn] = need
        self._admit()
        return turn

    def stop_waiting(self, turn: asyncio.Future[None]) -> None:
        """Make way for the next, after what the caller appends before it gives up control."""
        del self._blocked[turn]
        turn.cancel()
        if self._blocked:
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        turn = next(iter(self._blocked), None)
        if turn is not None and not turn.done() and self._blocked[turn] <= self._free:
            turn.set_result(None)

    def _release(self, batch: Batch, *, keep: int = 0) -> None:
        self._free += batch.reserved - keep
        batch.reserved = keep
        self._admit()

    # --- Sending -------------------------------------------------------------------------------

    def has_waiting(self) -> bool:
        """Whether there is a batch that is not in flight."""
        return any(queue.waiting for queue in self.busy.values())

    def is_ready(self, batch: Batch, now: float) -> bool:
        """Whether a batch need not wait for more records."""
        return (
            batch.is_sealed or self.flushing > 0 or bool(self._blocked) or now >= batch.created + self.linger
        )

    def expire(self, now: float) -> list[Batch]:
        """Take out the batches whose delivery time is over, in flight or not; they are not done yet."""
        expired = []
        for batch in self.incomplete:
            if batch.created + self.delivery_timeout > now:
                break  # They are in the order of their creation, or nearly: parts share their parent's.
            expired.append(batch)
        for batch in expired:
            self.withdraw(batch)
        return expired

    def withdraw(self, batch: Batch) -> None:
        """Take a batch that will fail out of its queue; what it leaves is a gap if it was ever sent."""
        queue = self.queues[batch.tp]
        if batch.flight is not None:
            queue.land(batch)
        elif batch in queue.waiting:
            queue.waiting.remove(batch)
        if batch.identity is not None:
            queue.has_gap = True

    def complete(self, batch: Batch, error: BaseException | None) -> None:
        """A batch is done: give its memory back and tell who waits."""
        if not batch.is_sealed:
            batch.limit = 0
            batch.count = len(batch.values)
            batch.is_sealed = True
        del self.incomplete[batch]
        self._release(batch)
        queue = self.queues[batch.tp]
        if not queue:
            self.busy.pop(batch.tp, None)
        batch.finish(error)

    def split(self, batch: Batch) -> None:
        """Replace a batch by two halves; they inherit its memory."""
        queue = self.queues[batch.tp]
        parts = queue.split(batch)
        self._release(batch)
        rebuilt: dict[Batch, None] = {}
        for other in self.incomplete:  # In the parent's place, so that expiry stays in order.
            rebuilt.update(dict.fromkeys(parts if other is batch else (other,)))
        self.incomplete = rebuilt
        for part in parts:
            assert part.encoded is not None
            part.reserved = len(part.encoded)
            self._free -= part.reserved

    def unfinished(self, mark: int) -> Iterable[Batch]:
        """The batches that are not done, of those begun before ``mark`` (see :attr:`mark`)."""
        return [batch for batch in self.incomplete if batch.order[0] < mark]

    @property
    def mark(self) -> int:
        """The number that the next batch gets."""
        return self._numbers
