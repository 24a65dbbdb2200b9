"""The shell: one queue, one consumer, sessions that come and go, reigns that begin and end.

Every broker runs one. It stands for election whenever `/controller` is vacant; the one that wins
reigns (:mod:`controller.reign`) until it loses the session, finds that another was elected, or stops.
Nothing here is touched but by the consumer of the queue (:meth:`Controller.run`): watches, timers,
answers and API calls only put events into it.

An error of ZooKeeper that nobody expected ends the reign and gives `/controller` up: the next one, of
this broker or another, reads everything anew. A fault in the code itself ends :meth:`Controller.run`,
and with it the broker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from controller.channel import BrokerChannel
from controller.config import ControllerConfig
from controller.event_queue import EventQueue
from controller.events import (
    AllocateProducerIds,
    ApiEvent,
    ControlledShutdown,
    ControllerChange,
    ControllerEvent,
    CreatedTopics,
    CreateTopics,
    SessionLost,
    SessionStarted,
    Shutdown,
)
from controller.reign import Reign
from controller.topic_creation import ValidateTopicConfig
from kafkalite.common import NO_BROKER, BrokerEpoch, BrokerId, ControllerEpoch, TopicPartition
from kafkalite.edge import Clock
from kafkalite.journal import EventId, Journal
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse
from kafkalite.protocol.create_topics import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    CreateTopicsResponseTopic,
)
from kafkalite.protocol.errors import ErrorCode, NotControllerError
from zk import paths
from zk.client import (
    Op,
    OpResult,
    SessionExpired,
    SessionState,
    WatchEvent,
    ZooKeeperError,
)
from zk.codecs import BadRecord
from zk.store import ControllerMoved, FencedStore, ProducerIdsExhausted, Store

LEASE_CHECK_S: Final = 0.05
ELECTION_RETRY_S: Final = 1.0
STOP_TIMEOUT_S: Final = 5.0
"""How long a stopping broker waits for ZooKeeper before it leaves the rest to the end of its session."""


class LeasedStore(FencedStore):
    """A fenced store that writes only while the broker holds its lease on the session."""

    def __init__(self, store: Store, epoch_zk_version: int, has_lease: Callable[[], bool]) -> None:
        super().__init__(store, epoch_zk_version)
        self._has_lease = has_lease

    async def write(self, operations: Sequence[Op]) -> list[OpResult]:
        await wait_for_lease(self, self._has_lease)
        return await super().write(operations)


async def wait_for_lease(store: Store, has_lease: Callable[[], bool]) -> None:
    """Return once the lease is held. Raises SessionExpired if the session ends first."""
    while not has_lease():
        if store.zk.state in (SessionState.EXPIRED, SessionState.CLOSED):
            raise SessionExpired(f"session {store.zk.session_id:#x} is over")
        await asyncio.sleep(LEASE_CHECK_S)


class Controller:
    """One broker's part in controlling the cluster."""

    def __init__(
        self,
        broker_id: BrokerId,
        config: ControllerConfig,
        channel: BrokerChannel,
        journal: Journal,
        clock: Clock,
        chance: random.Random,
        has_lease: Callable[[], bool],
        validate_topic_config: ValidateTopicConfig,
    ) -> None:
        """``has_lease`` tells whether the broker may act on its session right now (checked before every
        write and request); ``validate_topic_config`` raises the BrokerError for a bad topic config."""
        self._broker_id = broker_id
        self._config = config
        self._channel = channel
        self._journal = journal
        self._clock = clock
        self._chance = chance
        self._has_lease = has_lease
        self._validate_topic_config = validate_topic_config
        self._queue: EventQueue[ControllerEvent] = EventQueue(self._preempt)
        self._tasks: asyncio.TaskGroup | None = None
        self._store: Store | None = None
        self._previous_session: int | None = None
        self._reign: Reign | None = None
        self._ending: Reign | None = None
        self._reign_store: FencedStore | None = None
        self._controller_id = NO_BROKER
        self._handled = asyncio.Event()
        self._is_stopping = False
        self._work: asyncio.Task[bool] | None = None
        self._unclean_elections = 0

    # --- what others see -----------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether this broker is the controller, as far as it knows."""
        return self._reign is not None

    @property
    def epoch(self) -> ControllerEpoch:
        """The epoch of the present reign, or 0."""
        return ControllerEpoch(0) if self._reign is None else self._reign.context.epoch

    @property
    def controller_id(self) -> BrokerId:
        """Whom `/controller` named when it was read last; -1 for nobody."""
        return self._controller_id

    @property
    def active_controller_count(self) -> int:
        return int(self.is_active)

    @property
    def offline_partitions_count(self) -> int:
        return 0 if self._reign is None else self._reign.context.offline_partition_count

    @property
    def preferred_replica_imbalance_count(self) -> int:
        return 0 if self._reign is None else self._reign.context.preferred_replica_imbalance_count

    @property
    def global_topic_count(self) -> int:
        return 0 if self._reign is None else len(self._reign.context.topic_ids)

    @property
    def global_partition_count(self) -> int:
        return 0 if self._reign is None else self._reign.context.partition_count

    @property
    def topics_to_delete_count(self) -> int:
        return 0 if self._reign is None else len(self._reign.context.topics_to_delete)

    @property
    def topics_ineligible_to_delete_count(self) -> int:
        return 0 if self._reign is None else len(self._reign.context.topics_ineligible_for_deletion)

    @property
    def active_broker_count(self) -> int:
        return 0 if self._reign is None else len(self._reign.context.live_brokers())

    @property
    def fenced_broker_count(self) -> int:
        """Always 0: a broker that ZooKeeper knows is not fenced."""
        return 0

    @property
    def event_queue_size(self) -> int:
        return len(self._queue)

    @property
    def total_queue_size(self) -> int:
        """Requests to brokers that are queued or in flight."""
        return 0 if self._reign is None else self._reign.channels.total_queue_size

    @property
    def unclean_elections_total(self) -> int:
        """Unclean leader elections since this broker started."""
        return self._unclean_elections

    # --- sessions ------------------------------------------------------------------------

    def session_started(
        self, store: Store, broker_epoch: BrokerEpoch, *, previous_session: int | None = None
    ) -> None:
        """Take part with a new session, in which the broker has just registered.

        ``previous_session``: the session of this broker's last life, if known; a `/controller` that
        it left behind is its own leftover.
        """
        if previous_session is not None:
            self._previous_session = previous_session
        self._queue.put(SessionStarted(store, broker_epoch))

    async def session_lost(self) -> None:
        """Resign because the session is over. Returns when nothing of it runs any more.

        All that waited in the queue is told that this is not the controller.
        """
        if self._tasks is None:
            self._queue.clear()
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.clear_and_put(SessionLost(done))
        if self._work is not None:
            self._work.cancel()  # Nothing that it could still achieve in that session counts.
        await done

    async def shutdown(self) -> None:
        """Resign, give `/controller` up if it is this broker's, and end :meth:`run`."""
        self._is_stopping = True
        if self._tasks is None:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.clear_and_put(Shutdown(done))
        finished, _ = await asyncio.wait([done], timeout=STOP_TIMEOUT_S)
        if not finished:
            if self._work is not None:
                self._work.cancel()  # It waits for a ZooKeeper that does not answer.
            await done

    # --- API -----------------------------------------------------------------------------

    async def create_topics(self, request: CreateTopicsRequest) -> CreateTopicsResponse:
        """Create topics. Returns when their leaders are known here, or after ``timeout_ms``.

        Then the topics that are not ready answer REQUEST_TIMED_OUT, and come up later all the same;
        so do all of them with a timeout of 0. Raises NotControllerError.
        """
        loop = asyncio.get_running_loop()
        waits = request.timeout_ms > 0 and not request.validate_only
        deadline = loop.time() + request.timeout_ms / 1000 if waits else None
        done: asyncio.Future[CreatedTopics] = loop.create_future()
        self._submit(CreateTopics(request, done, Journal.ambient_cause()))
        try:
            async with asyncio.timeout_at(deadline):
                created = await done
        except TimeoutError:
            return CreateTopicsResponse(
                topics=[_timed_out(_unknown_outcome(topic.name)) for topic in request.topics]
            )
        late = {partition.topic for partition in created.wait_for}
        if waits and late:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._until_known_here(created.wait_for)
                    late = set()
            except TimeoutError:
                late = self._not_ready(created.wait_for) or late
        return CreateTopicsResponse(
            topics=[_timed_out(t) if t.name in late else t for t in created.response.topics]
        )

    async def controlled_shutdown(self, request: ControlledShutdownRequest) -> ControlledShutdownResponse:
        """Move leaders away from a broker that is about to stop. Raises NotControllerError."""
        done: asyncio.Future[ControlledShutdownResponse] = asyncio.get_running_loop().create_future()
        self._submit(ControlledShutdown(request, done, Journal.ambient_cause()))
        return await done

    async def allocate_producer_ids(self, request: AllocateProducerIdsRequest) -> AllocateProducerIdsResponse:
        """Give a broker a block of producer ids. Raises NotControllerError."""
        done: asyncio.Future[AllocateProducerIdsResponse] = asyncio.get_running_loop().create_future()
        self._submit(AllocateProducerIds(request, done, Journal.ambient_cause()))
        return await done

    def _submit(self, event: ApiEvent) -> None:
        if self._reign is None or self._is_stopping:
            raise self._not_controller()
        self._queue.put(event)

    def _not_controller(self) -> NotControllerError:
        return NotControllerError(
            f"broker {self._broker_id} is not the controller"
            + ("" if self._controller_id in (NO_BROKER, self._broker_id) else f"; {self._controller_id} is")
        )

    def _preempt(self, event: ControllerEvent) -> None:
        """Tell whoever waits on ``event`` that it will not be handled."""
        match event:
            case CreateTopics(done=done) | ControlledShutdown(done=done) | AllocateProducerIds(done=done):
                if not done.done():
                    done.set_exception(self._not_controller())
            case SessionLost(done) | Shutdown(done):
                if not done.done():
                    done.set_result(None)
            case _:
                pass

    async def _until_known_here(self, partitions: tuple[TopicPartition, ...]) -> None:
        """Wait until each partition has a leader and this broker took the metadata that says so."""
        while self._not_ready(partitions):
            self._handled.clear()
            await self._handled.wait()
        reign = self._reign
        if reign is None or not await reign.channels.flush(self._broker_id):
            raise self._not_controller()

    def _not_ready(self, partitions: tuple[TopicPartition, ...]) -> set[str]:
        """The topics that have a partition without a leader. Raises NotControllerError."""
        reign = self._reign
        if reign is None:
            raise self._not_controller()
        return {p.topic for p in partitions if not reign.context.has_online_leader(p)}

    # --- the consumer --------------------------------------------------------------------

    async def run(self) -> None:
        """Handle events, one at a time, until :meth:`shutdown` or cancellation.

        Raises what is wrong with the code: then the broker must end.
        """
        try:
            async with asyncio.TaskGroup() as self._tasks:
                is_running = not self._is_stopping
                while is_running:
                    event = await self._queue.get()
                    is_running = await self._process_cancellably(event)
                    self._handled.set()
                await self._resign("the broker stops")  # Where the last event was cut short.
        finally:
            # After a fault or a cancellation nobody is left waiting.
            self._tasks = None
            self._reign = None
            self._queue.clear()
            self._handled.set()

    async def _process_cancellably(self, event: ControllerEvent) -> bool:
        """Handle one event in a task of its own, which :meth:`shutdown` may cut short."""
        self._work = asyncio.create_task(self._process(event), name="controller-event")
        try:
            await asyncio.wait([self._work])
        finally:
            if not self._work.done():
                self._work.cancel()
                await asyncio.wait([self._work])
            work, self._work = self._work, None
        if work.cancelled():
            self._preempt(event)
            return not isinstance(event, Shutdown)
        return work.result()

    async def _process(self, event: ControllerEvent) -> bool:
        """Handle one event; False after the last one."""
        try:
            match event:
                case SessionStarted(store, _):
                    await self._resign("a new session started")
                    self._store = store
                    await self._controller_changed()
                case SessionLost(done):
                    await self._session_over()
                    if not done.done():
                        done.set_result(None)
                case Shutdown(done):
                    await self._stop()
                    if not done.done():
                        done.set_result(None)
                    return False
                case ControllerChange():
                    await self._controller_changed()
                case CreateTopics() | ControlledShutdown() | AllocateProducerIds():
                    if not event.done.done():  # Else the caller went away.
                        await self._handle_in_reign(event)
                case _:
                    await self._handle_in_reign(event)
        except SessionExpired:
            # session_lost() comes, or has come: it settles the rest.
            self._preempt(event)
            await self._resign("the session expired")
        except ControllerMoved as moved:
            self._preempt(event)
            await self._resign(str(moved))
            self._queue.put(ControllerChange())  # To see who it is now.
        except (ZooKeeperError, BadRecord, ProducerIdsExhausted) as error:
            self._preempt(event)
            await self._give_up(error)
        return True

    async def _handle_in_reign(self, event: ControllerEvent) -> None:
        if self._reign is None:
            self._preempt(event)
            return
        assert self._store is not None
        await wait_for_lease(self._store, self._has_lease)
        with Journal.because(None):
            await self._reign.handle(event)

    # --- elections and resignations ------------------------------------------------------

    async def _controller_changed(self) -> None:
        """Read `/controller` anew: resign if it names another, stand for election if it is vacant."""
        if self._store is None:
            return
        record = await self._store.controller(watch=self._watch(self._store))
        named = NO_BROKER if record is None else record.broker_id
        changed: EventId | None = None
        if named != self._controller_id:
            stat = await self._store.exists(paths.CONTROLLER)
            self._controller_id = named
            cause = self._journal.record(
                "ZnodeChanged",
                path=paths.CONTROLLER,
                change="deleted" if record is None else "created",
                mzxid=None if stat is None else stat.mzxid,
            )
            changed = self._journal.record("ControllerChanged", cause=cause, controller=named)
        if self._reign is not None and named != self._broker_id:
            await self._resign(f"{paths.CONTROLLER} names {named}")
        if self._reign is None and named in (NO_BROKER, self._broker_id):
            await self._stand(changed)

    async def _stand(self, vacancy: EventId | None) -> None:
        """Stand for election; ``vacancy`` is the event that told of the need, if there was one."""
        assert self._store is not None
        store = self._store
        await wait_for_lease(store, self._has_lease)
        try:
            elected = await store.elect_controller(
                self._broker_id, self._clock.wall_ms(), previous_session=self._previous_session
            )
        except ControllerMoved as moved:
            if moved.current is not None:
                self._controller_id = moved.current.broker_id
            return  # The watch is set: the next vacancy is seen.
        assert self._tasks is not None
        self._controller_id = self._broker_id
        cause = self._journal.record(
            "ControllerElected", cause=vacancy, controller=self._broker_id, controller_epoch=elected.epoch
        )
        self._reign_store = LeasedStore(store, elected.epoch_zk_version, self._has_lease)
        self._reign = Reign(
            self._broker_id,
            elected.epoch,
            config=self._config,
            store=self._reign_store,
            channel=self._channel,
            journal=self._journal,
            chance=self._chance,
            has_lease=self._has_lease,
            validate_topic_config=self._validate_topic_config,
            put=self._queue.put,
            tasks=self._tasks,
            on_unclean_election=self._count_unclean_election,
        )
        with Journal.because(cause):
            await self._reign.begin()

    def _watch(self, store: Store) -> Callable[[str, WatchEvent], None]:
        def fired(path: str, why: WatchEvent) -> None:
            if self._store is store:
                self._queue.put(ControllerChange())

        return fired

    def _count_unclean_election(self) -> None:
        self._unclean_elections += 1

    async def _resign(self, reason: str) -> None:
        """End the reign, if there is one, in memory. `/controller` is left as it is."""
        if self._reign is not None:
            self._ending, self._reign = self._reign, None
        reign = self._ending  # Also one whose end was cut short.
        if reign is None:
            return
        self._handled.set()
        await reign.end()
        self._ending = None
        self._journal.record(
            "ControllerResigned",
            controller=self._broker_id,
            controller_epoch=reign.context.epoch,
            reason=reason,
        )

    async def _session_over(self) -> None:
        await self._resign("the session is over")
        if self._store is not None:
            self._previous_session = self._store.zk.session_id
        self._store = self._reign_store = None
        self._controller_id = NO_BROKER

    async def _stop(self) -> None:
        await self._resign_and_vacate("the broker stops")
        self._store = self._reign_store = None
        self._controller_id = NO_BROKER

    async def _give_up(self, error: Exception) -> None:
        """An error that no rule covers: end the reign and let the next one start from what is there."""
        reason = f"{type(error).__name__}: {error}"
        self._journal.record("ControllerFailed", error=reason)
        await self._resign_and_vacate(reason)
        # Whatever is wrong may be so at once again; others get their chance to be elected first.
        await asyncio.sleep(ELECTION_RETRY_S)
        self._queue.put(ControllerChange())

    async def _resign_and_vacate(self, reason: str) -> None:
        """Resign and delete `/controller`, if that is possible soon; else the session's end does it."""
        was_active, store = self._reign is not None, self._reign_store
        await self._resign(reason)
        if not was_active or store is None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await store.resign()
        except (ControllerMoved, ZooKeeperError, TimeoutError) as error:
            self._journal.record("ControllerNotVacated", error=f"{type(error).__name__}: {error}")


def _unknown_outcome(name: str) -> CreateTopicsResponseTopic:
    return CreateTopicsResponseTopic(name=name, error_code=ErrorCode.NONE)


def _timed_out(topic: CreateTopicsResponseTopic) -> CreateTopicsResponseTopic:
    if topic.error_code:
        return topic
    return CreateTopicsResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        error_code=ErrorCode.REQUEST_TIMED_OUT,
        error_message="the topic may exist, but not every partition is known to have a leader yet",
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        configs=topic.configs,
    )
