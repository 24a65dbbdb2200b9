"""One seed, one world: a cluster, its clients and its nemesis, from the first step to the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from kafkalite.checker.checker import Checker, Verdict
from kafkalite.checker.history import HistoryEvent, Lost
from kafkalite.checker.promise import Faults, Mode
from kafkalite.client import TopicPartition
from kafkalite.journal import Event
from tests.support.disk import SimulatedCrash
from zk import paths
from zk.codecs import decode_controller

from . import groups
from .cluster import Cluster, eventually
from .groups import COORDINATORS, CoordinatorInvariants, GroupNemesis, GroupWorkload
from .invariants import InvariantBroken, Invariants, compare_logs
from .loop import START_MS, VirtualLoop, simulate
from .stress import HISTORIES, Stress
from .workload import ProducerSpec, Workload

LIVENESS_S: Final = 60
"""Within so many simulated seconds after healing everything works again."""

HEALED: Final = "everything is healed"
"""Noted when the faults are over, before they are undone."""

PROCESSES: Final[Mapping[str, float]] = {
    "crash": 3,
    "crash in a call": 2,
    "quick restart": 3,
    "crash of all": 0.5,
    "controller crash": 2,
    "controller and leader crash": 2,
    "stop": 1.5,
    "pause": 3,
    "pause of the controller": 1.5,
}
NETWORK: Final[Mapping[str, float]] = {
    "cut between brokers": 2,
    "one-way cut between brokers": 2,
    "isolation": 1.5,
    "cut from clients": 1.5,
    "slow links": 1.5,
}
ZOOKEEPER: Final[Mapping[str, float]] = {
    "cut from zookeeper": 2,
    "one-way cut from zookeeper": 2,
    "session expiry": 2,
    "suspended session": 2,
    "lost reply": 3,
    "lost request": 1,
    "slow zookeeper": 2,
    "controller deposed": 1.5,
    "contested ISR": 2,
    "ensemble away": 1,
}
MACHINES: Final[Mapping[str, float]] = {"slow disk": 1, "disk error": 1.5, "clock jump": 1}
EVERYTHING: Final = {**PROCESSES, **NETWORK, **ZOOKEEPER, **MACHINES}


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of world a seed makes."""

    name: str
    faults: Mapping[str, float] = field(default_factory=lambda: EVERYTHING)
    promise: Faults = Faults.TAME
    overrides: Mapping[str, str] = field(default_factory=dict)
    pause_s: float = 4.0
    """Mean time between two faults of a storm."""
    lull_s: float = 0.0
    """Mean time between two storms; 0: it never ends."""
    brokers: tuple[int, ...] = (3, 3, 3, 3, 3, 4, 5)
    modes: tuple[Mode, ...] = (Mode.IDEMPOTENT, Mode.IDEMPOTENT, Mode.ACKS_ALL, Mode.ACKS_1)
    records_a_second: float = 4.0
    partitions: int = 3
    """Of the first topic; a second one has one."""
    consumers: int = 2
    groups: int = 0
    """Consumer groups beside the consumers that are assigned everything."""


LULL_S: Final = 70.0
GROUP_FAULTS: Final = {name: weight / 4 for name, weight in EVERYTHING.items()}
"""Everything, but less of it than of what strikes coordinators."""
GROUPS: Final[dict[str, Any]] = {
    "groups": 2,
    "lull_s": LULL_S,
    "brokers": (3,),
    "modes": (Mode.IDEMPOTENT, Mode.IDEMPOTENT),
    "records_a_second": 4.0,
    "partitions": 4,
    "consumers": 1,
}

PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("everything", lull_s=LULL_S),
        Profile("processes", PROCESSES, lull_s=LULL_S),
        Profile("network", NETWORK, lull_s=LULL_S),
        Profile("zookeeper", {**ZOOKEEPER, "controller crash": 1, "quick restart": 1}, lull_s=LULL_S),
        Profile(
            "power",
            {**EVERYTHING, "power cut": 6},
            overrides={"log.flush.interval.messages": "1"},
            lull_s=LULL_S,
        ),
        Profile("power-one", {"power cut, one at a time": 1}, pause_s=12, lull_s=LULL_S, brokers=(3,)),
        Profile(
            "wild",
            {**EVERYTHING, "power cut": 8},
            Faults.WILD,
            overrides={"unclean.leader.election.enable": "true"},
            lull_s=LULL_S,
        ),
        Profile("groups", {**GROUP_FAULTS, **COORDINATORS}, **GROUPS),
        Profile(
            "groups wild",
            {**GROUP_FAULTS, **COORDINATORS, "power cut": 6},
            Faults.WILD,
            overrides={"unclean.leader.election.enable": "true"},
            **GROUPS,
        ),
        Profile(
            "histories",
            dict.fromkeys(HISTORIES, 1.0),
            overrides={"leader.imbalance.check.interval.seconds": "4"},
            pause_s=2,
            brokers=(3, 3, 4),
        ),
    )
}
"""By name. Seeds take them in turn unless one is named."""


