"""Fetch, list_offsets and offset_for_leader_epoch: what clients and followers read from a leader.

A consumer reads below the high watermark, a follower to the log end; where there is less than
`min_bytes`, the request waits for an event and is then read afresh. A follower's fetch is also
its report: its offset says what it has, and is noted once, with the first read. Bytes that are not
in memory are read off the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kafkalite.common import UNKNOWN_OFFSET, ZERO_UUID, BrokerEpoch, BrokerId, LeaderEpoch
from kafkalite.edge import Buffer
from kafkalite.log.log import Log, Read, WouldBlock
from kafkalite.protocol.errors import (
    BrokerError,
    ErrorCode,
    FencedLeaderEpochError,
    InconsistentTopicIdError,
    InvalidRequestError,
    KafkaStorageError,
    NotLeaderOrFollowerError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
)
from kafkalite.protocol.fetch import (
    FetchReplicaState,
    FetchRequest,
    FetchResponse,
    FetchResponseCurrentLeader,
    FetchResponseDivergingEpoch,
    FetchResponsePartition,
)
from kafkalite.protocol.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochPartition,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
)
from kafkalite.replication.fetch_session import Fetching, FetchSessions, PartitionToFetch, Told
from kafkalite.replication.hosting import Hosting
from kafkalite.replication.purgatory import Delayed
from kafkalite.replication.replica import Replica
from kafkalite.replication.truncation import EpochEnd, diverges

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3
EARLIEST_LOCAL: Final = -4
LATEST_TIERED: Final = -5


_NOT_DIVERGING: Final = FetchResponseDivergingEpoch()


class Wanted:
    """One partition of a fetch request."""

    __slots__ = (
        "answer",
        "asked",
        "generation",
        "part",
        "replica",
        "size",
        "until",
        "upper_bound",
        "was_counted",
    )

    def __init__(self, asked: PartitionToFetch) -> None:
        self.asked = asked
        self.part = asked.part
        self.replica: Replica | None = None
        self.answer: FetchResponsePartition | None = None
        """None before it is read, and where there is nothing to tell about it."""
        self.size = 0
        """Bytes in the answer."""
        self.generation = -1
        """The replica's when it was checked; -1 before."""
        self.until = 0
        """The replica's count of readable bytes when it was checked."""
        self.upper_bound = 0
        """The end of what may be read (exclusive), when it was checked."""
        self.was_counted = False
        """Set once the fetch was noted as a follower's report: a second look is none."""

    def look_again(self, is_follower: bool) -> bool:
        """See how far it may be read by now; False where all of it has to be checked (anew).

        What was checked holds while the replica keeps its role and leader epoch, in which a leader's
        log only grows at its end. What retention takes from its start, reading finds out.
        """
        replica = self.replica
        if replica is None or replica.generation != self.generation:
            return False
        self.note_end(replica, is_follower)
        return True

    def note_end(self, replica: Replica, is_follower: bool) -> None:
        """Remember how far it may be read."""
        log = replica.log
        assert log is not None
        if is_follower:
            self.upper_bound = log.log_end_offset
            self.until = replica.appended_bytes
        else:
            self.upper_bound = log.high_watermark
            self.until = replica.committed_bytes


class DelayedFetch(Delayed):
    """A fetch that waits for bytes."""

    __slots__ = ("_is_follower", "_missing", "_wanted")

    def __init__(self, wanted: list[Wanted], *, is_follower: bool, missing: int) -> None:
        """``missing`` is how many bytes more make it complete."""
        super().__init__()
        self._wanted = wanted
        self._is_follower = is_follower
        self._missing = missing

    def is_complete(self) -> bool:
        come = 0
        for wanted in self._wanted:
            replica = wanted.replica
            assert replica is not None  # One without a replica is an error, answered at once.
            if replica.generation != wanted.generation:
                return True
            readable = replica.appended_bytes if self._is_follower else replica.committed_bytes
            come += readable - wanted.until
            if come >= self._missing:
                return True
        return False


