"""Three replica managers under random faults: what was acknowledged survives, below the high
watermark all agree, and the high watermark never retreats within one leader epoch.

Each example is one seed: crashes (of processes or, one at a time, of machines that forget what
was not synced), lost sessions and leases, cut links, ISR writes whose requests or answers are lost
or take effect late, fetches that arrive twice, instructions that arrive late.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from kafkalite.common import BrokerEpoch, BrokerId, LeaderAndIsr, LeaderEpoch
from kafkalite.replication.manager import NotRegistered
from tests.unit.replication.harness import TP, Cluster, Fate, Node, run, values_of

STEPS = (
    *("produce",) * 12,
    *("heal", "start") * 3,
    *("session", "fate", "deaf", "hears") * 2,
    *("crash", "cut", "cut", "lease", "cut off"),
)


class Controller:
    """Rules the partition as the real one does, for one partition and without fail-over."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._queues: dict[BrokerId, deque[tuple[LeaderAndIsr, BrokerEpoch]]] = {
            broker_id: deque() for broker_id in cluster.nodes
        }
        self._known: dict[BrokerId, BrokerEpoch] = dict(cluster.zk.registrations)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for node in self._cluster.nodes.values():
                tasks.create_task(self._send(node))
            while True:
                await asyncio.sleep(self._chance.choice((0.05, 0.5, 2.0)))
                self._rule()

    def _rule(self) -> None:
        zk = self._cluster.zk
        state = self._cluster.next_state()
        if state is not None:
            written = zk.put(TP, state)
            for broker_id in zk.registrations:
                self._tell(broker_id, written)
        for broker_id, epoch in zk.registrations.items():
            if self._known.get(broker_id) != epoch:
                self._tell(broker_id, zk.state())
        self._known = dict(zk.registrations)

    def _tell(self, broker_id: BrokerId, state: LeaderAndIsr) -> None:
        self._queues[broker_id].append((state, self._cluster.zk.registrations[broker_id]))

    async def _send(self, node: Node) -> None:
        """In order, each until it is answered or meant for a life that is over."""
        queue = self._queues[node.broker_id]
        while True:
            await asyncio.sleep(self._cluster.delay())
            if not queue:
                continue
            state, epoch = queue[0]
            if (
                not node.is_deaf
                and node.is_up
                and self._cluster.zk.registrations.get(node.broker_id) == epoch
            ):
                try:
                    await node.instruct(state, broker_epoch=epoch)
                except NotRegistered:
                    continue
            elif self._cluster.zk.registrations.get(node.broker_id) == epoch:
                continue
            queue.popleft()


