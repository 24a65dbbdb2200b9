"""list_groups (API key 16): List the groups that this broker coordinates."""

from kafkalite.protocol.message import Int16, Int32, Message


class ListGroupsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    states_filter: list[str] = []
    """Only groups in these states (in any case of letters); empty: all."""
    types_filter: list[str] = []
    """Only groups of these types; this version has `classic` ones. Empty: all."""


class ListGroupsResponseGroup(Message, frozen=True, kw_only=True):
    """One element of `groups`."""

    group_id: str
    protocol_type: str
    """`consumer` for consumers; empty for a group that only keeps offsets."""
    group_state: str = ""
    group_type: str = ""


class ListGroupsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    error_code: Int16
    groups: list[ListGroupsResponseGroup]
