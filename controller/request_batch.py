"""What one event has to tell the brokers, gathered and put in order.

While an event is handled its decisions are added here; at the end :meth:`RequestBatch.drain` turns
them into at most one request of each kind a broker: first leader_and_isr, then update_metadata,
then stop_replica, so that a broker knows who leads before clients are sent to it, and serves before
it stops. A partition that changes hands is added to everybody's metadata by itself. `is_new` and
`delete_partition` stick: once said in a batch, a later word on the same replica does not take them
back.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from controller.context import ControllerContext
from kafkalite.common import (
    LEADER_DURING_DELETE,
    ZERO_UUID,
    BrokerId,
    BrokerInfo,
    LeaderAndIsr,
    TopicPartition,
)
from kafkalite.journal import EventId
from kafkalite.protocol.leader_and_isr import (
    LeaderAndIsrLiveLeader,
    LeaderAndIsrPartition,
    LeaderAndIsrRequest,
    LeaderAndIsrTopic,
)
from kafkalite.protocol.message import Message
from kafkalite.protocol.stop_replica import StopReplicaPartition, StopReplicaRequest, StopReplicaTopic
from kafkalite.protocol.update_metadata import (
    UpdateMetadataEndpoint,
    UpdateMetadataLiveBroker,
    UpdateMetadataPartition,
    UpdateMetadataRequest,
    UpdateMetadataTopic,
)

SECURITY_PROTOCOL_NUMBERS = {"PLAINTEXT": 0, "SSL": 1, "SASL_PLAINTEXT": 2, "SASL_SSL": 3}
LEADER_EPOCH_DURING_DELETE = -2
NO_LEADER_EPOCH = -1


class Outgoing(msgspec.Struct, frozen=True):
    """One request to one broker."""

    broker: BrokerId
    request: Message
    partitions: tuple[TopicPartition, ...]
    cause: EventId | None
    """What the request follows from, where all its partitions have one cause in common."""


class RequestBatch:
    """Gathers requests for brokers that live or are shutting down; others are skipped."""

    def __init__(self, context: ControllerContext, controller_id: BrokerId, listener: str) -> None:
        self._context = context
        self._controller_id = controller_id
        self._listener = listener
        self._leader_and_isr: dict[BrokerId, dict[TopicPartition, LeaderAndIsrPartition]] = {}
        self._metadata_brokers: dict[BrokerId, None] = {}
        self._metadata_partitions: dict[TopicPartition, None] = {}
        self._stop_replica: dict[BrokerId, dict[TopicPartition, bool]] = {}
        self._causes: dict[TopicPartition, EventId] = {}

    @property
    def is_empty(self) -> bool:
        return not (self._leader_and_isr or self._metadata_brokers or self._stop_replica)

    def add_leader_and_isr(
        self,
        brokers: Iterable[BrokerId],
        partition: TopicPartition,
        *,
        is_new: bool = False,
        cause: EventId | None = None,
    ) -> None:
        """Tell ``brokers`` who leads ``partition``, and everybody's metadata.

        The state is the context's, which must know one.
        """
        state = self._context.leadership[partition].state
        if cause is not None:
            self._causes[partition] = cause
        for broker in brokers:
            if broker not in self._context.brokers:
                continue
            to_broker = self._leader_and_isr.setdefault(broker, {})
            earlier = to_broker.get(partition)
            to_broker[partition] = self._leader_and_isr_partition(
                partition, state, is_new=is_new or (earlier is not None and earlier.is_new)
            )
        self.add_update_metadata(self._context.live_or_shutting_down(), [partition])

    def _leader_and_isr_partition(
        self, partition: TopicPartition, state: LeaderAndIsr, *, is_new: bool
    ) -> LeaderAndIsrPartition:
        assignment = self._context.assignment(partition)
        assert assignment is not None, f"{partition} has a leader but no assignment"
        return LeaderAndIsrPartition(
            partition_index=partition.partition,
            controller_epoch=state.controller_epoch,
            leader=state.leader,
            leader_epoch=state.leader_epoch,
            isr=list(state.isr),
            partition_epoch=state.partition_epoch,
            replicas=list(assignment.replicas),
            adding_replicas=list(assignment.adding),
            removing_replicas=list(assignment.removing),
            is_new=is_new,
            leader_recovery_state=state.leader_recovery_state,
        )

    def add_update_metadata(self, brokers: Iterable[BrokerId], partitions: Iterable[TopicPartition]) -> None:
        """Tell ``brokers`` who is alive, and about ``partitions`` (those that ever had a leader)."""
        for broker in brokers:
            if broker in self._context.brokers:
                self._metadata_brokers[broker] = None
        for partition in partitions:
            if partition in self._context.leadership:
                self._metadata_partitions[partition] = None

    def add_stop_replica(
        self, brokers: Iterable[BrokerId], partition: TopicPartition, *, delete: bool
    ) -> None:
        """Tell ``brokers`` to stop, and maybe delete, their replicas of ``partition``."""
        for broker in brokers:
            if broker in self._context.brokers:
                to_broker = self._stop_replica.setdefault(broker, {})
                to_broker[partition] = delete or to_broker.get(partition, False)

    def drain(self) -> list[Outgoing]:
        """Return what is to be sent, in the order of sending, and start over."""
        requests = [
            *(self._leader_and_isr_request(b, p) for b, p in sorted(self._leader_and_isr.items())),
            *(self._update_metadata_request(broker) for broker in sorted(self._metadata_brokers)),
            *(self._stop_replica_request(b, p) for b, p in sorted(self._stop_replica.items())),
        ]
        self._leader_and_isr.clear()
        self._metadata_brokers.clear()
        self._metadata_partitions.clear()
        self._stop_replica.clear()
        self._causes.clear()
        return requests

    def _cause(self, partitions: Iterable[TopicPartition]) -> EventId | None:
        causes = {self._causes.get(partition) for partition in partitions}
        return causes.pop() if len(causes) == 1 else None

    def _leader_and_isr_request(
        self, broker: BrokerId, partitions: dict[TopicPartition, LeaderAndIsrPartition]
    ) -> Outgoing:
        topics: dict[str, list[LeaderAndIsrPartition]] = {}
        for partition in sorted(partitions):
            topics.setdefault(partition.topic, []).append(partitions[partition])
        leaders = sorted({BrokerId(state.leader) for state in partitions.values()})
        request = LeaderAndIsrRequest(
            controller_id=self._controller_id,
            controller_epoch=self._context.epoch,
            broker_epoch=self._context.brokers[broker].epoch,
            topic_states=[
                LeaderAndIsrTopic(
                    topic_name=topic,
                    topic_id=self._context.topic_ids.get(topic, ZERO_UUID),
                    partition_states=states,
                )
                for topic, states in topics.items()
            ],
            live_leaders=[
                live
                for leader in leaders
                if (info := self._context.brokers.get(leader)) is not None
                and (live := self._live_leader(info)) is not None
            ],
        )
        return Outgoing(broker, request, tuple(sorted(partitions)), self._cause(partitions))

    def _live_leader(self, info: BrokerInfo) -> LeaderAndIsrLiveLeader | None:
        endpoint = info.endpoint(self._listener)
        if endpoint is None:
            return None
        return LeaderAndIsrLiveLeader(broker_id=info.broker_id, host_name=endpoint.host, port=endpoint.port)

    def _update_metadata_request(self, broker: BrokerId) -> Outgoing:
        context = self._context
        topics: dict[str, list[UpdateMetadataPartition]] = {}
        for partition in sorted(self._metadata_partitions):
            state = context.leadership[partition].state
            topics.setdefault(partition.topic, []).append(
                UpdateMetadataPartition(
                    partition_index=partition.partition,
                    controller_epoch=state.controller_epoch,
                    leader=(
                        LEADER_DURING_DELETE if context.is_being_deleted(partition.topic) else state.leader
                    ),
                    leader_epoch=state.leader_epoch,
                    isr=list(state.isr),
                    zk_version=state.partition_epoch,
                    replicas=list(context.replicas(partition)),
                    offline_replicas=list(context.offline_replicas(partition)),
                )
            )
        request = UpdateMetadataRequest(
            controller_id=self._controller_id,
            controller_epoch=context.epoch,
            broker_epoch=context.brokers[broker].epoch,
            topic_states=[
                UpdateMetadataTopic(
                    topic_name=topic,
                    topic_id=context.topic_ids.get(topic, ZERO_UUID),
                    partition_states=states,
                )
                for topic, states in topics.items()
            ],
            live_brokers=[
                UpdateMetadataLiveBroker(
                    id=info.broker_id,
                    endpoints=[
                        UpdateMetadataEndpoint(
                            port=endpoint.port,
                            host=endpoint.host,
                            listener=endpoint.listener,
                            security_protocol=SECURITY_PROTOCOL_NUMBERS[endpoint.security_protocol],
                        )
                        for endpoint in info.endpoints
                    ],
                    rack=info.rack,
                )
                for info in context.live_brokers()
            ],
        )
        partitions = tuple(sorted(self._metadata_partitions))
        return Outgoing(broker, request, partitions, self._cause(partitions))

    def _stop_replica_request(self, broker: BrokerId, partitions: dict[TopicPartition, bool]) -> Outgoing:
        topics: dict[str, list[StopReplicaPartition]] = {}
        for partition in sorted(partitions):
            leadership = self._context.leadership.get(partition)
            epoch = NO_LEADER_EPOCH if leadership is None else int(leadership.state.leader_epoch)
            if self._context.is_being_deleted(partition.topic):
                epoch = LEADER_EPOCH_DURING_DELETE
            topics.setdefault(partition.topic, []).append(
                StopReplicaPartition(
                    partition_index=partition.partition,
                    leader_epoch=epoch,
                    delete_partition=partitions[partition],
                )
            )
        request = StopReplicaRequest(
            controller_id=self._controller_id,
            controller_epoch=self._context.epoch,
            broker_epoch=self._context.brokers[broker].epoch,
            topic_states=[
                StopReplicaTopic(topic_name=topic, partition_states=states)
                for topic, states in topics.items()
            ],
        )
        return Outgoing(broker, request, tuple(sorted(partitions)), self._cause(partitions))
