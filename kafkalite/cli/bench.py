"""`scripts/bench`: records through fresh clusters, from processes of their own, counted and checked.

Each row names its replication and acks, because a number without them says nothing. Client processes
are separate, as users' are; what the brokers spend is read from the kernel. Every record that was
acknowledged is read back: count and a checksum that does not depend on order must agree.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from kafkalite.cli.client_options import outcomes as client_outcomes
from kafkalite.cli.cluster import outcomes as cluster_outcomes
from kafkalite.cli.cluster import quiet_zookeeper, say
from kafkalite.cli.outcome import Failed
from kafkalite.client.admin import AdminClient, NewTopic
from kafkalite.client.consumer import Consumer
from kafkalite.client.producer import Producer
from kafkalite.cluster.launcher import Cluster

TOPIC: Final = "bench"
POOL: Final = 10_000
"""Different records that are sent over and over: making them is not what is measured."""
SEED: Final = 20_110_106
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    name: str
    records: int
    seconds: float
    records_per_s: float
    mb_per_s: float
    """Million bytes of values a second."""
    broker_cpu_s_per_million: float
    """Of all brokers together."""
    broker_peak_rss_mb: float
    """Of the broker that took most."""

    def text(self) -> str:
        return (
            f"{self.name}: {self.records_per_s:,.0f} records/s, {self.mb_per_s:.1f} MB/s, "
            f"{self.broker_cpu_s_per_million:.2f} broker CPU s/M records, "
            f"peak RSS {self.broker_peak_rss_mb:.0f} MB"
        )


@click.command()
@click.option("--records", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option(
    "--record-size", type=click.IntRange(8), default=100, show_default=True, help="Bytes of a value."
)
@click.option("--partitions", type=click.IntRange(1), default=6, show_default=True)
@click.option("--brokers", type=click.Choice(["1", "3"]), multiple=True, help="Only clusters of this size.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def bench(records: int, record_size: int, partitions: int, brokers: tuple[str, ...], output: str) -> None:
    """Measure producing and consuming, on a fresh cluster of one broker and on one of three.

    \b
    scripts/bench
    scripts/bench --records 200000 --brokers 3 --output json
    """
    quiet_zookeeper()
    if output == "text":
        click.echo(machine())
    rows = []
    for count in sorted({int(n) for n in brokers} or {1, 3}):
        with (
            cluster_outcomes(),
            client_outcomes(),
            tempfile.TemporaryDirectory(prefix="kafkalite-bench-") as place,
        ):
            cluster = Cluster.load_or_create(Path(place), brokers=count, zookeepers=1, overrides={}, say=say)
            try:
                cluster.up(timeout_s=120)
                for row in measure(cluster, records=records, record_size=record_size, partitions=partitions):
                    rows.append(row)
                    if output == "text":
                        click.echo(row.text())
            finally:
                cluster.down(timeout_s=60, delete=True)
    if output == "json":
        document = {"machine": machine(), "rows": rows}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def machine() -> str:
    """What the figures were measured on: a number without it cannot be compared.

    How Python was built is told as it tells it itself. Distributions keep their profile-guided
    builds to themselves, so the executable's path is part of the answer.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = re.findall(r"-O\w", sysconfig.get_config_var("OPT") or "")
    if "--enable-optimizations" in arguments:
        flags.append("--enable-optimizations")
    return (
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()} "
        f"({os.path.realpath(sys.executable)}, {platform.python_compiler()}, {' '.join(flags) or 'no flags'})"
    )


