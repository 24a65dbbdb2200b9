"""What is no rate of one row: costs that must not grow, a reader far behind, a cold start, a fail-over.

Each study starts clusters of its own and returns figures. What it moves is checked as everywhere: answers
hold the records that were asked for, writers' records are acknowledged, readers' are counted.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from kafkalite.client import AdminClient, NewTopic, Producer
from kafkalite.cluster.launcher import Cluster
from kafkalite.common import Address
from kafkalite.perf.floor import measure as measure_floor
from kafkalite.perf.load import Pooled
from kafkalite.perf.machine import cpu_s, peak_rss_mb
from kafkalite.perf.rows import COLUMNS, SEND_MANY, Role, Row
from kafkalite.perf.runner import TOPIC, RunFailed, finish_workers, fresh_cluster, start_worker
from kafkalite.perf.worker import Work
from kafkalite.protocol.fetch import FetchPartition, FetchRequest, FetchTopic
from kafkalite.protocol.metadata import MetadataRequest, MetadataTopic
from kafkalite.transport.http import HttpTransport
from kafkalite.transport.rpc import ask

_SAMPLES: Final = 150
_CHUNK: Final = 5_000
_APPENDED: Final = 600
"""Records of one measured append."""
_FETCHED_BYTES: Final = 64 * 1024
"""The most that one measured fetch is given."""
_SESSION_TIMEOUT_MS: Final = 6_000
"""Of the brokers in a fail-over: how long ZooKeeper waits before it takes one that is silent for dead."""


class Figure(msgspec.Struct, frozen=True):
    """One thing measured."""

    what: str
    value: float
    unit: str


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large the studies are; tests take small ones."""

    records: int = 10_000_000
    """In the log that costs must not depend on, and before the reader that is far behind."""
    partitions: int = 1_000
    log_bytes: int = 10 * 10**9
    """What a broker has on its disk at a cold start."""
    writes_per_s: int = 50_000
    """Records a second while somebody reads from the start: well below what the machine can take, so
    that a writer that does not keep up was held up."""
    seconds: int = 20
    messages: int = 20_000
    """Records whose bare messages are passed on."""


Say: TypeAlias = Callable[[str], None]


class Study(NamedTuple):
    """A named measurement."""

    title: str
    run: Callable[[Size, Say], list[Figure]]


# --- costs that must not grow ---------------------------------------------------------------------


def growth(size: Size, say: Say) -> list[Figure]:
    """The same operations on a log and on one that is a hundred times as large."""
    with fresh_cluster(3, say) as cluster:
        return asyncio.run(_growth(cluster.layout.bootstrap_servers, size.records))


async def _growth(bootstrap: str, records: int) -> list[Figure]:
    await _create(bootstrap, NewTopic(TOPIC, 1, 3))
    figures: list[Figure] = []
    written = 0
    async with Producer(bootstrap_servers=bootstrap, linger_ms=0, max_batch_size=262_144) as producer:
        for goal in (records // 100, records):
            await _fill(producer, goal - written)
            written = goal
            costs = await _costs(bootstrap, producer, goal)
            written += _SAMPLES * _APPENDED
            figures += [Figure(f"{what}, {goal:,} records stored", ms, "ms") for what, ms in costs.items()]
    return figures


async def _costs(bootstrap: str, producer: Producer, stored: int) -> Mapping[str, float]:
    """The first quartile of each operation: what it costs when nothing else was in its way."""
    payloads = Pooled.random(100).slice(0, _APPENDED)
    chance = random.Random(stored)
    transport = HttpTransport()
    leader = await _leader(bootstrap)
    topic = MetadataTopic(name=TOPIC)

    async def append() -> None:
        await (await producer.send_many(TOPIC, payloads))

    async def metadata() -> None:
        request = MetadataRequest(topics=[topic], allow_auto_topic_creation=False)
        answer = await ask(transport, leader, request, lane="metadata", timeout_ms=30_000)
        if answer.topics[0].error_code:
            raise RunFailed(f"metadata was answered with error {answer.topics[0].error_code}")

    async def fetch(offset: int) -> None:
        part = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=_FETCHED_BYTES)
        request = FetchRequest(
            max_wait_ms=0, min_bytes=1, topics=[FetchTopic(topic=TOPIC, partitions=[part])]
        )
        answer = await ask(transport, leader, request, lane="fetch", timeout_ms=30_000)
        found = answer.responses[0].partitions[0]
        if found.error_code or not found.records:
            raise RunFailed(f"a fetch at {offset} found error {found.error_code} and no records")

    try:
        return {
            f"append {_APPENDED} records, acks=all": await _quartile(append),
            "metadata": await _quartile(metadata),
            "fetch at the end": await _quartile(lambda: fetch(stored - 1)),
            "fetch at a random old offset": await _quartile(lambda: fetch(chance.randrange(stored))),
        }
    finally:
        await transport.close()


