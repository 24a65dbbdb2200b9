"""The same rows against a running Apache Kafka, with its own Java tools and with Python's clients.

Nothing of Kafka belongs to this project: its jars are found where the caller says. A row's topic is made
anew; latency is measured one record after the other, for that is what Kafka's tool does.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from kafkalite.perf.rows import Role, Row
from kafkalite.perf.runner import RunFailed, finish_workers, start_worker
from kafkalite.perf.worker import Work

_RATE: Final = re.compile(r"^\d+ records sent, ([\d.]+) records/sec.* 99\.9th\.$", re.MULTILINE)
_LATENCY: Final = re.compile(
    r"Avg latency: ([\d.,]+) ms\s+Percentiles: 50th = ([\d.]+), 99th = ([\d.]+), 99.9th = ([\d.]+)"
)
_FETCH_RATE_COLUMN: Final = 9
"""`fetch.nMsg.sec`: without the seconds that joining a group takes."""


class KafkaFailed(Exception):
    """A tool of Kafka's failed, or said something else than expected."""


class KafkaRun(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one row."""

    row: str
    records_per_s: float
    latency_ms: dict[str, float] | None = None
    client: str = "java"


class Kafka:
    """A Kafka cluster and the jars of its tools."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        """``home`` is Kafka's directory, or a folder with its jars."""
        self._bootstrap = bootstrap
        self._jars = home / "libs" if (home / "libs").is_dir() else home
        self._topics = 0

    def run_row(self, row: Row, records: int) -> KafkaRun | None:
        """One round of ``row``; None where Kafka's tools have nothing like it."""
        if any(role.rate for role in row.roles):
            return None
        records = max(1000, int(records * row.share))
        roles = [role for role in row.roles if role.counts]
        with self._topic(row, records) as topic, self._flood(row):
            producers = sum(role.do == "produce" for role in roles)
            started = [
                (r, self._start(row, r, topic, records // producers if r.do == "produce" else records))
                for r in roles
            ]
            answers = [(role, self._finish(role, process)) for role, process in started]
        if row.roles[0].do == "latency":
            return KafkaRun(row=row.name, records_per_s=0.0, latency_ms=_latency(answers[0][1]))
        rates = [
            sum(_rate(role, text) for role, text in answers if role.do == do)
            for do in dict.fromkeys(role.do for role in roles)
        ]
        return KafkaRun(row=row.name, records_per_s=min(rates))

    def run_python(self, client: str, row: Row, records: int) -> KafkaRun | None:
        """One round of ``row`` with a Python client; None for rows that are not one client's own.

        Raises RunFailed where what came out is not what went in.
        """
        if len(row.roles) != 1 or row.roles[0].bulk or row.roles[0].do == "latency":
            return None
        (role,) = row.roles
        records = max(1000, int(records * row.share))
        with self._topic(row, records) as topic:
            work = Work(
                bootstrap=self._bootstrap, topic=topic, row=row, role=role, records=records, client=client
            )
            (moved,) = finish_workers([start_worker(work)])
            if role.do == "produce":
                read = msgspec.structs.replace(work, role=Role(do="consume"))
                (back,) = finish_workers([start_worker(read)])
                if back["checksum"] != moved["checksum"]:
                    raise RunFailed(f"{row.name}: what {client} sent is not what came out")
        return KafkaRun(row=row.name, records_per_s=moved["records"] / moved["seconds"], client=client)

    @contextmanager
    def _topic(self, row: Row, records: int) -> Iterator[str]:
        """A topic of its own for one round, filled where the row wants that."""
        self._topics += 1
        topic = f"bench-{row.name}-{self._topics}"
        self._run(
            *("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self._bootstrap, "--create"),
            *("--topic", topic, "--partitions", str(row.partitions)),
            *("--replication-factor", str(row.replicas)),
        )
        try:
            if row.filled:
                self._finish(Role(do="produce"), self._start(row, Role(do="produce"), topic, records))
            yield topic
        finally:
            self._run(
                *("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self._bootstrap),
                *("--delete", "--topic", topic),
            )

    @contextmanager
    def _flood(self, row: Row) -> Iterator[None]:
        """Have a producer disturb, on a topic of its own, where the row wants that; it is under way then."""
        if not row.is_flooded:
            yield
            return
        with self._topic(row, 0) as topic:
            flood = self._start(row, Role(do="produce"), topic, 10**9)
            try:
                assert flood.stdout is not None
                if not flood.stdout.readline():  # It says every 5 s how far it has come.
                    raise KafkaFailed(f"Kafka's tool that was to flood has ended: {flood.communicate()[1]}")
                yield
            finally:
                flood.kill()
                flood.communicate()

    def _start(self, row: Row, role: Role, topic: str, records: int) -> subprocess.Popen[str]:
        match role.do:
            case "produce":
                arguments = [
                    *("org.apache.kafka.tools.ProducerPerformance", "--topic", topic),
                    *("--num-records", str(records), "--record-size", str(row.record_size)),
                    *("--throughput", "-1", "--producer-props", f"bootstrap.servers={self._bootstrap}"),
                    *(f"acks={row.acks}", f"batch.size={row.batch_size}", f"linger.ms={row.linger_ms:g}"),
                    f"compression.type={row.compression}",
                ]
            case "consume":
                arguments = [
                    *("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", self._bootstrap),
                    *("--topic", topic, "--messages", str(records), "--timeout", "30000", "--hide-header"),
                ]
            case _:
                arguments = [
                    *("org.apache.kafka.tools.EndToEndLatency", self._bootstrap, topic),
                    *(str(max(1000, records // 100)), row.acks, str(row.record_size)),
                ]
        return subprocess.Popen(
            self._java(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _finish(role: Role, process: subprocess.Popen[str]) -> str:
        text, errors = process.communicate()
        if process.returncode:
            raise KafkaFailed(
                f"Kafka's tool that was to {role.do} ended with {process.returncode}: {text}{errors}"
            )
        return text

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(self._java(arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise KafkaFailed(f"{arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def _java(self, arguments: Sequence[str]) -> list[str]:
        return ["java", "-Xmx512M", "-cp", f"{self._jars}/*", *arguments]


def _rate(role: Role, text: str) -> float:
    """Records a second, as the tool printed them."""
    if role.do == "produce":
        found = _RATE.findall(text)
        if found:
            return float(found[-1])
    else:
        for line in reversed(text.splitlines()):
            columns = line.split(", ")
            if len(columns) > _FETCH_RATE_COLUMN:
                return float(columns[_FETCH_RATE_COLUMN])
    raise KafkaFailed(f"no rate in what Kafka's tool said: {text}")


def _latency(text: str) -> dict[str, float]:
    found = _LATENCY.search(text)
    if found is None:
        raise KafkaFailed(f"no latency in what Kafka's tool said: {text}")
    mean, p50, p99, p999 = (float(each.replace(",", ".")) for each in found.groups())
    return {"mean": mean, "p50": p50, "p99": p99, "p999": p999}
