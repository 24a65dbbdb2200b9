"""Group coordinators of several brokers on one log in memory, under virtual time.

:class:`Partition` is what all brokers agree on: the batches, the high watermark, who leads. A test
says when replication goes on, fails, and who leads next.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from kafkalite.common import (
    CONSUMER_OFFSETS,
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    Endpoint,
    LeaderEpoch,
    TopicPartition,
)
from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.group.group import Client
from kafkalite.coordinator.runtime import GroupCoordinator
from kafkalite.edge import Buffer
from kafkalite.journal import Event, Journal
from kafkalite.log.log import Read
from kafkalite.protocol.errors import BrokerError, NotLeaderOrFollowerError, RequestTimedOutError
from kafkalite.protocol.join_group import JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.offset_commit import OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic
from kafkalite.protocol.offset_fetch import OffsetFetchGroup, OffsetFetchRequest
from kafkalite.protocol.record_batch import BatchHeader, patch_header
from kafkalite.protocol.sync_group import SyncGroupAssignment, SyncGroupRequest, SyncGroupResponse
from kafkalite.replication.appends import Appended
from kafkalite.replication.internal import LeadershipListener
from tests.simulation.loop import InlineOffload, VirtualClock

PARTITION = TopicPartition(CONSUMER_OFFSETS, 0)
ORDERS = TopicPartition("orders", 0)
CLIENT = Client("client", "/127.0.0.1")


@dataclass
class Partition:
    """The one partition of `__consumer_offsets`, as all brokers see it."""

    batches: list[tuple[int, bytes]] = field(default_factory=list)
    """(next offset, batch)."""
    high_watermark: int = 0
    leader: BrokerId | None = None
    leader_epoch: LeaderEpoch = field(default_factory=lambda: LeaderEpoch(0))
    is_replicating: bool = True
    refuses: BrokerError | None = None
    """What an append meets."""
    has_lease: bool = True
    is_readable: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    exists: bool = True
    creations: int = 0
    creation_error: BrokerError | None = None
    topics: set[str] = field(default_factory=lambda: {"orders"})

    def __post_init__(self) -> None:
        self.is_readable.set()

    @property
    def end(self) -> int:
        return self.batches[-1][0] if self.batches else 0

    def replicate(self) -> None:
        """All in sync have everything."""
        self.high_watermark = self.end
        self.wake()

    def wake(self) -> None:
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()


class LogOf:
    """The partition as one broker's replica manager shows it: a PartitionLog."""

    def __init__(self, partition: Partition, broker_id: BrokerId) -> None:
        self.partition = partition
        self.broker_id = broker_id
        self.listeners: list[LeadershipListener] = []

    def on_leadership_change(self, listener: LeadershipListener) -> None:
        self.listeners.append(listener)

    def check(self, leader_epoch: LeaderEpoch) -> None:
        if self.partition.leader != self.broker_id or self.partition.leader_epoch != leader_epoch:
            raise NotLeaderOrFollowerError("not the leader")

    def append(self, partition: TopicPartition, records: Buffer, leader_epoch: LeaderEpoch) -> Appended:
        self.check(leader_epoch)
        if self.partition.refuses is not None:
            raise self.partition.refuses
        base = self.partition.end
        batch = patch_header(records, base_offset=base, leader_epoch=leader_epoch) + bytes(records)[61:]
        end = base + BatchHeader.parse(batch).record_count
        self.partition.batches.append((end, batch))
        if self.partition.is_replicating:
            self.partition.replicate()
        return Appended(partition.topic, partition.partition, required_offset=end, leader_epoch=leader_epoch)

    async def committed(self, appended: Appended, *, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self.partition.high_watermark < appended.required_offset:
                    self.check(appended.leader_epoch)
                    await self.partition.moved.wait()
        except TimeoutError:
            raise RequestTimedOutError("not in time") from None
        self.check(appended.leader_epoch)

    def log_end(self, partition: TopicPartition, leader_epoch: LeaderEpoch) -> Appended:
        self.check(leader_epoch)
        return Appended(
            partition.topic,
            partition.partition,
            required_offset=self.partition.end,
            leader_epoch=leader_epoch,
        )

    def high_watermark(self, partition: TopicPartition) -> int:
        return self.partition.high_watermark if partition == PARTITION else 100

    def log_start_offset(self, partition: TopicPartition) -> int:
        return 0

    async def read(
        self, partition: TopicPartition, offset: int, *, max_bytes: int, leader_epoch: LeaderEpoch
    ) -> Read:
        await self.partition.is_readable.wait()
        self.check(leader_epoch)
        found = b""
        next_offset = offset
        for end, batch in self.partition.batches:
            if end > offset and (not found or len(found) + len(batch) <= max_bytes):
                found += batch
                next_offset = end
        return Read(found, offset, next_offset)

    def has_lease(self, partition: TopicPartition) -> bool:
        return self.partition.has_lease and self.partition.leader == self.broker_id

    def known_high_watermark(self, partition: TopicPartition) -> int | None:
        return 100 if partition == ORDERS else None


class Cluster:
    """The metadata cache and the controller."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition

    def partition_count(self, topic: str) -> int:
        return 1 if topic == CONSUMER_OFFSETS and self.partition.exists else 0

    def leader_of(self, partition: TopicPartition) -> tuple[BrokerId, LeaderEpoch] | None:
        if partition == PARTITION:
            leader = self.partition.leader
            return (BrokerId(-1) if leader is None else leader, self.partition.leader_epoch)
        return (BrokerId(1), LeaderEpoch(0)) if partition.topic in self.partition.topics else None

    def broker(self, broker_id: BrokerId) -> BrokerInfo | None:
        return BrokerInfo(broker_id, BrokerEpoch(1), (Endpoint("PLAINTEXT", "127.0.0.1", 9092),))

    async def create(
        self, topic: str, *, partitions: int, replication_factor: int, config: dict[str, str]
    ) -> None:
        self.partition.creations += 1
        await asyncio.sleep(0.1)
        if self.partition.creation_error is not None:
            raise self.partition.creation_error
        self.partition.exists = True


class Broker:
    """One broker's coordinator, with what a test asks of it."""

    def __init__(self, number: int, partition: Partition, config: GroupConfig) -> None:
        self.broker_id = BrokerId(number)
        self.partition = partition
        self.log = LogOf(partition, self.broker_id)
        clock = VirtualClock(asyncio.get_running_loop())
        self.journal = Journal(self.broker_id, clock)
        cluster = Cluster(partition)
        self.groups = GroupCoordinator(
            config,
            log=self.log,
            cluster=cluster,
            topics=cluster,
            clock=clock,
            offload=InlineOffload(),
            journal=self.journal,
            chance=random.Random(number),
        )

    def events(self, type: str) -> list[Event]:
        return self.journal.events(type=type)

    async def until(self, type: str, count: int = 1) -> None:
        """Wait until the journal holds ``count`` events of ``type``."""
        async with asyncio.timeout(100):
            while len(self.events(type)) < count:
                await asyncio.sleep(0.001)

    async def join(
        self, member_id: str = "", group: str = "g", *, instance: str | None = None
    ) -> JoinGroupResponse:
        return await self.groups.join(join_request(member_id, group, instance=instance), CLIENT)

    async def enter(self, group: str = "g") -> JoinGroupResponse:
        """Join for the first time, with both steps."""
        first = await self.join(group=group)
        return await self.join(first.member_id, group)

    async def sync(
        self, joined: JoinGroupResponse, given: dict[str, bytes] | None = None, *, group: str = "g"
    ) -> SyncGroupResponse:
        return await self.groups.sync(sync_request(joined, group, given))

    async def commit(self, offset: int, group: str = "g", **more: int | str) -> int:
        answer = await self.groups.commit_offsets(commit_request(offset, group, **more))
        return answer.topics[0].partitions[0].error_code

    async def committed(self, group: str = "g") -> tuple[int, int | None]:
        """Error and offset; None where nothing is committed."""
        request = OffsetFetchRequest(groups=[OffsetFetchGroup(group_id=group)])
        answer = (await self.groups.fetch_offsets(request)).groups[0]
        return answer.error_code, (answer.topics[0].partitions[0].committed_offset if answer.topics else None)


class World:
    """Brokers on one partition."""

    def __init__(self, config: GroupConfig) -> None:
        self.config = config
        self.partition = Partition()
        self.brokers: dict[int, Broker] = {}

    async def elect(self, number: int | None) -> None:
        """Make a broker the leader (None: nobody) and, where it is one, wait until it is loaded."""
        partition = self.partition
        partition.leader = None if number is None else BrokerId(number)
        partition.leader_epoch = LeaderEpoch(partition.leader_epoch + 1)
        loads = {n: len(broker.events("GroupCoordinatorLoaded")) for n, broker in self.brokers.items()}
        for broker in self.brokers.values():
            for listener in broker.log.listeners:
                listener(PARTITION, broker.broker_id == number, partition.leader_epoch)
        partition.wake()
        if number is not None and partition.is_readable.is_set() and partition.is_replicating:
            partition.replicate()
            await self.brokers[number].until("GroupCoordinatorLoaded", loads[number] + 1)


@contextlib.asynccontextmanager
async def world(brokers: int = 1, config: GroupConfig | None = None) -> AsyncIterator[World]:
    """Run ``brokers`` coordinators (numbered from 1); the first leads."""
    made = World(config or GroupConfig(group_initial_rebalance_delay_ms=0))
    for number in range(1, brokers + 1):
        made.brokers[number] = Broker(number, made.partition, made.config)
    runs = [asyncio.create_task(broker.groups.run()) for broker in made.brokers.values()]
    await asyncio.sleep(0)
    await made.elect(1)
    try:
        yield made
    finally:
        for run in runs:
            run.cancel()
        ended = await asyncio.gather(*runs, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


def join_request(
    member_id: str = "",
    group: str = "g",
    *,
    instance: str | None = None,
    protocol: str | None = "range",
    metadata: bytes | str = b"",
    protocol_type: str | None = "consumer",
    session_timeout_ms: int = 10_000,
    rebalance_timeout_ms: int = 20_000,
    reason: str | None = None,
) -> JoinGroupRequest:
    """A join of a member that supports the protocols named in ``protocol``, separated by commas."""
    return JoinGroupRequest(
        group_id=group,
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=rebalance_timeout_ms,
        member_id=member_id,
        group_instance_id=instance,
        protocol_type=protocol_type or "",
        protocols=[
            JoinGroupProtocol(
                name=name, metadata=metadata.encode() if isinstance(metadata, str) else metadata
            )
            for name in (protocol or "").split(",")
            if name
        ],
        reason=reason,
    )


def sync_request(
    joined: JoinGroupResponse, group: str = "g", given: dict[str, bytes] | None = None
) -> SyncGroupRequest:
    return SyncGroupRequest(
        group_id=group,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        assignments=[
            SyncGroupAssignment(member_id=member, assignment=assignment)
            for member, assignment in (given or {}).items()
        ],
    )


def commit_request(
    offset: int,
    group: str = "g",
    *,
    generation: int | str = -1,
    member: int | str = "",
    metadata: int | str = "",
    topic: int | str = "orders",
) -> OffsetCommitRequest:
    return OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=int(generation),
        member_id=str(member),
        topics=[
            OffsetCommitTopic(
                name=str(topic),
                partitions=[
                    OffsetCommitPartition(
                        partition_index=0, committed_offset=offset, committed_metadata=str(metadata)
                    )
                ],
            )
        ],
    )
