"""The replicas hosted here, and the steps that every kind of request takes with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from kafkalite.common import (
    NO_LEADER,
    UNKNOWN_LEADER_EPOCH,
    BrokerId,
    LeaderEpoch,
    TopicPartition,
)
from kafkalite.edge import Clock
from kafkalite.journal import Journal
from kafkalite.protocol.errors import NotLeaderOrFollowerError, UnknownTopicOrPartitionError
from kafkalite.replication.edges import BrokerView, IsrChange, ReplicationConfig
from kafkalite.replication.partition import FollowerState
from kafkalite.replication.purgatory import Purgatory
from kafkalite.replication.replica import Replica, TopicCounters


class Hosting:
    """The registry of replicas. Nothing here awaits: each method is one step."""

    def __init__(
        self,
        config: ReplicationConfig,
        *,
        brokers: BrokerView,
        clock: Clock,
        journal: Journal,
        has_lease: Callable[[], bool],
        submit: Callable[[Replica, IsrChange], None],
        on_failure: Callable[[TopicPartition], None],
    ) -> None:
        """``submit`` has an ISR change carried out; ``on_failure`` is told of a partition that
        went offline by a fault in its own work."""
        self.config = config
        self.brokers = brokers
        self.clock = clock
        self.journal = journal
        self.has_lease = has_lease
        self.purgatory = Purgatory()
        self.counters: dict[str, TopicCounters] = {}
        """By topic; kept when its partitions leave, since counters only rise."""
        self.role_listeners: list[Callable[[Replica], None]] = []
        """Told in the step in which a replica's role or leader epoch changes."""
        self._submit = submit
        self._on_failure = on_failure
        self._topics: dict[str, dict[int, Replica]] = {}

    # ---- the registry ----

    def find(self, topic: str, partition: int) -> Replica | None:
        partitions = self._topics.get(topic)
        return None if partitions is None else partitions.get(partition)

    def require(self, topic: str, partition: int) -> Replica:
        """Return the replica, or raise what tells a client where else to look.

        Raises NotLeaderOrFollowerError where the partition is known but not hosted here,
        UnknownTopicOrPartitionError where it is not known at all.
        """
        partitions = self._topics.get(topic)
        replica = None if partitions is None else partitions.get(partition)
        if replica is not None:
            return replica
        topic_partition = TopicPartition(topic, partition)
        if self.brokers.leader_of(topic_partition) is not None:
            raise NotLeaderOrFollowerError(f"{topic_partition} is not on broker {self.config.broker_id}")
        raise UnknownTopicOrPartitionError(f"{topic_partition} is not known")

    def new_replica(self, topic_partition: TopicPartition) -> Replica:
        """Make a replica that nobody sees before it is added."""
        counters = self.counters.setdefault(topic_partition.topic, TopicCounters())
        return Replica(topic_partition, self.config.broker_id, counters)

    def add(self, replica: Replica) -> None:
        topic, partition = replica.topic_partition
        self._topics.setdefault(topic, {})[partition] = replica

    def remove(self, replica: Replica) -> None:
        topic, partition = replica.topic_partition
        partitions = self._topics[topic]
        del partitions[partition]
        if not partitions:
            del self._topics[topic]

    def __iter__(self) -> Iterator[Replica]:
        for partitions in self._topics.values():
            yield from partitions.values()

    def leader_hint(self, topic: str, partition: int) -> tuple[BrokerId, LeaderEpoch]:
        """Who leads, as far as known here: what goes into an answer's `current_leader`."""
        replica = self.find(topic, partition)
        known = self.brokers.leader_of(TopicPartition(topic, partition))
        if replica is not None and (known is None or replica.partition.leader_epoch >= known[1]):
            own = replica.partition
            return own.leader, own.leader_epoch
        return known if known is not None else (NO_LEADER, UNKNOWN_LEADER_EPOCH)

    # ---- steps ----

    def now_ms(self) -> int:
        """The monotonic clock in whole milliseconds."""
        return int(self.clock.monotonic() * 1000)

    def may_acknowledge_alone(self, replica: Replica) -> bool:
        """Tell whether a record that only this broker has may be acknowledged."""
        return not replica.partition.is_frozen and self.has_lease()

    def advance_high_watermark(self, replica: Replica) -> None:
        """Move the high watermark to where the rules allow, and wake who waits for it."""
        log = replica.log
        assert log is not None
        current = log.high_watermark
        if log.log_end_offset == current:
            return
        high_watermark = replica.partition.next_high_watermark(
            current,
            leader_end_offset=log.log_end_offset,
            min_isr=replica.min_isr,
            now_ms=self.now_ms(),
            lag_max_ms=self.config.replica_lag_time_max_ms,
            is_alive=self.brokers.is_alive,
        )
        if high_watermark > current:
            log.update_high_watermark(high_watermark)
            replica.note_committed(high_watermark)
            self.purgatory.flag(replica.produce_watchers)
            self.purgatory.flag(replica.fetch_watchers)

    def interrupt(self, replica: Replica) -> None:
        """Its role or leader epoch changed: requests that wait on it must answer anew."""
        replica.generation += 1
        self.purgatory.flag(replica.produce_watchers)
        self.purgatory.flag(replica.fetch_watchers)
        for listener in self.role_listeners:
            listener(replica)

    def note_fetch(
        self, replica: Replica, follower: FollowerState, *, fetch_offset: int, log_start_offset: int
    ) -> None:
        """Take a follower's fetch into account: the high watermark, and its place in the ISR."""
        log = replica.log
        assert log is not None
        partition = replica.partition
        now_ms = self.now_ms()
        moved = follower.log_end_offset != fetch_offset
        follower.record_fetch(
            fetch_offset=fetch_offset,
            log_start_offset=log_start_offset,
            leader_end_offset=log.log_end_offset,
            now_ms=now_ms,
        )
        if moved:
            self.advance_high_watermark(replica)
        if follower.broker_id not in partition.isr and self.has_lease():
            change = partition.propose_expansion(
                follower,
                high_watermark=log.high_watermark,
                now_ms=now_ms,
                is_alive=self.brokers.is_alive,
            )
            if change is not None:
                self._submit(replica, change)

    def propose_shrink(self, replica: Replica) -> None:
        """Drop lagging members from the ISR; the caller has made sure of the lease."""
        log = replica.log
        if log is None or not replica.partition.is_leader:
            return
        change = replica.partition.propose_shrink(
            leader_end_offset=log.log_end_offset,
            now_ms=self.now_ms(),
            lag_max_ms=self.config.replica_lag_time_max_ms,
        )
        if change is not None:
            self._submit(replica, change)

    def take_offline(self, replica: Replica, reason: str) -> None:
        """Serve the replica no more (its log directory failed)."""
        if replica.is_offline:
            return
        replica.partition.go_offline()
        replica.failure = reason
        self.interrupt(replica)
        self.journal.record("PartitionOffline", partition=replica.topic_partition, reason=reason)

    def fail(self, replica: Replica, error: BaseException) -> None:
        """A fault in this partition's own work: it goes offline, the others go on."""
        if replica.is_offline:
            return
        reason = f"{type(error).__name__}: {error}"
        self.journal.record("PartitionFailed", partition=replica.topic_partition, error=reason)
        self.take_offline(replica, reason)
        self._on_failure(replica.topic_partition)


class IsrQueue:
    """ISR changes proposed and not yet taken up. Bounded by one change a partition in flight."""

    def __init__(self) -> None:
        self._changes: deque[tuple[Replica, IsrChange]] = deque()
        self._on_put: Callable[[], None] | None = None

    def subscribe(self, on_put: Callable[[], None] | None) -> None:
        """Call ``on_put`` whenever something was put."""
        self._on_put = on_put

    def put(self, replica: Replica, change: IsrChange) -> None:
        self._changes.append((replica, change))
        if self._on_put is not None:
            self._on_put()

    def take(self) -> tuple[Replica, IsrChange] | None:
        return self._changes.popleft() if self._changes else None
