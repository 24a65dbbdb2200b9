"""The admin client against an in-memory cluster under virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from kafkalite.client import AdminClient, ConfigResource, ConfigResourceType, NewTopic, OffsetSpec, errors
from kafkalite.common import TopicPartition
from kafkalite.protocol.create_topics import CreateTopicsRequest
from kafkalite.protocol.errors import (
    BrokerNotAvailableError,
    NotControllerError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import FakeCluster, Fault, script


def scenario(story: Callable[[FakeCluster, AdminClient], Awaitable[None]], **options: Any) -> FakeCluster:
    async def main() -> FakeCluster:
        cluster = FakeCluster()
        async with AdminClient(
            bootstrap_servers="fake:9001",
            transport=cluster,
            clock=VirtualClock(asyncio.get_running_loop()),
            chance=random.Random(1),
            **options,
        ) as admin:
            await story(cluster, admin)
        return cluster

    return run_virtual(main())


def test_topics_are_created_and_described() -> None:
    async def story(cluster: FakeCluster, admin: AdminClient) -> None:
        created = await admin.create_topics(
            [
                NewTopic("b", 2, 1, topic_configs={"retention.ms": "1"}),
                NewTopic("a", replica_assignments={0: [1]}),
            ]
        )
        assert (created["b"].num_partitions, created["b"].replication_factor) == (2, 1)
        assert await admin.list_topics() == ["a", "b"]
        both = await admin.describe_topics()
        assert [t.name for t in both] == ["a", "b"]
        assert [p.leader for p in both[1].partitions] == [1, 2]
        assert [t.name for t in await admin.describe_topics(["b", "a"])] == ["b", "a"]
        with pytest.raises(UnknownTopicOrPartitionError):
            await admin.describe_topics(["nope"])
        await admin.create_topics([NewTopic("c")], validate_only=True)
        assert await admin.list_topics() == ["a", "b"]

    cluster = scenario(story)
    request = cluster.requests(CreateTopicsRequest)[0]
    assert request.topics[0].configs[0].name == "retention.ms"
    assert (request.topics[1].num_partitions, request.topics[1].assignments[0].broker_ids) == (-1, [1])


def test_errors_of_single_topics() -> None:
    async def story(cluster: FakeCluster, admin: AdminClient) -> None:
        await admin.create_topics([NewTopic("a"), NewTopic("b")])
        with pytest.raises(TopicAlreadyExistsError):
            await admin.create_topics([NewTopic("a"), NewTopic("c")])
        assert await admin.list_topics() == ["a", "b", "c"]
        with pytest.raises(ExceptionGroup) as caught:
            await admin.create_topics([NewTopic("a"), NewTopic("b")])
        assert len(caught.value.exceptions) == 2

    scenario(story)


def test_the_controller_is_looked_for() -> None:
    async def story(cluster: FakeCluster, admin: AdminClient) -> None:
        cluster.controller = 3
        await admin.create_topics([NewTopic("a")])
        assert [node for api, node, _ in cluster.asked if api == "create_topics"] == [1, 3]
        cluster.controller = -1
        with pytest.raises(NotControllerError):
            await admin.create_topics([NewTopic("b")])
        cluster.controller = 2
        cluster.hook = script(Fault.UNAVAILABLE, Fault.LOSE_REQUEST, api="create_topics")
        await admin.create_topics([NewTopic("c")], timeout_ms=20_000)

    scenario(story, default_api_timeout_ms=3000)


def test_a_created_topic_is_known_everywhere() -> None:
    async def story(cluster: FakeCluster, admin: AdminClient) -> None:
        def behind(node: int) -> Mapping[TopicPartition, tuple[int, int]]:
            is_late = node == 3 and asyncio.get_running_loop().time() < 1
            return {} if is_late else cluster.leaders()

        cluster.metadata_of = behind
        await admin.create_topics([NewTopic("a")])
        assert 1 <= asyncio.get_running_loop().time() < 1.1
        cluster.kill(3)
        await admin.create_topics([NewTopic("b")])
        assert asyncio.get_running_loop().time() < 1.2

    scenario(story)


def test_cluster_configs_and_offsets() -> None:
    async def story(cluster: FakeCluster, admin: AdminClient) -> None:
        cluster.create_topic("t")
        described = await admin.describe_cluster()
        assert (described.cluster_id, described.controller_id) == ("fake-cluster", 1)
        assert [broker.node_id for broker in described.brokers] == [1, 2, 3]
        topic = ConfigResource(ConfigResourceType.TOPIC, "t")
        broker = ConfigResource(ConfigResourceType.BROKER, "2")
        configs = await admin.describe_configs([topic, broker])
        assert configs[topic]["retention.ms"].is_default
        assert configs[broker]["retention.ms"].value == "604800000"
        assert {node for api, node, m in cluster.asked if api == "describe_configs"} >= {2}
        with pytest.raises(BrokerNotAvailableError):
            await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "9")])
        tp = TopicPartition("t", 0)
        found = await admin.list_offsets({tp: OffsetSpec.LATEST})
        assert found[tp].offset == 0
        with pytest.raises(UnknownTopicOrPartitionError):
            await admin.list_offsets({TopicPartition("t", 5): OffsetSpec.EARLIEST}, timeout_ms=1000)

    scenario(story)


def test_nobody_there() -> None:
    async def story(cluster: FakeCluster, admin: AdminClient) -> None:
        for node in cluster.nodes:
            cluster.kill(node)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(errors.ClusterUnreachableError, match="no metadata"):
            await admin.list_topics()
        assert 2.9 < asyncio.get_running_loop().time() - begun < 3.2
        await admin.stop()
        with pytest.raises(errors.ClientClosedError):
            await admin.list_topics()

    scenario(story, default_api_timeout_ms=3000)
