"""heartbeat (API key 12): Stay a member of a group, and learn that it rebalances."""

from kafkalite.protocol.message import Int16, Int32, Message


class HeartbeatRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    group_id: str
    generation_id: Int32
    member_id: str
    group_instance_id: str | None = None


class HeartbeatResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    error_code: Int16
    """REBALANCE_IN_PROGRESS: alive, and to join again."""
