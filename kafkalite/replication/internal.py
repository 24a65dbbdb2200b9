"""What coordinators do with the partitions of internal topics that this broker leads.

A coordinator keeps its state in a partition: what it decides is appended here, and counts once
the high watermark has passed it, with the same checks as a client's ``acks=all`` (no lease is
needed: only followers of this leader epoch advance the high watermark). Every append names the
leader epoch under which the coordinator loaded its state, so that one which has not yet heard of
its end cannot write under a later leadership.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kafkalite.common import LeaderEpoch, TopicPartition
from kafkalite.edge import Buffer
from kafkalite.log.log import Read
from kafkalite.protocol.errors import NotLeaderOrFollowerError
from kafkalite.replication.appends import Appended, Appends
from kafkalite.replication.hosting import Hosting
from kafkalite.replication.replica import Replica

LeadershipListener: TypeAlias = Callable[[TopicPartition, bool, LeaderEpoch], None]
"""Called in the step that changes a replica's role, with whether it leads now, and in which epoch."""


class InternalPartitions:
    """Appends to, and reads of, partitions led here, by parts of this broker."""

    def __init__(self, hosting: Hosting, appends: Appends) -> None:
        self._hosting = hosting
        self._appends = appends

    def on_leadership_change(self, listener: LeadershipListener) -> None:
        """Tell ``listener`` whenever a replica here takes, loses or changes its role.

        A leader that was found deposed, was stopped or went offline leads no more. The same role
        may be told twice. The listener must not await or raise.
        """
        self._hosting.role_listeners.append(
            lambda replica: listener(
                replica.topic_partition,
                replica.partition.is_leader and not replica.partition.is_deposed,
                replica.partition.leader_epoch,
            )
        )

    def append(self, partition: TopicPartition, records: Buffer, leader_epoch: LeaderEpoch) -> Appended:
        """Append one batch in one step; it is committed once :meth:`committed` returns.

        Raises the BrokerErrors of a produce request with acks=all.
        """
        return self._appends.begin_internal(partition, records, leader_epoch)

    async def committed(self, appended: Appended, *, timeout_s: float) -> None:
        """Wait until all in sync have ``appended``. Raises RequestTimedOutError (it may still be
        committed later), NotLeaderOrFollowerError, NotEnoughReplicasAfterAppendError."""
        await self._appends.finish_internal(appended, timeout_s=timeout_s)

    def log_end(self, partition: TopicPartition, leader_epoch: LeaderEpoch) -> Appended:
        """Everything that is in the log now, to be waited for with :meth:`committed`."""
        replica = self._led(partition, leader_epoch)
        assert replica.log is not None
        return Appended(
            partition.topic,
            partition.partition,
            replica,
            required_offset=replica.log.log_end_offset,
            leader_epoch=leader_epoch,
            generation=replica.generation,
        )

    def high_watermark(self, partition: TopicPartition) -> int:
        """Everything below is committed. Raises as :meth:`append` where the partition is not here."""
        replica = self._hosting.require(*partition)
        if replica.log is None:
            raise NotLeaderOrFollowerError(f"{partition} has no log here")
        return replica.log.high_watermark

    def log_start_offset(self, partition: TopicPartition) -> int:
        """Where the log begins."""
        replica = self._hosting.require(*partition)
        if replica.log is None:
            raise NotLeaderOrFollowerError(f"{partition} has no log here")
        return replica.log.log_start_offset

    async def read(
        self, partition: TopicPartition, offset: int, *, max_bytes: int, leader_epoch: LeaderEpoch
    ) -> Read:
        """Read whole batches up to the log end, at least one; raises like :meth:`append`."""
        log = self._led(partition, leader_epoch).log
        assert log is not None
        found = log.read(offset, max_bytes=max_bytes)
        if isinstance(found, Read):
            return found
        return await log.read_cold(offset, max_bytes=max_bytes)

    def has_lease(self, partition: TopicPartition) -> bool:
        """Tell whether this broker is sure at this moment that no other leads ``partition``."""
        replica = self._hosting.find(*partition)
        return (
            replica is not None
            and replica.partition.is_leader
            and not replica.partition.is_deposed
            and self._hosting.may_acknowledge_alone(replica)
        )

    def known_high_watermark(self, partition: TopicPartition) -> int | None:
        """As far as a replica here knows it: a follower's is a little behind. None where there is none."""
        replica = self._hosting.find(*partition)
        return None if replica is None or replica.log is None else replica.log.high_watermark

    def _led(self, partition: TopicPartition, leader_epoch: LeaderEpoch) -> Replica:
        replica = self._hosting.require(*partition)
        replica.partition.check_leader()
        if replica.partition.leader_epoch != leader_epoch:
            raise NotLeaderOrFollowerError(f"{partition}: leader epoch {leader_epoch} is over")
        return replica
