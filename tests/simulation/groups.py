"""Consumer groups in a simulated world: members that come, go, crash and fall silent, and who judges them.

A *slot* is one place in a group that an operator wants filled; the *lives* that fill it, one after the
other, are consumers in processes of their own (a static member's share the instance id). What a member
was handed it takes a while to process, and notes only then; manual commits follow that note, automatic ones
the next read. All that members say to their coordinator is noted by a witness
(:mod:`kafkalite.torture.witness`) and judged with the rest of the history.

Beside the history this module looks into the coordinators while they run: what one holds in memory is what
its partition's records say, and no leader epoch of a partition has two coordinators.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from kafkalite.checker.history import CommitRefused, Finished, HistoryEvent, Polled
from kafkalite.client import Consumer, ConsumerRecord, RebalanceListener, TopicPartition
from kafkalite.client.errors import ClientClosedError, ClientError
from kafkalite.common import CONSUMER_OFFSETS
from kafkalite.coordinator.group.group import Group
from kafkalite.coordinator.group.shard import Shard
from kafkalite.coordinator.group.state import GroupState
from kafkalite.coordinator.loading import decode_latest, read_chunk
from kafkalite.coordinator.partitioner import partition_for
from kafkalite.coordinator.runtime import _Phase, _Served
from kafkalite.journal import Event
from kafkalite.log.log import Read
from kafkalite.protocol.errors import BrokerError, FencedInstanceIdError
from kafkalite.server.broker import Broker
from kafkalite.torture.witness import Witness

from .cluster import Cluster, Node, eventually
from .loop import Process, VirtualClock
from .stress import Stress

OVERRIDES: Final[Mapping[str, str]] = {
    "offsets.topic.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "500",
    "offsets.commit.timeout.ms": "3000",
}
"""Few partitions, so that each has several groups' records; their minimum ISR is the cluster's, 2."""
SESSION_TIMEOUT_MS: Final = 6_000
MAX_POLL_INTERVAL_MS: Final = 5_000
"""The rebalance timeout too: shorter than a session, so that it shows by itself."""
COORDINATORS: Final[Mapping[str, float]] = {
    "coordinator crash": 5,
    "coordinator pause": 2,
    "coordinator cut off": 2,
}
"""Faults of :class:`GroupNemesis`, with how often they are to be drawn."""

PHASES: Final = (GroupState.PREPARING_REBALANCE, GroupState.COMPLETING_REBALANCE, GroupState.STABLE)
STATES: Final[Mapping[str, str]] = {
    "group rebalanced": "GroupRebalanceCompleted",
    "group member joined": "GroupMemberJoined",
    "group member left": "GroupMemberLeft",
    "static member replaced": "GroupMemberReplaced",
    "coordinator let go": "GroupCoordinatorUnloaded",
}
"""What is worth reaching, and the journal event that tells of it."""
SPECIAL: Final = (
    "group member's session expired",
    "rebalance timed out without a member",
    "group member never synced",
    "offsets loaded on take-over",
    "generation loaded on take-over",
    *(f"coordinator crashed in {phase.value}" for phase in PHASES),
    "commit refused: ILLEGAL_GENERATION",
    "commit refused: UNKNOWN_MEMBER_ID",
    "commit refused: FENCED_INSTANCE_ID",
    "commit refused: REBALANCE_IN_PROGRESS",
)
"""What no single type of event stands for."""


def states_reached(
    journal: Iterable[Event], history: Iterable[HistoryEvent], faults: Counter[str]
) -> Counter[str]:
    """How often each interesting state of groups was reached."""
    states: Counter[str] = Counter()
    names = {type: name for name, type in STATES.items()}
    for event in journal:
        if event.type in names:
            states[names[event.type]] += 1
        states.update(_special(event))
    for noted in history:
        if isinstance(noted, CommitRefused):
            states[f"commit refused: {noted.error}"] += 1
    for phase in PHASES:
        crashed = faults[f"coordinator crash in {phase.value}"]
        if crashed:
            states[f"coordinator crashed in {phase.value}"] = crashed
    return states


def _special(event: Event) -> Iterator[str]:
    facts = event.facts
    if event.type == "GroupMemberExpired":
        reason = str(facts["reason"])
        if reason.startswith("no sign of life"):
            yield "group member's session expired"
        elif reason.startswith("it did not rejoin"):
            yield "rebalance timed out without a member"
        elif reason.startswith("it joined and did not sync"):
            yield "group member never synced"
    elif event.type == "GroupCoordinatorLoaded":
        if facts["offsets"]:
            yield "offsets loaded on take-over"
        if facts["members"]:
            yield "generation loaded on take-over"


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """What one group is like."""

    name: str
    assignors: tuple[str, ...]
    slots: int
    static_slots: int
    """Of these, the first ones are static members."""
    commits: tuple[str, ...] = ("auto", "manual")
    """How members commit; each life draws one."""


def draw_specs(chance: random.Random, count: int) -> list[GroupSpec]:
    """``count`` groups; most of them cooperative."""
    specs = []
    for number in range(count):
        assignor = chance.choice(["cooperative-sticky"] * 5 + ["sticky", "range", "roundrobin"])
        slots = chance.choice([2, 3, 3, 4])
        specs.append(GroupSpec(f"group-{number}", (assignor,), slots, chance.choice([0, 1, 1, 2])))
    return specs


@dataclass(eq=False)
class _Life:
    """One consumer from its start to its end."""

    name: str
    process: Process
    is_automatic: bool
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    is_abandoned: bool = False
    """It is to end without taking what it was handed last for processed."""
    stall_s: float = 0.0
    """How long the next processing is to take."""
    lost: set[TopicPartition] = field(default_factory=set)
    """What it learned to be others' since it was handed records last."""
    task: asyncio.Task[None] | None = None


