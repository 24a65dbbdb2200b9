"""Controllers against an in-memory ZooKeeper, and brokers that do what they are told.

:class:`Brokers` is the other end of every channel: it fences by broker epoch as a broker does,
keeps what it was told about each partition and who asked for it, and can be made to fail.
:class:`Cluster` registers brokers, each with a controller of its own, and lets tests kill and
bounce them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from controller.config import ControllerConfig
from controller.controller import Controller
from kafkalite.common import (
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    Endpoint,
    LeaderAndIsr,
    TopicPartition,
    Uuid,
)
from kafkalite.edge import Clock, ConnectionFailed
from kafkalite.journal import Event, EventId, Journal
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.leader_and_isr import (
    LeaderAndIsrPartition,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrResponsePartitionError,
    LeaderAndIsrResponseTopic,
)
from kafkalite.protocol.message import Message
from kafkalite.protocol.stop_replica import StopReplicaRequest, StopReplicaResponse
from kafkalite.protocol.update_metadata import (
    UpdateMetadataPartition,
    UpdateMetadataRequest,
    UpdateMetadataResponse,
)
from tests.support.zookeeper_memory import MemoryClient
from zk.client import SessionState, Stat, ZooKeeper
from zk.codecs import BrokerRegistration, TopicRecord
from zk.store import Store


class LoopClock:
    """The loop's own time, so that it also works on a loop with virtual time."""

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Told:
    """What one life of a broker was told."""

    requests: list[Message] = field(default_factory=list)
    leader_and_isr: dict[TopicPartition, LeaderAndIsrPartition] = field(default_factory=dict)
    metadata: dict[TopicPartition, UpdateMetadataPartition] = field(default_factory=dict)
    live_brokers: list[int] = field(default_factory=list)
    stopped: dict[TopicPartition, bool] = field(default_factory=dict)


class Brokers:
    """Every broker's receiving end; a :class:`controller.channel.BrokerChannel`."""

    def __init__(self) -> None:
        self.told: dict[tuple[BrokerId, BrokerEpoch], Told] = {}
        self.epochs: dict[BrokerId, BrokerEpoch] = {}
        self.lost_dirs: dict[BrokerId, set[TopicPartition]] = {}
        self.unreachable: set[BrokerId] = set()
        self.causes: list[EventId | None] = []
        self.delay: Callable[[], float] = lambda: 0.0
        self.delete_errors: dict[BrokerId, ErrorCode] = {}

    def of(self, broker: BrokerId) -> Told:
        """What the present life of ``broker`` was told."""
        return self.told.setdefault((broker, self.epochs[broker]), Told())

    async def ask(
        self, broker: BrokerInfo, request: Message, *, timeout_ms: int, cause: EventId | None
    ) -> Message:
        await asyncio.sleep(self.delay())
        id = broker.broker_id
        if id in self.unreachable or id not in self.epochs:
            raise ConnectionFailed(broker.endpoints[0].address, "refused")
        assert isinstance(request, LeaderAndIsrRequest | UpdateMetadataRequest | StopReplicaRequest)
        stale = request.broker_epoch < self.epochs[id]
        self.causes.append(cause)
        if not stale:
            self.of(id).requests.append(request)
        error = ErrorCode.STALE_BROKER_EPOCH if stale else ErrorCode.NONE
        match request:
            case LeaderAndIsrRequest():
                return self._leader_and_isr(id, request, error)
            case UpdateMetadataRequest():
                if not stale:
                    self._update_metadata(id, request)
                return UpdateMetadataResponse(error_code=error)
            case StopReplicaRequest():
                if not stale:
                    for topic in request.topic_states:
                        for item in topic.partition_states:
                            tp = TopicPartition(topic.topic_name, item.partition_index)
                            self.of(id).stopped[tp] = item.delete_partition
                error = self.delete_errors.get(id, error)
                return StopReplicaResponse(error_code=error, partition_errors=[])

    def _leader_and_isr(
        self, id: BrokerId, request: LeaderAndIsrRequest, error: ErrorCode
    ) -> LeaderAndIsrResponse:
        if error:
            return LeaderAndIsrResponse(error_code=error)
        topics = []
        for topic in request.topic_states:
            errors = []
            for state in topic.partition_states:
                tp = TopicPartition(topic.topic_name, state.partition_index)
                lost = tp in self.lost_dirs.get(id, ())
                if not lost:
                    self.of(id).leader_and_isr[tp] = state
                    self.of(id).stopped.pop(tp, None)
                errors.append(
                    LeaderAndIsrResponsePartitionError(
                        partition_index=tp.partition,
                        error_code=ErrorCode.KAFKA_STORAGE_ERROR if lost else ErrorCode.NONE,
                    )
                )
            topics.append(LeaderAndIsrResponseTopic(topic_name=topic.topic_name, partition_errors=errors))
        return LeaderAndIsrResponse(error_code=ErrorCode.NONE, topics=topics)

    def _update_metadata(self, id: BrokerId, request: UpdateMetadataRequest) -> None:
        told = self.of(id)
        told.live_brokers = [live.id for live in request.live_brokers]
        for topic in request.topic_states:
            for state in topic.partition_states:
                tp = TopicPartition(topic.topic_name, state.partition_index)
                if state.leader == -2:
                    told.metadata.pop(tp, None)
                else:
                    told.metadata[tp] = state


