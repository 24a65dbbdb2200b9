"""leader_and_isr (API key 4): The controller tells a broker which partitions it leads and follows."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class LeaderAndIsrPartition(Message, frozen=True, kw_only=True):
    """One element of `partition_states`."""

    partition_index: Int32
    controller_epoch: Int32
    """The epoch of the controller that made this decision, which may be an earlier one."""
    leader: Int32
    """-1 for none."""
    leader_epoch: Int32
    isr: list[Int32]
    partition_epoch: Int32
    """The version of the partition's `state` znode."""
    replicas: list[Int32]
    """In order of preference."""
    adding_replicas: list[Int32] = []
    removing_replicas: list[Int32] = []
    is_new: bool = False
    """The replica never existed, so its log may be created even while a log directory is offline."""
    leader_recovery_state: Int8 = 0
    """0 recovered, 1 recovering after an unclean election."""


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
    """The request; see the module."""

    controller_id: Int32
    is_kraft_controller: bool = False
    controller_epoch: Int32
    broker_epoch: Int64 = -1
    """The epoch that the controller knows the receiver by; an older one gets STALE_BROKER_EPOCH."""
    type: Int8 = 0
    """0 unspecified, 1 incremental, 2 all that the broker should hold."""
    topic_states: list[LeaderAndIsrTopic] = []
    live_leaders: list[LeaderAndIsrLiveLeader]
    """Where the leaders named above are reached."""


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
