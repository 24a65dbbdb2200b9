"""Random histories of a cluster under virtual time: what no history may break.

After every write of a state znode: the leader is in the ISR (or there is none), the ISR is part of
the assignment, and the leader epoch never falls and grows with every change of leader. Whenever the
cluster has come to rest: every partition with a live ISR member has a live leader, and no state
names a broker that registered after it was written. Over the whole history: within one leader epoch
a partition is led by one life of one broker.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.config import ControllerConfig
from kafkalite.common import BrokerEpoch, BrokerId, TopicPartition
from kafkalite.protocol.leader_and_isr import LeaderAndIsrRequest
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.controllers import Cluster
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk import paths
from zk.client import BadVersion, SessionState
from zk.store import RegistrationsChanged

BROKERS = (1, 2, 3)
ASSIGNMENT = {0: (1, 2, 3), 1: (2, 3, 1), 2: (3, 1), 3: (2,)}
PARTITIONS = [TopicPartition("t", partition) for partition in ASSIGNMENT]

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["kill", "expire", "bounce", "start", "shrink", "grow", "freeze", "thaw", "lose reply", "move"]
        ),
        st.sampled_from(BROKERS),
        st.sampled_from(list(ASSIGNMENT)),
        st.sampled_from([0.0, 0.0, 0.001, 0.01, 1.0]),
    ),
    max_size=14,
)


class History:
    """One run: the cluster, its invariants, and the steps that it is put through."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.server = MemoryZooKeeper(self.clock, delay=lambda: self.chance.choice([0, 0.0005, 0.003]))
        self.cluster = Cluster(
            lambda: self.server.connect(),
            self.clock,
            config=ControllerConfig(auto_leader_rebalance_enable=False),
        )
        self.cluster.brokers.delay = lambda: self.chance.choice([0, 0.001, 0.005])
        self.last: dict[str, tuple[int, int]] = {}
        self.server.on_write = self.check_write

    def check_write(self, zxid: int, path: str) -> None:
        found = self.server.peek(path)
        if not path.endswith("/state") or found is None:
            return
        state = json.loads(found[0])
        partition = int(path.split("/")[-2])
        assert state["leader"] in (-1, *state["isr"]), state
        assert state["isr"], state
        assert set(state["isr"]) <= set(ASSIGNMENT[partition]), state
        leader, epoch = self.last.get(path, (-1, -1))
        assert state["leader_epoch"] >= epoch, (path, state, epoch)
        if state["leader"] != leader:
            assert state["leader_epoch"] > epoch, (path, state, leader, epoch)
        self.last[path] = (state["leader"], state["leader_epoch"])

    def is_up(self, broker: int) -> bool:
        return BrokerId(broker) in self.cluster.brokers.epochs

    async def step(self, what: str, broker: int, partition: int) -> None:
        cluster, member = self.cluster, self.cluster[broker]
        zk = member.zk
        assert isinstance(zk, MemoryClient)
        up = self.is_up(broker)
        match what:
            case "kill" if up:
                await member.leave()
            case "expire" if up:
                self.server.expire(zk)
                while zk.state is not SessionState.EXPIRED:
                    await asyncio.sleep(0.001)
                await member.controller.session_lost()
                del cluster.brokers.epochs[member.id]
            case "bounce" if up:
                await member.bounce()
            case "start" if not up:
                await member.join()
            case "shrink" | "grow":
                await self.change_isr(TopicPartition("t", partition), grow=what == "grow")
            case "freeze":
                member.lease = False
            case "thaw":
                member.lease = True
            case "lose reply":
                self.server.lose_reply(zk)
            case "move" if up and cluster.reader is not None:
                await cluster.reader.delete_if_there(paths.CONTROLLER)
            case _:
                pass

    async def change_isr(self, partition: TopicPartition, *, grow: bool) -> None:
        """What the leader does, under the rules of the house: it is alive, knows its epoch, and
        names no member that registered after the state was written, except the one that it adds."""
        reader = self.cluster.reader
        assert reader is not None
        registrations = await reader.registrations()
        found = await reader.partition_state(partition)
        if found is None:
            return
        state, stat = found
        led = self.cluster.brokers.told.get(
            (state.leader, self.cluster.brokers.epochs.get(state.leader, BrokerEpoch(-1)))
        )
        if led is None or partition not in led.leader_and_isr:
            return
        told = led.leader_and_isr[partition]
        if (told.leader, told.leader_epoch) != (state.leader, state.leader_epoch):
            return
        isr = [b for b in state.isr if registrations.czxid.get(b, 0) <= stat.mzxid]
        if state.leader not in isr:
            return
        if grow:
            isr += [
                BrokerId(b)
                for b in ASSIGNMENT[partition.partition]
                if BrokerId(b) not in isr and self.is_up(b)
            ][:1]
        else:
            isr = [b for b in isr if b == state.leader]
        try:
            await reader.write_partition_state(
                partition,
                type(state)(
                    state.leader,
                    state.leader_epoch,
                    tuple(isr),
                    state.controller_epoch,
                    state.partition_epoch,
                ),
                expected_version=state.partition_epoch,
                registrations_version=registrations.version,
            )
        except (BadVersion, RegistrationsChanged):
            return
        await reader.publish_isr_change([partition])

    async def check_at_rest(self) -> None:
        """Everybody acts again; after a while nothing moves and everything is as it must be."""
        for member in self.cluster.members.values():
            member.lease = True
            if not self.is_up(member.id):
                await member.join()
        await asyncio.sleep(30)
        story = "\n".join(self.cluster.story())
        reader = self.cluster.reader
        assert reader is not None
        actives = [m.id for m in self.cluster.members.values() if m.controller.is_active]
        assert len(actives) == 1, story
        registrations = await reader.registrations()
        for partition in PARTITIONS:
            found = await reader.partition_state(partition)
            assert found is not None, story
            state, stat = found
            assert state.leader in registrations.czxid, f"{partition} {state}\n{story}"
            for broker in state.isr:
                assert registrations.czxid.get(broker, 0) < stat.mzxid, f"{partition} {state}\n{story}"
            for replica in ASSIGNMENT[partition.partition]:
                told = self.cluster.brokers.of(BrokerId(replica)).leader_and_isr[partition]
                assert (told.leader, told.leader_epoch) == (state.leader, state.leader_epoch), story
            for observer in BROKERS:
                metadata = self.cluster.brokers.of(BrokerId(observer)).metadata[partition]
                assert (metadata.leader, metadata.leader_epoch) == (state.leader, state.leader_epoch), story
        self.check_lives(story)

    def check_lives(self, story: str) -> None:
        lives: dict[tuple[str, int, int], set[tuple[BrokerId, BrokerEpoch]]] = {}
        for (broker, epoch), told in self.cluster.brokers.told.items():
            for request in told.requests:
                if not isinstance(request, LeaderAndIsrRequest):
                    continue
                for topic in request.topic_states:
                    for state in topic.partition_states:
                        if state.leader == broker:
                            key = (topic.topic_name, state.partition_index, state.leader_epoch)
                            lives.setdefault(key, set()).add((broker, epoch))
        for key, led_by in lives.items():
            assert len(led_by) == 1, f"{key} was led by {led_by}\n{story}"


