"""ISR changes in ZooKeeper: the leader writes its partition's `state` znode itself.

The classic path (DESIGN sections 1 and 3): a conditional write of the znode, under a check that
no broker has registered since the registrations were read. Members that registered after the
state was last written are left out, because they are another life than the one that was in sync;
the replica that joins must have the broker epoch that its fetches carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from kafkalite.common import BrokerId, LeaderAndIsr, PartitionEpoch, TopicPartition
from kafkalite.replication.edges import (
    Conflict,
    Fenced,
    IsrChange,
    IsrOutcome,
    IsrStoreUnavailable,
    Unknown,
    Written,
)
from zk import paths
from zk.client import BadVersion, ConnectionLoss, NoNode, SessionExpired
from zk.store import BadRecord, Registrations, RegistrationsChanged, Store


class ZooKeeperIsrStore:
    """:class:`kafkalite.replication.edges.IsrStore` under the broker's present session.

    ``session`` returns the store of the session that this broker is registered under, or None
    between sessions: then nothing is written.
    """

    def __init__(self, session: Callable[[], Store | None]) -> None:
        self._session = session

    async def write(self, change: IsrChange) -> IsrOutcome:
        store = self._session()
        if store is None:
            return Fenced("this broker has no ZooKeeper session at the moment")
        sent = False
        try:
            while True:
                registrations = await store.registrations()
                found = await store.partition_state(change.partition)
                if found is None:
                    return Conflict(None)
                state, stat = found
                if state.partition_epoch != change.expected_version or state.leader != change.leader:
                    return Conflict(state)
                refusal, isr = _members(change, registrations, stat.mzxid)
                if refusal is not None:
                    return Fenced(refusal)
                if isr == state.isr:
                    return Conflict(state)  # Nothing is left to change; the leader adopts what is there.
                try:
                    sent = True
                    written = await store.write_partition_state(
                        change.partition,
                        dataclasses.replace(change.proposed, isr=isr),
                        expected_version=change.expected_version,
                        registrations_version=registrations.version,
                    )
                except RegistrationsChanged:
                    sent = False  # Certainly not written.
                    continue
                except BadVersion:
                    sent = False
                    continue  # The next round reads what is there now and reports the conflict.
                return Written(PartitionEpoch(written.version), isr)
        except NoNode:
            return Conflict(None)
        except BadRecord as error:
            return Fenced(f"the state in ZooKeeper cannot be read: {error}")
        except (SessionExpired, ConnectionLoss) as error:
            reason = f"the ZooKeeper session ended meanwhile ({type(error).__name__})"
            return Unknown(reason) if sent else Fenced(reason)

    async def read(self, partition: TopicPartition) -> LeaderAndIsr | None:
        store = self._session()
        if store is None:
            raise IsrStoreUnavailable("this broker has no ZooKeeper session at the moment")
        try:
            await store.zk.sync(paths.partition_state(partition))
            found = await store.partition_state(partition)
        except (SessionExpired, ConnectionLoss, BadRecord) as error:
            raise IsrStoreUnavailable(str(error) or type(error).__name__) from error
        return None if found is None else found[0]

    async def notify(self, partitions: Sequence[TopicPartition]) -> None:
        store = self._session()
        if store is None:
            raise IsrStoreUnavailable("this broker has no ZooKeeper session at the moment")
        try:
            await store.publish_isr_change(partitions)
        except (SessionExpired, ConnectionLoss) as error:
            raise IsrStoreUnavailable(str(error) or type(error).__name__) from error


def _members(
    change: IsrChange, registrations: Registrations, mzxid: int
) -> tuple[str | None, tuple[BrokerId, ...]]:
    """Who may be in the ISR that is written: a refusal, or the members in the proposed order."""
    born = registrations.czxid
    leader_born = born.get(change.leader)
    if leader_born is None or leader_born > mzxid:
        # The state names an earlier life of this broker: the controller will elect anew.
        return f"broker {change.leader} registered after the state was last written", ()
    if change.joining is not None and born.get(change.joining) != change.joining_epoch:
        return (
            f"broker {change.joining} is registered with epoch {born.get(change.joining)}, "
            f"its fetches carry {change.joining_epoch}",
            (),
        )
    isr = tuple(
        member
        for member in change.isr
        if member == change.joining or member not in born or born[member] <= mzxid
    )
    return None, isr
