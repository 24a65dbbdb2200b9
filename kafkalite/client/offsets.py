"""Asking partition leaders for offsets: the earliest, the latest, or the first at or after a time.

Used by the consumer and the admin client. Partitions are grouped by leader; whoever answers that it
does not lead is no longer believed, and the rest is asked again until the time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.metadata import Node
from kafkalite.common import TopicPartition
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from kafkalite.transport import rpc

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3

READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1


class FoundOffset(NamedTuple):
    """What a leader answered."""

    offset: int
    """-1 where no record is that young."""
    timestamp: int
    """The found record's own timestamp, -1 for the earliest and latest offset."""
    leader_epoch: int
    """The epoch of the record at that offset, -1 where it is not known."""


async def list_offsets(
    cluster: Cluster, wanted: Mapping[TopicPartition, int], *, isolation_level: int, timeout_ms: float
) -> dict[TopicPartition, FoundOffset]:
    """Ask for each partition's offset at a timestamp (or LATEST, EARLIEST, MAX_TIMESTAMP).

    Raises the leader's error where trying again cannot help, and ClientTimeoutError or
    ClusterUnreachableError when not every partition was answered within ``timeout_ms``.
    """
    found: dict[TopicPartition, FoundOffset] = {}
    last_error: BrokerError | None = None
    cluster.want(dict.fromkeys(tp.topic for tp in wanted))
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            rounds = 0
            while missing := {tp: at for tp, at in wanted.items() if tp not in found}:
                if rounds:
                    wait = backoff_ms(
                        rounds, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, cluster.chance
                    )
                    await asyncio.sleep(wait / 1000)
                    await cluster.refreshed()
                elif any(cluster.metadata.leader_of(tp) is None for tp in missing):
                    await cluster.refreshed()
                rounds += 1
                groups, error = by_leader(cluster, missing)
                last_error = error or last_error
                answers = await asyncio.gather(
                    *(ask_leader(cluster, node, group, isolation_level) for node, group in groups)
                )
                for part, error in answers:
                    found.update(part)
                    last_error = error or last_error
    except TimeoutError:
        if last_error is not None:
            raise last_error from None
        names = ", ".join(str(tp) for tp in wanted if tp not in found)
        cluster.raise_timeout(f"no offset for {names}", timeout_ms)
    return found


def by_leader(
    cluster: Cluster, wanted: Mapping[TopicPartition, int]
) -> tuple[list[tuple[Node, dict[TopicPartition, int]]], BrokerError | None]:
    """Group ``wanted`` by leader; partitions without one are left out, and why is the second result."""
    groups: dict[int, tuple[Node, dict[TopicPartition, int]]] = {}
    error = None
    for tp, at in wanted.items():
        node = cluster.metadata.leader_of(tp)
        if node is not None:
            groups.setdefault(node.node_id, (node, {}))[1][tp] = at
        elif cluster.metadata.partition(tp) is None:
            code = cluster.metadata.topic_errors.get(tp.topic, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            error = error_for(code, f"{tp} does not exist as far as the cluster knows")
            if not error.retriable:
                raise error
        else:
            error = error_for(ErrorCode.LEADER_NOT_AVAILABLE, f"{tp} has no leader")
    return list(groups.values()), error


async def ask_leader(
    cluster: Cluster, node: Node, wanted: Mapping[TopicPartition, int], isolation_level: int
) -> tuple[dict[TopicPartition, FoundOffset], BrokerError | None]:
    """Ask one leader; return what it answered, and the last retriable error among the rest."""
    topics: dict[str, list[ListOffsetsPartition]] = {}
    for tp, at in wanted.items():
        info = cluster.metadata.partition(tp)
        topics.setdefault(tp.topic, []).append(
            ListOffsetsPartition(
                partition_index=tp.partition,
                current_leader_epoch=info.leader_epoch if info is not None else -1,
                timestamp=at,
            )
        )
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=isolation_level,
        topics=[ListOffsetsTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )
    try:
        answer = await cluster.ask(
            node, request, ListOffsetsResponse, lane="control", timeout_ms=cluster.request_timeout_ms
        )
    except (ConnectionFailed, rpc.RequestRefused) as failure:
        return {}, error_for(ErrorCode.NETWORK_EXCEPTION, str(failure))
    found, last_error = {}, None
    for topic in answer.topics:
        for p in topic.partitions:
            tp = TopicPartition(topic.name, p.partition_index)
            if p.error_code == ErrorCode.NONE:
                found[tp] = FoundOffset(p.offset, p.timestamp, p.leader_epoch)
                continue
            error = error_for(p.error_code, f"{tp} at broker {node}")
            if not error.retriable:
                raise error
            last_error = error
    return found, last_error


def tuple_of(partitions: Iterable[TopicPartition]) -> tuple[TopicPartition, ...]:
    """Take partitions as a caller gave them: pairs are as good as TopicPartition, repeats count once."""
    return tuple(dict.fromkeys(TopicPartition(*tp) for tp in partitions))
