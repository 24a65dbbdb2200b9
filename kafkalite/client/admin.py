"""Administering a cluster: creating and describing topics, configs, brokers and offsets.

What only the controller may do goes to the broker that metadata names as controller, and is tried
again elsewhere when that one answers NOT_CONTROLLER. Every call has a time limit; what ran out of
it says what it was waiting for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from kafkalite.client.background import Background
from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.errors import ClientClosedError, ClusterUnreachableError
from kafkalite.client.group.admin import GroupAdmin
from kafkalite.client.metadata import NO_NODE, Node, PartitionInfo
from kafkalite.client.offsets import EARLIEST, LATEST, FoundOffset, list_offsets
from kafkalite.common import TopicPartition, Uuid
from kafkalite.edge import Clock, ConnectionFailed, SystemClock, Transport, system_random
from kafkalite.protocol.create_topics import (
    CreateTopicsAssignment,
    CreateTopicsConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
    CreateTopicsTopic,
)
from kafkalite.protocol.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from kafkalite.protocol.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse, MetadataTopic
from kafkalite.transport import rpc
from kafkalite.transport.http import HttpTransport

T = TypeVar("T")

SPREAD_TIMEOUT_MS: Final = 3000
"""How long a creation waits for brokers that have not heard of it."""


class NewTopic(msgspec.Struct, frozen=True):
    """A topic to be created."""

    name: str
    num_partitions: int = -1
    """-1: the broker's `num.partitions`."""
    replication_factor: int = -1
    """-1: the broker's `default.replication.factor`."""
    replica_assignments: Mapping[int, Sequence[int]] = msgspec.field(default_factory=dict)
    """The replicas of each partition, the preferred leader first; excludes the two above."""
    topic_configs: Mapping[str, str | None] = msgspec.field(default_factory=dict)


class CreatedTopic(msgspec.Struct, frozen=True):
    """A topic as the controller created it."""

    name: str
    topic_id: Uuid
    num_partitions: int
    replication_factor: int
    configs: Mapping[str, str | None]


class TopicDescription(msgspec.Struct, frozen=True):
    """A topic and its partitions, in order."""

    name: str
    topic_id: Uuid
    is_internal: bool
    partitions: tuple[PartitionInfo, ...]


class ClusterDescription(msgspec.Struct, frozen=True):
    """The live brokers and who among them is the controller."""

    cluster_id: str
    controller_id: int | None
    brokers: tuple[Node, ...]


class ConfigResourceType(IntEnum):
    """Kafka's numbers of what can be configured."""

    TOPIC = 2
    BROKER = 4


class ConfigResource(msgspec.Struct, frozen=True):
    """A topic by its name, or a broker by its id written as text."""

    resource_type: ConfigResourceType
    name: str


class ConfigSource(IntEnum):
    """Where a value comes from; Kafka's numbers."""

    UNKNOWN = 0
    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6


class ConfigSynonym(msgspec.Struct, frozen=True):
    """One of the places that a value could come from, the one that counts first."""

    name: str
    value: str | None
    source: ConfigSource


class ConfigEntry(msgspec.Struct, frozen=True):
    """One effective config."""

    name: str
    value: str | None
    """None also where the value is sensitive."""
    source: ConfigSource
    is_read_only: bool
    is_sensitive: bool
    synonyms: tuple[ConfigSynonym, ...] = ()
    documentation: str | None = None

    @property
    def is_default(self) -> bool:
        """Whether nobody set it."""
        return self.source == ConfigSource.DEFAULT_CONFIG


class OffsetSpec(IntEnum):
    """Which offset :meth:`AdminClient.list_offsets` looks for; any other int is a timestamp in ms."""

    LATEST = LATEST
    """The high watermark: the offset that the next readable record will have."""
    EARLIEST = EARLIEST
    """The log start offset."""
    MAX_TIMESTAMP = -3
    """The offset of the record with the largest timestamp."""


