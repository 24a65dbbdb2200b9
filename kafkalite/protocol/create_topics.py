"""create_topics (API key 19): Create topics; only the active controller accepts it."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Message


class CreateTopicsAssignment(Message, frozen=True, kw_only=True):
    """One element of `assignments`."""

    partition_index: Int32
    broker_ids: list[Int32]


class CreateTopicsConfig(Message, frozen=True, kw_only=True):
    """One element of `configs`."""

    name: str
    value: str | None = None


class CreateTopicsTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    num_partitions: Int32
    replication_factor: Int16
    assignments: list[CreateTopicsAssignment]
    configs: list[CreateTopicsConfig]


class CreateTopicsRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    topics: list[CreateTopicsTopic]
    timeout_ms: Int32 = 60000
    validate_only: bool = False


class CreateTopicsResponseConfig(Message, frozen=True, kw_only=True):
    """One element of `configs`."""

    name: str = ""
    value: str | None = None
    read_only: bool = False
    config_source: Int8 = -1
    is_sensitive: bool = False


class CreateTopicsResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    name: str
    topic_id: Uuid = ZERO_UUID
    error_code: Int16
    error_message: str | None = None
    topic_config_error_code: Int16 = 0
    num_partitions: Int32 = -1
    replication_factor: Int16 = -1
    configs: list[CreateTopicsResponseConfig] = []


class CreateTopicsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    topics: list[CreateTopicsResponseTopic]
