"""Consumer groups: requests to the group coordinator, and where to find it."""

from __future__ import annotations

from typing import Final

from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.group.group import Client
from kafkalite.coordinator.runtime import GroupCoordinator
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.compression import Compression
from kafkalite.protocol.create_topics import CreateTopicsConfig, CreateTopicsRequest, CreateTopicsTopic
from kafkalite.protocol.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from kafkalite.protocol.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from kafkalite.protocol.errors import (
    BrokerError,
    CoordinatorNotAvailableError,
    ErrorCode,
    InvalidRequestError,
    error_for,
)
from kafkalite.protocol.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest, HeartbeatResponse
from kafkalite.protocol.join_group import JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupRequest, LeaveGroupResponse
from kafkalite.protocol.list_groups import ListGroupsRequest, ListGroupsResponse
from kafkalite.protocol.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from kafkalite.protocol.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from kafkalite.protocol.offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from kafkalite.protocol.sync_group import SyncGroupRequest, SyncGroupResponse
from kafkalite.replication.edges import LeaderUnavailable
from kafkalite.server.application import Application, RequestContext
from kafkalite.server.channels import BrokerToBroker
from kafkalite.server.config import BrokerConfig
from kafkalite.server.metadata_cache import MetadataCache

GROUP: Final = 0
TRANSACTION: Final = 1

CREATION_TIMEOUT_MS: Final = 10_000
"""How long the controller may take until `__consumer_offsets` can be led."""


def group_config(config: BrokerConfig) -> GroupConfig:
    """What of a broker's configuration concerns groups."""
    return GroupConfig(
        group_min_session_timeout_ms=config.group_min_session_timeout_ms,
        group_max_session_timeout_ms=config.group_max_session_timeout_ms,
        group_initial_rebalance_delay_ms=config.group_initial_rebalance_delay_ms,
        group_max_size=config.group_max_size,
        offset_metadata_max_bytes=config.offset_metadata_max_bytes,
        offsets_commit_timeout_ms=config.offsets_commit_timeout_ms,
        offsets_load_buffer_size=config.offsets_load_buffer_size,
        offsets_retention_minutes=config.offsets_retention_minutes,
        offsets_retention_check_interval_ms=config.offsets_retention_check_interval_ms,
        offsets_topic_compression_codec=Compression(config.offsets_topic_compression_codec),
        offsets_topic_num_partitions=config.offsets_topic_num_partitions,
        offsets_topic_replication_factor=config.offsets_topic_replication_factor,
        offsets_topic_segment_bytes=config.offsets_topic_segment_bytes,
    )


class ControllerCreatesTopics:
    """Internal topics are created by the controller, like every other topic."""

    def __init__(self, channel: BrokerToBroker) -> None:
        self._channel = channel

    async def create(
        self, topic: str, *, partitions: int, replication_factor: int, config: dict[str, str]
    ) -> None:
        """Return once it is created; raises the BrokerError that says why it cannot be."""
        request = CreateTopicsRequest(
            topics=[
                CreateTopicsTopic(
                    name=topic,
                    num_partitions=partitions,
                    replication_factor=replication_factor,
                    assignments=[],
                    configs=[CreateTopicsConfig(name=name, value=value) for name, value in config.items()],
                )
            ],
            timeout_ms=CREATION_TIMEOUT_MS,
        )
        try:
            answer = await self._channel.create_topics(request)
        except (ConnectionFailed, LeaderUnavailable) as error:
            raise CoordinatorNotAvailableError(f"the controller does not answer: {error}") from None
        for created in answer.topics:
            if created.error_code not in (ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT):
                raise error_for(created.error_code, created.error_message or "")


