"""Records on their way out: batches by partition, their order, identities and outcomes.

Pure bookkeeping: time comes in as a number, sending is somebody else's (:mod:`.sender`). Each
partition has a queue of batches, oldest first. A batch is *open* while it takes records, then
*sealed* (encoded), *in flight* in one request at a time, and at last *done*: acknowledged or failed.
Records are kept as columns; there is no object a record but the awaitable that `send` returns.

**Exactly one offset.** With idempotence a batch gets its identity (producer id, epoch, first sequence)
when it is first sent, and keeps it through all retries, to any leader: a leader that has the batch
already says so instead of appending it again. These are the rules, and why they suffice:

- At most five batches of a partition are unresolved at any time, wherever they were sent: the
  leader remembers the last five. Counting them by connection would not do when the leader moves.
- A retried batch is sent only when no other is in flight for its partition, so what it is answered
  was decided with every older batch resolved.
- Until the first batch of an identity is acknowledged in a partition, it is alone in flight. A leader
  takes any first sequence from a producer it does not know; were the first batch refused and the
  second accepted, the first could never follow.
- An attempt is *uncertain* when it ended without an answer, or with one that leaves open whether the
  batch was appended (REQUEST_TIMED_OUT, NOT_LEADER_OR_FOLLOWER while waiting for followers, …). An
  uncertain batch never changes its identity: either some leader resolves it under the one it has, or
  it fails with an error that says that the outcome is unknown.
- A batch that expires or is refused for good leaves a *gap*: later sequences would never be accepted.
  The uncertain batches at the head are resolved first, one by one; when the head is certainly not in
  the log, nothing behind it can be (the leader takes sequences in order only), and the partition goes
  on with the next producer *epoch* from sequence 0. An epoch and not another id, because the higher epoch
  fences what may still be on its way under the lower one: a delayed request cannot append later.
- Epochs are counted by partition, since leaders keep producers' state by partition. When they are used
  up, another id is asked for.

**Without idempotence** one batch a partition is in flight, so order holds through retries, but a
lost answer may mean a record twice.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from enum import Enum
from itertools import accumulate, repeat
from typing import Final, NamedTuple, cast

import msgspec

from kafkalite.client.errors import BufferExhaustedError
from kafkalite.client.records import CREATE_TIME, LOG_APPEND_TIME, Header, RecordMetadata
from kafkalite.common import TopicPartition
from kafkalite.protocol.compression import Compression
from kafkalite.protocol.errors import BrokerError, ErrorCode
from kafkalite.protocol.record_batch import HEADER_SIZE, decode_batch, encode_batch, restamp

MAX_UNRESOLVED: Final = 5
"""Batches of one partition that a leader recognises as already appended."""
MAX_PRODUCER_EPOCH: Final = 2**15 - 1
SEQUENCE_MASK: Final = 2**31 - 1
"""Sequences count from 0 to 2**31 - 1 and start again."""

BATCH_OVERHEAD: Final = HEADER_SIZE + 32
"""An upper bound of what a batch weighs without its records."""
RECORD_OVERHEAD: Final = 8
"""The same for a value alone: its bin header and a small timestamp delta."""
FIELD_OVERHEAD: Final = 6
"""The same for a key, a header's name or a header's value."""

REFUSALS: Final = frozenset(
    {
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.INVALID_REQUIRED_ACKS,
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode.INVALID_RECORD,
        ErrorCode.POLICY_VIOLATION,
    }
)
"""Errors that a leader gives before it appends: the attempt certainly left nothing in the log."""

SEQUENCE_ERRORS: Final = frozenset(
    {
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.INVALID_PRODUCER_EPOCH,
    }
)


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
        "base_timestamp",
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

    def __init__(
        self, tp: TopicPartition, order: tuple[int, ...], created: float, timestamp: int, limit: int
    ) -> None:
        self.tp = tp
        self.order = order
        """Its place among the batches of the partition; the parts of a split one sort in its place."""
        self.created = created
        """Monotonic seconds; `linger_ms` and `delivery_timeout_ms` count from here."""
        self.limit = limit
        """How large it may grow by values alone; 0 where `send`'s short cut must not add to it."""
        self.size = BATCH_OVERHEAD
        """An upper bound of its encoded size before compression."""
        self.reserved = 0
        """Its share of the producer's buffer, in bytes."""
        self.base_timestamp = timestamp
        self.timestamps: list[int] | None = None
        """None while all records share `base_timestamp`."""
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

    def spread(self, timestamp: int) -> None:
        """Add the timestamp of the next record, which differs from the first one's."""
        self.timestamps = [self.base_timestamp] * len(self.values)
        self.timestamps.append(timestamp)

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
        if self.timestamps is not None:
            self.timestamps.append(timestamp)
        elif index == 0:
            self.base_timestamp = timestamp
        elif timestamp != self.base_timestamp:
            self.spread(timestamp)
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
            if self.timestamps is not None:
                self.timestamps += [timestamps] * count
            elif index == 0:
                self.base_timestamp = timestamps
            elif timestamps != self.base_timestamp:
                self.timestamps = [self.base_timestamp] * index + [timestamps] * count
        else:
            if self.timestamps is None:
                self.timestamps = [self.base_timestamp] * index
            self.timestamps += timestamps[start:end]
            self.base_timestamp = self.timestamps[0]
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
            timestamps=self.timestamps if self.timestamps is not None else self.base_timestamp,
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
        return self.base_timestamp if self.timestamps is None else self.timestamps[index]

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


