"""update_metadata (API key 6): The controller tells a broker who is alive and who leads what."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class UpdateMetadataPartition(Message, frozen=True, kw_only=True):
    """One element of `partition_states`."""

    partition_index: Int32
    controller_epoch: Int32
    leader: Int32
    """-1 for none, -2 while the topic is being deleted."""
    leader_epoch: Int32
    isr: list[Int32]
    zk_version: Int32
    """The version of the partition's `state` znode."""
    replicas: list[Int32]
    offline_replicas: list[Int32] = []
    """Those on dead brokers or failed log directories."""


class UpdateMetadataTopic(Message, frozen=True, kw_only=True):
    """One element of `topic_states`."""

    topic_name: str
    topic_id: Uuid = ZERO_UUID
    partition_states: list[UpdateMetadataPartition] = []


class UpdateMetadataEndpoint(Message, frozen=True, kw_only=True):
    """One element of `endpoints`."""

    port: Int32 = 0
    host: str = ""
    listener: str = ""
    security_protocol: Int16 = 0
    """0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL."""


class UpdateMetadataLiveBroker(Message, frozen=True, kw_only=True):
    """One element of `live_brokers`."""

    id: Int32
    endpoints: list[UpdateMetadataEndpoint] = []
    rack: str | None = None


class UpdateMetadataRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    controller_id: Int32
    is_kraft_controller: bool = False
    type: Int8 = 0
    """0 unspecified, 1 incremental, 2 all there is."""
    controller_epoch: Int32
    broker_epoch: Int64 = -1
    """The epoch that the controller knows the receiver by; an older one gets STALE_BROKER_EPOCH."""
    topic_states: list[UpdateMetadataTopic] = []
    live_brokers: list[UpdateMetadataLiveBroker]
    """All of them, each time."""


class UpdateMetadataResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    error_code: Int16
