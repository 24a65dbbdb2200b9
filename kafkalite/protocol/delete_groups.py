"""delete_groups (API key 42): Delete groups without members, and their offsets."""

from kafkalite.protocol.message import Int16, Int32, Message


class DeleteGroupsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    groups_names: list[str]


class DeleteGroupsResponseResult(Message, frozen=True, kw_only=True):
    """One element of `results`."""

    group_id: str
    error_code: Int16


class DeleteGroupsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32
    results: list[DeleteGroupsResponseResult]