async def _quartile(operation: Callable[[], Awaitable[None]]) -> float:
    """In milliseconds."""
    times = []
    for _ in range(_SAMPLES):
        began = time.perf_counter()
        await operation()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.quantiles(times, n=4)[0]


# --- a reader that is far behind ------------------------------------------------------------------


def catch_up(size: Size, say: Say) -> list[Figure]:
    """Whether a writer keeps its rate while somebody reads the log from its start."""
    row = Row(name="catch-up", title="", roles=(SEND_MANY, COLUMNS), acks="all", batch_size=65_536)
    with fresh_cluster(3, say) as cluster:
        bootstrap = cluster.layout.bootstrap_servers
        asyncio.run(_create(bootstrap, NewTopic(TOPIC, row.partitions, row.replicas)))
        full = Work(bootstrap=bootstrap, topic=TOPIC, row=row, role=SEND_MANY, records=size.records)
        finish_workers([start_worker(full)])
        steadily = Role(do="produce", bulk=True, rate=float(size.writes_per_s))
        writing = msgspec.structs.replace(full, role=steadily, records=size.writes_per_s * size.seconds)
        (alone,) = finish_workers([start_worker(writing)])
        reading = msgspec.structs.replace(full, role=COLUMNS)
        beside, read = finish_workers([start_worker(writing), start_worker(reading)])
    if read["records"] != size.records:
        raise RunFailed(f"{read['records']} of {size.records} records were read")
    return [
        Figure("written while nobody reads", alone["records"] / alone["seconds"], "records/s"),
        Figure("acknowledged after, p99", alone["latency_ms"]["p99"], "ms"),
        Figure(
            f"written while {size.records:,} records are read from the start",
            beside["records"] / beside["seconds"],
            "records/s",
        ),
        Figure("acknowledged after, p99, meanwhile", beside["latency_ms"]["p99"], "ms"),
        Figure("read meanwhile", read["records"] / read["seconds"], "records/s"),
    ]


# --- a cold start ---------------------------------------------------------------------------------


def cold_start(size: Size, say: Say) -> list[Figure]:
    """From the start of a broker's process until it serves, with much on its disk."""
    record_size = 100_000
    row = Row(
        name="cold-start",
        title="",
        roles=(SEND_MANY,),
        replicas=1,
        partitions=size.partitions,
        record_size=record_size,
        batch_size=1_000_000,
    )
    figures = []
    with fresh_cluster(1, say) as cluster:
        bootstrap = cluster.layout.bootstrap_servers
        asyncio.run(_create(bootstrap, NewTopic(TOPIC, row.partitions, 1)))
        records = size.log_bytes // record_size
        work = Work(bootstrap=bootstrap, topic=TOPIC, row=row, role=SEND_MANY, records=records)
        finish_workers([start_worker(work)])
        for how in ("an orderly stop", "kill -9"):
            if how == "kill -9":
                cluster.kill(["broker-1"])
            else:
                cluster.stop(["broker-1"], timeout_s=120)
            began = time.perf_counter()
            cluster.start(["broker-1"], timeout_s=600)
            seconds = time.perf_counter() - began
            process = cluster.process(cluster.layout.brokers[0])
            assert process is not None
            after = f"after {how}, {size.partitions:,} partitions, {size.log_bytes / 1e9:g} GB"
            figures += [
                Figure(f"until it serves {after}", seconds, "s"),
                Figure("processor time of that", cpu_s(process.pid), "s"),
                Figure("memory at most", peak_rss_mb(process.pid), "MB"),
            ]
    return figures


