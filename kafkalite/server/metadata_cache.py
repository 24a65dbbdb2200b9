"""What this broker last heard of the cluster from the controller.

Every `update_metadata` replaces the list of live brokers and merges partition states; every
broker answers `metadata` and `describe_cluster` from here, so the answer may be older than the
controller's own view, never newer. Lookups are O(1); the broker list of an answer is built once
per update and listener. Pure: no IO, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from kafkalite.common import (
    INTERNAL_TOPICS,
    LEADER_DURING_DELETE,
    NO_BROKER,
    ZERO_UUID,
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    Endpoint,
    LeaderEpoch,
    TopicPartition,
    Uuid,
)
from kafkalite.protocol.describe_cluster import DescribeClusterResponse, DescribeClusterResponseBroker
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
    MetadataTopic,
)
from kafkalite.protocol.update_metadata import UpdateMetadataPartition, UpdateMetadataRequest


class MetadataCache:
    """Live brokers, topics and partition states of the cluster ``cluster_id``."""

    def __init__(self, cluster_id: Uuid) -> None:
        self.cluster_id = cluster_id
        self.controller_id = NO_BROKER
        self.is_told = False
        """Whether the controller has told this broker anything since it started."""
        self._brokers: dict[BrokerId, BrokerInfo] = {}
        self._topics: dict[str, dict[int, UpdateMetadataPartition]] = {}
        self._topic_ids: dict[str, Uuid] = {}
        self._names: dict[Uuid, str] = {}

    def update(self, request: UpdateMetadataRequest) -> frozenset[str]:
        """Take over what the controller says; returns the topics that are no more (deleted).

        Fencing is the caller's.
        """
        gone = set()
        self.is_told = True
        self.controller_id = BrokerId(request.controller_id)
        self._brokers = {
            BrokerId(broker.id): BrokerInfo(
                BrokerId(broker.id),
                BrokerEpoch(-1),
                tuple(
                    Endpoint(endpoint.listener, endpoint.host, endpoint.port) for endpoint in broker.endpoints
                ),
                broker.rack,
            )
            for broker in request.live_brokers
        }
        for topic in request.topic_states:
            partitions = self._topics.setdefault(topic.topic_name, {})
            for state in topic.partition_states:
                if state.leader == LEADER_DURING_DELETE:
                    partitions.pop(state.partition_index, None)
                else:
                    partitions[state.partition_index] = state
            if not partitions:
                self._forget(topic.topic_name)
                gone.add(topic.topic_name)
            elif topic.topic_id != ZERO_UUID:
                self._forget_id(topic.topic_name)
                self._topic_ids[topic.topic_name] = topic.topic_id
                self._names[topic.topic_id] = topic.topic_name
        return frozenset(gone)

    def _forget(self, topic: str) -> None:
        self._forget_id(topic)
        del self._topics[topic]

    def _forget_id(self, topic: str) -> None:
        topic_id = self._topic_ids.pop(topic, None)
        if topic_id is not None:
            del self._names[topic_id]

    # Lookups

    def is_alive(self, broker_id: BrokerId) -> bool:
        """Tell whether the controller counts ``broker_id`` among the living."""
        return broker_id in self._brokers

    def broker(self, broker_id: BrokerId) -> BrokerInfo | None:
        """The endpoints of a live broker; its epoch is not part of `update_metadata`."""
        return self._brokers.get(broker_id)

    def topics(self) -> Iterable[str]:
        """Names of all topics."""
        return self._topics.keys()

    def topic_id(self, topic: str) -> Uuid:
        """The topic's id, or the zero id where it is unknown."""
        return self._topic_ids.get(topic, ZERO_UUID)

    def partition_count(self, topic: str) -> int:
        """How many partitions of ``topic`` are known; 0 for an unknown topic."""
        return len(self._topics.get(topic, ()))

    def leader_of(self, partition: TopicPartition) -> tuple[BrokerId, LeaderEpoch] | None:
        """Leader and leader epoch, or None for an unknown partition."""
        state = self._topics.get(partition.topic, {}).get(partition.partition)
        return None if state is None else (BrokerId(state.leader), LeaderEpoch(state.leader_epoch))

    # Answers

    def metadata(self, wanted: list[MetadataTopic] | None, *, listener: str) -> MetadataResponse:
        """Answer `metadata`: the endpoints are those of ``listener``, on which the asker came.

        ``wanted`` None means all topics. An unknown topic is answered with its error.
        """
        if wanted is None:
            topics = [self._topic(name, listener) for name in sorted(self._topics)]
        else:
            topics = [self._wanted(topic, listener) for topic in wanted]
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(
                    node_id=broker.broker_id, host=endpoint.host, port=endpoint.port, rack=broker.rack
                )
                for broker, endpoint in self._reachable(listener)
            ],
            cluster_id=self.cluster_id,
            controller_id=self.controller_id,
            topics=topics,
        )

    def describe_cluster(self, *, listener: str) -> DescribeClusterResponse:
        """Answer `describe_cluster` with the endpoints of ``listener``."""
        return DescribeClusterResponse(
            throttle_time_ms=0,
            error_code=ErrorCode.NONE,
            cluster_id=self.cluster_id,
            controller_id=self.controller_id,
            brokers=[
                DescribeClusterResponseBroker(
                    broker_id=broker.broker_id, host=endpoint.host, port=endpoint.port, rack=broker.rack
                )
                for broker, endpoint in self._reachable(listener)
            ],
        )

    def _reachable(self, listener: str) -> Iterable[tuple[BrokerInfo, Endpoint]]:
        for broker_id in sorted(self._brokers):
            broker = self._brokers[broker_id]
            endpoint = broker.endpoint(listener)
            if endpoint is not None:
                yield broker, endpoint

    def _wanted(self, topic: MetadataTopic, listener: str) -> MetadataResponseTopic:
        name = topic.name if topic.name is not None else self._names.get(topic.topic_id)
        if name is None:
            return MetadataResponseTopic(
                error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=topic.topic_id, partitions=[]
            )
        return self._topic(name, listener)

    def _topic(self, name: str, listener: str) -> MetadataResponseTopic:
        partitions = self._topics.get(name)
        if partitions is None:
            return MetadataResponseTopic(
                error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name=name, partitions=[]
            )
        return MetadataResponseTopic(
            error_code=ErrorCode.NONE,
            name=name,
            topic_id=self.topic_id(name),
            is_internal=name in INTERNAL_TOPICS,
            partitions=[self._partition(index, partitions[index], listener) for index in sorted(partitions)],
        )

    def _partition(
        self, index: int, state: UpdateMetadataPartition, listener: str
    ) -> MetadataResponsePartition:
        leader = self._brokers.get(BrokerId(state.leader))
        if leader is None:
            error, leader_id = ErrorCode.LEADER_NOT_AVAILABLE, NO_BROKER
        elif leader.endpoint(listener) is None:
            error, leader_id = ErrorCode.LISTENER_NOT_FOUND, NO_BROKER
        else:
            error, leader_id = ErrorCode.NONE, leader.broker_id
        return MetadataResponsePartition(
            error_code=error,
            partition_index=index,
            leader_id=leader_id,
            leader_epoch=state.leader_epoch,
            replica_nodes=state.replicas,
            isr_nodes=state.isr,
            offline_replicas=state.offline_replicas,
        )
