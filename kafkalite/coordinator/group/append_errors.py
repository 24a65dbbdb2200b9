"""What a failed append to `__consumer_offsets` is to the client whose request led to it."""

from __future__ import annotations

from kafkalite.protocol.errors import (
    BrokerError,
    CoordinatorNotAvailableError,
    ErrorCode,
    InvalidCommitOffsetSizeError,
    NotCoordinatorError,
    RebalanceInProgressError,
    UnknownServerError,
)

_E = ErrorCode

_NOT_AVAILABLE = frozenset(
    {_E.UNKNOWN_TOPIC_OR_PARTITION, _E.NOT_ENOUGH_REPLICAS, _E.NOT_ENOUGH_REPLICAS_AFTER_APPEND}
)
_NOT_HERE = frozenset({_E.NOT_LEADER_OR_FOLLOWER, _E.KAFKA_STORAGE_ERROR})
_TOO_LARGE = frozenset({_E.MESSAGE_TOO_LARGE, _E.RECORD_LIST_TOO_LARGE, _E.INVALID_FETCH_SIZE})


def for_commit(error: BrokerError) -> BrokerError:
    """For a commit, or deletion, of offsets."""
    if error.code in _TOO_LARGE:
        return InvalidCommitOffsetSizeError(error.message)
    if error.code is _E.REQUEST_TIMED_OUT:
        return CoordinatorNotAvailableError(error.message)
    return _common(error)


def for_group(error: BrokerError) -> BrokerError:
    """For the members that wait for a group to be stored."""
    if error.code in _TOO_LARGE:
        # Nothing that a member could do about it by trying again.
        return UnknownServerError(f"the group is too large to be stored: {error.message}")
    if error.code is _E.REQUEST_TIMED_OUT:
        return RebalanceInProgressError(error.message)
    return _common(error)


def _common(error: BrokerError) -> BrokerError:
    if error.code in _NOT_AVAILABLE:
        return CoordinatorNotAvailableError(error.message)
    if error.code in _NOT_HERE:
        return NotCoordinatorError(error.message)
    return error
