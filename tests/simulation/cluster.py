"""A simulated cluster: nodes whose brokers crash, lose power, stand still and come back.

A node is a machine: its disk, its address and its place in the network outlive its processes. The
brokers are the real code (:func:`kafkalite.server.broker.run_broker`); so are the clients, each in a
process of its own. All chance comes from the cluster's seed.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Callable, Mapping

from kafkalite.client import AdminClient, Consumer, NewTopic, Producer
from kafkalite.common import BrokerId, TopicPartition
from kafkalite.journal import Event
from kafkalite.log.files import Files
from kafkalite.log.log import Log
from kafkalite.protocol.errors import KafkaStorageError
from kafkalite.server.broker import AllLogDirsFailed, Broker, Edges, StartFailed, run_broker
from kafkalite.server.config import BrokerConfig
from kafkalite.server.membership import Replaced
from tests.support.disk import PartlyWritten, SimulatedCrash, SimulatedDisk
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk.client import ConnectionLoss, ZooKeeper

from .loop import Process, SimulatedOffload, VirtualClock, VirtualLoop
from .network import NodeNetwork, NodeTransport, SimulatedNetwork

SESSION_TIMEOUT_MS = 6_000
LOG_DIRS = ("/data-1", "/data-2")
DEFAULTS: Mapping[str, str] = {
    "zookeeper.connect": "zookeeper:2181",
    "zookeeper.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "replica.lag.time.max.ms": "4000",
    "replica.fetch.wait.max.ms": "2000",
    "replica.socket.timeout.ms": "3000",
    "controller.socket.timeout.ms": "3000",
    "controlled.shutdown.retry.backoff.ms": "500",
    "min.insync.replicas": "2",
    "auto.create.topics.enable": "false",
}
"""Shorter times than Kafka's defaults, so that more happens in a simulated minute."""

EXPECTED_ENDS = (StartFailed, AllLogDirsFailed, Replaced)
"""Why a broker may end by itself; everything else that ends one is a defect."""


class NodeDisk(SimulatedDisk):
    """A disk that takes its node's process with it when it crashes in the middle of a call."""

    def __init__(self, node: Node) -> None:
        super().__init__(now_ms=node.clock.wall_ms)
        self._node = node

    def enter(self, operation: str, path: str, size: int = 0) -> None:
        try:
            super().enter(operation, path, size)
        except SimulatedCrash:
            self._node.crashed_in_a_call()
            raise
        except PartlyWritten as partly:
            if isinstance(partly.reason, SimulatedCrash):
                self._node.crashed_in_a_call()
            raise


