"""What each fault does, how it is healed, and how it shows that it took place.

A fault is carried out in two steps, :meth:`Injector.inject` and the healing it returns. What breaks is
looked at afterwards: a killed process is gone, a paused one stands, a cut link has met traffic. Where
that cannot be shown, :class:`NoEffect` says so, and the fault does not count.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from kafkalite.cluster import zookeeper
from kafkalite.cluster.launcher import Cluster
from kafkalite.cluster.layout import Node
from kafkalite.cluster.view import read_znodes
from kafkalite.common import TopicPartition
from kafkalite.torture.links import Cut, Links
from kafkalite.torture.schedule import KINDS, Planned
from zk import paths
from zk.client import ZooKeeperError

START_TIMEOUT_S: Final = 120
TAIL_BYTES: Final = 64 << 10
"""How far from a log's end a byte is flipped."""

T = TypeVar("T")


class NoEffect(Exception):
    """The fault broke nothing: there was nothing to be broken, or nothing that met it."""


class Busy(NoEffect):
    """A fault that is there just now stands in the way of this one."""


class Injected(msgspec.Struct, frozen=True):
    """A fault that is there until :attr:`heal` is awaited."""

    victims: tuple[str, ...]
    """Names of processes."""
    text: str
    """What was done, in words."""
    heal: Callable[[], Awaitable[None]]
    """Undo it. Raises NoEffect where it turns out that nothing met it."""