class _Listener(RebalanceListener):
    """Passes on what it hears, and lets the life know what it has lost."""

    def __init__(self, witness: RebalanceListener, life: _Life) -> None:
        self._witness = witness
        self._life = life

    def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self._witness.on_partitions_revoked(revoked)

    def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> None:
        self._witness.on_partitions_lost(lost)
        self._life.lost |= lost


class GroupWorkload:
    """The groups of one world."""

    def __init__(
        self,
        cluster: Cluster,
        partitions: list[TopicPartition],
        specs: list[GroupSpec],
        history: list[HistoryEvent],
    ) -> None:
        self.cluster = cluster
        self.partitions = partitions
        self.specs = specs
        self.history = history
        self.processes: dict[str, Process] = {}
        """Of the present lives, by name."""
        self._topics = sorted({partition.topic for partition in partitions})
        self._numbers = itertools.count(1)
        self._lives = itertools.count(1)
        self._calm = asyncio.Event()
        """Lives are let live from now on."""
        self._finish = asyncio.Event()
        self._slots: list[asyncio.Task[None]] = []
        self._replaced: list[_Life] = []
        """Static members that live on after another process took their place."""
        self._present: dict[tuple[str, int], _Life] = {}

    def start(self) -> None:
        """Fill every slot of every group."""
        for spec in self.specs:
            for slot in range(spec.slots):
                chance = self.cluster.draw()
                self._slots.append(
                    self.cluster.loop.create_task(
                        self._fill(spec, slot, chance), name=f"{spec.name} slot {slot}"
                    )
                )

    def check_alive(self) -> None:
        """Raise what a member, or who fills a slot, has failed with."""
        for task in self._slots:
            if task.done():
                task.result()

    # --- slots ---------------------------------------------------------------------------

    async def _fill(self, spec: GroupSpec, slot: int, chance: random.Random) -> None:
        """One life after the other; when all is calm the present one lives on to the end."""
        await asyncio.sleep(chance.expovariate(1 / 2))
        is_static = slot < spec.static_slots
        while not self._finish.is_set():
            life = self._begin(spec, slot, chance)
            while life.task is not None:
                await self._for(life, chance.uniform(2, 30))
                if life.task.done() or self._finish.is_set():
                    break
                if self._calm.is_set():
                    await self._for(life, None)
                    break
                ways = {
                    "leave": 2,
                    "abandon": 1,
                    "crash": 3,
                    "pause": 3,
                    "stall": 2,
                    "replace": 4 * is_static,
                }
                (way,) = chance.choices(list(ways), list(ways.values()))
                self.cluster.counts[f"member: {way}"] += 1
                self.cluster.note(f"{life.name}: {way}")
                match way:
                    case "leave" | "abandon":
                        life.is_abandoned = way == "abandon"
                        life.stop.set()
                        await asyncio.wait([life.task])
                    case "crash":
                        life.process.kill()
                        self.cluster.network.kill(life.process)
                        life.task = None
                    case "pause":
                        life.process.pause()
                        await self._for(None, chance.choice([chance.uniform(0.1, 5), chance.uniform(5, 20)]))
                        life.process.resume()
                    case "stall":
                        life.stall_s = chance.choice([3.0, MAX_POLL_INTERVAL_MS / 1000 + 3])
                    case "replace":
                        self._replaced.append(life)
                        break
            if life.task is not None and life.task.done():
                life.task.result()
            if life not in self._replaced:
                self.processes.pop(life.name, None)
            if not self._calm.is_set():
                await asyncio.sleep(chance.choice([0.1, chance.uniform(0.1, 3), chance.uniform(3, 12)]))

    async def _for(self, life: _Life | None, seconds: float | None) -> None:
        """Wait so long; less where the life ends or the calm (then: the end) begins first."""
        over = self._finish if seconds is None else self._calm
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(over.wait())]
        if life is not None and life.task is not None:
            waits.append(life.task)  # type: ignore[arg-type]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        waits[0].cancel()

    def _begin(self, spec: GroupSpec, slot: int, chance: random.Random) -> _Life:
        name = f"{spec.name}-{slot}.{next(self._lives)}"
        process = Process(name)
        life = _Life(name, process, is_automatic=chance.choice(spec.commits) == "auto")
        self.processes[name] = process
        self._present[spec.name, slot] = life
        instance = f"{spec.name}-{slot}" if slot < spec.static_slots else None
        life.task = process.spawn(self._live(life, spec, instance, self.cluster.draw()), name)
        return life

    # --- one life ------------------------------------------------------------------------

    def _note(self, event: HistoryEvent) -> None:
        self.history.append(event)

    def _consumer(self, process: Process, group: str, **options: object) -> tuple[Consumer, Witness]:
        cluster = self.cluster
        witness = Witness(
            cluster.transport(process),
            consumer=process.name,
            note=self._note,
            at=cluster.loop.time,
            numbers=self._numbers,
        )
        consumer = Consumer(
            bootstrap_servers=cluster.bootstrap_servers,
            client_id=process.name,
            group_id=group,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=1_000,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            auto_offset_reset="earliest",
            request_timeout_ms=3_000,
            default_api_timeout_ms=15_000,
            metadata_max_age_ms=30_000,
            transport=witness,
            clock=VirtualClock(cluster.loop),
            chance=cluster.draw(),
            **options,  # type: ignore[arg-type]
        )
        return consumer, witness

    async def _live(self, life: _Life, spec: GroupSpec, instance: str | None, chance: random.Random) -> None:
        consumer, witness = self._consumer(
            life.process,
            spec.name,
            group_instance_id=instance,
            partition_assignment_strategy=spec.assignors,
            enable_auto_commit=life.is_automatic,
            auto_commit_interval_ms=1_000,
            max_partition_fetch_bytes=16_384,
        )
        await _started(consumer)
        consumer.subscribe(self._topics, listener=_Listener(witness.listener(spec.name), life))
        try:
            while not life.stop.is_set():
                try:
                    found = await consumer.getmany(timeout_ms=500)
                except FencedInstanceIdError:
                    self.cluster.counts["static member fenced"] += 1
                    break
                except ClientClosedError:
                    raise
                except (ClientError, BrokerError) as error:
                    self.cluster.note(f"{life.name}: {type(error).__name__}: {error}")
                    await asyncio.sleep(0.5)
                    continue
                await self._process(life, found, chance)
                if not life.is_automatic and chance.random() < 0.5:
                    await self._commit(life, consumer)
        finally:
            if life.is_abandoned:
                await consumer.abandon()
            else:
                await consumer.stop()

    async def _process(
        self, life: _Life, found: Mapping[TopicPartition, list[ConsumerRecord]], chance: random.Random
    ) -> None:
        """Take a while; what was lost meanwhile is left to those who have it now."""
        if not found:
            return
        life.lost.clear()
        stall_s, life.stall_s = life.stall_s, 0.0
        await asyncio.sleep(stall_s or chance.choice([0.0, chance.expovariate(1 / 0.05), 1.0]))
        for partition, records in found.items():
            if partition in life.lost:
                continue
            self._note(
                Polled(
                    life.name,
                    partition.topic,
                    partition.partition,
                    [record.offset for record in records],
                    [int(record.value.split(b" ", 1)[0]) for record in records],
                    self.cluster.loop.time(),
                )
            )

    async def _commit(self, life: _Life, consumer: Consumer) -> None:
        try:
            await consumer.commit()
        except ClientClosedError:
            raise
        except (ClientError, BrokerError) as error:
            self.cluster.note(f"{life.name}: commit: {type(error).__name__}: {error}")

    # --- the end -------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Members come to no more harm."""
        self._calm.set()

    def coordinator(self, group: str) -> tuple[Node, _Served, Group] | None:
        """Who coordinates a group at the moment, as the brokers see it; None while nobody does."""
        number = partition_for(group, int(OVERRIDES["offsets.topic.num.partitions"]))
        found = []
        for node in self.cluster.nodes.values():
            served = None if node.broker is None else node.broker.groups._served.get(number)
            if served is not None and served.phase is _Phase.ACTIVE and group in served.shard.groups:
                found.append((served.leader_epoch, node, served))
        if not found:
            return None
        _, node, served = max(found, key=lambda entry: entry[0])
        return node, served, served.shard.groups[group]

    def unsettled(self, ends: Mapping[TopicPartition, int]) -> list[str]:
        """Which groups are not stable with all their members, or have not come to the end, and how they
        are."""
        return [text for spec in self.specs for text in self._unsettled(spec, ends)]

    def _unsettled(self, spec: GroupSpec, ends: Mapping[TopicPartition, int]) -> Iterator[str]:
        found = self.coordinator(spec.name)
        if found is None:
            yield f"{spec.name} has no coordinator"
            return
        node, _, group = found
        if group.state is not GroupState.STABLE or len(group.members) != spec.slots:
            yield (
                f"{spec.name} is {group.state.value} on {node.name} in generation {group.generation_id} with "
                f"{sorted(group.members)}; there should be {spec.slots}"
            )
        committed = {tp: value.offset for tp, value in group.offsets.committed.items()}
        behind = {
            str(tp): (committed.get(tp), end) for tp, end in ends.items() if committed.get(tp, 0) != end
        }
        if behind:
            yield f"{spec.name} has committed, of ends: {behind}"

    async def finish(self, ends: Mapping[TopicPartition, int]) -> None:
        """Every group has come to ``ends``: ask once more how far, and let the members go."""
        for spec in self.specs:
            await self._ask_committed(spec.name)
            for (topic, number), end in ends.items():
                self._note(Finished(spec.name, topic, number, end, self.cluster.loop.time()))
        for life in (*self._present.values(), *self._replaced):
            life.stop.set()
        self._finish.set()
        await asyncio.gather(*self._slots)
        fenced = [life.task for life in self._replaced if life.task is not None]
        if fenced:
            await asyncio.gather(*fenced)

    async def _ask_committed(self, group: str) -> None:
        process = Process(f"asks for {group}")

        async def ask() -> None:
            consumer, _ = self._consumer(process, group, enable_auto_commit=False)
            await _started(consumer)
            try:
                for partition in self.partitions:
                    await consumer.committed(partition)
            finally:
                await consumer.stop()

        await process.spawn(ask(), process.name)


