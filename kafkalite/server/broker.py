"""One broker, from its first step to its last, in Kafka's order.

Start: ZooKeeper session, cluster id, broker id, log directories locked and marked as this
broker's, topic configs, logs loaded and recovered, listeners bound (they answer nothing but
`GET /v1/health` yet), the inter-broker address tried out, registration, controller module,
RUNNING. Stop: controlled shutdown (leaders move away first), listeners closed, logs flushed and
marked clean, resignation, session closed, which removes the registration at once.

Every part is handed what it needs here and nowhere else; this is the one module that knows them
all. What fails at the start is one line that says what to do (:class:`StartFailed`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from controller.config import ControllerConfig
from controller.controller import Controller
from kafkalite.common import (
    INTERNAL_TOPICS,
    Address,
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    Endpoint,
    TopicPartition,
    Uuid,
    new_uuid,
)
from kafkalite.coordinator.group.state import GroupState
from kafkalite.coordinator.runtime import GroupCoordinator
from kafkalite.edge import Clock, ConnectionFailed, Listening, Network, Offload, Transport
from kafkalite.journal import Journal
from kafkalite.log.config import LogConfig
from kafkalite.log.files import DirLocked, Files
from kafkalite.log.manager import LogManager, LogManagerConfig
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest
from kafkalite.protocol.errors import BrokerError, ErrorCode
from kafkalite.replication.edges import LeaderUnavailable, ReplicationConfig
from kafkalite.replication.manager import ReplicaManager
from kafkalite.server import group_metrics, meta_properties
from kafkalite.server.application import Application, BrokerState
from kafkalite.server.channels import BrokerToBroker, ControllerToBroker
from kafkalite.server.config import BrokerConfig
from kafkalite.server.handlers.control import ControlApis
from kafkalite.server.handlers.data import DataApis
from kafkalite.server.handlers.describe import DescribeApis
from kafkalite.server.handlers.groups import ControllerCreatesTopics, GroupApis, group_config
from kafkalite.server.handlers.orders import OrderApis
from kafkalite.server.isr_store import ZooKeeperIsrStore
from kafkalite.server.membership import Membership, MemberState
from kafkalite.server.meta_properties import InconsistentMetaProperties, MetaProperties
from kafkalite.server.metadata_cache import MetadataCache
from kafkalite.server.metrics import BrokerMetrics
from kafkalite.server.producer_ids import ProducerIds
from kafkalite.server.state_change_log import FileSink, StateChangeLog
from kafkalite.server.topic_configs import TopicConfigs
from zk.client import ConnectionLoss, NoAuth, SessionExpired, ZooKeeper, ZooKeeperFactory
from zk.store import BadRecord, BrokerRegistration, DuplicateBroker, Store

_logger = logging.getLogger(__name__)

PROBE_TIMEOUT_MS: Final = 1_000
"""How long a leftover's endpoint has to answer before it counts as dead (DESIGN section 3)."""
LEADS_BACK_TIMEOUT_MS: Final = 5_000
"""How long the broker waits for its own inter-broker address to answer."""
STATE_CHANGE_LOG: Final = "state-change.log"


class StartFailed(Exception):
    """The broker cannot start; the text is one line that says why and what to do."""


class AllLogDirsFailed(Exception):
    """No log directory is left: the broker ends at once, without the clean-shutdown marker."""


