"""leave_group (API key 13): Leave a group at once, or remove members from it."""

from kafkalite.protocol.message import Int16, Int32, Message


class LeaveGroupMember(Message, frozen=True, kw_only=True):
    """One element of `members`."""

    member_id: str = ""
    """Empty: whoever has the instance id is removed (an administrator's removal)."""
    group_instance_id: str | None = None
    reason: str | None = None
    """Why it leaves: for people who ask why the group rebalanced."""


class LeaveGroupRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    group_id: str
    members: list[LeaveGroupMember] = []


class LeaveGroupResponseMember(Message, frozen=True, kw_only=True):
    """One element of `members`."""

    member_id: str = ""
    group_instance_id: str | None = None
    error_code: Int16 = 0


class LeaveGroupResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    error_code: Int16
    members: list[LeaveGroupResponseMember] = []
