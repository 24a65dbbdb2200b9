"""What a client believes about the cluster: brokers, topics, and who leads what.

A pure cache. Answers may come from brokers that are behind, so belief moves forward only: of two
leaders of one partition the one with the newer leader epoch counts, whichever answer came later.
A topic that came back under another id is another topic, and its epochs start anew. Look-ups cost
O(1); :attr:`Metadata.version` rises with every change, so that others see cheaply that something did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from kafkalite.common import ZERO_UUID, Address, TopicPartition, Uuid
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.metadata import MetadataResponse, MetadataResponseTopic

NO_NODE = -1


@dataclass(frozen=True, slots=True)
class Node:
    """A broker as the cluster advertises it to this client."""

    node_id: int
    host: str
    port: int
    rack: str | None = None
    address: Address = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", Address(self.host, self.port))

    def __str__(self) -> str:
        return f"{self.node_id} at {self.address}"


class PartitionInfo(msgspec.Struct, frozen=True):
    """One partition as metadata describes it."""

    partition: int
    leader: int
    """The leader's id, -1 where there is none."""
    leader_epoch: int
    """-1 where it is not known."""
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()
    offline_replicas: tuple[int, ...] = ()


class TopicInfo(msgspec.Struct, frozen=True):
    """One topic and its partitions, by index."""

    name: str
    topic_id: Uuid
    is_internal: bool
    partitions: Mapping[int, PartitionInfo]
    count: int
    """The number of partitions: what a key's hash is divided by."""
    available: tuple[int, ...]
    """The partitions that have a leader, in order."""


class Metadata:
    """The cache. Feed it with :meth:`update` and :meth:`hint_leader`; it never asks."""

    def __init__(self) -> None:
        self.version = 0
        """Rises with every change of what is below."""
        self.cluster_id: str | None = None
        self.controller_id = NO_NODE
        self.nodes: dict[int, Node] = {}
        self.topics: dict[str, TopicInfo] = {}
        self.topic_errors: dict[str, int] = {}
        """Why a topic that was asked for is not in :attr:`topics`, as of the last answer about it."""
        self._leaders: dict[TopicPartition, PartitionInfo] = {}

    def partition(self, tp: TopicPartition) -> PartitionInfo | None:
        """Return what is known of ``tp``, None where it is not known to exist."""
        return self._leaders.get(tp)

    def leader_of(self, tp: TopicPartition) -> Node | None:
        """Return the broker to ask for ``tp``, or None where none is known."""
        info = self._leaders.get(tp)
        return None if info is None else self.nodes.get(info.leader)

    def update(self, answer: MetadataResponse, *, every_topic: bool) -> bool:
        """Take in an answer; tell whether anything changed.

        With ``every_topic`` the answer lists all topics there are, so what it leaves out is gone.
        """
        before = (self.cluster_id, self.controller_id, self.nodes)
        self.cluster_id = answer.cluster_id if answer.cluster_id is not None else self.cluster_id
        self.controller_id = answer.controller_id
        if answer.brokers:  # A broker that has just started may not know any yet.
            self.nodes = {b.node_id: Node(b.node_id, b.host, b.port, b.rack) for b in answer.brokers}
        changed = before != (self.cluster_id, self.controller_id, self.nodes)
        named = set()
        for topic in answer.topics:
            if topic.name is not None:
                named.add(topic.name)
                changed |= self._update_topic(topic.name, topic)
        if every_topic:
            for name in [name for name in self.topics if name not in named]:
                self._forget(name)
                changed = True
            self.topic_errors = {n: e for n, e in self.topic_errors.items() if n in named}
        if changed:
            self.version += 1
        return changed

    def _update_topic(self, name: str, topic: MetadataResponseTopic) -> bool:
        error = topic.error_code
        if error not in (ErrorCode.NONE, ErrorCode.LEADER_NOT_AVAILABLE):
            self.topic_errors[name] = error
            return self._forget(name)
        self.topic_errors.pop(name, None)
        known = self.topics.get(name)
        same = known is not None and (
            known.topic_id == topic.topic_id or ZERO_UUID in (known.topic_id, topic.topic_id)
        )
        old = known.partitions if known is not None and same else {}
        partitions: dict[int, PartitionInfo] = {}
        for p in topic.partitions:
            told = PartitionInfo(
                p.partition_index,
                p.leader_id,
                p.leader_epoch,
                tuple(p.replica_nodes),
                tuple(p.isr_nodes),
                tuple(p.offline_replicas),
            )
            held = old.get(p.partition_index)
            is_older = held is not None and 0 <= told.leader_epoch < held.leader_epoch
            partitions[p.partition_index] = held if held is not None and is_older else told
        for index, held in old.items():  # Partitions are never taken away: the answer is behind.
            partitions.setdefault(index, held)
        info = _topic_info(name, topic.topic_id, topic.is_internal, partitions)
        if info == known:
            return False
        self._put(info)
        return True

    def hint_leader(self, tp: TopicPartition, leader: int, leader_epoch: int) -> bool:
        """Take a leader that a broker named in an error; tell whether it is news.

        Counts only if its epoch is newer and its address is known (see :meth:`hint_nodes`).
        """
        held = self._leaders.get(tp)
        if held is None or leader not in self.nodes or leader_epoch <= held.leader_epoch:
            return False
        topic = self.topics[tp.topic]
        news = PartitionInfo(
            held.partition, leader, leader_epoch, held.replicas, held.isr, held.offline_replicas
        )
        self._put(
            _topic_info(
                topic.name, topic.topic_id, topic.is_internal, {**topic.partitions, tp.partition: news}
            )
        )
        self.version += 1
        return True

    def hint_nodes(self, nodes: Iterable[Node]) -> None:
        """Take brokers' addresses that came along with leader hints; known ones stay as they are."""
        for node in nodes:
            if node.node_id not in self.nodes:
                self.nodes = {**self.nodes, node.node_id: node}
                self.version += 1

    def _put(self, info: TopicInfo) -> None:
        self._forget(info.name)
        self.topics[info.name] = info
        for index, partition in info.partitions.items():
            self._leaders[TopicPartition(info.name, index)] = partition

    def _forget(self, name: str) -> bool:
        topic = self.topics.pop(name, None)
        if topic is None:
            return False
        for index in topic.partitions:
            del self._leaders[TopicPartition(name, index)]
        return True


def _topic_info(
    name: str, topic_id: Uuid, is_internal: bool, partitions: dict[int, PartitionInfo]
) -> TopicInfo:
    ordered = dict(sorted(partitions.items()))
    available = tuple(index for index, p in ordered.items() if p.leader >= 0)
    return TopicInfo(name, topic_id, is_internal, ordered, len(ordered), available)
