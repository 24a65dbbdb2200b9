"""Consumer groups on real brokers: members that come, go, die and pause; coordinators that die; the tools."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from kafkalite.client import AdminClient, Consumer, NewTopic, Producer, TopicPartition, errors
from kafkalite.client.blocking import KafkaAdminClient, KafkaConsumer, KafkaProducer, RebalanceListener
from tests.cluster.commands import SHORT_SESSION, LocalCluster, run

WORKER = """
import asyncio, json, signal, sys
from kafkalite.client import Consumer

async def main(bootstrap, topic, group, options):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with Consumer(topic, bootstrap_servers=bootstrap, group_id=group, **options) as consumer:
        while not stop.is_set():
            found = await consumer.getmany(timeout_ms=200, max_records=50)
            for tp, records in found.items():
                for record in records:
                    print(tp.partition, record.offset, flush=True)
            await asyncio.sleep(0.005)

asyncio.run(main(*sys.argv[1:4], json.loads(sys.argv[4])))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "groups")
    try:
        cluster.verb(
            "up",
            *("--brokers", "3", "--override", SHORT_SESSION),
            *("--override", "group.initial.rebalance.delay.ms=200"),
            *("--override", "group.min.session.timeout.ms=1000"),
        )
        yield cluster
    finally:
        cluster.verb("down", "--delete", expect=None)


@pytest.fixture(scope="module")
def bootstrap(cluster: LocalCluster) -> str:
    return cluster.bootstrap


async def make_topic(bootstrap: str, name: str, partitions: int = 4) -> None:
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        await admin.create_topics([NewTopic(name, partitions, 3)])


async def fill(bootstrap: str, topic: str, count: int, partitions: int = 4) -> None:
    """``count`` records into each partition."""
    async with Producer(bootstrap_servers=bootstrap) as producer:
        sent = [
            await producer.send(topic, b"%d" % number, partition=partition)
            for partition in range(partitions)
            for number in range(count)
        ]
        for delivery in sent:
            await delivery


class Worker:
    """A consumer in a process of its own, which writes down what it processed."""

    def __init__(
        self, directory: Path, name: str, bootstrap: str, topic: str, group: str, **options: Any
    ) -> None:
        self.path = directory / f"{name}.txt"
        settings = {
            "auto_offset_reset": "earliest",
            "session_timeout_ms": 3000,
            "heartbeat_interval_ms": 500,
            "auto_commit_interval_ms": 300,
        }
        command = [sys.executable, "-c", WORKER, bootstrap, topic, group, json.dumps(settings | options)]
        with open(self.path, "wb") as out, open(directory / f"{name}.err", "wb") as complaints:
            self.process = subprocess.Popen(command, stdout=out, stderr=complaints)

    def seen(self) -> list[tuple[int, int]]:
        lines = self.path.read_text().split("\n")[:-1]
        return [(int(p), int(o)) for p, o in (line.split() for line in lines)]

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, number: int = signal.SIGINT) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(number)
            self.process.wait(30)


async def until(condition: Any, within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)


def everything(count: int, partitions: int = 4) -> set[tuple[int, int]]:
    return {(partition, offset) for partition in range(partitions) for offset in range(count)}


async def processed_for_good(bootstrap: str, group: str, workers: list[Worker]) -> Counter[tuple[int, int]]:
    """How often each record was processed whose offset is committed now."""
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        committed = await admin.list_consumer_group_offsets(group)
    ends = {tp.partition: found.offset for tp, found in committed.items()}
    return Counter(s for w in workers for s in w.seen() if s[1] < ends.get(s[0], 0))


def assert_not_again(done: Counter[tuple[int, int]], workers: list[Worker]) -> None:
    """Nothing of ``done`` was processed once more since."""
    assert done
    now = Counter(s for w in workers for s in w.seen())
    assert {s: now[s] for s in done} == dict(done)


