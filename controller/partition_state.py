"""States of a partition, as the controller sees it, and the legal moves between them.

The table is the documentation: a move that is not in it is refused for that partition, recorded as
an event, and the others of the batch go on.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class PartitionState(enum.Enum):
    """Values are Kafka's numbers."""

    NEW = 0
    """Known, has an assignment, never had a leader: no state znode."""
    ONLINE = 1
    """A leader has been elected. It may be dead by now; then the move to OFFLINE is under way."""
    OFFLINE = 2
    """It had a leader, and that one is gone."""
    NON_EXISTENT = 3
    """Never created, or deleted."""


VALID_PREVIOUS: Mapping[PartitionState, frozenset[PartitionState]] = MappingProxyType(
    {
        PartitionState.NEW: frozenset({PartitionState.NON_EXISTENT}),
        PartitionState.ONLINE: frozenset({PartitionState.NEW, PartitionState.ONLINE, PartitionState.OFFLINE}),
        PartitionState.OFFLINE: frozenset(
            {PartitionState.NEW, PartitionState.ONLINE, PartitionState.OFFLINE}
        ),
        PartitionState.NON_EXISTENT: frozenset({PartitionState.OFFLINE}),
    }
)


def is_valid_move(current: PartitionState, target: PartitionState) -> bool:
    """Tell whether a partition in ``current`` may go to ``target``."""
    return current in VALID_PREVIOUS[target]
