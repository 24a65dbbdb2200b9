"""One partition as this broker sees it: its role, its ISR, and what is committed. No IO.

The leader's job is to know what it may acknowledge. It follows what each follower has fetched,
keeps the ISR true (a member that lags leaves it, one that has caught up joins it) and derives
the high watermark, below which every member of the ISR has every record.

Most of what makes this hard is *not knowing*. An ISR change is a conditional write to ZooKeeper
whose answer may be lost; until its outcome is known, the high watermark counts the members before
*and* after it. A conflict that names another leader or leader epoch makes this leader *deposed*:
its high watermark stands still for good, it acknowledges nothing and writes nothing, until the
controller gives it a newer epoch. A lost session makes it *frozen*: it proposes no ISR changes and
acknowledges nothing that only it has, until the controller has confirmed it under the new one.
DESIGN section 3 has these rules and why none of them can be left out.

Two deliberate differences from Kafka, both on the safe side. Taking a new leader epoch forgets
what followers had fetched, even where this broker led before: only followers that are in *this*
leader epoch advance the high watermark. And a fetch from an earlier life of a follower than one
already seen in this leader epoch is refused.

Times are milliseconds of the monotonic clock. Offsets named `…_end_offset` are exclusive.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from kafkalite.common import (
    NO_LEADER,
    UNKNOWN_BROKER_EPOCH,
    UNKNOWN_LEADER_EPOCH,
    UNKNOWN_OFFSET,
    BrokerEpoch,
    BrokerId,
    ControllerEpoch,
    LeaderAndIsr,
    PartitionEpoch,
    TopicPartition,
)
from kafkalite.protocol.errors import (
    FencedLeaderEpochError,
    KafkaStorageError,
    NotLeaderOrFollowerError,
    StaleBrokerEpochError,
    UnknownLeaderEpochError,
)
from kafkalite.replication.edges import Conflict, Fenced, IsrChange, IsrOutcome, Unknown, Written

NEVER_MS: Final = -(2**62)
"""A time before every other one (0 would be a moment ago where a clock starts at 0)."""

IsAlive: TypeAlias = Callable[[BrokerId], bool]


class Role(enum.Enum):
    """What this broker does for the partition."""

    LEADER = "leader"
    FOLLOWER = "follower"
    OFFLINE = "offline"
    """Its log directory failed, or its work did; it stays so until the broker restarts."""


class Verdict(enum.Enum):
    """What a leader-and-ISR instruction is to this partition."""

    NEW_LEADER_EPOCH = "new leader epoch"
    CONFIRMATION = "confirmation"
    """The leader epoch that is held, with the same leader."""
    STALE = "stale"
    """An older leader epoch, or the one held with another leader."""
    SUPERSEDED = "superseded"
    """A newer leader epoch with an older partition epoch than the one held: skipped."""
    NOT_ASSIGNED = "not assigned"
    """This broker is not among the replicas."""


class Settled(enum.Enum):
    """What the outcome of an ISR change, or reading it back, came to."""

    COMMITTED = "committed"
    """The state holds the ISR that was proposed (or what the store made of it)."""
    ADOPTED = "adopted"
    """Another ISR was found under this leader and epoch, and taken over."""
    UNCHANGED = "unchanged"
    """The write did not take effect; the ISR is what it was."""
    DEPOSED = "deposed"
    """The state names another leader or leader epoch."""
    PENDING = "pending"
    """Still not known: read back (again)."""
    MOOT = "moot"
    """A newer instruction came first; the outcome no longer concerns anybody."""


class FollowerState(msgspec.Struct):
    """The leader's view of one remote replica, as of its last fetch in this leader epoch."""

    broker_id: BrokerId
    log_end_offset: int = UNKNOWN_OFFSET
    """Offset of its last fetch: it has every record below."""
    log_start_offset: int = UNKNOWN_OFFSET
    last_fetch_leader_end_offset: int = 0
    """The leader's log end offset at its last fetch."""
    last_fetch_ms: int = NEVER_MS
    last_caught_up_ms: int = NEVER_MS
    """The latest time at which it is known to have had everything the leader had."""
    broker_epoch: BrokerEpoch = UNKNOWN_BROKER_EPOCH
    """The latest life of that broker whose fetches were seen in this leader epoch."""
    join_not_before_ms: int = NEVER_MS
    """Until then it is not proposed for the ISR again: the last attempt did not take effect."""

    def is_caught_up(self, *, leader_end_offset: int, now_ms: int, lag_max_ms: int) -> bool:
        """Tell whether it may stay in the ISR.

        Time, not the distance in offsets, decides: a burst of produce requests must not evict
        a healthy follower (`replica.lag.time.max.ms`, KIP-16).
        """
        return self.log_end_offset == leader_end_offset or now_ms - self.last_caught_up_ms <= lag_max_ms

    def record_fetch(
        self, *, fetch_offset: int, log_start_offset: int, leader_end_offset: int, now_ms: int
    ) -> None:
        """Note a fetch; ``leader_end_offset`` is the leader's log end before it was served."""
        if fetch_offset >= leader_end_offset:
            self.last_caught_up_ms = max(self.last_caught_up_ms, now_ms)
        elif fetch_offset >= self.last_fetch_leader_end_offset:
            self.last_caught_up_ms = max(self.last_caught_up_ms, self.last_fetch_ms)
        self.log_end_offset = fetch_offset
        self.log_start_offset = log_start_offset
        self.last_fetch_leader_end_offset = max(self.last_fetch_leader_end_offset, leader_end_offset)
        self.last_fetch_ms = now_ms


