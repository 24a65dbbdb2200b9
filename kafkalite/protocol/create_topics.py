"""create_topics (API key 19): Create topics; only the active controller accepts it."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Message


class CreateTopicsAssignment(Message, frozen=True, kw_only=True):
    """One element of `assignments`."""

    partition_index: Int32
    broker_ids: list[Int32]
    """The replicas in order of preference; the first is the preferred leader."""


class CreateTopicsConfig(Message, frozen=True, kw_only=True):
    """One element of `configs`."""

    name: str
    value: str | None = None
    """None resets it to the default."""


class CreateTopicsTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    num_partitions: Int32
    """-1 for the broker's `num.partitions`, or where `assignments` says it."""
    replication_factor: Int16
    """-1 for the broker's `default.replication.factor`, or where `assignments` says it."""
    assignments: list[CreateTopicsAssignment]
    """Replicas chosen by hand; empty to let the controller place them."""
    configs: list[CreateTopicsConfig]


class CreateTopicsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    topics: list[CreateTopicsTopic]
    timeout_ms: Int32 = 60000
    """How long to wait until the topics' leaders are known; the topics stay if it runs out."""
    validate_only: bool = False
    """Check everything, create nothing."""


class CreateTopicsResponseConfig(Message, frozen=True, kw_only=True):
    """One element of `configs`."""

    name: str = ""
    value: str | None = None
    read_only: bool = False
    config_source: Int8 = -1
    """1 topic, 2 broker (dynamic), 3 all brokers (dynamic), 4 broker's file, 5 default."""
    is_sensitive: bool = False
    """The value is a secret and left out."""


class CreateTopicsResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    topic_id: Uuid = ZERO_UUID
    error_code: Int16
    error_message: str | None = None
    topic_config_error_code: Int16 = 0
    """Why the configs are not shown, where they are not."""
    num_partitions: Int32 = -1
    replication_factor: Int16 = -1
    configs: list[CreateTopicsResponseConfig] = []


class CreateTopicsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[CreateTopicsResponseTopic]
