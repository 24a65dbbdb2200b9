"""What an application may do when its partitions change."""

from __future__ import annotations

from collections.abc import Awaitable

from kafkalite.common import TopicPartition


class RebalanceListener:
    """Derive from it and override what is of interest; each method may be sync or async.

    They run in a task of the consumer's, between two reads of the caller. Heartbeats go on meanwhile, but the
    rest of the group waits for whoever revokes. A blocking method blocks the event loop, heartbeats included.
    An exception ends nothing: the next read raises it, and the consumer goes on.
    """

    def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> Awaitable[None] | None:
        """These go to others once this returns. They may still be committed; nothing more is read of them."""
        return None

    def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> Awaitable[None] | None:
        """These came anew (perhaps none). Nothing is read of them before this returns; it may seek."""
        return None

    def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> Awaitable[None] | None:
        """These are gone already, others may own them: nothing of them can be committed any more.

        By default the same as `on_partitions_revoked`.
        """
        return self.on_partitions_revoked(lost)
