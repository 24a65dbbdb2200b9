"""controlled_shutdown (API key 7): A broker asks the controller to move its leaders away before it stops."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class ControlledShutdownRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    broker_id: Int32
    """Who wants to stop."""
    broker_epoch: Int64 = -1
    """The epoch of its present registration; another gets STALE_BROKER_EPOCH."""


class ControlledShutdownResponseRemainingPartition(Message, frozen=True, kw_only=True):
    """One element of `remaining_partitions`."""

    topic_name: str
    partition_index: Int32


class ControlledShutdownResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    error_code: Int16
    remaining_partitions: list[ControlledShutdownResponseRemainingPartition]
    """What it still leads, since no other replica in sync is alive."""
