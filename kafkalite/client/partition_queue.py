"""The batches of one partition: their order, the producer's identity there, and what an error means.

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

from collections import deque
from enum import Enum
from typing import Final

from kafkalite.client.batch import Batch, Identity
from kafkalite.common import TopicPartition
from kafkalite.protocol.compression import Compression
from kafkalite.protocol.errors import BrokerError, ErrorCode
from kafkalite.protocol.record_batch import decode_batch

MAX_UNRESOLVED: Final = 5
"""Batches of one partition that a leader recognises as already appended."""
MAX_PRODUCER_EPOCH: Final = 2**15 - 1
SEQUENCE_MASK: Final = 2**31 - 1
"""Sequences count from 0 to 2**31 - 1 and start again."""

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
            part = Batch(batch.tp, (*batch.order, number), batch.created, 0)
            for index, number_in_batch in enumerate(range(piece.start, piece.stop)):
                part.timestamps.put(index, batch.timestamp_of(number_in_batch))
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
