"""What the controller orders a broker to do.

Every order carries the controller's epoch and the broker epoch that it is meant for. An older
controller, or an order for an earlier life of this broker, is refused whole (reference 2.4); the
replica manager keeps the epochs.
"""

from __future__ import annotations

from collections.abc import Callable

from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kafkalite.protocol.stop_replica import StopReplicaRequest, StopReplicaResponse
from kafkalite.protocol.update_metadata import UpdateMetadataRequest, UpdateMetadataResponse
from kafkalite.replication.manager import NotRegistered, ReplicaManager
from kafkalite.server.application import Application, RequestContext, Unavailable
from kafkalite.server.membership import Membership
from kafkalite.server.metadata_cache import MetadataCache
from kafkalite.server.topic_configs import TopicConfigs
from zk.client import SessionExpired


class OrderApis:
    """Leadership goes to the replica manager, the view of the cluster to the metadata cache.

    Without a broker epoch orders are answered 503: the controller repeats them.
    """

    def __init__(
        self,
        replicas: ReplicaManager,
        metadata: MetadataCache,
        topic_configs: TopicConfigs,
        membership: Membership,
        on_topics_deleted: Callable[[frozenset[str]], None],
    ) -> None:
        """``on_topics_deleted`` is told of the topics that the controller says are no more."""
        self._replicas = replicas
        self._metadata = metadata
        self._topic_configs = topic_configs
        self._membership = membership
        self._on_topics_deleted = on_topics_deleted

    def register(self, application: Application) -> None:
        application.register("leader_and_isr", self.leader_and_isr)
        application.register("update_metadata", self.update_metadata)
        application.register("stop_replica", self.stop_replica)

    async def leader_and_isr(
        self, request: LeaderAndIsrRequest, context: RequestContext
    ) -> LeaderAndIsrResponse:
        try:
            await self._read_configs(request)
            return await self._replicas.apply_leader_and_isr(request, context.cause)
        except NotRegistered as error:
            raise Unavailable(str(error)) from None

    async def _read_configs(self, request: LeaderAndIsrRequest) -> None:
        """A log that is about to be made needs its topic's configs: nobody notifies of a creation."""
        missing = [
            topic.topic_name
            for topic in request.topic_states
            if not all(
                self._replicas.hosts(TopicPartition(topic.topic_name, one.partition_index))
                for one in topic.partition_states
            )
        ]
        if missing:
            store = self._membership.store
            if store is None:
                raise NotRegistered("the broker has no ZooKeeper session at the moment")
            try:
                await self._topic_configs.read(store, missing)
            except SessionExpired:
                raise NotRegistered("the broker's ZooKeeper session has just ended") from None

    async def stop_replica(self, request: StopReplicaRequest, context: RequestContext) -> StopReplicaResponse:
        try:
            return await self._replicas.stop_replicas(request, context.cause)
        except NotRegistered as error:
            raise Unavailable(str(error)) from None

    async def update_metadata(
        self, request: UpdateMetadataRequest, context: RequestContext
    ) -> UpdateMetadataResponse:
        try:
            error = self._replicas.check_controller(request.broker_epoch, request.controller_epoch)
        except NotRegistered as refused:
            raise Unavailable(str(refused)) from None
        if error is ErrorCode.NONE:
            gone = self._metadata.update(request)
            if gone:
                self._on_topics_deleted(gone)
        return UpdateMetadataResponse(error_code=error)
