"""Disks that lie, fail and dawdle under a broker, and what they hold after a bad night."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafkalite.cluster.launcher import Cluster
from kafkalite.common import TopicPartition
from kafkalite.torture.faults import NoEffect, harm
from kafkalite.torture.replicas import compare

from .conftest import OVERRIDES, FaultCluster
from .syscalls import FSYNCS, injected
from .workload import Workload, kept_its_word

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def _rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose segments are small, so that they roll, and are synced, all the time."""
    overrides = OVERRIDES | {"log.segment.bytes": str(64 << 10)}
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("disks"), brokers=3, zookeepers=1, overrides=overrides
    )
    cluster.up(timeout_s=120)
    yield cluster
    cluster.down(timeout_s=60, delete=True)


@pytest.fixture
async def cluster(_rolling: Cluster) -> FaultCluster:
    await asyncio.to_thread(_rolling.up, timeout_s=120)
    return FaultCluster(_rolling)


async def _verified(cluster: FaultCluster, workload: Workload) -> None:
    await cluster.is_whole(workload.topic)
    await kept_its_word(workload)
    partitions = [TopicPartition(workload.topic, number) for number in range(workload.partitions)]
    assert await compare(cluster.cluster, partitions, timeout_s=30) == []


@pytest.mark.parametrize(
    ("way", "role"),
    [
        ("torn tail", "leader"),
        pytest.param("torn tail", "follower", marks=pytest.mark.soak),
        ("flipped byte", "leader"),
        pytest.param("flipped byte", "follower", marks=pytest.mark.soak),
        pytest.param("index deleted", "leader", marks=pytest.mark.soak),
        pytest.param("index deleted", "follower", marks=pytest.mark.soak),
    ],
)
async def test_what_a_power_cut_leaves_of_one_replica(cluster: FaultCluster, way: str, role: str) -> None:
    topic = await cluster.create_topic(partitions=1)
    async with Workload(cluster.bootstrap_servers, topic, 1, padding=b"x" * 200).running() as workload:
        while True:
            await workload.acknowledges(1000)
            leader = await cluster.leader(topic)
            victim = leader if role == "leader" else next(id for id in (1, 2, 3) if id != leader)
            await cluster.kill(f"broker-{victim}")
            try:
                harm([cluster.data(victim) / f"{topic}-0"], way, random.Random(victim))
                break
            except NoEffect:  # It died when it had just begun a segment.
                await cluster.start(f"broker-{victim}")
                await cluster.is_whole(topic)
        await workload.acknowledges(200)
        await cluster.start(f"broker-{victim}")
        await cluster.is_whole(topic)
        await workload.acknowledges(200)
    log = cluster.data(victim) / f"{topic}-0"
    recovered = [
        event for event in cluster.events(victim) if event.type == "LogRecovered" and event.topic == topic
    ][-1]
    if way == "flipped byte":
        assert recovered.facts["truncated_bytes"] > 0, "nobody noticed the flipped byte"
    for segment in log.glob("*.log"):
        assert segment.with_suffix(".index").exists()
        assert segment.with_suffix(".timeindex").exists()
    await _verified(cluster, workload)


async def test_fsync_fails(cluster: FaultCluster, tmp_path: Path) -> None:
    """The broker whose only log directory cannot be synced ends by itself; the others go on."""
    topic = await cluster.create_topic(partitions=3)
    pid = cluster.pid("broker-1")
    async with Workload(cluster.bootstrap_servers, topic, 3, padding=b"x" * 500).running() as workload:
        await workload.acknowledges(100)
        async with injected(pid, FSYNCS, "error=EIO", tmp_path / "notes") as injection:
            await injection.happens()
            async with asyncio.timeout(60):
                while await cluster.state("broker-1") != "stopped":
                    await workload.acknowledges(50)
        await workload.acknowledges(100)
        assert "LogDirFailed" in {event.type for event in cluster.events(1)}
        assert not (cluster.data(1) / ".kafka_cleanshutdown").exists()
        await cluster.start("broker-1")
        await workload.acknowledges(100)
    await _verified(cluster, workload)


async def test_fsync_is_slow(cluster: FaultCluster, tmp_path: Path) -> None:
    """A disk that takes 300 ms to sync holds up neither records nor the session."""
    topic = await cluster.create_topic(partitions=3)
    leader = await cluster.leader(topic)
    before = len(cluster.events(leader))
    async with Workload(cluster.bootstrap_servers, topic, 3, padding=b"x" * 500).running() as workload:
        await workload.acknowledges(100)
        pid = cluster.pid(f"broker-{leader}")
        async with injected(pid, FSYNCS, "delay_enter=300000", tmp_path / "notes") as injection:
            await injection.happens(5)
            await workload.acknowledges(500)
    assert "LeaseExpired" not in {event.type for event in cluster.events(leader)[before:]}
    assert not workload.failed
    await _verified(cluster, workload)
