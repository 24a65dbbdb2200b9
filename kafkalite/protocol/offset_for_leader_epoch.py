"""offset_for_leader_epoch (API key 23): Where a leader epoch ended in the leader's log (KIP-101)."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class OffsetForLeaderEpochPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition: Int32
    current_leader_epoch: Int32 = -1
    """The leader epoch that the asker knows, to be fenced by; -1 for none."""
    leader_epoch: Int32
    """The epoch whose end is wanted."""


class OffsetForLeaderEpochTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic: str
    partitions: list[OffsetForLeaderEpochPartition]


class OffsetForLeaderEpochRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    replica_id: Int32 = -2
    """-1 a consumer, -2 for debugging, else the follower's broker id."""
    topics: list[OffsetForLeaderEpochTopic]


class OffsetForLeaderEpochResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    error_code: Int16
    partition: Int32
    leader_epoch: Int32 = -1
    """The largest epoch not above the one asked for; -1 if there is none."""
    end_offset: Int64 = -1
    """Where that epoch ended (exclusive); -1 if there is none."""


class OffsetForLeaderEpochResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic: str
    partitions: list[OffsetForLeaderEpochResponsePartition]


class OffsetForLeaderEpochResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[OffsetForLeaderEpochResponseTopic]
