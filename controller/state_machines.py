"""Moves partitions and replicas from state to state, with all that a move entails.

A move is checked against its table (:mod:`controller.partition_state`, :mod:`controller.replica_state`);
one that is not in it is recorded and skipped, the others of the batch go on. What a move decides is
written to ZooKeeper first, under the conditions of :mod:`controller.leadership_writer`; only what was
written reaches the context, the journal and the brokers, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from controller import partition_state, replica_state
from controller.config import ControllerConfig
from controller.context import ControllerContext, Leadership
from controller.election import (
    INITIAL_LEADER_EPOCH,
    Facts,
    Outcome,
    Strategy,
    decided,
    elect_controlled_shutdown,
    elect_initial,
    elect_offline,
    elect_preferred,
    elect_reassigned,
    remove_from_isr,
)
from controller.leadership_writer import LeadershipWriter, all_of
from controller.partition_state import PartitionState
from controller.replica_state import PartitionReplica, ReplicaState
from controller.request_batch import Outgoing, RequestBatch
from kafkalite.common import (
    NO_LEADER,
    BrokerId,
    LeaderAndIsr,
    PartitionEpoch,
    TopicPartition,
)
from kafkalite.journal import EventId, Journal
from zk.codecs import BadRecord
from zk.store import FencedStore

UNCLEAN_CONFIG = "unclean.leader.election.enable"


class StateMachines:
    """Both state machines of one reign; they share the writer and the requests that they send."""

    def __init__(
        self,
        broker_id: BrokerId,
        config: ControllerConfig,
        context: ControllerContext,
        store: FencedStore,
        writer: LeadershipWriter,
        journal: Journal,
        *,
        send: Callable[[Outgoing], None],
        on_unclean_election: Callable[[], None],
    ) -> None:
        self._broker_id = broker_id
        self._config = config
        self._context = context
        self._store = store
        self._writer = writer
        self._journal = journal
        self._send = send
        self._on_unclean_election = on_unclean_election

    # --- requests ------------------------------------------------------------------------

    def batch(self) -> RequestBatch:
        """A new, empty batch of requests."""
        return RequestBatch(self._context, self._broker_id, self._config.inter_broker_listener_name)

    def dispatch(self, batch: RequestBatch) -> None:
        """Queue all that the batch gathered."""
        for outgoing in batch.drain():
            self._send(outgoing)

    def update_metadata(self, brokers: Iterable[BrokerId], partitions: Iterable[TopicPartition] = ()) -> None:
        """Tell ``brokers`` who is alive, and about ``partitions``."""
        batch = self.batch()
        batch.add_update_metadata(brokers, partitions)
        self.dispatch(batch)

    # --- partitions ----------------------------------------------------------------------

    async def move_partitions(
        self,
        partitions: Iterable[TopicPartition],
        target: PartitionState,
        strategy: Strategy = Strategy.OFFLINE,
    ) -> set[TopicPartition]:
        """Move partitions to ``target``; return those that made it.

        For ONLINE, ``strategy`` elects the leaders of those that had one before.
        """
        valid = []
        for partition in partitions:
            current = self._context.partition_state(partition)
            if partition_state.is_valid_move(current, target):
                valid.append(partition)
            else:
                self._journal.record(
                    "PartitionMoveRefused", partition=partition, state=current.name, target=target.name
                )
        if target is PartitionState.ONLINE:
            return await self._bring_online(valid, strategy)
        for partition in valid:
            was = self._context.partition_state(partition)
            self._context.partition_states[partition] = target
            if target is PartitionState.OFFLINE and was is not PartitionState.OFFLINE:
                self._journal.record(
                    "PartitionOffline",
                    cause=self._context.gone.get(self._context.leader(partition)),
                    partition=partition,
                    leader=self._context.leader(partition),
                )
            elif target is PartitionState.NON_EXISTENT:
                del self._context.partition_states[partition]
        return set(valid)

    async def trigger_online(self, topic: str | None = None) -> None:
        """Try to give every partition without a leader one (those of one topic, if given)."""
        partitions = [
            partition
            for partition in (
                self._context.partitions() if topic is None else self._context.partitions_of(topic)
            )
            if self._context.partition_state(partition) in (PartitionState.NEW, PartitionState.OFFLINE)
            and not self._context.is_being_deleted(partition.topic)
        ]
        if partitions:
            await self.move_partitions(partitions, PartitionState.ONLINE)

    async def _bring_online(
        self, partitions: Sequence[TopicPartition], strategy: Strategy
    ) -> set[TopicPartition]:
        batch = self.batch()
        new = [p for p in partitions if self._context.partition_state(p) is PartitionState.NEW]
        rest = [p for p in partitions if self._context.partition_state(p) is not PartitionState.NEW]
        online, existing = await self._initialise(new, batch) if new else (set(), [])
        rest += existing
        if rest:
            online |= await self._elect(rest, strategy, batch)
        self.dispatch(batch)
        return online

    async def _initialise(
        self, partitions: Sequence[TopicPartition], batch: RequestBatch
    ) -> tuple[set[TopicPartition], list[TopicPartition]]:
        """Write first leaders; return the partitions online and those that turned out to have a state."""

        def decide(partition: TopicPartition) -> LeaderAndIsr | None:
            outcome = elect_initial(
                self._context.replicas(partition), lambda broker: self._is_online(broker, partition)
            )
            if outcome is None:
                self._journal.record(
                    "NoLeaderElected",
                    partition=partition,
                    reason="no assigned replica is live",
                    replicas=list(self._context.replicas(partition)),
                )
                return None
            return LeaderAndIsr(
                outcome.leader,
                INITIAL_LEADER_EPOCH,
                outcome.isr,
                self._context.epoch,
                PartitionEpoch(0),
                outcome.leader_recovery_state,
            )

        created, existing = await self._writer.create(partitions, decide)
        for partition in created:
            state = self._context.leadership[partition].state
            self._context.partition_states[partition] = PartitionState.ONLINE
            cause = self._record_election(partition, NO_LEADER, state, "initial")
            batch.add_leader_and_isr(state.isr, partition, is_new=True, cause=cause)
        for partition in existing:
            # Left over from an earlier life of the topic, or written by a controller before me.
            self._context.partition_states[partition] = PartitionState.OFFLINE
        return set(created), existing

    async def _elect(
        self, partitions: Sequence[TopicPartition], strategy: Strategy, batch: RequestBatch
    ) -> set[TopicPartition]:
        unclean_topics: dict[str, bool] = {}

        async def prepare(pending: Sequence[TopicPartition]) -> None:
            """Read whether unclean elections are allowed, where it matters."""
            if strategy is not Strategy.OFFLINE:
                return
            wanted = sorted(
                {
                    p.topic
                    for p in pending
                    if p.topic not in unclean_topics
                    and (leadership := self._context.leadership.get(p)) is not None
                    and elect_offline(self._facts(p, leadership), unclean_allowed=False) is None
                }
            )
            allowed = await all_of(self._unclean_allowed(topic) for topic in wanted)
            unclean_topics.update(zip(wanted, allowed, strict=True))

        unclean: set[TopicPartition] = set()

        def decide(partition: TopicPartition, leadership: Leadership) -> LeaderAndIsr | None:
            allowed = unclean_topics.get(partition.topic, False)
            outcome = self._outcome(partition, leadership, strategy, unclean_allowed=allowed)
            unclean.discard(partition)
            if outcome is None:
                return None
            if outcome.is_unclean:
                unclean.add(partition)
            return decided(leadership.state, outcome, self._context.epoch)

        written = await self._writer.update(partitions, decide, prepare=prepare)
        for partition in partitions:
            if partition not in written:
                self._record_failed_election(partition, strategy)
        for partition, (before, after) in written.items():
            self._context.partition_states[partition] = PartitionState.ONLINE
            is_unclean = partition in unclean
            if is_unclean:
                self._on_unclean_election()
            cause = self._record_election(
                partition,
                before.state.leader,
                after.state,
                "unclean" if is_unclean else strategy.value,
                old_isr=before.state.isr,
            )
            batch.add_leader_and_isr(self._recipients(partition, strategy), partition, cause=cause)
        return set(written)

    def _outcome(
        self, partition: TopicPartition, leadership: Leadership, strategy: Strategy, *, unclean_allowed: bool
    ) -> Outcome | None:
        match strategy:
            case Strategy.OFFLINE:
                return elect_offline(self._facts(partition, leadership), unclean_allowed=unclean_allowed)
            case Strategy.PREFERRED:
                return elect_preferred(self._facts(partition, leadership))
            case Strategy.CONTROLLED_SHUTDOWN:
                return elect_controlled_shutdown(
                    self._facts(partition, leadership, include_shutting_down=True),
                    is_shutting_down=lambda broker: broker in self._context.shutting_down,
                )
            case Strategy.REASSIGN:
                assignment = self._context.assignment(partition)
                target = () if assignment is None else assignment.target
                return elect_reassigned(self._facts(partition, leadership), target)

    def _recipients(self, partition: TopicPartition, strategy: Strategy) -> list[BrokerId]:
        replicas = self._context.replicas(partition)
        match strategy:
            case Strategy.OFFLINE:
                return [broker for broker in replicas if self._context.is_online(broker, partition)]
            case Strategy.REASSIGN:
                assignment = self._context.assignment(partition)
                return [] if assignment is None else list(assignment.target)
            case Strategy.PREFERRED | Strategy.CONTROLLED_SHUTDOWN:
                return list(replicas)

    async def handle_restarts(self, partitions: Iterable[TopicPartition]) -> None:
        """Treat every leader and ISR member that registered after its state was written as failed.

        A leader that restarted gets a successor, or the same one in a new leader epoch where every
        live ISR member restarted; other members leave the ISR. It comes before anything else that
        writes these states, since each write makes an earlier restart invisible.
        """
        affected = [
            partition
            for partition in partitions
            if not self._context.is_being_deleted(partition.topic)
            and (leadership := self._context.leadership.get(partition)) is not None
            and self._facts(partition, leadership).names_a_restarted_broker
        ]
        if not affected:
            return

        def decide(partition: TopicPartition, leadership: Leadership) -> LeaderAndIsr | None:
            facts = self._facts(partition, leadership)
            if not facts.names_a_restarted_broker:
                return None  # What was found after a conflict is younger than the registration.
            state = leadership.state
            if state.leader in facts.fresh:
                outcome: Outcome | None = Outcome(state.leader, facts.fresh, state.leader_recovery_state)
            else:
                outcome = elect_offline(facts, unclean_allowed=False)
            return None if outcome is None else decided(state, outcome, self._context.epoch)

        batch = self.batch()
        for partition, (before, after) in (await self._writer.update(affected, decide)).items():
            self._context.partition_states[partition] = PartitionState.ONLINE
            cause = self._record_election(
                partition, before.state.leader, after.state, "restart", old_isr=before.state.isr
            )
            batch.add_leader_and_isr(self._recipients(partition, Strategy.OFFLINE), partition, cause=cause)
        self.dispatch(batch)

    # --- replicas ------------------------------------------------------------------------

    async def move_replicas(self, replicas: Iterable[PartitionReplica], target: ReplicaState) -> None:
        """Move replicas to ``target`` and tell the brokers what that means for them."""
        valid = []
        for replica in replicas:
            current = self._context.replica_state(replica)
            if replica_state.is_valid_move(current, target):
                valid.append(replica)
            else:
                self._journal.record(
                    "ReplicaMoveRefused",
                    partition=replica.partition,
                    replica=replica.broker,
                    state=current.name,
                    target=target.name,
                )
        if not valid:
            return
        batch = self.batch()
        match target:
            case ReplicaState.NEW:
                self._start_new(valid, batch)
            case ReplicaState.ONLINE:
                self._bring_replicas_online(valid, batch)
            case ReplicaState.OFFLINE:
                await self._take_offline(valid, batch)
            case ReplicaState.DELETION_STARTED:
                for replica in valid:
                    self._context.replica_states[replica] = target
                    batch.add_stop_replica([replica.broker], replica.partition, delete=True)
            case ReplicaState.DELETION_SUCCESSFUL | ReplicaState.DELETION_INELIGIBLE:
                for replica in valid:
                    self._context.replica_states[replica] = target
            case ReplicaState.NON_EXISTENT:
                for replica in valid:
                    self._context.replica_states.pop(replica, None)
        self.dispatch(batch)

    def _start_new(self, replicas: Sequence[PartitionReplica], batch: RequestBatch) -> None:
        for replica in replicas:
            if replica.partition in self._context.leadership:
                if self._context.leader(replica.partition) == replica.broker:
                    self._journal.record(
                        "ReplicaMoveRefused",
                        partition=replica.partition,
                        replica=replica.broker,
                        state="leader",
                        target=ReplicaState.NEW.name,
                    )
                    continue
                batch.add_leader_and_isr([replica.broker], replica.partition, is_new=True)
            self._context.replica_states[replica] = ReplicaState.NEW

    def _bring_replicas_online(self, replicas: Sequence[PartitionReplica], batch: RequestBatch) -> None:
        for replica in replicas:
            was = self._context.replica_state(replica)
            # A new one was told when its partition got its leader, or when it was added.
            if was is not ReplicaState.NEW and replica.partition in self._context.leadership:
                batch.add_leader_and_isr([replica.broker], replica.partition)
            self._context.replica_states[replica] = ReplicaState.ONLINE

    async def _take_offline(self, replicas: Sequence[PartitionReplica], batch: RequestBatch) -> None:
        by_broker: dict[BrokerId, list[TopicPartition]] = {}
        for replica in replicas:
            by_broker.setdefault(replica.broker, []).append(replica.partition)
            batch.add_stop_replica([replica.broker], replica.partition, delete=False)
        for broker, partitions in by_broker.items():
            await self._remove_from_isrs(broker, partitions, batch)
        for replica in replicas:
            self._context.replica_states[replica] = ReplicaState.OFFLINE

    async def _remove_from_isrs(
        self, gone: BrokerId, partitions: Sequence[TopicPartition], batch: RequestBatch
    ) -> None:
        def decide(partition: TopicPartition, leadership: Leadership) -> LeaderAndIsr | None:
            came_back = gone not in self._context.brokers and gone in self._context.registrations.czxid
            if came_back and not self._context.has_restarted(gone, leadership):
                return None  # It bounced, and this state speaks of its new life already.
            state = remove_from_isr(self._facts(partition, leadership), gone)
            return None if state is None else replace(state, controller_epoch=self._context.epoch)

        written = await self._writer.update(partitions, decide)
        for partition in partitions:
            cause = None
            if partition in written:
                before, after = written[partition]
                cause = self._journal.record(
                    "ReplicaWentOffline",
                    cause=self._context.gone.get(gone),
                    partition=partition,
                    replica=gone,
                    old_isr=list(before.state.isr),
                    isr=list(after.state.isr),
                    leader=after.state.leader,
                    leader_epoch=after.state.leader_epoch,
                    partition_epoch=after.state.partition_epoch,
                )
            if partition not in self._context.leadership:
                batch.add_update_metadata(self._context.live_or_shutting_down(), [partition])
            elif not self._context.is_being_deleted(partition.topic):
                others = [broker for broker in self._context.replicas(partition) if broker != gone]
                batch.add_leader_and_isr(others, partition, cause=cause)

    # --- facts and events ----------------------------------------------------------------

    def _is_online(
        self, broker: BrokerId, partition: TopicPartition, *, include_shutting_down: bool = False
    ) -> bool:
        """Online as far as events tell, and still registered as far as the last reading tells."""
        return broker in self._context.registrations.czxid and self._context.is_online(
            broker, partition, include_shutting_down=include_shutting_down
        )

    def _facts(
        self, partition: TopicPartition, leadership: Leadership, *, include_shutting_down: bool = False
    ) -> Facts:
        return Facts(
            assigned=self._context.replicas(partition),
            state=leadership.state,
            is_online=lambda broker: self._is_online(
                broker, partition, include_shutting_down=include_shutting_down
            ),
            has_restarted=lambda broker: self._context.has_restarted(broker, leadership),
        )

    async def _unclean_allowed(self, topic: str) -> bool:
        try:
            value = (await self._store.topic_config(topic)).get(UNCLEAN_CONFIG)
        except BadRecord as bad:
            self._journal.record("TopicConfigUnreadable", topic=topic, reason=str(bad))
            return False
        if value is None:
            return self._config.unclean_leader_election_enable
        return value.strip().lower() == "true"

    def _record_election(
        self,
        partition: TopicPartition,
        old_leader: BrokerId,
        state: LeaderAndIsr,
        strategy: str,
        *,
        old_isr: Sequence[BrokerId] = (),
    ) -> EventId:
        return self._journal.record(
            "LeaderElected",
            cause=self._context.gone.get(old_leader),
            partition=partition,
            old_leader=old_leader,
            leader=state.leader,
            leader_epoch=state.leader_epoch,
            old_isr=list(old_isr),
            isr=list(state.isr),
            partition_epoch=state.partition_epoch,
            strategy=strategy,
        )

    def _record_failed_election(self, partition: TopicPartition, strategy: Strategy) -> None:
        leadership = self._context.leadership.get(partition)
        self._journal.record(
            "NoLeaderElected",
            partition=partition,
            strategy=strategy.value,
            reason="no state" if leadership is None else "no replica qualifies",
            isr=[] if leadership is None else list(leadership.state.isr),
            replicas=list(self._context.replicas(partition)),
            live_brokers=[info.broker_id for info in self._context.live_brokers()],
        )
