"""What `kafka-e2e-latency` measures: from when a record was to be sent until a consumer has it.

With a rate, a record that leaves late because one before it was slow counts its waiting, too: otherwise
the worst moments would hide those behind them. Without one, each record is sent when the one before it
has arrived, as Kafka's tool does.
"""

from __future__ import annotations

import asyncio
import gc
import time

import msgspec

from kafkalite.client.consumer import Consumer
from kafkalite.client.producer import Producer
from kafkalite.common import TopicPartition
from kafkalite.perf.latencies import Latencies, Summary
from kafkalite.perf.load import Pooled

PATIENCE_S = 30.0
"""How long a record may take before the run is given up."""


class Measured(msgspec.Struct, frozen=True):
    """What came of a run."""

    records: int
    latency_ms: Summary
    cpu_s: float
    """Of this process, which sends and reads."""


class WrongRecord(Exception):
    """A record came that was not sent, or one came twice, or one did not come."""


async def measure(
    producer: Producer,
    consumer: Consumer,
    topic: str,
    records: int,
    *,
    size: int,
    rate: float | None,
    warm_up: int = 0,
) -> Measured:
    """Send ``records`` (after ``warm_up`` others) of ``size`` bytes (8 at least) and see them arrive.

    ``consumer`` reads nothing yet. Raises WrongRecord.
    """
    total = warm_up + records
    partitions = await producer.partitions_for(topic)
    consumer.assign(TopicPartition(topic, partition) for partition in sorted(partitions))
    await consumer.seek_to_end()
    filler = Pooled.random(max(size - 8, 0)).slice(0, 1)[0]
    due: list[float] = []
    is_missing = [True] * total
    latencies = Latencies()
    arrived = 0
    came = asyncio.Event()
    clock = time.perf_counter
    gc.collect()
    gc.freeze()
    cpu = time.process_time()

    async def read() -> None:
        nonlocal arrived
        while arrived < total:
            found = await consumer.getcolumns(timeout_ms=PATIENCE_S * 1000)
            now = clock()
            if not found:
                raise WrongRecord(f"{total - arrived} of {total} records did not arrive")
            for columns in found.values():
                for value in columns.values:
                    number = int.from_bytes(value[:8], "big")
                    if number >= len(due) or not is_missing[number] or value[8:] != filler:
                        raise WrongRecord(f"record {number} was not sent, or came twice, or changed")
                    is_missing[number] = False
                    arrived += 1
                    if number >= warm_up:
                        latencies.add((now - due[number]) * 1000)
            came.set()

    async def write() -> None:
        began = clock()
        for number in range(total):
            if rate is not None:
                if (wait := began + number / rate - clock()) > 0:
                    await asyncio.sleep(wait)
                due.append(began + number / rate)
            else:
                while arrived < number:
                    came.clear()
                    await came.wait()
                due.append(clock())
            await producer.send(topic, number.to_bytes(8, "big") + filler)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        tasks.create_task(write())
    return Measured(records, latencies.summary(), time.process_time() - cpu)
