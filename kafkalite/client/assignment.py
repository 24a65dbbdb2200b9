"""The partitions that a consumer reads: what fetching, finding positions and handing out share."""

from __future__ import annotations

import asyncio

from kafkalite.client.errors import IllegalStateError
from kafkalite.client.offsets import tuple_of
from kafkalite.client.subscription import PartitionState
from kafkalite.common import TopicPartition


class Assignment:
    """The assigned partitions, and who is to be told when something about them changes."""

    def __init__(self) -> None:
        self.topics: frozenset[str] = frozenset()
        """What is subscribed to by name; empty for a pattern, and where partitions are given by hand."""
        self.is_by_hand = False
        """The caller gave the partitions."""
        self.states: dict[TopicPartition, PartitionState] = {}
        """In the order in which they are handed out: whose batch was used up goes to the end."""
        self.arrived = asyncio.Event()
        """Set when a read may find something new: records, a position, an error."""
        self.unsettled = asyncio.Event()
        """Set when a position may have to be found or checked."""

    def state(self, partition: TopicPartition) -> PartitionState:
        """The state of ``partition``. Raises IllegalStateError if it is not assigned."""
        state = self.states.get(TopicPartition(*partition))
        if state is None:
            raise IllegalStateError(f"{TopicPartition(*partition)} is not assigned")
        return state

    def chosen(self, partitions: tuple[TopicPartition, ...]) -> list[PartitionState]:
        """The states of ``partitions``, all by default. Raises IllegalStateError."""
        if partitions:
            return [self.state(tp) for tp in tuple_of(partitions)]
        return list(self.states.values())

    def to_the_end(self, state: PartitionState) -> None:
        """The next turn is another partition's."""
        if self.states.get(state.tp) is state:
            del self.states[state.tp]
            self.states[state.tp] = state
