"""Bugs to be planted in the real code, one at a time: would the simulation notice?

Each replaces one rule by what somebody might have written instead. They are the honesty check of the
simulation: a rule whose absence nobody notices is a rule that nobody tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from controller import election, state_machines
from controller.context import Registrations as ControllerRegistrations
from controller.reign import Reign
from kafkalite.checker.promise import Mode
from kafkalite.client.metadata import Metadata
from kafkalite.common import (
    UNKNOWN_BROKER_EPOCH,
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    LeaderAndIsr,
    PartitionEpoch,
)
from kafkalite.log.log import Log
from kafkalite.log.log_dir import LogDir, LogDirFailed
from kafkalite.protocol.errors import ErrorCode
from kafkalite.replication import reads
from kafkalite.replication.appends import Appended, Appends
from kafkalite.replication.edges import Conflict, IsrChange, IsrOutcome
from kafkalite.replication.fetcher import Following, _Fetcher
from kafkalite.replication.hosting import Hosting
from kafkalite.replication.manager import ReplicaManager
from kafkalite.replication.partition import FollowerState, Partition, Settled
from kafkalite.server import isr_store
from kafkalite.server.application import Application
from kafkalite.server.isr_store import ZooKeeperIsrStore
from tests.support.zookeeper_memory import MemoryClient
from zk.client import Op, OpResult
from zk.lease import Lease
from zk.store import FencedStore, Store

from .world import NETWORK, PROCESSES, ZOOKEEPER, Profile

Plant = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def _patched(*patches: tuple[Any, str, Any]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value, create=isinstance(value, property)))
        yield


@dataclasses.dataclass(frozen=True)
class Bug:
    """One bug, and the faults under which it shows."""

    name: str
    plant: Plant
    profile: Profile
    shows_at_once: bool
    """Within a seed or two; the others take more of them."""
    minutes: float
    """Simulated time of each seed."""


BUGS: list[Bug] = []


def bug(
    name: str, faults: dict[str, float], *, at_once: bool = False, minutes: float = 1.5, **profile: Any
) -> Callable[[Plant], Plant]:
    """Register a bug with the profile that stresses it."""

    def register(plant: Plant) -> Plant:
        settings = {"pause_s": 4.0, "brokers": (3,), **profile}
        BUGS.append(Bug(name, plant, Profile(f"planted: {name}", faults, **settings), at_once, minutes))
        return plant

    return register


RESTARTS = {**PROCESSES, "quick restart": 6, "crash of all": 1}
LOSSES = {**PROCESSES, "quick restart": 6, "power cut": 6}
FLUSHED = {"log.flush.interval.messages": "1"}
CUTS = {**NETWORK, "cut between brokers": 6, "isolation": 6, "crash": 2, "controller crash": 2}
SMALL: dict[str, Any] = {
    "partitions": 1,
    "consumers": 1,
    "pause_s": 2.0,
    "modes": (Mode.IDEMPOTENT, Mode.ACKS_1),
}
"""For histories of several steps, one after another."""
SESSIONS = {**ZOOKEEPER, **CUTS, "pause": 6, "pause of the controller": 4}


@bug(
    "skip the epoch check",
    {"leadership to and fro": 1},
    minutes=3,
    **{**SMALL, "partitions": 3},
    overrides={"leader.imbalance.check.interval.seconds": "4"},
)
def _skip_epoch_check() -> contextlib.AbstractContextManager[None]:
    check = Partition.check_leader

    def check_leader(self: Partition, current_leader_epoch: int = -1) -> None:
        check(self)

    return _patched((Partition, "check_leader", check_leader))


@bug("advance the high watermark one too far", RESTARTS, at_once=True)
def _high_watermark_too_far() -> contextlib.AbstractContextManager[None]:
    rule = Partition.next_high_watermark

    def next_high_watermark(self: Partition, current: int, *, leader_end_offset: int, **rest: Any) -> int:
        found = rule(self, current, leader_end_offset=leader_end_offset, **rest)
        return min(found + 1, leader_end_offset) if found > current else found

    return _patched((Partition, "next_high_watermark", next_high_watermark))


@bug("truncate to the high watermark instead of by epoch", {**RESTARTS, **CUTS}, at_once=True)
def _truncate_to_high_watermark() -> contextlib.AbstractContextManager[None]:
    become = ReplicaManager._become_follower

    def become_follower(self: ReplicaManager, replica: Any, state: Any, replicas: Any) -> None:
        replica.log.truncate_to(replica.log.high_watermark)
        become(self, replica, state, replicas)

    return _patched(
        (ReplicaManager, "_become_follower", become_follower),
        (reads, "diverges", lambda *arguments: False),
    )


@bug("acknowledge before the ISR has it", {**RESTARTS, **CUTS}, at_once=True)
def _acknowledge_early() -> contextlib.AbstractContextManager[None]:
    return _patched(
        (Appended, "is_settled", lambda self: True),
        (Appends, "_check_acknowledged", lambda self, appended, acks: None),
    )


@bug("ignore the broker epoch", {"late orders to a former life": 1}, minutes=3, **{**SMALL, "partitions": 2})
def _ignore_broker_epoch() -> contextlib.AbstractContextManager[None]:
    check = ReplicaManager.check_controller

    def check_controller(self: ReplicaManager, broker_epoch: int, controller_epoch: int) -> ErrorCode:
        return check(self, UNKNOWN_BROKER_EPOCH, controller_epoch)

    return _patched((ReplicaManager, "check_controller", check_controller))


@bug(
    "take a delayed fetch of a follower's former life",
    {"late fetch of a former life": 1},
    minutes=3,
    **{**SMALL, "records_a_second": 10},
    overrides={"log.flush.interval.messages": "30"},
)
def _take_former_fetch() -> contextlib.AbstractContextManager[None]:
    take_fetch = Partition.follower

    def follower(
        self: Partition, broker_id: Any, *, broker_epoch: Any, current_leader_epoch: int
    ) -> FollowerState:
        return take_fetch(
            self, broker_id, broker_epoch=BrokerEpoch(2**62), current_leader_epoch=current_leader_epoch
        )

    return _patched((Partition, "follower", follower))


@bug("keep serving after the session is gone", SESSIONS, at_once=True)
def _serve_without_session() -> contextlib.AbstractContextManager[None]:
    return _patched(
        (Partition, "freeze", lambda self: None),
        (Lease, "is_held", lambda self, now: True),
        (Hosting, "may_acknowledge_alone", lambda self, replica: True),
    )


@bug("acknowledge without the lease", SESSIONS, at_once=True)
def _acknowledge_without_lease() -> contextlib.AbstractContextManager[None]:
    return _patched((Hosting, "may_acknowledge_alone", lambda self, replica: not replica.partition.is_frozen))


@bug("forget the /controller_epoch check", {"controller deposed while it writes": 1}, minutes=3, **SMALL)
def _forget_controller_epoch() -> contextlib.AbstractContextManager[None]:
    async def write(self: FencedStore, operations: Sequence[Op]) -> list[OpResult]:
        return await Store.write(self, operations)

    return _patched((FencedStore, "write", write))


@bug("count a replica into the ISR too early", {**RESTARTS, **CUTS}, at_once=True)
def _join_too_early() -> contextlib.AbstractContextManager[None]:
    rule = Partition.propose_expansion

    def propose_expansion(self: Partition, follower: FollowerState, **facts: Any) -> IsrChange | None:
        had, follower.log_end_offset = follower.log_end_offset, 2**40
        try:
            return rule(self, follower, **facts)
        finally:
            follower.log_end_offset = had

    return _patched((Partition, "propose_expansion", propose_expansion))


@bug("reuse a leader epoch", RESTARTS, at_once=True)
def _reuse_leader_epoch() -> contextlib.AbstractContextManager[None]:
    rule = election.decided

    def decided(state: LeaderAndIsr, *rest: Any) -> LeaderAndIsr:
        return dataclasses.replace(rule(state, *rest), leader_epoch=state.leader_epoch)

    return _patched((state_machines, "decided", decided))


@bug(
    "re-apply an ISR change after a version conflict",
    {**SESSIONS, "contested ISR": 12, "slow zookeeper": 10, "crash": 6},
)
def _force_isr_change() -> contextlib.AbstractContextManager[None]:
    write_once = ZooKeeperIsrStore.write

    async def write(self: ZooKeeperIsrStore, change: IsrChange) -> IsrOutcome:
        outcome = await write_once(self, change)
        store = self._session()
        if isinstance(outcome, Conflict) and outcome.found is not None and store is not None:
            registrations = await store.registrations()
            await store.write_partition_state(
                change.partition,
                change.proposed,
                expected_version=PartitionEpoch(outcome.found.partition_epoch),
                registrations_version=registrations.version,
            )
        return outcome

    return _patched((ZooKeeperIsrStore, "write", write))


@bug("keep a restarted leader's epoch at controller fail-over", LOSSES, overrides=FLUSHED)
def _keep_restarted_leader() -> contextlib.AbstractContextManager[None]:
    return _patched((ControllerRegistrations, "restarted_since", lambda self, broker, mzxid: False))


@bug("append behind a failed write", {"disk error": 10, "quick restart": 3, "crash": 2})
def _append_behind_failure() -> contextlib.AbstractContextManager[None]:
    def failed(self: LogDir, error: OSError, doing: str) -> LogDirFailed:
        return LogDirFailed(f"{doing}: {error}")

    return _patched((LogDir, "failed", failed))


@bug("drop a pending ISR change when deposed", {"leader deposed behind a cut": 1}, minutes=3, **SMALL)
def _forget_deposition() -> contextlib.AbstractContextManager[None]:
    rule = Partition._settle_by

    def settle_by(self: Partition, change: IsrChange, found: LeaderAndIsr | None) -> Settled:
        settled = rule(self, change, found)
        if settled is Settled.DEPOSED:
            self.is_deposed, self.change = False, None
            self._recount()
            return Settled.UNCHANGED
        return settled

    return _patched((Partition, "_settle_by", settle_by))


@bug(
    "drop a pending ISR change at a confirmation", {"confirmed while the ISR changes": 1}, minutes=3, **SMALL
)
def _drop_at_confirmation() -> contextlib.AbstractContextManager[None]:
    rule = Partition.confirm

    def confirm(self: Partition, *arguments: Any) -> bool:
        self.change = None
        self._recount()
        return rule(self, *arguments)

    return _patched((Partition, "confirm", confirm))


@bug(
    "answer the controller before the broker epoch is known",
    {"late orders to a former registration": 1},
    minutes=3,
    **{**SMALL, "partitions": 2},
    overrides={"controller.socket.timeout.ms": "400"},
)
def _answer_without_epoch() -> contextlib.AbstractContextManager[None]:
    check = ReplicaManager.check_controller

    def check_controller(self: ReplicaManager, broker_epoch: int, controller_epoch: int) -> ErrorCode:
        if self._broker_epoch is None:
            self._broker_epoch = BrokerEpoch(broker_epoch)
        return check(self, broker_epoch, controller_epoch)

    return _patched(
        (ReplicaManager, "check_controller", check_controller),
        (Application, "has_broker_epoch", property(lambda self: True, lambda self, value: None)),
    )


@bug("do not count registrations", {"power cut while the ISR changes": 1}, minutes=3, **SMALL)
def _do_not_count_registrations() -> contextlib.AbstractContextManager[None]:
    write_checked = Store.write_partition_state

    async def write(self: Store, partition: Any, state: Any, **rest: Any) -> Any:
        rest["registrations_version"] = -1
        return await write_checked(self, partition, state, **rest)

    return _patched((Store, "write_partition_state", write))


@bug(
    "let the leader's own ISR write hide a restart",
    {"power cut while the ISR changes": 1},
    minutes=3,
    **SMALL,
)
def _hide_restart() -> contextlib.AbstractContextManager[None]:
    return _patched((isr_store, "_members", lambda change, registrations, mzxid: (None, change.isr)))


@bug("take an old fetch response", {"late answers of a leader": 1}, minutes=3, **SMALL, records_a_second=2)
def _take_old_response() -> contextlib.AbstractContextManager[None]:
    def counts(self: _Fetcher, following: Following, number: int) -> bool:
        return True

    return _patched((_Fetcher, "_counts", counts))


@bug(
    "forget a producer's sequences after a roll",
    {**CUTS, "slow links": 6},
    overrides={"log.segment.bytes": "600"},
)
def _forget_sequences() -> contextlib.AbstractContextManager[None]:
    roll = Log._roll

    def rolled(self: Log, base_offset: int, now_ms: int) -> None:
        roll(self, base_offset, now_ms)
        self._producers.clear()

    return _patched((Log, "_roll", rolled))


@bug("trust a stale metadata answer", {"zombie leader": 1}, minutes=3, **{**SMALL, "consumers": 2})
def _trust_stale_metadata() -> contextlib.AbstractContextManager[None]:
    update = Metadata._update_topic

    def update_topic(self: Metadata, name: str, topic: Any) -> bool:
        before = self.topics.get(name)
        self._forget(name)
        update(self, name, topic)
        return self.topics.get(name) != before

    return _patched((Metadata, "_update_topic", update_topic))


@bug(
    "call a re-registered broker new although the state names it",
    {"quick restart": 1},
    **{**SMALL, "partitions": 3},
)
def _call_it_new() -> contextlib.AbstractContextManager[None]:
    read, started = Reign._read_brokers, Reign._brokers_started

    async def read_brokers(self: Reign) -> dict[BrokerId, BrokerInfo]:
        found = await read(self)
        for broker, info in found.items():
            known = self.context.brokers.get(broker)
            if known is not None and known.epoch != info.epoch:
                del self.context.brokers[broker]
                self.channels.remove(broker)
        return found

    async def nothing(partitions: Any) -> None:
        pass

    async def brokers_started(self: Reign, brokers: list[BrokerId]) -> None:
        with mock.patch.object(self._machines, "handle_restarts", nothing):
            await started(self, brokers)

    return _patched((Reign, "_read_brokers", read_brokers), (Reign, "_brokers_started", brokers_started))


@bug(
    "let kazoo's new session run an old session's write",
    {"session ends in an election": 1},
    minutes=3,
    **SMALL,
)
def _run_in_new_session() -> contextlib.AbstractContextManager[None]:
    lost = MemoryClient._lost
    under_way: list[asyncio.Task[None]] = []

    async def go_on(client: MemoryClient, writes: list[Any]) -> None:
        next_one = await client.server.connect(client.negotiated_timeout_ms, home=client._home)
        for request in writes:
            apply = request.apply

            def in_next_session(apply: Callable[[], object] = apply) -> object:
                client._session, over = next_one._session, client._session
                try:
                    return apply()
                finally:
                    client._session = over

            request.apply = in_next_session
            next_one._send(request)

    def keep(self: MemoryClient, connection: Any) -> None:
        assert self._session is not None
        is_over = not self._session.alive
        writes = [request for request in self._in_flight if request.is_write]
        lost(self, connection)
        if is_over and writes and self._home is not None:
            under_way.append(
                asyncio.get_running_loop().create_task(go_on(self, writes), context=self._home())
            )

    return _patched((MemoryClient, "_lost", keep))
