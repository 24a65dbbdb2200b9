"""offset_delete (API key 47): Forget committed offsets of a group."""

from kafkalite.protocol.message import Int16, Int32, Message


class OffsetDeletePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32


class OffsetDeleteTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[OffsetDeletePartition]


class OffsetDeleteRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    group_id: str
    topics: list[OffsetDeleteTopic]


class OffsetDeleteResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    error_code: Int16


class OffsetDeleteResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    partitions: list[OffsetDeleteResponsePartition]


class OffsetDeleteResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    error_code: Int16
    throttle_time_ms: Int32
    topics: list[OffsetDeleteResponseTopic]
