"""leader_and_isr (API key 4): The controller tells a broker which partitions it leads and follows."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class LeaderAndIsrPartition(Message, frozen=True, kw_only=True):
    """One element of `partition_states`."""

    partition_index: Int32
    controller_epoch: Int32
    leader: Int32
    leader_epoch: Int32
    isr: list[Int32]
    partition_epoch: Int32
    replicas: list[Int32]
    adding_replicas: list[Int32] = []
    removing_replicas: list[Int32] = []
    is_new: bool = False
    leader_recovery_state: Int8 = 0


class LeaderAndIsrTopic(Message, frozen=True, kw_only=True):
    """One element of `topic_states`."""

    topic_name: str
    topic_id: Uuid = ZERO_UUID
    partition_states: list[LeaderAndIsrPartition] = []


class LeaderAndIsrLiveLeader(Message, frozen=True, kw_only=True):
    """One element of `live_leaders`."""

    broker_id: Int32
    host_name: str
    port: Int32


class LeaderAndIsrRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    controller_id: Int32
    is_kraft_controller: bool = False
    controller_epoch: Int32
    broker_epoch: Int64 = -1
    type: Int8 = 0
    topic_states: list[LeaderAndIsrTopic] = []
    live_leaders: list[LeaderAndIsrLiveLeader]


class LeaderAndIsrResponsePartitionError(Message, frozen=True, kw_only=True):
    """One element of `partition_errors`."""

    partition_index: Int32
    error_code: Int16


class LeaderAndIsrResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic_name: str
    topic_id: Uuid = ZERO_UUID
    partition_errors: list[LeaderAndIsrResponsePartitionError] = []


class LeaderAndIsrResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    error_code: Int16
    topics: list[LeaderAndIsrResponseTopic] = []
