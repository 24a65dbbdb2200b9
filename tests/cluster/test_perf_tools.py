"""The performance tools on a real cluster: Kafka's lines, our JSON, and a check that can fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafkalite.perf.groups import GROUP_ROWS
from tests.cluster.commands import LocalCluster, run


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "perf")
    try:
        cluster.verb("up", "--brokers", "1")
        for topic in ("sent", "lasting"):
            run(
                "kafka-topics",
                *("--bootstrap-server", cluster.bootstrap, "--create", "--topic", topic),
                *("--partitions", "3"),
            )
        yield cluster.bootstrap
    finally:
        cluster.verb("down", "--delete", expect=None)


def test_what_the_producer_sends_the_consumer_reads(bootstrap: str) -> None:
    sent = run(
        "kafka-producer-perf-test",
        *("--topic", "sent", "--num-records", "12345", "--record-size", "50", "--throughput", "-1"),
        *("--producer-props", f"bootstrap.servers={bootstrap}", "acks=1"),
    )
    assert re.fullmatch(
        r"12345 records sent, [\d.]+ records/sec \([\d.]+ MB/sec\), [\d.]+ ms avg latency, [\d.]+ ms max "
        r"latency, \d+ ms 50th, \d+ ms 95th, \d+ ms 99th, \d+ ms 99.9th.\n",
        sent.text,
    )
    many = run(
        "kafka-producer-perf-test",
        *("--topic", "sent", "--num-records", "7655", "--payload-monotonic", "--throughput", "50000"),
        *("--send", "many", "--output", "json", "--bootstrap-server", bootstrap),
    ).json()
    assert (many["records"], many["checked"]) == (7655, True)
    for how in ("objects", "columns"):
        read = run(
            "kafka-consumer-perf-test",
            *("--bootstrap-server", bootstrap, "--topic", "sent", "--messages", "20000"),
            *("--read", how, "--output", "json"),
        ).json()
        assert read["records"] == 20_000
        assert read["bytes"] == 12_345 * 50 + many["bytes"]


def test_the_consumers_lines(bootstrap: str) -> None:
    header, line = run(
        "kafka-consumer-perf-test",
        *("--bootstrap-server", bootstrap, "--topic", "sent", "--messages", "1000"),
    ).text.splitlines()
    assert header.startswith("start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg")
    assert len(line.split(", ")) == len(header.split(", "))
    assert line.split(", ")[4] == "1000"


def test_latency_from_end_to_end(bootstrap: str) -> None:
    lines = run("kafka-e2e-latency", bootstrap, "lasting", "200", "all", "64").text.splitlines()
    assert re.fullmatch(r"Avg latency: [\d.]+ ms", lines[0])
    assert re.fullmatch(r"Percentiles: 50th = [\d.]+, 99th = [\d.]+, 99.9th = [\d.]+", lines[1])
    found = run(
        "kafka-e2e-latency",
        *(bootstrap, "lasting", "200", "1", "64", "--rate", "500", "--output", "json"),
    ).json()
    assert (found["records"], found["latency_ms"]["count"]) == (200, 200)


@pytest.mark.soak
def test_every_row_about_groups(tmp_path: Path) -> None:
    """Each row counts for itself what was processed and committed, and fails where that is not right."""
    document = run(
        "bench",
        *("--rows", "groups", "--records", "100000", "--rounds", "1"),
        *("--results", tmp_path, "--output", "json"),
        timeout_s=280,
    ).json()
    assert [each["row"] for each in document["groups"]] == list(GROUP_ROWS)
    assert all(value >= 0 for each in document["groups"] for value in each["figures"].values())
