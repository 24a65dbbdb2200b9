"""A few brokers' replica managers in one loop, with just enough ZooKeeper and controller around.

The states, the registrations and their zxids are exact (DESIGN section 3 leans on them); the rest
is as small as it can be. Answers of ZooKeeper, fetches and instructions can be delayed, lost, or
take effect late, as the test says. The logs are real ones, on whatever `Files` the test gives.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from kafkalite.common import (
    NO_LEADER,
    Address,
    BrokerEpoch,
    BrokerId,
    ControllerEpoch,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
    Uuid,
)
from kafkalite.edge import ConnectionFailed
from kafkalite.journal import Journal
from kafkalite.log.config import LogConfig
from kafkalite.log.log import Log, Read
from kafkalite.log.manager import LogManager, LogManagerConfig
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.fetch import (
    FetchPartition,
    FetchReplicaState,
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
    FetchTopic,
)
from kafkalite.protocol.leader_and_isr import (
    LeaderAndIsrPartition,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopic,
)
from kafkalite.protocol.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from kafkalite.protocol.produce import (
    ProducePartition,
    ProduceRequest,
    ProduceResponsePartition,
    ProduceTopic,
)
from kafkalite.protocol.record_batch import batches, decode_batch, encode_batch
from kafkalite.protocol.stop_replica import (
    StopReplicaPartition,
    StopReplicaRequest,
    StopReplicaResponse,
    StopReplicaTopic,
)
from kafkalite.replication.edges import (
    Conflict,
    Fenced,
    IsrChange,
    IsrOutcome,
    IsrStoreUnavailable,
    ReplicationConfig,
    Unknown,
    Written,
)
from kafkalite.replication.manager import NotRegistered, ReplicaManager
from kafkalite.replication.partition import Partition
from tests.simulation.loop import InlineOffload, VirtualClock, run_virtual
from tests.support.disk import SimulatedDisk

T = TypeVar("T")
TP = TopicPartition("orders", 0)
TOPIC_ID = Uuid("4L6g3nShT-eMCtK--X86sw")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine under virtual time."""
    return run_virtual(main)


class Zk:
    """The znodes that replication depends on."""

    def __init__(self) -> None:
        self.zxid = 100
        self.registrations: dict[BrokerId, BrokerEpoch] = {}
        self.registrations_version = 0
        self.states: dict[TopicPartition, tuple[LeaderAndIsr, int]] = {}
        """State, and the zxid of its last write (mzxid)."""
        self.history: list[LeaderAndIsr] = []

    def register(self, broker_id: BrokerId) -> BrokerEpoch:
        self.zxid += 1
        self.registrations_version += 1
        self.registrations[broker_id] = BrokerEpoch(self.zxid)
        return BrokerEpoch(self.zxid)

    def put(self, tp: TopicPartition, state: LeaderAndIsr) -> LeaderAndIsr:
        """Write a state unconditionally; its partition epoch becomes the new version."""
        held = self.states.get(tp)
        version = PartitionEpoch(held[0].partition_epoch + 1 if held else 0)
        self.zxid += 1
        state = replace(state, partition_epoch=version)
        self.states[tp] = (state, self.zxid)
        self.history.append(state)
        return state

    def state(self, tp: TopicPartition = TP) -> LeaderAndIsr:
        return self.states[tp][0]

    def write_isr(self, change: IsrChange, registrations_version: int) -> IsrOutcome:
        """What the store does with a leader's write, in one step."""
        held = self.states.get(change.partition)
        if held is None or held[0].partition_epoch != change.expected_version:
            return Conflict(held[0] if held else None)
        if registrations_version != self.registrations_version:
            return Fenced("registrations changed")
        state, mzxid = held
        if change.joining is not None and self.registrations.get(change.joining) != change.joining_epoch:
            return Fenced(f"broker {change.joining} has another life")
        isr = tuple(
            member
            for member in change.isr
            if member in (change.leader, change.joining) or self.registrations.get(member, 0) <= mzxid
        )
        written = self.put(change.partition, replace(state, isr=isr))
        return Written(written.partition_epoch, isr)


