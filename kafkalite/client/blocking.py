"""The clients for threads and scripts, under kafka-python's names, without asyncio.

Each object runs the asynchronous client of the same kind on an event loop in a thread of its own, so the
rules are the same ones, and heartbeats go on whatever the caller's thread does. A call crosses over to that
thread and back (some 50 µs); sending and iterating cross in bulk. Arguments are those of the asynchronous
clients, besides kafka-python's own names for a few.

Producers may be used by many threads at once, consumers by one at a time. Callbacks and listeners must not be
slow: callbacks run in the loop's thread; listeners in a third one, so that they may use their consumer.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from kafkalite.client.admin import (
    AdminClient,
    ClusterDescription,
    ConfigEntry,
    ConfigResource,
    CreatedTopic,
    NewTopic,
    TopicDescription,
)
from kafkalite.client.consumer import Consumer
from kafkalite.client.delivery import Delivery
from kafkalite.client.errors import BrokerError, ClientClosedError, ClientTimeoutError
from kafkalite.client.group.admin import GroupDescription
from kafkalite.client.group.listener import RebalanceListener
from kafkalite.client.producer import Producer
from kafkalite.client.records import (
    ConsumerRecord,
    Header,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    RecordMetadata,
)
from kafkalite.common import TopicPartition

__all__ = [
    "BlockingFuture",
    "FutureRecordMetadata",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
    "OffsetAndMetadata",
    "RebalanceListener",
    "TopicPartition",
]

T = TypeVar("T")

AT_EXIT_S: Final = 5.0
"""How long a script that ends without closing its producer waits for what it sent."""
QUEUE_LIMIT: Final = 10_000
"""Records that may wait for the loop's thread; whoever sends more waits."""


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        # A daemon: a script that forgets to close ends all the same.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Begin ``work`` there."""
        if self.loop.is_closed():
            work.close()
            raise ClientClosedError("the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Do ``work`` there and wait. Raises ClientTimeoutError after ``timeout`` seconds."""
        future = self.submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # That was the work's own.
            future.cancel()
            raise ClientTimeoutError(f"not done within {timeout:g} s") from None
        except BaseException:
            future.cancel()  # An interrupt: nobody waits any more.
            raise

    def close(self) -> None:
        """End the loop and its thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


def _at_exit(client: T, close: Callable[[T], None]) -> Callable[[], None]:
    """Have a script that forgets to close a client end in good order all the same.

    Returns what :func:`atexit.unregister` takes. A client that nobody refers to any more is left alone.
    """
    reference = weakref.ref(client)

    def end() -> None:
        found = reference()
        if found is not None:
            close(found)

    atexit.register(end)
    return end


class BlockingFuture:
    """An outcome to come, as kafka-python has it."""

    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self._future = future

    @property
    def is_done(self) -> bool:
        """Whether the outcome is known."""
        return self._future.done()

    def succeeded(self) -> bool:
        """Whether it is known and good."""
        return self._future.done() and self._future.exception() is None

    def failed(self) -> bool:
        """Whether it is known and bad."""
        return self._future.done() and self._future.exception() is not None

    @property
    def exception(self) -> BaseException | None:
        """Why it failed; None before that."""
        return self._future.exception() if self._future.done() else None

    @property
    def value(self) -> Any:
        """The result; None before it is known, and where there is none."""
        return self._future.result() if self.succeeded() else None

    def get(self, timeout: float | None = None) -> Any:
        """Wait up to ``timeout`` seconds for the result; raises why there is none."""
        try:
            return self._future.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._future.done():
                raise
            raise ClientTimeoutError(f"not known within {timeout:g} s") from None

    def add_callback(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call ``callback(*args, value)`` once it has succeeded."""

        def done(future: concurrent.futures.Future[Any]) -> None:
            if not future.cancelled() and future.exception() is None:
                callback(*args, future.result(), **kwargs)

        self._future.add_done_callback(done)
        return self

    def add_errback(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call ``callback(*args, exception)`` once it has failed."""

        def done(future: concurrent.futures.Future[Any]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                callback(*args, error, **kwargs)

        self._future.add_done_callback(done)
        return self


class FutureRecordMetadata(BlockingFuture):
    """What :meth:`KafkaProducer.send` returns: where the record was written, or why it was not."""

    def get(self, timeout: float | None = None) -> RecordMetadata:
        """Wait up to ``timeout`` seconds; raises why the record was not acknowledged."""
        found: RecordMetadata = super().get(timeout)
        return found


class KafkaProducer:
    """Sends records. Connects when it is made."""

    def __init__(self, *, batch_size: int | None = None, **configs: Any) -> None:
        """``configs`` as :class:`~kafkalite.client.Producer` takes them; ``batch_size`` is its
        `max_batch_size`. Raises ClusterUnreachableError."""
        if batch_size is not None:
            configs["max_batch_size"] = batch_size
        self._loop = _Loop("kafka-producer")
        self._queue: deque[tuple[tuple[Any, ...] | None, concurrent.futures.Future[Any]]] = deque()
        """Records on their way to the loop, and marks (None) of who waits for all before them."""
        self._room = threading.Semaphore(QUEUE_LIMIT)
        self._is_closed = False
        try:
            self._loop.run(self._start(configs))
        except BaseException:
            self._loop.close()
            raise
        self._end = _at_exit(self, lambda producer: producer.close(AT_EXIT_S))

    async def _start(self, configs: Mapping[str, Any]) -> None:
        self._producer = Producer(**configs)
        await self._producer.start()
        self._max_block_s = configs.get("max_block_ms", 60_000) / 1000
        self._queued = asyncio.Event()
        self._accepted = asyncio.Event()
        self._deliveries: deque[tuple[Delivery | None, concurrent.futures.Future[Any]]] = deque()
        self._tasks = [
            asyncio.get_running_loop().create_task(self._send_queued(), name="kafka-producer queue"),
            asyncio.get_running_loop().create_task(self._resolve(), name="kafka-producer outcomes"),
        ]

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Sequence[Header] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> FutureRecordMetadata:
        """Hand a record over; order is that of the calls of each thread.

        Raises ClientTimeoutError where there is no room for it within `max_block_ms`, ClientClosedError.
        What is wrong with the record itself is the future's.
        """
        if self._is_closed:
            raise ClientClosedError("the producer is closed")
        if not self._room.acquire(timeout=self._max_block_s):
            raise ClientTimeoutError(f"no room for a record within {self._max_block_s:g} s")
        return FutureRecordMetadata(self._enqueue((topic, value, key, partition, timestamp_ms, headers)))

    def _enqueue(self, record: tuple[Any, ...] | None) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        was_empty = not self._queue
        self._queue.append((record, future))
        if was_empty:
            self._loop.loop.call_soon_threadsafe(self._queued.set)
        return future

    async def _send_queued(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                record, future = self._queue[0]
                if record is None:
                    await self._producer.flush()
                    self._deliveries.append((None, future))
                    self._accepted.set()
                    self._queue.popleft()
                    continue
                try:
                    delivery = await self._producer.send(*record)
                except Exception as error:  # Whatever is wrong is told to whoever waits for this record.
                    future.set_exception(error)
                else:
                    self._deliveries.append((delivery, future))
                    self._accepted.set()
                self._queue.popleft()
                self._room.release()

    async def _resolve(self) -> None:
        """Complete the futures. In the order of sending: batches of other partitions wait a little for it."""
        while True:
            await self._accepted.wait()
            self._accepted.clear()
            while self._deliveries:
                delivery, future = self._deliveries.popleft()
                if delivery is None:
                    if not future.cancelled():  # Who waited for the mark may have given up.
                        future.set_result(None)
                    continue
                try:
                    found = await delivery
                except asyncio.CancelledError:
                    self._deliveries.appendleft((delivery, future))
                    raise
                except Exception as error:
                    future.set_exception(error)
                else:
                    future.set_result(found)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent before has its outcome; ClientTimeoutError after ``timeout`` seconds."""
        if self._is_closed:
            raise ClientClosedError("the producer is closed")
        BlockingFuture(self._enqueue(None)).get(timeout)

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of ``topic``."""
        return self._loop.run(self._producer.partitions_for(topic))

    def close(self, timeout: float | None = None) -> None:
        """Send what is left (for at most ``timeout`` seconds) and close.

        A script that ends without it waits for at most AT_EXIT_S.
        """
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self._end)
        try:
            self._loop.run(self._stop(timeout))
        finally:
            self._loop.close()

    async def _stop(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self._enqueue(None))
        except TimeoutError:
            pass  # What is left fails when the producer stops.
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if timeout is None:
            await self._producer.stop()
        else:
            try:
                async with asyncio.timeout(timeout):
                    await self._producer.stop()
            except TimeoutError:
                pass  # The caller has waited long enough; the loop ends with what was left.
        for delivery, future in self._deliveries:
            if future.cancelled():
                continue
            if delivery is None:
                future.set_result(None)
            elif delivery.done() and delivery.exception() is None:
                future.set_result(delivery.result())
            else:
                future.set_exception(delivery.exception() or ClientClosedError("the producer was closed"))
        for _, future in self._queue:
            if not future.done():
                future.set_exception(ClientClosedError("the producer was closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Elsewhere(RebalanceListener):
    """Runs a listener's blocking methods in a thread, so that they may call the consumer."""

    def __init__(self, listener: RebalanceListener) -> None:
        self._listener = listener

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        await asyncio.to_thread(self._listener.on_partitions_revoked, revoked)

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        await asyncio.to_thread(self._listener.on_partitions_assigned, assigned)

    async def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> None:
        await asyncio.to_thread(self._listener.on_partitions_lost, lost)


class KafkaConsumer:
    """Reads records; iterate over it, or `poll`. Connects when it is made."""

    def __init__(self, *topics: str, consumer_timeout_ms: float = float("inf"), **configs: Any) -> None:
        """``configs`` as :class:`~kafkalite.client.Consumer` takes them. Iteration ends when no record came
        for ``consumer_timeout_ms``. Raises ClusterUnreachableError."""
        self._timeout_ms = consumer_timeout_ms
        self._buffer: deque[ConsumerRecord] = deque()
        """What was fetched for iteration and is not handed out yet."""
        self._is_closed = False
        self._loop = _Loop("kafka-consumer")
        try:
            self._loop.run(self._start(topics, configs))
        except BaseException:
            self._loop.close()
            raise
        self._end = _at_exit(self, lambda consumer: consumer.close(autocommit=False))

    async def _start(self, topics: tuple[str, ...], configs: Mapping[str, Any]) -> None:
        self._consumer = Consumer(*topics, **configs)
        await self._consumer.start()

    def _call(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self._loop.run(call())

    # --- What to read --------------------------------------------------------------------------

    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Read ``topics``, or those whose names ``pattern`` matches; in a group this consumer's share."""
        self._give_back()
        elsewhere = _Elsewhere(listener) if listener is not None else None
        self._call(lambda: self._consumer.subscribe(topics, pattern, elsewhere))

    def unsubscribe(self) -> None:
        """Read nothing, and leave the group."""
        self._give_back()
        self._call(self._consumer.unsubscribe)

    def subscription(self) -> frozenset[str]:
        """The topics subscribed to."""
        return self._call(self._consumer.subscription)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly ``partitions``."""
        self._give_back()
        self._call(lambda: self._consumer.assign(partitions))

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read."""
        return self._call(self._consumer.assignment)

    # --- Reading -------------------------------------------------------------------------------

    def poll(
        self, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Records by partition, after waiting up to ``timeout_ms`` for some."""
        self._give_back()
        return self._loop.run(self._consumer.getmany(timeout_ms=timeout_ms, max_records=max_records))

    def __iter__(self) -> Iterator[ConsumerRecord]:
        return self

    def __next__(self) -> ConsumerRecord:
        if not self._buffer:
            if self._is_closed:
                raise StopIteration
            self._fill()
        return self._buffer.popleft()

    def _fill(self) -> None:
        left = self._timeout_ms
        while not self._buffer:
            if left <= 0:
                raise StopIteration
            wait = min(left, 1000)  # In pieces, so that an interrupt is seen.
            found = self._loop.run(self._consumer.getmany(timeout_ms=wait))
            for records in found.values():
                self._buffer.extend(records)
            left -= wait

    def _next_offsets(self) -> dict[TopicPartition, int]:
        """Where iteration is in the partitions of which something was not handed out yet."""
        found: dict[TopicPartition, int] = {}
        for record in self._buffer:
            found.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        return found

    def _give_back(self) -> None:
        """What was fetched for iteration and not handed out is read again."""
        if not self._buffer:
            return
        offsets = self._next_offsets()
        self._buffer.clear()
        self._call(lambda: self._seek_back(offsets))

    def _seek_back(self, offsets: Mapping[TopicPartition, int]) -> None:
        for tp in offsets.keys() & self._consumer.assignment():
            self._consumer.seek(tp, offsets[tp])

    # --- Positions -----------------------------------------------------------------------------

    def position(self, partition: TopicPartition) -> int:
        """The offset of the next record that will be handed out."""
        waiting = self._next_offsets().get(TopicPartition(*partition))
        return waiting if waiting is not None else self._loop.run(self._consumer.position(partition))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read ``partition`` from ``offset`` on."""
        self._give_back()
        self._call(lambda: self._consumer.seek(partition, offset))

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Read ``partitions`` (all by default) from their log start offset on."""
        self._give_back()
        self._loop.run(self._consumer.seek_to_beginning(*partitions))

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Read ``partitions`` (all by default) from their high watermark on."""
        self._give_back()
        self._loop.run(self._consumer.seek_to_end(*partitions))

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of ``partitions`` until they are resumed."""
        self._give_back()
        self._call(lambda: self._consumer.pause(*partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """End a pause."""
        self._call(lambda: self._consumer.resume(*partitions))

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return self._call(self._consumer.paused)

    def highwater(self, partition: TopicPartition) -> int | None:
        """The high watermark of the last fetch answer."""
        return self._call(lambda: self._consumer.highwater(partition))

    # --- The group -----------------------------------------------------------------------------

    async def _commit(self, offsets: Mapping[TopicPartition, Any] | None) -> None:
        if offsets is None and (waiting := self._next_offsets()):
            found = {tp: await self._consumer.position(tp) for tp in self._consumer.assignment()}
            offsets = found | {tp: offset for tp, offset in waiting.items() if tp in found}
        await self._consumer.commit(offsets)

    def commit(
        self, offsets: Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit ``offsets``, by default all that was handed out, and wait; raises as Consumer.commit."""
        self._loop.run(self._commit(offsets))

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata] | None = None,
        callback: Callable[[Any, Any], object] | None = None,
    ) -> BlockingFuture:
        """Commit without waiting; ``callback(offsets, None or the error)`` hears of the outcome."""
        future = BlockingFuture(self._loop.submit(self._commit(offsets)))
        if callback is not None:
            told = callback
            future.add_callback(lambda _: told(offsets, None)).add_errback(lambda error: told(offsets, error))
        return future

    def committed(self, partition: TopicPartition) -> int | None:
        """The group's committed offset, None where there is none."""
        return self._loop.run(self._consumer.committed(partition))

    # --- Asking --------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """The names of all topics."""
        return self._loop.run(self._consumer.topics())

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partitions of ``topic`` if its metadata is known, else None."""
        return self._call(lambda: self._consumer.partitions_for_topic(topic))

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The log start offset of each partition."""
        return self._loop.run(self._consumer.beginning_offsets(partitions))

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will have."""
        return self._loop.run(self._consumer.end_offsets(partitions))

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time (ms since the Unix epoch); None where there is none."""
        return self._loop.run(self._consumer.offsets_for_times(timestamps))

    def close(self, autocommit: bool = True) -> None:
        """Leave the group and close; without ``autocommit`` what was last handed out is not committed.

        A script that ends without it leaves the group so: how it ended nobody knows.
        """
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self._end)
        try:
            if autocommit:
                self._give_back()
                self._loop.run(self._consumer.stop())
            else:
                self._buffer.clear()
                self._loop.run(self._consumer.abandon())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(autocommit=error is None)


class KafkaAdminClient:
    """Administers a cluster. Connects when it is made."""

    def __init__(self, **configs: Any) -> None:
        """``configs`` as :class:`~kafkalite.client.AdminClient` has them. Raises ClusterUnreachableError."""
        self._is_closed = False
        self._loop = _Loop("kafka-admin")
        try:
            self._loop.run(self._start(configs))
        except BaseException:
            self._loop.close()
            raise
        self._end = _at_exit(self, KafkaAdminClient.close)

    async def _start(self, configs: Mapping[str, Any]) -> None:
        self._admin = AdminClient(**configs)
        await self._admin.start()

    def create_topics(
        self, new_topics: Iterable[NewTopic], timeout_ms: int | None = None, validate_only: bool = False
    ) -> dict[str, CreatedTopic]:
        """Create topics."""
        return self._loop.run(
            self._admin.create_topics(new_topics, timeout_ms=timeout_ms, validate_only=validate_only)
        )

    def list_topics(self) -> list[str]:
        """The names of all topics."""
        return self._loop.run(self._admin.list_topics())

    def describe_topics(self, topics: Iterable[str] | None = None) -> list[TopicDescription]:
        """Describe ``topics``, or all."""
        return self._loop.run(self._admin.describe_topics(topics))

    def describe_cluster(self) -> ClusterDescription:
        """The live brokers and the controller."""
        return self._loop.run(self._admin.describe_cluster())

    def describe_configs(
        self, config_resources: Iterable[ConfigResource]
    ) -> dict[ConfigResource, dict[str, ConfigEntry]]:
        """The effective configs of topics and brokers."""
        return self._loop.run(self._admin.describe_configs(config_resources))

    def list_consumer_groups(self) -> list[tuple[str, str]]:
        """All groups, each with its protocol type."""
        found = self._loop.run(self._admin.list_consumer_groups())
        return [(group.group_id, group.protocol_type) for group in found]

    def describe_consumer_groups(self, group_ids: Iterable[str]) -> list[GroupDescription]:
        """Describe groups, in their order."""
        return list(self._loop.run(self._admin.describe_consumer_groups(group_ids)).values())

    def list_consumer_group_offsets(
        self, group_id: str, partitions: Sequence[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed."""
        return self._loop.run(self._admin.list_consumer_group_offsets(group_id, partitions))

    def alter_consumer_group_offsets(
        self, group_id: str, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]
    ) -> None:
        """Commit for a group without members."""
        self._loop.run(self._admin.alter_consumer_group_offsets(group_id, offsets))

    def delete_consumer_groups(self, group_ids: Iterable[str]) -> list[tuple[str, BrokerError | None]]:
        """Delete groups; each with None or the reason why it was not."""
        return list(self._loop.run(self._admin.delete_consumer_groups(group_ids)).items())

    def close(self) -> None:
        """Close the connections."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self._end)
        try:
            self._loop.run(self._admin.stop())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