class AdminClient(GroupAdmin):
    """Administers a cluster; use it as ``async with AdminClient(...) as admin``.

    Errors of the cluster are raised as the classes named after them (TopicAlreadyExistsError, …).
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str] = "localhost:9092",
        client_id: str = "kafkalite-admin",
        request_timeout_ms: int = 30_000,
        default_api_timeout_ms: int = 60_000,
        retry_backoff_ms: int = 100,
        retry_backoff_max_ms: int = 1000,
        metadata_max_age_ms: int = 300_000,
        transport: Transport | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Connect to nothing yet.

        ``default_api_timeout_ms`` bounds each call as a whole, ``request_timeout_ms`` each request.
        ``transport``, ``clock`` and ``chance`` replace the network, time and entropy in simulations.
        """
        self._timeout_ms = default_api_timeout_ms
        self._cluster = Cluster(
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            transport=transport or HttpTransport(),
            clock=clock or SystemClock(),
            chance=chance or system_random(),
            request_timeout_ms=request_timeout_ms,
            metadata_max_age_ms=metadata_max_age_ms,
            retry_backoff_ms=retry_backoff_ms,
            retry_backoff_max_ms=retry_backoff_max_ms,
            allow_auto_create_topics=False,
        )
        self._fault: BaseException | None = None
        self._background = Background("admin", self._failed)

    async def start(self) -> None:
        """Find the cluster.

        Raises ClusterUnreachableError when no bootstrap address answers; it may then be tried again.
        """
        await self._cluster.begin(self._background)
        self._background.spawn(self._cluster.keep_fresh(), "metadata")

    async def stop(self) -> None:
        """Close the connections."""
        await self._background.stop()
        await self._cluster.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _failed(self, fault: BaseException) -> None:
        self._fault = fault

    # --- Topics --------------------------------------------------------------------------------

    async def create_topics(
        self, new_topics: Iterable[NewTopic], *, timeout_ms: int | None = None, validate_only: bool = False
    ) -> dict[str, CreatedTopic]:
        """Create topics, or with ``validate_only`` find out whether they could be.

        Returns when the controller has decided (the partitions have leaders, unless it ran into
        ``timeout_ms``) and, as far as they answer soon, all brokers know of it: so whoever is asked
        next about a new topic does not deny it.

        Raises the error of the topic that failed; where several did, an ExceptionGroup of theirs. The
        others are created all the same.
        """
        topics = list(new_topics)
        limit_ms = timeout_ms if timeout_ms is not None else self._timeout_ms
        created: dict[str, CreatedTopic] = {}
        errors: dict[str, BrokerError] = {}

        async def attempt(node: Node) -> None:
            pending = [t for t in topics if t.name not in created and t.name not in errors]
            request = CreateTopicsRequest(
                topics=[_creatable(topic) for topic in pending],
                timeout_ms=min(limit_ms, self._cluster.request_timeout_ms),
                validate_only=validate_only,
            )
            answer = await self._cluster.ask(
                node,
                request,
                CreateTopicsResponse,
                lane="control",
                timeout_ms=min(limit_ms, self._cluster.request_timeout_ms),
            )
            for topic in answer.topics:
                if topic.error_code == ErrorCode.NONE:
                    created[topic.name] = CreatedTopic(
                        topic.name,
                        topic.topic_id,
                        topic.num_partitions,
                        topic.replication_factor,
                        {config.name: config.value for config in topic.configs},
                    )
                    continue
                error = error_for(topic.error_code, topic.error_message or f"topic {topic.name!r}")
                if error.code == ErrorCode.NOT_CONTROLLER:
                    raise error
                errors[topic.name] = error

        await self._at_controller(attempt, "topics could not be created", limit_ms)
        if created and not validate_only:
            await self._spread(created)
        if len(errors) == 1:
            raise next(iter(errors.values()))
        if errors:
            raise ExceptionGroup("some topics could not be created", list(errors.values()))
        return created

    async def _spread(self, topics: Iterable[str]) -> None:
        """Wait, but not for long, until every broker that can be reached knows ``topics``."""
        request = MetadataRequest(
            topics=[MetadataTopic(name=name) for name in topics], allow_auto_topic_creation=False
        )

        async def ask(node: Node) -> None:
            while True:
                try:
                    answer = await self._cluster.ask(
                        node, request, MetadataResponse, lane="control", timeout_ms=SPREAD_TIMEOUT_MS
                    )
                except (ConnectionFailed, rpc.RequestRefused):
                    return  # It will hear of the topics when it is back.
                if all(topic.error_code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION for topic in answer.topics):
                    return
                await asyncio.sleep(0.02)

        try:
            async with asyncio.timeout(SPREAD_TIMEOUT_MS / 1000), asyncio.TaskGroup() as tasks:
                for node in self._cluster.metadata.nodes.values():
                    tasks.create_task(ask(node))
        except TimeoutError:
            pass  # The topics exist; a broker that is behind is no reason to say anything else.

    async def list_topics(self) -> list[str]:
        """The names of all topics, internal ones included, sorted."""
        answer = await self._any(MetadataRequest(topics=None, allow_auto_topic_creation=False))
        return sorted(topic.name for topic in answer.topics if topic.name is not None)

    async def describe_topics(self, topics: Iterable[str] | None = None) -> list[TopicDescription]:
        """Describe ``topics`` in their order, or all there are by name.

        Raises UnknownTopicOrPartitionError for one that does not exist.
        """
        names = None if topics is None else list(dict.fromkeys(topics))
        request = MetadataRequest(
            topics=None if names is None else [MetadataTopic(name=name) for name in names],
            allow_auto_topic_creation=False,
        )
        answer = await self._any(request)
        found = {}
        for topic in answer.topics:
            code = ErrorCode(topic.error_code)
            if code not in (ErrorCode.NONE, ErrorCode.LEADER_NOT_AVAILABLE):
                raise error_for(code, f"topic {topic.name!r}")
            if topic.name is None:
                continue
            partitions = tuple(
                PartitionInfo(
                    p.partition_index,
                    p.leader_id,
                    p.leader_epoch,
                    tuple(p.replica_nodes),
                    tuple(p.isr_nodes),
                    tuple(p.offline_replicas),
                )
                for p in sorted(topic.partitions, key=lambda p: p.partition_index)
            )
            found[topic.name] = TopicDescription(topic.name, topic.topic_id, topic.is_internal, partitions)
        return [found[name] for name in (sorted(found) if names is None else names)]

    async def list_offsets(
        self,
        partitions: Mapping[TopicPartition, int],
        *,
        isolation_level: int = 0,
        timeout_ms: int | None = None,
    ) -> dict[TopicPartition, FoundOffset]:
        """Ask each partition's leader for the offset that an OffsetSpec or a timestamp (ms) stands for.

        An offset of -1 says that no record is that young. Raises ClientTimeoutError and the leaders' errors.
        """
        self._check()
        limit_ms = timeout_ms if timeout_ms is not None else self._timeout_ms
        return await list_offsets(
            self._cluster, partitions, isolation_level=isolation_level, timeout_ms=limit_ms
        )

    # --- Cluster and configs -------------------------------------------------------------------

    async def describe_cluster(self) -> ClusterDescription:
        """Describe the cluster as one broker knows it."""
        request = DescribeClusterRequest(include_cluster_authorized_operations=False)

        async def attempt() -> ClusterDescription:
            answer = await self._cluster.ask_any(request, DescribeClusterResponse)
            if answer.error_code != ErrorCode.NONE:
                raise error_for(answer.error_code, answer.error_message or "describe_cluster")
            brokers = tuple(Node(b.broker_id, b.host, b.port, b.rack) for b in answer.brokers)
            controller = answer.controller_id if answer.controller_id != NO_NODE else None
            return ClusterDescription(answer.cluster_id, controller, brokers)

        return await self._until(attempt, "the cluster could not be described", self._timeout_ms)

    async def describe_configs(
        self,
        config_resources: Iterable[ConfigResource],
        *,
        names: Sequence[str] | None = None,
        include_synonyms: bool = False,
        include_documentation: bool = False,
    ) -> dict[ConfigResource, dict[str, ConfigEntry]]:
        """Return the effective configs of topics and brokers, by name; ``names`` picks some.

        A broker is asked for its own, any broker for a topic's. Raises the error of the resource that failed.
        """
        topics, by_broker = [], {}
        for resource in dict.fromkeys(config_resources):
            if resource.resource_type == ConfigResourceType.BROKER and resource.name:
                by_broker[resource] = int(resource.name)
            else:
                topics.append(resource)

        def request(resources: Iterable[ConfigResource]) -> DescribeConfigsRequest:
            return DescribeConfigsRequest(
                resources=[
                    DescribeConfigsResource(
                        resource_type=int(r.resource_type),
                        resource_name=r.name,
                        configuration_keys=None if names is None else list(names),
                    )
                    for r in resources
                ],
                include_synonyms=include_synonyms,
                include_documentation=include_documentation,
            )

        found: dict[ConfigResource, dict[str, ConfigEntry]] = {}

        async def ask_any() -> None:
            found.update(_configs(await self._cluster.ask_any(request(topics), DescribeConfigsResponse)))

        if topics:
            await self._until(ask_any, "configs could not be described", self._timeout_ms)
        for resource, broker_id in by_broker.items():

            async def ask_one(resource: ConfigResource = resource, broker_id: int = broker_id) -> None:
                node = self._cluster.metadata.nodes.get(broker_id)
                if node is None:
                    await self._cluster.refreshed()
                    node = self._cluster.metadata.nodes.get(broker_id)
                if node is None:
                    raise error_for(ErrorCode.BROKER_NOT_AVAILABLE, f"broker {broker_id} is not registered")
                answer = await self._cluster.ask(
                    node,
                    request([resource]),
                    DescribeConfigsResponse,
                    lane="control",
                    timeout_ms=self._cluster.request_timeout_ms,
                )
                found.update(_configs(answer))

            await self._until(ask_one, f"no answer from broker {broker_id}", self._timeout_ms)
        return found

    # --- Trying again --------------------------------------------------------------------------

    def _check(self) -> None:
        if self._fault is not None:
            raise ClientClosedError("the admin client has failed") from self._fault
        if not self._background.is_running:
            raise ClientClosedError("the admin client is not started")

    async def _any(self, request: MetadataRequest) -> MetadataResponse:
        async def attempt() -> MetadataResponse:
            return await self._cluster.ask_any(request, MetadataResponse)

        return await self._until(attempt, "no metadata", self._timeout_ms)

    async def _at_controller(
        self, attempt: Callable[[Node], Awaitable[None]], what: str, limit_ms: float
    ) -> None:
        async def at_controller() -> None:
            metadata = self._cluster.metadata
            node = metadata.nodes.get(metadata.controller_id)
            if node is None:
                await self._cluster.refreshed()
                node = metadata.nodes.get(metadata.controller_id)
            if node is None:
                raise error_for(ErrorCode.NOT_CONTROLLER, "the cluster has no controller at the moment")
            try:
                await attempt(node)
            except (BrokerError, ConnectionFailed, rpc.RequestRefused):
                self._cluster.request_refresh()
                raise

        await self._until(at_controller, what, limit_ms)

    async def _until(self, attempt: Callable[[], Awaitable[T]], what: str, limit_ms: float) -> T:
        """Repeat ``attempt`` after retriable failures; when time is over, raise the last one."""
        self._check()
        cluster = self._cluster
        last: Exception | None = None
        failures = 0
        try:
            async with asyncio.timeout(limit_ms / 1000):
                while True:
                    try:
                        return await attempt()
                    except BrokerError as error:
                        if not error.retriable:
                            raise
                        last = error
                    except rpc.RequestRefused as error:
                        if error.status != 503:
                            raise
                        last = error
                    except ConnectionFailed as error:
                        last = error
                    except ClusterUnreachableError as error:
                        last = error
                    failures += 1
                    wait = backoff_ms(
                        failures, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, cluster.chance
                    )
                    await asyncio.sleep(wait / 1000)
        except TimeoutError:
            if isinstance(last, BrokerError):
                raise last from None
            if last is not None:
                raise cluster.unreachable(f"{what} within {limit_ms:g} ms") from last
            cluster.raise_timeout(what, limit_ms)
            raise