@dataclass
class Fate:
    """What happens to the next things a node sends; zero or False is as it should be."""

    lose_isr_answer: bool = False
    """The write takes effect, its answer is lost."""
    lose_isr_request: bool = False
    isr_takes_effect_after_s: float = 0.0
    """The answer is lost now; the write takes effect later, if its session lives then. Reads of that
    session come after it: ZooKeeper keeps a session's requests in order, whatever server it moves to."""
    hold_isr: asyncio.Event | None = None
    """The write waits for this event."""


class Store:
    """One node's IsrStore."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node
        self.writes: list[IsrChange] = []
        self.notified: list[list[TopicPartition]] = []
        self._under_way: set[asyncio.Event] = set()
        """Writes whose answer was lost and that have not taken effect."""

    async def write(self, change: IsrChange) -> IsrOutcome:
        self.writes.append(change)
        session, fate, zk = self._node.session, self._node.fate, self._cluster.zk
        version = zk.registrations_version
        if session is None:
            return Fenced("no session")
        await asyncio.sleep(self._cluster.delay())
        if fate.hold_isr is not None:
            await fate.hold_isr.wait()
        if fate.lose_isr_request or session is not self._node.session:
            return Unknown("connection lost")
        if fate.isr_takes_effect_after_s:
            took_effect = asyncio.Event()
            self._under_way.add(took_effect)

            def late() -> None:
                if session is self._node.session:
                    zk.write_isr(change, version)
                self._under_way.discard(took_effect)
                took_effect.set()

            asyncio.get_running_loop().call_later(fate.isr_takes_effect_after_s, late)
            return Unknown("connection lost")
        outcome = zk.write_isr(change, version)
        return Unknown("connection lost") if fate.lose_isr_answer else outcome

    async def read(self, partition: TopicPartition) -> LeaderAndIsr | None:
        session = self._node.session
        earlier = list(self._under_way)
        await asyncio.sleep(self._cluster.delay())
        for write in earlier:
            await write.wait()
        if session is None or session is not self._node.session or self._node.is_cut_off:
            raise IsrStoreUnavailable
        held = self._cluster.zk.states.get(partition)
        return held[0] if held else None

    async def notify(self, partitions: Sequence[TopicPartition]) -> None:
        if self._node.session is None:
            raise IsrStoreUnavailable
        self.notified.append(list(partitions))


class Channel:
    """One node's LeaderChannel."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node
        self.fetches: list[FetchRequest] = []

    async def fetch(self, leader: BrokerId, request: FetchRequest, *, fetcher_id: int) -> FetchResponse:
        self.fetches.append(request)
        target = await self._reach(leader)
        self._cluster.maybe_repeat(target, request)
        response = await target.manager.fetch(request)
        await asyncio.sleep(self._cluster.delay())
        if self._cluster.is_cut(self._node.broker_id, leader):
            raise ConnectionFailed(Address("test", 0), "cut")
        return response

    async def list_offsets(self, leader: BrokerId, request: ListOffsetsRequest) -> ListOffsetsResponse:
        return await (await self._reach(leader)).manager.list_offsets(request)

    async def offset_for_leader_epoch(
        self, leader: BrokerId, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse:
        return await (await self._reach(leader)).manager.offset_for_leader_epoch(request)

    async def _reach(self, leader: BrokerId) -> Node:
        await asyncio.sleep(self._cluster.delay())
        node = self._cluster.nodes.get(leader)
        if node is None or not node.is_up or self._cluster.is_cut(self._node.broker_id, leader):
            raise ConnectionFailed(Address("test", 0), "cut")
        return node


class View:
    """One node's BrokerView: everybody who is registered is alive."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def is_alive(self, broker_id: BrokerId) -> bool:
        return broker_id in self._cluster.zk.registrations

    def leader_of(self, partition: TopicPartition) -> tuple[BrokerId, LeaderEpoch] | None:
        held = self._cluster.zk.states.get(partition)
        return (held[0].leader, held[0].leader_epoch) if held else None


class Node:
    """A broker as far as replication goes."""

    def __init__(self, cluster: Cluster, broker_id: BrokerId) -> None:
        self.cluster = cluster
        self.broker_id = broker_id
        self.disk = SimulatedDisk()
        self.is_up = False
        self.session: object | None = None
        self.is_cut_off = False
        """No connection to ZooKeeper; the session may live on."""
        self.is_deaf = False
        """Instructions of the controller do not arrive (they do later)."""
        self.has_lease = False
        self.fate = Fate()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.journal = Journal(self.broker_id, clock, capacity=100_000)
        self.logs = LogManager(
            self.disk,
            ["/data"],
            LogManagerConfig(log_defaults=self.cluster.log_config),
            clock=clock,
            offload=InlineOffload(),
            journal=self.journal,
            chance=random.Random(self.broker_id),
        )
        await self.logs.start({})
        self.store = Store(self.cluster, self)
        self.channel = Channel(self.cluster, self)
        self.failed: list[TopicPartition] = []
        self.manager = ReplicaManager(
            replace(self.cluster.config, broker_id=self.broker_id),
            logs=self.logs,
            log_config=lambda topic: self.cluster.log_config,
            isr_store=self.store,
            leader_channel=self.channel,
            brokers=View(self.cluster),
            has_lease=lambda: self.has_lease,
            journal=self.journal,
            clock=clock,
            offload=InlineOffload(),
            chance=random.Random(self.broker_id),
            on_partition_failed=self.failed.append,
        )
        self.logs.on_dir_failure = self.manager.log_dir_failed
        self.is_up = True
        self._task = asyncio.get_running_loop().create_task(self.manager.run())
        self.open_session()

    def open_session(self) -> None:
        """A new session and registration."""
        self.session = object()
        self.has_lease = True
        self.is_cut_off = False
        self.manager.registered(self.cluster.zk.register(self.broker_id))

    def lose_session(self) -> None:
        """The session is over, and this broker learns of it."""
        self.session = None
        self.has_lease = False
        self.cluster.zk.registrations.pop(self.broker_id, None)
        if self.is_up:
            self.manager.session_lost()

    async def crash(self, *, power: bool = False) -> None:
        """The process dies, with ``power`` the machine and with it what was not synced.

        The registration stays, as a session does until it times out.
        """
        self.is_up = False
        self.has_lease = False
        self.session = None
        assert self._task is not None
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass
        await self.logs.close(clean=False)
        if power:
            self.disk.crash_power()
        else:
            self.disk.crash_process()

    def check_runs(self) -> None:
        """Raise what ended the manager's tasks, if anything did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    @property
    def partition(self) -> Partition:
        partition = self.manager.partition(TP)
        assert partition is not None
        return partition

    @property
    def log(self) -> Log:
        log = self.logs.log(TP)
        assert log is not None
        return log

    def events(self, type: str) -> list[dict[str, Any]]:
        return [event.facts for event in self.journal.events(type=type, limit=100_000)]

    async def produce(
        self, *values: bytes, acks: int = -1, timeout_ms: int = 5_000, tp: TopicPartition = TP
    ) -> ProduceResponsePartition:
        batch = memoryview(encode_batch(list(values), timestamps=1_700_000_000_000))
        response = await self.manager.produce(
            ProduceRequest(
                acks=acks,
                timeout_ms=timeout_ms,
                topic_data=[
                    ProduceTopic(
                        name=tp.topic,
                        partition_data=[ProducePartition(index=tp.partition, records=batch)],
                    )
                ],
            )
        )
        return response.responses[0].partition_responses[0]

    async def fetch(
        self,
        offset: int,
        *,
        replica: int = -1,
        life: int = -1,
        epoch: int = -1,
        last_fetched_epoch: int = -1,
        max_wait_ms: int = 0,
        min_bytes: int = 1,
        max_bytes: int = 1_000_000,
        tp: TopicPartition = TP,
    ) -> FetchResponsePartition:
        response = await self.manager.fetch(
            FetchRequest(
                replica_state=FetchReplicaState(replica_id=replica, replica_epoch=life),
                max_wait_ms=max_wait_ms,
                min_bytes=min_bytes,
                max_bytes=max_bytes,
                topics=[
                    FetchTopic(
                        topic=tp.topic,
                        partitions=[
                            FetchPartition(
                                partition=tp.partition,
                                current_leader_epoch=epoch,
                                fetch_offset=offset,
                                last_fetched_epoch=last_fetched_epoch,
                                partition_max_bytes=max_bytes,
                            )
                        ],
                    )
                ],
            )
        )
        return response.responses[0].partitions[0]

    async def instruct(
        self,
        state: LeaderAndIsr,
        *,
        replicas: Sequence[int] = (1, 2, 3),
        broker_epoch: int | None = None,
        controller_epoch: int | None = None,
        topic_id: Uuid = TOPIC_ID,
        is_new: bool = False,
        tp: TopicPartition = TP,
    ) -> LeaderAndIsrResponse:
        """Send leader_and_isr for one partition (to the present life unless told otherwise)."""
        if broker_epoch is None:
            broker_epoch = self.cluster.zk.registrations[self.broker_id]
        return await self.manager.apply_leader_and_isr(
            LeaderAndIsrRequest(
                controller_id=1,
                controller_epoch=state.controller_epoch if controller_epoch is None else controller_epoch,
                broker_epoch=broker_epoch,
                live_leaders=[],
                topic_states=[
                    LeaderAndIsrTopic(
                        topic_name=tp.topic,
                        topic_id=topic_id,
                        partition_states=[
                            LeaderAndIsrPartition(
                                partition_index=tp.partition,
                                controller_epoch=state.controller_epoch,
                                leader=state.leader,
                                leader_epoch=state.leader_epoch,
                                isr=list(state.isr),
                                partition_epoch=state.partition_epoch,
                                replicas=list(replicas),
                                is_new=is_new,
                            )
                        ],
                    )
                ],
            )
        )

    async def stop_replica(
        self, *, leader_epoch: int = -1, delete: bool = False, broker_epoch: int | None = None
    ) -> StopReplicaResponse:
        if broker_epoch is None:
            broker_epoch = self.cluster.zk.registrations[self.broker_id]
        return await self.manager.stop_replicas(
            StopReplicaRequest(
                controller_id=1,
                controller_epoch=1,
                broker_epoch=broker_epoch,
                topic_states=[
                    StopReplicaTopic(
                        topic_name=TP.topic,
                        partition_states=[
                            StopReplicaPartition(
                                partition_index=TP.partition,
                                leader_epoch=leader_epoch,
                                delete_partition=delete,
                            )
                        ],
                    )
                ],
            )
        )


def error_of(response: LeaderAndIsrResponse) -> int:
    """The one partition's error, or the whole request's."""
    return response.error_code or response.topics[0].partition_errors[0].error_code


@dataclass
class Cluster:
    """Three nodes, one partition."""

    log_config: LogConfig = field(default_factory=lambda: LogConfig(min_insync_replicas=2))
    config: ReplicationConfig = field(
        default_factory=lambda: ReplicationConfig(broker_id=BrokerId(0), replica_fetch_backoff_ms=100)
    )
    chance: random.Random | None = None
    """Draws delays and repetitions; None: everything takes a millisecond and happens once."""

    def __post_init__(self) -> None:
        self.zk = Zk()
        self.nodes: dict[BrokerId, Node] = {}
        self.cuts: set[frozenset[BrokerId]] = set()
        self._repeats: set[asyncio.Task[FetchResponse]] = set()

    async def start(self, count: int = 3) -> None:
        for number in range(1, count + 1):
            broker_id = BrokerId(number)
            self.nodes[broker_id] = Node(self, broker_id)
            await self.nodes[broker_id].start()

    async def stop(self) -> None:
        for node in self.nodes.values():
            node.check_runs()
            if node.is_up:
                await node.crash()
        for task in list(self._repeats):
            task.cancel()

    def __getitem__(self, broker_id: int) -> Node:
        return self.nodes[BrokerId(broker_id)]

    # ---- faults ----

    def delay(self) -> float:
        return 0.001 if self.chance is None else self.chance.choice((0.001, 0.005, 0.05, 0.3))

    def is_cut(self, one: BrokerId, other: BrokerId) -> bool:
        return frozenset((one, other)) in self.cuts

    def cut(self, one: int, other: int) -> None:
        self.cuts.add(frozenset((BrokerId(one), BrokerId(other))))

    def heal(self) -> None:
        self.cuts.clear()

    def maybe_repeat(self, target: Node, request: FetchRequest) -> None:
        """Now and then a fetch arrives a second time, late: out of a connection given up."""
        if self.chance is None or self.chance.random() > 0.1:
            return
        wait_s = self.chance.choice((0.1, 1.0, 5.0))

        async def again() -> FetchResponse:
            await asyncio.sleep(wait_s)
            return await target.manager.fetch(request)

        task = asyncio.get_running_loop().create_task(again())
        self._repeats.add(task)
        task.add_done_callback(self._repeats.discard)

    # ---- the controller's part ----

    async def create(self, *, leader: int = 1, isr: Sequence[int] = (1, 2, 3)) -> LeaderAndIsr:
        """Make the partition and tell everybody."""
        state = self.zk.put(
            TP,
            LeaderAndIsr(
                leader=BrokerId(leader),
                leader_epoch=LeaderEpoch(0),
                isr=tuple(BrokerId(member) for member in isr),
                controller_epoch=ControllerEpoch(1),
                partition_epoch=PartitionEpoch(-1),
            ),
        )
        await self.tell(state, is_new=True)
        return state

    async def elect(
        self, leader: int, *, isr: Sequence[int] | None = None, tell: Sequence[int] | None = None
    ) -> LeaderAndIsr:
        """Write a new leader epoch and tell those who are up (or ``tell``)."""
        held = self.zk.state()
        state = self.zk.put(
            TP,
            replace(
                held,
                leader=BrokerId(leader),
                leader_epoch=LeaderEpoch(held.leader_epoch + 1),
                isr=held.isr if isr is None else tuple(BrokerId(member) for member in isr),
            ),
        )
        await self.tell(state, to=tell)
        return state

    async def tell(
        self, state: LeaderAndIsr, *, to: Sequence[int] | None = None, is_new: bool = False
    ) -> None:
        for node in self.nodes.values():
            if node.is_up and (to is None or node.broker_id in to):
                try:
                    await node.instruct(state, is_new=is_new)
                except (NotRegistered, KeyError):
                    continue

    def next_state(self, gone: Sequence[BrokerId] = ()) -> LeaderAndIsr | None:
        """What the controller writes for dead and restarted members of the state; None for nothing."""
        state, mzxid = self.zk.states[TP]
        live = [
            member
            for member in (BrokerId(1), BrokerId(2), BrokerId(3))
            if member in self.zk.registrations and member not in gone
        ]
        restarted = {member for member in live if self.zk.registrations[member] > mzxid}
        affected = {member for member in state.isr if member not in live or member in restarted}
        if not affected and state.leader in live:
            return None
        steady = [member for member in live if member in state.isr and member not in restarted]
        eligible = [member for member in live if member in state.isr]
        epoch = LeaderEpoch(state.leader_epoch + 1)
        if steady:
            leader = state.leader if state.leader in steady else steady[0]
            return replace(state, leader=leader, leader_epoch=epoch, isr=tuple(steady))
        if eligible:
            return replace(
                state,
                leader=eligible[0],
                leader_epoch=epoch,
                isr=state.isr,
            )
        if state.leader == NO_LEADER:
            return None
        return replace(state, leader=NO_LEADER, leader_epoch=epoch)

    # ---- looking ----

    async def settle(self, seconds: float = 2.0) -> None:
        """Let things happen."""
        await asyncio.sleep(seconds)
        for node in self.nodes.values():
            node.check_runs()

    async def eventually(self, condition: Callable[[], bool], *, within_s: float = 120.0) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while not condition():
            for node in self.nodes.values():
                node.check_runs()
            assert loop.time() < deadline, "it did not come true"
            await asyncio.sleep(0.05)


def values_of(log: Log, *, below: int | None = None) -> dict[int, bytes | None]:
    """Every record of a log by offset."""
    found: dict[int, bytes | None] = {}
    offset = log.log_start_offset
    end = log.log_end_offset if below is None else below
    while offset < end:
        read = log.read(offset, max_bytes=1_000_000, upper_bound=end)
        assert isinstance(read, Read)
        view = memoryview(read.records)
        if not len(view):
            break
        for header, position, size in batches(view):
            columns = decode_batch(view[position : position + size])
            found.update(zip(columns.offsets, columns.values, strict=True))
            offset = header.next_offset
    return found


OK = ErrorCode.NONE
