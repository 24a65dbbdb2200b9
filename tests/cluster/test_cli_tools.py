"""The tools that operators know, on a real cluster: Kafka's flags, Kafka's output, our exit codes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.commands import SCRIPTS, SHORT_SESSION, LocalCluster, Ran, run

BYTES = b"plain\r\nwith\ttab\0zero\n\n\xff\xfe not text\n" + b"x" * 200_000 + b"\nlast"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "tools")
    try:
        cluster.verb("up", "--brokers", "3", "--override", SHORT_SESSION)
        yield cluster
    finally:
        cluster.verb("down", "--delete", expect=None)


@pytest.fixture(scope="module")
def bootstrap(cluster: LocalCluster) -> str:
    return cluster.bootstrap


def topics(bootstrap: str, *arguments: str, expect: int = 0) -> Ran:
    return run("kafka-topics", "--bootstrap-server", bootstrap, *arguments, expect=expect)


def produce(bootstrap: str, topic: str, stdin: bytes, *arguments: str, expect: int = 0) -> Ran:
    return run(
        "kafka-console-producer",
        *("--bootstrap-server", bootstrap, "--topic", topic, *arguments),
        stdin=stdin,
        expect=expect,
    )


def consume(bootstrap: str, topic: str, *arguments: str) -> Ran:
    return run(
        "kafka-console-consumer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--timeout-ms", "10000", *arguments),
    )


def test_create_list_describe(bootstrap: str) -> None:
    created = topics(
        bootstrap,
        *("--create", "--topic", "orders", "--partitions", "2", "--replication-factor", "3"),
        *("--config", "retention.ms=86400000", "--config", "min.insync.replicas=2"),
    )
    assert created.text == "Created topic orders.\n"
    assert "orders" in topics(bootstrap, "--list").text.splitlines()
    header, *partitions = topics(bootstrap, "--describe", "--topic", "orders").text.splitlines()
    assert re.fullmatch(
        "Topic: orders\tTopicId: [A-Za-z0-9_-]{22}\tPartitionCount: 2\tReplicationFactor: 3"
        "\tConfigs: min.insync.replicas=2,retention.ms=86400000",
        header,
    ), header
    assert len(partitions) == 2
    for number, line in enumerate(partitions):
        assert re.fullmatch(
            f"\tTopic: orders\tPartition: {number}\tLeader: [123]"
            "\tReplicas: [123],[123],[123]\tIsr: [123],[123],[123]",
            line,
        ), line
    [document] = topics(bootstrap, "--describe", "--topic", "orders", "--output", "json").json()["topics"]
    assert document["partition_count"] == 2
    assert document["configs"] == {"retention.ms": "86400000", "min.insync.replicas": "2"}
    assert sorted(document["partitions"][1]["isr"]) == [1, 2, 3]
    talkative = run("kafkalite", "topics", "describe", "orders", "--bootstrap-server", bootstrap).text
    assert "is on at least 2 of 3 brokers and survives the loss of any one broker" in talkative


def test_create_twice(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "twice")
    again = topics(bootstrap, "--create", "--topic", "twice", expect=4)
    assert again.out == b""
    assert again.err.startswith("Error while executing topic command : ")
    assert "already exists" in again.err
    assert topics(bootstrap, "--create", "--topic", "twice", "--if-not-exists").out == b""


def test_names_with_dots_and_what_is_not_there(bootstrap: str) -> None:
    created = topics(bootstrap, "--create", "--topic", "a.b").text
    assert created.startswith("WARNING: Due to limitations in metric names")
    assert created.endswith("\nCreated topic a.b.\n")
    missing = topics(bootstrap, "--describe", "--topic", "nothing-here", expect=3)
    assert missing.err == (
        "Error while executing topic command : Topic 'nothing-here' does not exist as expected\n"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--replication-factor", "9"], "9"),
        (["--config", "retention.mss=1"], "retention.mss"),
    ],
)
def test_create_is_refused_in_the_clusters_words(
    bootstrap: str, arguments: list[str], complaint: str
) -> None:
    refused = topics(bootstrap, "--create", "--topic", "refused", *arguments, expect=1)
    assert refused.err.startswith("Error while executing topic command : ")
    assert complaint in refused.err
    assert "refused" not in topics(bootstrap, "--list").text.splitlines()


def test_replicas_by_hand(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "by-hand", "--replica-assignment", "3:1,2:3")
    _, first, second = topics(bootstrap, "--describe", "--topic", "by-hand").text.splitlines()
    assert "Leader: 3\tReplicas: 3,1" in first
    assert "Leader: 2\tReplicas: 2,3" in second


def test_bytes_go_in_and_come_out(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "bytes", "--partitions", "1", "--replication-factor", "3")
    produce(bootstrap, "bytes", BYTES)
    read = consume(bootstrap, "bytes", "--from-beginning", "--max-messages", "6")
    assert read.out == BYTES + b"\n"
    assert read.err == "Processed a total of 6 messages\n"
    offsets = run("kafka-get-offsets", "--bootstrap-server", bootstrap, "--topic", "bytes")
    assert offsets.text == "bytes:0:6\n"
    one = consume(bootstrap, "bytes", "--partition", "0", "--offset", "5", "--max-messages", "1")
    assert one.out == b"last\n"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compression(bootstrap: str, codec: str) -> None:
    topics(bootstrap, "--create", "--topic", codec, "--replication-factor", "2")
    produce(bootstrap, codec, b"squeezed " * 1000, "--compression-codec", codec, "--sync")
    read = consume(bootstrap, codec, "--from-beginning", "--max-messages", "1")
    assert read.out == b"squeezed " * 1000 + b"\n"


def test_keys_headers_and_all_that_can_be_printed(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "keyed", "--partitions", "1")
    properties = ("parse.key=true", "parse.headers=true", "null.marker=NULL")
    produce(
        bootstrap,
        "keyed",
        b"h:1,i:2\tk\tv\nNULL\tNULL\tNULL\n",
        *(word for p in properties for word in ("--property", p)),
    )
    shown = ("print.key", "print.headers", "print.offset", "print.partition", "print.timestamp")
    read = consume(
        bootstrap,
        "keyed",
        *("--from-beginning", "--max-messages", "2"),
        *(word for name in shown for word in ("--property", f"{name}=true")),
    )
    first, second = read.text.splitlines()
    assert re.fullmatch(r"CreateTime:\d{13}\tPartition:0\tOffset:0\th:1,i:2\tk\tv", first), first
    assert re.fullmatch(r"CreateTime:\d{13}\tPartition:0\tOffset:1\tNO_HEADERS\tnull\tnull", second), second


def test_a_line_without_its_separator_ends_the_producer(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "strict")
    failed = produce(bootstrap, "strict", b"k\tv\nkv\n", "--property", "parse.key=true", expect=1)
    assert failed.err == "No key separator found on line number 2: 'kv'\n"


def test_topics_that_are_not_there(bootstrap: str) -> None:
    missing = produce(bootstrap, "nowhere", b"x\n", "--max-block-ms", "500", expect=3)
    assert "topic 'nowhere' does not exist" in missing.err
    read = run("kafka-console-consumer", "--bootstrap-server", bootstrap, "--topic", "nowhere", expect=3)
    assert "topic 'nowhere' does not exist" in read.err
    offsets = run("kafka-get-offsets", "--bootstrap-server", bootstrap, "--topic", "nowhere", expect=3)
    assert "Could not match any topic-partitions" in offsets.err


def test_offsets_in_time(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "timed", "--partitions", "2")
    produce(bootstrap, "timed", b"a\nb\nc\n")
    lines = run("kafka-get-offsets", "--bootstrap-server", bootstrap, "--topic", "timed").text.split()
    assert sorted(line.rpartition(":")[0] for line in lines) == ["timed:0", "timed:1"]
    assert sum(int(line.rpartition(":")[2]) for line in lines) == 3
    earliest = run(
        "kafka-get-offsets",
        *("--bootstrap-server", bootstrap, "--topic-partitions", "timed:1", "--time", "earliest"),
    )
    assert earliest.text == "timed:1:0\n"


def test_a_reader_that_has_seen_enough_is_no_error(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "long", "--partitions", "1")
    produce(bootstrap, "long", b"line\n" * 50_000)
    command = f"{SCRIPTS}/kafka-console-consumer --bootstrap-server {bootstrap} --topic long --from-beginning"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 3"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"line\n" * 3
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_trouble_is_found(cluster: LocalCluster, bootstrap: str) -> None:
    topics(
        bootstrap,
        *("--create", "--topic", "troubled", "--partitions", "3", "--replication-factor", "3"),
        *("--config", "min.insync.replicas=3"),
    )
    topics(bootstrap, "--create", "--topic", "alone", "--replica-assignment", "2")
    assert topics(bootstrap, "--describe", "--under-replicated-partitions", "--topic", "troubled").out == b""
    cluster.verb("kill", "broker-2")
    try:
        found = ""
        while found.count("Topic: troubled") < 3 or "none" not in found:
            found = topics(bootstrap, "--describe", "--under-replicated-partitions").text
            unavailable = topics(bootstrap, "--describe", "--unavailable-partitions", "--topic", "alone").text
            found += unavailable
        assert unavailable == "\tTopic: alone\tPartition: 0\tLeader: none\tReplicas: 2\tIsr: 2\n"
        under = topics(bootstrap, "--describe", "--under-min-isr-partitions").text
        assert under.count("Topic: troubled") == 3
        assert topics(bootstrap, "--describe", "--at-min-isr-partitions", "--topic", "troubled").out == b""
    finally:
        cluster.verb("start", "broker-2")


def test_events_name_their_causes(bootstrap: str) -> None:
    topics(bootstrap, "--create", "--topic", "caused", "--partitions", "1", "--replication-factor", "3")
    lines = run("kafkalite", "events", "--bootstrap-server", bootstrap, "--topic", "caused").text
    assert lines.count(" BecameLeader caused-0 ") == 1
    assert lines.count(" BecameFollower caused-0 ") == 2
    causes = {line.rpartition(" <- ")[2] for line in lines.splitlines() if " Became" in line}
    everything = run("kafkalite", "events", "--bootstrap-server", bootstrap).text
    assert all(f"[{cause}]" in everything for cause in causes)
