"""What only the active controller answers; on another broker it is NOT_CONTROLLER."""

from __future__ import annotations

from controller.controller import Controller
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse
from kafkalite.protocol.create_topics import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    CreateTopicsResponseTopic,
)
from kafkalite.protocol.errors import NotControllerError
from kafkalite.server.application import Application, RequestContext


class ControlApis:
    """Thin: each request becomes an event of the controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def register(self, application: Application) -> None:
        application.register("create_topics", self.create_topics)
        application.register("controlled_shutdown", self.controlled_shutdown)
        application.register("allocate_producer_ids", self.allocate_producer_ids)

    async def create_topics(
        self, request: CreateTopicsRequest, context: RequestContext
    ) -> CreateTopicsResponse:
        """The answer has no error of its own, so NOT_CONTROLLER stands on each topic."""
        try:
            return await self._controller.create_topics(request)
        except NotControllerError as error:
            return CreateTopicsResponse(
                topics=[
                    CreateTopicsResponseTopic(
                        name=topic.name, error_code=error.code, error_message=error.message
                    )
                    for topic in request.topics
                ]
            )

    async def controlled_shutdown(
        self, request: ControlledShutdownRequest, context: RequestContext
    ) -> ControlledShutdownResponse:
        return await self._controller.controlled_shutdown(request)

    async def allocate_producer_ids(
        self, request: AllocateProducerIdsRequest, context: RequestContext
    ) -> AllocateProducerIdsResponse:
        return await self._controller.allocate_producer_ids(request)