class GroupApis:
    """Thin: each request goes to the coordinator, with who sent it."""

    def __init__(self, coordinator: GroupCoordinator, metadata: MetadataCache) -> None:
        self._coordinator = coordinator
        self._metadata = metadata

    def register(self, application: Application) -> None:
        application.register("find_coordinator", self.find_coordinator)
        application.register("join_group", self.join_group)
        application.register("sync_group", self.sync_group)
        application.register("heartbeat", self.heartbeat)
        application.register("leave_group", self.leave_group)
        application.register("offset_commit", self.offset_commit)
        application.register("offset_fetch", self.offset_fetch)
        application.register("offset_delete", self.offset_delete)
        application.register("describe_groups", self.describe_groups)
        application.register("list_groups", self.list_groups)
        application.register("delete_groups", self.delete_groups)

    async def find_coordinator(
        self, request: FindCoordinatorRequest, context: RequestContext
    ) -> FindCoordinatorResponse:
        return FindCoordinatorResponse(
            coordinators=[
                await self._locate(request.key_type, key, context.listener)
                for key in request.coordinator_keys
            ]
        )

    async def _locate(self, key_type: int, key: str, listener: str) -> FindCoordinatorResponseCoordinator:
        try:
            if not self._metadata.is_told:
                # Not known here is not the same as not there: nothing is created on this account.
                raise CoordinatorNotAvailableError(
                    "the controller has not told this broker about the cluster yet"
                )
            if key_type == TRANSACTION:
                raise CoordinatorNotAvailableError("this version has no transactions")
            if key_type != GROUP:
                raise InvalidRequestError(f"key_type is {key_type}; 0 is a group, 1 a transactional id")
            broker = await self._coordinator.locate(key)
            endpoint = broker.endpoint(listener)
            if endpoint is None:
                raise CoordinatorNotAvailableError(
                    f"the coordinator, broker {broker.broker_id}, has no listener {listener}"
                )
        except BrokerError as error:
            return FindCoordinatorResponseCoordinator(
                key=key, error_code=error.code, error_message=error.message or None
            )
        return FindCoordinatorResponseCoordinator(
            key=key, node_id=broker.broker_id, host=endpoint.host, port=endpoint.port
        )

    async def join_group(self, request: JoinGroupRequest, context: RequestContext) -> JoinGroupResponse:
        # Kafka prints a host as Java does an address that nobody looked up: with a slash before it.
        client = Client(context.client_id or "client", f"/{_host(context.peer)}")
        return await self._coordinator.join(request, client)

    async def sync_group(self, request: SyncGroupRequest, context: RequestContext) -> SyncGroupResponse:
        return await self._coordinator.sync(request)

    async def heartbeat(self, request: HeartbeatRequest, context: RequestContext) -> HeartbeatResponse:
        return self._coordinator.heartbeat(request)

    async def leave_group(self, request: LeaveGroupRequest, context: RequestContext) -> LeaveGroupResponse:
        return self._coordinator.leave(request)

    async def offset_commit(
        self, request: OffsetCommitRequest, context: RequestContext
    ) -> OffsetCommitResponse:
        return await self._coordinator.commit_offsets(request)

    async def offset_fetch(self, request: OffsetFetchRequest, context: RequestContext) -> OffsetFetchResponse:
        return await self._coordinator.fetch_offsets(request)

    async def offset_delete(
        self, request: OffsetDeleteRequest, context: RequestContext
    ) -> OffsetDeleteResponse:
        return await self._coordinator.delete_offsets(request)

    async def describe_groups(
        self, request: DescribeGroupsRequest, context: RequestContext
    ) -> DescribeGroupsResponse:
        return self._coordinator.describe_groups(request)

    async def list_groups(self, request: ListGroupsRequest, context: RequestContext) -> ListGroupsResponse:
        return self._coordinator.list_groups(request)

    async def delete_groups(
        self, request: DeleteGroupsRequest, context: RequestContext
    ) -> DeleteGroupsResponse:
        return await self._coordinator.delete_groups(request)


def _host(peer: str) -> str:
    """The address without its port."""
    host, colon, port = peer.rpartition(":")
    return (host if colon and port.isdigit() else peer).strip("[]")
