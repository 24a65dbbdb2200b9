"""stop_replica (API key 5): The controller tells a broker to stop, and maybe delete, replicas."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class StopReplicaPartition(Message, frozen=True, kw_only=True):
    """One element of `partition_states`."""

    partition_index: Int32 = 0
    leader_epoch: Int32 = -1
    """-1 for none, -2 for a topic being deleted: no fencing then."""
    delete_partition: bool = False
    """Delete the log too."""


class StopReplicaTopic(Message, frozen=True, kw_only=True):
    """One element of `topic_states`."""

    topic_name: str = ""
    partition_states: list[StopReplicaPartition] = []


class StopReplicaRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    controller_id: Int32
    is_kraft_controller: bool = False
    controller_epoch: Int32
    broker_epoch: Int64 = -1
    """The epoch that the controller knows the receiver by; an older one gets STALE_BROKER_EPOCH."""
    topic_states: list[StopReplicaTopic] = []


class StopReplicaResponsePartitionError(Message, frozen=True, kw_only=True):
    """One element of `partition_errors`."""

    topic_name: str
    partition_index: Int32
    error_code: Int16


class StopReplicaResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    error_code: Int16
    partition_errors: list[StopReplicaResponsePartitionError]
