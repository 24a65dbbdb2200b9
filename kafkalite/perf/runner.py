"""Runs the rows: a fresh cluster for each, its clients as processes, what all of them spend, the check."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, NamedTuple

import msgspec

from kafkalite.client.admin import AdminClient, NewTopic
from kafkalite.cluster.launcher import Cluster
from kafkalite.perf.load import Pooled
from kafkalite.perf.machine import cpu_s, load, peak_rss_mb
from kafkalite.perf.rows import Role, Row
from kafkalite.perf.worker import Work

TOPIC: Final = "bench"
FLOOD_TOPIC: Final = "flood"
"""Where a producer writes that is only there to disturb: not among the records that are looked for."""


class RunFailed(Exception):
    """A worker failed, or what came out is not what went in."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one row."""

    row: str
    records: int
    """Of all clients that count."""
    records_per_s: float
    """The clients' together; where one sends and one reads, the slower one's."""
    seconds: float
    latency_ms: dict[str, float] | None
    client_cpu_s_per_million: float
    broker_cpu_s_per_million: float
    """Of all brokers together."""
    broker_peak_rss_mb: float
    """Of the broker that took most."""
    client_peak_rss_mb: float
    load_before: float
    """The machine's load average before: how much the figure may be trusted."""


class Spread(NamedTuple):
    """Several rounds of one figure."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


class Worker(NamedTuple):
    process: subprocess.Popen[str]
    role: Role

    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


@contextmanager
def fresh_cluster(
    brokers: int, say: Callable[[str], None], overrides: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Cluster]:
    """A cluster that is gone afterwards; ``overrides`` are of its brokers' properties."""
    with tempfile.TemporaryDirectory(prefix="kafkalite-bench-") as place:
        cluster = Cluster.load_or_create(
            Path(place), brokers=brokers, zookeepers=1, overrides=overrides, say=say
        )
        try:
            cluster.up(timeout_s=120)
            yield cluster
        finally:
            cluster.down(timeout_s=60, delete=True)


def run_row(row: Row, records: int, say: Callable[[str], None]) -> Run:
    """One round of ``row`` with about ``records`` records. Raises RunFailed."""
    records = max(1000, int(records * row.share))
    before = load()
    with fresh_cluster(3, say) as cluster:
        bootstrap = cluster.layout.bootstrap_servers
        asyncio.run(_create(bootstrap, row))
        pids = [p.pid for node in cluster.layout.brokers if (p := cluster.process(node)) is not None]
        work = Work(bootstrap=bootstrap, topic=TOPIC, row=row, role=row.roles[0], records=records)
        produced: list[dict[str, Any]] = []
        if row.filled:
            produced = _fill(work)
        workers = [start_worker(_share_of(work, role)) for role in row.roles]
        spent = sum(map(cpu_s, pids))
        answers = finish_workers(workers)
        spent = sum(map(cpu_s, pids)) - spent
        # A flood ends where it was ended, so what it wrote cannot be known beforehand.
        if all(role.counts for role in row.roles):
            produced += [a for a, role in zip(answers, row.roles, strict=True) if role.do == "produce"]
            consumed = [a for a, role in zip(answers, row.roles, strict=True) if role.do == "consume"]
            _verify(work, produced, consumed)
        peak = max(map(peak_rss_mb, pids))
    return _sum_up(row, answers, spent, peak, before)


def fill(bootstrap: str, records: int) -> None:
    """Write ``records`` records of 100 bytes to TOPIC, which exists. Raises RunFailed."""
    row = Row(name="fill", title="fill", roles=(Role(do="produce", bulk=True),))
    _fill(Work(bootstrap=bootstrap, topic=TOPIC, row=row, role=row.roles[0], records=records))


def _fill(work: Work) -> list[dict[str, Any]]:
    """Fill the topic and return what the producer said."""
    return finish_workers([start_worker(msgspec.structs.replace(work, role=Role(do="produce", bulk=True)))])


