"""offset_fetch (API key 9): Ask how far groups have come."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class OffsetFetchTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str = ""
    partition_indexes: list[Int32] = []


class OffsetFetchGroup(Message, frozen=True, kw_only=True):
    """One element of `groups`."""

    group_id: str = ""
    member_id: str | None = None
    """For the newer group protocol, which this version does not serve: not looked at."""
    member_epoch: Int32 = -1
    topics: list[OffsetFetchTopic] | None = None
    """None: every partition that the group has committed."""


class OffsetFetchRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    groups: list[OffsetFetchGroup] = []
    require_stable: bool = False
    """UNSTABLE_OFFSET_COMMIT for partitions that a transaction may still commit."""


class OffsetFetchResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    """-1 where nothing is committed."""
    committed_leader_epoch: Int32 = -1
    metadata: str | None = None
    error_code: Int16 = 0


class OffsetFetchResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str = ""
    partitions: list[OffsetFetchResponsePartition] = []


class OffsetFetchResponseGroup(Message, frozen=True, kw_only=True):
    """One element of `groups`."""

    group_id: str = ""
    topics: list[OffsetFetchResponseTopic] = []
    error_code: Int16 = 0


class OffsetFetchResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    groups: list[OffsetFetchResponseGroup] = []