class Partition:
    """The pure state of one replica. Everything that changes it is a method here."""

    __slots__ = (
        "broker_id",
        "change",
        "controller_epoch",
        "counted",
        "epoch_start_offset",
        "followers",
        "is_deposed",
        "is_frozen",
        "isr",
        "leader",
        "leader_epoch",
        "partition_epoch",
        "replicas",
        "role",
        "topic_partition",
    )

    def __init__(self, topic_partition: TopicPartition, broker_id: BrokerId) -> None:
        """A replica of ``broker_id`` that has been told nothing yet: it follows nobody."""
        self.topic_partition = topic_partition
        self.broker_id = broker_id
        self.role = Role.FOLLOWER
        self.leader = NO_LEADER
        """Who leads, as far as this replica was told; -1 for nobody."""
        self.leader_epoch = UNKNOWN_LEADER_EPOCH
        self.partition_epoch = PartitionEpoch(-1)
        """Version of the state znode that :attr:`isr` is from."""
        self.controller_epoch = ControllerEpoch(-1)
        self.replicas: tuple[BrokerId, ...] = ()
        """The assigned replicas, preferred leader first."""
        self.isr: tuple[BrokerId, ...] = ()
        """The last ISR known to be in ZooKeeper; empty on a follower."""
        self.change: IsrChange | None = None
        """The ISR change in flight, if any: at most one, until its outcome is known."""
        self.counted: frozenset[BrokerId] = frozenset()
        """Members that the high watermark waits for: the ISR before and after a change in flight."""
        self.followers: dict[BrokerId, FollowerState] = {}
        """Every other replica, while leading."""
        self.epoch_start_offset = 0
        """The leader's log end offset when it took this leader epoch."""
        self.is_deposed = False
        self.is_frozen = False
        """Set by a lost session; lifted by an instruction under a later one. A lease that merely
        ran out is asked of the lease itself: it comes back with the same session."""

    # ---- instructions of the controller ----

    def judge(self, state: LeaderAndIsr, replicas: tuple[BrokerId, ...]) -> Verdict:
        """Tell what an instruction is, without acting on it."""
        if self.broker_id not in replicas:
            return Verdict.NOT_ASSIGNED
        if state.leader_epoch < self.leader_epoch:
            return Verdict.STALE
        if state.leader_epoch == self.leader_epoch:
            return Verdict.CONFIRMATION if state.leader == self.leader else Verdict.STALE
        if state.partition_epoch < self.partition_epoch:
            return Verdict.SUPERSEDED
        return Verdict.NEW_LEADER_EPOCH

    def become_leader(
        self, state: LeaderAndIsr, replicas: tuple[BrokerId, ...], *, log_end_offset: int, now_ms: int
    ) -> None:
        """Lead under a new leader epoch. Whatever was in flight under the old one is moot.

        What the state says is newer than any write of ours (its partition epoch is higher), so a
        change in flight either is contained in it or has failed its version check.
        """
        assert state.leader == self.broker_id
        self._take(state, replicas)
        self.role = Role.LEADER
        self.isr = state.isr
        self._recount()
        self.epoch_start_offset = log_end_offset
        self.followers = {
            replica: FollowerState(replica, last_caught_up_ms=now_ms if replica in state.isr else NEVER_MS)
            for replica in sorted({*replicas, *state.isr} - {self.broker_id})
        }

    def become_follower(self, state: LeaderAndIsr, replicas: tuple[BrokerId, ...]) -> None:
        """Follow ``state.leader`` (or nobody, where that is -1) under a new leader epoch."""
        assert state.leader != self.broker_id
        self._take(state, replicas)
        self.role = Role.FOLLOWER
        self.isr = ()
        self._recount()
        self.followers = {}

    def confirm(self, state: LeaderAndIsr, replicas: tuple[BrokerId, ...]) -> bool:
        """Take a confirmation of the leader epoch held; tells whether the ISR changed by it.

        ISR and partition epoch are adopted only if higher than those held: a confirmation may
        have been under way for long. A change in flight stays in flight, and the high watermark
        goes on counting its members, until its outcome is read back.
        """
        assert state.leader_epoch == self.leader_epoch
        assert state.leader == self.leader
        if state.partition_epoch <= self.partition_epoch:
            return False
        self.replicas = replicas
        return self._adopt(state)

    def freeze(self) -> None:
        """The session is lost: nothing that only this broker has may be acknowledged."""
        self.is_frozen = True

    def unfreeze(self) -> None:
        """An instruction under the present registration came."""
        self.is_frozen = False

    def go_offline(self) -> None:
        """The replica can serve no more until the broker restarts."""
        self.role = Role.OFFLINE
        self.isr = ()
        self.change = None
        self._recount()
        self.followers = {}

    def stop(self) -> None:
        """The controller takes the replica away: nobody leads as far as it is concerned."""
        self.role = Role.FOLLOWER
        self.leader = NO_LEADER
        self.isr = ()
        self.change = None
        self._recount()
        self.followers = {}

    def _take(self, state: LeaderAndIsr, replicas: tuple[BrokerId, ...]) -> None:
        self.leader = state.leader
        self.leader_epoch = state.leader_epoch
        self.partition_epoch = state.partition_epoch
        self.controller_epoch = state.controller_epoch
        self.replicas = replicas
        self.change = None
        self.is_deposed = False

    def _adopt(self, state: LeaderAndIsr) -> bool:
        self.partition_epoch = state.partition_epoch
        self.controller_epoch = state.controller_epoch
        if self.role is not Role.LEADER:
            return False
        changed = self.isr != state.isr
        self.isr = state.isr
        for member in sorted(state.isr):
            if member != self.broker_id and member not in self.followers:
                self.followers[member] = FollowerState(member)
        self._recount()
        return changed

    def _recount(self) -> None:
        change = self.change
        self.counted = (
            frozenset(self.isr) if change is None else frozenset((*self.isr, *change.isr_before, *change.isr))
        )

    # ---- fencing ----

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    def check_leader(self, current_leader_epoch: int = UNKNOWN_LEADER_EPOCH) -> None:
        """Raise unless this replica leads, in the epoch that the asker believes in (-1: any).

        Raises KafkaStorageError, FencedLeaderEpochError (the asker is behind),
        UnknownLeaderEpochError (this broker is), NotLeaderOrFollowerError.
        """
        if self.role is Role.OFFLINE:
            raise KafkaStorageError(f"{self.topic_partition} is offline on broker {self.broker_id}")
        if current_leader_epoch >= 0 and current_leader_epoch != self.leader_epoch:
            if current_leader_epoch < self.leader_epoch:
                raise FencedLeaderEpochError(
                    f"{self.topic_partition}: leader epoch {current_leader_epoch} is over, "
                    f"{self.leader_epoch} is current"
                )
            raise UnknownLeaderEpochError(
                f"{self.topic_partition}: leader epoch {current_leader_epoch} is not known here yet, "
                f"{self.leader_epoch} is"
            )
        if self.role is not Role.LEADER:
            raise NotLeaderOrFollowerError(
                f"{self.topic_partition} is led by broker {self.leader} in leader epoch "
                f"{self.leader_epoch}, not by broker {self.broker_id}"
            )

    def follower(
        self, broker_id: BrokerId, *, broker_epoch: BrokerEpoch, current_leader_epoch: int
    ) -> FollowerState:
        """Return the state of a fetching follower, after :meth:`check_leader`.

        Raises StaleBrokerEpochError for a fetch of an earlier life than one already seen in this
        leader epoch (it changes nothing); UnknownLeaderEpochError, or NotLeaderOrFollowerError
        where the fetch carried no epoch, for a broker that is not among the replicas: either of
        the two is behind.
        """
        follower = self.followers.get(broker_id)
        if follower is None:
            message = f"broker {broker_id} is not a replica of {self.topic_partition}"
            raise (
                UnknownLeaderEpochError(message)
                if current_leader_epoch >= 0
                else NotLeaderOrFollowerError(message)
            )
        if broker_epoch < follower.broker_epoch:
            raise StaleBrokerEpochError(
                f"{self.topic_partition}: a fetch of broker {broker_id} in its life {broker_epoch}, "
                f"but {follower.broker_epoch} has been seen"
            )
        return follower

    # ---- the high watermark ----

    def next_high_watermark(
        self,
        current: int,
        *,
        leader_end_offset: int,
        min_isr: int,
        now_ms: int,
        lag_max_ms: int,
        is_alive: IsAlive,
    ) -> int:
        """Return what the high watermark may be now: never below ``current``.

        It is the least log end of this broker, of the ISR before and after a change in flight,
        and of replicas about to join (caught up by time, alive), who could otherwise never catch
        up with a high watermark that runs ahead of them. It stands still on a deposed leader and
        while fewer than ``min_isr`` members are in the ISR (KIP-966).
        """
        if self.role is not Role.LEADER or self.is_deposed or len(self.isr) < min_isr:
            return current
        candidate = leader_end_offset
        counted = self.counted
        for broker_id, follower in self.followers.items():
            if follower.log_end_offset < candidate and (
                broker_id in counted
                or (
                    follower.is_caught_up(
                        leader_end_offset=leader_end_offset, now_ms=now_ms, lag_max_ms=lag_max_ms
                    )
                    and is_alive(broker_id)
                )
            ):
                candidate = follower.log_end_offset
        return max(current, candidate)

    def effective_min_isr(self, min_insync_replicas: int) -> int:
        """`min.insync.replicas`, which no partition with fewer replicas could reach."""
        return min(min_insync_replicas, len(self.replicas))

    @property
    def maximal_isr_size(self) -> int:
        """Members of the ISR, with the one that a change in flight adds."""
        change = self.change
        return len(self.isr) if change is None else len({*self.isr, *change.isr})

    # ---- ISR changes ----

    def propose_shrink(self, *, leader_end_offset: int, now_ms: int, lag_max_ms: int) -> IsrChange | None:
        """Put a change in flight that drops the members that lag; None where there is none to make.

        The caller has made sure of the lease.
        """
        if not self._may_change():
            return None
        kept = tuple(
            member
            for member in self.isr
            if member == self.broker_id
            or self.followers[member].is_caught_up(
                leader_end_offset=leader_end_offset, now_ms=now_ms, lag_max_ms=lag_max_ms
            )
        )
        if kept == self.isr:
            return None
        return self._propose(kept, now_ms=now_ms)

    def propose_expansion(
        self, follower: FollowerState, *, high_watermark: int, now_ms: int, is_alive: IsAlive
    ) -> IsrChange | None:
        """Put a change in flight that adds ``follower``, if it has just caught up; else None.

        It must have everything that is committed and everything up to the start of this leader
        epoch: only then does its log agree with ours on all that the epochs before have left.
        The caller has made sure of the lease.
        """
        if (
            follower.broker_id in self.isr
            or follower.log_end_offset < high_watermark
            or follower.log_end_offset < self.epoch_start_offset
            or now_ms < follower.join_not_before_ms
            or not self._may_change()
            or not is_alive(follower.broker_id)
        ):
            return None
        return self._propose(
            (*self.isr, follower.broker_id),
            now_ms=now_ms,
            joining=follower.broker_id,
            joining_epoch=follower.broker_epoch,
        )

    def _may_change(self) -> bool:
        return self.role is Role.LEADER and self.change is None and not self.is_deposed and not self.is_frozen

    def _propose(
        self,
        isr: tuple[BrokerId, ...],
        *,
        now_ms: int,
        joining: BrokerId | None = None,
        joining_epoch: BrokerEpoch | None = None,
    ) -> IsrChange:
        self.change = IsrChange(
            partition=self.topic_partition,
            leader=self.broker_id,
            leader_epoch=self.leader_epoch,
            controller_epoch=self.controller_epoch,
            isr_before=self.isr,
            isr=isr,
            expected_version=self.partition_epoch,
            joining=joining,
            joining_epoch=joining_epoch,
            started_ms=now_ms,
        )
        self._recount()
        return self.change

    def settle(self, change: IsrChange, outcome: IsrOutcome) -> Settled:
        """Take the answer to a write. PENDING means that it must be read back."""
        if self.change is not change:
            return Settled.MOOT
        match outcome:
            case Written(partition_epoch, isr):
                self.change = None
                if partition_epoch > self.partition_epoch:
                    self.partition_epoch = partition_epoch
                    self.isr = isr
                self._recount()
                return Settled.COMMITTED
            case Conflict(found):
                return self._settle_by(change, found)
            case Fenced():
                self.change = None
                self._recount()
                return Settled.UNCHANGED
            case Unknown():
                return Settled.PENDING

    def read_back(self, change: IsrChange, found: LeaderAndIsr | None) -> Settled:
        """Take the state as it was read after a write whose answer was lost."""
        return Settled.MOOT if self.change is not change else self._settle_by(change, found)

    def _settle_by(self, change: IsrChange, found: LeaderAndIsr | None) -> Settled:
        """Look at what is there instead of forcing what was meant to be there."""
        if found is None or found.leader != self.broker_id or found.leader_epoch != self.leader_epoch:
            # The change stays: whatever it did, nothing this leader counts will ever matter again.
            self.is_deposed = True
            return Settled.DEPOSED
        if found.partition_epoch < self.partition_epoch:
            return Settled.PENDING  # Older than what is known: an answer from a server that lags.
        self.change = None
        if found.partition_epoch == self.partition_epoch:
            self._recount()
            return Settled.UNCHANGED
        self._adopt(found)
        return Settled.COMMITTED if set(found.isr) == set(change.isr) else Settled.ADOPTED
