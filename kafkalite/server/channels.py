"""How a broker speaks to other brokers: the controller's channel and the follower's.

Both are thin: they look up where a broker listens for its peers and ask it over the transport,
each on a lane of its own, so that a follower's long poll never delays a controller's order.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from kafkalite.common import NO_BROKER, Address, BrokerId, BrokerInfo
from kafkalite.edge import ConnectionFailed, Transport
from kafkalite.journal import EventId
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsResponse
from kafkalite.protocol.errors import error_for
from kafkalite.protocol.fetch import FetchRequest, FetchResponse
from kafkalite.protocol.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from kafkalite.replication.edges import LeaderUnavailable
from kafkalite.server.metadata_cache import MetadataCache
from kafkalite.transport import rpc

ResponseT = TypeVar("ResponseT", bound=Message)


class ControllerToBroker:
    """The controller's channel: orders to one broker, one at a time, in order."""

    def __init__(self, transport: Transport, *, broker_id: BrokerId, listener: str) -> None:
        self._transport = transport
        self._client_id = f"controller-{broker_id}"
        self._listener = listener

    async def ask(
        self, broker: BrokerInfo, request: Message, *, timeout_ms: int, cause: EventId | None
    ) -> Message:
        """Ask ``broker`` on the inter-broker listener. Raises ConnectionFailed or a BrokerError."""
        endpoint = broker.endpoint(self._listener)
        if endpoint is None:
            raise ConnectionFailed(
                Address("", -1), f"broker {broker.broker_id} has no listener {self._listener}", sent=False
            )
        try:
            return await rpc.ask(
                self._transport,
                endpoint.address,
                request,
                lane="control",
                timeout_ms=timeout_ms,
                client_id=self._client_id,
                cause=cause,
            )
        except rpc.RequestRefused as refused:
            raise error_for(refused.error_code, str(refused)) from refused


class BrokerToBroker:
    """A broker's channel to its peers: to partition leaders as a follower, and to the controller."""

    def __init__(
        self,
        transport: Transport,
        metadata: MetadataCache,
        *,
        broker_id: BrokerId,
        listener: str,
        timeout_ms: int,
    ) -> None:
        self._transport = transport
        self._metadata = metadata
        self._listener = listener
        self._timeout_ms = timeout_ms
        self._client_id = f"broker-{broker_id}"

    def fetch(
        self, leader: BrokerId, request: FetchRequest, *, fetcher_id: int
    ) -> Coroutine[Any, Any, FetchResponse]:
        """Fetch as a follower; each fetcher has a lane of its own."""
        return self._ask(
            leader,
            request,
            FetchResponse,
            lane=f"replication-{fetcher_id}",
            timeout_ms=self._timeout_ms + request.max_wait_ms,
            client_id=f"{self._client_id}-fetcher-{fetcher_id}",
        )

    async def list_offsets(self, leader: BrokerId, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """Ask a leader where its log starts or ends."""
        return await self._ask(leader, request, ListOffsetsResponse, lane="replica-control")

    async def offset_for_leader_epoch(
        self, leader: BrokerId, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse:
        """Ask a leader where an epoch ended."""
        return await self._ask(leader, request, OffsetForLeaderEpochResponse, lane="replica-control")

    async def controlled_shutdown(self, request: ControlledShutdownRequest) -> ControlledShutdownResponse:
        """Ask the controller to move this broker's leaders away."""
        return await self._ask(
            self._controller(), request, ControlledShutdownResponse, lane="broker-to-controller"
        )

    async def create_topics(self, request: CreateTopicsRequest) -> CreateTopicsResponse:
        """Have the controller create topics (those that a metadata request wished for)."""
        return await self._ask(self._controller(), request, CreateTopicsResponse, lane="broker-to-controller")

    async def allocate_producer_ids(self, request: AllocateProducerIdsRequest) -> AllocateProducerIdsResponse:
        """Ask the controller for a block of producer ids."""
        return await self._ask(
            self._controller(), request, AllocateProducerIdsResponse, lane="broker-to-controller"
        )

    def _controller(self) -> BrokerId:
        if self._metadata.controller_id == NO_BROKER:
            raise LeaderUnavailable("no controller is known yet")
        return self._metadata.controller_id

    async def _ask(
        self,
        to: BrokerId,
        request: Message,
        response: type[ResponseT],
        *,
        lane: str,
        timeout_ms: int | None = None,
        client_id: str | None = None,
    ) -> ResponseT:
        broker = self._metadata.broker(to)
        endpoint = None if broker is None else broker.endpoint(self._listener)
        if endpoint is None:
            raise LeaderUnavailable(f"broker {to} is not alive as far as this broker knows")
        try:
            answer = await rpc.ask(
                self._transport,
                endpoint.address,
                request,
                lane=lane,
                timeout_ms=self._timeout_ms if timeout_ms is None else timeout_ms,
                client_id=self._client_id if client_id is None else client_id,
            )
        except rpc.RequestRefused as error:
            raise LeaderUnavailable(f"broker {to} refused: {error}") from error
        assert isinstance(answer, response)
        return answer
