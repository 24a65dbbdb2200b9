"""The Python clients that people use with Apache Kafka, in the benchmark's rows.

aiokafka and confluent-kafka are no dependencies of the project (`pip install aiokafka confluent-kafka`); one
that is not installed is not measured. What they moved is checked outside of the measured time: a producer's
records are read back, a consumer's are counted and summed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from kafkalite.perf.load import Payloads, checksum
from kafkalite.perf.rows import Row

MODULES: Final = {"aiokafka": "aiokafka", "confluent-kafka": "confluent_kafka"}
"""Each client's name and its module's."""
_CHUNK: Final = 1000
_PATIENCE_S: Final = 30.0
_QUEUED: Final = 100_000
"""Records that librdkafka may hold; it refuses more until some are delivered."""


class Moved(msgspec.Struct, frozen=True):
    """What a client sent or read."""

    records: int
    seconds: float
    began: float
    ended: float
    cpu_s: float
    checksum: int


class NotMoved(Exception):
    """A client's records were not delivered, or did not come."""


def installed() -> list[str]:
    """The clients that can be measured here."""
    return [name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None]


class _Stopwatch:
    """Wall and processor time from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu = time.process_time()

    def stop(self) -> Callable[[int, int], Moved]:
        """Take the time now; what was moved may be counted up later."""
        ended, cpu_s = time.monotonic(), time.process_time() - self._cpu
        return lambda records, found: Moved(records, ended - self._began, self._began, ended, cpu_s, found)


# --- aiokafka -------------------------------------------------------------------------------------


async def aiokafka_produce(
    bootstrap: str, topic: str, row: Row, payloads: Payloads, records: int, go: Callable[[], Any]
) -> Moved:
    """Send ``records`` one by one, as many in flight as the client likes. Raises what it raises."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks=row.acks if row.acks == "all" else int(row.acks),
        max_batch_size=row.batch_size,
        linger_ms=int(row.linger_ms),
        compression_type=None if row.compression == "none" else row.compression,
    )
    await producer.start()
    try:
        await producer.partitions_for(topic)
        await go()
        watch = _Stopwatch()
        sent = 0
        last: list[asyncio.Future[Any]] = []
        while sent < records:
            values = payloads.slice(sent, min(_CHUNK, records - sent))
            futures = [await producer.send(topic, value) for value in values]
            last.append(futures[-1])
            sent += len(values)
        await producer.flush()
        await asyncio.gather(*last)
        return watch.stop()(sent, payloads.checksum(sent))
    finally:
        await producer.stop()


async def aiokafka_consume(bootstrap: str, topic: str, records: int, go: Callable[[], Any]) -> Moved:
    """Read ``records`` with `getmany`. Raises NotMoved."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.pause(*consumer.assignment())
        await go()
        watch = _Stopwatch()
        consumer.resume(*consumer.assignment())
        values: list[bytes] = []
        while len(values) < records:
            found = await consumer.getmany(timeout_ms=int(_PATIENCE_S * 1000))
            if not found:
                raise NotMoved(f"aiokafka read {len(values)} of {records} records")
            for batch in found.values():
                values += [record.value for record in batch]
        moved = watch.stop()
        return moved(len(values), checksum(values))
    finally:
        await consumer.stop()


# --- confluent-kafka ------------------------------------------------------------------------------


async def confluent_produce(
    bootstrap: str, topic: str, row: Row, payloads: Payloads, records: int, go: Callable[[], Any]
) -> Moved:
    """Send ``records`` one by one. Raises NotMoved."""
    from confluent_kafka import Producer

    failures: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": row.acks,
            "batch.size": row.batch_size,
            "linger.ms": row.linger_ms,
            "compression.type": row.compression,
            "queue.buffering.max.messages": _QUEUED,
            "on_delivery": lambda error, message: failures.append(error) if error is not None else None,
        }
    )
    producer.list_topics(topic, timeout=_PATIENCE_S)
    await go()
    watch = _Stopwatch()
    sent = 0
    produce, poll = producer.produce, producer.poll
    while sent < records:
        values = payloads.slice(sent, min(_CHUNK, records - sent))
        for value in values:
            while True:
                try:
                    produce(topic, value)
                    break
                except BufferError:
                    poll(0.1)
        poll(0)
        sent += len(values)
    left = producer.flush(_PATIENCE_S)
    moved = watch.stop()
    if left or failures:
        raise NotMoved(f"confluent-kafka did not deliver {left or len(failures)} records: {failures[:1]}")
    return moved(sent, payloads.checksum(sent))


async def confluent_consume(bootstrap: str, topic: str, records: int, go: Callable[[], Any]) -> Moved:
    """Read ``records`` with `consume`. Raises NotMoved."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-{topic}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=_PATIENCE_S).topics[topic].partitions
        await go()
        watch = _Stopwatch()
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        values: list[bytes] = []
        while len(values) < records:
            found: Sequence[Any] = consumer.consume(min(10_000, records - len(values)), timeout=_PATIENCE_S)
            if not found:
                raise NotMoved(f"confluent-kafka read {len(values)} of {records} records")
            values += [message.value() for message in found if message.error() is None]
        moved = watch.stop()
        return moved(len(values), checksum(values))
    finally:
        consumer.close()