class Delivery(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What `send` returns: await it for where the record was written, or why it was not.

    It may be awaited never, once or often, by anybody. Without a Future of its own it costs little.
    """

    _batch: Batch
    _index: int

    def __await__(self) -> Generator[object, None, RecordMetadata]:
        while not (batch := self._locate()[0]).done:
            yield from batch.settled().__await__()
        return self.result()

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._locate()[0].done

    def exception(self) -> BaseException | None:
        """Why it was not acknowledged; None where it was, or the outcome is not known yet."""
        return self._locate()[0].error

    def result(self) -> RecordMetadata:
        """Where it was written. Raises its error, or asyncio.InvalidStateError before it is done."""
        batch, index = self._locate()
        if not batch.done:
            raise asyncio.InvalidStateError("the record is still on its way")
        if batch.error is not None:
            raise batch.error
        by_leader = batch.log_append_time >= 0
        return RecordMetadata(
            batch.tp.topic,
            batch.tp.partition,
            batch.tp,
            batch.base_offset + index if batch.base_offset >= 0 else -1,
            batch.log_append_time if by_leader else batch.timestamp_of(index),
            LOG_APPEND_TIME if by_leader else CREATE_TIME,
            batch.log_start_offset if batch.log_start_offset >= 0 else None,
        )

    def _locate(self) -> tuple[Batch, int]:
        """The batch that the record is in now, and its place there."""
        batch, index = self._batch, self._index
        while batch.parts is not None:
            for part in batch.parts:
                if index < part.count:
                    batch = part
                    break
                index -= part.count
        return batch, index


class Written(NamedTuple):
    """Where consecutive records were written: those of one `send_many` that went into one batch."""

    topic: str
    partition: int
    offset: int
    """Of the first; the others follow. -1 where the cluster did not say."""
    indices: Sequence[int]
    """Which they are among those given to `send_many`."""
    log_append_time: int
    """Milliseconds since the Unix epoch where the leader's clock counts (LogAppendTime), else -1."""


class Piece(NamedTuple):
    """Records of one `send_many` that went into one batch."""

    batch: Batch
    first: int
    """The first one's index there."""
    indices: Sequence[int]
    """Which they are among those given."""


class Deliveries:
    """What `send_many` returns: await it for where the records were written, or why one was not.

    It may be awaited never, once or often. ``deliveries[i]`` is what `send` would have returned for
    record i.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._count = sum(len(piece.indices) for piece in pieces)
        self._places: dict[int, tuple[Batch, int]] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Delivery:
        if not -self._count <= number < self._count:
            raise IndexError(f"record {number} of {self._count}")
        if self._places is None:
            self._places = {
                which: (piece.batch, piece.first + i)
                for piece in self._pieces
                for i, which in enumerate(piece.indices)
            }
        return Delivery(*self._places[number % self._count])

    def __await__(self) -> Generator[object, None, list[Written]]:
        while pending := [piece.batch for piece in self._parts() if not piece.batch.done]:
            for batch in pending:
                yield from batch.settled().__await__()
        return self.result()

    def done(self) -> bool:
        """Whether the outcome of all is known."""
        return all(piece.batch.done for piece in self._parts())

    def result(self) -> list[Written]:
        """Where they were written, batch by batch. Raises the first error, or asyncio.InvalidStateError."""
        found = []
        for batch, first, indices in self._parts():
            if not batch.done:
                raise asyncio.InvalidStateError("some of the records are still on their way")
            if batch.error is not None:
                raise batch.error
            offset = batch.base_offset + first if batch.base_offset >= 0 else -1
            found.append(Written(batch.tp.topic, batch.tp.partition, offset, indices, batch.log_append_time))
        return found

    def _parts(self) -> list[Piece]:
        """The pieces by the batches that they are in now: some may have been split."""
        pieces = []
        rest = list(reversed(self._pieces))
        while rest:
            piece = rest.pop()
            if piece.batch.parts is None:
                pieces.append(piece)
                continue
            base, halves = 0, []
            end = piece.first + len(piece.indices)
            for part in piece.batch.parts:
                first, last = max(piece.first, base), min(end, base + part.count)
                if first < last:
                    indices = piece.indices[first - piece.first : last - piece.first]
                    halves.append(Piece(part, first - base, indices))
                base += part.count
            rest += reversed(halves)
        return pieces


class PartlySentError(BufferExhaustedError):
    """`send_many` found no room for all: ``accepted`` has the deliveries of those that it accepted."""

    def __init__(self, message: str, accepted: Deliveries) -> None:
        super().__init__(message)
        self.accepted = accepted


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
        if keys is None and headers is None:
            lengths = set() if None in values else set(map(len, cast("Sequence[bytes]", values)))
            if len(lengths) == 1:
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


class Outcome(Enum):
    """What became of an attempt."""

    APPENDED = "appended"
    RETRY = "retry"
    SPLIT = "split"
    FAILED = "failed"


class PartitionQueue:
    """The batches of one partition, and who the producer is to its leader."""

    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.waiting: deque[Batch] = deque()
        """Batches that are not in flight, in order; only the last may be open."""
        self.in_flight: list[Batch] = []
        """In the order in which they were sent."""
        self.identity: Identity | None = None
        self.next_sequence = 0
        self.is_established = False
        """A leader has acknowledged something under this identity."""
        self.has_gap = False
        """Some sequence will never be appended: the identity must change before new batches go."""
        self.exhausted: Identity | None = None
        """The last identity where it was given up for another producer id."""

    @property
    def open(self) -> Batch | None:
        """The batch that takes records."""
        return self.waiting[-1] if self.waiting and not self.waiting[-1].is_sealed else None

    def __len__(self) -> int:
        return len(self.waiting) + len(self.in_flight)

    def may_send(self, batch: Batch, *, idempotent: bool) -> bool:
        """Whether the rules above let the head, ``batch``, go now."""
        if not idempotent:
            return not self.in_flight
        if not self.in_flight:
            return True
        if batch.attempts or self.has_gap or not self.is_established:
            return False
        return len(self.in_flight) < MAX_UNRESOLVED

    def needs_new_identity(self) -> bool:
        """Whether the head may only go under another identity than the present one.

        True only when nothing is in flight and the head is certainly not in the log.
        """
        head = self.waiting[0]
        if head.is_uncertain:
            return False
        return self.identity is None or (self.has_gap and not self.in_flight)

    def renew(self, fresh: Identity | None) -> bool:
        """Take the next identity, for a queue that :meth:`needs_new_identity`.

        ``fresh`` is what the cluster handed out last. Returns False where that will not do, because
        it is used up here: then another producer id must be asked for.
        """
        held = self.identity
        if held is not None and held.producer_epoch < MAX_PRODUCER_EPOCH:
            self.identity = Identity(held.producer_id, held.producer_epoch + 1)
        elif (
            fresh is not None
            and fresh != self.exhausted
            and (held is None or fresh.producer_id != held.producer_id)
        ):
            self.identity = fresh
        else:
            self.exhausted = fresh
            return False
        self.next_sequence = 0
        self.is_established = False
        self.has_gap = False
        for batch in self.waiting:
            # None of these can be in the log (see the module); they start anew, in their order.
            if batch.identity is not None:
                batch.is_uncertain = False
                batch.identify(None, -1)
        return True

    def take(self, flight: object, *, idempotent: bool) -> Batch:
        """Move the head, which may go, into ``flight``; it gets its identity if it has none yet."""
        batch = self.waiting.popleft()
        if idempotent and batch.identity is None:
            assert self.identity is not None
            batch.identify(self.identity, self.next_sequence)
            self.next_sequence = (self.next_sequence + batch.count) & SEQUENCE_MASK
        batch.sent_alone = not self.in_flight
        batch.flight = flight
        self.in_flight.append(batch)
        return batch

    def put_back(self, batch: Batch) -> None:
        """Return a batch (or a part of one) to its place among those that wait."""
        position = next(
            (i for i, other in enumerate(self.waiting) if batch.order < other.order), len(self.waiting)
        )
        self.waiting.insert(position, batch)

    def land(self, batch: Batch) -> None:
        """Take ``batch`` out of flight."""
        self.in_flight.remove(batch)
        batch.flight = None

    def judge(self, batch: Batch, error: BrokerError, *, idempotent: bool, is_certain: bool) -> Outcome:
        """Decide what an error means for ``batch``.

        ``is_certain``: the attempt never reached a leader, whatever the error says otherwise.
        APPENDED for a duplicate; RETRY as it is (perhaps under another identity); SPLIT; FAILED.
        """
        code = error.code
        if code == ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            return Outcome.APPENDED
        if not is_certain and code not in REFUSALS:
            batch.is_uncertain = True
        if idempotent and code in SEQUENCE_ERRORS:
            if not batch.sent_alone:
                return Outcome.RETRY  # An older batch was still under way; this one goes after it.
            self.has_gap = True
            if batch.is_uncertain:
                return Outcome.FAILED  # An earlier attempt may have succeeded; never send it as another's.
            if code == ErrorCode.INVALID_PRODUCER_EPOCH:
                self.give_up_id()
            return Outcome.RETRY
        if code in (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE) and batch.count > 1:
            return Outcome.SPLIT
        return Outcome.RETRY if error.retriable else Outcome.FAILED

    def give_up_id(self) -> None:
        """Somebody else has a higher epoch of this id: only another id will do."""
        if self.identity is not None:
            self.identity = Identity(self.identity.producer_id, MAX_PRODUCER_EPOCH)

    def split(self, batch: Batch) -> list[Batch]:
        """Cut a batch of several records in two and put the parts in its place.

        Together they have the sequences that it had, so later batches keep theirs. If it was uncertain
        the parts are, and fail rather than repeat it.
        """
        assert batch.encoded is not None
        columns = decode_batch(batch.encoded)
        middle = batch.count // 2
        compression = Compression(batch.encoded[22] & 7)
        parts = []
        for number, piece in enumerate((slice(0, middle), slice(middle, batch.count))):
            part = Batch(batch.tp, (*batch.order, number), batch.created, batch.base_timestamp, 0)
            part.base_timestamp = batch.timestamp_of(piece.start)
            part.timestamps = None if batch.timestamps is None else batch.timestamps[piece]
            part.keys = None if columns.keys is None else columns.keys[piece]
            part.headers = None if columns.headers is None else list(columns.headers[piece])
            part.values = columns.values[piece]
            part.seal(compression, None)
            if batch.identity is not None:
                sequence = (batch.base_sequence + piece.start) & SEQUENCE_MASK
                part.identify(batch.identity, sequence)
            part.attempts = batch.attempts
            part.last_error = batch.last_error
            part.is_uncertain = batch.is_uncertain
            parts.append(part)
        for part in parts:
            self.put_back(part)
        batch.parts = parts
        batch.encoded = None
        batch.wake()
        return parts


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
                return batch, batch.add(timestamp, key, value, headers, size), False
            self.seal(batch)
            sealed = True
        need = max(self.max_batch_size, BATCH_OVERHEAD + size)
        if self._free < need or (self._blocked and not in_turn):
            return None
        batch = self._begin(queue, need, now)
        index = batch.add(timestamp, key, value, headers, size)
        if batch.size > self.max_batch_size:
            self.seal(batch)  # A record that is larger than a batch is one by itself.
            sealed = True
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
                return batch, batch.extend(columns, start, end), end, False
            self.seal(batch)
            sealed = True
        need = max(self.max_batch_size, BATCH_OVERHEAD + columns.size_of(start, start + 1))
        if self._free < need or (self._blocked and not in_turn):
            return None
        batch = self._begin(queue, need, now)
        end = max(columns.fitting(start, self.max_batch_size - batch.size), start + 1)
        index = batch.extend(columns, start, end)
        if batch.size > self.max_batch_size:
            self.seal(batch)  # A record that is larger than a batch is one by itself.
            sealed = True
        return batch, index, end, sealed

    def _begin(self, queue: PartitionQueue, need: int, now: float) -> Batch:
        """Open a batch and take its memory, which is there."""
        self._free -= need
        batch = Batch(queue.tp, (self._numbers,), now, 0, self.max_batch_size)
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

    @property
    def is_short_of_memory(self) -> bool:
        """Whether somebody waits for memory: then nothing lingers."""
        return bool(self._blocked)

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