# --- a fail-over ----------------------------------------------------------------------------------


def fail_over(size: Size, say: Say) -> list[Figure]:
    """From the death of a broker until every partition that it led is led by another one."""
    overrides = {"zookeeper.session.timeout.ms": str(_SESSION_TIMEOUT_MS)}
    with fresh_cluster(3, say, overrides) as cluster:
        return asyncio.run(_fail_over(cluster, size.partitions))


async def _fail_over(cluster: Cluster, partitions: int) -> list[Figure]:
    bootstrap = cluster.layout.bootstrap_servers
    await _create(
        bootstrap, NewTopic(TOPIC, partitions, 3, topic_configs={"min.insync.replicas": "2"}), wait_s=120
    )
    options: dict[str, Any] = {"bootstrap_servers": bootstrap, "retry_backoff_ms": 50}
    async with AdminClient(bootstrap_servers=bootstrap) as admin, Producer(**options) as producer:
        (before,) = await admin.describe_topics([TOPIC])
        victim = before.partitions[0].leader
        led = {part.partition for part in before.partitions if part.leader == victim}
        await producer.send_and_wait(TOPIC, b"before", partition=0)
        await asyncio.to_thread(cluster.kill, [f"broker-{victim}"])
        began = time.perf_counter()
        await producer.send_and_wait(TOPIC, b"after", partition=0)
        acknowledged_s = time.perf_counter() - began
        async with asyncio.timeout(120):
            while True:
                (now,) = await admin.describe_topics([TOPIC])
                if all(part.leader not in (None, victim) for part in now.partitions):
                    break
                await asyncio.sleep(0.02)
    return [
        Figure("the session timeout, which is in both of these", _SESSION_TIMEOUT_MS / 1000, "s"),
        Figure(f"from kill -9 to the next acknowledgement, {partitions:,} partitions", acknowledged_s, "s"),
        Figure(f"until all {len(led):,} of its partitions have a leader", time.perf_counter() - began, "s"),
    ]


# --- the floor ------------------------------------------------------------------------------------


def floor(size: Size, say: Say) -> list[Figure]:
    """What a record's messages take by themselves, to be held against the rows about latency."""
    found = measure_floor(size.messages)
    return [
        Figure("a record's messages, mean", found.latency_ms.mean, "ms"),
        Figure("p50", found.latency_ms.p50, "ms"),
        Figure("p99", found.latency_ms.p99, "ms"),
        Figure("processor time of leader and followers", found.brokers_cpu_ms, "ms"),
        Figure("of the client", found.client_cpu_ms, "ms"),
    ]


STUDIES: Final[Mapping[str, Study]] = MappingProxyType(
    {
        "growth": Study("costs on a log of 100 thousand and of 10 million records", growth),
        "catch-up": Study("10 million records read from the start while records are written", catch_up),
        "cold-start": Study("start of a broker with 1,000 partitions and 10 GB of log", cold_start),
        "fail-over": Study("fail-over with 1,000 partitions", fail_over),
        "floor": Study("the messages of one record (3x, acks=all) with nothing behind them", floor),
    }
)


async def _create(bootstrap: str, topic: NewTopic, *, wait_s: float = 60) -> None:
    """Create ``topic`` and wait until every partition has a leader."""
    async with AdminClient(bootstrap_servers=bootstrap, default_api_timeout_ms=120_000) as admin:
        await admin.create_topics([topic])
        async with asyncio.timeout(wait_s):
            while True:
                (found,) = await admin.describe_topics([topic.name])
                if all(part.leader is not None for part in found.partitions):
                    return
                await asyncio.sleep(0.05)


async def _leader(bootstrap: str) -> Address:
    """Where partition 0 is led."""
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        (topic,) = await admin.describe_topics([TOPIC])
        brokers = (await admin.describe_cluster()).brokers
        return next(node.address for node in brokers if node.node_id == topic.partitions[0].leader)


async def _fill(producer: Producer, records: int) -> None:
    """Write ``records`` small records; returns when all are acknowledged."""
    payloads = Pooled.random(100)
    sent = 0
    while sent < records:
        values = payloads.slice(sent, min(_CHUNK, records - sent))
        await producer.send_many(TOPIC, values)
        sent += len(values)
    await producer.flush()
