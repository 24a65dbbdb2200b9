"""ISR writes against an in-memory ZooKeeper: what is written, left out, refused, or not known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kafkalite.common import (
    BrokerEpoch,
    BrokerId,
    ControllerEpoch,
    Endpoint,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
)
from kafkalite.replication.edges import Conflict, Fenced, IsrChange, Unknown, Written
from kafkalite.server.isr_store import ZooKeeperIsrStore
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk import codecs, paths
from zk.store import BrokerRegistration, Store

TP = TopicPartition("t", 0)


class World:
    """Three registered brokers and one partition, led by broker 1."""

    def __init__(self) -> None:
        self.zookeeper = MemoryZooKeeper(VirtualClock(asyncio.get_running_loop()))
        self.clients: dict[int, MemoryClient] = {}
        self.epochs: dict[int, BrokerEpoch] = {}

    async def open(self, isr: tuple[int, ...] = (1, 2, 3)) -> None:
        for number in (1, 2, 3):
            await self.register(number)
        store = Store(self.clients[1])
        await store.create_if_missing(paths.partition_state(TP), b"")
        await self.clients[1].set(paths.partition_state(TP), codecs.encode_partition_state(state(isr, 0)))
        self.isr_store = ZooKeeperIsrStore(lambda: store)

    async def register(self, number: int) -> None:
        if number in self.clients:
            await self.clients[number].close()
        client = await self.zookeeper.connect()
        store = Store(client)
        await store.create_persistent_paths()
        self.clients[number] = client
        self.epochs[number] = await store.register_broker(
            BrokerRegistration(BrokerId(number), (Endpoint("PLAINTEXT", "h", 9000 + number),))
        )

    async def found(self) -> LeaderAndIsr:
        found = await Store(self.clients[2]).partition_state(TP)
        assert found is not None
        return found[0]


def state(isr: tuple[int, ...], version: int, *, leader: int = 1, leader_epoch: int = 5) -> LeaderAndIsr:
    return LeaderAndIsr(
        BrokerId(leader),
        LeaderEpoch(leader_epoch),
        tuple(BrokerId(one) for one in isr),
        ControllerEpoch(1),
        PartitionEpoch(version),
    )


def change(
    isr: tuple[int, ...],
    *,
    before: tuple[int, ...] = (1, 2, 3),
    version: int = 1,
    joining: int | None = None,
    joining_epoch: int | None = None,
) -> IsrChange:
    return IsrChange(
        TP,
        BrokerId(1),
        LeaderEpoch(5),
        ControllerEpoch(1),
        tuple(BrokerId(one) for one in before),
        tuple(BrokerId(one) for one in isr),
        PartitionEpoch(version),
        None if joining is None else BrokerId(joining),
        None if joining_epoch is None else BrokerEpoch(joining_epoch),
    )


def in_world(story: Callable[[World], Awaitable[None]], isr: tuple[int, ...] = (1, 2, 3)) -> None:
    async def main() -> None:
        world = World()
        await world.open(isr)
        await story(world)

    run_virtual(main())


def test_a_shrink_is_written_under_the_same_leader_epoch() -> None:
    async def story(world: World) -> None:
        assert await world.isr_store.write(change((1, 2))) == Written(
            PartitionEpoch(2), (BrokerId(1), BrokerId(2))
        )
        assert await world.found() == state((1, 2), 2)

    in_world(story)


def test_a_member_that_restarted_since_the_state_was_written_is_left_out() -> None:
    async def story(world: World) -> None:
        await world.register(2)
        outcome = await world.isr_store.write(change((1, 2)))
        assert outcome == Written(PartitionEpoch(2), (BrokerId(1),))

    in_world(story)


def test_the_joining_replica_must_be_the_life_that_caught_up() -> None:
    async def story(world: World) -> None:
        old = world.epochs[3]
        await world.register(3)
        refused = await world.isr_store.write(change((1, 2, 3), before=(1, 2), joining=3, joining_epoch=old))
        assert isinstance(refused, Fenced)
        assert await world.found() == state((1, 2), 1)
        joined = await world.isr_store.write(
            change((1, 2, 3), before=(1, 2), joining=3, joining_epoch=world.epochs[3])
        )
        assert isinstance(joined, Written)

    in_world(story, isr=(1, 2))


def test_a_leader_that_registered_anew_writes_nothing() -> None:
    async def story(world: World) -> None:
        await world.register(1)
        store = Store(world.clients[1])
        outcome = await ZooKeeperIsrStore(lambda: store).write(change((1, 2)))
        assert isinstance(outcome, Fenced)
        assert await world.found() == state((1, 2, 3), 1)

    in_world(story)


def test_another_state_is_reported_and_never_overwritten() -> None:
    async def story(world: World) -> None:
        newer = state((2, 3), 0, leader=2, leader_epoch=6)
        await world.clients[2].set(paths.partition_state(TP), codecs.encode_partition_state(newer))
        outcome = await world.isr_store.write(change((1, 2)))
        assert outcome == Conflict(state((2, 3), 2, leader=2, leader_epoch=6))

    in_world(story)


def test_a_registration_between_the_read_and_the_write_starts_over() -> None:
    async def story(world: World) -> None:
        store = Store(world.clients[1])
        real = store.partition_state
        meddled = False

        async def partition_state(*args: TopicPartition) -> object:
            nonlocal meddled
            found = await real(*args)
            if not meddled:
                meddled = True
                await world.register(2)
            return found

        store.partition_state = partition_state  # type: ignore[method-assign,assignment]
        outcome = await ZooKeeperIsrStore(lambda: store).write(change((1, 2)))
        assert outcome == Written(PartitionEpoch(2), (BrokerId(1),)), "broker 2 is another life by now"

    in_world(story)


def test_a_lost_reply_is_settled_and_a_lost_session_is_unknown() -> None:
    async def story(world: World) -> None:
        world.zookeeper.lose_reply(world.clients[1])
        first = await world.isr_store.write(change((1, 2)))
        assert first == Written(PartitionEpoch(2), (BrokerId(1), BrokerId(2)))
        world.zookeeper.expire(world.clients[1])
        second = await world.isr_store.write(change((1,), before=(1, 2), version=2))
        assert isinstance(second, Fenced | Unknown)
        assert await world.found() == state((1, 2), 2)

    in_world(story)


def test_without_a_session_nothing_is_written() -> None:
    async def story(world: World) -> None:
        assert isinstance(await ZooKeeperIsrStore(lambda: None).write(change((1, 2))), Fenced)

    in_world(story)
