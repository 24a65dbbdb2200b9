"""The controller on a real ZooKeeper; the brokers' other end is in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kafkalite.common import TopicPartition
from kafkalite.edge import SystemClock
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsTopic
from tests.support.controllers import Cluster
from tests.support.zookeeper import RealHarness
from zk import paths
from zk.client import SessionState

T0 = TopicPartition("t", 0)


@pytest.fixture
async def cluster(harness: RealHarness) -> AsyncIterator[Cluster]:
    async with Cluster(lambda: harness.connect(), SystemClock()) as cluster:
        yield cluster


async def test_topics_by_request_and_by_znode_get_leaders(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    response = await cluster.controller.create_topics(
        CreateTopicsRequest(
            topics=[
                CreateTopicsTopic(
                    name="asked", num_partitions=3, replication_factor=3, assignments=[], configs=[]
                )
            ],
            timeout_ms=10_000,
        )
    )
    assert response.topics[0].error_code == 0
    assert cluster.reader is not None
    await cluster.reader.zk.create(paths.topic("t"), b'{"version":1,"partitions":{"0":[2,3]}}')
    state = await cluster.until_state(T0, lambda s: s.leader == 2)
    assert (state.isr, state.leader_epoch, state.partition_epoch) == ((2, 3), 0, 0)


async def test_a_dead_controller_and_leader_are_followed(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (1, 2, 3)})
    await cluster[1].leave()
    state = await cluster.until_state(T0, lambda s: s.leader == 2, within_s=20)
    assert (state.isr, state.controller_epoch) == ((2, 3), 2)


async def test_an_expired_session_ends_the_reign_and_the_next_one_starts_over(
    cluster: Cluster, harness: RealHarness
) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (1, 2)})
    zk = cluster[1].zk
    assert zk is not None
    await harness.expire(zk)
    await cluster.until(lambda: zk.state is SessionState.EXPIRED, within_s=20)
    await cluster[1].controller.session_lost()
    await cluster.until(lambda: cluster[2].controller.is_active, within_s=20)
    await cluster.until_state(T0, lambda s: s.leader == 2 and s.isr == (2,), within_s=20)
    await cluster[1].join()
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[1].id).leader_and_isr, within_s=20)


async def test_a_restart_within_the_session_is_a_bounce(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    await cluster[2].bounce()
    state = await cluster.until_state(T0, lambda s: s.leader == 3, within_s=20)
    assert state.isr == (3,)


async def test_a_deleted_topic_leaves_nothing_behind(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (1, 2), 1: (2, 1)})
    reader = cluster.reader
    assert reader is not None
    await reader.zk.create(paths.delete_topic("t"))
    await cluster.until(lambda: cluster.events("TopicDeleted"), within_s=20)
    assert await reader.topics() == []
    assert await reader.topic_deletions() == []
