"""Produce: append to the partitions led here, and acknowledge what may be acknowledged.

All partitions of a request are appended in one step. With ``acks=all`` the answer waits until
the high watermark has passed every one of them, or their time is up, or this broker leads one of
them no more; nothing else waits.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kafkalite.common import (
    INTERNAL_TOPICS,
    UNKNOWN_LEADER_EPOCH,
    UNKNOWN_OFFSET,
    LeaderEpoch,
    TopicPartition,
)
from kafkalite.edge import Buffer
from kafkalite.protocol.errors import (
    BrokerError,
    ErrorCode,
    InvalidRecordError,
    InvalidRequiredAcksError,
    InvalidTopicError,
    KafkaStorageError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderOrFollowerError,
    RequestTimedOutError,
)
from kafkalite.protocol.produce import (
    ProducePartition,
    ProduceRequest,
    ProduceResponse,
    ProduceResponseCurrentLeader,
    ProduceResponsePartition,
    ProduceResponseRecordError,
    ProduceResponseTopic,
)
from kafkalite.replication.hosting import Hosting
from kafkalite.replication.purgatory import Delayed, Watchers
from kafkalite.replication.replica import Replica

ACKS_ALL: Final = -1
ACKS_NONE: Final = 0


class Appended(msgspec.Struct):
    """What became of one partition of a request."""

    topic: str
    index: int
    replica: Replica | None = None
    error: BrokerError | None = None
    base_offset: int = UNKNOWN_OFFSET
    required_offset: int = UNKNOWN_OFFSET
    """The high watermark that acknowledges it with acks=all."""
    leader_epoch: LeaderEpoch = UNKNOWN_LEADER_EPOCH
    generation: int = 0
    log_append_time_ms: int = -1
    log_start_offset: int = UNKNOWN_OFFSET

    def is_settled(self) -> bool:
        """Tell whether waiting on has no point: committed, or the role it was appended in is over."""
        replica = self.replica
        assert replica is not None
        assert replica.log is not None
        return replica.log.high_watermark >= self.required_offset or replica.generation != self.generation


class DelayedProduce(Delayed):
    """A produce request with acks=all that waits for high watermarks."""

    __slots__ = ("_pending",)

    def __init__(self, pending: list[Appended]) -> None:
        super().__init__()
        self._pending = pending

    def is_complete(self) -> bool:
        return all(appended.is_settled() for appended in self._pending)


class Appends:
    """Serves produce requests."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    async def produce(self, request: ProduceRequest) -> ProduceResponse:
        """Append, wait as ``acks`` says, and answer.

        The caller sends the answer without awaiting anything in between: the lease was looked at
        in the step that returns it.
        """
        acks = request.acks
        appends = [
            self._try_append(topic.name, part, acks)
            for topic in request.topic_data
            for part in topic.partition_data
        ]
        if acks == ACKS_ALL:
            pending = [appended for appended in appends if appended.error is None]
            delayed = DelayedProduce(pending)
            if pending and request.timeout_ms > 0 and not delayed.is_complete():
                watched: list[Watchers] = [
                    appended.replica.produce_watchers for appended in pending if appended.replica
                ]
                await self._hosting.purgatory.wait(delayed, watched, timeout_s=request.timeout_ms / 1000)
        return self._answer(request, appends, acks)

    def _try_append(self, topic: str, part: ProducePartition, acks: int) -> Appended:
        appended = Appended(topic, part.index)
        try:
            self._append(appended, part, acks)
        except BrokerError as error:
            appended.error = error
        except Exception as error:  # One partition's fault leaves the others running.
            assert appended.replica is not None
            self._hosting.fail(appended.replica, error)
            appended.error = KafkaStorageError(f"{appended.replica.topic_partition} failed")
        replica = appended.replica
        if replica is not None:
            replica.counters.produce_requests += 1
            if appended.error is not None:
                replica.counters.failed_produce_requests += 1
        return appended

    def begin_internal(
        self, topic_partition: TopicPartition, records: Buffer, leader_epoch: LeaderEpoch
    ) -> Appended:
        """Append a batch of this broker's own with acks=all. Raises the BrokerErrors of a produce
        request; NotLeaderOrFollowerError also where another leader epoch than ``leader_epoch`` holds."""
        appended = Appended(*topic_partition)
        replica = appended.replica = self._hosting.require(*topic_partition)
        if replica.partition.leader_epoch != leader_epoch:
            raise NotLeaderOrFollowerError(f"{topic_partition}: leader epoch {leader_epoch} is over")
        try:
            self._append_to(replica, appended, records, ACKS_ALL, keep=False)
        except BrokerError:
            raise
        except Exception as error:  # As for a client's: this partition's fault leaves the others running.
            self._hosting.fail(replica, error)
            raise KafkaStorageError(f"{topic_partition} failed") from error
        return appended

    async def finish_internal(self, appended: Appended, *, timeout_s: float) -> None:
        """Wait until ``appended`` is committed; raises what a produce request would be answered."""
        delayed = DelayedProduce([appended])
        assert appended.replica is not None
        if timeout_s > 0 and not delayed.is_complete():
            await self._hosting.purgatory.wait(
                delayed, [appended.replica.produce_watchers], timeout_s=timeout_s
            )
        self._check_acknowledged(appended, ACKS_ALL)

    def _append(self, appended: Appended, part: ProducePartition, acks: int) -> None:
        if acks not in (ACKS_ALL, ACKS_NONE, 1):
            raise InvalidRequiredAcksError(f"acks is {acks}; it may be 0, 1 or -1 (all)")
        if appended.topic in INTERNAL_TOPICS:
            raise InvalidTopicError(f"{appended.topic} is internal: only brokers write to it")
        replica = self._hosting.require(appended.topic, part.index)
        appended.replica = replica
        # The request's body is this broker's own: nobody else reads it after this.
        self._append_to(replica, appended, part.records, acks, keep=True)

    def _append_to(
        self, replica: Replica, appended: Appended, records: Buffer | None, acks: int, *, keep: bool
    ) -> None:
        hosting = self._hosting
        partition = replica.partition
        partition.check_leader()
        self._check_may_acknowledge(replica, acks)
        log = replica.log
        assert log is not None
        if acks == ACKS_ALL and len(partition.isr) < replica.min_isr:
            raise NotEnoughReplicasError(
                f"{replica.topic_partition}: {len(partition.isr)} in sync, "
                f"min.insync.replicas is {replica.min_isr}"
            )
        if records is None:
            raise InvalidRecordError(f"{replica.topic_partition}: no records")
        info = log.append_as_leader(
            records,
            leader_epoch=partition.leader_epoch,
            now_ms=hosting.clock.wall_ms(),
            keep=keep and bool(partition.followers),
        )
        appended.base_offset = info.first_offset
        appended.required_offset = info.last_offset + 1
        appended.leader_epoch = partition.leader_epoch
        appended.generation = replica.generation
        appended.log_append_time_ms = info.log_append_time_ms
        appended.log_start_offset = info.log_start_offset
        if not info.is_duplicate:
            replica.counters.bytes_in += info.size
            replica.counters.messages_in += info.record_count
            replica.note_appended(log.log_end_offset, info.size)
            hosting.purgatory.flag(replica.fetch_watchers)
            hosting.advance_high_watermark(replica)

    def _check_may_acknowledge(self, replica: Replica, acks: int) -> None:
        """Raise NotLeaderOrFollowerError where an acknowledgement could be taken back by another."""
        if replica.partition.is_deposed:
            raise NotLeaderOrFollowerError(
                f"{replica.topic_partition}: another leader was found in ZooKeeper"
            )
        if acks != ACKS_ALL and not self._hosting.may_acknowledge_alone(replica):
            raise NotLeaderOrFollowerError(
                f"{replica.topic_partition}: broker {self._hosting.config.broker_id} is not sure of its "
                "leadership now (no lease from ZooKeeper)"
            )

    def _check_acknowledged(self, appended: Appended, acks: int) -> None:
        """Raise unless the append may be acknowledged in this very step."""
        replica = appended.replica
        assert replica is not None
        partition = replica.partition
        partition.check_leader()
        if partition.leader_epoch != appended.leader_epoch:
            raise NotLeaderOrFollowerError(
                f"{replica.topic_partition}: leader epoch {appended.leader_epoch} is over"
            )
        self._check_may_acknowledge(replica, acks)
        if acks != ACKS_ALL:
            return
        assert replica.log is not None
        if replica.log.high_watermark < appended.required_offset:
            raise RequestTimedOutError(f"{replica.topic_partition}: not all in-sync replicas had it in time")
        if partition.maximal_isr_size < replica.min_isr:
            raise NotEnoughReplicasAfterAppendError(
                f"{replica.topic_partition}: {partition.maximal_isr_size} in sync, "
                f"min.insync.replicas is {replica.min_isr}"
            )

    def _answer(self, request: ProduceRequest, appends: list[Appended], acks: int) -> ProduceResponse:
        topics: list[ProduceResponseTopic] = []
        position = 0
        for topic in request.topic_data:
            end = position + len(topic.partition_data)
            topics.append(
                ProduceResponseTopic(
                    name=topic.name,
                    partition_responses=[
                        self._answer_partition(appended, acks) for appended in appends[position:end]
                    ],
                )
            )
            position = end
        return ProduceResponse(responses=topics)

    def _answer_partition(self, appended: Appended, acks: int) -> ProduceResponsePartition:
        if appended.error is None:
            try:
                self._check_acknowledged(appended, acks)
            except BrokerError as refusal:
                appended.error = refusal
                assert appended.replica is not None
                appended.replica.counters.failed_produce_requests += 1
        error = appended.error
        if error is None:
            return ProduceResponsePartition(
                index=appended.index,
                error_code=ErrorCode.NONE,
                base_offset=UNKNOWN_OFFSET if acks == ACKS_NONE else appended.base_offset,
                log_append_time_ms=appended.log_append_time_ms,
                log_start_offset=appended.log_start_offset,
            )
        current_leader = ProduceResponseCurrentLeader()
        if isinstance(error, NotLeaderOrFollowerError):
            leader, leader_epoch = self._hosting.leader_hint(appended.topic, appended.index)
            current_leader = ProduceResponseCurrentLeader(leader_id=leader, leader_epoch=leader_epoch)
        return ProduceResponsePartition(
            index=appended.index,
            error_code=error.code,
            base_offset=UNKNOWN_OFFSET,
            record_errors=[
                ProduceResponseRecordError(batch_index=index, batch_index_error_message=message)
                for index, message in error.record_errors
            ],
            error_message=error.message or None,
            current_leader=current_leader,
        )
