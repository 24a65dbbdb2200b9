"""The controller's way to the brokers: one queue and one sender a broker.

What is queued for a broker reaches it in that order, one request at a time. A request that fails is
repeated, the same one, every 100 ms until it is answered or the broker is removed: brokers hold
state that only grows right if nothing is left out. "Not registered yet" (503) counts as a failure
too. A broker that comes back under a new epoch gets a new queue, since what was meant for its old
life is void. Nothing is sent without the lease on the session: a controller that may be deposed
keeps quiet.

A queue has no bound: dropping a request would leave the broker wrong for good, and each event adds
at most three. It ends with the broker's registration.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from kafkalite.common import BrokerId, BrokerInfo
from kafkalite.edge import ConnectionFailed
from kafkalite.journal import EventId, Journal
from kafkalite.protocol.errors import BrokerError
from kafkalite.protocol.message import Message

RETRY_MS: Final = 100


class BrokerChannel(Protocol):
    """Asks one broker; the server implements it over its transport, tests in memory."""

    async def ask(
        self, broker: BrokerInfo, request: Message, *, timeout_ms: int, cause: EventId | None
    ) -> Message:
        """Send ``request`` and return the answer.

        ``cause`` goes along as the event that led to the request. Raises
        :class:`kafkalite.edge.ConnectionFailed`, or a BrokerError where the broker refused the
        request as a whole without an answer of the API (503 while it has no broker epoch).
        """
        ...


OnAnswer = Callable[[BrokerInfo, Message, Message, EventId | None], None]
"""Called with the broker, the request, its answer and the request's cause. It must not await."""


class _Item(msgspec.Struct, frozen=True):
    request: Message
    cause: EventId | None


class _Sender:
    """The queue of one life of one broker."""

    def __init__(self, owner: ChannelManager, broker: BrokerInfo) -> None:
        self.broker = broker
        self._owner = owner
        self._items: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._put = 0
        self._answered = 0
        self._waiters: list[tuple[int, asyncio.Future[bool]]] = []
        self.task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self._put - self._answered

    def put(self, item: _Item) -> None:
        self._items.append(item)
        self._put += 1
        self._arrived.set()

    def flushed(self) -> asyncio.Future[bool]:
        """A future that is True once all that is queued by now was answered, False if it never will be."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._answered == self._put:
            future.set_result(True)
        else:
            self._waiters.append((self._put, future))
        return future

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
        for _, future in self._waiters:
            if not future.done():
                future.set_result(False)
        self._waiters.clear()

    async def run(self) -> None:
        while True:
            while not self._items:
                self._arrived.clear()
                await self._arrived.wait()
            item = self._items[0]
            response = await self._owner.deliver(self.broker, item.request, item.cause)
            self._items.popleft()
            self._answered += 1
            self._owner.on_answer(self.broker, item.request, response, item.cause)
            for count, future in self._waiters:
                if count <= self._answered and not future.done():
                    future.set_result(True)
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > self._answered]


class ChannelManager:
    """All channels of one reign. Its sender tasks run in the group that it is given."""

    def __init__(
        self,
        channel: BrokerChannel,
        journal: Journal,
        tasks: asyncio.TaskGroup,
        *,
        has_lease: Callable[[], bool],
        on_answer: OnAnswer,
        timeout_ms: int,
    ) -> None:
        self._channel = channel
        self._journal = journal
        self._tasks = tasks
        self._has_lease = has_lease
        self._timeout_ms = timeout_ms
        self._senders: dict[BrokerId, _Sender] = {}
        self._ended: list[asyncio.Task[None]] = []
        self.on_answer = on_answer

    def add(self, broker: BrokerInfo) -> None:
        """Open the channel to one life of ``broker``; there must be none."""
        assert broker.broker_id not in self._senders, f"broker {broker.broker_id} has a channel"
        sender = _Sender(self, broker)
        sender.task = self._tasks.create_task(
            sender.run(), name=f"controller-to-broker-{broker.broker_id}", context=contextvars.Context()
        )
        self._senders[broker.broker_id] = sender

    def remove(self, broker_id: BrokerId) -> None:
        """Close the channel and forget what was queued."""
        sender = self._senders.pop(broker_id, None)
        if sender is not None:
            sender.end()
            if sender.task is not None:
                self._ended = [task for task in self._ended if not task.done()]
                self._ended.append(sender.task)

    def replace(self, broker: BrokerInfo) -> None:
        """Let later requests go to the endpoints in ``broker``; the queue stays."""
        sender = self._senders.get(broker.broker_id)
        if sender is not None:
            sender.broker = broker

    def send(self, broker_id: BrokerId, request: Message, cause: EventId | None) -> None:
        """Queue ``request``; it is dropped where the broker has no channel any more."""
        sender = self._senders.get(broker_id)
        if sender is not None:
            sender.put(_Item(request, cause))

    async def flush(self, broker_id: BrokerId) -> bool:
        """Wait until all that is queued for the broker by now was answered; False if it never will be."""
        sender = self._senders.get(broker_id)
        return sender is not None and await sender.flushed()

    @property
    def total_queue_size(self) -> int:
        """Requests queued or in flight, all brokers together."""
        return sum(len(sender) for sender in self._senders.values())

    async def deliver(self, broker: BrokerInfo, request: Message, cause: EventId | None) -> Message:
        """Ask until there is an answer."""
        attempts = 0
        while True:
            if self._has_lease():
                try:
                    response = await self._channel.ask(
                        broker, request, timeout_ms=self._timeout_ms, cause=cause
                    )
                except (ConnectionFailed, BrokerError) as error:
                    attempts += 1
                    if attempts == 1:
                        self._journal.record(
                            "ControllerRequestFailed",
                            cause=cause,
                            to=broker.broker_id,
                            request=type(request).__name__,
                            error=str(error),
                            retry_ms=RETRY_MS,
                        )
                else:
                    if attempts:
                        self._journal.record(
                            "ControllerRequestAnswered",
                            cause=cause,
                            to=broker.broker_id,
                            request=type(request).__name__,
                            attempts=attempts + 1,
                        )
                    return response
            await asyncio.sleep(RETRY_MS / 1000)

    async def close(self) -> None:
        """Close all channels; nothing is sent after this returned."""
        for broker_id in list(self._senders):
            self.remove(broker_id)
        ended, self._ended = self._ended, []
        for task in ended:
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise  # It is the caller that was cancelled.