class Node:
    """One machine with one broker on it, through all the broker's lives."""

    def __init__(self, cluster: Cluster, broker_id: int) -> None:
        self.cluster = cluster
        self.broker_id = BrokerId(broker_id)
        self.name = f"broker-{broker_id}"
        self.clock = VirtualClock(cluster.loop)
        self.disk = NodeDisk(self)
        self.offload = SimulatedOffload(cluster.draw())
        self.lives = 0
        self.process: Process | None = None
        """The running broker's process."""
        self.broker: Broker | None = None
        """The running broker, once it knows who it is."""
        self.sessions: list[MemoryClient] = []
        """ZooKeeper sessions of the running process, oldest first."""
        self.cut_directions: tuple[bool, bool] = (False, False)
        """Whether packets of this machine to the ensemble vanish, and those from it."""
        self.running = asyncio.Event()
        self.power_chance: random.Random | None = None
        """Set where the crash that is set for a disk operation takes the power, too."""
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_cut_from_zookeeper(self) -> bool:
        return any(self.cut_directions)

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def knows_the_cluster(self) -> bool:
        return self.broker is not None and self.broker.metadata.is_told

    @property
    def is_paused(self) -> bool:
        return self.process is not None and self.process.is_paused

    # --- lives ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the broker."""
        assert self.process is None
        if self.power_chance is not None:
            self.disk.crash_power(self.power_chance)
            self.power_chance = None
        else:
            self.disk.crash_process()
        self.lives += 1
        self.process = Process(self.name)
        self.running, self._stop = asyncio.Event(), asyncio.Event()
        self.cluster.note(f"{self.name} starts, life {self.lives}")
        self._task = self.process.spawn(self._live(self.process), f"{self.name} life {self.lives}")

    async def _live(self, process: Process) -> None:
        chance = self.cluster.draw()
        edges = Edges(
            clock=self.clock,
            offload=self.offload,
            chance=chance,
            transport=NodeTransport(self.cluster.network, process),
            network=NodeNetwork(self.cluster.network, process),
            files=self.files(process),
            connect_zookeeper=lambda: self._connect(process),
            host_name=self.name,
            owns_process=False,
        )
        try:
            await run_broker(self.config(), edges, self._stop, running=self.running, observe=self._observe)
            self.cluster.note(f"{self.name} has shut down")
        except (SimulatedCrash, GeneratorExit):
            return  # The process is dead already; only this call stack was left to unwind.
        except BaseException as error:
            self.cluster.broker_ended(self, error)
        self._gone(is_silent=False)

    def files(self, process: Process) -> Files:
        return self.disk

    def config(self) -> BrokerConfig:
        """The broker's configuration."""
        return BrokerConfig.load(
            overrides={
                **DEFAULTS,
                **self.cluster.overrides,
                "broker.id": str(self.broker_id),
                "listeners": f"PLAINTEXT://{self.name}:9092",
                "log.dirs": ",".join(LOG_DIRS),
            }
        )

    async def _connect(self, process: Process) -> ZooKeeper:
        if self.is_cut_from_zookeeper:
            await asyncio.sleep(1)
            raise ConnectionLoss(f"{self.name} cannot reach the ensemble")
        session = await self.cluster.zookeeper.connect(SESSION_TIMEOUT_MS, home=process.context)
        self.sessions.append(session)
        up, down = self.cut_directions
        if up or down:
            self.cluster.zookeeper.cut(session, up=up, down=down)
        return session

    def _observe(self, broker: Broker) -> None:
        self.broker = broker
        self.cluster.observe(self, broker)

    def _gone(self, *, is_silent: bool) -> None:
        assert self.process is not None
        process, self.process, self.broker = self.process, None, None
        process.kill()
        self.cluster.network.kill(process, is_silent=is_silent)
        for session in self.sessions:
            self.cluster.zookeeper.abandon(session)
        self.sessions = []

    # --- mischief ------------------------------------------------------------------------

    def crash(self) -> None:
        """kill -9: what calls have written stays, nobody says goodbye, ZooKeeper waits for its time-out."""
        if self.process is not None:
            self.cluster.note(f"{self.name} crashes")
            self._gone(is_silent=False)
            self.disk.crash_process()

    def lose_power(self, chance: random.Random | None = None) -> None:
        """The machine is off: what was not fsynced is gone, but for what ``chance`` leaves of it."""
        if self.process is not None:
            self.cluster.note(f"{self.name} loses power")
            self._note_unsynced()
            self._gone(is_silent=True)
            self.disk.crash_power(chance)

    def _note_unsynced(self) -> None:
        """Note which records the power may take along: no broker is left to write a receipt for them."""
        if self.broker is not None:
            for log in self.broker.logs.logs():
                if log.recovery_point < log.log_end_offset:
                    self.cluster.unsynced.append(
                        (log.topic_partition, log.recovery_point, log.log_end_offset - 1)
                    )

    def crash_in_a_call(
        self, operation: int, *, after_bytes: int | None, power: random.Random | None
    ) -> None:
        """Crash (with ``power``: lose power) at the n-th disk operation from now, perhaps in mid-write."""
        if self.process is not None:
            self.power_chance = power
            self.disk.crash_at(operation, after_bytes=after_bytes)

    def crashed_in_a_call(self) -> None:
        """The disk says that the moment has come."""
        if self.process is not None:
            self.cluster.note(f"{self.name} crashes in a call, life {self.lives}")
            self.cluster.counts["crash in a call"] += 1
            if self.power_chance is not None:
                self._note_unsynced()
            self._gone(is_silent=self.power_chance is not None)

    def pause(self) -> None:
        """SIGSTOP."""
        if self.process is not None and not self.process.is_paused:
            self.cluster.note(f"{self.name} is paused")
            self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        if self.process is not None and self.process.is_paused:
            self.cluster.note(f"{self.name} goes on")
            self.process.resume()

    def stop(self) -> None:
        """SIGTERM: ask for an orderly end."""
        if self.process is not None:
            self.cluster.note(f"{self.name} is asked to stop")
            self._stop.set()

    @property
    def session(self) -> MemoryClient | None:
        """The latest ZooKeeper session of the running process."""
        return self.sessions[-1] if self.sessions else None

    def cut_from_zookeeper(self, *, up: bool = True, down: bool = True) -> None:
        """Nothing gets through from this machine to the ensemble (``up``), from it (``down``), or both."""
        self.cut_directions = (up, down)
        for session in self.sessions:
            self.cluster.zookeeper.cut(session, up=up, down=down)

    def mend_zookeeper(self) -> None:
        """This machine reaches the ensemble again."""
        self.cut_directions = (False, False)
        for session in self.sessions:
            self.cluster.zookeeper.resume(session)

    # --- its logs ------------------------------------------------------------------------

    def log(self, partition: TopicPartition) -> Log | None:
        """The running broker's log of a partition; None where it has none, or its directory failed."""
        if self.broker is None:
            return None
        try:
            return self.broker.logs.log(partition)
        except KafkaStorageError:
            return None

    @property
    def has_failed_dirs(self) -> bool:
        """Whether a log directory is offline, which only a restart can change."""
        return self.broker is not None and bool(self.broker.logs.offline_dirs)


