"""Producer ids for idempotent producing, handed out from blocks of the cluster's range.

The controller hands each broker blocks of ids (`allocate_producer_ids`, kept in
`/latest_producer_id_block`), so that no two brokers ever give out the same one. A block that is
half used when its broker dies is lost, which costs nothing: there are 2^63 ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kafkalite.common import BrokerEpoch, BrokerId
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest
from kafkalite.protocol.errors import BrokerError, CoordinatorLoadInProgressError, error_for
from kafkalite.replication.edges import LeaderUnavailable
from kafkalite.server.channels import BrokerToBroker


class ProducerIds:
    """This broker's present block. Concurrent askers share one refill."""

    def __init__(
        self, broker_id: BrokerId, channel: BrokerToBroker, broker_epoch: Callable[[], BrokerEpoch | None]
    ) -> None:
        self._broker_id = broker_id
        self._channel = channel
        self._broker_epoch = broker_epoch
        self._next = 0
        self._end = 0
        self._refilling = asyncio.Lock()

    async def next(self) -> int:
        """Return an id that nobody else has.

        Raises CoordinatorLoadInProgressError (retriable) while no controller answers.
        """
        while self._next == self._end:
            async with self._refilling:
                if self._next == self._end:
                    await self._refill()
        taken = self._next
        self._next += 1
        return taken

    async def _refill(self) -> None:
        epoch = self._broker_epoch()
        if epoch is None:
            raise CoordinatorLoadInProgressError("this broker is not registered in ZooKeeper at the moment")
        try:
            answer = await self._channel.allocate_producer_ids(
                AllocateProducerIdsRequest(broker_id=self._broker_id, broker_epoch=epoch)
            )
            if answer.error_code:
                raise error_for(answer.error_code)
        except (ConnectionFailed, LeaderUnavailable, BrokerError) as error:
            raise CoordinatorLoadInProgressError(
                f"no block of producer ids could be had from the controller: {error}"
            ) from error
        self._next = answer.producer_id_start
        self._end = answer.producer_id_start + answer.producer_id_len
