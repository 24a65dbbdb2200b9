"""Bugs to be planted in the real code, one at a time: would the simulation notice?

Each replaces one rule by what somebody might have written instead. They are the honesty check of the
simulation: a rule whose absence nobody notices is a rule that nobody tests. The docstring of each tells
the shortest history in which it shows; the faults that it is registered with make such histories, as
chance has it (:mod:`tests.simulation.stress` has those of several steps), and the same worlds without
the bug pass.

What gives a bug away is never an assertion on the bug: it is an invariant, the checker, or a cluster that
does not get well again after healing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from controller import election, state_machines
from controller.context import Registrations as ControllerRegistrations
from controller.reign import Reign
from kafkalite.checker.promise import Mode
from kafkalite.client.metadata import Metadata
from kafkalite.client.positions import Positions
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
from kafkalite.replication.fetcher import _Fetcher
from kafkalite.replication.hosting import Hosting
from kafkalite.replication.manager import ReplicaManager
from kafkalite.replication.partition import FollowerState, Partition, Settled
from kafkalite.server import isr_store
from kafkalite.server.application import Application
from kafkalite.server.isr_store import ZooKeeperIsrStore
from tests.support.zookeeper_memory import MemoryClient
from zk import paths
from zk.client import (
    BadVersion,
    Check,
    ConnectionLoss,
    Create,
    MultiFailed,
    NoNode,
    Op,
    OpResult,
    SessionExpired,
    SetData,
)
from zk.lease import Lease
from zk.store import FencedStore, RegistrationsChanged, Store

from .world import NETWORK, PROCESSES, ZOOKEEPER, Profile

Planted = contextlib.AbstractContextManager[None]
Plant = Callable[[], Planted]


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
    minutes: float
    """Simulated time of each seed."""

    @property
    def history(self) -> str:
        """The shortest history in which it shows."""
        return inspect.getdoc(self.plant) or ""


BUGS: list[Bug] = []


def bug(
    name: str, faults: dict[str, float], *, minutes: float = 3, **profile: Any
) -> Callable[[Plant], Plant]:
    """Register a bug with the profile that stresses it: a small world, unless something else is said."""

    def register(plant: Plant) -> Plant:
        settings = {
            "brokers": (3,),
            "partitions": 1,
            "consumers": 1,
            "modes": (Mode.IDEMPOTENT, Mode.ACKS_1),
            "pause_s": 2.0,
            **profile,
        }
        BUGS.append(Bug(name, plant, Profile(f"planted: {name}", faults, **settings), minutes))
        return plant

    return register


RESTARTS = {**PROCESSES, "quick restart": 6, "crash of all": 1}
CUTS = {**NETWORK, "cut between brokers": 6, "isolation": 6, "crash": 2, "controller crash": 2}
SESSIONS = {**ZOOKEEPER, **CUTS, "pause": 6, "pause of the controller": 4}


# --- leader epochs and the high watermark ------------------------------------------------


@bug(
    "skip the epoch check",
    {"leadership to and fro": 1},
    partitions=3,
    overrides={"leader.imbalance.check.interval.seconds": "4"},
)
def _skip_epoch_check() -> Planted:
    """A leads in epoch 1, F has fetched all of it up to 100, and its next fetch, from 100, hangs in the
    network. B, which has 90, takes the leadership back (it is the preferred one); F cuts its log to 90.
    B dies before A has heard of it; A leads in epoch 3, still with 100. Now the old fetch arrives: A
    believes that F has 100 and moves the high watermark there. (Where A's log has been cut, too, the
    last fetched epoch gives the fetch away; only here the leader epoch alone can.)"""
    check = Partition.check_leader

    def check_leader(self: Partition, current_leader_epoch: int = -1) -> None:
        check(self)

    return _patched((Partition, "check_leader", check_leader))


@bug("advance the high watermark one too far", RESTARTS)
def _high_watermark_too_far() -> Planted:
    """The leader commits a record that one member of the ISR does not have."""
    rule = Partition.next_high_watermark

    def next_high_watermark(self: Partition, current: int, *, leader_end_offset: int, **rest: Any) -> int:
        found = rule(self, current, leader_end_offset=leader_end_offset, **rest)
        return min(found + 1, leader_end_offset) if found > current else found

    return _patched((Partition, "next_high_watermark", next_high_watermark))


@bug("truncate to the high watermark instead of by epoch", {**RESTARTS, **CUTS}, pause_s=4)
def _truncate_to_high_watermark() -> Planted:
    """A follower's high watermark is a little behind. It cuts what is committed, and is elected before it
    has it again; or it keeps what a deposed leader wrote below (KIP-101)."""
    become = ReplicaManager._become_follower

    def become_follower(self: ReplicaManager, replica: Any, state: Any, replicas: Any) -> None:
        replica.log.truncate_to(replica.log.high_watermark)
        become(self, replica, state, replicas)

    return _patched(
        (ReplicaManager, "_become_follower", become_follower),
        (reads, "diverges", lambda *arguments: False),
    )


@bug("acknowledge before the ISR has it", {**RESTARTS, **CUTS})
def _acknowledge_early() -> Planted:
    """acks=all is answered as acks=1."""
    return _patched(
        (Appended, "is_settled", lambda self: True),
        (Appends, "_check_acknowledged", lambda self, appended, acks: None),
    )


@bug("reuse a leader epoch", RESTARTS)
def _reuse_leader_epoch() -> Planted:
    """Every election leaves the leader epoch as it was: two leaders in one."""
    rule = election.decided

    def decided(state: LeaderAndIsr, *rest: Any) -> LeaderAndIsr:
        return dataclasses.replace(rule(state, *rest), leader_epoch=state.leader_epoch)

    return _patched((state_machines, "decided", decided))


@bug("take an old fetch response", {"late answers of a leader": 1}, records_a_second=2)
def _take_old_response() -> Planted:
    """A leader's session ends with an answer to a follower under way. The follower is elected, and then the
    answer comes: it appends records of the old epoch to the log that it leads, and takes over a high
    watermark that is behind its own."""
    return _patched((_Fetcher, "_counts", lambda self, following, number: True))


# --- lives of brokers --------------------------------------------------------------------


@bug("ignore the broker epoch", {"late orders to a former life": 1}, partitions=2)
def _ignore_broker_epoch() -> Planted:
    """The controller orders L to lead in epoch 2 and gets no answer. L restarts; the controller, which does
    not know it yet, repeats the order, and L's new life leads in epoch 2 as well."""
    check = ReplicaManager.check_controller

    def check_controller(self: ReplicaManager, broker_epoch: int, controller_epoch: int) -> ErrorCode:
        return check(self, UNKNOWN_BROKER_EPOCH, controller_epoch)

    return _patched((ReplicaManager, "check_controller", check_controller))


