"""offset_commit (API key 8): Remember how far a group has come."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class OffsetCommitPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    committed_offset: Int64
    """The next offset to read."""
    committed_leader_epoch: Int32 = -1
    """The leader epoch of the last record read, so that a later reader can see a truncation; -1 for none."""
    committed_metadata: str | None = None
    """Whatever the application wants to keep beside it."""


class OffsetCommitTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[OffsetCommitPartition]


class OffsetCommitRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    group_id: str
    generation_id_or_member_epoch: Int32 = -1
    """The member's generation; -1 from who is no member (only where the group has none)."""
    member_id: str = ""
    group_instance_id: str | None = None
    topics: list[OffsetCommitTopic]


class OffsetCommitResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    error_code: Int16


class OffsetCommitResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[OffsetCommitResponsePartition]


class OffsetCommitResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[OffsetCommitResponseTopic]
