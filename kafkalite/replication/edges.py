"""What replication asks of its neighbours; the server implements these, tests hand in fakes.

An ISR change is written by the leader into the partition's state znode (the classic path). Its
outcome has four shapes, because a leader may act on nothing but what it knows: it was written,
something else was found there, it was certainly not written, or nobody can tell. The last one
stays pending until the state has been read back (DESIGN section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgspec

from kafkalite.common import (
    BrokerEpoch,
    BrokerId,
    ControllerEpoch,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
)
from kafkalite.protocol.fetch import FetchRequest, FetchResponse
from kafkalite.protocol.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)


class IsrChange(msgspec.Struct, frozen=True, eq=False):
    """One proposed write of a partition's state. Compared by identity: two attempts differ."""

    partition: TopicPartition
    leader: BrokerId
    leader_epoch: LeaderEpoch
    controller_epoch: ControllerEpoch
    """The controller epoch of the state that the leader holds; it is written on unchanged."""
    isr_before: tuple[BrokerId, ...]
    isr: tuple[BrokerId, ...]
    """The proposed ISR. The store may write fewer: it leaves out restarted members."""
    expected_version: PartitionEpoch
    """The version of the state znode that the write is conditional on."""
    joining: BrokerId | None = None
    """The replica that an expansion adds; None for a shrink."""
    joining_epoch: BrokerEpoch | None = None
    """The broker epoch that the joining replica's fetches carry: its registration's czxid must
    be this one, or it is another life than the one that caught up."""
    started_ms: int = 0
    """When it was proposed, in the leader's monotonic milliseconds."""

    @property
    def proposed(self) -> LeaderAndIsr:
        """The state to write; its partition epoch is the version to expect, not the new one."""
        return LeaderAndIsr(
            leader=self.leader,
            leader_epoch=self.leader_epoch,
            isr=self.isr,
            controller_epoch=self.controller_epoch,
            partition_epoch=self.expected_version,
        )


class Written(msgspec.Struct, frozen=True):
    """The change took effect, perhaps without members that had registered anew."""

    partition_epoch: PartitionEpoch
    """The new version of the state znode."""
    isr: tuple[BrokerId, ...]
    """What was in fact written: a subset of the proposal that holds the leader."""


class Conflict(msgspec.Struct, frozen=True):
    """Another version was found; nothing was written."""

    found: LeaderAndIsr | None
    """The state as it is now (partition_epoch = its version); None where there is none any more."""


class Fenced(msgspec.Struct, frozen=True):
    """Certainly not written: the joining replica's registration is another life or gone, or this
    broker has no session to write with. The leader goes on with the ISR it has."""

    reason: str


class Unknown(msgspec.Struct, frozen=True):
    """The write was sent and its answer lost; it may take effect or have taken effect."""

    reason: str


IsrOutcome: TypeAlias = Written | Conflict | Fenced | Unknown


class IsrStoreUnavailable(Exception):
    """No answer now: the connection is lost, or there is no session. Asked again later."""


class IsrStore(Protocol):
    """Conditional writes of partition states under this broker's own session."""

    async def write(self, change: IsrChange) -> IsrOutcome:
        """Write ``change.proposed`` if the state still has ``change.expected_version``.

        In this order: read the version of `/brokers/ids`, the registrations, the state and its
        mzxid; leave out members that registered (czxid) after that mzxid, except the leader and
        ``change.joining``, whose czxid must equal ``change.joining_epoch`` (else Fenced); write
        in a multi that checks the version read first, starting over when that check fails.
        A lost connection, or a session lost with the write under way, is Unknown. Does not raise
        for anything that ZooKeeper does; an exception here ends the broker.
        """
        ...

    async def read(self, partition: TopicPartition) -> LeaderAndIsr | None:
        """Read a state back, as new as any write whose answer this broker may have missed.

        So: `sync` first (a reconnect may have led to a server that lags). Under a new session it
        is to be asked only after the new registration, whose bump of `/brokers/ids`'s version
        makes whatever the old session still had under way fail. Returns None where there is no
        state. Raises IsrStoreUnavailable.
        """
        ...

    async def notify(self, partitions: Sequence[TopicPartition]) -> None:
        """Create one `isr_change_notification` naming ``partitions``. Raises IsrStoreUnavailable."""
        ...


class LeaderUnavailable(Exception):
    """The leader could not be asked: its address is not known, or it answered with a refusal."""


class LeaderChannel(Protocol):
    """Asks other brokers on behalf of followers.

    Each method raises :class:`kafkalite.edge.ConnectionFailed` or :class:`LeaderUnavailable`.
    """

    async def fetch(self, leader: BrokerId, request: FetchRequest, *, fetcher_id: int) -> FetchResponse:
        """Fetch; requests of one ``(leader, fetcher_id)`` share a lane, one in flight at a time.

        The client id is `broker-<id>-fetcher-<fetcher_id>`.
        """
        ...

    async def list_offsets(self, leader: BrokerId, request: ListOffsetsRequest) -> ListOffsetsResponse: ...

    async def offset_for_leader_epoch(
        self, leader: BrokerId, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse: ...


class BrokerView(Protocol):
    """What the metadata cache knows."""

    def is_alive(self, broker_id: BrokerId) -> bool: ...

    def leader_of(self, partition: TopicPartition) -> tuple[BrokerId, LeaderEpoch] | None:
        """Leader (-1: none) and leader epoch of a partition; None where it is not known at all.

        Used for partitions not hosted here: to tell a client where to go.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicationConfig:
    """The broker configs that replication honours, under Kafka's names and with its defaults."""

    broker_id: BrokerId
    replica_lag_time_max_ms: int = 30_000
    replica_fetch_min_bytes: int = 1
    replica_fetch_max_bytes: int = 1_048_576
    replica_fetch_response_max_bytes: int = 10_485_760
    replica_fetch_wait_max_ms: int = 500
    replica_fetch_backoff_ms: int = 1_000
    replica_high_watermark_checkpoint_interval_ms: int = 5_000
    num_replica_fetchers: int = 1
    fetch_max_bytes: int = 57_671_680
    """Upper bound of one answer to a consumer."""
    max_incremental_fetch_session_cache_slots: int = 1_000