@bug(
    "answer the controller before the broker epoch is known",
    {"late orders to a former registration": 1},
    partitions=2,
    overrides={"controller.socket.timeout.ms": "400"},
)
def _answer_without_epoch() -> Planted:
    """The controller repeats an order to L while L has no session. L takes it for a confirmation under the
    registration that it is going to have, lifts the freeze, and acknowledges with acks=1 under its next
    session, though its leadership is about to be given away."""
    check = ReplicaManager.check_controller

    def check_controller(self: ReplicaManager, broker_epoch: int, controller_epoch: int) -> ErrorCode:
        if self._broker_epoch is None:
            self._broker_epoch = BrokerEpoch(broker_epoch)
        return check(self, broker_epoch, controller_epoch)

    return _patched(
        (ReplicaManager, "check_controller", check_controller),
        (Application, "has_broker_epoch", property(lambda self: True, lambda self, value: None)),
    )


@bug(
    "take a delayed fetch of a follower's former life",
    {"late fetch of a former life": 1},
    records_a_second=10,
    overrides={"log.flush.interval.messages": "30"},
)
def _take_former_fetch() -> Planted:
    """The ISR is down to L, so the high watermark stands still, while acks=1 goes on. F, not in the ISR,
    catches up to 250; its next fetch, from 250, takes long. F's machine restarts without the end of its
    log, F joins the ISR from 230, and the old fetch arrives: L commits up to 250."""
    take_fetch = Partition.follower

    def follower(
        self: Partition, broker_id: Any, *, broker_epoch: Any, current_leader_epoch: int
    ) -> FollowerState:
        return take_fetch(
            self, broker_id, broker_epoch=BrokerEpoch(2**62), current_leader_epoch=current_leader_epoch
        )

    return _patched((Partition, "follower", follower))


@bug(
    "keep a restarted leader's epoch at controller fail-over",
    {"controller and leader crash": 1},
    partitions=3,
)
def _keep_restarted_leader() -> Planted:
    """The controller and a leader crash; the leader is back before anybody rules. The next controller finds
    it registered and named by the state, and lets it lead on in the same epoch: one epoch, two lives."""
    return _patched((ControllerRegistrations, "restarted_since", lambda self, broker, mzxid: False))


@bug("call a re-registered broker new although the state names it", {"quick restart": 1}, partitions=3)
def _call_it_new() -> Planted:
    """A leader restarts, and the controller sees both the end of the old registration and the new one at
    once. It takes the broker for one that has just come, and sends it what the state says: lead, in the
    epoch in which its former life led.

    Two rules stand against it, and each alone suffices: a bounce is handled as a failure first, and
    whoever starts is compared with what the states say of it. Both are taken away here."""
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


