"""One replica on this broker: the rules of its partition, its log, and the requests that watch it.

It keeps count of bytes appended and of bytes committed, so that a fetch which waits for
`min_bytes` is looked at in constant time per partition instead of reading the log at every append.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from kafkalite.common import ZERO_UUID, BrokerId, TopicPartition, Uuid
from kafkalite.journal import EventId
from kafkalite.log.log import Log
from kafkalite.replication.partition import Partition, Role
from kafkalite.replication.purgatory import Watchers

UNCOUNTED: Final = 2**31
"""Added where bytes became readable that were never counted: whoever waits reads and sees."""
UNCOMMITTED_ENTRIES: Final = 1024
"""Bound of what is remembered apart; beyond it appends are merged, and counted a little late."""


class TopicCounters(msgspec.Struct):
    """What went in and out of one topic on this broker. Only ever rises."""

    messages_in: int = 0
    bytes_in: int = 0
    """From producers, as they sent them (compressed)."""
    bytes_out: int = 0
    """To consumers."""
    replication_bytes_in: int = 0
    """Fetched from leaders."""
    replication_bytes_out: int = 0
    """Fetched by followers."""
    produce_requests: int = 0
    """Partitions in produce requests."""
    failed_produce_requests: int = 0
    fetch_requests: int = 0
    """Partitions in fetch requests of consumers."""
    failed_fetch_requests: int = 0


class Replica:
    """A partition hosted here."""

    __slots__ = (
        "appended_bytes",
        "cause",
        "committed_bytes",
        "counters",
        "failure",
        "fetch_watchers",
        "generation",
        "log",
        "partition",
        "produce_watchers",
        "topic_partition",
        "uncommitted",
    )

    def __init__(self, topic_partition: TopicPartition, broker_id: BrokerId, counters: TopicCounters) -> None:
        self.topic_partition = topic_partition
        self.partition = Partition(topic_partition, broker_id)
        self.counters = counters
        self.log: Log | None = None
        """None until the first instruction opens it, and after its directory failed at that."""
        self.failure: str | None = None
        """Why it is offline."""
        self.cause: EventId | None = None
        """The event that gave it its present role."""
        self.generation = 0
        """Rises with everything that makes a waiting request's view of this replica void."""
        self.produce_watchers: Watchers = {}
        self.fetch_watchers: Watchers = {}
        self.appended_bytes = 0
        self.committed_bytes = 0
        self.uncommitted: deque[tuple[int, int]] = deque()
        """(end offset, bytes) of what was appended and is not committed yet."""

    @property
    def is_offline(self) -> bool:
        return self.partition.role is Role.OFFLINE

    @property
    def topic_id(self) -> Uuid:
        """The id of its topic, as the log has it; the zero id where that knows none."""
        return (self.log.topic_id if self.log is not None else None) or ZERO_UUID

    @property
    def min_isr(self) -> int:
        """The members that the ISR must have for acks=all."""
        assert self.log is not None
        return self.partition.effective_min_isr(self.log.config.min_insync_replicas)

    def note_appended(self, end_offset: int, size: int) -> None:
        """Count ``size`` bytes that now end the log at ``end_offset``."""
        self.appended_bytes += size
        uncommitted = self.uncommitted
        if len(uncommitted) >= UNCOMMITTED_ENTRIES:
            size += uncommitted.pop()[1]
        uncommitted.append((end_offset, size))

    def note_committed(self, high_watermark: int) -> None:
        """Count what the new high watermark made readable for consumers."""
        uncommitted = self.uncommitted
        while uncommitted and uncommitted[0][0] <= high_watermark:
            self.committed_bytes += uncommitted.popleft()[1]

    def reset_counts(self) -> None:
        """Start over at a new role: what lies between high watermark and log end was never counted."""
        assert self.log is not None
        self.uncommitted.clear()
        if self.log.log_end_offset > self.log.high_watermark:
            self.uncommitted.append((self.log.log_end_offset, UNCOUNTED))
