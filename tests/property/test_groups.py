"""Groups under random histories: one generation at a time, nobody old is let through, nothing is forgotten.

The machine plays clients that behave and clients that do not, replication that commits late, fails
or never answers, and coordinators that die; the log that survives is the only thing a new
coordinator knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kafkalite.common import TopicPartition
from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.group.effects import Answer, Effects, Now, StoreGroup, StorePurpose, Ticket
from kafkalite.coordinator.group.group import Client, Group
from kafkalite.coordinator.group.records import GroupKey, Record
from kafkalite.coordinator.group.shard import Shard
from kafkalite.coordinator.group.state import VALID_PREVIOUS, GroupState
from kafkalite.coordinator.loading import decode_latest
from kafkalite.protocol.consumer_protocol import Assignment, Subscription
from kafkalite.protocol.errors import (
    BrokerError,
    CoordinatorNotAvailableError,
    ErrorCode,
    RebalanceInProgressError,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupMember, LeaveGroupRequest
from kafkalite.protocol.offset_commit import OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic
from kafkalite.protocol.sync_group import SyncGroupAssignment, SyncGroupRequest

GROUP = "g"
PARTITIONS = tuple(TopicPartition("orders", index) for index in range(4))
CONFIG = GroupConfig(group_min_session_timeout_ms=1, group_initial_rebalance_delay_ms=20, group_max_size=2)
CLIENTS = st.integers(0, 2)
RARELY = st.sampled_from((False, False, False, False, True))


@dataclass
class FakeClient:
    """A consumer as the group sees it. The first is static."""

    number: int
    member_id: str = ""
    generation_id: int = -1
    is_leader: bool = False
    known: list[str] = field(default_factory=list)
    """The members that its last join told the leader of."""
    wants: int = 0
    """Changes what it subscribes to."""
    owns: tuple[TopicPartition, ...] = ()

    @property
    def instance(self) -> str | None:
        return f"instance-{self.number}" if self.number < 1 else None


class Groups(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.shard = Shard(CONFIG)
        self.log: list[Record] = []
        """What is committed."""
        self.in_flight: list[tuple[list[Record], StoreGroup | None, tuple[int, int] | None]] = []
        """Appended and not committed: records, the store they are, the commit (client, offset) they are."""
        self.clients = [FakeClient(number) for number in range(3)]
        self.tickets: dict[Ticket, tuple[FakeClient, str]] = {}
        self.last_ticket = 0
        self.now_ms = 1_000
        self.states: dict[int, GroupState] = {}
        self.owners: dict[int, dict[TopicPartition, str]] = {}
        """By generation that was handed out: who got which partition."""
        self.acknowledged: int | None = None
        self.fresh = 0
        self.highest_generation = 0

    # ---- plumbing ----

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000 + self.now_ms)

    def ticket(self, client: FakeClient, kind: str) -> Ticket:
        self.last_ticket += 1
        ticket = Ticket(self.last_ticket)
        self.tickets[ticket] = (client, kind)
        return ticket

    def carry_out(self, effects: Effects) -> None:
        for ticket, answer in effects.answers:
            assert ticket in self.tickets, "a request is answered once"
            client, _ = self.tickets.pop(ticket)
            self.answered(client, answer)
        for store in effects.stores:
            records = [Record(GroupKey(store.group_id), store.value)]
            self.shard.appended(records)
            self.in_flight.append((records, store, None))

    def answered(self, client: FakeClient, answer: Answer) -> None:
        if isinstance(answer, JoinGroupResponse):
            match answer.error_code:
                case ErrorCode.NONE:
                    client.member_id = answer.member_id
                    client.generation_id = answer.generation_id
                    client.is_leader = answer.leader == answer.member_id
                    client.known = [member.member_id for member in answer.members]
                    assert client.is_leader or not answer.members
                    assert answer.generation_id >= 1
                case ErrorCode.MEMBER_ID_REQUIRED:
                    client.member_id = answer.member_id
                case ErrorCode.UNKNOWN_MEMBER_ID | ErrorCode.FENCED_INSTANCE_ID:
                    client.member_id, client.generation_id = "", -1
                case _:
                    pass
        elif answer.error_code == ErrorCode.NONE:
            client.owns = Assignment.decode(answer.assignment).partitions
            owners = self.owners.setdefault(client.generation_id, {})
            for partition in client.owns:
                owner = owners.setdefault(partition, client.instance or client.member_id)
                assert owner == (client.instance or client.member_id), (
                    f"two owners of {partition} in generation {client.generation_id}"
                )

    def group(self) -> Group | None:
        return self.shard.groups.get(GROUP)

    # ---- what clients do ----

    @rule(number=CLIENTS, restarted=RARELY, changed=RARELY)
    def join(self, number: int, restarted: bool, changed: bool) -> None:
        client = self.clients[number]
        if restarted:
            client.member_id, client.generation_id, client.owns = "", -1, ()
        client.wants += changed
        self.fresh += 1
        request = JoinGroupRequest(
            group_id=GROUP,
            session_timeout_ms=1_000,
            rebalance_timeout_ms=300,
            member_id=client.member_id,
            group_instance_id=client.instance,
            protocol_type="consumer",
            protocols=[
                JoinGroupProtocol(
                    name="range",
                    metadata=Subscription(("orders",), user_data=bytes([client.wants % 256])).encode(),
                )
            ],
        )
        ticket = self.ticket(client, "join")
        self.carry_out(
            self.shard.join(
                request,
                Client(f"client-{number}", "/here"),
                fresh_id=f"{self.fresh:04}",
                ticket=ticket,
                now=self.now(),
            )
        )

    @rule(number=CLIENTS)
    def sync(self, number: int) -> None:
        client = self.clients[number]
        if client.generation_id < 0:
            return
        assignments = []
        if client.is_leader and client.known:
            share: dict[str, list[TopicPartition]] = {member: [] for member in client.known}
            for index, partition in enumerate(PARTITIONS):
                share[client.known[index % len(client.known)]].append(partition)
            assignments = [
                SyncGroupAssignment(member_id=member, assignment=Assignment(tuple(partitions)).encode())
                for member, partitions in share.items()
            ]
        request = SyncGroupRequest(
            group_id=GROUP,
            generation_id=client.generation_id,
            member_id=client.member_id,
            group_instance_id=client.instance,
            assignments=assignments,
        )
        ticket = self.ticket(client, "sync")
        self.carry_out(self.shard.sync(request, ticket=ticket, now=self.now()))

    @rule(number=CLIENTS, behind=st.integers(0, 1))
    def heartbeat(self, number: int, behind: int) -> None:
        client = self.clients[number]
        group = self.group()
        request = HeartbeatRequest(
            group_id=GROUP,
            generation_id=client.generation_id - behind,
            member_id=client.member_id,
            group_instance_id=client.instance,
        )
        try:
            self.shard.heartbeat(request, self.now())
        except RebalanceInProgressError:
            assert group is not None
            assert group.state is GroupState.PREPARING_REBALANCE
        except BrokerError:
            return
        assert group is not None
        assert client.member_id in group.members
        assert request.generation_id == group.generation_id

    @rule(numbers=st.permutations((0, 1, 2)), synced=st.integers(0, 3))
    def generation(self, numbers: list[int], synced: int) -> None:
        """Clients that behave: all come, and some of them sync."""
        for number in numbers:
            self.join(number, restarted=False, changed=False)
            if self.clients[number].generation_id < 0:
                self.join(number, restarted=False, changed=False)
        self.time_passes(30)
        for number in numbers[:synced]:
            self.sync(number)

    @rule(number=CLIENTS)
    def leave(self, number: int) -> None:
        client = self.clients[number]
        request = LeaveGroupRequest(
            group_id=GROUP,
            members=[LeaveGroupMember(member_id=client.member_id, group_instance_id=client.instance)],
        )
        response, effects = self.shard.leave(request, self.now())
        self.carry_out(effects)
        if response.members[0].error_code == ErrorCode.NONE:
            client.member_id, client.generation_id, client.owns = "", -1, ()

    @rule(number=CLIENTS, offset=st.integers(0, 1_000), behind=st.integers(0, 1))
    def commit(self, number: int, offset: int, behind: int) -> None:
        client = self.clients[number]
        group = self.group()
        request = OffsetCommitRequest(
            group_id=GROUP,
            generation_id_or_member_epoch=client.generation_id - behind,
            member_id=client.member_id,
            group_instance_id=client.instance,
            topics=[
                OffsetCommitTopic(
                    name="orders",
                    partitions=[OffsetCommitPartition(partition_index=0, committed_offset=offset)],
                )
            ],
        )
        plan = self.shard.commit(request, is_known=lambda partition: True, now=self.now())
        if not plan.records:
            code = plan.answer(None).topics[0].partitions[0].error_code
            assert code != ErrorCode.NONE
            return
        if request.generation_id_or_member_epoch >= 0:
            assert group is not None
            assert client.member_id in group.members, "a fenced member's commit was accepted"
            assert request.generation_id_or_member_epoch == group.generation_id
            assert group.state is not GroupState.COMPLETING_REBALANCE
        else:
            assert group is None or group.state is GroupState.EMPTY
        self.shard.appended(plan.records)
        self.in_flight.append((list(plan.records), None, (number, offset)))

    # ---- what replication and time do ----

    @rule()
    def replicated(self) -> None:
        """The high watermark passes the oldest append."""
        if not self.in_flight:
            return
        records, store, commit = self.in_flight.pop(0)
        self.log += records
        for record in records:
            self.shard.apply(record)
        if store is not None:
            self.carry_out(self.shard.after_store(store, None, self.now()))
        if commit is not None:
            self.acknowledged = commit[1]

    @rule()
    def append_refused(self) -> None:
        """The latest append did not get into the log."""
        if not self.in_flight:
            return
        records, store, _ = self.in_flight.pop()
        self.shard.abandoned(records)
        if store is not None:
            error = CoordinatorNotAvailableError("not enough replicas")
            self.carry_out(self.shard.after_store(store, error, self.now()))

    @rule(ms=st.sampled_from((1, 10, 30, 100, 100, 400, 1_200)))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        group = self.group()
        deadline = group.next_deadline() if group is not None else None
        if group is not None and deadline is not None and deadline <= self.now_ms:
            self.carry_out(self.shard.on_time(group, self.now()))
            later = group.next_deadline()
            assert later is None or later > self.now_ms or group.state is GroupState.DEAD, (
                "a timer that never rests"
            )

    @rule(kept=st.integers(0, 3))
    def coordinator_dies(self, kept: int) -> None:
        """Another takes over, with what was committed and some of what was on its way."""
        for records, _, _ in self.in_flight[:kept]:
            self.log += records
        self.in_flight.clear()
        self.carry_out(self.shard.unload())
        assert not self.tickets, "nobody is left waiting"
        before = Shard(CONFIG)
        for record in self.log:
            before.apply(record)
        self.shard = load(self.log, self.now())
        assert self.shard.image() == before.image(), "loading and serving know the same"
        self.states.clear()
        # What the next one hands out under a number that the last one only promised is another.
        stored = self.group().generation_id if self.group() is not None else 0  # type: ignore[union-attr]
        self.owners = {number: owners for number, owners in self.owners.items() if number <= stored}
        self.highest_generation = stored

    @initialize()
    def begin(self) -> None:
        self.coordinator_dies(0)

    # ---- what must always hold ----

    @invariant()
    def members_are_counted_once(self) -> None:
        group = self.group()
        if group is None:
            return
        assert not group.members.keys() & group.pending.keys()
        assert all(member.member_id == key for key, member in group.members.items())
        static = {m.group_instance_id: m.member_id for m in group.members.values() if m.group_instance_id}
        assert group.static == static
        assert set(group.unsynced) <= set(group.members)
        if group.members and group.state is not GroupState.EMPTY:
            assert group.leader in group.members
        if group.state is GroupState.EMPTY:
            assert not group.members

    @invariant()
    def who_waits_is_answered_some_day(self) -> None:
        group = self.group()
        waiting = {
            ticket
            for member in (group.members.values() if group is not None else ())
            for ticket in (member.join_ticket, member.sync_ticket)
            if ticket is not None
        }
        assert waiting == set(self.tickets)
        if group is None:
            return
        storing = {store.member_id for _, store, _ in self.in_flight if store is not None}
        for member in group.members.values():
            if member.join_ticket is not None and group.state is not GroupState.PREPARING_REBALANCE:
                assert member.member_id in storing
            if member.sync_ticket is not None:
                assert group.state is GroupState.COMPLETING_REBALANCE
        if group.state is GroupState.PREPARING_REBALANCE:
            assert group.join_deadline_ms is not None
        if group.state is GroupState.COMPLETING_REBALANCE:
            is_storing = any(
                store is not None and store.purpose is StorePurpose.ASSIGNMENT
                for _, store, _ in self.in_flight
            )
            assert group.sync_deadline_ms is not None or is_storing

    @invariant()
    def generations_only_rise(self) -> None:
        group = self.group()
        if group is None:
            self.highest_generation = 0
            return
        assert group.generation_id >= self.highest_generation
        self.highest_generation = group.generation_id

    @invariant()
    def states_follow_the_table(self) -> None:
        group = self.group()
        if group is None:
            self.states.clear()
            return
        before = self.states.get(id(group))
        if before is not None and before is not group.state:
            # Several moves may lie between two looks: reachable is enough.
            assert group.state in reachable(before)
        self.states = {id(group): group.state}

    @invariant()
    def the_log_is_what_is_known(self) -> None:
        replayed = Shard(CONFIG)
        for record in self.log:
            replayed.apply(record)
        assert self.shard.image() == replayed.image()

    @invariant()
    def an_acknowledged_commit_is_never_lost(self) -> None:
        if self.acknowledged is None:
            return
        group = self.group()
        assert group is not None
        value = group.offsets.committed[PARTITIONS[0]]
        commits = [commit for commit in self.log if not isinstance(commit.key, GroupKey)]
        assert commits[-1].value == value


def reachable(state: GroupState) -> set[GroupState]:
    found = {state}
    while True:
        more = {after for after, before in VALID_PREVIOUS.items() if before & found} | found
        if more == found:
            return found
        found = more


def load(log: list[Record], now: Now) -> Shard:
    """A shard as a new coordinator makes it: through bytes, with the last record of each key only."""
    latest: dict[bytes, bytes | None] = {}
    for record in log:
        key, value = record.encode()
        latest[key] = value
    records, problems = decode_latest(latest)
    assert not problems
    shard = Shard(CONFIG)
    for record in records:
        shard.apply(record)
    shard.loaded(now)
    return shard


Groups.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
TestGroups = Groups.TestCase
