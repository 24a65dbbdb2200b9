"""controlled_shutdown (API key 7): A broker asks the controller to move its leaders away before it stops."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class ControlledShutdownRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    broker_id: Int32
    broker_epoch: Int64 = -1


class ControlledShutdownResponseRemainingPartition(Message, frozen=True, kw_only=True):
    """One element of `remaining_partitions`."""

    topic_name: str
    partition_index: Int32


class ControlledShutdownResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    error_code: Int16
    remaining_partitions: list[ControlledShutdownResponseRemainingPartition]
