"""How far a group has come, and for how long that is remembered.

Only what is committed is here. A commit that is still being replicated is nobody's to see: it is
in the shard's list of keys in flight, which expiry leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kafkalite.common import TopicPartition
from kafkalite.coordinator.group.records import OffsetValue


class Offsets(msgspec.Struct):
    """The committed offsets of one group."""

    committed: dict[TopicPartition, OffsetValue] = msgspec.field(default_factory=dict)

    def apply(self, partition: TopicPartition, value: OffsetValue | None) -> None:
        """A record of this key was committed; None is a tombstone."""
        if value is None:
            self.committed.pop(partition, None)
        else:
            self.committed[partition] = value

    def expired(
        self,
        *,
        wall_ms: int,
        retention_ms: int,
        since_ms: int | None,
        subscribed: frozenset[str] = frozenset(),
    ) -> Iterator[TopicPartition]:
        """The partitions whose offset is older than ``retention_ms``.

        Age counts from ``since_ms`` (when the group lost its last member), or from each commit
        where that is None. Topics in ``subscribed`` never expire.
        """
        for partition, value in self.committed.items():
            if partition.topic in subscribed:
                continue
            began_ms = value.commit_timestamp_ms if since_ms is None else since_ms
            if wall_ms - began_ms >= retention_ms:
                yield partition