@bug("check the follower's node instead of counting registrations", {"power cut while the ISR changes": 1})
def _check_nodes() -> Planted:
    """L reads who is registered, and begins to write an ISR that names G. G's machine restarts without the
    end of its log; its new znode has the same data version as the old one, so the write goes through,
    and is younger than G's registration: nobody can see any more that G restarted."""
    settle = Store._settle

    async def checked(self: Store, operations: Sequence[Op], landed: Callable[[], Awaitable[Any]]) -> Any:
        first, written = operations[0], operations[-1]
        if not isinstance(first, Check) or first.path != paths.BROKER_IDS:
            return await settle(self, operations, landed)
        assert isinstance(written, SetData | Create)
        checks = []
        for member in json.loads(written.data)["isr"]:
            stat = await self.exists(paths.broker(member))
            if stat is not None:
                checks.append(Check(paths.broker(member), stat.version))
        try:
            done = await settle(self, [*checks, *operations[1:]], landed)
        except MultiFailed as failure:
            raise MultiFailed(max(0, failure.index - len(checks) + 1), failure.error) from None
        return [None, *done[len(checks) :]] if isinstance(done, list) else done

    return _patched((Store, "_settle", checked))


@bug("let the leader's own ISR write hide a restart", {"power cut while the ISR changes": 1})
def _hide_restart() -> Planted:
    """G's machine restarts without the end of its log. Before the controller has dealt with it, L writes an
    ISR that still names G, and that write is younger than G's registration."""
    return _patched((isr_store, "_members", lambda change, registrations, mzxid: (None, change.isr)))


# --- sessions and the lease --------------------------------------------------------------


@bug("keep serving after the session is gone", SESSIONS, partitions=3, pause_s=4)
def _serve_without_session() -> Planted:
    """A leader that is cut from ZooKeeper goes on to acknowledge acks=1 after its session has timed out."""
    return _patched(
        (Partition, "freeze", lambda self: None),
        (Lease, "is_held", lambda self, now: True),
        (Hosting, "may_acknowledge_alone", lambda self, replica: True),
    )


@bug("acknowledge without the lease", {"cut from zookeeper": 1}, partitions=3, pause_s=4)
def _acknowledge_without_lease() -> Planted:
    """The same, until it hears that the session is over: a broker that is cut off does not hear it."""
    return _patched((Hosting, "may_acknowledge_alone", lambda self, replica: not replica.partition.is_frozen))


@bug("let kazoo's new session run an old session's write", {"session ends in an election": 1}, minutes=1)
def _run_in_new_session() -> Planted:
    """A broker's session ends while its write of /controller is under way. kazoo, left to itself, opens
    another session and sends there what was still to be sent; so /controller belongs to a session of which
    the broker does not know. It names the broker, which takes it for somebody else's, and nobody rules.

    In the simulation ZooKeeper's client is :class:`MemoryClient`, one object a session as `zk/session.py`
    makes them. Planted is a client that is not stopped at the end of its session: those who wait are told,
    but what was under way goes out under a new session. (Writes of partition states would do no harm: they
    check how many registrations there were, and the broker has registered anew.)"""
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
            task = asyncio.get_running_loop().create_task(go_on(self, writes), context=self._home())
            under_way.append(task)

    return _patched((MemoryClient, "_lost", keep))


# --- ISR changes and the controller's writes ---------------------------------------------


@bug("count a replica into the ISR too early", {"cut between brokers": 1}, pause_s=4, records_a_second=20)
def _join_too_early() -> Planted:
    """A follower that is behind the high watermark joins the ISR."""
    rule = Partition.propose_expansion

    def propose_expansion(self: Partition, follower: FollowerState, **facts: Any) -> IsrChange | None:
        had, follower.log_end_offset = follower.log_end_offset, 2**40
        try:
            return rule(self, follower, **facts)
        finally:
            follower.log_end_offset = had

    return _patched((Partition, "propose_expansion", propose_expansion))


@bug(
    "re-apply an ISR change after a version conflict",
    {"contested ISR": 4, "crash": 1},
    partitions=3,
    pause_s=4,
)
def _force_isr_change() -> Planted:
    """A leader drops a follower while the controller elects another leader. The leader's write meets
    another version, and it writes again what it wanted, over the election."""
    write_once = ZooKeeperIsrStore.write

    async def write(self: ZooKeeperIsrStore, change: IsrChange) -> IsrOutcome:
        outcome = await write_once(self, change)
        store = self._session()
        if isinstance(outcome, Conflict) and outcome.found is not None and store is not None:
            # What fails here leaves the conflict that was found: no broker is to end of the bug itself.
            with contextlib.suppress(
                BadVersion, NoNode, RegistrationsChanged, ConnectionLoss, SessionExpired
            ):
                registrations = await store.registrations()
                await store.write_partition_state(
                    change.partition,
                    change.proposed,
                    expected_version=PartitionEpoch(outcome.found.partition_epoch),
                    registrations_version=registrations.version,
                )
        return outcome

    return _patched((ZooKeeperIsrStore, "write", write))


