"""list_offsets (API key 2): Find offsets by timestamp, or the earliest and latest ones (KIP-79)."""

from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class ListOffsetsPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    current_leader_epoch: Int32 = -1
    timestamp: Int64


class ListOffsetsTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[ListOffsetsPartition]


class ListOffsetsRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    replica_id: Int32
    isolation_level: Int8 = 0
    topics: list[ListOffsetsTopic]


class ListOffsetsResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    error_code: Int16
    timestamp: Int64 = -1
    offset: Int64 = -1
    leader_epoch: Int32 = -1


class ListOffsetsResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[ListOffsetsResponsePartition]


class ListOffsetsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[ListOffsetsResponseTopic]