class Edges(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a broker touches of the world."""

    clock: Clock
    offload: Offload
    chance: random.Random
    transport: Transport
    network: Network
    files: Files
    connect_zookeeper: ZooKeeperFactory
    host_name: str
    """What is advertised for a listener that binds every interface."""
    owns_process: bool = True
    """Whether this process runs nothing but this broker, so that its CPU and memory are metrics."""


class Identity(msgspec.Struct, frozen=True):
    """Who this broker is, as ZooKeeper, its log directories and its configuration agree."""

    broker_id: BrokerId
    cluster_id: Uuid
    earlier_sessions: tuple[int, ...]
    """ZooKeeper sessions of earlier lives, newest first."""


def _session_ended(error: Exception) -> StartFailed:
    return StartFailed(f"the ZooKeeper session ended during the start: {error}")


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The single exceptions in a group of groups."""
    found: list[BaseException] = []
    for one in group.exceptions:
        found.extend(leaves(one) if isinstance(one, BaseExceptionGroup) else [one])
    return found


async def run_broker(
    config: BrokerConfig,
    edges: Edges,
    stop: asyncio.Event,
    *,
    running: asyncio.Event | None = None,
    observe: Callable[[Broker], None] | None = None,
) -> None:
    """Start a broker, serve until ``stop`` is set, and shut down in order.

    ``running`` is set once it serves; ``observe`` is handed the broker before its first step, by
    who wants to look at its parts. Raises StartFailed; a broker that runs is ended by a fault
    in its controller, ISR or session code, by AllLogDirsFailed, or by membership's Replaced.
    """
    try:
        zk = await edges.connect_zookeeper()
    except (ConnectionLoss, NoAuth, ValueError) as error:
        raise StartFailed(f"zookeeper.connect={config.zookeeper_connect}: {error}") from error
    try:
        identity = await _identify(config, edges, Store(zk))
        broker = Broker(config, edges, identity, zk)
        if observe is not None:
            observe(broker)
        await broker.run(stop, running)
    except (ConnectionLoss, SessionExpired) as error:
        raise _session_ended(error) from error
    except BadRecord as error:
        raise StartFailed(f"ZooKeeper holds what no broker can read: {error}") from error
    finally:
        await zk.close()
        await edges.transport.close()


async def _identify(config: BrokerConfig, edges: Edges, store: Store) -> Identity:
    await store.create_persistent_paths()
    cluster_id = await store.cluster_id(new_uuid(edges.chance))
    configured = BrokerId(config.broker_id) if config.broker_id >= 0 else None
    try:
        found = meta_properties.read(edges.files, config.log_dirs)
        stored = meta_properties.check(found, cluster_id=cluster_id, configured_id=configured)
    except InconsistentMetaProperties as error:
        raise StartFailed(str(error)) from None
    broker_id = configured if configured is not None else stored
    if broker_id is None:
        if not config.broker_id_generation_enable:
            raise StartFailed("broker.id is not set and broker.id.generation.enable is off: set one of them")
        broker_id = await store.generate_broker_id(config.reserved_broker_max_id)
    return Identity(broker_id, cluster_id, tuple(meta_properties.own_sessions(found)))


class Broker:
    """The parts of one broker and the order in which they live. :meth:`run` once."""

    def __init__(self, config: BrokerConfig, edges: Edges, identity: Identity, zk: ZooKeeper) -> None:
        self._config = config
        self._edges = edges
        self._identity = identity
        broker_id, clock = identity.broker_id, edges.clock
        self.journal = Journal(broker_id, clock)
        self._incarnation = new_uuid(edges.chance)
        """Tells this process from another one that answers under the same broker id."""
        self.metrics = BrokerMetrics(process=edges.owns_process)
        self.application = Application(
            broker_id=broker_id, journal=self.journal, metrics=self.metrics, clock=clock
        )
        self.application.cluster_id = identity.cluster_id
        self.application.incarnation = self._incarnation
        self.membership = Membership(
            zk,
            connect=edges.connect_zookeeper,
            earlier_sessions=identity.earlier_sessions,
            clock=clock,
            journal=self.journal,
            remember_sessions=self._remember_sessions,
            answers=self._another_answers,
        )
        self.logs = LogManager(
            edges.files,
            config.log_dirs,
            LogManagerConfig(
                log_defaults=config.log_config,
                num_recovery_threads_per_data_dir=config.num_recovery_threads_per_data_dir,
                log_flush_scheduler_interval_ms=config.log_flush_scheduler_interval_ms,
                log_flush_offset_checkpoint_interval_ms=config.log_flush_offset_checkpoint_interval_ms,
                log_flush_start_offset_checkpoint_interval_ms=(
                    config.log_flush_start_offset_checkpoint_interval_ms
                ),
                log_retention_check_interval_ms=config.log_retention_check_interval_ms,
                producer_id_expiration_ms=config.producer_id_expiration_ms,
                producer_id_expiration_check_interval_ms=config.producer_id_expiration_check_interval_ms,
            ),
            clock=clock,
            offload=edges.offload,
            journal=self.journal,
            chance=edges.chance,
            on_dir_failure=self._on_dir_failure,
        )
        self.topic_configs = TopicConfigs(
            config.log_config, clock=clock, journal=self.journal, on_change=self._on_topic_config
        )
        self.metadata = MetadataCache(identity.cluster_id)
        self._peers = BrokerToBroker(
            edges.transport,
            self.metadata,
            broker_id=broker_id,
            listener=config.inter_broker_listener_name,
            timeout_ms=config.replica_socket_timeout_ms,
        )
        self.replicas = ReplicaManager(
            ReplicationConfig(
                broker_id=broker_id,
                replica_lag_time_max_ms=config.replica_lag_time_max_ms,
                replica_fetch_min_bytes=config.replica_fetch_min_bytes,
                replica_fetch_max_bytes=config.replica_fetch_max_bytes,
                replica_fetch_response_max_bytes=config.replica_fetch_response_max_bytes,
                replica_fetch_wait_max_ms=config.replica_fetch_wait_max_ms,
                replica_fetch_backoff_ms=config.replica_fetch_backoff_ms,
                replica_high_watermark_checkpoint_interval_ms=(
                    config.replica_high_watermark_checkpoint_interval_ms
                ),
                num_replica_fetchers=config.num_replica_fetchers,
                fetch_max_bytes=config.fetch_max_bytes,
                max_incremental_fetch_session_cache_slots=config.max_incremental_fetch_session_cache_slots,
            ),
            logs=self.logs,
            log_config=self.topic_configs.config,
            isr_store=ZooKeeperIsrStore(lambda: self.membership.store),
            leader_channel=self._peers,
            brokers=self.metadata,
            has_lease=self.membership.has_lease,
            journal=self.journal,
            clock=clock,
            offload=edges.offload,
            chance=edges.chance,
            on_partition_failed=self._on_partition_failed,
        )
        self.groups = GroupCoordinator(
            group_config(config),
            log=self.replicas.internal,
            cluster=self.metadata,
            topics=ControllerCreatesTopics(self._peers),
            clock=clock,
            offload=edges.offload,
            journal=self.journal,
            chance=edges.chance,
        )
        self.controller = Controller(
            broker_id,
            ControllerConfig(
                num_partitions=config.num_partitions,
                default_replication_factor=config.default_replication_factor,
                unclean_leader_election_enable=config.unclean_leader_election_enable,
                auto_leader_rebalance_enable=config.auto_leader_rebalance_enable,
                leader_imbalance_check_interval_seconds=config.leader_imbalance_check_interval_seconds,
                leader_imbalance_per_broker_percentage=config.leader_imbalance_per_broker_percentage,
                controller_socket_timeout_ms=config.controller_socket_timeout_ms,
                delete_topic_enable=config.delete_topic_enable,
                inter_broker_listener_name=config.inter_broker_listener_name,
            ),
            ControllerToBroker(
                edges.transport, broker_id=broker_id, listener=config.inter_broker_listener_name
            ),
            self.journal,
            clock,
            edges.chance,
            self.membership.has_lease,
            self._validate_topic_config,
        )
        producer_ids = ProducerIds(broker_id, self._peers, lambda: self.membership.epoch)
        DataApis(self.replicas, producer_ids).register(self.application)
        OrderApis(
            self.replicas, self.metadata, self.topic_configs, self.membership, self.groups.topics_deleted
        ).register(self.application)
        ControlApis(self.controller).register(self.application)
        GroupApis(self.groups, self.metadata).register(self.application)
        DescribeApis(broker_id, config, self.metadata, self.topic_configs, self._peers).register(
            self.application
        )
        self._register_gauges()
        self._listening: dict[str, Listening] = {}
        self._failures = asyncio.Event()
        """Set when a log directory or partition failed and the controller is to be told."""
        self._all_dirs_failed = asyncio.Event()

    # ---- the whole life ----

    async def run(self, stop: asyncio.Event, running: asyncio.Event | None = None) -> None:
        """Start, serve until ``stop`` is set, and shut down in order."""
        try:
            await self._prepare()
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self.logs.run(), name="logs"),
                    tasks.create_task(self.replicas.run(), name="replicas"),
                    tasks.create_task(self.groups.run(), name="group-coordinator"),
                    tasks.create_task(self.topic_configs.run(), name="topic-configs"),
                    tasks.create_task(self._report_failures(), name="failure-reports"),
                    tasks.create_task(self._end_without_log_dirs(), name="log-dir-watch"),
                ]
                controlling = tasks.create_task(self.controller.run(), name="controller")
                await self._join()
                beside.append(tasks.create_task(self.membership.run(self), name="membership"))
                self._enter(BrokerState.RUNNING)
                if running is not None:
                    running.set()
                await stop.wait()
                await self._controlled_shutdown()
                self._enter(BrokerState.SHUTTING_DOWN)
                await self._close_listeners()
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)
                await self.logs.close()
                await self.controller.shutdown()
                await controlling
                await self.membership.close()
        except BaseExceptionGroup as group:
            # The registration is refused while the tasks beside it run already.
            refusals = [one for one in leaves(group) if isinstance(one, StartFailed)]
            if refusals:
                raise refusals[0] from None
            raise
        finally:
            await self._close_listeners()
            await self.logs.close(clean=False)
            self._enter(BrokerState.NOT_RUNNING)

    def _enter(self, state: BrokerState) -> None:
        if state is not self.application.state:
            self.journal.record("BrokerStateChanged", before=self.application.state.name, after=state.name)
            self.application.state = state

    # ---- start ----

    async def _prepare(self) -> None:
        """Everything before the registration: directories, configs, logs, listeners."""
        self._enter(BrokerState.STARTING)
        for warning in self._config.warnings:
            _logger.warning("%s", warning)
        try:
            await self.logs.lock_dirs()
        except DirLocked as error:
            raise StartFailed(str(error)) from None
        self._keep_state_change_log()
        self.journal.subscribe(self.metrics.journal_event)
        store = self.membership.opened
        await self.topic_configs.load(store)
        self._enter(BrokerState.RECOVERY)
        await self.logs.start(self.topic_configs.all())
        if not self.logs.online_dirs:
            raise StartFailed(
                f"no directory of log.dirs={','.join(self._config.log_dirs)} can be used: "
                "see the log for what each of them answered"
            )
        await self._bind()
        await self._check_advertised(store)

    def _keep_state_change_log(self) -> None:
        online = self.logs.online_dirs
        if online:
            sink = FileSink(self._edges.files, f"{online[0]}/{STATE_CHANGE_LOG}")
            self.journal.subscribe(StateChangeLog(sink, size=sink.size).write)

    async def _bind(self) -> None:
        for endpoint in self._config.listeners:
            try:
                self._listening[endpoint.listener] = await self._edges.network.listen(
                    endpoint.host,
                    endpoint.port,
                    listener=endpoint.listener,
                    handler=self.application,
                    max_body_bytes=self._config.socket_request_max_bytes,
                )
            except OSError as error:
                raise StartFailed(
                    f"listener {endpoint} cannot be bound: {error.strerror or error}; "
                    "free the port or change listeners"
                ) from error

    def _advertised(self) -> Sequence[Endpoint]:
        ports = {name: listening.port for name, listening in self._listening.items()}
        return self._config.advertise(ports, self._edges.host_name)

    async def _check_advertised(self, store: Store) -> None:
        """Refuse an address that is another broker's, or over which the peers would not get here."""
        mine = self._identity.broker_id
        others = await store.live_brokers()
        for endpoint in self._advertised():
            for broker in others.values():
                taken = [one for one in broker.endpoints if one.address == endpoint.address]
                if taken and broker.broker_id != mine:
                    raise StartFailed(
                        f"{endpoint} is registered by broker {broker.broker_id} already: "
                        "give this broker an address of its own in advertised.listeners"
                    )
            problem = await self._leads_back(endpoint.address)
            if problem is None:
                continue
            if endpoint.listener == self._config.inter_broker_listener_name:
                raise StartFailed(
                    f"the inter-broker address {endpoint} does not lead back to this broker ({problem}), "
                    "so no other broker could reach it: correct advertised.listeners"
                )
            _logger.warning(
                "the advertised address %s does not lead back to this broker (%s): "
                "clients that are told it may not get here",
                endpoint,
                problem,
            )

    async def _leads_back(self, address: Address) -> str | None:
        """None where ``address`` leads to this very process, else what is wrong with it."""
        health = await self._health(address, LEADS_BACK_TIMEOUT_MS)
        if isinstance(health, str):
            return health
        if health.get("incarnation") != self._incarnation:
            return f"broker {health.get('broker_id')} answers there"
        return None

    async def _health(self, address: Address, timeout_ms: int) -> dict[str, object] | str:
        try:
            reply = await self._edges.transport.ask(
                address, "GET", "/v1/health", headers={}, lane="health", timeout_ms=timeout_ms
            )
            health = json.loads(b"".join(bytes(piece) for piece in reply.body))
        except ConnectionFailed as error:
            return error.reason
        except ValueError:
            return "what answers there is no kafkalite broker"
        return health if isinstance(health, dict) else "what answers there is no kafkalite broker"

    async def _another_answers(self, broker: BrokerInfo) -> bool:
        """Tell whether another process answers as ``broker`` at one of its endpoints."""
        for endpoint in broker.endpoints:
            health = await self._health(endpoint.address, PROBE_TIMEOUT_MS)
            if (
                not isinstance(health, str)
                and health.get("broker_id") == broker.broker_id
                and health.get("incarnation") != self._incarnation
            ):
                return True
        return False

    async def _remember_sessions(self, sessions: Sequence[int]) -> None:
        properties = MetaProperties(self._identity.broker_id, self._identity.cluster_id, tuple(sessions))
        for directory in self.logs.dirs:
            if directory.is_online:
                try:
                    await self._edges.offload.run(
                        meta_properties.write, self._edges.files, directory.path, properties
                    )
                except OSError as error:
                    directory.failed(error, f"writing {meta_properties.FILE_NAME}")

    async def _join(self) -> None:
        registration = BrokerRegistration(
            self._identity.broker_id,
            tuple(self._advertised()),
            rack=self._config.broker_rack,
            timestamp_ms=self._edges.clock.wall_ms(),
        )
        try:
            epoch = await self.membership.register(registration)
            await self.membership_gained(self.membership.opened, epoch)
        except DuplicateBroker as error:
            raise StartFailed(
                f"{error}: stop that broker, or give this one another broker.id "
                "(if that broker is dead, its registration ends with its session)"
            ) from None
        except (ConnectionLoss, SessionExpired) as error:
            raise _session_ended(error) from error

    # ---- membership ----

    async def membership_lost(self) -> None:
        """The session, or the registration, is gone: nothing is acknowledged or ruled any more."""
        self.application.has_broker_epoch = False
        self.replicas.session_lost()
        await self.controller.session_lost()

    async def membership_gained(self, store: Store, epoch: BrokerEpoch) -> None:
        """Take part again under a new registration."""
        await self.topic_configs.load(store)
        self.replicas.registered(epoch)
        self.application.has_broker_epoch = True
        previous = self.membership.previous_sessions
        self.controller.session_started(store, epoch, previous_session=previous[0] if previous else None)

    # ---- failures of disks ----

    def _on_dir_failure(self, directory: str) -> None:
        self.replicas.log_dir_failed(directory)
        if self.logs.online_dirs:
            self._failures.set()
        else:
            self._all_dirs_failed.set()

    def _on_partition_failed(self, partition: TopicPartition) -> None:
        self._failures.set()

    async def _report_failures(self) -> None:
        """Tell the controller through ZooKeeper that replicas here went offline."""
        while True:
            await self._failures.wait()
            self._failures.clear()
            store = self.membership.store
            try:
                if store is not None:
                    await store.publish_log_dir_event(self._identity.broker_id)
                    continue
            except SessionExpired:
                pass  # What ends with the session has yet to hear of it: this must not keep the loop from it.
            self._failures.set()
            await asyncio.sleep(PROBE_TIMEOUT_MS / 1000)

    async def _end_without_log_dirs(self) -> None:
        await self._all_dirs_failed.wait()
        raise AllLogDirsFailed("every log directory has failed; see the journal for what each answered")

    # ---- configs ----

    def _on_topic_config(self, topic: str, config: LogConfig) -> None:
        for log in self.logs.logs():
            if log.topic_partition.topic == topic:
                log.config = config  # A log that no leader_and_isr has named yet is no replica.
        self.replicas.update_log_config(topic, config)

    def _validate_topic_config(self, topic: str, config: dict[str, str | None]) -> None:
        LogConfig.parse(
            {name: value for name, value in config.items() if value is not None},
            self._config.log_config,
            is_internal=topic in INTERNAL_TOPICS,
        )

    # ---- stop ----

    async def _controlled_shutdown(self) -> None:
        """Have the controller move this broker's leaders away, as often as the config allows."""
        if not self._config.controlled_shutdown_enable:
            return
        self._enter(BrokerState.PENDING_CONTROLLED_SHUTDOWN)
        for attempt in range(1, self._config.controlled_shutdown_max_retries + 1):
            epoch = self.membership.epoch
            problem = "this broker is not registered at the moment"
            if epoch is not None:
                request = ControlledShutdownRequest(broker_id=self._identity.broker_id, broker_epoch=epoch)
                try:
                    answer = await self._peers.controlled_shutdown(request)
                except (ConnectionFailed, LeaderUnavailable, BrokerError) as error:
                    problem = str(error)
                else:
                    if answer.error_code == ErrorCode.NONE and not answer.remaining_partitions:
                        self.journal.record("ControlledShutdownFinished", attempts=attempt)
                        return
                    problem = (
                        f"{ErrorCode(answer.error_code).name}, "
                        f"{len(answer.remaining_partitions)} partitions still led here"
                    )
            _logger.warning("controlled shutdown, attempt %d: %s", attempt, problem)
            if attempt < self._config.controlled_shutdown_max_retries:
                await asyncio.sleep(self._config.controlled_shutdown_retry_backoff_ms / 1000)
        self.journal.record("ControlledShutdownFailed", attempts=attempt)
        _logger.warning("stopping without having moved all leaders away")

    async def _close_listeners(self) -> None:
        listening = list(self._listening.values())
        self._listening.clear()
        for one in listening:
            await one.close()
        # What a client that has left set going must not go on beside the logs' closing.
        await self.application.close()

    # ---- metrics ----

    def _register_gauges(self) -> None:
        replicas, controller, metrics = self.replicas, self.controller, self.metrics
        metrics.topic_counters(lambda: replicas.topic_counters)
        metrics.gauge("UnderReplicatedPartitions", lambda: replicas.under_replicated_partitions)
        metrics.gauge("UnderMinIsrPartitionCount", lambda: replicas.under_min_isr_partitions)
        metrics.gauge("AtMinIsrPartitionCount", lambda: replicas.at_min_isr_partitions)
        metrics.gauge("OfflineReplicaCount", lambda: replicas.offline_replica_count)
        metrics.gauge("LeaderCount", lambda: replicas.leader_count)
        metrics.gauge("PartitionCount", lambda: replicas.partition_count)
        metrics.gauge("FailedPartitionsCount", lambda: replicas.failed_follower_partitions)
        metrics.gauge("MaxLag", lambda: replicas.max_lag)
        metrics.gauge("BrokerState", lambda: self.application.state)
        metrics.gauge("ActiveControllerCount", lambda: controller.active_controller_count)
        metrics.gauge("OfflinePartitionsCount", lambda: controller.offline_partitions_count)
        metrics.gauge("PreferredReplicaImbalanceCount", lambda: controller.preferred_replica_imbalance_count)
        metrics.gauge("GlobalTopicCount", lambda: controller.global_topic_count)
        metrics.gauge("GlobalPartitionCount", lambda: controller.global_partition_count)
        metrics.gauge("TopicsToDeleteCount", lambda: controller.topics_to_delete_count)
        metrics.gauge("TopicsIneligibleToDeleteCount", lambda: controller.topics_ineligible_to_delete_count)
        metrics.counter("UncleanLeaderElectionsPerSec", lambda: controller.unclean_elections_total)
        metrics.gauge("ActiveBrokerCount", lambda: controller.active_broker_count)
        metrics.gauge("FencedBrokerCount", lambda: controller.fenced_broker_count)
        metrics.gauge("EventQueueSize", lambda: controller.event_queue_size)
        metrics.gauge("TotalQueueSize", lambda: controller.total_queue_size)
        metrics.gauge("OfflineLogDirectoryCount", lambda: len(self.logs.offline_dirs))
        metrics.gauge("NumIncrementalFetchSessions", lambda: replicas.fetch_sessions)
        metrics.gauge("PurgatorySize", lambda: replicas.delayed_requests)
        metrics.gauge("FrozenPartitionCount", lambda: replicas.frozen_partitions)
        metrics.gauge("IsrChangesInFlight", lambda: replicas.isr_changes_in_flight)
        groups = self.groups
        metrics.gauge("NumOffsets", lambda: groups.offset_count)
        metrics.gauge("NumGroups", lambda: sum(groups.count_groups().values()))
        for state in (
            GroupState.EMPTY,
            GroupState.PREPARING_REBALANCE,
            GroupState.COMPLETING_REBALANCE,
            GroupState.STABLE,
        ):
            metrics.gauge(f"NumGroups{state.value}", partial(_count_groups, groups, state))
        metrics.families(lambda: group_metrics.families(groups))
        metrics.gauge("ZooKeeperSessionConnected", lambda: self.membership.state is MemberState.CONNECTED)


def _count_groups(groups: GroupCoordinator, state: GroupState) -> int:
    return groups.count_groups()[state]
