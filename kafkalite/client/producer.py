"""The producer: takes records, groups them into batches, and sees them acknowledged.

`send` is the hot path. A record without key, partition, headers or timestamp of its own is added to the
open batch of the partition that its topic sticks to, without a look at anything else; everything else takes
the longer way through :meth:`Producer._send`. What guarantees hold is written down in
:mod:`.partition_queue`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from types import TracebackType
from typing import Any, Final, Self

from kafkalite.client.accumulator import Accumulator
from kafkalite.client.background import Background
from kafkalite.client.batch import Batch, OutgoingColumns, record_size
from kafkalite.client.cluster import Cluster
from kafkalite.client.delivery import Deliveries, Delivery, PartlySentError, Piece
from kafkalite.client.errors import BufferExhaustedError, ClientClosedError
from kafkalite.client.metadata import TopicInfo
from kafkalite.client.partitioner import Partitioner, next_sticky, partition_of_key
from kafkalite.client.records import Header, RecordMetadata
from kafkalite.client.sender import Sender
from kafkalite.common import TopicPartition
from kafkalite.edge import Clock, SystemClock, Transport, system_random
from kafkalite.protocol.compression import LEVELS, Compression
from kafkalite.protocol.errors import ErrorCode, error_for
from kafkalite.transport.http import HttpTransport

Serializer = Callable[[Any], bytes]

_ACKS: Final = {0: 0, 1: 1, -1: -1, "0": 0, "1": 1, "-1": -1, "all": -1}


class Producer:
    """Writes records; use it as ``async with Producer(...) as producer``.

    Arguments and methods are those of aiokafka's producer. One producer serves any number of tasks.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str] = "localhost:9092",
        client_id: str = "kafkalite-producer",
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        acks: int | str = "all",
        enable_idempotence: bool | None = None,
        compression_type: str | None = None,
        compression_level: int | None = None,
        max_batch_size: int = 65_536,
        linger_ms: float = 5,
        max_request_size: int = 1_048_576,
        buffer_memory: int = 33_554_432,
        max_block_ms: int = 60_000,
        delivery_timeout_ms: int = 120_000,
        request_timeout_ms: int = 30_000,
        retry_backoff_ms: int = 100,
        retry_backoff_max_ms: int = 1000,
        metadata_max_age_ms: int = 300_000,
        partitioner: Partitioner | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Connect to nothing yet.

        Serialisers make bytes of keys and values; None stays None. ``acks``: 0, 1 or "all" (-1).
        ``enable_idempotence``: None means on if ``acks`` is "all"; True with other acks is an error.
        ``compression_type``: None, "gzip", "snappy", "lz4" or "zstd", with ``compression_level`` where it
        has levels. ``max_batch_size``, ``max_request_size`` and ``buffer_memory`` are bytes; ``linger_ms``
        is how long a batch waits for more records; ``max_block_ms`` how long `send` waits for metadata and
        memory together; ``delivery_timeout_ms`` bounds the time from `send` to the outcome.
        ``partitioner``, called with the serialised key, all partitions and those with a leader, replaces
        murmur2 and stickiness. ``transport``, ``clock`` and ``chance`` replace the network, time and
        entropy in simulations.

        Raises ValueError for values that cannot be, or do not fit together.
        """
        if acks not in _ACKS:
            raise ValueError(f'acks: {acks!r} is not 0, 1 or "all"')
        required = _ACKS[acks]
        if enable_idempotence and required != -1:
            raise ValueError(f'enable_idempotence needs acks="all", not {acks!r}')
        idempotent = required == -1 if enable_idempotence is None else enable_idempotence
        if delivery_timeout_ms < linger_ms + request_timeout_ms:
            raise ValueError(
                f"delivery_timeout_ms ({delivery_timeout_ms}) is less than linger_ms + request_timeout_ms "
                f"({linger_ms + request_timeout_ms:g})"
            )
        for name, value in (
            ("max_batch_size", max_batch_size),
            ("max_request_size", max_request_size),
            ("buffer_memory", buffer_memory),
            ("request_timeout_ms", request_timeout_ms),
        ):
            if value <= 0:
                raise ValueError(f"{name}: {value} is not positive")
        max_batch_size = min(max_batch_size, max_request_size, buffer_memory)
        self._clock = clock or SystemClock()
        self._chance = chance or system_random()
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        # What `send` may take as it is: bytes, or nothing where values are serialised.
        self._plain: Any = bytes if value_serializer is None else Producer
        self._partitioner = partitioner
        self._max_request_size = max_request_size
        self._max_block_ms = max_block_ms
        self._cluster = Cluster(
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            transport=transport or HttpTransport(),
            clock=self._clock,
            chance=self._chance,
            request_timeout_ms=request_timeout_ms,
            metadata_max_age_ms=metadata_max_age_ms,
            retry_backoff_ms=retry_backoff_ms,
            retry_backoff_max_ms=retry_backoff_max_ms,
            allow_auto_create_topics=True,
        )
        self._accumulator = Accumulator(
            max_batch_size=max_batch_size,
            linger_ms=linger_ms,
            buffer_memory=buffer_memory,
            delivery_timeout_ms=delivery_timeout_ms,
            compression=_compression(compression_type, compression_level),
            compression_level=compression_level,
            idempotent=idempotent,
        )
        self._background = Background("producer", self._failed)
        self._sender = Sender(
            self._cluster,
            self._accumulator,
            self._background,
            acks=required,
            max_request_size=max_request_size,
            request_timeout_ms=request_timeout_ms,
        )
        self._cluster.on_change(self._sender.metadata_changed)
        self._is_open = False
        self._fault: BaseException | None = None
        self._quick: dict[str, Batch] = {}
        """The batch that each topic's records without a key go to; its limit is 0 once it takes no more."""
        self._now_ms = 0
        """Wall time, read once a turn of the loop; 0 where it is to be read again."""

    # --- Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the cluster.

        Raises ClusterUnreachableError when no bootstrap address answers; it may then be tried again.
        """
        await self._cluster.begin(self._background)
        self._is_open = True
        self._background.spawn(self._cluster.keep_fresh(), "metadata")
        self._background.spawn(self._sender.run(), "sender")

    async def stop(self) -> None:
        """Flush, then close the connections. Takes `delivery_timeout_ms` at most."""
        self._is_open = False
        self._quick.clear()
        try:
            if self._background.is_running:
                await self._flush()
        finally:
            await self._background.stop()
            self._end(ClientClosedError("the producer was stopped before the record was acknowledged"))
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
        self._is_open = False
        self._end(fault)

    def _end(self, error: BaseException) -> None:
        self._quick.clear()
        self._sender.fail_all(error)

    def _check(self) -> None:
        if self._fault is not None:
            raise ClientClosedError("the producer has failed") from self._fault
        if not self._is_open:
            raise ClientClosedError("the producer is not started, or is stopped")

    # --- Sending -------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Sequence[Header] | None = None,
    ) -> Delivery:
        """Hand a record over; await the result for its metadata or its error.

        Returns when the record is in the buffer, which may take up to `max_block_ms` if the topic is new to
        the producer or the buffer is full. ``timestamp_ms`` is now by default. ``headers`` are pairs of
        name and bytes (or None).

        Raises MessageTooLargeError for a record over `max_request_size`, BufferExhaustedError,
        UnknownTopicOrPartitionError, ClientTimeoutError or ClusterUnreachableError after `max_block_ms`.
        """
        batch = self._quick.get(topic)
        if (
            batch is not None
            and type(value) is self._plain
            and key is None
            and partition is None
            and timestamp_ms is None
            and headers is None
        ):
            size = batch.size + len(value) + 8
            # The very number that was read in this turn of the loop: the record joins the batch's last run.
            if size <= batch.limit and batch.last_timestamp is self._now_ms:
                values = batch.values
                index = len(values)
                values.append(value)
                batch.size = size
                return Delivery(batch, index)
        return await self._send(topic, value, key, partition, timestamp_ms, headers)

    async def send_and_wait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Sequence[Header] | None = None,
    ) -> RecordMetadata:
        """Send a record and wait until it is acknowledged; raises why it was not."""
        return await (await self.send(topic, value, key, partition, timestamp_ms, headers))

    async def _send(
        self,
        topic: str,
        value: Any,
        key: Any,
        partition: int | None,
        timestamp_ms: int | None,
        headers: Sequence[Header] | None,
    ) -> Delivery:
        self._check()
        key_bytes = _bytes("key", key, self._key_serializer)
        value_bytes = _bytes("value", value, self._value_serializer)
        pairs = None if not headers else [_header(header) for header in headers]
        size = record_size(key_bytes, value_bytes, pairs)
        if size > self._max_request_size:
            raise error_for(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the record for {topic!r} has about {size} bytes, "
                f"over max_request_size ({self._max_request_size})",
            )
        if not self._accumulator.fits(size):
            raise error_for(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the record for {topic!r} has about {size} bytes, too many for buffer_memory",
            )
        deadline = self._clock.monotonic() + self._max_block_ms / 1000
        info = self._cluster.metadata.topics.get(topic)
        if info is None or not info.count or (partition is not None and partition not in info.partitions):
            info = await self._topic(topic, partition)
            self._check()
        had_a_turn = not self._now_ms
        now_ms = self._now_ms or self._read_clock()
        if timestamp_ms is None:
            timestamp_ms = now_ms
        is_sticky = partition is None and key_bytes is None and self._partitioner is None
        in_turn = False
        while True:
            # Chosen anew after each wait: stickiness has moved on meanwhile.
            chosen = self._stick(topic, size) if is_sticky else self._choose(info, key_bytes, partition)
            tp = TopicPartition(topic, chosen)
            now = self._clock.monotonic()
            added = self._accumulator.append(
                tp, timestamp_ms, key_bytes, value_bytes, pairs, now, in_turn=in_turn
            )
            if added is not None:
                break
            await self._room(size, deadline)
            in_turn = True
            self._check()
        batch, index, sealed = added
        if is_sticky:
            self._quick[topic] = batch
        if sealed or index == 0:
            self._sender.wake()
            if sealed or not had_a_turn or not self._accumulator.linger:
                # Without a turn of the loop now and then, sending would starve the sender. A batch that
                # may linger can do without if there was one just now: its records then share their time.
                await asyncio.sleep(0)
        return Delivery(batch, index)

    async def send_many(
        self,
        topic: str,
        values: Sequence[Any],
        keys: Sequence[Any] | None = None,
        partition: int | None = None,
        timestamps: int | Sequence[int] | None = None,
        headers: Sequence[Sequence[Header] | None] | None = None,
    ) -> Deliveries:
        """Hand many records over at once: what `send` does with each in turn, without its cost for each.

        ``values`` may be empty; the other columns are as long, or None where no record has any.
        ``timestamps`` is one for all (now by default) or one each. Order, limits and guarantees are
        those of `send`. Await the result for where the records were written.

        Raises as `send` does, before anything is accepted. Where room for more does not come within
        `max_block_ms`, that is a PartlySentError (a BufferExhaustedError), which has the deliveries of
        what was accepted.
        """
        self._check()
        for name, column in (("keys", keys), ("timestamps", timestamps), ("headers", headers)):
            if column is not None and not isinstance(column, int) and len(column) != len(values):
                raise ValueError(f"{name}: {len(column)} for {len(values)} values")
        if not len(values):
            return Deliveries(())
        info = self._cluster.metadata.topics.get(topic)
        deadline = self._clock.monotonic() + self._max_block_ms / 1000
        if info is None or not info.count or (partition is not None and partition not in info.partitions):
            info = await self._topic(topic, partition)
            self._check()
        if timestamps is None:
            timestamps = self._now_ms or self._read_clock()
        columns = OutgoingColumns(
            _column("value", values, self._value_serializer),
            None if keys is None else _column("key", keys, self._key_serializer),
            timestamps,
            None if headers is None else [[_header(h) for h in each] if each else None for each in headers],
        )
        largest = columns.largest()
        if largest > self._max_request_size or not self._accumulator.fits(largest):
            limit = "max_request_size" if largest > self._max_request_size else "buffer_memory"
            raise error_for(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a record for {topic!r} has about {largest} bytes, too many for {limit}",
            )
        pieces: list[Piece] = []
        try:
            if partition is None and (columns.keys is not None or self._partitioner is not None):
                await self._send_apart(topic, info, columns, deadline, pieces)
            else:
                which = range(len(columns))
                await self._send_columns(topic, partition, columns, which, deadline, pieces)
        except BufferExhaustedError as error:
            accepted = Deliveries(pieces)
            raise PartlySentError(
                f"{error}; {len(accepted)} of {len(columns)} were accepted", accepted
            ) from None
        return Deliveries(pieces)

    async def _send_apart(
        self,
        topic: str,
        info: TopicInfo,
        columns: OutgoingColumns,
        deadline: float,
        pieces: list[Piece],
    ) -> None:
        """Send columns whose partition the keys, or the partitioner, tell for each record."""
        apart: dict[int | None, list[int]] = {}
        for index, key in enumerate(columns.keys or repeat(None, len(columns))):
            # A record without a key sticks, as it does when it is sent alone.
            is_sticky = key is None and self._partitioner is None
            chosen = None if is_sticky else self._choose(info, key, None)
            apart.setdefault(chosen, []).append(index)
        for chosen, which in apart.items():
            part = columns if len(which) == len(columns) else columns.pick(which)
            await self._send_columns(topic, chosen, part, which, deadline, pieces)

    async def _send_columns(
        self,
        topic: str,
        partition: int | None,
        columns: OutgoingColumns,
        which: Sequence[int],
        deadline: float,
        pieces: list[Piece],
    ) -> None:
        """Send columns to one partition, or (None) where the topic sticks to, batch by batch."""
        start = 0
        in_turn = False
        while start < len(columns):
            size = columns.size_of(start, start + 1)
            tp = TopicPartition(topic, self._stick(topic, size) if partition is None else partition)
            now = self._clock.monotonic()
            added = self._accumulator.extend(tp, columns, start, now, in_turn=in_turn)
            if added is None:
                await self._room(size, deadline)
                in_turn = True
                self._check()
                continue
            in_turn = False
            batch, index, end, sealed = added
            pieces.append(Piece(batch, index, which[start:end]))
            start = end
            if partition is None:
                self._quick[topic] = batch
            if sealed or index == 0:
                self._sender.wake()
            if index == 0:
                await asyncio.sleep(0)  # As in `send`: the sender must have its turn.
                self._check()

    def _read_clock(self) -> int:
        """Wall time, kept until the loop's next turn: per record it would cost as much as `send` itself."""
        self._now_ms = self._clock.wall_ms()
        asyncio.get_running_loop().call_soon(self._forget_clock)
        return self._now_ms

    def _forget_clock(self) -> None:
        self._now_ms = 0

    async def _room(self, size: int, deadline: float) -> None:
        turn = self._accumulator.wait_for_room(size)
        self._sender.wake()  # Now that somebody waits for memory, nothing lingers any more.
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                await turn
        except TimeoutError:
            raise BufferExhaustedError(
                f"no room for a record of {size} bytes within max_block_ms ({self._max_block_ms}): "
                "records are sent faster than the cluster takes them"
            ) from None
        finally:
            self._accumulator.stop_waiting(turn)

    # --- Where to ------------------------------------------------------------------------------

    async def _topic(self, topic: str, partition: int | None) -> TopicInfo:
        """Wait until ``topic``, and ``partition`` of it, is known."""
        metadata = self._cluster.metadata

        def is_known() -> bool:
            info = metadata.topics.get(topic)
            if info is not None:
                return info.count > 0 and (partition is None or partition in info.partitions)
            code = metadata.topic_errors.get(topic)
            if code is not None:
                error = error_for(code, f"topic {topic!r}")
                if not error.retriable:
                    raise error
            return False

        self._cluster.want([topic])
        try:
            async with asyncio.timeout(self._max_block_ms / 1000):
                while not is_known():
                    await self._cluster.refreshed()
        except TimeoutError:
            code = metadata.topic_errors.get(topic)
            known = metadata.topics.get(topic)
            if known is not None and partition is not None:
                raise error_for(
                    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    f"topic {topic!r} has no partition {partition}: it has {known.count} partitions",
                ) from None
            if code is not None and not self._cluster.is_failing:
                raise error_for(
                    code, f"topic {topic!r} did not appear within max_block_ms ({self._max_block_ms})"
                ) from None
            self._cluster.raise_timeout(f"no metadata of topic {topic!r}", self._max_block_ms)
        return metadata.topics[topic]

    def _choose(self, info: TopicInfo, key: bytes | None, partition: int | None) -> int:
        """The partition of a record that does not stick."""
        if partition is not None:
            return partition
        if self._partitioner is not None:
            chosen = self._partitioner(key, tuple(info.partitions), info.available)
            if chosen not in info.partitions:
                raise ValueError(
                    f"the partitioner chose {chosen}, but {info.name!r} has {info.count} partitions"
                )
            return chosen
        assert key is not None
        return partition_of_key(key, info.count)

    def _stick(self, topic: str, size: int) -> int:
        """The partition that ``topic`` sticks to, another one where its batch has no room for ``size``."""
        batch = self._quick.get(topic)
        if batch is not None and not batch.is_sealed:
            if batch.size + size <= self._accumulator.max_batch_size:
                return batch.tp.partition
            self._accumulator.seal(batch)
            self._sender.wake()
        info = self._cluster.metadata.topics.get(topic)
        if info is None:  # Deleted a moment ago: what comes of it, the leaders will say.
            assert batch is not None
            return batch.tp.partition
        available = info.available or tuple(info.partitions)
        queued = {
            tp.partition: len(queue) for tp, queue in self._accumulator.busy.items() if tp.topic == topic
        }
        previous = batch.tp.partition if batch is not None else None
        return next_sticky(available, queued, previous, self._chance)

    async def partitions_for(self, topic: str) -> set[int]:
        """The partitions of ``topic``; waits for metadata as `send` does, and raises the same."""
        self._check()
        info = self._cluster.metadata.topics.get(topic)
        if info is None or not info.count:
            info = await self._topic(topic, None)
        return set(info.partitions)

    # --- Waiting -------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until the outcome of everything sent before is known.

        Errors are not raised here but where each `send`'s result is awaited.
        """
        self._check()
        await self._flush()

    async def _flush(self) -> None:
        accumulator = self._accumulator
        mark = accumulator.mark
        accumulator.flushing += 1
        self._sender.wake()
        try:
            while batches := accumulator.unfinished(mark):
                for batch in batches:
                    await batch.settled()
        finally:
            accumulator.flushing -= 1


def _compression(name: str | None, level: int | None) -> Compression:
    known = {member.name.lower(): member for member in Compression}
    if (name or "none") not in known:
        raise ValueError(f"compression_type: {name!r} is none of {', '.join(known)}")
    compression = known[name or "none"]
    if level is not None and level not in LEVELS.get(compression, ()):
        raise ValueError(f"compression_level: {level} is no level of {compression.name.lower()}")
    return compression


def _bytes(what: str, value: Any, serializer: Serializer | None) -> bytes | None:
    if serializer is not None and value is not None:
        value = serializer(value)
    if value is None or value.__class__ is bytes:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(
        f"{what}: expected bytes (or a {what}_serializer that returns them), got {type(value).__name__}"
    )


_PLAIN: Final = frozenset({bytes, type(None)})


def _column(what: str, column: Sequence[Any], serializer: Serializer | None) -> Sequence[bytes | None]:
    if serializer is None and _PLAIN.issuperset(map(type, column)):
        return column
    return [_bytes(what, each, serializer) for each in column]


def _header(header: Iterable[Any]) -> Header:
    name, content = header
    if not isinstance(name, str):
        raise TypeError(f"header name: expected str, got {type(name).__name__}")
    return name, _bytes("header", content, None)