class Member:
    """One broker: a session, a registration, a controller."""

    def __init__(self, cluster: Cluster, broker_id: BrokerId, rack: str | None = None) -> None:
        self.cluster = cluster
        self.id = broker_id
        self.rack = rack
        self.zk: ZooKeeper | None = None
        self.store: Store | None = None
        self.epoch = BrokerEpoch(-1)
        self.lease = True
        self.journal = Journal(broker_id, cluster.clock)
        self.controller = Controller(
            broker_id,
            cluster.config,
            cluster.brokers,
            self.journal,
            cluster.clock,
            random.Random(broker_id),
            lambda: self.lease,
            cluster.validate,
        )

    @property
    def registration(self) -> BrokerRegistration:
        endpoint = Endpoint("PLAINTEXT", f"b{self.id}.example", 9092)
        return BrokerRegistration(self.id, (endpoint,), rack=self.rack, timestamp_ms=0)

    async def join(self) -> None:
        """Register in a new session and take part in elections."""
        self.zk = await self.cluster.connect()
        self.store = Store(self.zk)
        await self.store.create_persistent_paths()
        self.epoch = await self.store.register_broker(self.registration)
        self.cluster.brokers.epochs[self.id] = self.epoch
        self.controller.session_started(self.store, self.epoch)

    async def bounce(self) -> None:
        """The process dies and is back at once: its old registration is its own leftover."""
        assert self.zk is not None
        old = self.zk.session_id
        if isinstance(self.zk, MemoryClient):
            self.zk.server.abandon(self.zk)
        self.zk = await self.cluster.connect()
        self.store = Store(self.zk)

        async def dead(_: BrokerInfo) -> bool:
            return False

        self.epoch = await self.store.register_broker(self.registration, previous_session=old, answers=dead)
        self.cluster.brokers.epochs[self.id] = self.epoch
        await self.controller.session_lost()
        self.controller.session_started(self.store, self.epoch, previous_session=old)

    async def leave(self) -> None:
        """The process dies; its session ends at once."""
        await self.controller.session_lost()
        assert self.zk is not None
        self.cluster.brokers.epochs.pop(self.id, None)
        if isinstance(self.zk, MemoryClient):
            self.zk.server.abandon(self.zk)
            self.zk.server.expire(self.zk)
        else:
            await self.zk.close()


