"""produce (API key 0): Append record batches to partitions that this broker leads."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class ProducePartition(Message, frozen=True, kw_only=True):
    """One element of `partition_data`."""

    index: Int32
    records: memoryview | None = None
    """One batch."""


class ProduceTopic(Message, frozen=True, kw_only=True):
    """One element of `topic_data`."""

    name: str
    partition_data: list[ProducePartition]


class ProduceRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    transactional_id: str | None = None
    """None unless the batches are transactional."""
    acks: Int16
    """0 after the local append, without an offset; 1 after the local append; -1 when all in sync have it."""
    timeout_ms: Int32
    """How long to wait for the replicas in sync."""
    topic_data: list[ProduceTopic]


class ProduceResponseRecordError(Message, frozen=True, kw_only=True):
    """One element of `record_errors`."""

    batch_index: Int32 = 0
    """The record's index in its batch."""
    batch_index_error_message: str | None = None


class ProduceResponseCurrentLeader(Message, frozen=True, kw_only=True):
    """One element of `current_leader`."""

    leader_id: Int32 = -1
    """Who leads now, so that the producer need not fetch metadata first; -1 if not known."""
    leader_epoch: Int32 = -1


class ProduceResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partition_responses`."""

    index: Int32
    error_code: Int16
    base_offset: Int64
    """The offset of the batch's first record; -1 with an error or `acks` 0."""
    log_append_time_ms: Int64 = -1
    """The records' timestamp, where the topic sets it; else -1."""
    log_start_offset: Int64 = -1
    record_errors: list[ProduceResponseRecordError] = []
    """The records that the batch was refused for, where single ones are to blame."""
    error_message: str | None = None
    current_leader: ProduceResponseCurrentLeader = ProduceResponseCurrentLeader()


class ProduceResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `responses`."""

    name: str
    partition_responses: list[ProduceResponsePartition]


class ProduceResponseNodeEndpoint(Message, frozen=True, kw_only=True):
    """One element of `node_endpoints`."""

    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None


class ProduceResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    responses: list[ProduceResponseTopic]
    throttle_time_ms: Int32 = 0
    node_endpoints: list[ProduceResponseNodeEndpoint] = []