class Injector:
    """Breaks one cluster."""

    def __init__(self, cluster: Cluster, links: Links | None, partitions: Sequence[TopicPartition]) -> None:
        """``partitions``: the ones that records are written to."""
        self._cluster = cluster
        self._links = links
        self._partitions = partitions
        self._busy: set[str] = set()
        self._links_are_cut = False

    async def inject(self, planned: Planned) -> Injected:
        """Carry ``planned`` out.

        Raises Busy where another fault has to be healed first, NoEffect where nothing can be broken.
        """
        chance = random.Random(planned.chance)
        if KINDS[planned.kind].hits_broker:
            victims = [await self._aim(planned, chance)]
        elif planned.kind == "kill-all":
            victims = list(self._cluster.layout.brokers)
        else:
            victims = await self._zookeepers(planned, chance)
        names = tuple(node.name for node in victims)
        if KINDS[planned.kind].needs_links and self._links_are_cut:
            raise Busy("links are cut already")
        if self._busy.intersection(names):
            raise Busy(f"another fault has {', '.join(sorted(self._busy.intersection(names)))}")
        self._busy.update(names)
        try:
            injected = await self._break(planned, victims, chance)
        except BaseException:
            self._busy.difference_update(names)
            raise

        async def heal() -> None:
            try:
                await injected.heal()
            finally:
                self._busy.difference_update(names)

        return Injected(names, injected.text, heal)

    async def _break(self, planned: Planned, victims: Sequence[Node], chance: random.Random) -> Injected:
        names = tuple(node.name for node in victims)
        match planned.kind, planned.way:
            case "kill" | "kill-all" | "quorum", _:
                return await self._kill(names)
            case "zookeeper", "leader killed" | "follower killed":
                return await self._kill(names)
            case "pause", _:
                return await self._pause(names)
            case "zookeeper", _:
                return await self._pause(names)
            case "bounce", _:
                return await self._stop(names)
            case "disk", way:
                return await self._harm_disk(victims[0], way, chance)
            case (("partition" | "zk-cut" | "client-cut" | "slow"), way):
                return await self._cut(victims[0], planned.kind, way, chance)
            case _:
                raise AssertionError(f"{planned.kind} {planned.way} is no fault")

    # --- processes -----------------------------------------------------------------------

    async def _kill(self, names: Sequence[str]) -> Injected:
        self._must_run(names)
        await asyncio.to_thread(self._cluster.kill, names)
        for node in self._cluster.nodes(names):
            assert self._cluster.process(node) is None, f"{node.name} was killed and still runs"

        async def heal() -> None:
            await asyncio.to_thread(self._cluster.start, names, timeout_s=START_TIMEOUT_S)

        return Injected(tuple(names), f"killed {', '.join(names)}", heal)

    async def _pause(self, names: Sequence[str]) -> Injected:
        self._must_run(names)
        await asyncio.to_thread(self._cluster.pause, names)  # Returns when the kernel says that they stand.

        async def heal() -> None:
            await asyncio.to_thread(self._cluster.resume, names)

        return Injected(tuple(names), f"paused {', '.join(names)}", heal)

    async def _stop(self, names: Sequence[str]) -> Injected:
        self._must_run(names)
        await asyncio.to_thread(self._cluster.stop, names, timeout_s=START_TIMEOUT_S)

        async def heal() -> None:
            await asyncio.to_thread(self._cluster.start, names, timeout_s=START_TIMEOUT_S)

        return Injected(tuple(names), f"stopped {', '.join(names)}", heal)

    def _must_run(self, names: Sequence[str]) -> None:
        for node in self._cluster.nodes(names):
            if self._cluster.process(node) is None:
                raise NoEffect(f"{node.name} does not run")

    # --- disks ---------------------------------------------------------------------------

    async def _harm_disk(self, victim: Node, way: str, chance: random.Random) -> Injected:
        killed = await self._kill([victim.name])
        data = self._cluster.directory / victim.name / "data"
        try:
            done = harm(
                [directory for one in self._partitions if (directory := data / str(one)).is_dir()],
                way,
                chance,
            )
        except NoEffect:
            await killed.heal()
            raise
        return Injected((victim.name,), f"{killed.text}, {done}", killed.heal)

    # --- links ---------------------------------------------------------------------------

    async def _cut(self, victim: Node, kind: str, way: str, chance: random.Random) -> Injected:
        assert self._links is not None
        match kind:
            case "partition":
                cut = Cut(*self._links.between_brokers(victim.id))
                text = f"cut {victim.name} off from the other brokers ({way})"
            case "zk-cut":
                cut = Cut([], self._links.to_zookeeper(victim.id))
                text = f"cut {victim.name} off from ZooKeeper ({way})"
            case "client-cut":
                cut = Cut(self._links.from_clients(victim.id), [])
                text = f"cut the clients off from {victim.name} ({way})"
            case _:
                incoming, outgoing = self._links.between_brokers(victim.id)
                clients, ensemble = (
                    self._links.from_clients(victim.id),
                    self._links.to_zookeeper(victim.id),
                )
                cut = Cut([*incoming, *clients], [*outgoing, *ensemble])
                delay_s = chance.uniform(0.02, 0.4)
                text = f"slowed {victim.name}'s links by {delay_s * 1000:.0f} ms"
        self._links_are_cut = True
        if kind == "slow":
            cut.slow(delay_s)
        else:
            cut.apply(way)

        async def heal() -> None:
            cut.heal()
            self._links_are_cut = False
            if not cut.met:
                raise NoEffect("no traffic met it")

        return Injected((victim.name,), text, heal)

    # --- aiming --------------------------------------------------------------------------

    async def _aim(self, planned: Planned, chance: random.Random) -> Node:
        """The broker that has the planned role now; any one where ZooKeeper cannot say who it is."""
        brokers = self._cluster.layout.brokers
        one = chance.choice(self._partitions)
        state, ruler = paths.partition_state(one), paths.CONTROLLER
        found: list[int] = []
        try:
            znodes = await read_znodes(self._cluster.layout.zookeeper_connect, [state, ruler], timeout_s=3)
        except (ZooKeeperError, TimeoutError):
            znodes = {}
        if planned.role == "controller" and (text := znodes.get(ruler)) is not None:
            found = [json.loads(text)["brokerid"]]
        elif planned.role in ("leader", "follower") and (text := znodes.get(state)) is not None:
            leader = json.loads(text)["leader"]
            found = [node.id for node in brokers if (node.id == leader) == (planned.role == "leader")]
        fitting = [node for node in brokers if node.id in found and node.name not in self._busy]
        free = [node for node in brokers if node.name not in self._busy]
        if not free:
            raise Busy("another fault has every broker")
        return chance.choice(fitting or free)

    async def _zookeepers(self, planned: Planned, chance: random.Random) -> list[Node]:
        nodes = list(self._cluster.layout.zookeepers)
        if planned.kind == "quorum":
            return chance.sample(nodes, len(nodes) // 2 + 1)
        wanted = "leader" if planned.way.startswith("leader") else "follower"
        modes = {node.name: await zookeeper.mode(self._cluster.zookeeper_server(node)) for node in nodes}
        fitting = [node for node in nodes if modes[node.name] == wanted] or [
            node for node in nodes if modes[node.name] == "standalone"
        ]
        if not fitting:
            raise NoEffect(f"no ZooKeeper is {wanted} just now")
        return [chance.choice(fitting)]


def harm(logs: Sequence[Path], way: str, chance: random.Random) -> str:
    """Do to the log directories ``logs`` of a broker that is down what a power cut or a bad disk does.

    Returns what was done. Raises NoEffect where there is nothing to harm.
    """
    segments = [max(found) for one in logs if (found := list(one.glob("*.log")))]
    segments = [segment for segment in segments if segment.stat().st_size > 0]
    if not segments:
        raise NoEffect("every log is empty")
    segment = chance.choice(sorted(segments))
    size = segment.stat().st_size
    where = f"{segment.parent.name}/{segment.name}"
    match way:
        case "torn tail":
            lost = chance.randint(1, min(size, TAIL_BYTES))
            os.truncate(segment, size - lost)
            return f"tore the last {lost} bytes off {where}"
        case "flipped byte":
            at = size - chance.randint(1, min(size, TAIL_BYTES))
            with open(segment, "r+b") as file:
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ (1 << chance.randrange(8))]))
            return f"flipped a bit at {at} of {where}"
        case "index deleted":
            indexes = sorted(segment.parent.glob("*.index")) + sorted(segment.parent.glob("*.timeindex"))
            if not indexes:
                raise NoEffect(f"{segment.parent.name} has no index")
            index = chance.choice(indexes)
            index.unlink()
            return f"deleted {index.parent.name}/{index.name}"
        case _:
            raise AssertionError(f"disks know no {way}")