class Cluster:
    """Members around one ensemble; ``run`` holds the controllers' tasks."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[ZooKeeper]],
        clock: Clock,
        *,
        config: ControllerConfig | None = None,
    ) -> None:
        self.connect = connect
        self.clock = clock
        self.config = config or ControllerConfig(auto_leader_rebalance_enable=False)
        self.brokers = Brokers()
        self.members: dict[BrokerId, Member] = {}
        self.tasks: asyncio.TaskGroup | None = None
        self.reader: Store | None = None
        self.validate: Callable[[str, dict[str, str | None]], None] = lambda topic, config: None

    async def __aenter__(self) -> Cluster:
        self.tasks = await asyncio.TaskGroup().__aenter__()
        self.reader = Store(await self.connect())
        await self.reader.create_persistent_paths()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.tasks is not None
        for member in self.members.values():
            member.lease = True
            await member.controller.shutdown()
        await self.tasks.__aexit__(None, None, None)
        if self.reader is not None:
            await self.reader.zk.close()
        for member in self.members.values():
            if member.zk is not None and member.zk.state is SessionState.CONNECTED:
                await member.zk.close()

    async def start(self, *ids: int, racks: Mapping[int, str] | None = None) -> None:
        """Start brokers, one after the other, each known to the controller before the next."""
        assert self.tasks is not None
        for id in ids:
            member = Member(self, BrokerId(id), (racks or {}).get(id))
            self.members[member.id] = member
            self.tasks.create_task(member.controller.run())
            await member.join()
            await self.until(lambda: self.active is not None)
            await self.until(partial(self._is_known, member.id))

    def _is_known(self, id: BrokerId) -> bool:
        """Whether a controller has taken note of the broker."""
        return any(id in e.facts["brokers"] for e in self.events("ControllerContextLoaded")) or any(
            id == e.facts["broker"] for e in self.events("BrokerStarted")
        )

    def __getitem__(self, id: int) -> Member:
        return self.members[BrokerId(id)]

    @property
    def active(self) -> Controller | None:
        return next((m.controller for m in self.members.values() if m.controller.is_active), None)

    @property
    def controller(self) -> Controller:
        active = self.active
        assert active is not None
        return active

    async def until(self, condition: Callable[[], object], within_s: float = 10) -> None:
        """Wait until ``condition`` holds. Fails, telling the journals, if it does not in time."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError("\n".join(self.story())) from None

    def story(self) -> list[str]:
        """All journals' events in order of time."""
        events = [event for member in self.members.values() for event in member.journal.events()]
        return [
            f"{e.time} broker {e.broker}: {e.type} {e.topic or ''}-{e.partition} {e.facts} because {e.cause}"
            for e in sorted(events, key=lambda event: event.time)
        ]

    def events(self, type: str) -> list[Event]:
        return [e for member in self.members.values() for e in member.journal.events(type=type)]

    async def create(self, topic: str, assignment: Mapping[int, tuple[int, ...]]) -> None:
        """Create a topic by writing its znode, as any tool may."""
        assert self.reader is not None
        replicas = {p: tuple(BrokerId(b) for b in brokers) for p, brokers in assignment.items()}
        await self.reader.create_topic(topic, TopicRecord(Uuid("A" * 21 + "Q"), replicas))
        await self.settled({TopicPartition(topic, partition) for partition in assignment})

    async def settled(self, partitions: set[TopicPartition]) -> None:
        """Wait until the partitions have state znodes."""
        for partition in partitions:
            await self.until_state(partition, lambda _: True)

    async def state(self, partition: TopicPartition) -> tuple[LeaderAndIsr, Stat] | None:
        assert self.reader is not None
        return await self.reader.partition_state(partition)

    async def until_state(
        self, partition: TopicPartition, condition: Callable[[LeaderAndIsr], bool], within_s: float = 10
    ) -> LeaderAndIsr:
        """Wait until the partition's state znode satisfies ``condition``; return it."""
        found: tuple[LeaderAndIsr, Stat] | None = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = await self.state(partition)
                    if found is not None and condition(found[0]):
                        return found[0]
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"{found}\n" + "\n".join(self.story())) from None

    async def write_isr(self, partition: TopicPartition, isr: tuple[int, ...]) -> None:
        """Change the ISR as the leader does, and publish it."""
        assert self.reader is not None
        registrations = await self.reader.registrations()
        found = await self.state(partition)
        assert found is not None
        state = found[0]
        await self.reader.write_partition_state(
            partition,
            LeaderAndIsr(
                state.leader,
                state.leader_epoch,
                tuple(BrokerId(b) for b in isr),
                state.controller_epoch,
                state.partition_epoch,
            ),
            expected_version=state.partition_epoch,
            registrations_version=registrations.version,
        )
        await self.reader.publish_isr_change([partition])
