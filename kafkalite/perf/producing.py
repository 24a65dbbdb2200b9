"""What `kafka-producer-perf-test` measures: how fast records are taken, and how soon acknowledged.

The latency of one record in a chunk that was sent together stands for the chunk: watching each record
would cost more than sending it. With a rate, it counts from when the record was to be sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from kafkalite.client.admin import AdminClient
from kafkalite.client.consumer import Consumer
from kafkalite.client.delivery import Deliveries, Delivery
from kafkalite.client.producer import Producer
from kafkalite.common import TopicPartition
from kafkalite.perf.latencies import Latencies, Summary
from kafkalite.perf.load import Payloads, Schedule, Stream, checksum

REPORT_EVERY_S: Final = 5.0
_CHUNK: Final = 1000
_BULK: Final = 5000
"""Records handed over in one call of `send_many`."""


class Report(msgspec.Struct, frozen=True):
    """A stretch of time: what was sent in it."""

    records: int
    seconds: float
    mean_ms: float
    max_ms: float


class Produced(msgspec.Struct, frozen=True):
    """What came of a run."""

    records: int
    bytes: int
    seconds: float
    began: float
    """Monotonic seconds of this machine, so that runs beside each other can be put together."""
    ended: float
    cpu_s: float
    """Of this process."""
    latency_ms: Summary
    checksum: int


async def produce(
    producer: Producer,
    topic: str,
    payloads: Payloads,
    records: int,
    *,
    rate: float | None = None,
    bulk: bool = False,
    tell: Callable[[Report], None] = lambda report: None,
) -> Produced:
    """Send ``records`` to ``topic`` with `send`, or (``bulk``) with `send_many`, and flush.

    ``rate`` is records a second. Raises what keeps a record from being delivered.
    """
    await producer.partitions_for(topic)
    latencies = Latencies()
    most = _BULK if bulk else _CHUNK
    clock = time.perf_counter
    sent = told = 0
    cpu = time.process_time()
    began_monotonic = time.monotonic()
    began = next_report = clock()
    next_report += REPORT_EVERY_S
    schedule = Schedule(began, rate)

    async def watch(delivery: Delivery | Deliveries, since: float) -> None:
        await delivery
        latencies.add((clock() - since) * 1000)

    async with asyncio.TaskGroup() as watching:
        while sent < records:
            now = clock()
            if now >= next_report:
                mean, largest = latencies.since_last()
                tell(Report(sent - told, now - next_report + REPORT_EVERY_S, mean, largest))
                told, next_report = sent, now + REPORT_EVERY_S
            count = schedule.due(sent, now, min(most, records - sent))
            if not count:
                await asyncio.sleep(max(0.0, schedule.at(sent, now) - now))
                continue
            values = payloads.slice(sent, count)
            since = schedule.at(sent, now)
            delivery: Delivery | Deliveries
            if bulk:
                delivery = await producer.send_many(topic, values)
            else:
                send = producer.send
                for value in values:
                    delivery = await send(topic, value)
            watching.create_task(watch(delivery, since))
            sent += len(values)
        await producer.flush()
    seconds = clock() - began
    cpu = time.process_time() - cpu
    return Produced(
        records=sent,
        bytes=payloads.size(sent),
        seconds=seconds,
        began=began_monotonic,
        ended=began_monotonic + seconds,
        cpu_s=cpu,
        latency_ms=latencies.summary(),
        checksum=payloads.checksum(sent),
    )


async def ends_of(bootstrap: str | list[str], topic: str) -> dict[TopicPartition, int]:
    """Where each partition of ``topic`` ends now."""
    async with (
        AdminClient(bootstrap_servers=bootstrap) as admin,
        Consumer(bootstrap_servers=bootstrap) as consumer,
    ):
        (description,) = await admin.describe_topics([topic])
        return await consumer.end_offsets(TopicPartition(topic, p.partition) for p in description.partitions)


class ReadBack(msgspec.Struct, frozen=True):
    """What is in a topic."""

    records: int
    checksum: int
    """Whatever the order, comparable with :attr:`Produced.checksum`."""
    streams: dict[int, int]
    """That of each partition's values in their order, comparable with a consumer's."""


async def read_back(
    bootstrap: str | list[str], topic: str, begin: dict[TopicPartition, int], **options: Any
) -> ReadBack:
    """What was written to ``topic`` since ``begin``, up to its ends as they are now."""
    ends = await ends_of(bootstrap, topic)
    count = found = 0
    streams: defaultdict[int, Stream] = defaultdict(Stream)
    async with Consumer(bootstrap_servers=bootstrap, **options) as consumer:
        waiting = {tp for tp, end in ends.items() if end > begin.get(tp, 0)}
        consumer.assign(sorted(waiting))
        for tp in waiting:
            consumer.seek(tp, begin.get(tp, 0))
        while waiting:
            for tp, columns in (await consumer.getcolumns(timeout_ms=1000, max_records=50_000)).items():
                count += len(columns)
                found += checksum(columns.values)
                streams[tp.partition].take(columns.values)
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp]}
    return ReadBack(count, found, {partition: stream.crc for partition, stream in sorted(streams.items())})