async def test_members_join_leave_die_and_pause(bootstrap: str, tmp_path: Path) -> None:
    """Every record is processed; again only what its reader had not committed when it was lost."""
    await make_topic(bootstrap, "shared")
    workers: list[Worker] = []

    def start(name: str) -> Worker:
        workers.append(Worker(tmp_path, name, bootstrap, "shared", "sharing"))
        return workers[-1]

    try:
        first, second, third = start("a"), start("b"), start("c")
        await fill(bootstrap, "shared", 500)
        await until(lambda: all(w.seen() for w in workers))
        third.end()  # Leaves cleanly: what it read is committed, and nobody reads that again.
        clean = set(third.seen())
        await fill(bootstrap, "shared", 500)
        await until(lambda: {s for w in workers for s in w.seen()} >= everything(700))
        assert not clean & (set(first.seen()) | set(second.seen()))
        second.send(signal.SIGKILL)
        done = await processed_for_good(bootstrap, "sharing", workers)
        fourth = start("d")
        await fill(bootstrap, "shared", 500)
        await until(lambda: {s for w in workers for s in w.seen()} == everything(1500))
        assert_not_again(done, workers)
        fourth.send(signal.SIGSTOP)
        done = await processed_for_good(bootstrap, "sharing", workers)
        await fill(bootstrap, "shared", 500)
        await until(lambda: {s for w in workers for s in w.seen()} == everything(2000))
        before = len(fourth.seen())
        fourth.send(signal.SIGCONT)
        total = 2000
        while len(fourth.seen()) == before:  # Until the paused one is a member again and has its share.
            await fill(bootstrap, "shared", 50)
            total += 50
            await until(lambda total=total: {s for w in workers for s in w.seen()} == everything(total))
        assert_not_again(done, workers)
    finally:
        for worker in workers:
            worker.end()
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        committed = await admin.list_consumer_group_offsets("sharing")
    assert {tp.partition: found.offset for tp, found in committed.items()} == dict.fromkeys(range(4), total)


async def test_a_rolling_bounce_of_the_brokers(cluster: LocalCluster, bootstrap: str, tmp_path: Path) -> None:
    await make_topic(bootstrap, "rolling")
    workers = [Worker(tmp_path, name, bootstrap, "rolling", "rollers") for name in "ab"]
    try:
        total = 0
        for broker in (1, 2, 3):
            cluster.verb("stop", f"broker-{broker}")
            await fill(bootstrap, "rolling", 300)
            total += 300
            cluster.verb("start", f"broker-{broker}")
            await until(lambda total=total: {s for w in workers for s in w.seen()} == everything(total))
        assert all(worker.process.poll() is None for worker in workers)
    finally:
        for worker in workers:
            worker.end()
    seen = Counter(s for w in workers for s in w.seen())
    assert seen.keys() == everything(900)


async def test_a_static_member_restarts_in_its_place(bootstrap: str) -> None:
    await make_topic(bootstrap, "static")

    def member(name: str) -> Consumer:
        return Consumer(
            "static",
            bootstrap_servers=bootstrap,
            group_id="statics",
            group_instance_id=name,
            session_timeout_ms=20_000,
        )

    members = {name: member(name) for name in ("i1", "i2")}
    for consumer in members.values():
        await consumer.start()
    try:
        await until(lambda: sorted(len(c.assignment()) for c in members.values()) == [2, 2])
        before = {name: consumer.assignment() for name, consumer in members.items()}
        for name in members:
            await members[name].stop()
            members[name] = member(name)
            await members[name].start()
            await until(lambda name=name: members[name].assignment() == before[name])
        assert {name: consumer.assignment() for name, consumer in members.items()} == before
    finally:
        for consumer in members.values():
            await consumer.stop()


def test_the_blocking_clients(bootstrap: str) -> None:
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        admin.create_topics([NewTopic("blocking", 1, 3)])
    with KafkaProducer(bootstrap_servers=bootstrap, key_serializer=str.encode) as producer:
        found = producer.send("blocking", b"first", key="k").get(timeout=30)
        assert (found.topic, found.offset) == ("blocking", 0)
        heard: list[int] = []
        futures = [
            producer.send("blocking", b"%d" % n).add_callback(lambda m: heard.append(m.offset))
            for n in range(1000)
        ]
        producer.flush(timeout=30)
        assert all(future.succeeded() for future in futures)
        assert sorted(heard) == list(range(1, 1001))
        with pytest.raises(Exception, match="max_request_size"):
            producer.send("blocking", b"x" * 2_000_000).get(timeout=30)

    events: list[tuple[str, int]] = []

    class Listener(RebalanceListener):
        def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
            events.append(("assigned", len(assigned)))

        def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
            events.append(("revoked", len(revoked)))

    options = {"bootstrap_servers": bootstrap, "group_id": "blockers", "auto_offset_reset": "earliest"}
    consumer = KafkaConsumer(**options, consumer_timeout_ms=20_000)
    consumer.subscribe(["blocking"], listener=Listener())
    for expected, record in zip([b"first", *(b"%d" % n for n in range(99))], consumer, strict=False):
        assert record.value == expected
        if record.offset == 99:
            break
    tp = TopicPartition("blocking", 0)
    assert consumer.position(tp) == 100
    consumer.commit()
    assert consumer.committed(tp) == 100
    consumer.close()
    assert events == [("assigned", 1), ("revoked", 1)]
    with KafkaConsumer("blocking", **options, consumer_timeout_ms=3000) as again:
        assert [record.offset for record in again] == list(range(100, 1001))
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        assert ("blockers", "consumer") in admin.list_consumer_groups()
        assert admin.list_consumer_group_offsets("blockers")[tp].offset == 1001
    with pytest.raises(errors.ClientClosedError):
        consumer.poll()


