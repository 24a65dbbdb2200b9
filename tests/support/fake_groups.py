"""The fake cluster with a group coordinator: Kafka's rules in the small, for tests of members only.

State survives a move of the coordinator, as it does where it is replicated; who waits for a join or a sync at
the old one is told NOT_COORDINATOR. What matters to the tests is recorded: every rebalance, and every commit
that was accepted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import Assignment
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest, HeartbeatResponse
from kafkalite.protocol.join_group import JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember
from kafkalite.protocol.leave_group import LeaveGroupRequest, LeaveGroupResponse, LeaveGroupResponseMember
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kafkalite.protocol.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from kafkalite.protocol.sync_group import SyncGroupRequest, SyncGroupResponse
from tests.support.fake_broker import FakeCluster, Fault


@dataclass
class Commit:
    """One accepted commit."""

    member_id: str
    generation: int
    partition: TopicPartition
    offset: int


@dataclass
class FakeMember:
    """A member as the coordinator sees it."""

    member_id: str
    instance: str | None
    protocols: list[tuple[str, bytes]]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    assignment: bytes = b""
    waiting: asyncio.Future[JoinGroupResponse] | None = None
    syncing: asyncio.Future[SyncGroupResponse] | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass
class FakeGroup:
    """One group."""

    state: str = "Empty"
    generation: int = 0
    protocol: str | None = None
    leader: str | None = None
    members: dict[str, FakeMember] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    offsets: dict[TopicPartition, tuple[int, int, str]] = field(default_factory=dict)
    deadline: asyncio.TimerHandle | None = None

    def owners(self) -> dict[TopicPartition, str]:
        """Who owns what; asserts that nobody else does."""
        found: dict[TopicPartition, str] = {}
        for member in self.members.values():
            for tp in Assignment.decode(member.assignment).partitions:
                assert tp not in found, f"{tp} has two owners in generation {self.generation}"
                found[tp] = member.member_id
        return found


class GroupCluster(FakeCluster):
    """Use on one loop."""

    def __init__(self, *, brokers: int = 3) -> None:
        super().__init__(brokers=brokers)
        self.coordinator = 1
        self.is_loading = False
        self.initial_delay = 0.05
        self.group = FakeGroup()
        self.rebalances: list[tuple[int, list[str], list[str | None]]] = []
        """Of each generation: its number, its members, and the reasons that led to it."""
        self.reasons: list[str | None] = []
        self.commits: list[Commit] = []
        self.left: list[str] = []
        self._next_id = 0

    # --- What a test does ----------------------------------------------------------------------

    def move_coordinator(self, node: int) -> None:
        """Another broker coordinates; who waits at the old one is told so."""
        self.coordinator = node
        for member in self.group.members.values():
            self._answer_waiting(member, ErrorCode.NOT_COORDINATOR)
            self._heard(member)  # A new coordinator gives everyone a whole session.
        if self.group.state in ("PreparingRebalance", "CompletingRebalance"):
            self._prepare()

    def expel(self, member_id: str) -> None:
        """End a member's session now."""
        self._remove(self.group.members[member_id])

    # --- Requests ------------------------------------------------------------------------------

    async def _handle(self, node: int, request: Message, fault: Fault) -> Message:
        match request:
            case FindCoordinatorRequest():
                return self._find(request)
            case JoinGroupRequest():
                return await self._join(node, request)
            case SyncGroupRequest():
                return await self._sync(node, request)
            case HeartbeatRequest():
                return HeartbeatResponse(error_code=self._heartbeat(node, request))
            case LeaveGroupRequest():
                return self._leave(node, request)
            case OffsetCommitRequest():
                return self._commit(node, request)
            case OffsetFetchRequest():
                return self._fetch_offsets(node, request)
        return await super()._handle(node, request, fault)

    def _find(self, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
        node = self.coordinator
        if node in self.down:
            found = FindCoordinatorResponseCoordinator(
                key=request.coordinator_keys[0], error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE
            )
        else:
            address = self.nodes[node]
            found = FindCoordinatorResponseCoordinator(
                key=request.coordinator_keys[0], node_id=node, host=address.host, port=address.port
            )
        return FindCoordinatorResponse(coordinators=[found])

    def _common(self, node: int) -> ErrorCode:
        if self.is_loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return ErrorCode.NONE if node == self.coordinator else ErrorCode.NOT_COORDINATOR

    def _refuse(self, code: ErrorCode, member_id: str = "") -> JoinGroupResponse:
        return JoinGroupResponse(error_code=code, leader="", member_id=member_id, members=[])

    async def _join(self, node: int, request: JoinGroupRequest) -> JoinGroupResponse:
        group = self.group
        error = self._common(node)
        if error:
            return self._refuse(error)
        member_id = request.member_id
        instance = request.group_instance_id
        protocols = [(p.name, bytes(p.metadata)) for p in request.protocols]
        if instance is not None:
            known = next((m for m in group.members.values() if m.instance == instance), None)
            if known is not None and member_id == "":
                return await self._replace(known, protocols)
            if known is not None and known.member_id != member_id:
                return self._refuse(ErrorCode.FENCED_INSTANCE_ID)
        if member_id == "":
            self._next_id += 1
            member_id = f"{instance or 'member'}-{self._next_id}"
            if instance is None:
                group.pending.add(member_id)
                return self._refuse(ErrorCode.MEMBER_ID_REQUIRED, member_id)
        elif member_id in group.pending:
            group.pending.remove(member_id)
        elif member_id not in group.members:
            return self._refuse(ErrorCode.UNKNOWN_MEMBER_ID)
        member = group.members.get(member_id)
        is_new = member is None
        if member is None:
            member = FakeMember(
                member_id, instance, protocols, request.session_timeout_ms, request.rebalance_timeout_ms
            )
            if not self._common_protocols([*group.members.values(), member]):
                return self._refuse(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
            group.members[member_id] = member
        has_changed = protocols != member.protocols
        member.protocols = protocols
        self._heard(member)
        if group.state == "Stable" and not (is_new or has_changed or group.leader == member_id):
            return self._joined(member)
        if group.state == "CompletingRebalance" and not (is_new or has_changed):
            return self._joined(member)
        self.reasons.append(request.reason)
        member.waiting = asyncio.get_running_loop().create_future()
        waiting = member.waiting
        if group.state != "PreparingRebalance":
            self._prepare()
        self._maybe_complete()
        return await waiting

    async def _replace(self, known: FakeMember, protocols: list[tuple[str, bytes]]) -> JoinGroupResponse:
        group = self.group
        self._answer_waiting(known, ErrorCode.FENCED_INSTANCE_ID)
        del group.members[known.member_id]
        self._next_id += 1
        was_leader = group.leader == known.member_id
        known.member_id = f"{known.instance}-{self._next_id}"
        known.protocols = protocols
        group.members[known.member_id] = known
        self._heard(known)
        if was_leader:
            group.leader = known.member_id
        if group.state == "Stable":
            answer = self._joined(known)
            return JoinGroupResponse(
                error_code=0,
                generation_id=answer.generation_id,
                protocol_type="consumer",
                protocol_name=answer.protocol_name,
                leader=answer.leader,
                skip_assignment=was_leader,
                member_id=known.member_id,
                members=answer.members,
            )
        known.waiting = asyncio.get_running_loop().create_future()
        waiting = known.waiting
        if group.state != "PreparingRebalance":
            self._prepare()
        self._maybe_complete()
        return await waiting

    def _common_protocols(self, members: list[FakeMember]) -> list[str]:
        return [
            name
            for name, _ in members[0].protocols
            if all(name in [known for known, _ in member.protocols] for member in members)
        ]

    def _prepare(self) -> None:
        group = self.group
        loop = asyncio.get_running_loop()
        if group.deadline is not None:
            group.deadline.cancel()
        for member in group.members.values():
            if member.syncing is not None and not member.syncing.done():
                member.syncing.set_result(
                    SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS, assignment=b"")
                )
        if group.state == "Empty":
            group.deadline = loop.call_later(self.initial_delay, self._complete)
        else:
            longest = max(member.rebalance_timeout_ms for member in group.members.values())
            group.deadline = loop.call_later(longest / 1000, self._complete)
        group.state = "PreparingRebalance"

    def _maybe_complete(self) -> None:
        group = self.group
        if group.state != "PreparingRebalance" or group.generation == 0:
            return
        if group.members and all(m.waiting is not None for m in group.members.values()):
            self._complete()

    def _complete(self) -> None:
        group = self.group
        for member in list(group.members.values()):
            if member.waiting is None and member.instance is None:
                self._drop(member)
        if group.deadline is not None:
            group.deadline.cancel()
            group.deadline = None
        group.generation += 1
        if not group.members:
            group.state = "Empty"
            return
        if group.leader not in group.members:
            group.leader = next(iter(group.members))
        group.protocol = self._common_protocols(list(group.members.values()))[0]
        group.state = "CompletingRebalance"
        self.rebalances.append((group.generation, list(group.members), self.reasons))
        self.reasons = []
        for member in group.members.values():
            if member.waiting is not None:
                if not member.waiting.done():
                    member.waiting.set_result(self._joined(member))
                member.waiting = None
            self._heard(member)

    def _joined(self, member: FakeMember) -> JoinGroupResponse:
        group = self.group
        assert group.leader is not None
        members = []
        if group.leader == member.member_id:
            members = [
                JoinGroupResponseMember(
                    member_id=m.member_id,
                    group_instance_id=m.instance,
                    metadata=dict(m.protocols)[group.protocol or ""],
                )
                for m in group.members.values()
            ]
        return JoinGroupResponse(
            error_code=0,
            generation_id=group.generation,
            protocol_type="consumer",
            protocol_name=group.protocol,
            leader=group.leader,
            member_id=member.member_id,
            members=members,
        )

    async def _sync(self, node: int, request: SyncGroupRequest) -> SyncGroupResponse:
        group = self.group

        def refuse(code: ErrorCode) -> SyncGroupResponse:
            return SyncGroupResponse(error_code=code, assignment=b"")

        error = self._common(node) or self._check_member(
            request.member_id, request.group_instance_id, request.generation_id
        )
        if error:
            return refuse(error)
        if group.state == "PreparingRebalance":
            return refuse(ErrorCode.REBALANCE_IN_PROGRESS)
        member = group.members[request.member_id]
        self._heard(member)
        if group.state == "CompletingRebalance":
            member.syncing = asyncio.get_running_loop().create_future()
            waiting = member.syncing
            if group.leader == member.member_id:
                assigned = {a.member_id: bytes(a.assignment) for a in request.assignments}
                for other in group.members.values():
                    other.assignment = assigned.get(other.member_id, b"")
                group.owners()
                group.state = "Stable"
                for other in group.members.values():
                    if other.syncing is not None and not other.syncing.done():
                        other.syncing.set_result(
                            SyncGroupResponse(
                                error_code=0, protocol_name=group.protocol, assignment=other.assignment
                            )
                        )
            return await waiting
        return SyncGroupResponse(error_code=0, protocol_name=group.protocol, assignment=member.assignment)

    def _check_member(self, member_id: str, instance: str | None, generation: int) -> ErrorCode:
        group = self.group
        if instance is not None:
            known = next((m for m in group.members.values() if m.instance == instance), None)
            if known is not None and known.member_id != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        if member_id not in group.members:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if generation != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.NONE

    def _heartbeat(self, node: int, request: HeartbeatRequest) -> ErrorCode:
        error = self._common(node) or self._check_member(
            request.member_id, request.group_instance_id, request.generation_id
        )
        if error:
            return error
        self._heard(self.group.members[request.member_id])
        is_preparing = self.group.state == "PreparingRebalance"
        return ErrorCode.REBALANCE_IN_PROGRESS if is_preparing else ErrorCode.NONE

    def _leave(self, node: int, request: LeaveGroupRequest) -> LeaveGroupResponse:
        error = self._common(node)
        members = []
        for leaving in request.members:
            member = self.group.members.get(leaving.member_id)
            if not error and member is not None:
                self.left.append(leaving.member_id)
                self.reasons.append(leaving.reason)
                self._remove(member)
            members.append(LeaveGroupResponseMember(member_id=leaving.member_id))
        return LeaveGroupResponse(error_code=error, members=members)

    # --- Sessions ------------------------------------------------------------------------------

    def _heard(self, member: FakeMember) -> None:
        if member.timer is not None:
            member.timer.cancel()
        member.timer = asyncio.get_running_loop().call_later(
            member.session_timeout_ms / 1000, self._expire, member
        )

    def _expire(self, member: FakeMember) -> None:
        if member.waiting is not None:
            self._heard(member)
        elif self.group.members.get(member.member_id) is member:
            self.reasons.append(f"{member.member_id} was not heard of")
            self._remove(member)

    def _drop(self, member: FakeMember) -> None:
        self.group.members.pop(member.member_id, None)
        self._answer_waiting(member, ErrorCode.UNKNOWN_MEMBER_ID)
        if member.timer is not None:
            member.timer.cancel()

    def _remove(self, member: FakeMember) -> None:
        self._drop(member)
        if self.group.state in ("Stable", "CompletingRebalance"):
            if self.group.members:
                self._prepare()
            else:
                self.group.generation += 1
                self.group.state = "Empty"
        else:
            self._maybe_complete()

    def _answer_waiting(self, member: FakeMember, code: ErrorCode) -> None:
        if member.waiting is not None and not member.waiting.done():
            member.waiting.set_result(self._refuse(code))
        member.waiting = None
        if member.syncing is not None and not member.syncing.done():
            member.syncing.set_result(SyncGroupResponse(error_code=code, assignment=b""))
        member.syncing = None

    # --- Offsets -------------------------------------------------------------------------------

    def _commit(self, node: int, request: OffsetCommitRequest) -> OffsetCommitResponse:
        group = self.group
        generation = request.generation_id_or_member_epoch
        error = self._common(node)
        if not error and (generation >= 0 or request.member_id or group.members):
            error = self._check_member(request.member_id, request.group_instance_id, generation)
            if not error and group.state == "CompletingRebalance":
                error = ErrorCode.REBALANCE_IN_PROGRESS
            if not error:
                self._heard(group.members[request.member_id])
        topics = []
        for topic in request.topics:
            parts = []
            for p in topic.partitions:
                tp = TopicPartition(topic.name, p.partition_index)
                code = error
                if not code and len(p.committed_metadata or "") > 4096:
                    code = ErrorCode.OFFSET_METADATA_TOO_LARGE
                if not code:
                    group.offsets[tp] = (
                        p.committed_offset,
                        p.committed_leader_epoch,
                        p.committed_metadata or "",
                    )
                    self.commits.append(Commit(request.member_id, generation, tp, p.committed_offset))
                parts.append(
                    OffsetCommitResponsePartition(partition_index=p.partition_index, error_code=code)
                )
            topics.append(OffsetCommitResponseTopic(name=topic.name, partitions=parts))
        return OffsetCommitResponse(topics=topics)

    def _fetch_offsets(self, node: int, request: OffsetFetchRequest) -> OffsetFetchResponse:
        error = self._common(node)
        groups = []
        for asked in request.groups:
            wanted = (
                list(self.group.offsets)
                if asked.topics is None
                else [TopicPartition(t.name, index) for t in asked.topics for index in t.partition_indexes]
            )
            topics = []
            for tp in wanted if not error else []:
                offset, epoch, metadata = self.group.offsets.get(tp, (-1, -1, ""))
                topics.append(
                    OffsetFetchResponseTopic(
                        name=tp.topic,
                        partitions=[
                            OffsetFetchResponsePartition(
                                partition_index=tp.partition,
                                committed_offset=offset,
                                committed_leader_epoch=epoch,
                                metadata=metadata,
                            )
                        ],
                    )
                )
            groups.append(OffsetFetchResponseGroup(group_id=asked.group_id, topics=topics, error_code=error))
        return OffsetFetchResponse(groups=groups)
