"""What the cluster looks like and how it is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kafkalite.common import BrokerId
from kafkalite.edge import ConnectionFailed
from kafkalite.log.config import TOPIC_CONFIGS, LogConfig, format_value
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsTopic
from kafkalite.protocol.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from kafkalite.protocol.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
    DescribeConfigsResponseConfig,
    DescribeConfigsResponseResult,
    DescribeConfigsResponseSynonym,
)
from kafkalite.protocol.errors import (
    BrokerError,
    ErrorCode,
    InvalidRequestError,
    UnknownTopicOrPartitionError,
)
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse, MetadataResponseTopic
from kafkalite.replication.edges import LeaderUnavailable
from kafkalite.server.application import Application, RequestContext, Unavailable
from kafkalite.server.channels import BrokerToBroker
from kafkalite.server.config import BrokerConfig
from kafkalite.server.config.definition import Source
from kafkalite.server.metadata_cache import MetadataCache
from kafkalite.server.topic_configs import TopicConfigs

TOPIC: Final = 2
BROKER: Final = 4


class DescribeApis:
    """Answers from the metadata cache and the configuration; read-only but for auto-creation."""

    def __init__(
        self,
        broker_id: BrokerId,
        config: BrokerConfig,
        metadata: MetadataCache,
        topic_configs: TopicConfigs,
        channel: BrokerToBroker,
    ) -> None:
        self._broker_id = broker_id
        self._config = config
        self._metadata = metadata
        self._topic_configs = topic_configs
        self._channel = channel

    def register(self, application: Application) -> None:
        application.register("metadata", self.metadata)
        application.register("describe_cluster", self.describe_cluster)
        application.register("describe_configs", self.describe_configs)

    async def metadata(self, request: MetadataRequest, context: RequestContext) -> MetadataResponse:
        self._check_told()
        answer = self._metadata.metadata(request.topics, listener=context.listener)
        if request.allow_auto_topic_creation and self._config.auto_create_topics_enable:
            missing = {
                topic.name
                for topic in answer.topics
                if topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and topic.name
            }
            if missing:
                created = await self._create(sorted(missing))
                answer = self._with_created(answer, created)
        return answer

    def _check_told(self) -> None:
        """An empty answer would say that the topics do not exist; another broker knows better."""
        if not self._metadata.is_told:
            raise Unavailable("the controller has not told this broker about the cluster yet")

    async def _create(self, topics: list[str]) -> dict[str, int]:
        """Have the controller create ``topics`` with the defaults; returns each one's error code."""
        request = CreateTopicsRequest(
            topics=[
                CreateTopicsTopic(
                    name=name, num_partitions=-1, replication_factor=-1, assignments=[], configs=[]
                )
                for name in topics
            ],
            timeout_ms=0,
        )
        try:
            answer = await self._channel.create_topics(request)
        except (ConnectionFailed, LeaderUnavailable, BrokerError):
            return dict.fromkeys(topics, ErrorCode.LEADER_NOT_AVAILABLE)
        # Being created, or created by somebody else meanwhile: the asker comes back for the leader.
        soon = (ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT, ErrorCode.TOPIC_ALREADY_EXISTS)
        return {
            topic.name: ErrorCode.LEADER_NOT_AVAILABLE if topic.error_code in soon else topic.error_code
            for topic in answer.topics
        }

    @staticmethod
    def _with_created(answer: MetadataResponse, created: dict[str, int]) -> MetadataResponse:
        return MetadataResponse(
            brokers=answer.brokers,
            cluster_id=answer.cluster_id,
            controller_id=answer.controller_id,
            topics=[
                MetadataResponseTopic(error_code=created[topic.name], name=topic.name, partitions=[])
                if topic.name in created and topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                else topic
                for topic in answer.topics
            ],
        )

    async def describe_cluster(
        self, request: DescribeClusterRequest, context: RequestContext
    ) -> DescribeClusterResponse:
        self._check_told()
        return self._metadata.describe_cluster(listener=context.listener)

    async def describe_configs(
        self, request: DescribeConfigsRequest, context: RequestContext
    ) -> DescribeConfigsResponse:
        return DescribeConfigsResponse(
            throttle_time_ms=0,
            results=[self._describe(resource, request) for resource in request.resources],
        )

    def _describe(
        self, resource: DescribeConfigsResource, request: DescribeConfigsRequest
    ) -> DescribeConfigsResponseResult:
        error: BrokerError | None = None
        configs: list[DescribeConfigsResponseConfig] = []
        try:
            if resource.resource_type == TOPIC:
                configs = self._topic(resource.resource_name)
            elif resource.resource_type == BROKER:
                configs = self._broker(resource.resource_name)
            else:
                raise InvalidRequestError(
                    f"resource_type {resource.resource_type}: "
                    "this version describes topics (2) and brokers (4)"
                )
        except BrokerError as refused:
            error = refused
        wanted = resource.configuration_keys
        return DescribeConfigsResponseResult(
            error_code=ErrorCode.NONE if error is None else error.code,
            error_message=None if error is None else error.message,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
            configs=[
                _shown(config, request) for config in configs if wanted is None or config.name in wanted
            ],
        )

    def _topic(self, topic: str) -> list[DescribeConfigsResponseConfig]:
        if not self._metadata.partition_count(topic):
            raise UnknownTopicOrPartitionError(f"there is no topic {topic}")
        own = self._topic_configs.overrides(topic)
        return [
            _topic_config(name, own, self._topic_configs.defaults, self._config) for name in TOPIC_CONFIGS
        ]

    def _broker(self, name: str) -> list[DescribeConfigsResponseConfig]:
        if name != str(self._broker_id):
            raise InvalidRequestError(
                f"this is broker {self._broker_id}: ask broker {name} for its own configs"
            )
        return [
            DescribeConfigsResponseConfig(
                name=entry.name,
                value=entry.value,
                read_only=entry.is_read_only,
                config_source=entry.source,
                is_sensitive=entry.is_sensitive,
                synonyms=[
                    DescribeConfigsResponseSynonym(name=entry.name, value=entry.value, source=entry.source)
                ],
                config_type=entry.type.value,
                documentation=entry.documentation,
            )
            for entry in self._config.describe()
        ]


