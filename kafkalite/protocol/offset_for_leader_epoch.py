"""offset_for_leader_epoch (API key 23): Where a leader epoch ended in the leader's log (KIP-101)."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class OffsetForLeaderEpochPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition: Int32
    current_leader_epoch: Int32 = -1
    leader_epoch: Int32


class OffsetForLeaderEpochTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic: str
    partitions: list[OffsetForLeaderEpochPartition]


class OffsetForLeaderEpochRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    replica_id: Int32 = -2
    topics: list[OffsetForLeaderEpochTopic]


class OffsetForLeaderEpochResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    error_code: Int16
    partition: Int32
    leader_epoch: Int32 = -1
    end_offset: Int64 = -1


class OffsetForLeaderEpochResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic: str
    partitions: list[OffsetForLeaderEpochResponsePartition]


class OffsetForLeaderEpochResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[OffsetForLeaderEpochResponseTopic]
