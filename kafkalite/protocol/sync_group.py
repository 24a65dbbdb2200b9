"""sync_group (API key 14): Hand in (the leader) and receive (all) the assignment of a generation."""

from kafkalite.protocol.message import Int16, Int32, Message


class SyncGroupAssignment(Message, frozen=True, kw_only=True):
    """One element of `assignments`."""

    member_id: str
    assignment: bytes


class SyncGroupRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    group_id: str
    generation_id: Int32
    member_id: str
    group_instance_id: str | None = None
    protocol_type: str | None = None
    """Checked against the group's where given."""
    protocol_name: str | None = None
    """Checked against the chosen one where given."""
    assignments: list[SyncGroupAssignment]
    """From the leader, for every member; empty from the others."""


class SyncGroupResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    error_code: Int16
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes
    """This member's; empty with an error."""
