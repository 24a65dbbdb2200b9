"""describe_groups (API key 15): Show groups with their state, members and assignments."""

from kafkalite.protocol.message import Int16, Int32, Message

NO_OPERATIONS = -(2**31)
"""`authorized_operations` where they were not asked for."""


class DescribeGroupsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    groups: list[str]
    include_authorized_operations: bool = False


class DescribeGroupsResponseMember(Message, frozen=True, kw_only=True):
    """One element of `members`."""

    member_id: str
    group_instance_id: str | None = None
    client_id: str
    client_host: str
    """The address that it joined from, with a slash before it as Kafka prints it."""
    member_metadata: bytes
    """What it gave with the chosen protocol; empty while none is chosen."""
    member_assignment: bytes


class DescribeGroupsResponseGroup(Message, frozen=True, kw_only=True):
    """One element of `groups`."""

    error_code: Int16
    group_id: str
    group_state: str
    """Empty, PreparingRebalance, CompletingRebalance, Stable, or Dead where there is no such group."""
    protocol_type: str
    protocol_data: str
    """The chosen protocol; empty unless Stable."""
    members: list[DescribeGroupsResponseMember]
    authorized_operations: Int32 = NO_OPERATIONS


class DescribeGroupsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    groups: list[DescribeGroupsResponseGroup]
