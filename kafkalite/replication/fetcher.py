"""Followers pulling from their leaders: one fetcher for each (leader, fetcher id).

A fetcher asks for all its partitions in one request, in a fetch session, and has at most one request
in flight; the leader holds it until there is something to answer. Nothing is taken from an answer
on trust: it counts for a partition only if it answers that partition's *latest* fetch and the
leader epoch is still the one it was asked in (a partition that moved away and back meanwhile is a
new :class:`Following`). A follower whose log has left the leader's is told where (truncation on
fetch, KIP-595's diverging epoch) and cuts there, after the records that it throws away have a
loss receipt on disk.

The broker epoch goes along in `replica_state.replica_epoch`: the leader admits to the ISR only
the life that caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kafkalite.common import ZERO_UUID, BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition
from kafkalite.edge import Clock, ConnectionFailed, Offload
from kafkalite.journal import Journal
from kafkalite.log.log import UnexpectedOffset
from kafkalite.log.loss_receipts import write_receipts
from kafkalite.protocol.errors import (
    BrokerError,
    CorruptMessageError,
    ErrorCode,
    InvalidRecordError,
    error_for,
)
from kafkalite.protocol.fetch import (
    FetchPartition,
    FetchReplicaState,
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
)
from kafkalite.protocol.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kafkalite.replication.edges import LeaderChannel, LeaderUnavailable, ReplicationConfig
from kafkalite.replication.fetch_session import FetchSessionHandler, PartitionToFetch
from kafkalite.replication.partition import Role
from kafkalite.replication.replica import Replica
from kafkalite.replication.truncation import EpochEnd, after_out_of_range, truncation_after

LATEST_TIMESTAMP: Final = -1
EARLIEST_TIMESTAMP: Final = -2
OUT_OF_STEP: Final = frozenset({ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ErrorCode.INVALID_FETCH_SESSION_EPOCH})
"""What a leader says to a fetch whose session it does not have, or not at this epoch."""


def fetcher_id_of(topic_partition: TopicPartition, fetchers: int) -> int:
    """Which of a leader's ``fetchers`` serves the partition: Kafka's spread (Java's string hash)."""
    value = 0
    for unit in _utf16_units(topic_partition.topic):
        value = (31 * value + unit) & 0xFFFFFFFF
    value = (31 * value + topic_partition.partition) & 0xFFFFFFFF
    signed = value - 2**32 if value >= 2**31 else value
    return abs(signed) % fetchers


def _utf16_units(text: str) -> Sequence[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


class Following:
    """One partition followed in one leader epoch. A new epoch, or leader, makes a new object."""

    __slots__ = ("is_failed", "latest", "leader_epoch", "not_before", "replica", "request")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.leader_epoch: LeaderEpoch = replica.partition.leader_epoch
        self.latest: PartitionToFetch | None = None
        """What the latest fetch asked for."""
        self.request = 0
        """Number of the latest fetch."""
        self.not_before = 0.0
        """Monotonic seconds until which it is left out of requests."""
        self.is_failed = False
        """Left out until the controller's next instruction."""

    def next_fetch(self, max_bytes: int) -> PartitionToFetch:
        """What to ask for next: the same object as long as it is the same."""
        log = self.replica.log
        assert log is not None
        offset, epoch, start = log.log_end_offset, log.latest_epoch, log.log_start_offset
        if self.latest is not None:
            part = self.latest.part
            if (part.fetch_offset, part.last_fetched_epoch, part.log_start_offset) == (offset, epoch, start):
                return self.latest
        topic_partition = self.replica.topic_partition
        part = FetchPartition(
            partition=topic_partition.partition,
            current_leader_epoch=self.leader_epoch,
            fetch_offset=offset,
            last_fetched_epoch=epoch,
            log_start_offset=start,
            partition_max_bytes=max_bytes,
        )
        self.latest = PartitionToFetch(topic_partition, ZERO_UUID, part)
        return self.latest

    @property
    def offset(self) -> int:
        """The offset that the latest fetch asked for."""
        assert self.latest is not None
        return self.latest.part.fetch_offset


class _Asked(NamedTuple):
    number: int
    request: FetchRequest
    followings: dict[tuple[str, int], Following]


class Fetchers:
    """All fetchers of this broker."""

    def __init__(
        self,
        config: ReplicationConfig,
        *,
        channel: LeaderChannel,
        clock: Clock,
        journal: Journal,
        offload: Offload,
        instructions: asyncio.Lock,
        broker_epoch: Callable[[], BrokerEpoch],
        fail: Callable[[Replica, BaseException], None],
    ) -> None:
        """``broker_epoch`` is this broker's latest one, kept while it has no session; ``fail``
        takes a replica whose work met a fault offline. ``instructions`` is held by whoever applies
        the controller's instructions, and here between a loss receipt and its truncation: what a
        receipt says is then what happens."""
        self.config = config
        self.channel = channel
        self.clock = clock
        self.journal = journal
        self.offload = offload
        self.instructions = instructions
        self.broker_epoch = broker_epoch
        self.fail = fail
        self._fetchers: dict[tuple[BrokerId, int], _Fetcher] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run the fetchers until cancelled; those asked for before start now."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for fetcher in self._fetchers.values():
                    self._start(fetcher)
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None
            self._fetchers.clear()

    def follow(self, replica: Replica) -> None:
        """Begin to fetch from the replica's leader, in the leader epoch it is in now."""
        self.unfollow(replica.topic_partition)
        leader = replica.partition.leader
        key = (leader, fetcher_id_of(replica.topic_partition, self.config.num_replica_fetchers))
        fetcher = self._fetchers.get(key)
        if fetcher is None:
            fetcher = _Fetcher(self, leader, key[1])
            self._fetchers[key] = fetcher
            fetcher.add(Following(replica))
            if self._tasks is not None:
                self._start(fetcher)
        else:
            fetcher.add(Following(replica))

    def unfollow(self, topic_partition: TopicPartition) -> None:
        """Stop fetching; an answer that is under way will not count."""
        for fetcher in self._fetchers.values():
            fetcher.followed.pop(topic_partition, None)

    def retry(self, topic_partition: TopicPartition) -> None:
        """The controller has confirmed what is followed: try again what had failed."""
        for fetcher in self._fetchers.values():
            following = fetcher.followed.get(topic_partition)
            if following is not None and following.is_failed:
                following.is_failed = False
                fetcher.add(following)

    @property
    def failed_partitions(self) -> int:
        """How many wait for the controller's next instruction (FailedPartitionsCount)."""
        return sum(
            following.is_failed
            for fetcher in self._fetchers.values()
            for following in fetcher.followed.values()
        )

    @property
    def max_lag(self) -> int:
        """The most messages that a follower here was behind its leader, as of its last answer."""
        return max((fetcher.lag() for fetcher in self._fetchers.values()), default=0)

    def _start(self, fetcher: _Fetcher) -> None:
        assert self._tasks is not None
        self._tasks.create_task(fetcher.run(), name=f"fetcher-{fetcher.leader}-{fetcher.fetcher_id}")

    def forget(self, fetcher: _Fetcher) -> None:
        """Its task is over: nothing is followed there any more."""
        key = (fetcher.leader, fetcher.fetcher_id)
        if self._fetchers.get(key) is fetcher:
            del self._fetchers[key]


class _Fetcher:
    """Fetches from one leader what is followed there, one request at a time."""

    def __init__(self, owner: Fetchers, leader: BrokerId, fetcher_id: int) -> None:
        self.leader = leader
        self.fetcher_id = fetcher_id
        self.followed: dict[TopicPartition, Following] = {}
        self._owner = owner
        self._config = owner.config
        self._clock = owner.clock
        self._journal = owner.journal
        self._added = asyncio.Event()
        self._requests = 0
        self._lags: dict[TopicPartition, int] = {}
        self._session = FetchSessionHandler()

    def add(self, following: Following) -> None:
        self.followed[following.replica.topic_partition] = following
        self._added.set()

    def lag(self) -> int:
        return max((lag for tp, lag in self._lags.items() if tp in self.followed), default=0)

    async def run(self) -> None:
        """Fetch until nothing is followed any more."""
        while self.followed:
            asked, pause_s = self._compose()
            if asked is None:
                await self._pause(pause_s)
                continue
            try:
                response = await self._owner.channel.fetch(
                    self.leader, asked.request, fetcher_id=self.fetcher_id
                )
            except (ConnectionFailed, LeaderUnavailable):
                self._session.failed()
                self._back_off(asked)
                continue
            self._session.answered(response)
            if response.error_code in OUT_OF_STEP:
                continue  # The next fetch is in full.
            if response.error_code != ErrorCode.NONE:
                self._back_off(asked)
                continue
            await self._take(asked, response)
            del response  # Its buffer is the next one's.
        self._owner.forget(self)

    def _back_off(self, asked: _Asked) -> None:
        not_before = self._clock.monotonic() + self._config.replica_fetch_backoff_ms / 1000
        for following in asked.followings.values():
            following.not_before = not_before

    async def _pause(self, pause_s: float | None) -> None:
        """Sleep until the next back-off ends, or something new is to be followed."""
        self._added.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._added.wait()
        except TimeoutError:
            pass  # That is how a back-off ends.

    def _compose(self) -> tuple[_Asked | None, float | None]:
        """The next request; or None and how long to pause (None: until something is added)."""
        now = self._clock.monotonic()
        self._requests += 1
        wanted: dict[TopicPartition, PartitionToFetch] = {}
        followings: dict[tuple[str, int], Following] = {}
        earliest: float | None = None
        max_bytes = self._config.replica_fetch_max_bytes
        for topic_partition, following in self.followed.items():
            if following.is_failed:
                continue
            if following.not_before > now:
                if earliest is None or following.not_before < earliest:
                    earliest = following.not_before
                continue
            following.request = self._requests
            followings[topic_partition] = following
            wanted[topic_partition] = following.next_fetch(max_bytes)
        if not followings:
            return None, None if earliest is None else earliest - now
        session_id, session_epoch, topics, forgotten = self._session.next_fetch(wanted)
        request = FetchRequest(
            replica_state=FetchReplicaState(
                replica_id=self._config.broker_id, replica_epoch=self._owner.broker_epoch()
            ),
            max_wait_ms=self._config.replica_fetch_wait_max_ms,
            min_bytes=self._config.replica_fetch_min_bytes,
            max_bytes=self._config.replica_fetch_response_max_bytes,
            session_id=session_id,
            session_epoch=session_epoch,
            topics=topics,
            forgotten_topics_data=forgotten,
        )
        return _Asked(self._requests, request, followings), None

    def _counts(self, following: Following, number: int) -> bool:
        """Tell whether an answer to fetch ``number`` still counts for the partition."""
        partition = following.replica.partition
        return (
            self.followed.get(following.replica.topic_partition) is following
            and following.request == number
            and partition.leader_epoch == following.leader_epoch
            and partition.role is Role.FOLLOWER
        )

    async def _take(self, asked: _Asked, response: FetchResponse) -> None:
        for topic in response.responses:
            for part in topic.partitions:
                following = asked.followings.get((topic.topic, part.partition_index))
                if following is None or not self._counts(following, asked.number):
                    continue
                try:
                    if part.error_code == ErrorCode.NONE and part.diverging_epoch.end_offset < 0:
                        self._append(following, part)
                    else:
                        await self._take_exception(following, asked.number, part)
                except (ConnectionFailed, LeaderUnavailable, BrokerError) as error:
                    self._put_off(following, error)
                except UnexpectedOffset as error:
                    following.is_failed = True
                    self._record_failure(following, error)
                except Exception as error:  # One partition's fault leaves the others running.
                    self.followed.pop(following.replica.topic_partition, None)
                    self._owner.fail(following.replica, error)

    def _append(self, following: Following, part: FetchResponsePartition) -> None:
        """Append what came, and move the high watermark along."""
        replica = following.replica
        log = replica.log
        assert log is not None
        if following.offset != log.log_end_offset:
            return  # Cut meanwhile: the next fetch asks from where the log ends now.
        records = part.records
        if records is not None and len(records):
            log.append_as_follower(records)
            replica.counters.replication_bytes_in += len(records)
        self._lags[replica.topic_partition] = max(0, part.high_watermark - log.log_end_offset)
        # A new leader's high watermark may lag behind what this replica already knew.
        log.update_high_watermark(max(min(part.high_watermark, log.log_end_offset), log.log_start_offset))
        if part.log_start_offset > log.log_start_offset:
            log.raise_log_start_offset(min(part.log_start_offset, log.high_watermark))

    def _put_off(self, following: Following, error: Exception) -> None:
        following.not_before = self._clock.monotonic() + self._config.replica_fetch_backoff_ms / 1000
        if isinstance(error, CorruptMessageError | InvalidRecordError):
            self._record_failure(following, error)

    def _record_failure(self, following: Following, error: Exception) -> None:
        self._journal.record(
            "ReplicationFailed",
            cause=following.replica.cause,
            partition=following.replica.topic_partition,
            leader=self.leader,
            leader_epoch=following.leader_epoch,
            reason=str(error),
        )

    async def _take_exception(self, following: Following, number: int, part: FetchResponsePartition) -> None:
        """Handle what is not simply data. Raises BrokerError for what only time can mend."""
        if part.error_code == ErrorCode.NONE:
            await self._follow_divergence(following, number, part)
        elif part.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            await self._find_range(following, number)
        elif part.error_code == ErrorCode.FENCED_LEADER_EPOCH:
            # The leader is in a newer epoch; the controller is about to tell this broker too.
            following.is_failed = True
            self._journal.record(
                "FollowerFenced",
                cause=following.replica.cause,
                partition=following.replica.topic_partition,
                leader=self.leader,
                leader_epoch=following.leader_epoch,
            )
        else:
            raise error_for(part.error_code)

    async def _follow_divergence(
        self, following: Following, number: int, part: FetchResponsePartition
    ) -> None:
        log = following.replica.log
        assert log is not None
        leader = EpochEnd(part.diverging_epoch.epoch, part.diverging_epoch.end_offset)
        decision = truncation_after(
            leader,
            EpochEnd(*log.end_offset_for_epoch(LeaderEpoch(leader.epoch))),
            log_end_offset=log.log_end_offset,
            initial_offset=log.high_watermark,
        )
        before = (log.log_end_offset, log.latest_epoch)
        await self._cut(
            following,
            number,
            decision.offset,
            reason=f"the leader's epoch {leader.epoch} ends at {leader.end_offset}",
        )
        if (log.log_end_offset, log.latest_epoch) == before and self._counts(following, number):
            # Nothing to cut although the logs differ: only the leader can change that.
            raise CorruptMessageError(
                f"{following.replica.topic_partition}: broker {self.leader} says that epoch {leader.epoch} "
                f"ends at {leader.end_offset}, which leaves nothing to truncate"
            )

    async def _find_range(self, following: Following, number: int) -> None:
        """The leader does not have the offset asked for: find out what it has."""
        leader_end = await self._offset_of_leader(following, LATEST_TIMESTAMP)
        leader_start = await self._offset_of_leader(following, EARLIEST_TIMESTAMP)
        if not self._counts(following, number):
            return
        log = following.replica.log
        assert log is not None
        decision = after_out_of_range(
            leader_start=leader_start, leader_end=leader_end, log_end_offset=log.log_end_offset
        )
        if decision.truncate_to is not None:
            await self._cut(following, number, decision.truncate_to, reason="the leader's log ends before")
        elif decision.restart_at is not None:
            await self._restart(following, number, decision.restart_at)

    async def _offset_of_leader(self, following: Following, timestamp: int) -> int:
        topic_partition = following.replica.topic_partition
        response = await self._owner.channel.list_offsets(
            self.leader,
            ListOffsetsRequest(
                replica_id=self._config.broker_id,
                topics=[
                    ListOffsetsTopic(
                        name=topic_partition.topic,
                        partitions=[
                            ListOffsetsPartition(
                                partition_index=topic_partition.partition,
                                current_leader_epoch=following.leader_epoch,
                                timestamp=timestamp,
                            )
                        ],
                    )
                ],
            ),
        )
        answer = response.topics[0].partitions[0]
        if answer.error_code != ErrorCode.NONE:
            raise error_for(answer.error_code)
        return answer.offset

    async def _cut(self, following: Following, number: int, offset: int, *, reason: str) -> None:
        """Truncate the log to ``offset``, with a receipt for the records that this drops."""
        replica = following.replica
        log = replica.log
        assert log is not None
        async with self._owner.instructions:
            if not self._counts(following, number):
                return
            end = log.log_end_offset
            await self._give_receipt(following, offset, reason=reason)
            # Also where no record goes: epochs that began at the very end are forgotten, those of a
            # leadership that wrote nothing.
            log.truncate_to(offset)
            if log.log_end_offset != end:
                self._journal.record(
                    "Truncated",
                    cause=replica.cause,
                    partition=replica.topic_partition,
                    log_end_offset_before=end,
                    log_end_offset=log.log_end_offset,
                    leader=self.leader,
                    leader_epoch=following.leader_epoch,
                    reason=reason,
                )

    async def _restart(self, following: Following, number: int, offset: int) -> None:
        """Throw everything away and begin at the leader's first offset."""
        replica = following.replica
        log = replica.log
        assert log is not None
        reason = "the leader's log begins after this one's end"
        async with self._owner.instructions:
            if not self._counts(following, number):
                return
            end = log.log_end_offset
            await self._give_receipt(following, log.log_start_offset, reason=reason)
            log.truncate_fully_and_start_at(offset)
            self._journal.record(
                "Truncated",
                cause=replica.cause,
                partition=replica.topic_partition,
                log_end_offset_before=end,
                log_start_offset=offset,
                log_end_offset=offset,
                leader=self.leader,
                leader_epoch=following.leader_epoch,
                reason=reason,
            )

    async def _give_receipt(self, following: Following, offset: int, *, reason: str) -> None:
        """Write down, durably, what a truncation to ``offset`` drops; nothing where that is nothing."""
        replica = following.replica
        log = replica.log
        assert log is not None
        ranges = log.ranges_above(offset)
        if not ranges:
            return
        event = self._journal.record(
            "RecordsLost",
            cause=replica.cause,
            partition=replica.topic_partition,
            first_offset=ranges[0][1],
            last_offset=ranges[-1][2] - 1,
            epochs=[epoch for epoch, _, _ in ranges],
            high_watermark=log.high_watermark,
            reason=reason,
        )
        try:
            await self._owner.offload.run(
                write_receipts,
                log.log_dir,
                replica.topic_partition,
                ranges,
                reason=reason,
                now_ms=self._clock.wall_ms(),
                cause=event,
            )
        except OSError as error:
            raise log.log_dir.failed(
                error, f"writing the loss receipt of {replica.topic_partition}"
            ) from error
