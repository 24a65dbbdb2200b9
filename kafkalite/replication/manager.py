"""The replicas of one broker: what the controller orders, what clients ask, what runs beside.

`ReplicaManager` is the shell around :class:`~kafkalite.replication.partition.Partition`: each
request gathers facts, asks the rules, carries out the answer. Between a check and its act there
is no await, so no lock is needed but the one that serialises the controller's instructions (they
delete logs on the way) with one another and with followers' truncations.

**The lease.** What only this broker has (``acks`` 0 and 1) may be acknowledged only while it is
sure of its role. :meth:`ReplicaManager.produce` looks at the lease and at the partition's freeze
before it appends and once more in the step that returns the answer; the caller must send what it
returned without awaiting anything in between. ``acks=all`` needs no lease: only followers that are
in this leader epoch advance the high watermark.

**Two classes of faults.** A fault in one partition's work takes that partition offline and the
rest goes on. A fault in ISR or session code comes out of :meth:`ReplicaManager.run` and ends the
broker.

**ISR changes** are proposed in passing (a fetch, the expiry task) and carried out by tasks of
:meth:`ReplicaManager.run`; a write whose answer is lost is read back, under the next session if it
must be, and until then the high watermark counts the members before and after it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from kafkalite.common import (
    UNKNOWN_BROKER_EPOCH,
    ZERO_UUID,
    BrokerEpoch,
    BrokerId,
    ControllerEpoch,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
)
from kafkalite.edge import Clock, Offload
from kafkalite.journal import EventId, Journal
from kafkalite.log.config import LogConfig
from kafkalite.log.manager import LogManager
from kafkalite.protocol.errors import BrokerError, ErrorCode, KafkaStorageError
from kafkalite.protocol.fetch import FetchRequest, FetchResponse
from kafkalite.protocol.leader_and_isr import (
    LeaderAndIsrPartition,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrResponsePartitionError,
    LeaderAndIsrResponseTopic,
    LeaderAndIsrTopic,
)
from kafkalite.protocol.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from kafkalite.protocol.produce import ProduceRequest, ProduceResponse
from kafkalite.protocol.stop_replica import (
    StopReplicaRequest,
    StopReplicaResponse,
    StopReplicaResponsePartitionError,
)
from kafkalite.replication.appends import Appends
from kafkalite.replication.edges import (
    BrokerView,
    Fenced,
    IsrChange,
    IsrOutcome,
    IsrStore,
    IsrStoreUnavailable,
    LeaderChannel,
    ReplicationConfig,
)
from kafkalite.replication.fetch_session import FetchSessions
from kafkalite.replication.fetcher import Fetchers
from kafkalite.replication.hosting import Hosting, IsrQueue
from kafkalite.replication.internal import InternalPartitions
from kafkalite.replication.partition import Partition, Role, Settled, Verdict
from kafkalite.replication.reads import Reads
from kafkalite.replication.replica import Replica, TopicCounters

PENDING_TOO_LONG_S: Final = 10.0
"""An ISR change whose outcome is unknown for so long is an event."""
READ_BACK_INTERVAL_S: Final = 0.1
REPROPOSE_AFTER_MS: Final = 500
"""How long a follower waits to be proposed again after an expansion that did not take effect."""
NOTIFICATION_INTERVAL_S: Final = 2.5
NOTIFICATION_QUIET_MS: Final = 5_000
NOTIFICATION_MAX_DELAY_MS: Final = 60_000


class NotRegistered(Exception):
    """This broker does not know its broker epoch now, so it takes no instructions: HTTP 503."""


class ReplicaManager:
    """See the module. Everything belongs to one loop."""

    def __init__(
        self,
        config: ReplicationConfig,
        *,
        logs: LogManager,
        log_config: Callable[[str], LogConfig],
        isr_store: IsrStore,
        leader_channel: LeaderChannel,
        brokers: BrokerView,
        has_lease: Callable[[], bool],
        journal: Journal,
        clock: Clock,
        offload: Offload,
        chance: random.Random,
        on_partition_failed: Callable[[TopicPartition], None] = lambda topic_partition: None,
    ) -> None:
        """``log_config`` gives a topic's effective configuration when its log is opened.

        ``has_lease`` tells whether this broker holds its lease at this very moment.
        ``on_partition_failed`` is told of a partition that a fault of its own took offline: as
        with a failed directory, the controller wants to know (`log_dir_event_notification`).
        """
        self._config = config
        self._logs = logs
        self._log_config = log_config
        self._isr_store = isr_store
        self._brokers = brokers
        self._has_lease = has_lease
        self._journal = journal
        self._clock = clock
        self._instructions = asyncio.Lock()
        self._isr_queue = IsrQueue()
        self._hosting = Hosting(
            config,
            brokers=brokers,
            clock=clock,
            journal=journal,
            has_lease=has_lease,
            submit=self._isr_queue.put,
            on_failure=on_partition_failed,
        )
        self._appends = Appends(self._hosting)
        self.internal = InternalPartitions(self._hosting, self._appends)
        """The partitions led here, for coordinators that keep their state in them."""
        self._sessions = FetchSessions(config.max_incremental_fetch_session_cache_slots, chance)
        self._reads = Reads(self._hosting, self._sessions)
        self._fetchers = Fetchers(
            config,
            channel=leader_channel,
            clock=clock,
            journal=journal,
            offload=offload,
            instructions=self._instructions,
            broker_epoch=lambda: self._latest_broker_epoch,
            fail=self._hosting.fail,
        )
        self._broker_epoch: BrokerEpoch | None = None
        self._latest_broker_epoch = UNKNOWN_BROKER_EPOCH
        self._registered = asyncio.Event()
        self._controller_epoch = ControllerEpoch(-1)
        self._changed: dict[TopicPartition, None] = {}
        """Partitions whose ISR changed and whose notification is still to be published."""
        self._last_isr_change_ms = 0
        self._last_notification_ms: int | None = None
        self.isr_shrinks_total = 0
        self.isr_expands_total = 0
        self.failed_isr_updates_total = 0
        """ISR writes that did not take effect, or met another state."""

    # ---- the session ----

    @property
    def broker_epoch(self) -> BrokerEpoch | None:
        """This broker's epoch; None at start and from a lost session to the next registration."""
        return self._broker_epoch

    def registered(self, broker_epoch: BrokerEpoch) -> None:
        """A registration was answered: this broker has an epoch (again)."""
        self._broker_epoch = broker_epoch
        self._latest_broker_epoch = broker_epoch
        self._registered.set()

    def session_lost(self) -> None:
        """Freeze every replica: what they hold is confirmed partition by partition, or replaced."""
        self._broker_epoch = None
        self._registered.clear()
        for replica in self._hosting:
            was_frozen = replica.partition.is_frozen
            replica.partition.freeze()
            if replica.partition.is_leader and not was_frozen:
                self._journal.record(
                    "PartitionFrozen",
                    partition=replica.topic_partition,
                    leader_epoch=replica.partition.leader_epoch,
                )

    # ---- instructions of the controller ----

    async def apply_leader_and_isr(
        self, request: LeaderAndIsrRequest, cause: EventId | None = None
    ) -> LeaderAndIsrResponse:
        """Lead, follow or confirm, as the controller says; one request at a time.

        The whole request is one step of the loop. Raises NotRegistered.
        """
        async with self._instructions:
            with self._journal.because(cause):
                error = self.check_controller(request.broker_epoch, request.controller_epoch)
                if error is not ErrorCode.NONE:
                    return LeaderAndIsrResponse(error_code=error)
                topics: dict[str, list[LeaderAndIsrResponsePartitionError]] = {}
                for topic in request.topic_states:
                    for part in topic.partition_states:
                        topics.setdefault(topic.topic_name, []).append(
                            LeaderAndIsrResponsePartitionError(
                                partition_index=part.partition_index,
                                error_code=self._apply(topic, part, request.broker_epoch),
                            )
                        )
        ids = {topic.topic_name: topic.topic_id for topic in request.topic_states}
        return LeaderAndIsrResponse(
            error_code=ErrorCode.NONE,
            topics=[
                LeaderAndIsrResponseTopic(topic_name=name, topic_id=ids[name], partition_errors=errors)
                for name, errors in topics.items()
            ],
        )

    def check_controller(self, broker_epoch: int, controller_epoch: int) -> ErrorCode:
        """Fence a request of the controller (update_metadata too) and remember its controller epoch.

        Returns NONE, STALE_BROKER_EPOCH or STALE_CONTROLLER_EPOCH. Raises NotRegistered.
        """
        if self._broker_epoch is None:
            raise NotRegistered(f"broker {self._config.broker_id} has no broker epoch now")
        # A newer one than ours is possible: the controller may learn of a registration first.
        if broker_epoch != UNKNOWN_BROKER_EPOCH and broker_epoch < self._broker_epoch:
            return ErrorCode.STALE_BROKER_EPOCH
        if controller_epoch < self._controller_epoch:
            return ErrorCode.STALE_CONTROLLER_EPOCH
        self._controller_epoch = ControllerEpoch(controller_epoch)
        return ErrorCode.NONE

    def _apply(self, topic: LeaderAndIsrTopic, part: LeaderAndIsrPartition, broker_epoch: int) -> ErrorCode:
        """Carry out one partition's instruction, checked in the reference's order."""
        topic_partition = TopicPartition(topic.topic_name, part.partition_index)
        topic_id = None if topic.topic_id == ZERO_UUID else topic.topic_id
        state = LeaderAndIsr(
            leader=BrokerId(part.leader),
            leader_epoch=LeaderEpoch(part.leader_epoch),
            isr=tuple(BrokerId(member) for member in part.isr),
            controller_epoch=ControllerEpoch(part.controller_epoch),
            partition_epoch=PartitionEpoch(part.partition_epoch),
            leader_recovery_state=part.leader_recovery_state,
        )
        replicas = tuple(BrokerId(replica) for replica in part.replicas)
        replica = self._hosting.find(*topic_partition)
        try:
            if replica is None:
                if self._config.broker_id not in replicas:
                    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                replica = self._hosting.new_replica(topic_partition)
                replica.log = self._logs.get_or_create(
                    topic_partition, topic_id, self._log_config(topic_partition.topic), is_new=part.is_new
                )
                self._hosting.add(replica)
            elif replica.is_offline:
                return ErrorCode.KAFKA_STORAGE_ERROR
            elif topic_id is not None:
                assert replica.log is not None
                replica.log.assign_topic_id(topic_id)
            return self._take_role(replica, state, replicas, broker_epoch)
        except KafkaStorageError as error:
            # Hosted all the same: whoever asks is told that it is offline, not that it is unknown.
            assert replica is not None
            self._hosting.add(replica)
            self._hosting.take_offline(replica, str(error))
            self._fetchers.unfollow(topic_partition)
            return ErrorCode.KAFKA_STORAGE_ERROR
        except BrokerError as error:
            return error.code

    def _take_role(
        self, replica: Replica, state: LeaderAndIsr, replicas: tuple[BrokerId, ...], broker_epoch: int
    ) -> ErrorCode:
        partition = replica.partition
        match partition.judge(state, replicas):
            case Verdict.NOT_ASSIGNED:
                return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            case Verdict.STALE:
                return ErrorCode.STALE_CONTROLLER_EPOCH
            case Verdict.SUPERSEDED:
                return ErrorCode.NONE
            case Verdict.CONFIRMATION:
                self._unfreeze(replica, broker_epoch)
                if partition.confirm(state, replicas):
                    self._hosting.advance_high_watermark(replica)
                self._fetchers.retry(replica.topic_partition)
                return ErrorCode.NONE
            case Verdict.NEW_LEADER_EPOCH:
                if state.leader == self._config.broker_id:
                    self._become_leader(replica, state, replicas)
                else:
                    self._become_follower(replica, state, replicas)
                self._unfreeze(replica, broker_epoch)
                return ErrorCode.NONE

    def _unfreeze(self, replica: Replica, broker_epoch: int) -> None:
        """Lift the freeze: this instruction is to the life that this broker has now, or a later one."""
        assert self._broker_epoch is not None
        if replica.partition.is_frozen and broker_epoch >= self._broker_epoch:
            replica.partition.unfreeze()
            if replica.partition.is_leader:
                self._journal.record(
                    "PartitionUnfrozen",
                    partition=replica.topic_partition,
                    leader_epoch=replica.partition.leader_epoch,
                )

    def _become_leader(self, replica: Replica, state: LeaderAndIsr, replicas: tuple[BrokerId, ...]) -> None:
        log = replica.log
        assert log is not None
        self._fetchers.unfollow(replica.topic_partition)
        log.assign_epoch(state.leader_epoch, log.log_end_offset)
        replica.partition.become_leader(
            state, replicas, log_end_offset=log.log_end_offset, now_ms=self._hosting.now_ms()
        )
        replica.reset_counts()
        replica.cause = self._journal.record(
            "BecameLeader",
            partition=replica.topic_partition,
            leader_epoch=state.leader_epoch,
            partition_epoch=state.partition_epoch,
            isr=list(state.isr),
            log_end_offset=log.log_end_offset,
            high_watermark=log.high_watermark,
        )
        self._hosting.interrupt(replica)
        self._hosting.advance_high_watermark(replica)

    def _become_follower(self, replica: Replica, state: LeaderAndIsr, replicas: tuple[BrokerId, ...]) -> None:
        """Follow the leader named, known to be alive or not.

        Taking the epoch even where the leader is not known (yet) stops the fetches in the old
        epoch for certain; the fetcher asks until the leader's address is known and it answers.
        """
        log = replica.log
        assert log is not None
        replica.partition.become_follower(state, replicas)
        replica.reset_counts()
        replica.cause = self._journal.record(
            "BecameFollower",
            partition=replica.topic_partition,
            leader=state.leader,
            leader_epoch=state.leader_epoch,
            leader_is_alive=state.leader >= 0 and self._brokers.is_alive(state.leader),
            log_end_offset=log.log_end_offset,
            high_watermark=log.high_watermark,
        )
        self._hosting.interrupt(replica)
        if state.leader >= 0:
            self._fetchers.follow(replica)
        else:
            self._fetchers.unfollow(replica.topic_partition)

    async def stop_replicas(
        self, request: StopReplicaRequest, cause: EventId | None = None
    ) -> StopReplicaResponse:
        """Stop hosting partitions, and delete the logs of those that the request says.

        Raises NotRegistered.
        """
        async with self._instructions:
            with self._journal.because(cause):
                error = self.check_controller(request.broker_epoch, request.controller_epoch)
                if error is not ErrorCode.NONE:
                    return StopReplicaResponse(error_code=error, partition_errors=[])
                errors: dict[TopicPartition, ErrorCode] = {}
                deletions: list[TopicPartition] = []
                for topic in request.topic_states:
                    for part in topic.partition_states:
                        topic_partition = TopicPartition(topic.topic_name, part.partition_index)
                        errors[topic_partition] = self._stop(topic_partition, part.leader_epoch)
                        if part.delete_partition and errors[topic_partition] is ErrorCode.NONE:
                            deletions.append(topic_partition)
                for topic_partition in deletions:
                    try:
                        await self._logs.delete(topic_partition)
                    except BrokerError as failure:
                        errors[topic_partition] = failure.code
        return StopReplicaResponse(
            error_code=ErrorCode.NONE,
            partition_errors=[
                StopReplicaResponsePartitionError(
                    topic_name=topic_partition.topic,
                    partition_index=topic_partition.partition,
                    error_code=code,
                )
                for topic_partition, code in errors.items()
            ],
        )

    def _stop(self, topic_partition: TopicPartition, leader_epoch: int) -> ErrorCode:
        replica = self._hosting.find(*topic_partition)
        if replica is None:
            return ErrorCode.NONE
        if replica.is_offline:
            return ErrorCode.KAFKA_STORAGE_ERROR
        if 0 <= leader_epoch < replica.partition.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        self._fetchers.unfollow(topic_partition)
        replica.partition.stop()
        self._hosting.interrupt(replica)
        self._hosting.remove(replica)
        self._changed.pop(topic_partition, None)
        self._journal.record("ReplicaStopped", partition=topic_partition, leader_epoch=leader_epoch)
        return ErrorCode.NONE

    def log_dir_failed(self, path: str) -> None:
        """Take the partitions of a failed log directory offline.

        To be called from `LogManager.on_dir_failure`, which happens in the middle of whatever
        operation met the failure.
        """
        for replica in list(self._hosting):
            log = replica.log
            if log is not None and log.log_dir.path == path:
                self._fetchers.unfollow(replica.topic_partition)
                self._hosting.take_offline(replica, log.log_dir.failure or "its log directory failed")

    # ---- requests of clients and followers ----

    def produce(self, request: ProduceRequest) -> Coroutine[Any, Any, ProduceResponse]:
        """Append and acknowledge; see :mod:`kafkalite.replication.appends`."""
        return self._appends.produce(request)

    def fetch(self, request: FetchRequest) -> Coroutine[Any, Any, FetchResponse]:
        """Read, waiting for `min_bytes`; see :mod:`kafkalite.replication.reads`."""
        return self._reads.fetch(request)

    async def list_offsets(self, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """Find offsets; see :mod:`kafkalite.replication.reads`."""
        return await self._reads.list_offsets(request)

    async def offset_for_leader_epoch(
        self, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse:
        """Tell where leader epochs ended here."""
        return self._reads.offset_for_leader_epoch(request)

    def update_log_config(self, topic: str, config: LogConfig) -> None:
        """Apply a topic's changed configuration to its logs here (min.insync.replicas among it)."""
        for replica in self._hosting:
            if replica.topic_partition.topic == topic and replica.log is not None:
                replica.log.config = config
                if replica.partition.is_leader:
                    self._hosting.advance_high_watermark(replica)

    # ---- tasks ----

    async def run(self) -> None:
        """Own everything that runs beside requests, until cancelled. A fault that comes out of
        here is one of ISR or session code, and the broker must end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fetchers.run(), name="fetchers")
            tasks.create_task(self._change_isrs(), name="isr-changes")
            tasks.create_task(self._expire_isrs(), name="isr-expiration")
            tasks.create_task(self._publish_isr_changes(), name="isr-change-propagation")
            tasks.create_task(self._checkpoint_high_watermarks(), name="highwatermark-checkpoint")

    async def _change_isrs(self) -> None:
        """Carry out proposed ISR changes, each in a task of its own until its outcome is known."""
        work = asyncio.Event()
        self._isr_queue.subscribe(work.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    work.clear()
                    while (item := self._isr_queue.take()) is not None:
                        replica, change = item
                        tasks.create_task(
                            self._carry_out(replica, change), name=f"isr-change-{change.partition}"
                        )
                    await work.wait()
        finally:
            self._isr_queue.subscribe(None)

    async def _carry_out(self, replica: Replica, change: IsrChange) -> None:
        partition = replica.partition
        if partition.change is not change:
            return
        watchdog = asyncio.get_running_loop().call_later(
            PENDING_TOO_LONG_S, self._note_pending, replica, change
        )
        try:
            outcome: IsrOutcome
            if self._hosting.may_acknowledge_alone(replica):
                outcome = await self._isr_store.write(change)
            else:
                outcome = Fenced("no lease")
            settled = partition.settle(change, outcome)
            while settled is Settled.PENDING:
                settled = await self._read_back(replica, change)
        finally:
            watchdog.cancel()
        self._note_settled(replica, change, settled, outcome)

    async def _read_back(self, replica: Replica, change: IsrChange) -> Settled:
        """Find out what became of a write whose answer was lost."""
        # Without a session there is nobody to ask; the next registration also makes whatever the
        # lost one still had under way fail.
        await self._registered.wait()
        if replica.partition.change is not change:
            return Settled.MOOT
        try:
            found = await self._isr_store.read(change.partition)
        except IsrStoreUnavailable:
            settled = Settled.PENDING
        else:
            settled = replica.partition.read_back(change, found)
        if settled is Settled.PENDING:
            await asyncio.sleep(READ_BACK_INTERVAL_S)
        return settled

    def _note_pending(self, replica: Replica, change: IsrChange) -> None:
        if replica.partition.change is change:
            self._journal.record(
                "IsrChangePending",
                cause=replica.cause,
                partition=change.partition,
                isr=list(change.isr_before),
                proposed_isr=list(change.isr),
                pending_ms=self._hosting.now_ms() - change.started_ms,
            )

    def _note_settled(
        self, replica: Replica, change: IsrChange, settled: Settled, outcome: IsrOutcome
    ) -> None:
        """Record what an ISR change came to and let it have its effect."""
        partition = replica.partition
        facts: dict[str, Any] = {
            "isr_before": list(change.isr_before),
            "isr": list(partition.isr),
            "leader_epoch": change.leader_epoch,
            "partition_epoch": partition.partition_epoch,
        }
        match settled:
            case Settled.COMMITTED | Settled.ADOPTED:
                self._note_isr_changed(replica)
                grew = set(partition.isr) - set(change.isr_before)
                shrank = set(change.isr_before) - set(partition.isr)
                self.isr_expands_total += bool(grew)
                self.isr_shrinks_total += bool(shrank)
                if settled is Settled.ADOPTED:
                    self.failed_isr_updates_total += 1
                    name = "IsrAdopted"
                else:
                    name = "IsrExpanded" if grew else "IsrShrunk"
                if shrank and not grew:
                    facts["lagging"] = [self._lag_of(partition, member) for member in sorted(shrank)]
                self._journal.record(name, cause=replica.cause, partition=change.partition, **facts)
                self._hosting.advance_high_watermark(replica)
            case Settled.UNCHANGED:
                self.failed_isr_updates_total += 1
                if change.joining is not None and change.joining in partition.followers:
                    follower = partition.followers[change.joining]
                    follower.join_not_before_ms = self._hosting.now_ms() + REPROPOSE_AFTER_MS
                self._journal.record(
                    "IsrChangeDropped",
                    cause=replica.cause,
                    partition=change.partition,
                    proposed_isr=list(change.isr),
                    reason=outcome.reason if isinstance(outcome, Fenced) else "it did not take effect",
                    **facts,
                )
                self._hosting.advance_high_watermark(replica)
            case Settled.DEPOSED:
                self.failed_isr_updates_total += 1
                self._journal.record(
                    "LeaderDeposed",
                    cause=replica.cause,
                    partition=change.partition,
                    leader_epoch=change.leader_epoch,
                    partition_epoch=partition.partition_epoch,
                )
                self._hosting.interrupt(replica)
            case Settled.MOOT | Settled.PENDING:
                pass

    def _lag_of(self, partition: Partition, member: BrokerId) -> dict[str, int | None]:
        """How far behind ``member`` is, as facts for the journal."""
        follower = partition.followers.get(member)
        if follower is None or follower.last_caught_up_ms < 0:
            return {"broker": member, "log_end_offset": None, "behind_ms": None}
        return {
            "broker": member,
            "log_end_offset": follower.log_end_offset,
            "behind_ms": self._hosting.now_ms() - follower.last_caught_up_ms,
        }

    def _note_isr_changed(self, replica: Replica) -> None:
        self._changed[replica.topic_partition] = None
        self._last_isr_change_ms = self._hosting.now_ms()

    async def _expire_isrs(self) -> None:
        """Drop members that lag, every half of the allowed lag."""
        while True:
            await asyncio.sleep(self._config.replica_lag_time_max_ms / 2000)
            for replica in list(self._hosting):
                if self._has_lease():
                    self._hosting.propose_shrink(replica)

    async def _publish_isr_changes(self) -> None:
        """Tell the controller of ISR changes, in batches: it reads the states and spreads them."""
        while True:
            await asyncio.sleep(NOTIFICATION_INTERVAL_S)
            now_ms = self._hosting.now_ms()
            is_quiet = now_ms - self._last_isr_change_ms > NOTIFICATION_QUIET_MS
            last = self._last_notification_ms
            is_late = last is None or now_ms - last > NOTIFICATION_MAX_DELAY_MS
            if not self._changed or not (is_quiet or is_late):
                continue
            partitions, self._changed = list(self._changed), {}
            try:
                await self._isr_store.notify(partitions)
            except IsrStoreUnavailable:
                # Put back in front of what changed meanwhile: the next round tells both.
                self._changed = {**dict.fromkeys(partitions), **self._changed}
            else:
                self._last_notification_ms = self._hosting.now_ms()

    async def _checkpoint_high_watermarks(self) -> None:
        while True:
            await asyncio.sleep(self._config.replica_high_watermark_checkpoint_interval_ms / 1000)
            await self._logs.checkpoint_high_watermarks()

    # ---- what operators look at ----

    def hosts(self, topic_partition: TopicPartition) -> bool:
        """Tell whether a replica of this partition is here."""
        return self._hosting.find(*topic_partition) is not None

    @property
    def partition_count(self) -> int:
        """Replicas hosted here (PartitionCount)."""
        return sum(1 for _ in self._hosting)

    @property
    def leader_count(self) -> int:
        """Partitions led here (LeaderCount)."""
        return sum(1 for partition in self._partitions() if partition.is_leader)

    @property
    def offline_replica_count(self) -> int:
        """Replicas here that can serve nothing until the broker restarts (OfflineReplicaCount)."""
        return sum(1 for partition in self._partitions() if partition.role is Role.OFFLINE)

    @property
    def under_replicated_partitions(self) -> int:
        """Partitions led here with fewer members in the ISR than replicas (UnderReplicatedPartitions)."""
        return sum(
            1
            for partition in self._partitions()
            if partition.is_leader and len(partition.isr) < len(partition.replicas)
        )

    @property
    def under_min_isr_partitions(self) -> int:
        """Partitions led here that refuse acks=all (UnderMinIsrPartitionCount)."""
        return sum(
            1
            for replica in self._hosting
            if replica.partition.is_leader and len(replica.partition.isr) < replica.min_isr
        )

    @property
    def at_min_isr_partitions(self) -> int:
        """Partitions led here that one more failure would make refuse (AtMinIsrPartitionCount)."""
        return sum(
            1
            for replica in self._hosting
            if replica.partition.is_leader and len(replica.partition.isr) == replica.min_isr
        )

    @property
    def isr_changes_in_flight(self) -> int:
        """ISR changes whose outcome is not known."""
        return sum(1 for partition in self._partitions() if partition.change is not None)

    @property
    def frozen_partitions(self) -> int:
        """Partitions led here that acknowledge nothing on their own: the session was lost."""
        return sum(1 for partition in self._partitions() if partition.is_leader and partition.is_frozen)

    @property
    def failed_follower_partitions(self) -> int:
        """Partitions followed here that wait for the controller (FailedPartitionsCount)."""
        return self._fetchers.failed_partitions

    @property
    def max_lag(self) -> int:
        """The most records by which a replica here is behind its leader (MaxLag)."""
        return self._fetchers.max_lag

    @property
    def delayed_requests(self) -> int:
        """Produce and fetch requests that wait (PurgatorySize)."""
        return len(self._hosting.purgatory)

    @property
    def fetch_sessions(self) -> int:
        """Fetch sessions that are kept (NumIncrementalFetchSessions)."""
        return len(self._sessions)

    @property
    def topic_counters(self) -> Mapping[str, TopicCounters]:
        """Messages and bytes in and out, by topic; they only rise."""
        return self._hosting.counters

    def partition(self, topic_partition: TopicPartition) -> Partition | None:
        """The state of a replica hosted here, to be read."""
        replica = self._hosting.find(*topic_partition)
        return replica.partition if replica is not None else None

    def _partitions(self) -> list[Partition]:
        return [replica.partition for replica in self._hosting]
