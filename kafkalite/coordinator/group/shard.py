"""The groups that live in one partition of `__consumer_offsets`.

:meth:`Shard.apply` is the one way in which a record has its effect: while the partition is loaded,
and while it is served, each time once the record is committed, in the order of the log. So what a
shard knows of offsets and stored generations is exactly what the next coordinator will load
(:meth:`Shard.image`). Requests that change it return a plan: records to append, and the answer to
give once they are committed, or the answer if they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

from kafkalite.common import TopicPartition
from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.group.effects import Effects, Fact, Now, StoreGroup, Ticket
from kafkalite.coordinator.group.group import Client, Group, join_error, sync_error
from kafkalite.coordinator.group.records import GroupKey, GroupValue, Key, OffsetKey, OffsetValue, Record
from kafkalite.coordinator.group.state import GroupState
from kafkalite.protocol.consumer_protocol import PROTOCOL_TYPE
from kafkalite.protocol.delete_groups import DeleteGroupsResponseResult
from kafkalite.protocol.describe_groups import DescribeGroupsResponseGroup, DescribeGroupsResponseMember
from kafkalite.protocol.errors import (
    BrokerError,
    ErrorCode,
    GroupIdNotFoundError,
    IllegalGenerationError,
    InvalidSessionTimeoutError,
    NonEmptyGroupError,
    UnknownMemberIdError,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupRequest
from kafkalite.protocol.leave_group import LeaveGroupRequest, LeaveGroupResponse, LeaveGroupResponseMember
from kafkalite.protocol.list_groups import ListGroupsResponseGroup
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kafkalite.protocol.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from kafkalite.protocol.offset_fetch import (
    OffsetFetchGroup,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from kafkalite.protocol.sync_group import SyncGroupRequest

ResponseT = TypeVar("ResponseT", bound=Message)

CLASSIC = "classic"
"""The type of all groups of this version, as list_groups names it."""
NO_OFFSET = -1


class Plan(msgspec.Struct, Generic[ResponseT], frozen=True):
    """A change of what is committed."""

    records: Sequence[Record]
    """To be appended together; may be empty."""
    answer: Callable[[BrokerError | None], ResponseT]
    """The answer, once the records are committed (None) or the append failed."""
    facts: Sequence[Fact] = ()
    """For the journal, once the records are committed."""


class Shard:
    """See the module. Pure: nothing here waits."""

    def __init__(self, config: GroupConfig) -> None:
        self._config = config
        self.groups: dict[str, Group] = {}
        self._in_flight: dict[Key, int] = {}
        """Keys of records that were appended and are not committed yet, with how many each."""

    # ---- what is committed ----

    def appended(self, records: Iterable[Record]) -> None:
        """``records`` are on their way; each is applied, or abandoned, later."""
        for record in records:
            self._in_flight[record.key] = self._in_flight.get(record.key, 0) + 1

    def abandoned(self, records: Iterable[Record]) -> None:
        """``records`` did not get into the log."""
        for record in records:
            self._landed(record.key)

    def _landed(self, key: Key) -> None:
        left = self._in_flight.pop(key, 1) - 1
        if left:
            self._in_flight[key] = left

    def apply(self, record: Record) -> None:
        """``record`` is committed, and so is all that stands before it in the log."""
        self._landed(record.key)
        match record.key, record.value:
            case OffsetKey(group_id, topic, partition), OffsetValue() as offset:
                self._get_or_create(group_id).offsets.apply(TopicPartition(topic, partition), offset)
            case OffsetKey(group_id, topic, partition), _:
                if (group := self.groups.get(group_id)) is not None:
                    group.offsets.apply(TopicPartition(topic, partition), None)
                    self.forget_if_bare(group)
            case GroupKey(group_id), GroupValue() as value:
                self._get_or_create(group_id).stored = value
            case GroupKey(group_id), _:
                if (group := self.groups.get(group_id)) is not None:
                    group.stored = None
                    self.forget_if_bare(group)

    def loaded(self, now: Now) -> None:
        """Everything in the log was applied: take up the stored generations."""
        for group in self.groups.values():
            if group.stored is not None:
                group.restore(group.stored, now)

    def image(self) -> dict[str, tuple[GroupValue | None, dict[TopicPartition, OffsetValue]]]:
        """What is committed, by group; groups of which nothing is are left out."""
        return {
            group.group_id: (group.stored, dict(group.offsets.committed))
            for group in self.groups.values()
            if group.stored is not None or group.offsets.committed
        }

    def _get_or_create(self, group_id: str) -> Group:
        group = self.groups.get(group_id)
        if group is None:
            group = self.groups[group_id] = Group(group_id, self._config)
        return group

    def forget_if_bare(self, group: Group) -> None:
        """Drop a group of which nothing is left, in the log or under way."""
        if (
            group.state is GroupState.EMPTY
            and group.stored is None
            and not group.pending
            and not group.offsets.committed
            and self.groups.get(group.group_id) is group
        ):
            group.remove()
            del self.groups[group.group_id]

    # ---- members ----

    def join(
        self, request: JoinGroupRequest, client: Client, *, fresh_id: str, ticket: Ticket, now: Now
    ) -> Effects:
        """See :meth:`Group.join`; a group begins with its first join."""
        config = self._config
        low, high = config.group_min_session_timeout_ms, config.group_max_session_timeout_ms
        group = self.groups.get(request.group_id)
        error: BrokerError | None = None
        if not low <= request.session_timeout_ms <= high:
            error = InvalidSessionTimeoutError(
                f"session_timeout_ms is {request.session_timeout_ms}; from {low} to {high} is allowed"
            )
        elif group is None and request.member_id:
            error = UnknownMemberIdError(f"there is no group {request.group_id}")
        if error is not None:
            return Effects(answers=[(ticket, join_error(error, request.member_id))])
        group = self._get_or_create(request.group_id)
        effects = group.join(request, client, fresh_id=fresh_id, ticket=ticket, now=now)
        self.forget_if_bare(group)
        return effects

    def sync(self, request: SyncGroupRequest, *, ticket: Ticket, now: Now) -> Effects:
        """See :meth:`Group.sync`."""
        group = self.groups.get(request.group_id)
        if group is None:
            error = UnknownMemberIdError(f"there is no group {request.group_id}")
            return Effects(answers=[(ticket, sync_error(error))])
        return group.sync(request, ticket=ticket, now=now)

    def after_store(self, store: StoreGroup, error: BrokerError | None, now: Now) -> Effects:
        """See :meth:`Group.after_store`."""
        group = self.groups.get(store.group_id)
        return Effects() if group is None else group.after_store(store, error, now)

    def heartbeat(self, request: HeartbeatRequest, now: Now) -> None:
        """See :meth:`Group.heartbeat`."""
        group = self.groups.get(request.group_id)
        if group is None:
            raise UnknownMemberIdError(f"there is no group {request.group_id}")
        group.heartbeat(request, now)

    def leave(self, request: LeaveGroupRequest, now: Now) -> tuple[LeaveGroupResponse, Effects]:
        """Let members go, each with an answer of its own."""
        effects = Effects()
        results = []
        group = self.groups.get(request.group_id)
        for member in request.members:
            code = ErrorCode.UNKNOWN_MEMBER_ID
            if group is not None:
                code, following = group.leave(member, now)
                effects.add(following)
            results.append(
                LeaveGroupResponseMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    error_code=code,
                )
            )
        if group is not None:
            self.forget_if_bare(group)
        return LeaveGroupResponse(error_code=ErrorCode.NONE, members=results), effects

    def on_time(self, group: Group, now: Now) -> Effects:
        """See :meth:`Group.on_time`."""
        effects = group.on_time(now)
        self.forget_if_bare(group)
        return effects

    def unload(self) -> Effects:
        """This broker leads the partition no more."""
        effects = Effects()
        for group in self.groups.values():
            effects.add(group.unload())
        self.groups.clear()
        self._in_flight.clear()
        return effects

    # ---- offsets ----

    def commit(
        self, request: OffsetCommitRequest, *, is_known: Callable[[TopicPartition], bool], now: Now
    ) -> Plan[OffsetCommitResponse]:
        """Plan a commit. Partitions that are refused one by one do not hinder the others."""
        refused: BrokerError | None = None
        try:
            self._check_commit(request, now)
        except BrokerError as error:
            refused = error
        codes: dict[TopicPartition, ErrorCode] = {}
        records: list[Record] = []
        for topic in request.topics:
            for part in topic.partitions:
                key = TopicPartition(topic.name, part.partition_index)
                metadata = part.committed_metadata or ""
                code = ErrorCode.NONE if refused is None else refused.code
                if refused is None and not is_known(key):
                    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                elif refused is None and len(metadata) > self._config.offset_metadata_max_bytes:
                    code = ErrorCode.OFFSET_METADATA_TOO_LARGE
                codes[key] = code
                if code is ErrorCode.NONE:
                    value = OffsetValue(
                        part.committed_offset, part.committed_leader_epoch, metadata, now.wall_ms
                    )
                    records.append(Record(OffsetKey(request.group_id, *key), value))

        def answer(failure: BrokerError | None) -> OffsetCommitResponse:
            return OffsetCommitResponse(
                topics=[
                    OffsetCommitResponseTopic(
                        name=topic.name,
                        partitions=[
                            OffsetCommitResponsePartition(
                                partition_index=part.partition_index,
                                error_code=_unless(
                                    failure, codes[TopicPartition(topic.name, part.partition_index)]
                                ),
                            )
                            for part in topic.partitions
                        ],
                    )
                    for topic in request.topics
                ]
            )

        return Plan(records, answer)

    def _check_commit(self, request: OffsetCommitRequest, now: Now) -> None:
        group = self.groups.get(request.group_id)
        generation_id = request.generation_id_or_member_epoch
        if group is not None:
            group.check_commit(generation_id, request.member_id, request.group_instance_id, now)
        elif generation_id >= 0:
            raise IllegalGenerationError(f"there is no group {request.group_id}")

    def fetch(self, wanted: OffsetFetchGroup) -> OffsetFetchResponseGroup:
        """What is committed, of the partitions wanted or of all.

        Without transactions every committed offset is stable.
        """
        group = self.groups.get(wanted.group_id)
        committed = {} if group is None else group.offsets.committed
        topics: dict[str, list[OffsetFetchResponsePartition]] = {}
        if wanted.topics is None:
            for (topic, partition), value in committed.items():
                topics.setdefault(topic, []).append(_fetched(partition, value))
        else:
            for asked in wanted.topics:
                topics.setdefault(asked.name, []).extend(
                    _fetched(partition, committed.get(TopicPartition(asked.name, partition)))
                    for partition in asked.partition_indexes
                )
        return OffsetFetchResponseGroup(
            group_id=wanted.group_id,
            topics=[
                OffsetFetchResponseTopic(name=topic, partitions=partitions)
                for topic, partitions in topics.items()
            ],
        )

    def delete_offsets(self, request: OffsetDeleteRequest) -> Plan[OffsetDeleteResponse]:
        """Plan the deletion of single offsets: of any while the group is empty, else only of topics
        that no member wants. Raises GroupIdNotFoundError, NonEmptyGroupError."""
        group = self._existing(request.group_id)
        subscribed: frozenset[str] = frozenset()
        if group.state is not GroupState.EMPTY:
            topics = group.subscribed_topics()
            if topics is None:
                raise NonEmptyGroupError(f"group {group.group_id} is {group.state.value}")
            subscribed = topics
        records = [
            Record(OffsetKey(group.group_id, topic.name, part.partition_index), None)
            for topic in request.topics
            if topic.name not in subscribed
            for part in topic.partitions
            if self._has_offset(group, TopicPartition(topic.name, part.partition_index))
        ]

        def answer(failure: BrokerError | None) -> OffsetDeleteResponse:
            return OffsetDeleteResponse(
                error_code=ErrorCode.NONE if failure is None else failure.code,
                throttle_time_ms=0,
                topics=[
                    OffsetDeleteResponseTopic(
                        name=topic.name,
                        partitions=[
                            OffsetDeleteResponsePartition(
                                partition_index=part.partition_index,
                                error_code=ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
                                if topic.name in subscribed
                                else ErrorCode.NONE,
                            )
                            for part in topic.partitions
                        ],
                    )
                    for topic in request.topics
                ]
                if failure is None
                else [],
            )

        facts = [_offsets_deleted(group, records, "asked for")] if records else []
        return Plan(records, answer, facts)

    def delete_group(self, group_id: str) -> Plan[DeleteGroupsResponseResult]:
        """Plan the deletion of a group with all its offsets, if it has no members."""
        records: list[Record] = []
        code = ErrorCode.NONE
        facts: list[Fact] = []
        try:
            group = self._existing(group_id)
            if group.state is not GroupState.EMPTY:
                raise NonEmptyGroupError(f"group {group_id} is {group.state.value}")
            records = self._tombstones(group)
            facts = [Fact("GroupDeleted", {"group": group_id, "reason": "asked for"})]
        except BrokerError as error:
            code = error.code
        return Plan(
            records,
            lambda failure: DeleteGroupsResponseResult(group_id=group_id, error_code=_unless(failure, code)),
            facts,
        )

    def _existing(self, group_id: str) -> Group:
        group = self.groups.get(group_id)
        if group is None:
            raise GroupIdNotFoundError(f"there is no group {group_id}")
        return group

    def _has_offset(self, group: Group, partition: TopicPartition) -> bool:
        """Whether there is one, or will be when what is in flight has arrived."""
        return (
            partition in group.offsets.committed or OffsetKey(group.group_id, *partition) in self._in_flight
        )

    def _tombstones(self, group: Group) -> list[Record]:
        """Whatever the log holds of ``group``, or will hold when what is in flight has arrived."""
        keys: dict[Key, None] = {
            OffsetKey(group.group_id, *partition): None for partition in group.offsets.committed
        }
        keys.update((key, None) for key in self._in_flight if key.group_id == group.group_id)
        if group.stored is not None:
            keys[GroupKey(group.group_id)] = None
        return [Record(key, None) for key in keys]

    def expire(self, now: Now) -> Plan[Message]:
        """Plan the removal of offsets that nobody has needed for long, and of groups left without any."""
        records: list[Record] = []
        facts: list[Fact] = []
        for group in self.groups.values():
            expired = [
                partition
                for partition in self._expired(group, now)
                if OffsetKey(group.group_id, *partition) not in self._in_flight
            ]
            records += [Record(OffsetKey(group.group_id, *partition), None) for partition in expired]
            if expired:
                facts.append(
                    Fact(
                        "GroupOffsetsExpired",
                        {
                            "group": group.group_id,
                            "offsets": len(expired),
                            "partitions": [str(partition) for partition in expired[:100]],
                            "retention_ms": self._config.offsets_retention_ms,
                        },
                    )
                )
            is_left_bare = len(expired) == len(group.offsets.committed) and not any(
                key.group_id == group.group_id for key in self._in_flight
            )
            if (
                is_left_bare
                and group.state is GroupState.EMPTY
                and not group.pending
                and group.stored is not None
            ):
                records.append(Record(GroupKey(group.group_id), None))
                facts.append(Fact("GroupDeleted", {"group": group.group_id, "reason": "no offsets are left"}))
        return Plan(records, _nothing_to_answer, facts)

    def _expired(self, group: Group, now: Now) -> Iterable[TopicPartition]:
        retention_ms = self._config.offsets_retention_ms
        offsets = group.offsets
        if group.is_simple and group.state is GroupState.EMPTY:
            return offsets.expired(wall_ms=now.wall_ms, retention_ms=retention_ms, since_ms=None)
        if group.state is GroupState.EMPTY:
            since_ms = group.state_timestamp_ms if group.state_timestamp_ms >= 0 else None
            return offsets.expired(wall_ms=now.wall_ms, retention_ms=retention_ms, since_ms=since_ms)
        if group.state is GroupState.STABLE and group.protocol_type == PROTOCOL_TYPE:
            subscribed = group.subscribed_topics()
            if subscribed is not None:
                return offsets.expired(
                    wall_ms=now.wall_ms, retention_ms=retention_ms, since_ms=None, subscribed=subscribed
                )
        return ()

    def forget_topics(self, topics: frozenset[str]) -> Plan[Message]:
        """Plan the removal of all offsets in ``topics``, which exist no more."""
        records: list[Record] = []
        facts: list[Fact] = []
        for group in self.groups.values():
            gone = [
                Record(OffsetKey(group.group_id, *partition), None)
                for partition in group.offsets.committed
                if partition.topic in topics
            ]
            records += gone
            if gone:
                facts.append(_offsets_deleted(group, gone, "their topic was deleted"))
        return Plan(records, _nothing_to_answer, facts)

    # ---- what people ask ----

    def describe(self, group_id: str) -> DescribeGroupsResponseGroup:
        """Show a group; one that does not exist is Dead."""
        group = self.groups.get(group_id)
        if group is None:
            return DescribeGroupsResponseGroup(
                error_code=ErrorCode.NONE,
                group_id=group_id,
                group_state=GroupState.DEAD.value,
                protocol_type="",
                protocol_data="",
                members=[],
            )
        is_stable = group.state is GroupState.STABLE
        return DescribeGroupsResponseGroup(
            error_code=ErrorCode.NONE,
            group_id=group_id,
            group_state=group.state.value,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol or "") if is_stable else "",
            members=[
                DescribeGroupsResponseMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    member_metadata=member.metadata(group.protocol) if is_stable else b"",
                    member_assignment=member.assignment if is_stable else b"",
                )
                for member in group.members.values()
            ],
        )

    def list(self, states: frozenset[str]) -> Iterable[ListGroupsResponseGroup]:
        """The groups in one of ``states`` (lower case; empty: any)."""
        for group in self.groups.values():
            if not states or group.state.value.lower() in states:
                yield ListGroupsResponseGroup(
                    group_id=group.group_id,
                    protocol_type=group.protocol_type or "",
                    group_state=group.state.value,
                    group_type=CLASSIC,
                )


def _unless(failure: BrokerError | None, code: ErrorCode) -> ErrorCode:
    """An item's error: its own, else that of the append."""
    return failure.code if failure is not None and code is ErrorCode.NONE else code


def _fetched(partition: int, value: OffsetValue | None) -> OffsetFetchResponsePartition:
    if value is None:
        return OffsetFetchResponsePartition(
            partition_index=partition, committed_offset=NO_OFFSET, metadata=""
        )
    return OffsetFetchResponsePartition(
        partition_index=partition,
        committed_offset=value.offset,
        committed_leader_epoch=value.leader_epoch,
        metadata=value.metadata,
    )


def _offsets_deleted(group: Group, records: Sequence[Record], reason: str) -> Fact:
    partitions = [
        str(TopicPartition(record.key.topic, record.key.partition))
        for record in records[:100]
        if isinstance(record.key, OffsetKey)
    ]
    facts = {"group": group.group_id, "offsets": len(records), "partitions": partitions, "reason": reason}
    return Fact("GroupOffsetsDeleted", facts)


def _nothing_to_answer(failure: BrokerError | None) -> Message:
    return Message()