def measure(cluster: Cluster, *, records: int, record_size: int, partitions: int) -> list[Row]:
    """Produce and consume on ``cluster``. Raises Failed where what came out is not what went in."""
    replicas = len(cluster.layout.brokers)
    bootstrap = cluster.layout.bootstrap_servers
    asyncio.run(_create(bootstrap, partitions, replicas))
    pids = [process.pid for node in cluster.layout.brokers if (process := cluster.process(node)) is not None]
    rows = []
    work = {"bootstrap": bootstrap, "records": records, "record_size": record_size}
    for role, name in (
        ("produce", f"producer, {replicas}x replication, acks=all"),
        ("consume", f"consumer, {replicas}x replication, acks=all"),
    ):
        before = sum(map(cpu_s, pids))
        answer = _worker({"role": role, **work})
        seconds, spent = answer["seconds"], sum(map(cpu_s, pids)) - before
        rows.append(
            Row(
                name=name,
                records=records,
                seconds=seconds,
                records_per_s=records / seconds,
                mb_per_s=records * record_size / seconds / 1e6,
                broker_cpu_s_per_million=spent / records * 1e6,
                broker_peak_rss_mb=max(map(peak_rss_mb, pids)),
            )
        )
    found = _worker({"role": "verify", **work})
    expected = checksum_of(values(record_size), records)
    if (found["records"], found["checksum"]) != (records, expected):
        raise Failed(f"{found['records']} of {records} records came out, or others than went in")
    return rows


def values(record_size: int) -> list[bytes]:
    """The records of every run, the same each time."""
    chance = random.Random(SEED)
    return [chance.randbytes(record_size) for _ in range(POOL)]


def checksum_of(pool: list[bytes], records: int) -> int:
    """The sum of the CRCs of the first ``records`` records: their order does not matter."""
    sums = [zlib.crc32(value) for value in pool]
    whole, rest = divmod(records, len(pool))
    return whole * sum(sums) + sum(sums[:rest])


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    content = Path(f"/proc/{pid}/stat").read_text()
    fields = content[content.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_rss_mb(pid: int) -> float:
    """The most memory that a process has ever held, in million bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _worker(work: dict[str, Any]) -> dict[str, Any]:
    """Do one thing in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "kafkalite.cli", "bench-worker", json.dumps(work)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if run.returncode:
        raise Failed(f"the process that was to {work['role']} has failed; its own words are above")
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


@click.command()
@click.argument("work")
def worker(work: str) -> None:
    """One of the benchmark's own processes."""
    import uvloop

    arguments = json.loads(work)
    role = {"produce": _produce, "consume": _consume, "verify": _verify}[arguments.pop("role")]
    with client_outcomes():
        click.echo(json.dumps(uvloop.run(role(**arguments))))


async def _create(bootstrap: str, partitions: int, replicas: int) -> None:
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        await admin.create_topics([NewTopic(TOPIC, partitions, replicas)])


async def _produce(bootstrap: str, records: int, record_size: int) -> dict[str, Any]:
    pool = values(record_size)
    async with Producer(bootstrap_servers=bootstrap) as producer:
        await producer.partitions_for(TOPIC)
        begin = time.perf_counter()
        send = producer.send
        for start in range(0, records, POOL):
            for value in pool[: records - start]:
                await send(TOPIC, value)
        await producer.flush()
        return {"seconds": time.perf_counter() - begin}


async def _consume(bootstrap: str, records: int, record_size: int) -> dict[str, Any]:
    count = 0
    async with Consumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        begin = time.perf_counter()
        while count < records:
            for found in (await consumer.getmany(timeout_ms=1000, max_records=50_000)).values():
                count += len(found)
        return {"seconds": time.perf_counter() - begin}


async def _verify(bootstrap: str, records: int, record_size: int) -> dict[str, Any]:
    """Read everything that there is, up to the end as it is now."""
    count = checksum = 0
    async with Consumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        first = await consumer.getmany(timeout_ms=10_000, max_records=50_000)
        ends = await consumer.end_offsets(consumer.assignment())
        batches = first
        while True:
            for found in batches.values():
                count += len(found)
                checksum += sum(zlib.crc32(record.value) for record in found)
            if all([await consumer.position(tp) >= end for tp, end in ends.items()]):
                return {"records": count, "checksum": checksum}
            batches = await consumer.getmany(timeout_ms=1000, max_records=50_000)