@dataclass(slots=True)
class Report:
    """What came of one world."""

    seed: int
    profile: str
    failure: str | None
    """What went wrong, in words; None for nothing."""
    brokers: int
    verdict: Verdict | None
    simulated_s: float
    steps: int
    faults: Counter[str]
    events: Counter[str]
    """Journal events by type."""
    tail: list[str]
    """The last things that were done and that happened, for whoever looks into a failure."""
    notes: list[tuple[float, str]]
    """What was done to the cluster, and when."""
    journal: list[Event]
    history: list[HistoryEvent]


class Failed(Exception):
    """The world did not do what it should."""


class Standstill(KeyboardInterrupt):
    """A world computes on and on while its time stands still. Nothing that runs in it catches this."""


CPU_S_A_MINUTE: Final = 30.0
"""Processor time that a simulated minute may take: many times what any has taken."""


@contextlib.contextmanager
def _watched(minutes: float) -> Iterator[None]:
    """Raise Standstill in whatever runs when ``minutes`` simulated minutes should long be over."""

    def stands_still(number: int, frame: FrameType | None) -> None:
        where = "".join(traceback.format_stack(frame)[-6:])
        raise Standstill(f"the world does not go on; it was here:\n{where}")

    before = signal.signal(signal.SIGVTALRM, stands_still)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S_A_MINUTE * (minutes + 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_world(
    seed: int,
    profile: Profile | str,
    *,
    minutes: float = 10.0,
    prepare: Callable[[Cluster], None] | None = None,
) -> Report:
    """Run one world to its end. ``prepare`` may change the cluster before anything starts."""
    if isinstance(profile, str):
        profile = PROFILES[profile]
    worlds: list[_World] = []

    async def main(loop: VirtualLoop) -> str | None:
        world = _World(loop, seed, profile, minutes)
        worlds.append(world)
        if prepare is not None:
            prepare(world.cluster)
        try:
            await world.run()
        except (InvariantBroken, Failed) as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:
            return "".join(traceback.format_exception(error))
        return None

    logging.disable(logging.CRITICAL)
    try:
        with _watched(minutes):
            failure = simulate(main)
    except (InvariantBroken, Failed, Standstill) as error:
        failure = f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    return worlds[0].report(failure)


class _World:
    def __init__(self, loop: VirtualLoop, seed: int, profile: Profile, minutes: float) -> None:
        self.loop = loop
        self.seed = seed
        self.profile = profile
        self.minutes = minutes
        label = f"{profile.name} {seed}"
        chance = Cluster(loop, f"shape of {label}").chance
        own = {**groups.OVERRIDES, **profile.overrides} if profile.groups else profile.overrides
        self.cluster = Cluster(loop, label, brokers=chance.choice(profile.brokers), overrides=own)
        self.invariants = Invariants(self.cluster, may_lose=profile.promise is Faults.WILD)
        self.coordinators = CoordinatorInvariants(self.cluster) if profile.groups else None
        self.partitions: list[TopicPartition] = []
        self.internal: list[TopicPartition] = []
        """Those of `__consumer_offsets`, where there are groups."""
        self.groups: GroupWorkload | None = None
        self.workload: Workload | None = None
        self.verdict: Verdict | None = None

    async def run(self) -> None:
        cluster, loop = self.cluster, self.loop
        await cluster.start()
        self.partitions = [
            *await cluster.create_topic("orders", partitions=self.profile.partitions, replication_factor=3),
            *await cluster.create_topic("events", partitions=1, replication_factor=3),
        ]
        if self.profile.groups:
            self.internal = await groups.created(cluster)
        await eventually(self.is_whole, within_s=60)
        loop.after_step = self.invariants.check
        workload = self.workload = Workload(
            cluster, self.partitions, on_acknowledged=self.invariants.acknowledged
        )
        for mode in self.profile.modes:
            workload.start_producer(ProducerSpec(mode, self.profile.records_a_second))
        for _ in range(self.profile.consumers):
            workload.start_consumer()
        nemesis = (GroupNemesis if self.profile.groups else Stress)(
            cluster,
            self.profile.faults,
            pause_s=self.profile.pause_s,
            lull_s=self.profile.lull_s,
            pace=workload.pace,
            is_calm=self.is_whole,
            clients=self._clients,
        )
        if isinstance(nemesis, GroupNemesis):
            specs = groups.draw_specs(cluster.draw(), self.profile.groups)
            self.groups = GroupWorkload(cluster, self.partitions, specs, workload.history)
            nemesis.workload = self.groups
            self.groups.start()
        breaking = loop.create_task(nemesis.run(), name="nemesis")
        end = loop.time() + self.minutes * 60
        while loop.time() < end:
            await asyncio.sleep(1)
            workload.check_alive()
            self._check_defects()
            if breaking.done():
                breaking.result()
        breaking.cancel()
        await asyncio.wait([breaking])
        cluster.note(HEALED)
        await nemesis.heal()
        if self.groups is not None:
            self.groups.calm_down()
        # A broker that was asked to stop before the healing may end after it.
        supervising = loop.create_task(nemesis.supervise(), name="supervisor")
        await self._live(workload)
        await self._settle(workload)
        supervising.cancel()

    def is_whole(self) -> bool:
        """Whether every broker is up, one rules, and every partition is led, with all replicas in sync."""
        for node in self.cluster.nodes.values():
            if not node.is_up or node.is_paused or not node.knows_the_cluster:
                return False
        return self._is_ruled() and all(
            self._is_whole(partition) for partition in (*self.partitions, *self.internal)
        )

    def _clients(self) -> list[str]:
        assert self.workload is not None
        members = self.groups.processes if self.groups is not None else ()
        return [*(process.name for process in self.workload.processes), *members]

    def _is_ruled(self) -> bool:
        """Whether the broker that /controller names knows that it is meant."""
        found = self.cluster.zookeeper.peek(paths.CONTROLLER)
        if found is None:
            return False
        named = self.cluster.nodes[decode_controller(found[0]).broker_id].broker
        return named is not None and named.controller.is_active

    def _is_whole(self, partition: TopicPartition) -> bool:
        state = self.invariants.state(partition)
        if state is None or state.leader < 0:
            return False
        leader = self.cluster.nodes[state.leader].broker
        own = leader.replicas.partition(partition) if leader is not None else None
        return (
            own is not None
            and own.is_leader
            and not own.is_deposed
            and not own.is_frozen
            and own.change is None
            and own.leader_epoch == state.leader_epoch
            and len(own.isr) == len(own.replicas)
            and set(state.isr) == set(own.isr)
        )

    def _check_defects(self) -> None:
        if self.cluster.defects:
            raise Failed("\n".join(self.cluster.defects))
        # A disk that crashes under a bare callback ends its process there: nobody is left to catch it.
        faults = [one for one in self.loop.faults if not isinstance(one.get("exception"), SimulatedCrash)]
        if faults:
            raise Failed("\n".join(_describe(fault) for fault in faults))
        if self.groups is not None:
            self.groups.check_alive()
        if self.coordinators is not None and (problems := self.coordinators.check()):
            raise Failed("\n".join(problems))

    async def _live(self, workload: Workload) -> None:
        """After healing: full ISR, writable, and consumers at the end, each within the time."""
        try:
            await eventually(lambda: self._defects_or(self.is_whole), within_s=LIVENESS_S)
        except TimeoutError:
            raise Failed(f"not whole {LIVENESS_S} s after healing: {self._what_is_missing()}") from None
        try:
            async with asyncio.timeout(LIVENESS_S):
                await asyncio.gather(*(workload.probe(partition) for partition in self.partitions))
        except TimeoutError:
            raise Failed(f"not every partition is writable {LIVENESS_S} s after healing") from None
        try:
            async with asyncio.timeout(LIVENESS_S):
                await workload.stop_writing()
        except TimeoutError:
            raise Failed(f"a producer did not finish {LIVENESS_S} s after healing") from None
        ends = await workload.end_offsets()

        def is_read() -> bool:
            return all(
                positions.get(partition, 0) >= end
                for name, positions in workload.positions.items()
                for partition, end in ends.items()
            )

        try:
            await eventually(is_read, within_s=LIVENESS_S)
        except TimeoutError:
            raise Failed(
                f"consumers did not reach the end {LIVENESS_S} s after healing: {ends}, {workload.positions}"
            ) from None
        if self.groups is not None:
            await self._settle_groups(self.groups, ends)
        await workload.stop_reading()
        async with asyncio.timeout(LIVENESS_S):
            await workload.read_all(ends)

    async def _settle_groups(self, members: GroupWorkload, ends: Mapping[TopicPartition, int]) -> None:
        """Every group is stable, complete and at the end."""
        try:
            await eventually(lambda: not members.unsettled(ends), within_s=LIVENESS_S)
        except TimeoutError:
            raise Failed(
                f"groups have not settled {LIVENESS_S} s after healing: " + "; ".join(members.unsettled(ends))
            ) from None
        try:
            async with asyncio.timeout(LIVENESS_S):
                await members.finish(ends)
        except TimeoutError:
            raise Failed(f"members have not stopped {LIVENESS_S} s after they were asked to") from None

    def _defects_or(self, condition: Callable[[], bool]) -> bool:
        self._check_defects()
        return condition()

    async def _settle(self, workload: Workload) -> None:
        """All replicas hold the same bytes, and the history is what was promised."""
        try:
            await eventually(lambda: not self._differences(), within_s=LIVENESS_S)
        except TimeoutError:
            raise Failed("; ".join(self._differences())) from None
        self.loop.after_step = None
        self.invariants.check_now()
        self._check_defects()
        self.verdict = self._judge(workload)
        if not self.verdict.is_kept:
            raise Failed(
                "\n".join(
                    f"{finding.anomaly.value}: {finding.text}"
                    for finding in self.verdict.findings
                    if not finding.is_allowed
                )
            )
        if self.verdict.without_receipt:
            # Whatever the mode and the faults allow to be lost: nobody loses it without a word.
            raise Failed(
                f"{self.verdict.without_receipt} acknowledged records are gone, on no loss receipt and by no "
                "power cut\n"
                + "\n".join(one.text for one in self.verdict.findings if "receipt" not in one.text)
            )

    def _differences(self) -> list[str]:
        return compare_logs(self.cluster, [*self.partitions, *self.internal])

    def _judge(self, workload: Workload) -> Verdict:
        checker = Checker(workload.modes, self.profile.promise)
        for event in self.cluster.events:
            if event.type == "RecordsLost":
                assert event.topic is not None
                assert event.partition is not None
                checker.take(
                    Lost(
                        event.topic,
                        event.partition,
                        event.facts["first_offset"],
                        event.facts["last_offset"],
                    )
                )
        for partition, first, last in self.cluster.unsynced:
            checker.take(Lost(partition.topic, partition.partition, first, last))
        checker.take_all(workload.history)
        return checker.verdict()

    def _what_is_missing(self) -> str:
        missing = [] if self._is_ruled() else ["nobody rules"]
        missing += [
            f"{node.name} is {'up' if node.is_up else 'down'}, knows_the_cluster={node.knows_the_cluster}, "
            f"membership={node.broker.membership.state if node.broker is not None else None}"
            for node in self.cluster.nodes.values()
        ]
        for partition in (*self.partitions, *self.internal):
            if not self._is_whole(partition):
                missing.append(f"{partition}: {self.invariants.state(partition)}")
                for node in self.cluster.nodes.values():
                    own = node.broker.replicas.partition(partition) if node.broker is not None else None
                    if own is not None:
                        missing.append(
                            f"  {node.name}: {own.role.value} epoch {own.leader_epoch} of {own.leader} "
                            f"isr {own.isr} pe {own.partition_epoch} change {own.change} "
                            f"deposed {own.is_deposed} frozen {own.is_frozen}"
                        )
        return "\n".join(missing)

    def report(self, failure: str | None) -> Report:
        cluster = self.cluster
        events = Counter(event.type for event in cluster.events)
        cluster.counts["lost reply"] = cluster.zookeeper.lost_replies
        cluster.counts["lost multi reply"] = cluster.zookeeper.lost_multi_replies
        cluster.counts["lost request"] = cluster.zookeeper.lost_requests
        return Report(
            seed=self.seed,
            profile=self.profile.name,
            failure=failure,
            brokers=len(cluster.nodes),
            verdict=self.verdict,
            simulated_s=self.loop.time(),
            steps=self.loop.steps,
            faults=cluster.counts,
            events=events,
            tail=_tail(cluster),
            notes=cluster.notes,
            journal=cluster.events,
            history=self.workload.history if self.workload is not None else [],
        )


def _describe(fault: Mapping[str, object]) -> str:
    error = fault.get("exception")
    text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    return f"{fault.get('message')} {text}"


def _tail(cluster: Cluster, count: int = 60) -> list[str]:
    lines = [(when, f"{when:9.3f} ** {what}") for when, what in cluster.notes]
    for event in cluster.events:
        when = (event.time - START_MS) / 1000
        where = f" {event.topic}-{event.partition}" if event.topic is not None else ""
        facts = ", ".join(f"{name}={value}" for name, value in event.facts.items())
        lines.append((when, f"{when:9.3f} broker {event.broker} {event.type}{where} {facts}"))
    return [line for _, line in sorted(lines, key=lambda entry: entry[0])[-count:]]
