"""fetch (API key 1): Read batches: consumers below the high watermark, followers to the log end."""

from kafkalite.common import ZERO_UUID, Uuid
from kafkalite.protocol.message import Int8, Int16, Int32, Int64, Message


class FetchReplicaState(Message, frozen=True, kw_only=True):
    """One element of `replica_state`."""

    replica_id: Int32 = -1
    """The follower's broker id; -1 for a consumer."""
    replica_epoch: Int64 = -1
    """The follower's broker epoch, which tells one of its lives from the next."""


class FetchPartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition: Int32
    current_leader_epoch: Int32 = -1
    """The leader epoch that the asker knows, to be fenced by; -1 for none."""
    fetch_offset: Int64
    """The first offset wanted."""
    last_fetched_epoch: Int32 = -1
    """The leader epoch of the asker's last record, so that the leader can see a divergence; -1 for none."""
    log_start_offset: Int64 = -1
    """The follower's own log start offset; -1 from consumers."""
    partition_max_bytes: Int32
    """A limit for this partition; a first batch larger than it still comes whole."""
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
    """What to drop from the fetch session."""


class FetchRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    cluster_id: str | None = None
    replica_state: FetchReplicaState = FetchReplicaState()
    max_wait_ms: Int32
    """How long to wait for `min_bytes`."""
    min_bytes: Int32
    """Answer as soon as there are that many bytes of records."""
    max_bytes: Int32 = 2**31 - 1
    """A limit for the whole answer; a first batch larger than it still comes whole."""
    isolation_level: Int8 = 0
    """0 up to the high watermark, 1 up to the last stable offset."""
    session_id: Int32 = 0
    """0 where no fetch session is used."""
    session_epoch: Int32 = -1
    """-1 where no fetch session is used."""
    topics: list[FetchTopic]
    forgotten_topics_data: list[FetchForgottenTopic] = []
    rack_id: str = ""
    """The consumer's rack, for reading from the nearest replica."""


class FetchResponseDivergingEpoch(Message, frozen=True, kw_only=True):
    """One element of `diverging_epoch`."""

    epoch: Int32 = -1
    """The largest leader epoch not above the asker's that the leader has; -1 for no divergence."""
    end_offset: Int64 = -1
    """Where that epoch ended in the leader's log (exclusive): the asker truncates to it."""


class FetchResponseCurrentLeader(Message, frozen=True, kw_only=True):
    """One element of `current_leader`."""

    leader_id: Int32 = -1
    """Who leads now, so that the asker need not fetch metadata first; -1 if not known."""
    leader_epoch: Int32 = -1


class FetchResponseSnapshotId(Message, frozen=True, kw_only=True):
    """One element of `snapshot_id`."""

    end_offset: Int64 = -1
    epoch: Int32 = -1


class FetchResponseAbortedTransaction(Message, frozen=True, kw_only=True):
    """One element of `aborted_transactions`."""

    producer_id: Int64 = 0
    first_offset: Int64 = 0
    """Where the aborted transaction begins in this partition."""


class FetchResponsePartition(Message, frozen=True, kw_only=True):
    """One element of `partitions`."""

    partition_index: Int32
    error_code: Int16
    high_watermark: Int64
    """The end of what is committed (exclusive)."""
    last_stable_offset: Int64 = -1
    """The end of what is committed and decided (exclusive)."""
    log_start_offset: Int64 = -1
    """The first offset there is."""
    diverging_epoch: FetchResponseDivergingEpoch = FetchResponseDivergingEpoch()
    current_leader: FetchResponseCurrentLeader = FetchResponseCurrentLeader()
    snapshot_id: FetchResponseSnapshotId = FetchResponseSnapshotId()
    aborted_transactions: list[FetchResponseAbortedTransaction] = []
    preferred_read_replica: Int32 = -1
    """Where the consumer had better read; -1 for here."""
    records: memoryview | None = None
    """Whole batches; the first may begin before the offset asked for."""


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
    """An error of the fetch session or of the whole request."""
    session_id: Int32 = 0
    responses: list[FetchResponseTopic]
    node_endpoints: list[FetchResponseNodeEndpoint] = []
