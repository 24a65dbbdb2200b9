"""States of one replica, as the controller sees it, and the legal moves between them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from kafkalite.common import BrokerId, TopicPartition


class PartitionReplica(NamedTuple):
    """One replica of one partition."""

    partition: TopicPartition
    broker: BrokerId

    def __str__(self) -> str:
        return f"{self.partition} on broker {self.broker}"


class ReplicaState(enum.Enum):
    """Values are Kafka's numbers."""

    NEW = 1
    """Assigned just now; can be a follower only."""
    ONLINE = 2
    """Started, and part of the assignment."""
    OFFLINE = 3
    """Its broker, or its log directory, is gone."""
    DELETION_STARTED = 4
    """Told to delete its log."""
    DELETION_SUCCESSFUL = 5
    """Its log is deleted."""
    DELETION_INELIGIBLE = 6
    """Its log cannot be deleted now: the broker is down or answered with an error."""
    NON_EXISTENT = 7
    """Never created, or deleted."""


VALID_PREVIOUS: Mapping[ReplicaState, frozenset[ReplicaState]] = MappingProxyType(
    {
        ReplicaState.NEW: frozenset({ReplicaState.NON_EXISTENT}),
        ReplicaState.ONLINE: frozenset(
            {ReplicaState.NEW, ReplicaState.ONLINE, ReplicaState.OFFLINE, ReplicaState.DELETION_INELIGIBLE}
        ),
        ReplicaState.OFFLINE: frozenset(
            {ReplicaState.NEW, ReplicaState.ONLINE, ReplicaState.OFFLINE, ReplicaState.DELETION_INELIGIBLE}
        ),
        ReplicaState.DELETION_STARTED: frozenset({ReplicaState.OFFLINE}),
        ReplicaState.DELETION_SUCCESSFUL: frozenset({ReplicaState.DELETION_STARTED}),
        ReplicaState.DELETION_INELIGIBLE: frozenset({ReplicaState.OFFLINE, ReplicaState.DELETION_STARTED}),
        ReplicaState.NON_EXISTENT: frozenset({ReplicaState.DELETION_SUCCESSFUL}),
    }
)


def is_valid_move(current: ReplicaState, target: ReplicaState) -> bool:
    """Tell whether a replica in ``current`` may go to ``target``."""
    return current in VALID_PREVIOUS[target]
