"""join_group (API key 11): Enter a group, or its next generation, and wait for the others to come."""

from kafkalite.protocol.message import Int16, Int32, Message


class JoinGroupProtocol(Message, frozen=True, kw_only=True):
    """One element of `protocols`."""

    name: str
    """For consumers: an assignor's name."""
    metadata: bytes
    """For consumers: the subscription (version, topics, user data, owned partitions, …)."""


class JoinGroupRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    group_id: str
    session_timeout_ms: Int32
    """Without a heartbeat for so long the member is removed."""
    rebalance_timeout_ms: Int32 = -1
    """How long the others wait for this member in a rebalance; -1: as long as its session lasts."""
    member_id: str
    """Empty the first time; the coordinator then answers MEMBER_ID_REQUIRED and names one."""
    group_instance_id: str | None = None
    """Set by static members: the name under which a restarted one takes its old place."""
    protocol_type: str
    """`consumer` for consumers."""
    protocols: list[JoinGroupProtocol]
    """What the member supports, the preferred one first."""
    reason: str | None = None
    """Why it joins (again): for people who ask why the group rebalanced."""


class JoinGroupResponseMember(Message, frozen=True, kw_only=True):
    """One element of `members`."""

    member_id: str
    group_instance_id: str | None = None
    metadata: bytes
    """What it gave with the chosen protocol."""


class JoinGroupResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    error_code: Int16
    generation_id: Int32 = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    """The protocol that all members support and most prefer."""
    leader: str
    """The member id of who makes the assignment."""
    skip_assignment: bool = False
    """The leader is to make no new assignment: it only took its old place again."""
    member_id: str
    members: list[JoinGroupResponseMember]
    """All members, for the leader; empty for the others."""
