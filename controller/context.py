"""What the controller knows: the cluster as of the last event it handled.

All of it belongs to the one consumer of the event queue and is thrown away on resignation. It is a
cache: ZooKeeper is the truth, and every write is conditional on the versions kept here. Two facts
decide who may lead:

- a broker is *live* if it is registered and not shutting down; a replica is *online* if its broker
  is live and its log directory is;
- a replica *restarted* if its broker's registration (czxid) is younger than the last write of the
  partition's state (mzxid). Its unsynced tail may be gone, so what that state says of it no longer
  holds (see :mod:`controller.election`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from controller.partition_state import PartitionState
from controller.replica_state import PartitionReplica, ReplicaState
from kafkalite.common import (
    NO_LEADER,
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    ControllerEpoch,
    LeaderAndIsr,
    TopicPartition,
    Uuid,
)
from kafkalite.journal import EventId


class ReplicaAssignment(msgspec.Struct, frozen=True):
    """Where a partition's replicas are. The first is the preferred leader."""

    replicas: tuple[BrokerId, ...]
    """While reassigning: target and origin replicas, the target's first."""
    adding: tuple[BrokerId, ...] = ()
    removing: tuple[BrokerId, ...] = ()

    @property
    def is_being_reassigned(self) -> bool:
        return bool(self.adding or self.removing)

    @property
    def target(self) -> tuple[BrokerId, ...]:
        """The replicas that remain when the reassignment is complete."""
        return tuple(broker for broker in self.replicas if broker not in self.removing)

    @property
    def origin(self) -> tuple[BrokerId, ...]:
        """The replicas from before the reassignment."""
        return tuple(broker for broker in self.replicas if broker not in self.adding)


class Leadership(msgspec.Struct, frozen=True):
    """A partition's state znode as last read or written."""

    state: LeaderAndIsr
    mzxid: int
    """The transaction of its last write: what registrations are compared with."""


class Registrations(msgspec.Struct, frozen=True):
    """The registered brokers at one version of `/brokers/ids`."""

    version: int
    """The data version of `/brokers/ids`: it counts registrations."""
    czxid: Mapping[BrokerId, int]

    def restarted_since(self, broker: BrokerId, mzxid: int) -> bool:
        """Tell whether ``broker`` registered after the transaction ``mzxid``."""
        return self.czxid.get(broker, -1) > mzxid