async def _started(consumer: Consumer) -> None:
    while True:
        try:
            await consumer.start()
            return
        except (ClientError, BrokerError):
            await asyncio.sleep(0.5)


class GroupNemesis(Stress):
    """Also goes for coordinators, in the phase of a rebalance that chance has it."""

    workload: GroupWorkload

    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every fault by its name."""
        return {
            **super().faults(),
            "coordinator crash": self.coordinator_crash,
            "coordinator pause": self.coordinator_pause,
            "coordinator cut off": self.coordinator_cut,
        }

    async def _coordinator(self) -> tuple[Node, GroupState] | None:
        """Wait for a group to be in a drawn phase; None where it does not come to that in some seconds."""
        spec = self._chance.choice(self.workload.specs)
        phase = self._chance.choice(PHASES)
        found: list[Node] = []

        def is_there() -> bool:
            at = self.workload.coordinator(spec.name)
            if at is not None and at[2].state is phase and at[0].is_up and not at[0].is_paused:
                found.append(at[0])
            return bool(found)

        try:
            async with asyncio.timeout(15):
                while not is_there():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            return None
        return found[0], phase

    async def coordinator_crash(self) -> None:
        found = await self._coordinator()
        if found is not None:
            node, phase = found
            self._count("coordinator crash")
            self._count(f"coordinator crash in {phase.value}")
            node.crash()
            await self._down_for([node], self._time(0.1, 15))

    async def coordinator_pause(self) -> None:
        found = await self._coordinator()
        if found is not None:
            self._count("coordinator pause")
            await self._pause(found[0])

    async def coordinator_cut(self) -> None:
        """From the other brokers and ZooKeeper, but not from its clients: it does not know yet."""
        found = await self._coordinator()
        if found is None or found[0].is_cut_from_zookeeper:
            return
        node = found[0]
        others = [other.name for other in self._cluster.nodes.values() if other is not node]
        self._count("coordinator cut off")
        node.cut_from_zookeeper()
        links = [(node.name, other) for other in others] + [(other, node.name) for other in others]
        await self._cut(links, self._time(2, 20))
        node.mend_zookeeper()


class CoordinatorInvariants:
    """What must hold of coordinators while they run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loaded: dict[tuple[int, int], str] = {}
        self.compared = 0
        """Comparisons of a coordinator's memory with its partition."""
        cluster.observers.append(self._observe)

    def _observe(self, node: Node, broker: Broker) -> None:
        process, life = node.process, node.lives
        assert process is not None

        def happened(event: Event) -> None:
            if not process.is_alive:
                return
            if event.type == "GroupCoordinatorLoaded":
                assert event.partition is not None
                key, who = (event.partition, int(event.facts["leader_epoch"])), f"{node.name} life {life}"
                if self._loaded.setdefault(key, who) != who:
                    self._cluster.defects.append(
                        f"{self._cluster.loop.time():.3f} {who} and {self._loaded[key]} both coordinate "
                        f"{CONSUMER_OFFSETS}-{key[0]} in leader epoch {key[1]}"
                    )
            elif event.type in ("GroupCoordinatorFailed", "GroupRecordsUnreadable"):
                self._cluster.defects.append(
                    f"{self._cluster.loop.time():.3f} {node.name}: {event.to_json()}"
                )

        broker.journal.subscribe(happened)

    def check(self) -> list[str]:
        """Compare what coordinators hold in memory with the records below the high watermark."""
        problems = []
        for node in self._cluster.nodes.values():
            if node.broker is None or node.is_paused:
                continue
            for served in node.broker.groups._served.values():
                if served.phase is _Phase.ACTIVE:
                    problems += self._compare(node, served)
        return problems

    def _compare(self, node: Node, served: _Served) -> list[str]:
        log = node.log(served.partition)
        if log is None or log.is_closed or served.in_flight or log.high_watermark != log.log_end_offset:
            return []  # Only a coordinator at rest is easy to tell right from wrong.
        expected = Shard(served.shard._config)
        latest: dict[bytes, bytes | None] = {}
        offset = log.log_start_offset
        while offset < log.high_watermark:
            found = log.read(offset, max_bytes=1 << 20)
            if not isinstance(found, Read) or not len(found.records):
                return []
            latest.update(read_chunk(found.records).latest)
            offset = found.next_offset
        records, problems = decode_latest(latest)
        for record in records:
            expected.apply(record)
        self.compared += 1
        where = f"{self._cluster.loop.time():.3f} {node.name}, coordinator of {served.partition}"
        if problems:
            return [f"{where}: {problems[0]}"]
        if served.shard.image() != expected.image():
            return [f"{where}: holds {served.shard.image()}, its partition says {expected.image()}"]
        return []


async def created(cluster: Cluster) -> list[TopicPartition]:
    """Have `__consumer_offsets` created, and return its partitions."""
    process = Process("first of its group")
    count = int(OVERRIDES["offsets.topic.num.partitions"])

    async def ask() -> None:
        consumer = cluster.consumer(process, group_id="first", enable_auto_commit=False)
        await _started(consumer)
        try:
            await consumer.committed(TopicPartition("orders", 0))
        finally:
            await consumer.stop()

    await process.spawn(ask(), process.name)
    await eventually(
        lambda: any(
            node.broker is not None and node.broker.metadata.partition_count(CONSUMER_OFFSETS) == count
            for node in cluster.nodes.values()
        ),
        within_s=60,
    )
    return [TopicPartition(CONSUMER_OFFSETS, number) for number in range(count)]
