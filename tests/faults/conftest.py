"""A cluster of three ZooKeepers and three brokers for the fault tests, shared while it is whole."""

from __future__ import annotations

import asyncio
import itertools
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kafkalite.client import AdminClient, NewTopic
from kafkalite.cluster import zookeeper
from kafkalite.cluster.journals import read_journals
from kafkalite.cluster.launcher import Cluster
from kafkalite.common import BrokerId, TopicPartition
from kafkalite.journal import Event
from kafkalite.torture.replicas import all_in_sync
from kafkalite.why import Answer, explain

SESSION_TIMEOUT_MS = 3_000

OVERRIDES = {
    "zookeeper.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "replica.lag.time.max.ms": "3000",
    "min.insync.replicas": "2",
    "controlled.shutdown.retry.backoff.ms": "500",
    # A leader that moves back by itself, seconds after a controller's fail-over, is none of these faults.
    "auto.leader.rebalance.enable": "false",
}


class FaultCluster:
    """A running cluster and the ways to break it; blocking work happens on threads."""

    _topics = itertools.count()

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._partitions: dict[str, int] = {}

    @property
    def bootstrap_servers(self) -> str:
        return self.cluster.layout.bootstrap_servers

    async def create_topic(self, *, partitions: int = 3, replication_factor: int = 3) -> str:
        name = f"faults-{next(self._topics)}"
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            await admin.create_topics(
                [NewTopic(name, num_partitions=partitions, replication_factor=replication_factor)]
            )
        self._partitions[name] = partitions
        return name

    async def is_whole(self, topic: str) -> None:
        """Wait until every partition of ``topic`` has a leader and all its replicas in the ISR.

        ZooKeeper is asked: brokers' metadata learns of a larger ISR seconds later, as in Kafka.
        """
        partitions = [TopicPartition(topic, number) for number in range(self._partitions[topic])]
        await all_in_sync(self.cluster, partitions, timeout_s=90)

    async def leader(self, topic: str, partition: int = 0) -> int:
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            (description,) = await admin.describe_topics([topic])
        leader = next(one.leader for one in description.partitions if one.partition == partition)
        assert leader is not None
        return leader

    async def another_controller(self, than: int) -> int:
        """Wait until another broker than ``than`` rules."""
        async with asyncio.timeout(60):
            while True:
                found = await self.controller()
                if found != than:
                    return found
                await asyncio.sleep(0.1)

    async def controller(self) -> int:
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            description = await admin.describe_cluster()
        assert description.controller_id is not None
        return description.controller_id

    async def kill(self, *names: str) -> None:
        await asyncio.to_thread(self.cluster.kill, names)

    async def pause(self, *names: str) -> None:
        await asyncio.to_thread(self.cluster.pause, names)

    async def resume(self, *names: str) -> None:
        await asyncio.to_thread(self.cluster.resume, names)

    async def start(self, *names: str) -> None:
        await asyncio.to_thread(self.cluster.start, names, timeout_s=120)

    async def stop(self, *names: str) -> None:
        await asyncio.to_thread(self.cluster.stop, names, timeout_s=120)

    @property
    def zookeepers(self) -> list[str]:
        return [node.name for node in self.cluster.layout.zookeepers]

    @property
    def brokers(self) -> list[str]:
        return [node.name for node in self.cluster.layout.brokers]

    async def state(self, name: str) -> str:
        """What `cluster status` says of one process."""
        status = await asyncio.to_thread(self.cluster.status)
        return next(one.state for one in status.processes if one.name == name)

    async def enlarge_disk(self, broker: int) -> None:
        """Give the broker of :func:`cluster_with_a_small_disk` room again."""
        command = ["mount", "-o", "remount,size=1g", str(self.data(broker))]
        await asyncio.to_thread(subprocess.run, command, check=True)

    async def zookeeper_that_is(self, mode: str) -> str:
        """Wait until one of the ensemble is ``leader`` or ``follower``; its name."""
        async with asyncio.timeout(60):
            while True:
                for node in self.cluster.layout.zookeepers:
                    if await zookeeper.mode(self.cluster.zookeeper_server(node)) == mode:
                        return node.name
                await asyncio.sleep(0.1)

    def events(self, broker: int) -> list[Event]:
        """What the broker wrote into its journal, all its lives long."""
        return read_journals(self.cluster).of_broker(BrokerId(broker))

    def why(self, topic: str, partition: int) -> Answer:
        """What `kafkalite why` concludes."""
        return explain(read_journals(self.cluster), TopicPartition(topic, partition))

    async def until_why(self, topic: str, partition: int, fits: Callable[[Answer], bool]) -> Answer:
        """Wait until the journals tell of a state that ``fits``."""
        async with asyncio.timeout(60):
            while not fits(answer := await asyncio.to_thread(self.why, topic, partition)):
                await asyncio.sleep(0.2)
        return answer

    def pid(self, name: str) -> int:
        """The process id of a process that runs."""
        process = self.cluster.process(self.cluster.layout.node(name))
        assert process is not None, f"{name} does not run"
        return process.pid

    def limit_file_size(self, name: str, size: int) -> None:
        """Let no file of the process grow beyond ``size``: its writes fail from then on."""
        hard = resource.prlimit(self.pid(name), resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid(name), resource.RLIMIT_FSIZE, (size, hard))

    def data(self, broker: int) -> Path:
        return self.cluster.directory / f"broker-{broker}" / "data"


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("faults"), brokers=3, zookeepers=3, overrides=OVERRIDES
    )
    cluster.up(timeout_s=120)
    yield cluster
    cluster.down(timeout_s=60, delete=True)


@pytest.fixture
def cluster_with_a_small_disk(tmp_path: Path) -> Iterator[FaultCluster]:
    """A cluster of its own whose broker 1 has 24 MiB of disk."""
    cluster = Cluster.load_or_create(tmp_path, brokers=3, zookeepers=1, overrides=OVERRIDES)
    data = tmp_path / "broker-1" / "data"
    data.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        cluster.up(timeout_s=120)
        yield FaultCluster(cluster)
    finally:
        cluster.down(timeout_s=60)
        subprocess.run(["umount", str(data)], check=True)


@pytest.fixture
async def cluster(_cluster: Cluster) -> FaultCluster:
    """The shared cluster, with everything running again that an earlier test may have left broken."""
    await asyncio.to_thread(_cluster.up, timeout_s=120)
    return FaultCluster(_cluster)