class Cluster:
    """Nodes, ZooKeeper, the network, and clients."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int | str,
        *,
        brokers: int = 3,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        self.loop = loop
        self.chance = random.Random(f"kafkalite {seed}")
        self.overrides = overrides or {}
        self.network = SimulatedNetwork(self.draw())
        delays = self.draw()
        self.zookeeper = MemoryZooKeeper(VirtualClock(loop), delay=lambda: delays.uniform(0.0001, 0.002))
        self.events: list[Event] = []
        """All brokers' journals, in the order in which things happened."""
        self.notes: list[tuple[float, str]] = []
        """What was done to the cluster, and when."""
        self.defects: list[str] = []
        """Brokers that ended for no accepted reason."""
        self.unsynced: list[tuple[TopicPartition, int, int]] = []
        """(partition, first offset, last offset) of what power cuts found that was not fsynced."""
        self.counts: Counter[str] = Counter()
        """Faults, by name, that really happened."""
        self.expired_early: dict[int, float] = {}
        """When sessions were ended before their time: nothing that leases promise covers that."""
        self.observers: list[Callable[[Node, Broker], None]] = []
        self.nodes = {number: Node(self, number) for number in range(1, brokers + 1)}

    def expire(self, session: MemoryClient) -> None:
        """End a session at the servers long before its time, as an operator can."""
        self.expired_early[session.session_id] = self.loop.time()
        self.zookeeper.expire(session)

    def draw(self) -> random.Random:
        """A stream of chance of its own, so that one part's use of it does not shift another's."""
        return random.Random(self.chance.getrandbits(64))

    def note(self, what: str) -> None:
        self.notes.append((self.loop.time(), what))

    def observe(self, node: Node, broker: Broker) -> None:
        """A broker is about to start."""
        process = node.process
        assert process is not None

        def happened(event: Event) -> None:
            if process.is_alive:
                self.events.append(event)
                if event.type == "PartitionFailed":  # A fault in the code; disks fail under another name.
                    self.defects.append(f"{self.loop.time():.3f} {node.name}: {event.to_json()}")

        broker.journal.subscribe(happened)
        for observer in self.observers:
            observer(node, broker)

    def broker_ended(self, node: Node, error: BaseException) -> None:
        """A broker ended by itself."""
        reasons = _leaves(error)
        text = "; ".join(f"{type(one).__name__}: {one}" for one in reasons)
        self.note(f"{node.name} ends: {text}")
        if not any(isinstance(one, EXPECTED_ENDS) for one in reasons):
            self.defects.append(
                f"{self.loop.time():.3f} {node.name} ended: " + "".join(traceback.format_exception(error))
            )

    async def start(self) -> None:
        """Start every broker and wait until all serve and know the cluster."""
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            await node.running.wait()
        await eventually(lambda: all(node.knows_the_cluster for node in self.nodes.values()), within_s=60)

    # --- clients -------------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> list[str]:
        return [f"{node.name}:9092" for node in self.nodes.values()]

    def transport(self, process: Process) -> NodeTransport:
        return NodeTransport(self.network, process)

    def producer(self, process: Process, *, acks: int | str = "all", **options: object) -> Producer:
        """A producer in ``process``."""
        return Producer(
            bootstrap_servers=self.bootstrap_servers,
            client_id=process.name,
            acks=acks,
            transport=self.transport(process),
            clock=VirtualClock(self.loop),
            chance=self.draw(),
            **options,  # type: ignore[arg-type]
        )

    def consumer(self, process: Process, **options: object) -> Consumer:
        """A consumer in ``process``."""
        return Consumer(
            bootstrap_servers=self.bootstrap_servers,
            client_id=process.name,
            transport=self.transport(process),
            clock=VirtualClock(self.loop),
            chance=self.draw(),
            **options,  # type: ignore[arg-type]
        )

    def admin(self, process: Process) -> AdminClient:
        """An admin client in ``process``."""
        return AdminClient(
            bootstrap_servers=self.bootstrap_servers,
            client_id=process.name,
            transport=self.transport(process),
            clock=VirtualClock(self.loop),
            chance=self.draw(),
        )

    async def create_topic(
        self, name: str, *, partitions: int, replication_factor: int, configs: Mapping[str, str] | None = None
    ) -> list[TopicPartition]:
        """Create a topic and return its partitions."""
        topic = NewTopic(name, partitions, replication_factor, topic_configs=dict(configs or {}))
        process = Process("admin")

        async def create() -> None:
            async with self.admin(process) as admin:
                await admin.create_topics([topic])

        await process.spawn(create(), "create topics")
        return [TopicPartition(name, number) for number in range(partitions)]


async def eventually(condition: Callable[[], bool], *, within_s: float, every_s: float = 0.02) -> None:
    """Wait until ``condition`` holds. Raises TimeoutError after so much virtual time."""
    async with asyncio.timeout(within_s):
        while True:
            if condition():
                return
            await asyncio.sleep(every_s)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]
