"""One reign: from winning the election to resigning. Everything of it is thrown away at its end.

A reign begins by reading the whole cluster from ZooKeeper (:meth:`Reign.begin`) and from then on
answers one event at a time. Each handler reads anew what the event is about, setting the watch with
the same read, so that no change falls between; it compares with the context and acts on the
difference. A watch that fires for nothing therefore does no harm.

The order at the beginning matters. Brokers learn who is alive before anything else, because a
leader_and_isr names leaders by id. Restarts that nobody saw come next, before anything else writes
a state, because every write hides the restarts before it. Then the replicas on dead brokers leave
their ISRs, and partitions without a leader get one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from controller import topic_deletion
from controller.assignment import Candidate, InconsistentRacks
from controller.channel import BrokerChannel, ChannelManager
from controller.config import ControllerConfig
from controller.context import ControllerContext, ReplicaAssignment
from controller.election import Strategy
from controller.events import (
    AllocateProducerIds,
    AutoPreferredReplicaLeaderElection,
    BrokerChange,
    BrokerModification,
    ControlledShutdown,
    ControllerEvent,
    CreatedTopics,
    CreateTopics,
    IsrChangeNotification,
    LeaderAndIsrAnswered,
    LogDirEventNotification,
    PartitionModification,
    StopReplicaAnswered,
    TopicChange,
    TopicDeletion,
)
from controller.leadership_writer import LeadershipWriter, all_of
from controller.partition_state import PartitionState
from controller.replica_state import PartitionReplica, ReplicaState
from controller.request_batch import Outgoing
from controller.state_machines import StateMachines
from controller.topic_creation import NewTopic, ValidateTopicConfig, plan_topic
from controller.topic_deletion import NextStep
from kafkalite.common import (
    ZERO_UUID,
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    ControllerEpoch,
    TopicPartition,
    Uuid,
    new_uuid,
)
from kafkalite.journal import EventId, Journal
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsResponse
from kafkalite.protocol.controlled_shutdown import (
    ControlledShutdownResponse,
    ControlledShutdownResponseRemainingPartition,
)
from kafkalite.protocol.create_topics import (
    CreateTopicsResponse,
    CreateTopicsResponseConfig,
    CreateTopicsResponseTopic,
    CreateTopicsTopic,
)
from kafkalite.protocol.errors import (
    BrokerError,
    BrokerIdNotRegisteredError,
    BrokerNotAvailableError,
    ErrorCode,
    InvalidRequestError,
    StaleBrokerEpochError,
    TopicAlreadyExistsError,
    UnknownServerError,
)
from kafkalite.protocol.leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.stop_replica import StopReplicaRequest, StopReplicaResponse
from kafkalite.protocol.update_metadata import UpdateMetadataRequest, UpdateMetadataResponse
from zk import admin, paths
from zk.client import BadVersion, NoNode, WatchCallback, WatchEvent
from zk.codecs import PRODUCER_ID_BLOCK_SIZE, BadRecord, LogDirEvent
from zk.store import FencedStore, TopicExists, TopicRecord

DYNAMIC_TOPIC_CONFIG = 1
"""The `config_source` of a config that was set for the topic."""
FIRST_REBALANCE_AFTER_S = 5

SENT_EVENTS: Mapping[type[Message], str] = {
    LeaderAndIsrRequest: "LeaderAndIsrSent",
    UpdateMetadataRequest: "UpdateMetadataSent",
    StopReplicaRequest: "StopReplicaSent",
}
MAX_NAMED_PARTITIONS = 20
"""An event about a request names at most so many of its partitions."""


class Reign:
    """What this broker does as the controller. Its methods run one at a time, on the event queue."""

    def __init__(
        self,
        broker_id: BrokerId,
        epoch: ControllerEpoch,
        *,
        config: ControllerConfig,
        store: FencedStore,
        channel: BrokerChannel,
        journal: Journal,
        chance: random.Random,
        has_lease: Callable[[], bool],
        validate_topic_config: ValidateTopicConfig,
        put: Callable[[ControllerEvent], None],
        tasks: asyncio.TaskGroup,
        on_unclean_election: Callable[[], None],
    ) -> None:
        self._broker_id = broker_id
        self._config = config
        self._store = store
        self._journal = journal
        self._chance = chance
        self._validate_topic_config = validate_topic_config
        self._put = put
        self._tasks = tasks
        self._timer: asyncio.Task[None] | None = None
        self._is_over = False
        self._deletion_causes: dict[str, EventId] = {}
        self.context = ControllerContext(epoch)
        self.channels = ChannelManager(
            channel,
            journal,
            tasks,
            has_lease=has_lease,
            on_answer=self._answered,
            timeout_ms=config.controller_socket_timeout_ms,
        )
        self._writer = LeadershipWriter(self.context, store, journal)
        self._machines = StateMachines(
            broker_id,
            config,
            self.context,
            store,
            self._writer,
            journal,
            send=self._send,
            on_unclean_election=on_unclean_election,
        )

    # --- beginning and end ---------------------------------------------------------------

    async def begin(self) -> None:
        """Fail over: read the cluster, tell the brokers, repair what changed while nobody ruled."""
        context, machines = self.context, self._machines
        await self._set_up_features()
        await self._drop_old_notifications()
        for info in (await self._read_brokers()).values():
            context.brokers[info.broker_id] = info
        await self._load_topics(await self._store.topics(watch=self._watch(TopicChange())))
        await self._writer.read_states(list(context.partitions()))
        for info in context.live_brokers():
            self.channels.add(info)
        self._journal.record(
            "ControllerContextLoaded",
            brokers=sorted(context.brokers),
            topics=len(context.topic_ids),
            partitions=context.partition_count,
        )
        machines.update_metadata(context.live_or_shutting_down())
        await self._read_deletions()

        for partition in context.partitions():
            if partition not in context.leadership:
                state = PartitionState.NEW
            elif context.has_online_leader(partition):
                state = PartitionState.ONLINE
            else:
                state = PartitionState.OFFLINE
            context.partition_states[partition] = state
        await machines.handle_restarts(list(context.partitions()))

        replicas = context.replicas_of(context.partitions())
        online = [r for r in replicas if context.is_online(r.broker, r.partition)]
        offline = [r for r in replicas if not context.is_online(r.broker, r.partition)]
        for replica in online:
            context.replica_states[replica] = ReplicaState.ONLINE
        for replica in offline:
            context.replica_states[replica] = ReplicaState.DELETION_INELIGIBLE
        await machines.move_replicas(online, ReplicaState.ONLINE)
        absent = sorted({r.broker for r in offline if r.broker not in context.brokers})
        for broker in absent:
            context.gone[broker] = self._journal.record("BrokerFoundAbsent", broker=broker)
        with Journal.because(context.gone[absent[-1]] if absent else Journal.ambient_cause()):
            await machines.move_replicas(offline, ReplicaState.OFFLINE)
            await machines.trigger_online()
        await self._elect_leaderless()
        await self._resume_deletions()
        if self._config.auto_leader_rebalance_enable:
            self._timer = self._tasks.create_task(self._rebalance_timer(), name="controller-rebalance")

    async def end(self) -> None:
        """Stop watching, sending and waking up; return when nothing of this reign runs any more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.wait([self._timer])
        await self.channels.close()

    async def handle(self, event: ControllerEvent) -> None:
        """Handle one event. Raises ControllerMoved, SessionExpired and other errors of ZooKeeper."""
        match event:
            case BrokerChange():
                await self._brokers_changed()
            case BrokerModification(broker):
                await self._broker_modified(broker)
            case TopicChange():
                await self._topics_changed()
            case PartitionModification(topic):
                await self._topic_modified(topic)
            case TopicDeletion():
                await self._read_deletions()
                await self._resume_deletions()
            case IsrChangeNotification():
                await self._isrs_changed()
            case LogDirEventNotification():
                await self._log_dirs_failed()
            case AutoPreferredReplicaLeaderElection():
                await self._rebalance()
            case LeaderAndIsrAnswered():
                await self._leader_and_isr_answered(event)
            case StopReplicaAnswered():
                await self._stop_replica_answered(event)
            case CreateTopics():
                await self._create_topics(event)
            case ControlledShutdown():
                await self._controlled_shutdown(event)
            case AllocateProducerIds():
                await self._allocate_producer_ids(event)
            case _:
                raise AssertionError(f"{event} is no event of a reign")

    def _watch(self, event: ControllerEvent) -> WatchCallback:
        """A watch that puts ``event`` into the queue while this reign lasts."""

        def fired(path: str, why: WatchEvent) -> None:
            if not self._is_over:
                self._put(event)

        return fired

    # --- sending and answers -------------------------------------------------------------

    def _send(self, outgoing: Outgoing) -> None:
        event = self._journal.record(
            SENT_EVENTS[type(outgoing.request)],
            cause=outgoing.cause,
            to=outgoing.broker,
            partition_count=len(outgoing.partitions),
            partitions=[str(partition) for partition in outgoing.partitions[:MAX_NAMED_PARTITIONS]],
        )
        self.channels.send(outgoing.broker, outgoing.request, event)

    def _answered(
        self, broker: BrokerInfo, request: Message, response: Message, cause: EventId | None
    ) -> None:
        """Called by the sender: keep what an answer says for the queue, where it says anything."""
        if self._is_over:
            return
        match response:
            case LeaderAndIsrResponse():
                known_offline = bool(self.context.offline_dir_replicas.get(broker.broker_id))
                if known_offline or response.error_code or _has_errors(response):
                    self._put(LeaderAndIsrAnswered(broker.broker_id, broker.epoch, response, cause))
            case StopReplicaResponse():
                assert isinstance(request, StopReplicaRequest)
                deletes = any(p.delete_partition for t in request.topic_states for p in t.partition_states)
                if deletes or response.error_code:
                    self._put(StopReplicaAnswered(broker.broker_id, broker.epoch, request, response, cause))
            case UpdateMetadataResponse(error_code=code) if code:
                self._refused(broker.broker_id, request, code, cause)
            case _:
                pass

    def _refused(self, broker: BrokerId, request: Message, code: int, cause: EventId | None) -> None:
        self._journal.record(
            "ControllerRequestRefused",
            cause=cause,
            to=broker,
            request=type(request).__name__,
            error=ErrorCode(code).name,
        )

    def _is_current(self, broker: BrokerId, epoch: BrokerEpoch) -> bool:
        return self.context.broker_epoch(broker) == epoch

    async def _leader_and_isr_answered(self, event: LeaderAndIsrAnswered) -> None:
        if not self._is_current(event.broker, event.broker_epoch):
            return  # An earlier life's word.
        if event.response.error_code:
            self._journal.record(
                "ControllerRequestRefused",
                cause=event.cause,
                to=event.broker,
                request=LeaderAndIsrRequest.__name__,
                error=ErrorCode(event.response.error_code).name,
            )
            return
        offline = self.context.offline_dir_replicas.setdefault(event.broker, set())
        newly_offline = []
        for topic in event.response.topics:
            for item in topic.partition_errors:
                partition = TopicPartition(topic.topic_name, item.partition_index)
                if item.error_code == ErrorCode.NONE:
                    offline.discard(partition)
                elif item.error_code == ErrorCode.KAFKA_STORAGE_ERROR:
                    if partition not in offline and event.broker in self.context.replicas(partition):
                        offline.add(partition)
                        newly_offline.append(PartitionReplica(partition, event.broker))
                else:
                    self._journal.record(
                        "ReplicaRefused",
                        cause=event.cause,
                        partition=partition,
                        replica=event.broker,
                        error=ErrorCode(item.error_code).name,
                    )
        if not offline:
            del self.context.offline_dir_replicas[event.broker]
        if newly_offline:
            cause = self._journal.record(
                "ReplicasOffline",
                cause=event.cause,
                replica=event.broker,
                partitions=[str(r.partition) for r in newly_offline[:MAX_NAMED_PARTITIONS]],
                partition_count=len(newly_offline),
            )
            with Journal.because(cause):
                await self._replicas_became_offline(newly_offline)

    # --- brokers -------------------------------------------------------------------------

    async def _read_brokers(self) -> dict[BrokerId, BrokerInfo]:
        """Who is registered: those known already as they are known, others with a watch of their own.

        A registration that is no record is recorded and passed over.
        """
        await self._store.broker_ids(watch=self._watch(BrokerChange()))
        while True:
            await self._writer.read_registrations()
            found: dict[BrokerId, BrokerInfo] = {}
            unknown = []
            for broker, czxid in sorted(self.context.registrations.czxid.items()):
                known = self.context.brokers.get(broker)
                if known is not None and known.epoch == czxid:
                    found[broker] = known
                else:
                    unknown.append(broker)
            for info in await all_of(self._read_broker(broker) for broker in unknown):
                if info is not None:
                    found[info.broker_id] = info
            czxids = self.context.registrations.czxid
            if all(info.epoch == czxids[broker] for broker, info in found.items()):
                return found
            # A new life began between the two readings. Restarts are judged by the first, requests are
            # addressed by the second: they have to speak of the same lives.

    async def _read_broker(self, broker: BrokerId) -> BrokerInfo | None:
        try:
            return await self._store.broker(broker, watch=self._watch(BrokerModification(broker)))
        except BadRecord as bad:
            self._journal.record("BrokerRegistrationUnreadable", reason=str(bad))
            return None

    async def _brokers_changed(self) -> None:
        context = self.context
        found = await self._read_brokers()
        new = [b for b in found if b not in context.brokers]
        bounced = [b for b in found if b in context.brokers and found[b].epoch > context.brokers[b].epoch]
        dead = [b for b in sorted(context.brokers) if b not in found]
        if not (new or bounced or dead):
            return
        for broker in new:
            self.channels.add(found[broker])
        for broker in bounced:
            self.channels.remove(broker)
            self.channels.add(found[broker])
        for broker in dead:
            self.channels.remove(broker)
        if new:
            causes = [self._record_broker("BrokerStarted", found[b], "created") for b in new]
            with Journal.because(causes[-1]):
                for broker in new:
                    context.gone.pop(broker, None)
                    context.brokers[broker] = found[broker]
                    # Its last life may have ended while it was shutting down, unseen.
                    context.shutting_down.discard(broker)
                await self._brokers_started(new)
        if bounced:
            causes = [self._record_broker("BrokerBounced", found[b], "replaced") for b in bounced]
            with Journal.because(causes[-1]):
                context.gone.update(zip(bounced, causes, strict=True))
                for broker in bounced:
                    del context.brokers[broker]
                await self._brokers_failed(bounced)
                for broker in bounced:
                    del context.gone[broker]
                    context.brokers[broker] = found[broker]
                await self._brokers_started(bounced)
        if dead:
            causes = [self._record_broker("BrokerFailed", context.brokers[b], "deleted") for b in dead]
            with Journal.because(causes[-1]):
                context.gone.update(zip(dead, causes, strict=True))
                for broker in dead:
                    del context.brokers[broker]
                await self._brokers_failed(dead)

    def _record_broker(self, type: str, info: BrokerInfo, change: str) -> EventId:
        gone = change == "deleted"
        znode = self._record_znode(paths.broker(info.broker_id), change, None if gone else info.epoch)
        facts: dict[str, Any] = {} if gone else {"endpoints": [str(endpoint) for endpoint in info.endpoints]}
        return self._journal.record(
            type, cause=znode, broker=info.broker_id, broker_epoch=info.epoch, **facts
        )

    def _record_znode(self, path: str, change: str, mzxid: int | None, **facts: Any) -> EventId:
        """A change that somebody else made: the root of whatever follows."""
        return self._journal.record("ZnodeChanged", path=path, change=change, mzxid=mzxid, **facts)

    async def _znode_found(self, path: str, change: str, **facts: Any) -> EventId:
        """As :meth:`_record_znode`, with the transaction looked up."""
        stat = await self._store.exists(path)
        return self._record_znode(path, change, None if stat is None else stat.mzxid, **facts)

    async def _brokers_started(self, brokers: list[BrokerId]) -> None:
        context, machines = self.context, self._machines
        for broker in brokers:
            context.offline_dir_replicas.pop(broker, None)
        started = frozenset(brokers)
        machines.update_metadata([b for b in context.live_or_shutting_down() if b not in started])
        machines.update_metadata(brokers, context.leadership)
        await machines.handle_restarts(
            p for p in list(context.partitions()) if not started.isdisjoint(context.replicas(p))
        )
        await machines.move_replicas(context.replicas_on(brokers), ReplicaState.ONLINE)
        await machines.trigger_online()
        resumable = [
            topic
            for topic in sorted(context.topics_to_delete)
            if any(r.broker in started for r in context.replicas_of(context.partitions_of(topic)))
        ]
        context.topics_ineligible_for_deletion.difference_update(resumable)
        await self._resume_deletions()

    async def _brokers_failed(self, brokers: list[BrokerId]) -> None:
        for broker in brokers:
            self.context.offline_dir_replicas.pop(broker, None)
            self.context.shutting_down.discard(broker)
        await self._replicas_became_offline(self.context.replicas_on(brokers))

    async def _replicas_became_offline(self, replicas: list[PartitionReplica]) -> None:
        context, machines = self.context, self._machines
        deleting = [r for r in replicas if context.is_being_deleted(r.partition.topic)]
        others = [r for r in replicas if not context.is_being_deleted(r.partition.topic)]
        leaderless = [
            p
            for p in context.partitions()
            if not context.is_being_deleted(p.topic)
            and p in context.leadership
            and not context.has_online_leader(p)
        ]
        await machines.move_partitions(leaderless, PartitionState.OFFLINE)
        await machines.trigger_online()
        await machines.move_replicas(others, ReplicaState.OFFLINE)
        await self._elect_leaderless()
        if deleting:
            self._deletion_failed(deleting, "the replica is offline")
        if not leaderless and not others:
            machines.update_metadata(context.live_or_shutting_down())

    async def _elect_leaderless(self) -> None:
        """Elect where a leader left the ISR because it had restarted."""
        context = self.context
        lost = [
            p
            for p in context.partitions()
            if context.partition_state(p) is PartitionState.ONLINE
            and not context.is_being_deleted(p.topic)
            and not context.has_online_leader(p)
        ]
        if lost:
            await self._machines.move_partitions(lost, PartitionState.OFFLINE)
            await self._machines.trigger_online()

    async def _broker_modified(self, broker: BrokerId) -> None:
        known = self.context.brokers.get(broker)
        if known is None:
            return
        found = await self._read_broker(broker)
        if found is None or found.epoch != known.epoch or found == known:
            return  # Gone or replaced: that is another event's business.
        cause = await self._znode_found(
            paths.broker(broker), "changed", endpoints=[str(e) for e in found.endpoints]
        )
        with Journal.because(cause):
            self.context.brokers[broker] = found
            self.channels.replace(found)
            self._machines.update_metadata(self.context.live_or_shutting_down())

    # --- topics --------------------------------------------------------------------------

    async def _set_up_features(self) -> None:
        try:
            await self._store.enable_features()
        except BadRecord as bad:
            # No feature is finalized in ZooKeeper mode, so nothing depends on what it says.
            self._journal.record("FeaturesUnreadable", reason=str(bad))

    async def _load_topics(self, topics: Iterable[str]) -> list[str]:
        """Read topics into the context; return those that could be read. Missing ids are given."""
        wanted = list(topics)
        records = await all_of(self._read_topic(topic) for topic in wanted)
        loaded = []
        for topic, record in zip(wanted, records, strict=True):
            if record is not None:
                record = await self._with_id(topic, record)
            if record is not None:
                self._adopt_topic(topic, record)
                loaded.append(topic)
        return loaded

    async def _read_topic(self, topic: str) -> TopicRecord | None:
        try:
            return await self._store.topic(topic, watch=self._watch(PartitionModification(topic)))
        except BadRecord as bad:
            self._journal.record("TopicUnreadable", topic=topic, reason=str(bad))
            return None

    async def _with_id(self, topic: str, record: TopicRecord) -> TopicRecord | None:
        """The record with a topic id, written if it had none; None where the topic vanished."""
        known = self.context.topic_ids.get(topic)
        current: TopicRecord | None = record
        while current is not None and current.topic_id is None:
            try:
                given = replace(current, topic_id=known or new_uuid(self._chance))
                return await self._store.set_topic(topic, given)
            except BadVersion:
                current = await self._read_topic(topic)
            except NoNode:
                return None
        return current

    def _adopt_topic(self, topic: str, record: TopicRecord) -> None:
        assert record.topic_id is not None
        self.context.topic_ids[topic] = record.topic_id
        self.context.assignments[topic] = {
            partition: _assignment(record, partition) for partition in sorted(record.assignment)
        }

    async def _topics_changed(self, *, watch: bool = True) -> None:
        context = self.context
        found = await self._store.topics(watch=self._watch(TopicChange()) if watch else None)
        for topic in sorted(set(context.topic_ids) - set(found)):
            cause = self._record_znode(paths.topic(topic), "deleted", None)
            self._journal.record("TopicDeleted", cause=cause, topic=topic)
            self._forget_topic(topic)
        await self._new_topics([topic for topic in found if topic not in context.topic_ids])

    def _forget_topic(self, topic: str) -> None:
        """Drop a topic whose znode is gone; brokers learn that it has no leaders any more."""
        batch = self._machines.batch()
        self.context.topics_to_delete.add(topic)
        batch.add_update_metadata(self.context.live_or_shutting_down(), self.context.partitions_of(topic))
        self._machines.dispatch(batch)
        self.context.forget_topic(topic)

    async def _new_topics(self, topics: Collection[str], cause: EventId | None = None) -> None:
        if not topics:
            return
        loaded = await self._load_topics(topics)
        for topic in loaded:
            event = cause if cause is not None else await self._znode_found(paths.topic(topic), "created")
            last = self._journal.record(
                "TopicCreated",
                cause=event,
                topic=topic,
                topic_id=self.context.topic_ids[topic],
                assignment={
                    str(partition): list(assignment.replicas)
                    for partition, assignment in self.context.assignments[topic].items()
                },
            )
            with Journal.because(last):
                await self._start_partitions(self.context.partitions_of(topic))
        if loaded:
            await self._read_deletions(watch=False)  # Somebody may wish a topic away before I know it.

    async def _start_partitions(self, partitions: list[TopicPartition]) -> None:
        """Bring new partitions to life."""
        machines = self._machines
        started = await machines.move_partitions(partitions, PartitionState.NEW)
        replicas = self.context.replicas_of(sorted(started))
        await machines.move_replicas(replicas, ReplicaState.NEW)
        await machines.move_partitions(sorted(started), PartitionState.ONLINE)
        await machines.move_replicas(replicas, ReplicaState.ONLINE)

    async def _topic_modified(self, topic: str) -> None:
        if topic not in self.context.topic_ids:
            # It could not be read before, or its creation is still in the queue: it is new either way.
            await self._topics_changed(watch=False)  # That watch is still set.
            return
        record = await self._read_topic(topic)
        if record is not None:
            record = await self._with_id(topic, record)
        if record is None:
            return
        known = self.context.assignments[topic]
        added = [partition for partition in sorted(record.assignment) if partition not in known]
        if not added:
            return
        cause = await self._znode_found(paths.topic(topic), "changed", added_partitions=added)
        if self.context.is_being_deleted(topic):
            await self._take_partitions_back(topic, record, cause)
            return
        for partition in added:
            known[partition] = _assignment(record, partition)
        last = self._journal.record(
            "PartitionsAdded",
            cause=cause,
            topic=topic,
            assignment={str(partition): list(record.assignment[partition]) for partition in added},
        )
        with Journal.because(last):
            await self._start_partitions([TopicPartition(topic, partition) for partition in added])

    async def _take_partitions_back(self, topic: str, record: TopicRecord, cause: EventId) -> None:
        """A topic on its way out gets no new partitions: put its znode back to those it has."""
        known = self.context.assignments[topic]
        try:
            await self._store.set_topic(
                topic,
                replace(record, assignment={p: r for p, r in record.assignment.items() if p in known}),
            )
        except (BadVersion, NoNode):
            return  # Changed again, or gone: the watch tells.
        self._journal.record("PartitionsRefused", cause=cause, topic=topic, reason="it is being deleted")

    # --- topic deletion ------------------------------------------------------------------

    async def _read_deletions(self, *, watch: bool = True) -> None:
        """Take up the wishes in `/admin/delete_topics`."""
        context = self.context
        wanted = await self._store.topic_deletions(watch=self._watch(TopicDeletion()) if watch else None)
        for topic in wanted:
            if topic in context.topics_to_delete:
                continue
            cause = await self._znode_found(paths.delete_topic(topic), "created")
            if topic not in context.topic_ids:
                if await self._store.exists(paths.topic(topic)) is None:
                    self._journal.record(
                        "TopicDeletionRefused", cause=cause, topic=topic, reason="there is no such topic"
                    )
                    await self._store.delete_if_there(paths.delete_topic(topic))
            elif not self._config.delete_topic_enable:
                self._journal.record(
                    "TopicDeletionRefused", cause=cause, topic=topic, reason="delete.topic.enable is false"
                )
                await self._store.delete_if_there(paths.delete_topic(topic))
            else:
                self._deletion_causes[topic] = self._journal.record(
                    "TopicDeletionStarted", cause=cause, topic=topic
                )
                context.topics_to_delete.add(topic)
                if topic_deletion.is_being_reassigned(context, topic):
                    self._mark_ineligible(topic, "a partition is being reassigned")
                elif topic_deletion.has_offline_replica(context, topic):
                    self._mark_ineligible(topic, "a replica is offline")

    def _mark_ineligible(self, topic: str, reason: str) -> None:
        if topic not in self.context.topics_ineligible_for_deletion:
            self.context.topics_ineligible_for_deletion.add(topic)
            self._journal.record("TopicDeletionWaits", topic=topic, reason=reason)

    def _deletion_failed(self, replicas: list[PartitionReplica], reason: str) -> None:
        for replica in replicas:
            if self.context.replica_state(replica) in (ReplicaState.OFFLINE, ReplicaState.DELETION_STARTED):
                self.context.replica_states[replica] = ReplicaState.DELETION_INELIGIBLE
            self._mark_ineligible(replica.partition.topic, reason)

    async def _resume_deletions(self) -> None:
        for topic in sorted(self.context.topics_to_delete):
            with Journal.because(self._deletion_causes.get(topic, Journal.ambient_cause())):
                await self._resume_deletion(topic)

    async def _resume_deletion(self, topic: str) -> None:
        context, machines = self.context, self._machines
        replicas = context.replicas_of(context.partitions_of(topic))
        step = topic_deletion.next_step(context, topic)
        if step is NextStep.RETRY:
            failed = [r for r in replicas if context.replica_state(r) is ReplicaState.DELETION_INELIGIBLE]
            await machines.move_replicas(failed, ReplicaState.OFFLINE)
            step = topic_deletion.next_step(context, topic)
        if step is NextStep.COMPLETE:
            await self._complete_deletion(topic, replicas)
        elif step is NextStep.START:
            await self._start_deletion(topic, replicas)

    async def _start_deletion(self, topic: str, replicas: list[PartitionReplica]) -> None:
        context, machines = self.context, self._machines
        partitions = context.partitions_of(topic)
        if topic not in context.topics_with_deletion_started:
            await machines.move_partitions(partitions, PartitionState.OFFLINE)
            await machines.move_partitions(partitions, PartitionState.NON_EXISTENT)
            context.topics_with_deletion_started.add(topic)
        machines.update_metadata(context.live_or_shutting_down(), partitions)
        pending = [r for r in replicas if context.replica_state(r) is not ReplicaState.DELETION_SUCCESSFUL]
        reachable = [r for r in pending if context.is_online(r.broker, r.partition)]
        unreachable = [r for r in pending if not context.is_online(r.broker, r.partition)]
        await machines.move_replicas(pending, ReplicaState.OFFLINE)
        await machines.move_replicas(unreachable, ReplicaState.DELETION_INELIGIBLE)
        await machines.move_replicas(reachable, ReplicaState.DELETION_STARTED)
        if unreachable:
            self._mark_ineligible(topic, "a replica is offline")

    async def _stop_replica_answered(self, event: StopReplicaAnswered) -> None:
        if not self._is_current(event.broker, event.broker_epoch):
            return
        refused = {
            TopicPartition(error.topic_name, error.partition_index): error.error_code
            for error in event.response.partition_errors
            if error.error_code
        }
        deleted = [
            PartitionReplica(TopicPartition(topic.topic_name, p.partition_index), event.broker)
            for topic in event.request.topic_states
            for p in topic.partition_states
            if p.delete_partition
        ]
        if event.response.error_code:
            self._refused(event.broker, event.request, event.response.error_code, event.cause)
        with Journal.because(event.cause):
            waiting = [r for r in deleted if self.context.replica_state(r) is ReplicaState.DELETION_STARTED]
            failed = [r for r in waiting if event.response.error_code or r.partition in refused]
            await self._machines.move_replicas(
                [r for r in waiting if r not in failed], ReplicaState.DELETION_SUCCESSFUL
            )
            if failed:
                self._deletion_failed(failed, "replica deletion failure")
            await self._resume_deletions()

    async def _complete_deletion(self, topic: str, replicas: list[PartitionReplica]) -> None:
        await self._machines.move_replicas(replicas, ReplicaState.NON_EXISTENT)
        await self._store.delete_tree(paths.topic(topic))
        await self._store.delete_if_there(paths.entity_config("topics", topic))
        await self._store.delete_if_there(paths.delete_topic(topic))
        self.context.forget_topic(topic)
        self._journal.record("TopicDeleted", topic=topic)
        self._deletion_causes.pop(topic, None)
        # The watch of the znode that was deleted is spent; whoever creates the name anew is seen by
        # the watch on the children.

    # --- notifications -------------------------------------------------------------------

    async def _drop_old_notifications(self) -> None:
        """All states are about to be read, so what notifications tell is known; the watches are set first."""
        for notifications in (
            await self._store.isr_changes(watch=self._watch(IsrChangeNotification())),
            await self._store.log_dir_events(watch=self._watch(LogDirEventNotification())),
        ):
            await self._store.delete_notifications(notifications)

    async def _isrs_changed(self) -> None:
        notifications = await self._store.isr_changes(watch=self._watch(IsrChangeNotification()))
        if not notifications:
            return
        changed: dict[TopicPartition, None] = {}
        cause: EventId | None = None
        for path, content in notifications.items():
            if isinstance(content, BadRecord):
                self._journal.record("NotificationUnreadable", path=path, reason=str(content))
                continue
            cause = await self._znode_found(
                path, "created", partitions=[str(p) for p in content[:MAX_NAMED_PARTITIONS]]
            )
            changed.update((p, None) for p in content if self.context.assignment(p) is not None)
        with Journal.because(cause):
            await self._writer.read_states(list(changed))
            self._machines.update_metadata(self.context.live_or_shutting_down(), changed)
        await self._store.delete_notifications(notifications)

    async def _log_dirs_failed(self) -> None:
        notifications = await self._store.log_dir_events(watch=self._watch(LogDirEventNotification()))
        brokers: dict[BrokerId, None] = {}
        cause: EventId | None = None
        for path, content in notifications.items():
            match content:
                case LogDirEvent(broker_id):
                    cause = await self._znode_found(path, "created", failed_on=broker_id)
                    brokers[broker_id] = None
                case BadRecord():
                    self._journal.record("NotificationUnreadable", path=path, reason=str(content))
        live = [broker for broker in brokers if broker in self.context.brokers]
        with Journal.because(cause):
            # Asking for all replicas makes the broker answer which of them it lost.
            await self._machines.move_replicas(
                [
                    replica
                    for replica in self.context.replicas_on(live)
                    if not self.context.is_being_deleted(replica.partition.topic)
                ],
                ReplicaState.ONLINE,
            )
        await self._store.delete_notifications(notifications)

    # --- preferred leaders ---------------------------------------------------------------

    async def _rebalance_timer(self) -> None:
        await asyncio.sleep(FIRST_REBALANCE_AFTER_S)
        while True:
            self._put(AutoPreferredReplicaLeaderElection())
            await asyncio.sleep(self._config.leader_imbalance_check_interval_seconds)

    async def _rebalance(self) -> None:
        context = self.context
        preferred: dict[BrokerId, list[TopicPartition]] = {}
        for partition in context.partitions():
            if not context.is_being_deleted(partition.topic):
                preferred.setdefault(context.replicas(partition)[0], []).append(partition)
        for broker, partitions in sorted(preferred.items()):
            misplaced = [p for p in partitions if p in context.leadership and context.leader(p) != broker]
            limit = self._config.leader_imbalance_per_broker_percentage / 100
            if len(misplaced) / len(partitions) <= limit:
                continue
            ready = [
                p
                for p in misplaced
                if context.is_online(broker, p)
                and broker in context.leadership[p].state.isr
                and not context.assignments[p.topic][p.partition].is_being_reassigned
            ]
            if ready:
                cause = self._journal.record(
                    "PreferredLeaderElectionStarted",
                    preferred_broker=broker,
                    misplaced=len(misplaced),
                    preferred=len(partitions),
                )
                with Journal.because(cause):
                    await self._machines.move_partitions(ready, PartitionState.ONLINE, Strategy.PREFERRED)

    # --- API -----------------------------------------------------------------------------

    async def _create_topics(self, event: CreateTopics) -> None:
        request, context = event.request, self.context
        names = [topic.name for topic in request.topics]
        answers: list[CreateTopicsResponseTopic] = []
        created: list[TopicPartition] = []
        existing = set(await self._store.topics())
        answered: set[str] = set()
        for wanted in request.topics:
            if wanted.name in answered:
                continue
            answered.add(wanted.name)
            try:
                if names.count(wanted.name) > 1:
                    raise InvalidRequestError(f"topic '{wanted.name}' is named more than once")
                new = self._plan(wanted, existing)
                topic_id = ZERO_UUID
                if not request.validate_only:
                    topic_id = await self._create(new, event.cause)
                    created += context.partitions_of(new.name)
                existing.add(new.name)
                answers.append(_created(new, topic_id))
            except BrokerError as error:
                answers.append(
                    CreateTopicsResponseTopic(
                        name=wanted.name, error_code=error.code, error_message=error.message or None
                    )
                )
        _answer(event.done, CreatedTopics(CreateTopicsResponse(topics=answers), tuple(created)))

    def _plan(self, wanted: CreateTopicsTopic, existing: set[str]) -> NewTopic:
        try:
            return plan_topic(
                wanted,
                existing=existing,
                being_deleted=self.context.topics_to_delete,
                candidates=[Candidate(info.broker_id, info.rack) for info in self.context.live_brokers()],
                default_partitions=self._config.num_partitions,
                default_replication_factor=self._config.default_replication_factor,
                validate_config=self._validate_topic_config,
                chance=self._chance,
            )
        except InconsistentRacks as error:
            raise UnknownServerError(str(error)) from None

    async def _create(self, new: NewTopic, cause: EventId | None) -> Uuid:
        record = TopicRecord(new_uuid(self._chance), new.assignment)
        try:
            await admin.create_topic(self._store, new.name, record, new.config)
        except TopicExists:
            raise TopicAlreadyExistsError(f"topic '{new.name}' already exists") from None
        request = self._journal.record("TopicCreationRequested", cause=cause, topic=new.name)
        await self._new_topics([new.name], request)
        return self.context.topic_ids.get(new.name, ZERO_UUID)

    async def _controlled_shutdown(self, event: ControlledShutdown) -> None:
        request, context = event.request, self.context
        broker = BrokerId(request.broker_id)
        epoch = context.broker_epoch(broker)
        try:
            if epoch is None:
                raise BrokerNotAvailableError(f"broker {broker} is not registered")
            if request.broker_epoch != -1 and request.broker_epoch < epoch:
                raise StaleBrokerEpochError(
                    f"broker {broker} has epoch {epoch}, the request {request.broker_epoch}"
                )
        except BrokerError as error:
            _answer(event.done, ControlledShutdownResponse(error_code=error.code, remaining_partitions=[]))
            return
        cause = self._journal.record(
            "ControlledShutdownStarted", cause=event.cause, stopping_broker=broker, broker_epoch=epoch
        )
        context.shutting_down.add(broker)
        concerned = [
            p
            for p in context.partitions_on(broker)
            if len(context.replicas(p)) > 1
            and p in context.leadership
            and not context.is_being_deleted(p.topic)
        ]
        led = [p for p in concerned if context.leader(p) == broker]
        followed = [p for p in concerned if context.leader(p) != broker]
        with Journal.because(cause):
            await self._machines.move_partitions(led, PartitionState.ONLINE, Strategy.CONTROLLED_SHUTDOWN)
            batch = self._machines.batch()
            for partition in followed:
                batch.add_stop_replica([broker], partition, delete=False)
            self._machines.dispatch(batch)
            await self._machines.move_replicas(
                [PartitionReplica(p, broker) for p in followed], ReplicaState.OFFLINE
            )
        remaining = [p for p in concerned if context.leader(p) == broker]
        self._journal.record(
            "ControlledShutdownAnswered", cause=cause, stopping_broker=broker, remaining=len(remaining)
        )
        _answer(
            event.done,
            ControlledShutdownResponse(
                error_code=ErrorCode.NONE,
                remaining_partitions=[
                    ControlledShutdownResponseRemainingPartition(
                        topic_name=p.topic, partition_index=p.partition
                    )
                    for p in remaining
                ],
            ),
        )

    async def _allocate_producer_ids(self, event: AllocateProducerIds) -> None:
        broker = BrokerId(event.request.broker_id)
        epoch = self.context.broker_epoch(broker)
        try:
            if epoch is None:
                raise BrokerIdNotRegisteredError(f"broker {broker} is not registered")
            if event.request.broker_epoch != epoch:
                raise StaleBrokerEpochError(
                    f"broker {broker} has epoch {epoch}, the request {event.request.broker_epoch}"
                )
        except BrokerError as error:
            _answer(
                event.done,
                AllocateProducerIdsResponse(
                    throttle_time_ms=0, error_code=error.code, producer_id_start=-1, producer_id_len=0
                ),
            )
            return
        block = await self._store.next_producer_id_block(broker)
        self._journal.record(
            "ProducerIdsAllocated", cause=event.cause, to=broker, first=block.first, last=block.last
        )
        _answer(
            event.done,
            AllocateProducerIdsResponse(
                throttle_time_ms=0,
                error_code=ErrorCode.NONE,
                producer_id_start=block.first,
                producer_id_len=PRODUCER_ID_BLOCK_SIZE,
            ),
        )


def _assignment(record: TopicRecord, partition: int) -> ReplicaAssignment:
    return ReplicaAssignment(
        record.assignment[partition],
        record.adding_replicas.get(partition, ()),
        record.removing_replicas.get(partition, ()),
    )


def _has_errors(response: LeaderAndIsrResponse) -> bool:
    return any(error.error_code for topic in response.topics for error in topic.partition_errors)


def _created(new: NewTopic, topic_id: Uuid) -> CreateTopicsResponseTopic:
    return CreateTopicsResponseTopic(
        name=new.name,
        topic_id=topic_id,
        error_code=ErrorCode.NONE,
        num_partitions=len(new.assignment),
        replication_factor=new.replication_factor,
        configs=[
            CreateTopicsResponseConfig(name=name, value=value, config_source=DYNAMIC_TOPIC_CONFIG)
            for name, value in sorted(new.config.items())
        ],
    )


def _answer(future: asyncio.Future[Any], answer: object) -> None:
    if not future.done():
        future.set_result(answer)
