"""What the topic commands print, from what the cluster said. Pure.

The text is Kafka 2.8's to the tab, because ten years of grep and awk depend on it; the JSON is
CONTRACTS section 3's. What `kafkalite topics` adds for people is one sentence on what an
acknowledgement survives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from kafkalite.common import ZERO_UUID

COLLISION_WARNING: Final = (
    "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') "
    "could collide. To avoid issues it is best to use either, but not both."
)


class PartitionView(msgspec.Struct, frozen=True):
    """One partition as the cluster describes it."""

    partition: int
    leader: int | None
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


class TopicView(msgspec.Struct, frozen=True):
    """One topic as the cluster describes it."""

    topic: str
    topic_id: str
    partitions: tuple[PartitionView, ...]
    is_internal: bool = False
    overrides: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Configs that are set on the topic itself, by name."""
    min_insync_replicas: int = 1
    unclean_elections: bool = False
    """`unclean.leader.election.enable`, wherever it is set."""

    @property
    def replication_factor(self) -> int:
        return len(self.partitions[0].replicas) if self.partitions else 0


class Filters(msgspec.Struct, frozen=True):
    """The trouble that `--describe` is to look for; none: show everything."""

    under_replicated: bool = False
    unavailable: bool = False
    under_min_isr: bool = False
    at_min_isr: bool = False
    with_overrides: bool = False

    @property
    def by_partition(self) -> bool:
        return self.under_replicated or self.unavailable or self.under_min_isr or self.at_min_isr

    def wants(self, partition: PartitionView, topic: TopicView, live: frozenset[int]) -> bool:
        """Tell whether ``partition`` is in trouble of a kind that was asked for (or none was)."""
        minimum = topic.min_insync_replicas
        return (
            not self.by_partition
            or (self.under_replicated and len(partition.isr) < len(partition.replicas))
            or (self.unavailable and (partition.leader is None or partition.leader not in live))
            or (self.under_min_isr and (partition.leader is None or len(partition.isr) < minimum))
            or (self.at_min_isr and len(partition.isr) == minimum)
        )


def describe(
    topics: Sequence[TopicView], filters: Filters, live: frozenset[int], *, talkative: bool
) -> list[str]:
    """The lines of `--describe`; ``talkative`` adds the sentence for people."""
    lines = []
    for topic in topics:
        if not filters.by_partition and (topic.overrides or not filters.with_overrides):
            lines.append(header_line(topic))
            if talkative:
                lines.append(f"\t{survival(topic)}")
        if not filters.with_overrides:
            lines += [partition_line(topic, p) for p in topic.partitions if filters.wants(p, topic, live)]
    return lines


def header_line(topic: TopicView) -> str:
    """`Topic: t	TopicId: …	PartitionCount: …	ReplicationFactor: …	Configs: …`"""
    topic_id = f"\tTopicId: {topic.topic_id}" if topic.topic_id != ZERO_UUID else ""
    configs = ",".join(f"{name}={value}" for name, value in topic.overrides.items())
    return (
        f"Topic: {topic.topic}{topic_id}\tPartitionCount: {len(topic.partitions)}"
        f"\tReplicationFactor: {topic.replication_factor}\tConfigs: {configs}"
    )


def partition_line(topic: TopicView, partition: PartitionView) -> str:
    """`	Topic: t	Partition: 0	Leader: 1	Replicas: 1,2,3	Isr: 1,2,3`"""
    leader = "none" if partition.leader is None else str(partition.leader)
    return (
        f"\tTopic: {topic.topic}\tPartition: {partition.partition}\tLeader: {leader}"
        f"\tReplicas: {','.join(map(str, partition.replicas))}\tIsr: {','.join(map(str, partition.isr))}"
    )


def survival(topic: TopicView) -> str:
    """Say in one sentence what an acknowledgement of `acks=all` on this topic survives."""
    copies = min(topic.min_insync_replicas, topic.replication_factor)
    if topic.replication_factor == 1:
        promise = "survives the broker process, but not the loss of the one broker that has it"
    elif copies == 1:
        promise = (
            f"may be on one of {topic.replication_factor} brokers only, and is then lost with it "
            "(min.insync.replicas=1; 2 would promise a second copy)"
        )
    else:
        others = "any one broker" if copies == 2 else f"any {copies - 1} brokers"
        promise = (
            f"is on at least {copies} of {topic.replication_factor} brokers and survives the loss of {others}"
        )
    if topic.unclean_elections and topic.replication_factor > 1:
        promise += ", unless an unclean election, which is allowed here, picks a broker that lacks it"
    return f"An acknowledgement (acks=all) {promise}."


def to_json(topics: Sequence[TopicView], filters: Filters, live: frozenset[int]) -> dict[str, Any]:
    """The document of `--output json`; the filters leave out what the text would leave out."""
    rows = []
    for topic in topics:
        partitions = [p for p in topic.partitions if filters.wants(p, topic, live)]
        if (filters.by_partition and not partitions) or (filters.with_overrides and not topic.overrides):
            continue
        rows.append(
            {
                "topic": topic.topic,
                "topic_id": topic.topic_id,
                "partition_count": len(topic.partitions),
                "replication_factor": topic.replication_factor,
                "configs": dict(topic.overrides),
                "partitions": [
                    {
                        "partition": p.partition,
                        "leader": p.leader,
                        "leader_epoch": p.leader_epoch,
                        "replicas": list(p.replicas),
                        "isr": list(p.isr),
                    }
                    for p in partitions
                ],
            }
        )
    return {"topics": rows}


def parse_assignment(text: str) -> dict[int, list[int]]:
    """Take `1:2,2:3` apart: partitions by comma, replicas by colon. Raises ValueError."""
    assignment: dict[int, list[int]] = {}
    for number, part in enumerate(text.split(",")):
        try:
            replicas = [int(replica) for replica in part.split(":")]
        except ValueError:
            raise ValueError(f"{part!r} is not a list of broker ids like 1:2:3") from None
        if len(set(replicas)) != len(replicas):
            raise ValueError(f"partition replica lists may not contain duplicate entries: {part}")
        assignment[number] = replicas
        if len(replicas) != len(assignment[0]):
            raise ValueError(f"partition {number} has a different replication factor than partition 0")
    return assignment