FORGETFUL = """
import sys
from kafkalite.client.blocking import KafkaAdminClient, KafkaConsumer, KafkaProducer

admin = KafkaAdminClient(bootstrap_servers=sys.argv[1])
consumer = KafkaConsumer("forgotten", bootstrap_servers=sys.argv[1], group_id="forgetful")
while not consumer.assignment():
    consumer.poll(timeout_ms=100)
producer = KafkaProducer(bootstrap_servers=sys.argv[1], compression_type="gzip")
for number in range(1000):
    producer.send("forgotten", b"%d" % number)
"""


def test_a_script_that_closes_nothing_ends_in_good_order(bootstrap: str) -> None:
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        admin.create_topics([NewTopic("forgotten", 1, 3)])
        ran = run(sys.executable, "-c", FORGETFUL, bootstrap)
        assert (ran.out, ran.err) == (b"", "")
        [described] = admin.describe_consumer_groups(["forgetful"])
        assert described.state == "Empty", "it did not leave"
    with KafkaConsumer(
        "forgotten", bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    ) as consumer:
        for number, record in zip(range(1000), consumer, strict=False):
            assert record.value == b"%d" % number
        assert number == 999


def groups(bootstrap: str, *arguments: str, expect: int = 0) -> Any:
    return run("kafka-consumer-groups", "--bootstrap-server", bootstrap, *arguments, expect=expect)


async def test_the_tool(bootstrap: str) -> None:
    await make_topic(bootstrap, "tool", 2)
    await fill(bootstrap, "tool", 10, 2)
    consumer = Consumer(
        "tool", bootstrap_servers=bootstrap, group_id="tools", auto_offset_reset="earliest", client_id="me"
    )
    async with consumer:
        got = 0
        while got < 20:
            got += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
        await consumer.commit()
        assert "tools" in (await asyncio.to_thread(groups, bootstrap, "--list")).text.splitlines()
        described = await asyncio.to_thread(groups, bootstrap, "--describe", "--group", "tools")
        _, header, *rows = described.text.splitlines()
        assert header.split() == [
            *("GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"),
            *("CONSUMER-ID", "HOST", "CLIENT-ID"),
        ]
        assert [row.split()[:6] for row in rows] == [
            ["tools", "tool", partition, "10", "10", "0"] for partition in "01"
        ]
        assert all(re.search(r" me-\S+ +/127\.0\.0\.1 +me$", row) for row in rows), rows
        shown = await asyncio.to_thread(
            groups, bootstrap, "--describe", "--group", "tools", "--members", "--verbose"
        )
        assert shown.text.splitlines()[2].endswith("tool(0,1)")
        state = await asyncio.to_thread(groups, bootstrap, "--describe", "--group", "tools", "--state")
        assert re.search(r"tools +127\.0\.0\.1:\d+ +\([123]\) +cooperative-sticky +Stable +1$", state.text)
        active = await asyncio.to_thread(
            groups,
            bootstrap,
            *("--reset-offsets", "--group", "tools", "--all-topics", "--to-earliest", "--execute"),
            expect=6,
        )
        assert "inactive, but the current state is Stable" in active.err
        refused = await asyncio.to_thread(groups, bootstrap, "--delete", "--group", "tools", expect=6)
        assert "NON_EMPTY_GROUP" in refused.err
    why = run("kafkalite", "why", "group", "tools", "--bootstrap-server", bootstrap).text
    assert "  2 partitions changed hands\n    tool-0: nobody to me-" in why
    assert "left: the consumer was stopped" in why
    empty = groups(bootstrap, "--describe", "--group", "tools")
    assert "Consumer group 'tools' has no active members." in empty.err
    plan = groups(
        bootstrap, "--reset-offsets", "--group", "tools", "--topic", "tool:1", "--to-offset", "4", "--export"
    )
    assert plan.text == "tool,1,4\n"
    executed = groups(
        bootstrap, "--reset-offsets", "--group", "tools", "--topic", "tool", "--shift-by", "-3", "--execute"
    )
    assert [line.split() for line in executed.text.splitlines()[2:]] == [
        ["tools", "tool", partition, "7"] for partition in "01"
    ]
    [document] = groups(bootstrap, "--describe", "--group", "tools", "--output", "json").json()["groups"]
    assert [(p["current_offset"], p["lag"]) for p in document["partitions"]] == [(7, 3), (7, 3)]
    assert all(p["lag_seconds"] > 0 for p in document["partitions"])
    forgotten = groups(bootstrap, "--delete-offsets", "--group", "tools", "--topic", "tool:0")
    assert "Successful" in forgotten.text
    deleted = groups(bootstrap, "--delete", "--group", "tools")
    assert deleted.text == "Deletion of requested consumer groups ('tools') was successful.\n"
    missing = groups(bootstrap, "--describe", "--group", "tools", expect=3)
    assert missing.err.strip() == "Error: Consumer group 'tools' does not exist."


