"""The way to a group's coordinator: finding it, asking it, committing offsets there and reading them back.

The coordinator is remembered until it says, by an answer or by silence, that it is not the one; then the next
request looks for it anew. Each request is one attempt; who waits how long between attempts is the caller's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeVar

from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.errors import ClusterUnreachableError
from kafkalite.client.metadata import Node
from kafkalite.client.records import OffsetAndMetadata
from kafkalite.common import TopicPartition
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_commit import (
    OffsetCommitPartition,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitTopic,
)
from kafkalite.protocol.offset_fetch import (
    OffsetFetchGroup,
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchTopic,
)
from kafkalite.transport import rpc

Response = TypeVar("Response", bound=Message)

COORDINATOR_GONE: Final = frozenset(
    {
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NETWORK_EXCEPTION,
    }
)
"""Answers after which the coordinator is looked for anew."""
TRY_AGAIN: Final = COORDINATOR_GONE | {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.UNSTABLE_OFFSET_COMMIT,
}


class Coordinator:
    """One group's coordinator."""

    def __init__(self, cluster: Cluster, group_id: str) -> None:
        self._cluster = cluster
        self.group_id = group_id
        self.node: Node | None = None
        """Where it was last found."""

    async def look_up(self) -> Node:
        """Ask a broker where the coordinator is; does not change :attr:`node`.

        Raises the broker's error (CoordinatorNotAvailableError most likely) or ClusterUnreachableError.
        """
        request = FindCoordinatorRequest(key_type=0, coordinator_keys=[self.group_id])
        answer = await self._cluster.ask_any(request, FindCoordinatorResponse)
        if not answer.coordinators:
            raise error_for(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"group {self.group_id}: no answer about it")
        found = answer.coordinators[0]
        if found.error_code != ErrorCode.NONE:
            raise error_for(
                found.error_code, found.error_message or f"group {self.group_id} has no coordinator"
            )
        return Node(found.node_id, found.host, found.port)

    async def ask(
        self, request: Message, response: type[Response], *, lane: str, timeout_ms: int
    ) -> Response:
        """Ask the coordinator, looking for it first where it is not known.

        Raises BrokerError where it is not found or no answer comes (NetworkError); the error codes in the
        answer are the caller's, who tells :meth:`heard` of them.
        """
        try:
            if self.node is None:
                self.node = await self.look_up()
            node = self.node
            return await self._cluster.ask(node, request, response, lane=lane, timeout_ms=timeout_ms)
        except ConnectionFailed as failure:
            self.node = None
            self._cluster.request_refresh()
            raise error_for(ErrorCode.NETWORK_EXCEPTION, str(failure)) from failure
        except ClusterUnreachableError as failure:
            raise error_for(ErrorCode.NETWORK_EXCEPTION, str(failure)) from failure
        except rpc.RequestRefused as refusal:
            if refusal.status != 503:
                raise
            self.node = None
            raise error_for(ErrorCode.COORDINATOR_NOT_AVAILABLE, str(refusal)) from refusal

    def heard(self, code: int) -> None:
        """Take note of an answer's error code."""
        if code in COORDINATOR_GONE:
            self.node = None

    async def commit(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        generation_id: int = -1,
        member_id: str = "",
        group_instance_id: str | None = None,
    ) -> dict[TopicPartition, int]:
        """One attempt to commit; the answer's error code of each partition. Raises as :meth:`ask`."""
        topics: dict[str, list[OffsetCommitPartition]] = {}
        for tp, found in offsets.items():
            topics.setdefault(tp.topic, []).append(
                OffsetCommitPartition(
                    partition_index=tp.partition,
                    committed_offset=found.offset,
                    committed_leader_epoch=found.leader_epoch,
                    committed_metadata=found.metadata,
                )
            )
        request = OffsetCommitRequest(
            group_id=self.group_id,
            generation_id_or_member_epoch=generation_id,
            member_id=member_id,
            group_instance_id=group_instance_id,
            topics=[OffsetCommitTopic(name=name, partitions=parts) for name, parts in topics.items()],
        )
        answer = await self.ask(
            request, OffsetCommitResponse, lane="offsets", timeout_ms=self._cluster.request_timeout_ms
        )
        codes = {
            TopicPartition(topic.name, p.partition_index): p.error_code
            for topic in answer.topics
            for p in topic.partitions
        }
        for code in codes.values():
            self.heard(code)
        return codes

    async def committed(
        self, partitions: Collection[TopicPartition] | None = None, *, require_stable: bool = True
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """One attempt to read back what is committed, of ``partitions`` or of all; without those of which
        nothing is. Raises BrokerError, also as :meth:`ask`."""
        topics = None if partitions is None else _topics(partitions)
        request = OffsetFetchRequest(
            groups=[OffsetFetchGroup(group_id=self.group_id, topics=topics)], require_stable=require_stable
        )
        answer = await self.ask(
            request, OffsetFetchResponse, lane="offsets", timeout_ms=self._cluster.request_timeout_ms
        )
        found: dict[TopicPartition, OffsetAndMetadata] = {}
        for group in answer.groups:
            self._raise(group.error_code, f"offsets of group {self.group_id}")
            for topic in group.topics:
                for p in topic.partitions:
                    tp = TopicPartition(topic.name, p.partition_index)
                    self._raise(p.error_code, f"the offset of group {self.group_id} in {tp}")
                    if p.committed_offset >= 0:
                        found[tp] = OffsetAndMetadata(
                            p.committed_offset, p.metadata or "", p.committed_leader_epoch
                        )
        return found

    def _raise(self, code: int, what: str) -> None:
        if code != ErrorCode.NONE:
            self.heard(code)
            raise error_for(code, what)

    async def wait(self, failures: int) -> None:
        """Wait after the ``failures``-th failure in a row."""
        cluster = self._cluster
        wait = backoff_ms(failures, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, cluster.chance)
        await asyncio.sleep(wait / 1000)

    async def committed_in_time(
        self, partitions: Collection[TopicPartition] | None, *, timeout_ms: float, require_stable: bool = True
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """:meth:`committed`, tried again until it succeeds.

        Raises the broker's error where trying again cannot help, and the last one when time is over.
        """
        last: BrokerError | None = None
        failures = 0
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    try:
                        return await self.committed(partitions, require_stable=require_stable)
                    except BrokerError as error:
                        if error.code not in TRY_AGAIN:
                            raise
                        last = error
                    failures += 1
                    await self.wait(failures)
        except TimeoutError:
            if last is not None:
                raise last from None
            self._cluster.raise_timeout(f"no answer about the offsets of {self.group_id}", timeout_ms)


def _topics(partitions: Iterable[TopicPartition]) -> list[OffsetFetchTopic]:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in partitions:
        by_topic.setdefault(topic, []).append(partition)
    return [OffsetFetchTopic(name=name, partition_indexes=numbers) for name, numbers in by_topic.items()]