def _creatable(topic: NewTopic) -> CreateTopicsTopic:
    by_hand = bool(topic.replica_assignments)
    return CreateTopicsTopic(
        name=topic.name,
        num_partitions=-1 if by_hand else topic.num_partitions,
        replication_factor=-1 if by_hand else topic.replication_factor,
        assignments=[
            CreateTopicsAssignment(partition_index=index, broker_ids=list(replicas))
            for index, replicas in sorted(topic.replica_assignments.items())
        ],
        configs=[
            CreateTopicsConfig(name=name, value=value) for name, value in sorted(topic.topic_configs.items())
        ],
    )


def _configs(answer: DescribeConfigsResponse) -> dict[ConfigResource, dict[str, ConfigEntry]]:
    found = {}
    for result in answer.results:
        resource = ConfigResource(ConfigResourceType(result.resource_type), result.resource_name)
        if result.error_code != ErrorCode.NONE:
            raise error_for(result.error_code, result.error_message or f"{resource}")
        found[resource] = {
            config.name: ConfigEntry(
                config.name,
                config.value,
                ConfigSource(max(config.config_source, 0)),
                config.read_only,
                config.is_sensitive,
                tuple(
                    ConfigSynonym(s.name, s.value, ConfigSource(max(s.source, 0))) for s in config.synonyms
                ),
                config.documentation,
            )
            for config in result.configs
        }
    return found