async def test_a_pattern_takes_in_new_topics_and_topics_that_grow(
    cluster: LocalCluster, bootstrap: str
) -> None:
    await make_topic(bootstrap, "metrics-cpu", 1)
    await make_topic(bootstrap, "other", 1)
    consumer = Consumer(
        bootstrap_servers=bootstrap,
        group_id="patterns",
        auto_offset_reset="earliest",
        metadata_max_age_ms=500,
        heartbeat_interval_ms=300,
    )
    async with consumer:
        consumer.subscribe(pattern="metrics-.*")
        await until_assigned(consumer, {("metrics-cpu", 0)})
        await make_topic(bootstrap, "metrics-disk", 2)
        await until_assigned(consumer, {("metrics-cpu", 0), ("metrics-disk", 0), ("metrics-disk", 1)})
        await asyncio.to_thread(grow, cluster, "metrics-cpu")
        await until_assigned(
            consumer, {("metrics-cpu", 0), ("metrics-cpu", 1), ("metrics-disk", 0), ("metrics-disk", 1)}
        )
        async with Producer(bootstrap_servers=bootstrap) as producer:
            await producer.send_and_wait("metrics-cpu", b"grown", partition=1)
            await producer.send_and_wait("metrics-disk", b"new", partition=0)
        values: set[bytes | None] = set()
        async with asyncio.timeout(60):
            while len(values) < 2:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    values |= {record.value for record in records}
        assert values == {b"grown", b"new"}


async def until_assigned(consumer: Consumer, partitions: set[tuple[str, int]]) -> None:
    async with asyncio.timeout(60):
        while consumer.assignment() != {TopicPartition(*one) for one in partitions}:
            await consumer.getmany(timeout_ms=200)


def grow(cluster: LocalCluster, topic: str) -> None:
    """Add a partition as Kafka's old tools do: in the topic's znode."""
    shell = KazooClient(cluster.status()["zookeeper_connect"])
    shell.start(timeout=30)
    try:
        record = json.loads(shell.get(f"/brokers/topics/{topic}")[0])
        record["partitions"][str(len(record["partitions"]))] = record["partitions"]["0"]
        shell.set(f"/brokers/topics/{topic}", json.dumps(record).encode())
    finally:
        shell.stop()
        shell.close()


async def test_a_slow_caller_keeps_its_heartbeats_and_loses_its_place_by_the_poll_interval_alone(
    bootstrap: str,
) -> None:
    """Longer than a session without a poll is no reason to be thrown out; longer than
    `max_poll_interval_ms` is."""
    await make_topic(bootstrap, "slow", 2)
    await fill(bootstrap, "slow", 3, 2)
    common: dict[str, Any] = {
        "bootstrap_servers": bootstrap,
        "group_id": "slow-callers",
        "auto_offset_reset": "earliest",
        "session_timeout_ms": 1500,
        "heartbeat_interval_ms": 300,
    }
    patient = Consumer("slow", **common, max_poll_interval_ms=300_000)
    async with patient, AdminClient(bootstrap_servers=bootstrap) as admin:
        await patient.getone()
        before = (await admin.describe_consumer_groups(["slow-callers"]))["slow-callers"]
        await asyncio.sleep(2 * 1.5)  # The fault: nobody polls for two sessions.
        after = (await admin.describe_consumer_groups(["slow-callers"]))["slow-callers"]
        assert [m.member_id for m in after.members] == [m.member_id for m in before.members] != []
    hurried = Consumer("slow", **common, max_poll_interval_ms=1000)
    async with hurried, AdminClient(bootstrap_servers=bootstrap) as admin:
        await hurried.getone()
        async with asyncio.timeout(60):
            while (await admin.describe_consumer_groups(["slow-callers"]))["slow-callers"].members:
                await asyncio.sleep(0.1)
        why = await asyncio.to_thread(
            run, "kafkalite", "why", "group", "slow-callers", "--bootstrap-server", bootstrap
        )
        assert "max_poll_interval_ms" in why.text or "max.poll.interval.ms" in why.text, why.text
