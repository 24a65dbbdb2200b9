"""The group coordinator of one broker: it carries out what :mod:`kafkalite.coordinator.group` decides.

One :class:`_Served` for each partition of `__consumer_offsets` that this broker leads. It is loaded
when leadership begins (what stands in the log then, once all of it is committed), serves while it
lasts, and is dropped when it ends; joins and syncs that wait are told to look for the new
coordinator.

**Writing.** A decision's records are queued; what was queued in one turn of the loop goes into one
batch, so that many small commits cost few appends, fsyncs and, later, little loading. A record has
its effect only when the high watermark has passed it, in the order of the log; only then is
anything acknowledged. A write that timed out stays in the queue of what is in flight: should it
still be committed, it has its effect then, as it will for the next coordinator.

**The lease.** Appends are as with ``acks=all``: they need none, since only followers of this leader
epoch can commit them. What needs none of them is different: a coordinator that was deposed without
knowing could show offsets that are old. So committed offsets are shown only under the lease, else
COORDINATOR_NOT_AVAILABLE, after which the client asks who coordinates.

**Faults.** One partition's fault marks that partition failed; its groups answer
COORDINATOR_NOT_AVAILABLE until another broker, or this one anew, takes the partition over.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from kafkalite.common import CONSUMER_OFFSETS, BrokerInfo, LeaderEpoch, TopicPartition
from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.edges import ClusterView, PartitionLog, TopicCreator
from kafkalite.coordinator.group import append_errors
from kafkalite.coordinator.group.effects import Answer, Effects, Fact, Now, StoreGroup, Ticket
from kafkalite.coordinator.group.group import Client, Group, join_error, sync_error
from kafkalite.coordinator.group.records import GroupKey, Record
from kafkalite.coordinator.group.shard import CLASSIC, Plan, Shard
from kafkalite.coordinator.group.state import GroupState
from kafkalite.coordinator.loading import decode_latest, read_chunk
from kafkalite.coordinator.partitioner import partition_for
from kafkalite.edge import Clock, Offload
from kafkalite.journal import EventId, Journal
from kafkalite.protocol.delete_groups import (
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DeleteGroupsResponseResult,
)
from kafkalite.protocol.describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    DescribeGroupsResponseGroup,
)
from kafkalite.protocol.errors import (
    BrokerError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    ErrorCode,
    InvalidGroupIdError,
    MessageTooLargeError,
    NotCoordinatorError,
    NotEnoughReplicasAfterAppendError,
    RebalanceInProgressError,
    RecordListTooLargeError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest, HeartbeatResponse
from kafkalite.protocol.join_group import JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupRequest, LeaveGroupResponse
from kafkalite.protocol.list_groups import ListGroupsRequest, ListGroupsResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kafkalite.protocol.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from kafkalite.protocol.offset_fetch import (
    OffsetFetchGroup,
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
)
from kafkalite.protocol.record_batch import encode_batch
from kafkalite.protocol.sync_group import SyncGroupRequest, SyncGroupResponse
from kafkalite.replication.appends import Appended

_logger = logging.getLogger(__name__)

ResponseT = TypeVar("ResponseT", bound=Message)

BATCH_BYTES: Final = 256 * 1024
"""Keys and values of writes that are put into one batch; a larger write is a batch of its own."""
APPLY_SLICE: Final = 5_000
"""Records applied in one turn of the loop while a partition is loaded."""
LOADERS: Final = 4
"""Partitions read at the same time."""
LOAD_PATIENCE_S: Final = 30.0
"""How long one wait for what was loaded to be committed lasts before it is begun again."""
EXPIRE_SLICE: Final = 1_000
"""Tombstones of expired offsets that are appended together."""


class _Phase(enum.Enum):
    LOADING = "loading"
    ACTIVE = "active"
    FAILED = "failed"
    GONE = "gone"
    """Another broker leads the partition, or this one in a later epoch."""


class _Write(msgspec.Struct, eq=False):
    """Records that belong together, and who waits for their place in the log."""

    records: Sequence[Record]
    encoded: list[tuple[bytes, bytes | None]]
    size: int
    appended: asyncio.Future[Appended]


class _Served(msgspec.Struct, eq=False):
    """One partition that this broker coordinates."""

    partition: TopicPartition
    leader_epoch: LeaderEpoch
    shard: Shard
    cause: EventId | None
    """What made this broker the leader."""
    phase: _Phase = _Phase.LOADING
    queue: list[_Write] = msgspec.field(default_factory=list)
    """Writes of this turn of the loop."""
    in_flight: deque[tuple[int, Sequence[Record]]] = msgspec.field(default_factory=deque)
    """(end offset, records) of what is in the log and not applied yet, in the order of the log."""
    waiting: dict[Ticket, asyncio.Future[Answer]] = msgspec.field(default_factory=dict)
    timers: dict[str, tuple[int, asyncio.TimerHandle]] = msgspec.field(default_factory=dict)
    """The one timer of each group, with its time."""
    rebalances: dict[str, EventId] = msgspec.field(default_factory=dict)
    """The event that began the present rebalance of each group."""


class Lag(NamedTuple):
    """How far a group is behind in one partition that this broker leads."""

    group_id: str
    partition: TopicPartition
    records: int


class GroupCoordinator:
    """See the module. Everything belongs to one loop; :meth:`run` owns all tasks."""

    def __init__(
        self,
        config: GroupConfig,
        *,
        log: PartitionLog,
        cluster: ClusterView,
        topics: TopicCreator,
        clock: Clock,
        offload: Offload,
        journal: Journal,
        chance: random.Random,
    ) -> None:
        self._config = config
        self._log = log
        self._cluster = cluster
        self._topics = topics
        self._clock = clock
        self._offload = offload
        self._journal = journal
        self._chance = chance
        self._served: dict[int, _Served] = {}
        self._last_ticket = 0
        self._to_load: deque[_Served] = deque()
        self._has_work = asyncio.Event()
        self._loaders = asyncio.Semaphore(LOADERS)
        self._tasks: asyncio.TaskGroup | None = None
        """Where work beside requests goes, while :meth:`run` runs."""
        self._creation: asyncio.Future[None] | None = None
        self.rebalances_total = 0
        """Generations completed here."""
        self.commits_total = 0
        """Offsets committed here."""
        self.expired_total = 0
        """Offsets that expired here."""
        log.on_leadership_change(self._on_leadership_change)

    # ---- its life ----

    async def run(self) -> None:
        """Load, expire, store; until cancelled. Then whoever waits is sent elsewhere."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._expire(), name="offset-expiration")
                while True:
                    self._has_work.clear()
                    while self._to_load:
                        served = self._to_load.popleft()
                        tasks.create_task(self._load(served), name=f"load-{served.partition}")
                    await self._has_work.wait()
        finally:
            self._tasks = None
            for served in list(self._served.values()):
                self._unload(served, "the broker stops")

    def _on_leadership_change(self, partition: TopicPartition, leads: bool, epoch: LeaderEpoch) -> None:
        if partition.topic != CONSUMER_OFFSETS:
            return
        served = self._served.get(partition.partition)
        if served is not None:
            if leads and served.leader_epoch == epoch:
                return
            self._unload(served, f"leader epoch {epoch} began" if leads else "this broker leads no more")
        if leads:
            served = _Served(partition, epoch, Shard(self._config), self._journal.ambient_cause())
            self._served[partition.partition] = served
            self._to_load.append(served)
            self._has_work.set()

    def _unload(self, served: _Served, reason: str) -> None:
        was = served.phase
        served.phase = _Phase.GONE
        del self._served[served.partition.partition]
        for _, timer in served.timers.values():
            timer.cancel()
        served.timers.clear()
        groups = len(served.shard.groups)
        self._answer(served, served.shard.unload())
        served.in_flight.clear()
        queue, served.queue = served.queue, []
        for write in queue:
            _fail(write.appended, NotCoordinatorError(f"{served.partition}: {reason}"))
        self._journal.record(
            "GroupCoordinatorUnloaded",
            partition=served.partition,
            leader_epoch=served.leader_epoch,
            groups=groups,
            before=was.value,
            reason=reason,
        )

    def _fault(self, served: _Served, error: BaseException) -> None:
        """This partition's own fault: its groups are not served until somebody takes it over."""
        _logger.error("the coordinator of %s failed", served.partition, exc_info=error)
        if served.phase is _Phase.GONE:
            return
        served.phase = _Phase.FAILED
        for _, timer in served.timers.values():
            timer.cancel()
        served.timers.clear()
        self._answer(served, served.shard.unload())
        self._journal.record(
            "GroupCoordinatorFailed",
            partition=served.partition,
            leader_epoch=served.leader_epoch,
            error=f"{type(error).__name__}: {error}",
        )

    # ---- loading ----

    async def _load(self, served: _Served) -> None:
        began = self._now().monotonic_ms
        try:
            async with self._loaders:
                end, latest, count, problems = await self._read_all(served)
                records, unreadable = await self._offload.run(decode_latest, latest)
            if not await self._all_committed(served, end):
                return
            for start in range(0, len(records), APPLY_SLICE):
                if served.phase is _Phase.GONE:
                    return
                for record in records[start : start + APPLY_SLICE]:
                    served.shard.apply(record)
                await asyncio.sleep(0)
            if served.phase is _Phase.GONE:
                return
        except BrokerError as error:
            # The leadership ended meanwhile, which unloads it; or the disk failed, which ends that.
            if served.phase is not _Phase.GONE:
                self._fault(served, error)
            return
        except Exception as error:
            self._fault(served, error)
            return
        problems += unreadable
        now = self._now()
        served.shard.loaded(now)
        served.phase = _Phase.ACTIVE
        if problems:
            _logger.error("%s: %d records cannot be read", served.partition, len(problems))
            self._journal.record(
                "GroupRecordsUnreadable",
                cause=served.cause,
                partition=served.partition,
                count=len(problems),
                first=problems[:10],
            )
        groups = served.shard.groups
        self._journal.record(
            "GroupCoordinatorLoaded",
            cause=served.cause,
            partition=served.partition,
            leader_epoch=served.leader_epoch,
            took_ms=now.monotonic_ms - began,
            records=count,
            groups=len(groups),
            members=sum(len(group.members) for group in groups.values()),
            offsets=sum(len(group.offsets.committed) for group in groups.values()),
        )
        for group in groups.values():
            self._arm(served, group)

    async def _read_all(self, served: _Served) -> tuple[Appended, dict[bytes, bytes | None], int, list[str]]:
        """Read from the log's start to the end that it has now."""
        log, partition, epoch = self._log, served.partition, served.leader_epoch
        end = log.log_end(partition, epoch)
        offset = log.log_start_offset(partition)
        latest: dict[bytes, bytes | None] = {}
        count = 0
        problems: list[str] = []
        while offset < end.required_offset:
            found = await log.read(
                partition, offset, max_bytes=self._config.offsets_load_buffer_size, leader_epoch=epoch
            )
            if not len(found.records):
                break
            chunk = await self._offload.run(read_chunk, found.records)
            latest.update(chunk.latest)
            count += chunk.records
            problems += chunk.problems
            offset = found.next_offset
        return end, latest, count, problems

    async def _all_committed(self, served: _Served, end: Appended) -> bool:
        """Wait until what was loaded is committed; False where the leadership ended first."""
        while served.phase is _Phase.LOADING:
            try:
                await self._log.committed(end, timeout_s=LOAD_PATIENCE_S)
                return served.phase is _Phase.LOADING
            except RequestTimedOutError:
                continue
            except NotEnoughReplicasAfterAppendError:
                return served.phase is _Phase.LOADING  # Committed; that the ISR is small now is no matter.
        return False

    # ---- who coordinates ----

    async def locate(self, group_id: str) -> BrokerInfo:
        """The broker that coordinates ``group_id``; creates `__consumer_offsets` on its first use.

        Raises InvalidGroupIdError, CoordinatorNotAvailableError.
        """
        if not group_id:
            raise InvalidGroupIdError("the group id is empty")
        count = self._cluster.partition_count(CONSUMER_OFFSETS)
        if count == 0:
            await self._create_topic()
            count = self._cluster.partition_count(CONSUMER_OFFSETS)
            if count == 0:
                raise CoordinatorNotAvailableError(f"{CONSUMER_OFFSETS} is being created")
        partition = TopicPartition(CONSUMER_OFFSETS, partition_for(group_id, count))
        leader = self._cluster.leader_of(partition)
        broker = None if leader is None or leader[0] < 0 else self._cluster.broker(leader[0])
        if broker is None:
            raise CoordinatorNotAvailableError(f"{partition} has no leader at the moment")
        return broker

    async def _create_topic(self) -> None:
        """Have it created, once for all who ask meanwhile."""
        if self._creation is not None:
            await asyncio.shield(self._creation)
            return
        creation = self._creation = asyncio.get_running_loop().create_future()
        error: BrokerError | None = None
        try:
            await self._topics.create(
                CONSUMER_OFFSETS,
                partitions=self._config.offsets_topic_num_partitions,
                replication_factor=self._config.offsets_topic_replication_factor,
                config={
                    "cleanup.policy": "compact",
                    "compression.type": "producer",
                    "segment.bytes": str(self._config.offsets_topic_segment_bytes),
                },
            )
        except TopicAlreadyExistsError:
            pass  # Another broker was asked first; metadata will tell.
        except BrokerError as refused:
            error = CoordinatorNotAvailableError(f"{CONSUMER_OFFSETS} cannot be created: {refused.message}")
        finally:
            self._creation = None
            if error is None:
                creation.set_result(None)
            else:
                creation.set_exception(error)
                creation.exception()  # Raised below for this asker; for others where they wait.
        if error is not None:
            raise error

    def _find(self, group_id: str | None, *, may_be_empty: bool = False) -> _Served:
        """The partition of ``group_id``, active here; raises what tells the client where to go."""
        if group_id is None or (not group_id and not may_be_empty):
            raise InvalidGroupIdError("the group id is empty")
        if self._tasks is None:
            raise CoordinatorNotAvailableError("this broker's coordinator does not run")
        count = self._cluster.partition_count(CONSUMER_OFFSETS)
        served = self._served.get(partition_for(group_id, count)) if count else None
        if served is None:
            raise NotCoordinatorError(f"group {group_id} is coordinated by another broker")
        if served.phase is _Phase.LOADING:
            raise CoordinatorLoadInProgressError(f"{served.partition} is being loaded")
        if served.phase is _Phase.FAILED:
            raise CoordinatorNotAvailableError(f"{served.partition} failed here")
        return served

    # ---- members ----

    async def join(self, request: JoinGroupRequest, client: Client) -> JoinGroupResponse:
        """Answer a join, once the generation is complete."""
        try:
            served = self._find(request.group_id)
        except BrokerError as error:
            return join_error(error, request.member_id)
        ticket, future = self._ticket(served)
        effects = served.shard.join(
            request, client, fresh_id=self._fresh_id(), ticket=ticket, now=self._now()
        )
        self._carry_out(served, request.group_id, effects)
        answer = await self._wait(served, ticket, future)
        assert isinstance(answer, JoinGroupResponse)
        return answer

    async def sync(self, request: SyncGroupRequest) -> SyncGroupResponse:
        """Answer a sync, once the assignment is stored."""
        try:
            served = self._find(request.group_id)
        except CoordinatorLoadInProgressError:
            # Whatever this generation was, its members are about to join again.
            return sync_error(RebalanceInProgressError("the coordinator is being loaded"))
        except BrokerError as error:
            return sync_error(error)
        ticket, future = self._ticket(served)
        effects = served.shard.sync(request, ticket=ticket, now=self._now())
        self._carry_out(served, request.group_id, effects)
        answer = await self._wait(served, ticket, future)
        assert isinstance(answer, SyncGroupResponse)
        return answer

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """Note a sign of life."""
        code = ErrorCode.NONE
        try:
            self._find(request.group_id).shard.heartbeat(request, self._now())
        except CoordinatorLoadInProgressError:
            pass  # Its session begins when the group is loaded.
        except BrokerError as error:
            code = error.code
        return HeartbeatResponse(error_code=code)

    def leave(self, request: LeaveGroupRequest) -> LeaveGroupResponse:
        """Let members go."""
        try:
            served = self._find(request.group_id)
        except BrokerError as error:
            return LeaveGroupResponse(error_code=error.code)
        response, effects = served.shard.leave(request, self._now())
        self._carry_out(served, request.group_id, effects)
        return response

    # ---- offsets ----

    async def commit_offsets(self, request: OffsetCommitRequest) -> OffsetCommitResponse:
        """Commit, and answer when it is replicated."""
        try:
            served = self._find(request.group_id, may_be_empty=True)
        except BrokerError as error:
            return _refused_commit(request, error)
        plan = served.shard.commit(request, is_known=self._is_known, now=self._now())
        response = await self._carry_out_plan(served, plan)
        self.commits_total += sum(
            part.error_code == ErrorCode.NONE for topic in response.topics for part in topic.partitions
        )
        return response

    async def fetch_offsets(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        """Show what is committed."""
        return OffsetFetchResponse(groups=[self._fetch_group(wanted) for wanted in request.groups])

    def _fetch_group(self, wanted: OffsetFetchGroup) -> OffsetFetchResponseGroup:
        try:
            served = self._find(wanted.group_id, may_be_empty=True)
            if not self._log.has_lease(served.partition):
                raise CoordinatorNotAvailableError(
                    f"{served.partition}: this broker is not sure of its leadership now, "
                    "so what it knows may be old"
                )
            self._apply_committed(served)
            return served.shard.fetch(wanted)
        except BrokerError as error:
            return OffsetFetchResponseGroup(group_id=wanted.group_id, error_code=error.code)

    async def delete_offsets(self, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
        """Forget single offsets. Raises the BrokerError for the whole request."""
        served = self._find(request.group_id)
        self._apply_committed(served)
        return await self._carry_out_plan(served, served.shard.delete_offsets(request))

    async def delete_groups(self, request: DeleteGroupsRequest) -> DeleteGroupsResponse:
        """Delete groups, each with an answer of its own."""
        results = await asyncio.gather(*(self._delete_group(group) for group in request.groups_names))
        return DeleteGroupsResponse(throttle_time_ms=0, results=list(results))

    async def _delete_group(self, group_id: str) -> DeleteGroupsResponseResult:
        try:
            served = self._find(group_id, may_be_empty=True)
        except BrokerError as error:
            return DeleteGroupsResponseResult(group_id=group_id, error_code=error.code)
        self._apply_committed(served)
        return await self._carry_out_plan(served, served.shard.delete_group(group_id))

    def _is_known(self, partition: TopicPartition) -> bool:
        return self._cluster.leader_of(partition) is not None

    def topics_deleted(self, topics: frozenset[str]) -> None:
        """These topics are no more: nobody's offsets in them mean anything."""
        for served in self._active():
            self._apply_committed(served)
            plan = served.shard.forget_topics(topics)
            if plan.records and self._tasks is not None:
                self._tasks.create_task(self._remove(served, plan), name=f"forget-{served.partition}")

    # ---- what people ask ----

    def describe_groups(self, request: DescribeGroupsRequest) -> DescribeGroupsResponse:
        """Show groups."""
        return DescribeGroupsResponse(groups=[self._describe(group_id) for group_id in request.groups])

    def _describe(self, group_id: str) -> DescribeGroupsResponseGroup:
        try:
            return self._find(group_id, may_be_empty=True).shard.describe(group_id)
        except BrokerError as error:
            return DescribeGroupsResponseGroup(
                error_code=error.code,
                group_id=group_id,
                group_state="",
                protocol_type="",
                protocol_data="",
                members=[],
            )

    def list_groups(self, request: ListGroupsRequest) -> ListGroupsResponse:
        """List the groups coordinated here; while some are still loading the list says so."""
        code = ErrorCode.NONE
        if self._tasks is None:
            code = ErrorCode.COORDINATOR_NOT_AVAILABLE
        elif any(served.phase is _Phase.LOADING for served in self._served.values()):
            code = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        states = frozenset(state.lower() for state in request.states_filter)
        types = frozenset(type.lower() for type in request.types_filter)
        groups = [
            group
            for served in self._active()
            if not types or CLASSIC in types
            for group in served.shard.list(states)
        ]
        return ListGroupsResponse(error_code=code, groups=groups)

    def count_groups(self) -> dict[GroupState, int]:
        """How many groups are in each state."""
        counts = dict.fromkeys(GroupState, 0)
        for served in self._active():
            for group in served.shard.groups.values():
                counts[group.state] += 1
        return counts

    def members(self) -> dict[str, int]:
        """How many members each group has."""
        return {
            group.group_id: len(group.members)
            for served in self._active()
            for group in served.shard.groups.values()
        }

    @property
    def offset_count(self) -> int:
        """Committed offsets kept here (NumOffsets)."""
        return sum(
            len(group.offsets.committed)
            for served in self._active()
            for group in served.shard.groups.values()
        )

    def lags(self) -> Iterator[Lag]:
        """How far groups are behind, in the partitions of which this broker has a replica.

        Of others it does not know the end. A follower knows of it a fetch late, so that a lag may be told
        too small by what was written meanwhile.
        """
        for served in self._active():
            for group in served.shard.groups.values():
                for partition, committed in group.offsets.committed.items():
                    end = self._log.known_high_watermark(partition)
                    if end is not None:
                        yield Lag(group.group_id, partition, max(end - committed.offset, 0))

    def _active(self) -> list[_Served]:
        return [served for served in self._served.values() if served.phase is _Phase.ACTIVE]

    # ---- carrying out ----

    def _now(self) -> Now:
        return Now(int(self._clock.monotonic() * 1000), self._clock.wall_ms())

    def _fresh_id(self) -> str:
        digits = f"{self._chance.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _ticket(self, served: _Served) -> tuple[Ticket, asyncio.Future[Answer]]:
        self._last_ticket += 1
        ticket = Ticket(self._last_ticket)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        served.waiting[ticket] = future
        return ticket, future

    async def _wait(self, served: _Served, ticket: Ticket, future: asyncio.Future[Answer]) -> Answer:
        try:
            return await future
        finally:
            served.waiting.pop(ticket, None)

    def _answer(self, served: _Served, effects: Effects) -> None:
        for ticket, answer in effects.answers:
            future = served.waiting.pop(ticket, None)
            if future is not None and not future.done():
                future.set_result(answer)

    def _carry_out(self, served: _Served, group_id: str, effects: Effects) -> None:
        """Do what was decided about one group; one step of the loop."""
        self._record(served, effects.facts)
        self._answer(served, effects)
        for store in effects.stores:
            assert self._tasks is not None, "decisions are made only while the coordinator runs"
            self._tasks.create_task(self._store(served, store), name=f"store-{store.group_id}")
        group = served.shard.groups.get(group_id)
        if group is not None:
            self._arm(served, group)
        elif group_id in served.timers:
            served.timers.pop(group_id)[1].cancel()

    def _record(self, served: _Served, facts: Sequence[Fact]) -> None:
        """Write into the journal; what a decision begins with is the cause of a rebalance in it."""
        latest: EventId | None = None
        for fact in facts:
            cause = None
            group_id = fact.facts["group"]
            if fact.type == "GroupRebalanceStarted":
                cause = latest or served.rebalances.get(group_id)
            elif fact.type == "GroupRebalanceCompleted":
                cause = served.rebalances.pop(group_id, None) or latest
                self.rebalances_total += 1
            latest = self._journal.record(fact.type, cause=cause, **fact.facts)
            if fact.type == "GroupRebalanceStarted":
                served.rebalances[group_id] = latest

    def _arm(self, served: _Served, group: Group) -> None:
        """Have one timer run at the group's next deadline, or earlier.

        A deadline that moved away (heartbeats do nothing else) leaves the timer as it is: it will
        find nothing due, and look again.
        """
        deadline = group.next_deadline()
        armed = served.timers.get(group.group_id)
        if armed is not None:
            if deadline is not None and armed[0] <= deadline:
                return
            armed[1].cancel()
            del served.timers[group.group_id]
        if deadline is not None:
            delay_s = max(deadline - self._clock.monotonic() * 1000, 0.0) / 1000
            timer = asyncio.get_running_loop().call_later(delay_s, self._ring, served, group)
            served.timers[group.group_id] = (deadline, timer)

    def _ring(self, served: _Served, group: Group) -> None:
        served.timers.pop(group.group_id, None)
        if served.phase is not _Phase.ACTIVE or served.shard.groups.get(group.group_id) is not group:
            return
        try:
            self._carry_out(served, group.group_id, served.shard.on_time(group, self._now()))
        except Exception as error:
            self._fault(served, error)

    async def _store(self, served: _Served, store: StoreGroup) -> None:
        """Append a group's record, and let the group know how that went."""
        try:
            error: BrokerError | None = None
            try:
                await self._write(served, [Record(GroupKey(store.group_id), store.value)])
            except BrokerError as failed:
                error = append_errors.for_group(failed)
            if served.phase is _Phase.ACTIVE:
                effects = served.shard.after_store(store, error, self._now())
                self._carry_out(served, store.group_id, effects)
        except Exception as fault:
            self._fault(served, fault)

    async def _carry_out_plan(self, served: _Served, plan: Plan[ResponseT]) -> ResponseT:
        if plan.records:
            try:
                await self._write(served, plan.records)
            except BrokerError as error:
                return plan.answer(append_errors.for_commit(error))
            self._record(served, plan.facts)
        return plan.answer(None)

    async def _write(self, served: _Served, records: Sequence[Record]) -> None:
        """Append ``records`` and wait until they are committed and applied.

        Raises the BrokerError of the append.
        """
        encoded = [record.encode() for record in records]
        size = sum(len(key) + len(value or b"") for key, value in encoded)
        loop = asyncio.get_running_loop()
        write = _Write(records, encoded, size, loop.create_future())
        served.queue.append(write)
        if len(served.queue) == 1:
            loop.call_soon(self._flush, served)
        served.shard.appended(records)
        appended = await write.appended
        await self._log.committed(appended, timeout_s=self._config.offsets_commit_timeout_ms / 1000)
        if served.phase is _Phase.GONE:
            raise NotCoordinatorError(f"{served.partition} is led elsewhere")
        self._apply_committed(served)

    def _flush(self, served: _Served) -> None:
        """Append what was queued in this turn, several writes a batch."""
        queue, served.queue = served.queue, []
        batch: list[_Write] = []
        size = 0
        for write in queue:
            if batch and size + write.size > BATCH_BYTES:
                self._append(served, batch)
                batch, size = [], 0
            batch.append(write)
            size += write.size
        if batch:
            self._append(served, batch)

    def _append(self, served: _Served, writes: Sequence[_Write]) -> None:
        pairs = [pair for write in writes for pair in write.encoded]
        records = encode_batch(
            [value for _, value in pairs],
            keys=[key for key, _ in pairs],
            timestamps=self._clock.wall_ms(),
            compression=self._config.offsets_topic_compression_codec,
        )
        try:
            appended = self._log.append(served.partition, records, served.leader_epoch)
        except (MessageTooLargeError, RecordListTooLargeError) as error:
            if len(writes) > 1:
                for write in writes:
                    self._append(served, [write])
                return
            self._refuse(served, writes, error)
            return
        except BrokerError as error:
            self._refuse(served, writes, error)
            return
        for write in writes:
            served.in_flight.append((appended.required_offset, write.records))
            if not write.appended.done():
                write.appended.set_result(appended)

    def _refuse(self, served: _Served, writes: Sequence[_Write], error: BrokerError) -> None:
        for write in writes:
            served.shard.abandoned(write.records)
            _fail(write.appended, error)

    def _apply_committed(self, served: _Served) -> None:
        """Let everything have its effect that the high watermark has passed, in the log's order."""
        if not served.in_flight:
            return
        high_watermark = self._log.high_watermark(served.partition)
        while served.in_flight and served.in_flight[0][0] <= high_watermark:
            for record in served.in_flight.popleft()[1]:
                served.shard.apply(record)

    # ---- expiry ----

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(self._config.offsets_retention_check_interval_ms / 1000)
            await self.expire_offsets()

    async def expire_offsets(self) -> None:
        """Remove what is older than the retention, in every partition led here."""
        for served in self._active():
            try:
                if served.phase is not _Phase.ACTIVE:
                    continue
                self._apply_committed(served)
                plan = served.shard.expire(self._now())
                if plan.records and await self._remove(served, plan):
                    self.expired_total += sum(not isinstance(record.key, GroupKey) for record in plan.records)
            except Exception as error:
                self._fault(served, error)

    async def _remove(self, served: _Served, plan: Plan[Message]) -> bool:
        """Append tombstones; False where that failed: the next check tries again."""
        try:
            for start in range(0, len(plan.records), EXPIRE_SLICE):
                await self._write(served, plan.records[start : start + EXPIRE_SLICE])
        except BrokerError as error:
            _logger.warning("%s: offsets could not be removed now: %s", served.partition, error)
            return False
        self._record(served, plan.facts)
        return True


def _fail(future: asyncio.Future[Appended], error: BrokerError) -> None:
    if not future.done():
        future.set_exception(error)


def _refused_commit(request: OffsetCommitRequest, error: BrokerError) -> OffsetCommitResponse:
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetCommitResponsePartition(partition_index=part.partition_index, error_code=error.code)
                    for part in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )
