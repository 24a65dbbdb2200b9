"""Faults of several steps: the shortest histories in which one rule of DESIGN section 3 matters.

Chance alone seldom puts the steps of such a history in their order: a leader that is deposed while the
answer to its ISR write is under way, a follower that restarts between two requests of the controller.
So each fault here *is* such a history, told in what breaks (links, sessions, processes, power), with
its actors and its timing drawn from the seed. None of them looks at more than an outsider could see,
none knows of the bug that it is to show, and the real code must come through all of them.

One at a time, each from a whole cluster: two at once would only blur each other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from kafkalite.common import LeaderAndIsr, TopicPartition
from kafkalite.replication.partition import Partition
from zk import paths
from zk.codecs import decode_partition_state

from .cluster import Node, eventually
from .nemesis import Nemesis
from .pace import DENSE_S

Links = list[tuple[str, str]]

HISTORIES: Final = (
    "late fetch of a former life",
    "late orders to a former life",
    "late orders to a former registration",
    "controller deposed while it writes",
    "leader deposed behind a cut",
    "confirmed while the ISR changes",
    "power cut while the ISR changes",
    "ISR write that leaves out more",
    "late answers of a leader",
    "leadership to and fro",
    "zombie leader",
    "session ends in an election",
)
"""The faults of several steps, by name."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays in a history: a partition, its leader and its two followers, in drawn order."""

    partition: TopicPartition
    leader: Node
    one: Node
    other: Node


class Stress(Nemesis):
    """The nemesis with the faults of several steps."""

    _is_busy = False

    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        histories = (
            self.late_fetch,
            self.late_orders,
            self.late_orders_between_sessions,
            self.deposed_controller_writes,
            self.deposed_behind_a_cut,
            self.confirmed_in_a_change,
            self.power_cut_in_a_change,
            self.isr_write_leaves_out_more,
            self.late_answers,
            self.to_and_fro,
            self.zombie_leader,
            self.session_ends_in_an_election,
        )
        return {**super().faults(), **dict(zip(HISTORIES, histories, strict=True))}

    # --- helpers -------------------------------------------------------------------------

    @asynccontextmanager
    async def _history(self, name: str) -> AsyncIterator[None]:
        """Count a fault, keep others of its kind away, and undo what it leaves."""
        self._is_busy = True
        self._count(name)
        self._cluster.note(f"a history begins: {name}")
        try:
            yield
        finally:
            self._is_busy = False
            for node in self._cluster.nodes.values():
                node.mend_zookeeper()
                for session in node.sessions:
                    session.lag_s = 0.0
            self._cluster.network.heal()
            self._cluster.note(f"a history ends: {name}")

    def _cast(self, suits: Callable[[Cast], bool] = lambda cast: True) -> Cast | None:
        """Draw a partition of three replicas whose actors suit; None where there is none now."""
        if self._is_busy or not self._is_calm():
            return None
        nodes = self._cluster.nodes
        casts = []
        for partition, state in self._states().items():
            one, other = self._chance.sample([nodes[b] for b in state.isr if b != state.leader], 2)
            casts.append(Cast(partition, nodes[state.leader], one, other))
        return self._chance.choice(suited) if (suited := [cast for cast in casts if suits(cast)]) else None

    def _states(self) -> dict[TopicPartition, LeaderAndIsr]:
        found = {}
        for path, _ in self._cluster.zookeeper.dump().items():
            if path.startswith("/brokers/topics/") and path.endswith("/state"):
                _, _, _, topic, _, number, _ = path.split("/")
                partition = TopicPartition(topic, int(number))
                found[partition] = self._state(partition)
        return found

    def _state(self, partition: TopicPartition) -> LeaderAndIsr:
        found = self._cluster.zookeeper.peek(paths.partition_state(partition))
        assert found is not None
        return decode_partition_state(partition, found[0], zk_version=found[1].version)

    def _is_in_sync(self, node: Node, partition: TopicPartition) -> bool:
        return node.broker_id in self._state(partition).isr

    @staticmethod
    def _replica(node: Node, partition: TopicPartition) -> Partition | None:
        return None if node.broker is None else node.broker.replicas.partition(partition)

    @staticmethod
    def _log_end(node: Node, partition: TopicPartition) -> int:
        log = node.log(partition)
        return -1 if log is None else log.log_end_offset

    async def _until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait for ``condition``; tells whether it came about. What comes next meets dense traffic."""
        self._pace.stir()
        try:
            await eventually(condition, within_s=within_s)
        except TimeoutError:
            return False
        self._pace.stir()
        return True

    def _break(self, links: Links) -> None:
        for source, target in links:
            self._cluster.network.cut(source, target)
        self._cluster.note(f"cut: {', '.join('->'.join(link) for link in links)}")

    def _mend(self, links: Links) -> None:
        for source, target in links:
            self._cluster.network.mend(source, target)
        self._cluster.note(f"mended: {', '.join('->'.join(link) for link in links)}")

    def _slow(self, source: Node, target: Node, up_to_ms: float) -> None:
        self._cluster.network.slow[source.name, target.name] = up_to_ms
        self._cluster.note(f"slow: {source.name}->{target.name} by up to {up_to_ms:.0f} ms")

    def _lag(self, nodes: Iterable[Node], seconds: float) -> None:
        for node in nodes:
            if node.session is not None:
                node.session.lag_s = seconds
                self._cluster.note(f"{node.name} and zookeeper are {seconds:.2f} s apart")

    def _end_session(self, node: Node) -> None:
        if node.session is not None:
            self._cluster.note(f"session {node.session.session_id:#x} of {node.name} expires")
            self._cluster.expire(node.session)

    def _crash(self, node: Node) -> None:
        """Keep it down until :meth:`_start`."""
        node.crash()
        self._held.add(node.broker_id)

    def _start(self, node: Node) -> None:
        self._held.discard(node.broker_id)
        if not node.is_up:
            node.start()

    async def _quick_restart(self, node: Node) -> None:
        if node.is_up:
            node.crash()
            await self._down_for([node], self._chance.uniform(0.01, 0.2))

    async def _quick_power_cut(self, node: Node) -> None:
        if node.is_up:
            node.lose_power(None)
            await self._down_for([node], self._chance.uniform(0.01, 0.2))

    async def _sleep(self, least: float, most: float) -> None:
        """Wait amid dense traffic."""
        left = self._chance.uniform(least, most)
        while left > 0:
            self._pace.stir()
            await asyncio.sleep(min(left, DENSE_S))
            left -= DENSE_S

    async def _rejoins(self, cast: Cast) -> bool:
        """Have ``cast.one`` leave the ISR and catch up again, with the leader's write of it under way."""
        links = _both_ways(cast.leader, cast.one)
        self._break(links)
        if not await self._until(lambda: not self._is_in_sync(cast.one, cast.partition), 10):
            return False
        await self._sleep(0, 2)
        self._lag([cast.leader], self._chance.uniform(0.2, 0.7))
        self._mend(links)

        def joins() -> bool:
            replica = self._replica(cast.leader, cast.partition)
            return (
                replica is not None
                and replica.change is not None
                and replica.change.joining == cast.one.broker_id
            )

        return await self._until(joins, 5)

    # --- histories -----------------------------------------------------------------------

    async def late_fetch(self) -> None:
        """A follower, out of the ISR and not alive for the controller, catches up; its last fetch takes
        long. Meanwhile its machine restarts, having lost the end of its log, and joins the ISR."""
        cast = self._cast()
        if cast is None:
            return
        leader, follower = cast.leader, cast.one
        async with self._history("late fetch of a former life"):
            away = _both_ways(leader, follower)
            self._break([*away, *_both_ways(leader, cast.other)])
            if not await self._until(lambda: len(self._state(cast.partition).isr) == 1, 12):
                return
            follower.cut_from_zookeeper()
            gone = paths.broker(follower.broker_id)
            if not await self._until(lambda: self._cluster.zookeeper.peek(gone) is None, 10):
                return
            self._mend(away)
            end = self._log_end(leader, cast.partition)
            if not await self._until(lambda: self._log_end(follower, cast.partition) >= end, 6):
                return
            self._slow(follower, leader, 4000)
            await self._sleep(0.5, 1)
            follower.cut_directions = (False, False)
            del self._cluster.network.slow[follower.name, leader.name]
            self._slow(leader, follower, 1500)
            await self._quick_power_cut(follower)
            await self._sleep(4, 6)

    @asynccontextmanager
    async def _ordered(self, name: str, *, lag_s: float) -> AsyncIterator[Cast | None]:
        """Have the controller order a leader to lead in a new epoch, and repeat the order because it gets no
        answer; from then on it is far from ZooKeeper. None where it does not come to that."""
        controller = self._controller()
        cast = self._cast(lambda cast: cast.leader is not controller)
        if cast is None or controller is None:
            yield None
            return
        third = cast.one if cast.one is not controller else cast.other
        async with self._history(name):
            before = self._state(cast.partition).leader_epoch
            self._break([(cast.leader.name, controller.name)])
            await self._quick_restart(third)

            def is_told() -> bool:
                replica = self._replica(cast.leader, cast.partition)
                return replica is not None and replica.is_leader and replica.leader_epoch > before

            told = await self._until(is_told, 5)
            self._lag([controller], lag_s)
            yield cast if told else None

    async def late_orders(self) -> None:
        """The controller repeats an order to a broker that has restarted meanwhile."""
        lag_s = self._chance.uniform(0.2, 0.9)
        async with self._ordered("late orders to a former life", lag_s=lag_s) as cast:
            if cast is not None:
                await self._sleep(0, 2)
                await self._quick_restart(cast.leader)
                await self._sleep(4, 6)

    async def late_orders_between_sessions(self) -> None:
        """The controller repeats an order to a broker that has lost its session and not yet the next one."""
        lag_s = self._chance.uniform(0.5, 1.2)
        async with self._ordered("late orders to a former registration", lag_s=lag_s) as cast:
            if cast is not None:
                await self._sleep(0, 1)
                cast.leader.cut_directions = (True, True)  # For the next session.
                self._end_session(cast.leader)
                await self._sleep(0.5, 1.2)
                cast.leader.mend_zookeeper()
                await self._sleep(4, 6)

    async def deposed_controller_writes(self) -> None:
        """Everybody is far from ZooKeeper; while the controller deals with a broker that failed, an operator
        deletes /controller and another one is elected."""
        controller = self._controller()
        cast = self._cast(lambda cast: cast.one is not controller)
        if cast is None:
            return
        async with self._history("controller deposed while it writes"):
            self._lag(self._cluster.nodes.values(), self._chance.uniform(0.1, 0.5))
            self._end_session(cast.one)
            self._crash(cast.one)
            await self._sleep(0, 5)
            await self.depose_controller()
            await self._sleep(8, 12)
            self._start(cast.one)

    async def deposed_behind_a_cut(self) -> None:
        """The controller joins the ISR; the leader's session ends before it hears that its write took
        effect, and the orders that depose it do not arrive."""
        controller = self._controller()
        cast = self._cast(lambda cast: cast.one is controller)
        if cast is None:
            return
        leader, one, other = cast.leader, cast.one, cast.other
        async with self._history("leader deposed behind a cut"):
            if not await self._rejoins(cast):
                return
            epoch = self._state(cast.partition).leader_epoch
            self._break([(one.name, leader.name), (one.name, other.name)])
            if not await self._until(lambda: self._is_in_sync(one, cast.partition), 10):
                return
            leader.cut_from_zookeeper()
            self._end_session(leader)
            await self._until(lambda: self._state(cast.partition).leader_epoch > epoch, 3)
            await self._sleep(0, 1)
            leader.mend_zookeeper()
            await self._sleep(3, 8)

    async def confirmed_in_a_change(self) -> None:
        """A follower joins the ISR and falls silent; a new controller confirms the leader before that hears
        what became of its write."""
        cast = self._cast()
        if cast is None:
            return
        async with self._history("confirmed while the ISR changes"):
            if not await self._rejoins(cast):
                return
            self._break(_both_ways(cast.leader, cast.one))
            await self._sleep(0, 1)
            await self.depose_controller()
            await self._sleep(7, 10)

    async def power_cut_in_a_change(self) -> None:
        """A leader drops a follower that it is cut from, slowly; about then the other one restarts without
        the end of its log. The controller is slow to see it."""
        controller = self._controller()
        cast = self._cast(lambda cast: cast.other is not controller)
        if cast is None:
            return
        leader, cut, victim = cast.leader, cast.one, cast.other
        async with self._history("power cut while the ISR changes"):
            self._break(_both_ways(leader, cut))
            seconds = self._chance.uniform(0.1, 0.6)
            if self._chance.random() < 0.5:
                await self._sleep(1, 3)
                self._lag([node for node in self._cluster.nodes.values() if node is not victim], seconds)

                def shrinks() -> bool:
                    replica = self._replica(leader, cast.partition)
                    return replica is not None and replica.change is not None

                if not await self._until(shrinks, 8):
                    return
                await self._sleep(0, 8 * seconds)
            else:
                await self._sleep(2, 4)
                self._lag([node for node in self._cluster.nodes.values() if node is not victim], seconds)
            await self._quick_power_cut(victim)
            await self._sleep(6, 10)

    async def isr_write_leaves_out_more(self) -> None:
        """A leader drops a follower that it is cut from, slowly; meanwhile the other one restarts, so the
        write leaves that one out, too. The leader's session ends before it hears of it, and the controller
        is slow to see any of this: under its next session the leader finds a smaller ISR than it wrote."""
        controller = self._controller()
        cast = self._cast(lambda cast: cast.one is controller)
        if cast is None:
            return
        async with self._history("ISR write that leaves out more"):
            self._lag([cast.one], self._chance.uniform(1, 1.8))
            self._break(_both_ways(cast.leader, cast.one))
            await self._sleep(1, 3)
            self._lag([cast.leader], self._chance.uniform(0.4, 0.7))

            def drops() -> bool:
                replica = self._replica(cast.leader, cast.partition)
                return replica is not None and replica.change is not None

            if not await self._until(drops, 8):
                return
            await self._quick_restart(cast.other)
            if await self._until(lambda: not self._is_in_sync(cast.other, cast.partition), 5):
                self._end_session(cast.leader)
            await self._sleep(5, 8)

    async def late_answers(self) -> None:
        """What a leader has answered its followers is still under way when another one takes over."""
        cast = self._cast()
        if cast is None:
            return
        async with self._history("late answers of a leader"):
            for follower in (cast.one, cast.other):
                self._slow(cast.leader, follower, 1500)
            await self._sleep(0.3, 1)
            self._end_session(cast.leader)
            await self._sleep(2, 4)

    async def to_and_fro(self) -> None:
        """The preferred leader takes its leadership back, though it has less than the others; one of them
        cuts its log; then it is gone again, and a fetch of the first leadership arrives."""
        controller = self._controller()
        cast = self._cast(lambda cast: self._cluster.nodes[self._assigned(cast.partition)[0]] is controller)
        if cast is None:
            return
        partition = cast.partition
        first, second, third = (self._cluster.nodes[broker] for broker in self._assigned(partition))

        def leads(node: Node) -> bool:
            state, replica = self._state(partition), self._replica(node, partition)
            return (
                state.leader == node.broker_id
                and replica is not None
                and replica.leader_epoch == state.leader_epoch
            )

        async with self._history("leadership to and fro"):
            if cast.leader is not second:
                await self._quick_restart(cast.leader)
                if not await self._until(lambda: leads(second) and self._is_calm(), 10):
                    return
                await self._sleep(1, 4)
            self._break([(first.name, second.name)])
            await self._sleep(0.3, 1.5)
            self._break([(third.name, second.name)])
            if leads(first) or not await self._until(lambda: leads(first), 6):
                return
            await self._sleep(0.1, 1.5)
            self._end_session(first)
            self._crash(first)
            if await self._until(lambda: leads(second), 3):
                self._slow(second, third, 500)
                self._mend([(third.name, second.name)])
            await self._sleep(3, 5)
            self._start(first)

    async def zombie_leader(self) -> None:
        """A leader is cut from everybody and goes on as if it led. Later those who read reach it again, and
        nobody else for a moment: it tells them what it believes."""
        cast = self._cast()
        if cast is None:
            return
        zombie = cast.leader
        async with self._history("zombie leader"):
            self._break([link for node in (cast.one, cast.other) for link in _both_ways(zombie, node)])
            away = [(client, zombie.name) for client in self._clients()]
            self._break(away)
            zombie.cut_from_zookeeper()
            if not await self._until(lambda: self._state(cast.partition).leader != zombie.broker_id, 12):
                return
            await self._sleep(4, 8)
            readers = [client for client in self._clients() if client.startswith("consumer")]
            others = [cast.one.name, cast.other.name]
            self._break([(reader, other) for reader in readers for other in others])
            self._mend([(reader, zombie.name) for reader in readers])
            await self._sleep(9, 14)

    async def session_ends_in_an_election(self) -> None:
        """An operator deletes /controller; the broker that is nearest to ZooKeeper loses its session while it
        stands for election."""
        cast = self._cast()
        if cast is None:
            return
        async with self._history("session ends in an election"):
            self._lag([cast.leader, cast.other], self._chance.uniform(0.5, 0.8))
            round_trip = self._chance.uniform(0.4, 0.8)
            self._lag([cast.one], round_trip / 2)
            await self.depose_controller()
            await self._sleep(5 * round_trip, 6.5 * round_trip)
            self._end_session(cast.one)
            await self._sleep(8, 12)

    def _assigned(self, partition: TopicPartition) -> list[int]:
        found = self._cluster.zookeeper.peek(paths.topic(partition.topic))
        assert found is not None
        replicas: list[int] = json.loads(found[0])["partitions"][str(partition.partition)]
        return replicas


def _both_ways(one: Node, other: Node) -> Links:
    return [(one.name, other.name), (other.name, one.name)]