async def play(seed: int, history: Sequence[tuple[str, int, int, float]]) -> list[str]:
    run = History(seed)
    async with run.cluster as cluster:
        await cluster.start(*BROKERS)
        await cluster.create("t", ASSIGNMENT)
        for what, broker, partition, pause in history:
            await run.step(what, broker, partition)
            await asyncio.sleep(pause)
        await run.check_at_rest()
    return cluster.story()


@settings(max_examples=60)
@given(st.integers(0, 2**32), steps)
def test_no_history_breaks_the_invariants(seed: int, history: list[tuple[str, int, int, float]]) -> None:
    run_virtual(play(seed, history))


def test_the_same_seed_gives_the_same_journals() -> None:
    history = [("kill", 1, 0, 0.001), ("shrink", 2, 1, 0.0), ("bounce", 2, 0, 0.01), ("start", 1, 0, 1.0)]
    assert run_virtual(play(7, history)) == run_virtual(play(7, history))


def test_a_restart_between_two_readings_at_fail_over_is_noticed() -> None:
    """Found by the histories: the registrations were of the old life, the broker of the new one."""
    for seed in range(30):
        run_virtual(play(seed, [("start", 1, 0, 1.0), ("move", 1, 0, 0.0), ("bounce", 1, 0, 0.0)]))
