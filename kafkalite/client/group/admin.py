"""Administering groups: listing, describing and deleting them, and their offsets.

What concerns one group is asked of its coordinator, which is looked for again where it has moved; groups are
listed by asking every broker, since each knows those that it coordinates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from kafkalite.client.cluster import Cluster
from kafkalite.client.group.coordinator import TRY_AGAIN, Coordinator
from kafkalite.client.metadata import Node
from kafkalite.client.records import OffsetAndMetadata
from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import PROTOCOL_TYPE, Assignment, MalformedConsumerProtocol
from kafkalite.protocol.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from kafkalite.protocol.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.leave_group import LeaveGroupMember, LeaveGroupRequest, LeaveGroupResponse
from kafkalite.protocol.list_groups import ListGroupsRequest, ListGroupsResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_delete import (
    OffsetDeletePartition,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteTopic,
)

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=Message)


class GroupListing(msgspec.Struct, frozen=True):
    """A group as a list names it."""

    group_id: str
    protocol_type: str
    """`consumer` for consumers, empty for a group that only keeps offsets."""
    state: str


class MemberDescription(msgspec.Struct, frozen=True):
    """One member."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    host: str
    assignment: tuple[TopicPartition, ...]


class GroupDescription(msgspec.Struct, frozen=True):
    """A group, its members, and who coordinates it."""

    group_id: str
    state: str
    """Empty, PreparingRebalance, CompletingRebalance, Stable, or Dead where there is no such group."""
    protocol_type: str
    assignor: str
    """The assignor that the members agreed on; empty unless Stable."""
    members: tuple[MemberDescription, ...]
    coordinator: Node


