"""Producers and consumers that write and read, and note everything they do in a history."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafkalite.checker.history import (
    Acknowledged,
    Ended,
    Failed,
    HistoryEvent,
    Polled,
    Positioned,
    Sent,
    Unknown,
)
from kafkalite.checker.promise import Mode
from kafkalite.client import Consumer, ConsumerRecord, Producer, TopicPartition
from kafkalite.client.errors import ClientClosedError, ClientError
from kafkalite.protocol.errors import BrokerError

from .cluster import Cluster
from .loop import Process
from .pace import Pace

VALUES_A_PRODUCER = 10_000_000


@dataclass(frozen=True, slots=True)
class ProducerSpec:
    """How one producer writes."""

    mode: Mode = Mode.IDEMPOTENT
    records_a_second: float = 20.0
    linger_ms: float = 5
    max_batch_size: int = 4096
    delivery_timeout_ms: int = 20_000
    request_timeout_ms: int = 3_000

    @property
    def acks(self) -> int:
        return {Mode.ACKS_0: 0, Mode.ACKS_1: 1}.get(self.mode, -1)


class Workload:
    """All clients of one world and their common history."""

    def __init__(
        self,
        cluster: Cluster,
        partitions: Sequence[TopicPartition],
        *,
        on_acknowledged: Callable[[TopicPartition, int], None],
    ) -> None:
        """``on_acknowledged`` is told of records that were acknowledged with acks=all."""
        self.cluster = cluster
        self.partitions = list(partitions)
        self.history: list[HistoryEvent] = []
        self.modes: dict[str, Mode] = {}
        self.positions: dict[str, dict[TopicPartition, int]] = {}
        """The next offset of each consumer."""
        self.pace = Pace()
        self._on_acknowledged = on_acknowledged
        self._stop_writing = asyncio.Event()
        self._stop_reading = asyncio.Event()
        self._writers: list[asyncio.Task[None]] = []
        self._readers: list[asyncio.Task[None]] = []
        self.processes: list[Process] = []

    def start_producer(self, spec: ProducerSpec) -> None:
        """Begin to write."""
        number = len(self._writers)
        process = Process(f"producer-{number}")
        self.processes.append(process)
        self.modes[process.name] = spec.mode
        chance = self.cluster.draw()
        self._writers.append(process.spawn(self._write(process, number, spec, chance), process.name))

    def start_consumer(self) -> None:
        """Begin to read every partition from its start."""
        process = Process(f"consumer-{len(self._readers)}")
        self.processes.append(process)
        chance = self.cluster.draw()
        self._readers.append(process.spawn(self._read(process, chance), process.name))

    async def stop_writing(self) -> None:
        """Stop the producers; returns when every record's outcome is known. Raises what one raised."""
        self._stop_writing.set()
        self.pace.stir()  # Nobody is to sleep through it.
        await asyncio.gather(*self._writers)

    async def stop_reading(self) -> None:
        """Stop the consumers. Raises what one raised."""
        self._stop_reading.set()
        await asyncio.gather(*self._readers)

    def check_alive(self) -> None:
        """Raise what a client has failed with."""
        for task in (*self._writers, *self._readers):
            if task.done() and not self._stop_writing.is_set():
                task.result()

    # --- writing -------------------------------------------------------------------------

    async def _write(self, process: Process, number: int, spec: ProducerSpec, chance: random.Random) -> None:
        producer = self.cluster.producer(
            process,
            acks=spec.acks,
            enable_idempotence=spec.mode is Mode.IDEMPOTENT,
            linger_ms=spec.linger_ms,
            max_batch_size=spec.max_batch_size,
            delivery_timeout_ms=spec.delivery_timeout_ms,
            request_timeout_ms=spec.request_timeout_ms,
            metadata_max_age_ms=30_000,
        )
        await _started(producer)
        now = self.cluster.loop.time
        value = number * VALUES_A_PRODUCER
        try:
            async with asyncio.TaskGroup() as outcomes:
                while not self._stop_writing.is_set():
                    value += 1
                    topic, partition = chance.choice(self.partitions)
                    self.history.append(Sent(process.name, topic, partition, value, now()))
                    body = b"%d %s" % (value, b"x" * int(chance.expovariate(1 / 60)))
                    try:
                        delivery = await producer.send(topic, body, partition=partition)
                    except ClientClosedError:
                        raise
                    except (ClientError, BrokerError):
                        self.history.append(Failed(value, now()))
                    else:
                        outcomes.create_task(self._outcome(value, delivery, spec))
                    if chance.random() < 0.5:  # Now and then several at once, for batches of more than one.
                        await self.pace.wait(chance, spec.records_a_second * 0.5)
        finally:
            await producer.stop()

    async def _outcome(self, value: int, delivery: object, spec: ProducerSpec) -> None:
        now = self.cluster.loop.time
        try:
            metadata = await delivery  # type: ignore[misc]
        except ClientClosedError:
            raise
        except (ClientError, BrokerError):
            self.history.append(Unknown(value, now()))
        else:
            self.history.append(Acknowledged(value, metadata.offset, now()))
            if spec.acks == -1 and metadata.offset >= 0:
                self._on_acknowledged(metadata.topic_partition, metadata.offset)

    # --- reading -------------------------------------------------------------------------

    async def _read(self, process: Process, chance: random.Random) -> None:
        """Read on and on: now and then as a new consumer that reads the last part once more."""
        self._assign(process, None, back=0)
        while not self._stop_reading.is_set():
            await self._read_as(
                process,
                polls=chance.randrange(30, 300),
                back=chance.choice([0, 20, 100]),
                min_bytes=chance.choice([1, 1000]),
                max_wait_ms=chance.choice([500, 3_000, 5_000]),
            )

    async def _read_as(
        self, process: Process, *, polls: int, back: int, min_bytes: int, max_wait_ms: int
    ) -> None:
        consumer = self._consumer(process, min_bytes=min_bytes, max_wait_ms=max_wait_ms)
        await _started(consumer)
        try:
            self._assign(process, consumer, back=back)
            while polls > 0 and not self._stop_reading.is_set():
                polls -= 1
                await self._poll(process, consumer)
        finally:
            await consumer.stop()

    def _consumer(self, process: Process, *, min_bytes: int = 1, max_wait_ms: int = 500) -> Consumer:
        return self.cluster.consumer(
            process,
            auto_offset_reset="earliest",
            fetch_min_bytes=min_bytes,
            fetch_max_wait_ms=max_wait_ms,
            request_timeout_ms=max_wait_ms + 2_000,
            max_partition_fetch_bytes=16_384,
            metadata_max_age_ms=30_000,
        )

    def _assign(self, process: Process, consumer: Consumer | None, *, back: int) -> None:
        """Assign everything, ``back`` records before where this reader was."""
        positions = self.positions.setdefault(process.name, {})
        if consumer is not None:
            consumer.assign(self.partitions)
        for partition in self.partitions:
            offset = positions[partition] = max(0, positions.get(partition, 0) - back)
            if consumer is not None:
                consumer.seek(partition, offset)
            self.history.append(
                Positioned(
                    process.name, partition.topic, partition.partition, offset, self.cluster.loop.time()
                )
            )

    async def _poll(self, process: Process, consumer: Consumer) -> None:
        try:
            found = await consumer.getmany(timeout_ms=2_000)
        except ClientClosedError:
            raise
        except (ClientError, BrokerError) as error:
            self.cluster.note(f"{process.name}: {type(error).__name__}: {error}")
            await asyncio.sleep(0.5)
            return
        for partition, records in found.items():
            self._note_read(process, partition, records)

    def _note_read(
        self, process: Process, partition: TopicPartition, records: Sequence[ConsumerRecord]
    ) -> None:
        self.history.append(
            Polled(
                process.name,
                partition.topic,
                partition.partition,
                [record.offset for record in records],
                [int(record.value.split(b" ", 1)[0]) for record in records],
                self.cluster.loop.time(),
            )
        )
        self.positions[process.name][partition] = records[-1].offset + 1

    # --- the end -------------------------------------------------------------------------

    async def probe(self, partition: TopicPartition) -> None:
        """Have one more record acknowledged by all in-sync replicas, however often it takes."""
        name = f"probe-{partition}"
        process = Process(name)
        self.modes[name] = Mode.IDEMPOTENT
        value = (1000 + len(self.modes)) * VALUES_A_PRODUCER

        async def write() -> None:
            producer = self.cluster.producer(process, request_timeout_ms=3_000, delivery_timeout_ms=60_000)
            await _started(producer)
            try:
                topic, number = partition
                self.history.append(Sent(name, topic, number, value, self.cluster.loop.time()))
                metadata = await producer.send_and_wait(topic, b"%d" % value, partition=number)
                self.history.append(Acknowledged(value, metadata.offset, self.cluster.loop.time()))
                self._on_acknowledged(partition, metadata.offset)
            finally:
                await producer.stop()

        await process.spawn(write(), name)

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """Where each partition ends for readers."""
        process = Process("end-offsets")

        async def ask() -> dict[TopicPartition, int]:
            consumer = self._consumer(process)
            await _started(consumer)
            try:
                return await consumer.end_offsets(self.partitions)
            finally:
                await consumer.stop()

        return await process.spawn(ask(), "end offsets")

    async def read_all(self, ends: dict[TopicPartition, int]) -> None:
        """Read every partition from its start to ``ends`` with a reader of its own."""
        process = Process("final-reader")

        async def read() -> None:
            consumer = self._consumer(process)
            await _started(consumer)
            try:
                self._assign(process, consumer, back=0)
                positions = self.positions[process.name]
                while any(positions[partition] < end for partition, end in ends.items()):
                    await self._poll(process, consumer)
            finally:
                await consumer.stop()

        await process.spawn(read(), process.name)
        for partition, end in ends.items():
            self.history.append(Ended(partition.topic, partition.partition, end, self.cluster.loop.time()))


async def _started(client: Producer | Consumer) -> None:
    """Start a client as a patient user would: again until the cluster answers."""
    while True:
        try:
            await client.start()
            return
        except (ClientError, BrokerError):
            await asyncio.sleep(0.5)
