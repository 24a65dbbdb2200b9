"""fetch (API key 1): Read batches: consumers below the high watermark, followers to the log end."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class FetchReplicaState(Message, frozen=True, kw_only=True):
    """One element of `replica_state`."""

    replica_id: Int32 = -1
    replica_epoch: Int64 = -1


class FetchPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition: Int32
    current_leader_epoch: Int32 = -1
    fetch_offset: Int64
    last_fetched_epoch: Int32 = -1
    log_start_offset: Int64 = -1
    partition_max_bytes: Int32
    replica_directory_id: Uuid = ZERO_UUID


class FetchTopic(Message, frozen=True, kw_only=True):
    """One element of `topics`."""

    topic: str
    topic_id: Uuid = ZERO_UUID
    partitions: list[FetchPartition]


class FetchForgottenTopic(Message, frozen=True, kw_only=True):
    """One element of `forgotten_topics_data`."""

    topic: str
    topic_id: Uuid = ZERO_UUID
    partitions: list[Int32] = []


class FetchRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    cluster_id: str | None = None
    replica_state: FetchReplicaState = FetchReplicaState()
    max_wait_ms: Int32
    min_bytes: Int32
    max_bytes: Int32 = 2**31 - 1
    isolation_level: Int8 = 0
    session_id: Int32 = 0
    session_epoch: Int32 = -1
    topics: list[FetchTopic]
    forgotten_topics_data: list[FetchForgottenTopic] = []
    rack_id: str = ""


class FetchResponseDivergingEpoch(Message, frozen=True, kw_only=True):
    """One element of `diverging_epoch`."""

    epoch: Int32 = -1
    end_offset: Int64 = -1


class FetchResponseCurrentLeader(Message, frozen=True, kw_only=True):
    """One element of `current_leader`."""

    leader_id: Int32 = -1
    leader_epoch: Int32 = -1


class FetchResponseSnapshotId(Message, frozen=True, kw_only=True):
    """One element of `snapshot_id`."""

    end_offset: Int64 = -1
    epoch: Int32 = -1


class FetchResponseAbortedTransaction(Message, frozen=True, kw_only=True):
    """One element of `aborted_transactions`."""

    producer_id: Int64 = 0
    first_offset: Int64 = 0


class FetchResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    error_code: Int16
    high_watermark: Int64
    last_stable_offset: Int64 = -1
    log_start_offset: Int64 = -1
    diverging_epoch: FetchResponseDivergingEpoch = FetchResponseDivergingEpoch()
    current_leader: FetchResponseCurrentLeader = FetchResponseCurrentLeader()
    snapshot_id: FetchResponseSnapshotId = FetchResponseSnapshotId()
    aborted_transactions: list[FetchResponseAbortedTransaction] = []
    preferred_read_replica: Int32 = -1
    records: memoryview | None = None


class FetchResponseTopic(Message, frozen=True, kw_only=True):
    """One element of `responses`."""

    topic: str
    topic_id: Uuid = ZERO_UUID
    partitions: list[FetchResponsePartition]


class FetchResponseNodeEndpoint(Message, frozen=True, kw_only=True):
    """One element of `node_endpoints`."""

    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None


class FetchResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    session_id: Int32 = 0
    responses: list[FetchResponseTopic]
    node_endpoints: list[FetchResponseNodeEndpoint] = []
