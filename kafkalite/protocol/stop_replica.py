"""stop_replica (API key 5): The controller tells a broker to stop, and maybe delete, replicas."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class StopReplicaPartition(Message, frozen=True, kw_only=True):
    """One element of `partition_states`."""

    partition_index: Int32 = 0
    leader_epoch: Int32 = -1
    delete_partition: bool = False


class StopReplicaTopic(Message, frozen=True, kw_only=True):
    """One element of `topic_states`."""

    topic_name: str = ""
    partition_states: list[StopReplicaPartition] = []


class StopReplicaRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    controller_id: Int32
    is_kraft_controller: bool = False
    controller_epoch: Int32
    broker_epoch: Int64 = -1
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
