"""list_offsets (API key 2): Find offsets by timestamp, or the earliest and latest ones (KIP-79)."""

from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class ListOffsetsPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    current_leader_epoch: Int32 = -1
    timestamp: Int64
    """Milliseconds: the first record not earlier; -1 latest, -2 earliest, -3 the largest timestamp's."""


class ListOffsetsTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[ListOffsetsPartition]


class ListOffsetsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    replica_id: Int32
    """-1 a consumer, -2 for debugging, else the follower's broker id."""
    isolation_level: Int8 = 0
    """What the latest offset is: 0 the high watermark, 1 the last stable offset."""
    topics: list[ListOffsetsTopic]


class ListOffsetsResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    error_code: Int16
    timestamp: Int64 = -1
    """The found record's; -1 where none was looked for or found."""
    offset: Int64 = -1
    """-1 where no record is late enough."""
    leader_epoch: Int32 = -1
    """The leader epoch of the record found; -1 if not known."""


class ListOffsetsResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[ListOffsetsResponsePartition]


class ListOffsetsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[ListOffsetsResponseTopic]
