"""metadata (API key 3): Brokers, the controller, and who leads what, as this broker last heard it."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int16, Int32, Message


class MetadataTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic_id: Uuid = ZERO_UUID
    name: str | None
    """None to ask by `topic_id`."""


class MetadataRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    topics: list[MetadataTopic] | None = None
    """None for all topics, [] for none."""
    allow_auto_topic_creation: bool = True
    """Whether an unknown topic may be created, where the broker allows that."""
    include_topic_authorized_operations: bool = False


class MetadataResponseBroker(Message, frozen=True, kw_only=True):
    """One element of `brokers`."""

    node_id: Int32
    host: str
    port: Int32
    rack: str | None = None


class MetadataResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    error_code: Int16
    partition_index: Int32
    leader_id: Int32
    """-1 where nobody leads."""
    leader_epoch: Int32 = -1
    replica_nodes: list[Int32]
    """In order of preference."""
    isr_nodes: list[Int32]
    offline_replicas: list[Int32] = []
    """Those on dead brokers or failed log directories."""


class MetadataResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    error_code: Int16
    name: str | None
    topic_id: Uuid = ZERO_UUID
    is_internal: bool = False
    partitions: list[MetadataResponsePartition]
    topic_authorized_operations: Int32 = -(2**31)
    """A bit for each operation; -2**31 where it was not asked for."""


class MetadataResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    brokers: list[MetadataResponseBroker]
    cluster_id: str | None = None
    controller_id: Int32 = -1
    """-1 where no controller is known."""
    topics: list[MetadataResponseTopic]
