"""What group coordinators ask of their neighbours: replication below, the metadata cache above.

The broker hands in :class:`kafkalite.replication.internal.InternalPartitions` and its metadata
cache; tests hand in logs in memory.
"""

from __future__ import annotations

from typing import Protocol

from kafkalite.common import BrokerId, BrokerInfo, LeaderEpoch, TopicPartition
from kafkalite.edge import Buffer
from kafkalite.log.log import Read
from kafkalite.replication.appends import Appended
from kafkalite.replication.internal import LeadershipListener


class PartitionLog(Protocol):
    """The partitions that this broker hosts: :class:`kafkalite.replication.internal.InternalPartitions`."""

    def on_leadership_change(self, listener: LeadershipListener) -> None: ...

    def append(self, partition: TopicPartition, records: Buffer, leader_epoch: LeaderEpoch) -> Appended: ...

    async def committed(self, appended: Appended, *, timeout_s: float) -> None: ...

    def log_end(self, partition: TopicPartition, leader_epoch: LeaderEpoch) -> Appended: ...

    def high_watermark(self, partition: TopicPartition) -> int: ...

    def log_start_offset(self, partition: TopicPartition) -> int: ...

    async def read(
        self, partition: TopicPartition, offset: int, *, max_bytes: int, leader_epoch: LeaderEpoch
    ) -> Read: ...

    def has_lease(self, partition: TopicPartition) -> bool: ...

    def known_high_watermark(self, partition: TopicPartition) -> int | None: ...


class ClusterView(Protocol):
    """What the metadata cache knows."""

    def partition_count(self, topic: str) -> int:
        """How many partitions ``topic`` has; 0 where it is not known."""
        ...

    def leader_of(self, partition: TopicPartition) -> tuple[BrokerId, LeaderEpoch] | None:
        """Leader (-1: none) and leader epoch; None where the partition is not known."""
        ...

    def broker(self, broker_id: BrokerId) -> BrokerInfo | None:
        """A live broker; None for any other."""
        ...


class TopicCreator(Protocol):
    """Has the controller create `__consumer_offsets`."""

    async def create(
        self, topic: str, *, partitions: int, replication_factor: int, config: dict[str, str]
    ) -> None:
        """Return once the topic is created, or was there already. Raises the BrokerError that says
        why it cannot be."""
        ...