class Reads:
    """Serves the reading requests."""

    def __init__(self, hosting: Hosting, sessions: FetchSessions) -> None:
        self._hosting = hosting
        self._sessions = sessions

    # ---- fetch ----

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        """Answer as soon as there are `min_bytes`, an error to tell, or `max_wait_ms` have passed.

        Which partitions it is about, and which of them the answer names, is a matter of its session
        (:mod:`kafkalite.replication.fetch_session`).
        """
        hosting = self._hosting
        try:
            fetching = self._sessions.begin(request, now_ms=hosting.now_ms())
        except BrokerError as error:
            return FetchResponse(error_code=error.code, responses=[])
        wanted = [Wanted(one) for one in fetching.partitions]
        asker = request.replica_state
        is_follower = asker.replica_id >= 0
        max_bytes = request.max_bytes
        if not is_follower:
            max_bytes = min(max_bytes, hosting.config.fetch_max_bytes)
        left_s = request.max_wait_ms / 1000
        deadline = hosting.clock.monotonic() + left_s
        while True:
            is_urgent, is_readable = self._check_all(asker, wanted)
            size = 0
            if is_readable or is_urgent or not wanted or left_s <= 0 or request.min_bytes <= 0:
                size, failed = await self._read_all(fetching, wanted, max_bytes)
                left_s = deadline - hosting.clock.monotonic()
                if is_urgent or failed or not wanted or size >= request.min_bytes or left_s <= 0:
                    break
            delayed = DelayedFetch(wanted, is_follower=is_follower, missing=request.min_bytes - size)
            if delayed.is_complete():
                continue  # Something came while a cold read was under way.
            await hosting.purgatory.wait(
                delayed,
                [w.replica.fetch_watchers for w in wanted if w.replica is not None],
                timeout_s=left_s,
            )
            left_s = deadline - hosting.clock.monotonic()
        for w in wanted:
            if w.replica is not None:
                counters = w.replica.counters
                if is_follower:
                    counters.replication_bytes_out += w.size
                else:
                    counters.bytes_out += w.size
                    counters.fetch_requests += 1
                    counters.failed_fetch_requests += w.answer is not None and w.answer.error_code != 0
        return fetching.respond((w.asked, w.answer) for w in wanted if w.answer is not None)

    def _check_all(self, asker: FetchReplicaState, wanted: Sequence[Wanted]) -> tuple[bool, bool]:
        """Check every partition; tell whether to answer now, and whether there is anything to read."""
        is_urgent = is_readable = False
        is_follower = asker.replica_id >= 0
        for w in wanted:
            w.answer = None
            w.size = 0
            try:
                if w.look_again(is_follower) or self._check(asker, w):
                    is_readable = is_readable or w.part.fetch_offset < w.upper_bound
            except BrokerError as error:
                w.answer = self._error_answer(w, error)
            except Exception as error:  # One partition's fault leaves the others running.
                self._fail(w, error)
            if w.answer is not None:
                is_urgent = True
        return is_urgent, is_readable

    async def _read_all(
        self, fetching: Fetching, wanted: Sequence[Wanted], max_bytes: int
    ) -> tuple[int, bool]:
        """Read, within the limits, every partition that has no answer yet and of which there is
        something to tell; return the bytes, and whether one of them failed. Awaits only bytes that
        are not in memory."""
        total = 0
        has_failed = False
        for w in wanted:
            if w.answer is not None:
                continue
            try:
                read = self._read(w, left=max_bytes - total, is_first=total == 0)
                if isinstance(read, WouldBlock):
                    read = await self._read_cold(w, left=max_bytes - total, is_first=total == 0)
                w.size = len(read.records)
                told = _told(w)
                if w.size or not fetching.is_told(w.asked, told):
                    w.answer = _answer(w, told, read.records)
            except BrokerError as error:
                w.answer = self._error_answer(w, error)
                has_failed = True
            except Exception as error:  # One partition's fault leaves the others running.
                self._fail(w, error)
                has_failed = True
            total += w.size
        return total, has_failed

    def _fail(self, w: Wanted, error: Exception) -> None:
        assert w.replica is not None
        self._hosting.fail(w.replica, error)
        w.answer = self._error_answer(w, KafkaStorageError(f"{w.replica.topic_partition} failed"))

    def _check(self, asker: FetchReplicaState, w: Wanted) -> bool:
        """Check that ``w`` may be read, and take a follower's report into account.

        False where a diverging epoch has become the answer.
        """
        (topic, _), topic_id, part = w.asked
        replica = self._hosting.require(topic, part.partition)
        w.replica = replica
        partition = replica.partition
        partition.check_leader(part.current_leader_epoch)
        if topic_id != ZERO_UUID:
            _check_topic_id(replica, topic_id)
        log = replica.log
        assert log is not None
        w.generation = replica.generation
        fetch_offset = part.fetch_offset
        log_end_offset = log.log_end_offset
        is_follower = asker.replica_id >= 0
        if is_follower:
            broker_epoch = BrokerEpoch(asker.replica_epoch)
            follower = partition.follower(
                BrokerId(asker.replica_id),
                broker_epoch=broker_epoch,
                current_leader_epoch=part.current_leader_epoch,
            )
            # From its first fetch on, whatever that finds: the life before has ended.
            follower.broker_epoch = broker_epoch
        epoch = part.last_fetched_epoch
        # The newest epoch ends at the log end: whoever is in it and not beyond has not diverged.
        if epoch >= 0 and (epoch != log.latest_epoch or fetch_offset > log_end_offset):
            end = EpochEnd(*log.end_offset_for_epoch(LeaderEpoch(epoch)))
            if not end.is_known:
                raise OffsetOutOfRangeError(f"{replica.topic_partition}: epoch {epoch} is not known here")
            if diverges(epoch, fetch_offset, end):
                diverging = FetchResponseDivergingEpoch(epoch=end.epoch, end_offset=end.end_offset)
                w.answer = _answer(w, _told(w), b"", diverging)
                return False
        if not log.log_start_offset <= fetch_offset <= log_end_offset:
            if fetch_offset > log_end_offset and not is_follower:
                self._check_end_is_known(replica)
            raise OffsetOutOfRangeError(
                f"{replica.topic_partition}: offset {fetch_offset} is not within "
                f"{log.log_start_offset} to {log_end_offset}"
            )
        if is_follower and not w.was_counted:
            w.was_counted = True
            self._hosting.note_fetch(
                replica, follower, fetch_offset=fetch_offset, log_start_offset=part.log_start_offset
            )
        w.note_end(replica, is_follower)
        return True

    def _read(self, w: Wanted, *, left: int, is_first: bool) -> Read | WouldBlock:
        """Read one partition, from memory only."""
        replica = w.replica
        assert replica is not None
        assert replica.log is not None
        if replica.generation != w.generation:
            # Another partition's bytes were waited for since this one was checked.
            replica.partition.check_leader(w.part.current_leader_epoch)
        offset = w.part.fetch_offset
        limit = min(w.part.partition_max_bytes, left)
        if offset >= w.upper_bound or (limit <= 0 and not is_first):
            return Read(b"", offset, offset)
        return replica.log.read(
            offset, max_bytes=max(limit, 0), upper_bound=w.upper_bound, min_one_message=is_first
        )

    async def _read_cold(self, w: Wanted, *, left: int, is_first: bool) -> Read:
        """Read off the loop; whatever changed meanwhile is an error."""
        replica = w.replica
        assert replica is not None
        assert replica.log is not None
        generation = replica.generation
        read = await replica.log.read_cold(
            w.part.fetch_offset,
            max_bytes=max(min(w.part.partition_max_bytes, left), 0),
            upper_bound=w.upper_bound,
            min_one_message=is_first,
        )
        if replica.generation != generation:
            replica.partition.check_leader(w.part.current_leader_epoch)
        return read

    def _check_end_is_known(self, replica: Replica) -> None:
        """Raise NotLeaderOrFollowerError where others may lead and have written on.

        A consumer that was told OFFSET_OUT_OF_RANGE, or that its epoch is not known, gives up its
        position. So the end of the log is only held against it by a leader that knows it to be the
        partition's: not by one that was stopped for a while, or is cut off, and cannot have heard of
        its successor.
        """
        if replica.partition.is_deposed or not self._hosting.may_acknowledge_alone(replica):
            raise NotLeaderOrFollowerError(
                f"{replica.topic_partition}: broker {self._hosting.config.broker_id} cannot tell whether it "
                f"still leads after leader epoch {replica.partition.leader_epoch}"
            )

    def _error_answer(self, w: Wanted, error: BrokerError) -> FetchResponsePartition:
        current_leader = FetchResponseCurrentLeader()
        if isinstance(error, NotLeaderOrFollowerError | FencedLeaderEpochError):
            leader, leader_epoch = self._hosting.leader_hint(*w.asked.topic_partition)
            current_leader = FetchResponseCurrentLeader(leader_id=leader, leader_epoch=leader_epoch)
        return FetchResponsePartition(
            partition_index=w.part.partition,
            error_code=error.code,
            high_watermark=UNKNOWN_OFFSET,
            current_leader=current_leader,
        )

    # ---- list_offsets ----

    async def list_offsets(self, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """Find offsets by time, or the first and last ones, in partitions led here."""
        seen: dict[tuple[str, int], int] = {}
        for topic in request.topics:
            for part in topic.partitions:
                key = (topic.name, part.partition_index)
                seen[key] = seen.get(key, 0) + 1
        topics = []
        for topic in request.topics:
            answers = []
            for part in topic.partitions:
                try:
                    if seen[topic.name, part.partition_index] > 1:
                        raise InvalidRequestError(f"{topic.name}-{part.partition_index} is named twice")
                    answers.append(await self._list_offset(request, topic.name, part))
                except BrokerError as error:
                    answers.append(
                        ListOffsetsResponsePartition(
                            partition_index=part.partition_index, error_code=error.code
                        )
                    )
            topics.append(ListOffsetsResponseTopic(name=topic.name, partitions=answers))
        return ListOffsetsResponse(topics=topics)

    async def _list_offset(
        self, request: ListOffsetsRequest, topic: str, part: ListOffsetsPartition
    ) -> ListOffsetsResponsePartition:
        replica = self._hosting.require(topic, part.partition_index)
        partition = replica.partition
        partition.check_leader(part.current_leader_epoch)
        log = replica.log
        assert log is not None
        is_client = request.replica_id < 0
        end = log.high_watermark if is_client else log.log_end_offset
        timestamp = part.timestamp
        offset, found_timestamp, epoch = UNKNOWN_OFFSET, -1, LeaderEpoch(-1)
        if timestamp == LATEST:
            if is_client:
                self._check_watermark_is_of_this_epoch(replica, log)
            offset, epoch = end, partition.leader_epoch
        elif timestamp in (EARLIEST, EARLIEST_LOCAL):
            offset = log.log_start_offset
            epoch = log.epochs.epoch_at(offset)
        elif timestamp == LATEST_TIERED:
            pass  # Nothing is tiered: no offset.
        elif timestamp < MAX_TIMESTAMP:
            raise InvalidRequestError(f"{timestamp} is neither a timestamp nor one of its special values")
        else:
            generation = replica.generation
            found = await log.offset_for_timestamp(timestamp)
            if replica.generation != generation:
                partition.check_leader(part.current_leader_epoch)
            if found is not None and found.offset < end:
                offset, found_timestamp, epoch = found.offset, found.timestamp, found.leader_epoch
            elif found is not None and is_client:
                self._check_watermark_is_of_this_epoch(replica, log)
        return ListOffsetsResponsePartition(
            partition_index=part.partition_index,
            error_code=ErrorCode.NONE,
            timestamp=found_timestamp,
            offset=offset,
            leader_epoch=epoch,
        )

    def _check_watermark_is_of_this_epoch(self, replica: Replica, log: Log) -> None:
        """A new leader does not know how far its predecessor had committed, until its followers
        have fetched: an offset told now could be lower than one told before."""
        if log.high_watermark < replica.partition.epoch_start_offset:
            raise OffsetNotAvailableError(
                f"{replica.topic_partition}: the high watermark of leader epoch "
                f"{replica.partition.leader_epoch} is not known yet"
            )

    # ---- offset_for_leader_epoch ----

    def offset_for_leader_epoch(self, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse:
        """Tell where leader epochs ended in the logs led here."""
        return OffsetForLeaderEpochResponse(
            topics=[
                OffsetForLeaderEpochResponseTopic(
                    topic=topic.topic,
                    partitions=[
                        self._epoch_end(topic.topic, part, is_consumer=request.replica_id < 0)
                        for part in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    def _epoch_end(
        self, topic: str, part: OffsetForLeaderEpochPartition, *, is_consumer: bool
    ) -> OffsetForLeaderEpochResponsePartition:
        try:
            replica = self._hosting.require(topic, part.partition)
            replica.partition.check_leader(part.current_leader_epoch)
            assert replica.log is not None
            epoch, end_offset = replica.log.end_offset_for_epoch(LeaderEpoch(part.leader_epoch))
            if is_consumer and part.leader_epoch > replica.partition.leader_epoch:
                self._check_end_is_known(replica)
        except BrokerError as error:
            return OffsetForLeaderEpochResponsePartition(error_code=error.code, partition=part.partition)
        return OffsetForLeaderEpochResponsePartition(
            error_code=ErrorCode.NONE,
            partition=part.partition,
            leader_epoch=epoch,
            end_offset=end_offset,
        )


def _check_topic_id(replica: Replica, topic_id: str) -> None:
    if topic_id not in (ZERO_UUID, replica.topic_id) and replica.topic_id != ZERO_UUID:
        raise InconsistentTopicIdError(
            f"{replica.topic_partition} has topic id {replica.topic_id}, not {topic_id}"
        )


def _told(w: Wanted) -> Told:
    """What an answer says about ``w`` besides records."""
    assert w.replica is not None
    log = w.replica.log
    assert log is not None
    return Told(log.high_watermark, log.last_stable_offset, log.log_start_offset)


def _answer(
    w: Wanted, told: Told, records: Buffer, diverging: FetchResponseDivergingEpoch = _NOT_DIVERGING
) -> FetchResponsePartition:
    return FetchResponsePartition(
        partition_index=w.part.partition,
        error_code=ErrorCode.NONE,
        high_watermark=told.high_watermark,
        last_stable_offset=told.last_stable_offset,
        log_start_offset=told.log_start_offset,
        diverging_epoch=diverging,
        records=memoryview(records),
    )
