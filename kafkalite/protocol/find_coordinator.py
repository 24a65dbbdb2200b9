"""find_coordinator (API key 10): Find the broker that coordinates a group or a transactional id."""

from kafkalite.protocol.message import Int8, Int16, Int32, Message


class FindCoordinatorRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    key_type: Int8 = 0
    """What the keys are: 0 group ids, 1 transactional ids."""
    coordinator_keys: list[str] = []


class FindCoordinatorResponseCoordinator(Message, frozen=True, kw_only=True):
    """One element of `coordinators`."""

    key: str = ""
    node_id: Int32 = -1
    """The coordinator's broker id; -1 with an error."""
    host: str = ""
    port: Int32 = -1
    error_code: Int16 = 0
    error_message: str | None = None


class FindCoordinatorResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    coordinators: list[FindCoordinatorResponseCoordinator] = []
    """One for each key, in the request's order."""