def _topic_config(
    name: str, own: Mapping[str, str], defaults: LogConfig, config: BrokerConfig
) -> DescribeConfigsResponseConfig:
    """One topic config with its value here and all that it would fall back to, nearest first."""
    definition = TOPIC_CONFIGS[name]
    synonyms = []
    if name in own:
        synonyms.append(
            DescribeConfigsResponseSynonym(name=name, value=own[name], source=Source.DYNAMIC_TOPIC)
        )
    for server in definition.server_properties:
        if server.name in config.settings:
            synonyms.append(
                DescribeConfigsResponseSynonym(
                    name=server.name, value=config.settings[server.name].text, source=Source.STATIC_BROKER
                )
            )
    default = format_value(definition.default)
    server_name = definition.server_properties[-1].name if definition.server_properties else name
    synonyms.append(DescribeConfigsResponseSynonym(name=server_name, value=default, source=Source.DEFAULT))
    value = own[name] if name in own else defaults.effective.get(name, default)
    return DescribeConfigsResponseConfig(
        name=name,
        value=value,
        read_only=False,
        config_source=synonyms[0].source,
        is_sensitive=False,
        synonyms=synonyms,
        config_type=definition.type.value,
        documentation=definition.doc,
    )


def _shown(
    config: DescribeConfigsResponseConfig, request: DescribeConfigsRequest
) -> DescribeConfigsResponseConfig:
    """Leave out what was not asked for."""
    return DescribeConfigsResponseConfig(
        name=config.name,
        value=config.value,
        read_only=config.read_only,
        config_source=config.config_source,
        is_sensitive=config.is_sensitive,
        synonyms=config.synonyms if request.include_synonyms else [],
        config_type=config.config_type,
        documentation=config.documentation if request.include_documentation else None,
    )
