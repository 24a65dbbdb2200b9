"""A topic made by whoever writes Kafka's own records into ZooKeeper comes up and takes records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

from kafkalite.client import AdminClient, Consumer, Producer, TopicPartition
from kafkalite.cluster.launcher import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("znodes"),
        brokers=2,
        zookeepers=1,
        overrides={"default.replication.factor": "2"},
    )
    cluster.up(timeout_s=120)
    yield cluster
    cluster.down(timeout_s=60, delete=True)


def write(cluster: Cluster, *znodes: tuple[str, bytes]) -> None:
    """What a plain ZooKeeper shell does: create persistent znodes, nothing else."""
    shell = KazooClient(cluster.layout.zookeeper_connect)
    shell.start(timeout=30)
    try:
        for path, data in znodes:
            shell.create(path, data)
    finally:
        shell.stop()
        shell.close()


async def takes_records(cluster: Cluster, topic: str, partition: int) -> None:
    bootstrap = cluster.layout.bootstrap_servers
    async with AdminClient(bootstrap_servers=bootstrap) as admin, asyncio.timeout(60):
        while topic not in [one.name for one in await admin.describe_topics()]:
            await asyncio.sleep(0.1)
    async with Producer(bootstrap_servers=bootstrap) as producer:
        sent = await producer.send_and_wait(topic, b"by hand", partition=partition)
    place = TopicPartition(topic, partition)
    async with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([place])
        record = await consumer.getone()
    assert (record.offset, record.value) == (sent.offset, b"by hand")


@pytest.mark.parametrize(
    ("topic", "record"),
    [
        ("v1", b'{"version":1,"partitions":{"0":[1,2],"1":[2,1]}}'),
        ("v2", b'{"version":2,"partitions":{"0":[1,2],"1":[2]},"adding_replicas":{},"removing_replicas":{}}'),
        (
            "v3",
            b'{"version":3,"topic_id":"Yx5xvQ9ESSS0kqTmUqIVTw","partitions":{"1":[1],"0":[2,1]},'
            b'"adding_replicas":{},"removing_replicas":{}}',
        ),
    ],
)
async def test_topic_records_of_every_version(cluster: Cluster, topic: str, record: bytes) -> None:
    write(
        cluster,
        (f"/config/topics/{topic}", b'{"version":1,"config":{"max.message.bytes":"2000000"}}'),
        (f"/brokers/topics/{topic}", record),
    )
    await takes_records(cluster, topic, 1)
    async with AdminClient(bootstrap_servers=cluster.layout.bootstrap_servers) as admin:
        (description,) = await admin.describe_topics([topic])
    assert description.topic_id != "AAAAAAAAAAAAAAAAAAAAAA"
    if topic == "v3":
        assert description.topic_id == "Yx5xvQ9ESSS0kqTmUqIVTw"


async def test_a_partition_added_to_the_topics_record(cluster: Cluster) -> None:
    write(cluster, ("/brokers/topics/grows", b'{"version":1,"partitions":{"0":[1,2]}}'))
    await takes_records(cluster, "grows", 0)
    shell = KazooClient(cluster.layout.zookeeper_connect)
    shell.start(timeout=30)
    shell.set("/brokers/topics/grows", b'{"version":1,"partitions":{"0":[1,2],"1":[2,1]}}')
    shell.stop()
    shell.close()
    async with (
        AdminClient(bootstrap_servers=cluster.layout.bootstrap_servers) as admin,
        asyncio.timeout(60),
    ):
        while len((await admin.describe_topics(["grows"]))[0].partitions) < 2:
            await asyncio.sleep(0.1)
    await takes_records(cluster, "grows", 1)


async def test_a_record_that_is_none_is_told_and_harms_nobody(cluster: Cluster) -> None:
    write(
        cluster,
        ("/brokers/topics/broken", b"not json"),
        ("/brokers/topics/sound", b'{"version":1,"partitions":{"0":[1]}}'),
    )
    await takes_records(cluster, "sound", 0)
    async with AdminClient(bootstrap_servers=cluster.layout.bootstrap_servers) as admin:
        assert "broken" not in [one.name for one in await admin.describe_topics()]