def _share_of(work: Work, role: Role) -> Work:
    """Several producers share the records; each consumer reads them all."""
    records, topic = work.records, TOPIC
    if role.do == "latency":
        records = max(1000, work.records // 100)
    elif not role.counts:
        records, topic = 10**9, FLOOD_TOPIC  # Until it is ended.
    elif role.do == "produce":
        records //= sum(other.do == "produce" for other in work.row.roles)
    return msgspec.structs.replace(work, topic=topic, role=role, records=records)


def start_worker(work: Work) -> Worker:
    process = subprocess.Popen(
        [sys.executable, "-m", "kafkalite.cli", "bench-worker", msgspec.json.encode(work).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Worker(process, work.role)


def finish_workers(workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """Let all begin together and take their answers; ends those that only disturb."""
    try:
        for worker in workers:
            if worker.role.do != "verify" and worker.out().readline() != "ready\n":
                raise RunFailed(f"the process that was to {worker.role.do} has failed")
        for worker in workers:
            assert worker.process.stdin is not None
            worker.process.stdin.write("go\n")
            worker.process.stdin.flush()
        answers = []
        for worker in workers:
            if worker.role.counts:
                text = worker.out().read()
                if worker.process.wait() != 0:
                    raise RunFailed(
                        f"the process that was to {worker.role.do} has failed; its words are above"
                    )
                answers.append(json.loads(text))
        return answers
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()


def _verify(work: Work, produced: Sequence[dict[str, Any]], consumed: Sequence[dict[str, Any]]) -> None:
    """Read everything back: count and checksum must be those of what was acknowledged.

    What each consumer read while the clock ran must be the same, partition by partition.
    """
    if not produced:
        return
    (found,) = finish_workers([start_worker(msgspec.structs.replace(work, role=Role(do="verify")))])
    payloads = Pooled.random(work.row.record_size)
    expected = (
        sum(each["records"] for each in produced),
        sum(payloads.checksum(each["records"]) for each in produced),
    )
    if (found["records"], found["checksum"]) != expected:
        raise RunFailed(
            f"{work.row.name}: {found['records']} of {expected[0]} records came out, or others than went in"
        )
    for answer in consumed:
        if (answer["records"], answer["streams"]) != (found["records"], found["streams"]):
            raise RunFailed(
                f"{work.row.name}: {answer['records']} of {found['records']} records were read, or others"
            )


def _sum_up(
    row: Row, answers: Sequence[dict[str, Any]], brokers_cpu_s: float, peak: float, before: float
) -> Run:
    roles = [role for role in row.roles if role.counts]
    rates: list[float] = []
    records, seconds = 0, 0.0
    for do in dict.fromkeys(role.do for role in roles):
        same = [a for a, role in zip(answers, roles, strict=True) if role.do == do]
        count = sum(a["records"] for a in same)
        records += count
        if do == "latency":
            rates += [
                role.rate or 1000 / a["latency_ms"]["mean"]
                for a, role in zip(answers, roles, strict=True)
                if role.do == do
            ]
            continue
        took = max(a["ended"] for a in same) - min(a["began"] for a in same)
        seconds = max(seconds, took)
        rates.append(count / took)
    latency = next((a["latency_ms"] for a, r in zip(answers, roles, strict=True) if r.do == "latency"), None)
    return Run(
        row=row.name,
        records=records,
        records_per_s=min(rates),
        seconds=seconds,
        latency_ms=latency,
        client_cpu_s_per_million=sum(a["cpu_s"] for a in answers) / records * 1e6,
        broker_cpu_s_per_million=brokers_cpu_s / records * 1e6,
        broker_peak_rss_mb=peak,
        client_peak_rss_mb=max(a["peak_rss_mb"] for a in answers),
        load_before=before,
    )


async def _create(bootstrap: str, row: Row) -> None:
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        await admin.create_topics(
            NewTopic(name, row.partitions, row.replicas)
            for name in (TOPIC, FLOOD_TOPIC)[: 1 + row.is_flooded]
        )