class History:
    """What was promised, and what was seen on the way."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.acknowledged: dict[int, bytes] = {}
        self._watermarks: dict[tuple[BrokerId, LeaderEpoch, int], int] = {}

    def look(self) -> None:
        """Check what must hold at every moment."""
        up = [node for node in self._cluster.nodes.values() if node.is_up and node.manager.partition(TP)]
        for node in up:
            node.check_runs()
            partition = node.partition
            if partition.is_leader:
                key = (node.broker_id, partition.leader_epoch, id(node.manager))
                assert node.log.high_watermark >= self._watermarks.get(key, 0), "the high watermark fell"
                self._watermarks[key] = node.log.high_watermark
        leaders: dict[LeaderEpoch, BrokerId] = {}
        for state in self._cluster.zk.history:
            assert leaders.setdefault(state.leader_epoch, state.leader) == state.leader, "two leaders"

    def compare(self) -> None:
        """Below the least high watermark all replicas hold the same."""
        up = [node for node in self._cluster.nodes.values() if node.is_up and node.manager.partition(TP)]
        if len(up) < 2:
            return
        least = min(node.log.high_watermark for node in up)
        first = values_of(up[0].log, below=least)
        for node in up[1:]:
            assert values_of(node.log, below=least) == first, "two records at one committed offset"


def is_whole(cluster: Cluster) -> bool:
    """Tell whether all are in sync, and know under whom."""
    state = cluster.zk.state()
    return set(state.isr) == {1, 2, 3} and all(
        (partition := node.manager.partition(TP)) is not None
        and partition.leader_epoch == state.leader_epoch
        and not partition.is_frozen
        for node in cluster.nodes.values()
    )


async def play(seed: int, *, with_power_cuts: bool) -> int:
    """Play one history to its end; return how many records were acknowledged."""
    chance = random.Random(seed)
    cluster = Cluster(chance=chance)
    await cluster.start()
    await cluster.create()
    history = History(cluster)
    controller = asyncio.get_running_loop().create_task(Controller(cluster, chance).run())
    producing: set[asyncio.Task[None]] = set()
    count = 0

    async def produce(node: Node, value: bytes) -> None:
        answer = await node.produce(value, timeout_ms=chance.choice((500, 5_000)))
        if answer.error_code == 0:
            held = history.acknowledged.setdefault(answer.base_offset, value)
            assert held == value, "one offset acknowledged twice"

    def may_lose(node: Node) -> bool:
        """With power cuts, one member that lost nothing must stay: two failures are too many."""
        state, mzxid = cluster.zk.states[TP]
        steady = [
            member
            for member in state.isr
            if member != node.broker_id
            and cluster.nodes[member].is_up
            and cluster.zk.registrations.get(member, BrokerEpoch(2**62)) <= mzxid
        ]
        return bool(steady) or not with_power_cuts

    try:
        for _ in range(100):
            node = chance.choice(list(cluster.nodes.values()))
            step = chance.choice(STEPS)
            if step == "produce":
                leader = cluster.zk.state().leader
                # Mostly whom ZooKeeper names, now and then somebody who may think it leads.
                target = cluster.nodes.get(leader, node) if chance.random() < 0.8 else node
                if target.is_up:
                    for _ in range(chance.choice((1, 3))):
                        count += 1
                        task = asyncio.get_running_loop().create_task(produce(target, b"%d" % count))
                        producing.add(task)
            elif step == "crash" and node.is_up and may_lose(node):
                await node.crash(power=with_power_cuts and chance.random() < 0.7)
                if chance.random() < 0.5:
                    cluster.zk.registrations.pop(node.broker_id, None)
            elif step == "start" and not node.is_up:
                cluster.zk.registrations.pop(node.broker_id, None)
                node.fate = Fate()
                await node.start()
            elif step == "session" and node.is_up:
                if node.session is None:
                    node.open_session()
                elif may_lose(node):
                    node.lose_session()
            elif step == "cut":
                cluster.cut(*chance.sample([1, 2, 3], 2))
            elif step == "heal":
                cluster.heal()
            elif step in ("deaf", "hears"):
                node.is_deaf = step == "deaf"
            elif step == "cut off":
                node.is_cut_off = not node.is_cut_off
            elif step == "lease":
                node.has_lease = node.session is not None and not node.has_lease
            elif step == "fate":
                node.fate = chance.choice(
                    (
                        Fate(),
                        Fate(lose_isr_answer=True),
                        Fate(lose_isr_request=True),
                        Fate(isr_takes_effect_after_s=chance.choice((0.05, 1.0))),
                    )
                )
            await asyncio.sleep(chance.choice((0.01, 0.01, 0.1, 0.1, 0.5, 2.0, 20.0)))
            history.look()
            history.compare()
        cluster.heal()
        for node in cluster.nodes.values():
            node.fate = Fate()
            node.is_deaf = node.is_cut_off = False
            if not node.is_up:
                cluster.zk.registrations.pop(node.broker_id, None)
                await node.start()
            elif node.session is None:
                node.open_session()
            node.has_lease = True
        await cluster.eventually(lambda: is_whole(cluster))
        await asyncio.gather(*producing)
        leader_node = cluster.nodes[cluster.zk.state().leader]
        last = await leader_node.produce(b"the last", timeout_ms=60_000)
        assert last.error_code == 0, "the cluster does not take records any more"
        history.look()
        for node in cluster.nodes.values():
            found = values_of(node.log)
            missing = {
                offset: value for offset, value in history.acknowledged.items() if found.get(offset) != value
            }
            assert not missing, f"acknowledged, and not on broker {node.broker_id}: {missing}"
    finally:
        controller.cancel()
        for task in producing:
            task.cancel()
        await cluster.stop()
    return len(history.acknowledged)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), with_power_cuts=st.booleans())
def test_acknowledged_records_survive(seed: int, with_power_cuts: bool) -> None:
    run(play(seed, with_power_cuts=with_power_cuts))


def test_the_histories_acknowledge_something() -> None:
    acknowledged = [run(play(seed, with_power_cuts=seed % 2 == 0)) for seed in range(6)]
    assert sum(acknowledged) > 60
