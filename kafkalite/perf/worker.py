"""One client process of the benchmark: connects, says so, waits for the word, works, answers in JSON.

Clients are processes of their own, as users' are. They stand ready before the clock starts, so that a
start-up is no part of any figure.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from kafkalite.client.consumer import Consumer
from kafkalite.client.producer import Producer
from kafkalite.perf import consuming, end_to_end, producing, python_clients
from kafkalite.perf.load import Pooled
from kafkalite.perf.python_clients import Moved
from kafkalite.perf.rows import Role, Row


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do."""

    bootstrap: str
    topic: str
    row: Row
    role: Role
    records: int
    client: str = "kafkalite"
    """Or one of :data:`kafkalite.perf.python_clients.MODULES`, against Apache Kafka."""


async def work(task: Work) -> msgspec.Struct:
    """Do ``task``; the answer is one of the reports of the performance tools."""
    row, role = task.row, task.role
    if role.do == "verify":
        return await producing.read_back(task.bootstrap, task.topic, {})
    sends: dict[str, Any] = {
        "bootstrap_servers": task.bootstrap,
        "acks": row.acks,
        "max_batch_size": row.batch_size,
        "linger_ms": row.linger_ms,
        "compression_type": row.compression,
    }
    reads: dict[str, Any] = {"bootstrap_servers": task.bootstrap, "auto_offset_reset": "earliest"}
    payloads = Pooled.random(row.record_size)
    if task.client != "kafkalite":
        return await _foreign(task, payloads)
    async with AsyncExitStack() as stack:
        if role.do == "produce":
            producer = await stack.enter_async_context(Producer(**sends))
            await producer.partitions_for(task.topic)
            await _go()
            return await producing.produce(
                producer, task.topic, payloads, task.records, rate=role.rate, bulk=role.bulk
            )
        if role.do == "consume":
            consumer = await stack.enter_async_context(Consumer(task.topic, **reads))
            # What it fetches before the word is the first part of an answer at most; it is paused at once.
            consumer.pause(*consumer.assignment())
            await _go()
            consumer.resume(*consumer.assignment())
            return await consuming.consume(consumer, task.records, timeout_s=30, columns=role.bulk)
        producer = await stack.enter_async_context(Producer(**sends))
        consumer = await stack.enter_async_context(Consumer(**reads))
        await _go()
        return await end_to_end.measure(
            producer, consumer, task.topic, task.records, size=row.record_size, rate=role.rate, warm_up=1000
        )


async def _foreign(task: Work, payloads: Pooled) -> Moved:
    """The same with another project's client."""
    produce, consume = {
        "aiokafka": (python_clients.aiokafka_produce, python_clients.aiokafka_consume),
        "confluent-kafka": (python_clients.confluent_produce, python_clients.confluent_consume),
    }[task.client]
    if task.role.do == "produce":
        return await produce(task.bootstrap, task.topic, task.row, payloads, task.records, _go)
    return await consume(task.bootstrap, task.topic, task.records, _go)


async def _go() -> None:
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