class GroupAdmin:
    """The part of the admin client that is about groups."""

    _cluster: Cluster
    _timeout_ms: int

    async def _until(self, attempt: Callable[[], Awaitable[T]], what: str, limit_ms: float) -> T:
        raise NotImplementedError

    async def list_consumer_groups(self, *, states: Iterable[str] = ()) -> list[GroupListing]:
        """All groups by name, or those in one of ``states``. Raises the error of the broker that failed."""
        request = ListGroupsRequest(states_filter=list(states))

        async def at(node: Node) -> list[GroupListing]:
            async def attempt() -> list[GroupListing]:
                answer = await self._cluster.ask(
                    node,
                    request,
                    ListGroupsResponse,
                    lane="control",
                    timeout_ms=self._cluster.request_timeout_ms,
                )
                if answer.error_code != ErrorCode.NONE:
                    raise _again(answer.error_code, f"groups of broker {node}")
                return [GroupListing(g.group_id, g.protocol_type, g.group_state) for g in answer.groups]

            return await self._until(attempt, f"broker {node} did not list its groups", self._timeout_ms)

        async def nodes() -> list[Node]:
            await self._cluster.refreshed()
            return list(self._cluster.metadata.nodes.values())

        brokers = await self._until(nodes, "no metadata", self._timeout_ms)
        lists = await asyncio.gather(*map(at, brokers))
        # One that is just moving may be named twice; it is the same group.
        found = {group.group_id: group for part in lists for group in part}
        return [found[name] for name in sorted(found)]

    async def describe_consumer_groups(self, group_ids: Iterable[str]) -> dict[str, GroupDescription]:
        """Describe groups; one that does not exist is Dead. Raises the coordinator's error."""
        return {name: await self._describe(name) for name in dict.fromkeys(group_ids)}

    async def _describe(self, group_id: str) -> GroupDescription:
        coordinator = Coordinator(self._cluster, group_id)

        async def attempt() -> GroupDescription:
            request = DescribeGroupsRequest(groups=[group_id])
            answer = await self._ask(coordinator, request, DescribeGroupsResponse)
            [group] = answer.groups
            if group.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
                assert coordinator.node is not None
                return GroupDescription(group_id, "Dead", "", "", (), coordinator.node)
            if group.error_code != ErrorCode.NONE:
                coordinator.heard(group.error_code)
                raise _again(group.error_code, f"group {group_id}")
            members = tuple(
                MemberDescription(
                    m.member_id,
                    m.group_instance_id,
                    m.client_id,
                    m.client_host,
                    _assigned(m.member_assignment) if group.protocol_type == PROTOCOL_TYPE else (),
                )
                for m in sorted(group.members, key=lambda m: m.member_id)
            )
            assert coordinator.node is not None
            return GroupDescription(
                group_id,
                group.group_state,
                group.protocol_type,
                group.protocol_data,
                members,
                coordinator.node,
            )

        return await self._until(attempt, f"group {group_id} was not described", self._timeout_ms)

    async def delete_consumer_groups(self, group_ids: Iterable[str]) -> dict[str, BrokerError | None]:
        """Delete groups and their offsets; by group None, or why it was not (NonEmptyGroupError, …)."""
        results: dict[str, BrokerError | None] = {}
        for group_id in dict.fromkeys(group_ids):
            coordinator = Coordinator(self._cluster, group_id)

            async def attempt(coordinator: Coordinator = coordinator) -> None:
                request = DeleteGroupsRequest(groups_names=[coordinator.group_id])
                answer = await self._ask(coordinator, request, DeleteGroupsResponse)
                [result] = answer.results
                if result.error_code != ErrorCode.NONE:
                    coordinator.heard(result.error_code)
                    raise _again(result.error_code, f"group {coordinator.group_id}")

            try:
                await self._until(attempt, f"group {group_id} was not deleted", self._timeout_ms)
                results[group_id] = None
            except BrokerError as error:
                results[group_id] = error
        return results

    async def list_consumer_group_offsets(
        self, group_id: str, partitions: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed, of ``partitions`` or of all; without those where it has nothing."""
        return await Coordinator(self._cluster, group_id).committed_in_time(
            partitions, timeout_ms=self._timeout_ms, require_stable=False
        )

    async def alter_consumer_group_offsets(
        self, group_id: str, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]
    ) -> None:
        """Commit ``offsets`` for a group without members.

        Raises UnknownMemberIdError where it has some, and the error of the partition that failed.
        """
        coordinator = Coordinator(self._cluster, group_id)
        wanted = {
            tp: OffsetAndMetadata(offset) if isinstance(offset, int) else offset
            for tp, offset in offsets.items()
        }

        async def attempt() -> None:
            codes = await coordinator.commit(wanted)
            for tp, code in codes.items():
                if code != ErrorCode.NONE:
                    raise _again(code, f"the offset of group {group_id} in {tp}")

        await self._until(attempt, f"offsets of group {group_id} were not changed", self._timeout_ms)

    async def delete_consumer_group_offsets(
        self, group_id: str, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, BrokerError | None]:
        """Forget committed offsets; by partition None, or why not (GroupSubscribedToTopicError, …).

        Raises the group's error (GroupIdNotFoundError, NonEmptyGroupError, …).
        """
        coordinator = Coordinator(self._cluster, group_id)
        by_topic: dict[str, list[int]] = {}
        for topic, partition in partitions:
            by_topic.setdefault(topic, []).append(partition)
        request = OffsetDeleteRequest(
            group_id=group_id,
            topics=[
                OffsetDeleteTopic(
                    name=topic, partitions=[OffsetDeletePartition(partition_index=number) for number in parts]
                )
                for topic, parts in by_topic.items()
            ],
        )

        async def attempt() -> dict[TopicPartition, BrokerError | None]:
            answer = await self._ask(coordinator, request, OffsetDeleteResponse)
            if answer.error_code != ErrorCode.NONE:
                coordinator.heard(answer.error_code)
                raise _again(answer.error_code, f"group {group_id}")
            return {
                (tp := TopicPartition(topic.name, p.partition_index)): (
                    error_for(p.error_code, f"the offset of group {group_id} in {tp}")
                    if p.error_code != ErrorCode.NONE
                    else None
                )
                for topic in answer.topics
                for p in topic.partitions
            }

        return await self._until(attempt, f"offsets of group {group_id} were not deleted", self._timeout_ms)

    async def remove_members_from_consumer_group(
        self, group_id: str, group_instance_ids: Sequence[str], *, reason: str = "removed by an administrator"
    ) -> dict[str, BrokerError | None]:
        """Remove static members; by instance None, or why not (UnknownMemberIdError)."""
        coordinator = Coordinator(self._cluster, group_id)
        request = LeaveGroupRequest(
            group_id=group_id,
            members=[
                LeaveGroupMember(group_instance_id=name, reason=reason)
                for name in dict.fromkeys(group_instance_ids)
            ],
        )

        async def attempt() -> dict[str, BrokerError | None]:
            answer = await self._ask(coordinator, request, LeaveGroupResponse)
            if answer.error_code != ErrorCode.NONE:
                coordinator.heard(answer.error_code)
                raise _again(answer.error_code, f"group {group_id}")
            return {
                m.group_instance_id or "": (
                    error_for(m.error_code, f"{m.group_instance_id} in group {group_id}")
                    if m.error_code != ErrorCode.NONE
                    else None
                )
                for m in answer.members
            }

        return await self._until(attempt, f"members of {group_id} were not removed", self._timeout_ms)

    async def _ask(self, coordinator: Coordinator, request: Message, response: type[ResponseT]) -> ResponseT:
        return await coordinator.ask(
            request, response, lane="control", timeout_ms=self._cluster.request_timeout_ms
        )


def _again(code: int, what: str) -> BrokerError:
    """The error of an answer; one that another attempt may cure is retriable also where Kafka's is not."""
    if code in TRY_AGAIN:
        return error_for(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{what}: {ErrorCode(code).name}")
    return error_for(code, what)


def _assigned(data: bytes) -> tuple[TopicPartition, ...]:
    try:
        return tuple(sorted(Assignment.decode(data).partitions))
    except MalformedConsumerProtocol:
        return ()  # Its members speak something of their own; what they own is theirs to know.