@bug("drop a pending ISR change when deposed", {"leader deposed behind a cut": 1})
def _forget_deposition() -> Planted:
    """L, with the ISR {L, F}, adds G; the write takes effect, but L's session ends before it hears so, and
    G is elected. Orders of the controller reach neither L nor F. L, under its next session, reads that
    it is deposed, and goes back to {L, F}: with F it commits what G does not have."""
    rule = Partition._settle_by

    def settle_by(self: Partition, change: IsrChange, found: LeaderAndIsr | None) -> Settled:
        settled = rule(self, change, found)
        if settled is Settled.DEPOSED:
            self.is_deposed, self.change = False, None
            self._recount()
            return Settled.UNCHANGED
        return settled

    return _patched((Partition, "_settle_by", settle_by))


@bug("drop a pending ISR change at a confirmation", {"confirmed while the ISR changes": 1}, minutes=1)
def _drop_at_confirmation() -> Planted:
    """L's write of an ISR is under way when a new controller confirms L with the state from before. L
    forgets the write, which then takes effect: ZooKeeper and L differ about the ISR. Where G was added
    and falls silent, L commits without it; where G was dropped, L never adds it again."""
    rule = Partition.confirm

    def confirm(self: Partition, *arguments: Any) -> bool:
        self.change = None
        self._recount()
        return rule(self, *arguments)

    return _patched((Partition, "confirm", confirm))


@bug("forget the /controller_epoch check", {"controller deposed while it writes": 1})
def _forget_controller_epoch() -> Planted:
    """Another controller is elected while the old one, which is far from ZooKeeper, deals with a failure.
    Where the new one has not touched the state yet, the old one's write goes through."""

    async def write(self: FencedStore, operations: Sequence[Op]) -> list[OpResult]:
        return await Store.write(self, operations)

    return _patched((FencedStore, "write", write))


# --- the log and the clients -------------------------------------------------------------


@bug("append behind a failed write", {"disk error": 10, "quick restart": 3, "crash": 2}, minutes=1, pause_s=4)
def _append_behind_failure() -> Planted:
    """A write stops in the middle of a batch, and the next batch is appended behind the torn one."""

    def failed(self: LogDir, error: OSError, doing: str) -> LogDirFailed:
        return LogDirFailed(f"{doing}: {error}")

    return _patched((LogDir, "failed", failed))


@bug(
    "forget a producer's sequences after a roll",
    {**CUTS, "slow links": 6},
    minutes=1,
    modes=(Mode.IDEMPOTENT, Mode.IDEMPOTENT),
    overrides={"log.segment.bytes": "600"},
)
def _forget_sequences() -> Planted:
    """The answer to a produce request is lost, the segment is rolled, and the retry is appended once more."""
    roll = Log._roll

    def rolled(self: Log, base_offset: int, now_ms: int) -> None:
        roll(self, base_offset, now_ms)
        self._producers.clear()

    return _patched((Log, "_roll", rolled))


@bug("trust a stale metadata answer", {"zombie leader": 1}, minutes=2)
def _trust_stale_metadata() -> Planted:
    """A leader is cut off and replaced, and does not know it. A consumer that has read what its successor
    wrote asks it for metadata, believes it, and reads on there: the position is beyond that log's end,
    so it starts over.

    Two rules stand against it, and each alone suffices here: leader epochs in metadata only rise, and a
    leader that may have a successor sends no consumer back. Both are taken away."""
    update, follow = Metadata._update_topic, Positions.leaders_changed

    def update_topic(self: Metadata, name: str, topic: Any) -> bool:
        before = self.topics.get(name)
        self._forget(name)
        update(self, name, topic)
        return self.topics.get(name) != before

    def leaders_changed(self: Positions) -> None:
        for state in self._assignment.states.values():
            info = self._cluster.metadata.partition(state.tp)
            if info is not None and info.leader_epoch < state.leader_epoch:
                state.fetching, state.leader_epoch = None, info.leader_epoch
        follow(self)

    return _patched(
        (Metadata, "_update_topic", update_topic),
        (Positions, "leaders_changed", leaders_changed),
        (reads.Reads, "_check_end_is_known", lambda self, replica: None),
    )
