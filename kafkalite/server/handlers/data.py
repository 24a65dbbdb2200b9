"""Produce, fetch and offsets: what clients and followers ask of partition leaders."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kafkalite.protocol.errors import ErrorCode, InvalidRequestError
from kafkalite.protocol.fetch import FetchRequest, FetchResponse
from kafkalite.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafkalite.protocol.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from kafkalite.protocol.produce import ProduceRequest, ProduceResponse
from kafkalite.replication.manager import ReplicaManager
from kafkalite.server.application import Application, RequestContext
from kafkalite.server.producer_ids import ProducerIds


class DataApis:
    """Thin: the replica manager holds the rules."""

    def __init__(self, replicas: ReplicaManager, producer_ids: ProducerIds) -> None:
        self._replicas = replicas
        self._producer_ids = producer_ids

    def register(self, application: Application) -> None:
        application.register("produce", self.produce)
        application.register("fetch", self.fetch)
        application.register("list_offsets", self.list_offsets)
        application.register("offset_for_leader_epoch", self.offset_for_leader_epoch)
        application.register("init_producer_id", self.init_producer_id)

    # What only hands on is no coroutine of its own: each costs a step whenever a request waits or goes on.

    def produce(
        self, request: ProduceRequest, context: RequestContext
    ) -> Coroutine[Any, Any, ProduceResponse]:
        return self._replicas.produce(request)

    def fetch(self, request: FetchRequest, context: RequestContext) -> Coroutine[Any, Any, FetchResponse]:
        return self._replicas.fetch(request)

    async def list_offsets(self, request: ListOffsetsRequest, context: RequestContext) -> ListOffsetsResponse:
        return await self._replicas.list_offsets(request)

    async def offset_for_leader_epoch(
        self, request: OffsetForLeaderEpochRequest, context: RequestContext
    ) -> OffsetForLeaderEpochResponse:
        return await self._replicas.offset_for_leader_epoch(request)

    async def init_producer_id(
        self, request: InitProducerIdRequest, context: RequestContext
    ) -> InitProducerIdResponse:
        """Hand out a fresh id with epoch 0. Transactional ids have no coordinator yet."""
        if request.transactional_id is not None:
            raise InvalidRequestError("transactional_id: this version has no transactions")
        return InitProducerIdResponse(
            throttle_time_ms=0,
            error_code=ErrorCode.NONE,
            producer_id=await self._producer_ids.next(),
            producer_epoch=0,
        )
