"""The states of a group and the moves between them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class GroupState(enum.Enum):
    """Where a group stands; the values are Kafka's names, as tools print them."""

    EMPTY = "Empty"
    """No members; it may keep offsets."""
    PREPARING_REBALANCE = "PreparingRebalance"
    """Collecting joins for the next generation."""
    COMPLETING_REBALANCE = "CompletingRebalance"
    """The generation's members are known; its assignment is awaited from the leader, or being stored."""
    STABLE = "Stable"
    """The assignment is stored; members get it when they sync."""
    DEAD = "Dead"
    """Removed, or no longer coordinated here."""


_S: Final = GroupState

VALID_PREVIOUS: Final[Mapping[GroupState, frozenset[GroupState]]] = MappingProxyType(
    {
        _S.EMPTY: frozenset({_S.PREPARING_REBALANCE}),
        _S.PREPARING_REBALANCE: frozenset({_S.STABLE, _S.COMPLETING_REBALANCE, _S.EMPTY}),
        _S.COMPLETING_REBALANCE: frozenset({_S.PREPARING_REBALANCE}),
        _S.STABLE: frozenset({_S.COMPLETING_REBALANCE}),
        _S.DEAD: frozenset(_S),
    }
)
"""From which states each state may be entered. A group begins EMPTY, or STABLE where it was loaded."""