class ControllerContext(msgspec.Struct):
    """One reign's knowledge."""

    epoch: ControllerEpoch
    registrations: Registrations = msgspec.field(default_factory=lambda: Registrations(-1, {}))
    """Who is registered, which may run ahead of ``brokers``: that one changes by events."""
    brokers: dict[BrokerId, BrokerInfo] = msgspec.field(default_factory=dict)
    """Brokers that live or are shutting down."""
    gone: dict[BrokerId, EventId] = msgspec.field(default_factory=dict)
    """For each broker that is known to be gone the event that told so: the cause of what follows."""
    shutting_down: set[BrokerId] = msgspec.field(default_factory=set)
    topic_ids: dict[str, Uuid] = msgspec.field(default_factory=dict)
    """Every known topic."""
    assignments: dict[str, dict[int, ReplicaAssignment]] = msgspec.field(default_factory=dict)
    leadership: dict[TopicPartition, Leadership] = msgspec.field(default_factory=dict)
    """Absent for a partition without a state znode."""
    partition_states: dict[TopicPartition, PartitionState] = msgspec.field(default_factory=dict)
    replica_states: dict[PartitionReplica, ReplicaState] = msgspec.field(default_factory=dict)
    offline_dir_replicas: dict[BrokerId, set[TopicPartition]] = msgspec.field(default_factory=dict)
    """Replicas that answered KAFKA_STORAGE_ERROR."""
    topics_to_delete: set[str] = msgspec.field(default_factory=set)
    topics_with_deletion_started: set[str] = msgspec.field(default_factory=set)
    """Topics to delete whose partitions have gone to NonExistent."""
    topics_ineligible_for_deletion: set[str] = msgspec.field(default_factory=set)

    # --- brokers -------------------------------------------------------------------------

    def is_live(self, broker: BrokerId) -> bool:
        """Registered and not shutting down."""
        return broker in self.brokers and broker not in self.shutting_down

    def live_brokers(self) -> list[BrokerInfo]:
        """Sorted by id."""
        return [self.brokers[id] for id in sorted(self.brokers) if id not in self.shutting_down]

    def live_or_shutting_down(self) -> list[BrokerId]:
        """Everyone who still gets requests, sorted."""
        return sorted(self.brokers)

    def broker_epoch(self, broker: BrokerId) -> BrokerEpoch | None:
        info = self.brokers.get(broker)
        return None if info is None else info.epoch

    def is_online(
        self, broker: BrokerId, partition: TopicPartition, *, include_shutting_down: bool = False
    ) -> bool:
        """Tell whether ``broker`` can serve its replica of ``partition``."""
        live = broker in self.brokers if include_shutting_down else self.is_live(broker)
        return live and partition not in self.offline_dir_replicas.get(broker, ())

    def has_restarted(self, broker: BrokerId, leadership: Leadership) -> bool:
        """Tell whether ``broker`` registered after the last write of the state."""
        return self.registrations.restarted_since(broker, leadership.mzxid)

    # --- topics and partitions -----------------------------------------------------------

    def partitions(self) -> Iterator[TopicPartition]:
        """All partitions of all topics, sorted."""
        for topic in sorted(self.assignments):
            yield from self.partitions_of(topic)

    def partitions_of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in sorted(self.assignments.get(topic, ()))]

    def assignment(self, partition: TopicPartition) -> ReplicaAssignment | None:
        return self.assignments.get(partition.topic, {}).get(partition.partition)

    def replicas(self, partition: TopicPartition) -> tuple[BrokerId, ...]:
        """The assigned replicas; none for an unknown partition."""
        assignment = self.assignment(partition)
        return () if assignment is None else assignment.replicas

    def partitions_on(self, broker: BrokerId) -> list[TopicPartition]:
        return [partition for partition in self.partitions() if broker in self.replicas(partition)]

    def replicas_on(self, brokers: Iterable[BrokerId]) -> list[PartitionReplica]:
        """Every replica on these brokers, by partition, then in assignment order."""
        wanted = frozenset(brokers)
        return [
            PartitionReplica(partition, broker)
            for partition in self.partitions()
            for broker in self.replicas(partition)
            if broker in wanted
        ]

    def replicas_of(self, partitions: Iterable[TopicPartition]) -> list[PartitionReplica]:
        return [
            PartitionReplica(partition, broker)
            for partition in partitions
            for broker in self.replicas(partition)
        ]

    def leader(self, partition: TopicPartition) -> BrokerId:
        leadership = self.leadership.get(partition)
        return NO_LEADER if leadership is None else leadership.state.leader

    def has_online_leader(self, partition: TopicPartition) -> bool:
        leader = self.leader(partition)
        return leader != NO_LEADER and self.is_online(leader, partition)

    def offline_replicas(self, partition: TopicPartition) -> list[BrokerId]:
        return [broker for broker in self.replicas(partition) if not self.is_online(broker, partition)]

    def is_being_deleted(self, topic: str) -> bool:
        return topic in self.topics_to_delete

    def partition_state(self, partition: TopicPartition) -> PartitionState:
        return self.partition_states.get(partition, PartitionState.NON_EXISTENT)

    def replica_state(self, replica: PartitionReplica) -> ReplicaState:
        return self.replica_states.get(replica, ReplicaState.NON_EXISTENT)

    def forget_topic(self, topic: str) -> None:
        """Drop everything about ``topic``."""
        for partition in self.partitions_of(topic):
            for broker in self.replicas(partition):
                self.replica_states.pop(PartitionReplica(partition, broker), None)
            self.partition_states.pop(partition, None)
            self.leadership.pop(partition, None)
            for offline in self.offline_dir_replicas.values():
                offline.discard(partition)
        self.assignments.pop(topic, None)
        self.topic_ids.pop(topic, None)
        self.topics_to_delete.discard(topic)
        self.topics_with_deletion_started.discard(topic)
        self.topics_ineligible_for_deletion.discard(topic)

    # --- gauges --------------------------------------------------------------------------

    @property
    def partition_count(self) -> int:
        return sum(len(partitions) for partitions in self.assignments.values())

    @property
    def offline_partition_count(self) -> int:
        """Partitions, not being deleted, without an online leader."""
        return sum(
            not self.has_online_leader(partition)
            for partition in self.partitions()
            if not self.is_being_deleted(partition.topic)
        )

    @property
    def preferred_replica_imbalance_count(self) -> int:
        """Partitions, not being deleted, led by another replica than the preferred one."""
        return sum(
            self.leader(partition) != replicas[0]
            for partition in self.partitions()
            if (replicas := self.replicas(partition)) and not self.is_being_deleted(partition.topic)
        )
