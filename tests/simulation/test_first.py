"""Three brokers, a producer and a consumer, and a leader that crashes and comes back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from kafkalite.common import TopicPartition

from .cluster import Cluster, eventually
from .loop import Process, VirtualLoop, simulate

RECORDS = 400


@dataclass
class Outcome:
    journal: list[dict[str, Any]]
    acknowledged: dict[tuple[int, int], bytes]
    read: dict[tuple[int, int], bytes]
    defects: list[str]
    faults: list[dict[str, Any]]
    leaders: list[int]


def leader_of(cluster: Cluster, partition: TopicPartition) -> int:
    """Who leads, as the brokers themselves see it; -1 while nobody does."""
    leaders = [
        (state.leader_epoch, node.broker_id)
        for node in cluster.nodes.values()
        if node.broker is not None
        and (state := node.broker.replicas.partition(partition)) is not None
        and state.is_leader
    ]
    return max(leaders)[1] if leaders else -1


def is_whole(cluster: Cluster, partitions: list[TopicPartition]) -> bool:
    """Whether every partition has a leader with all replicas in its ISR."""
    for partition in partitions:
        leader = leader_of(cluster, partition)
        if leader < 0:
            return False
        broker = cluster.nodes[leader].broker
        state = broker.replicas.partition(partition) if broker is not None else None
        if state is None or set(state.isr) != set(state.replicas) or state.change is not None:
            return False
    return True


async def world(loop: VirtualLoop, seed: int) -> Outcome:
    cluster = Cluster(loop, seed)
    await cluster.start()
    partitions = await cluster.create_topic("payments", partitions=2, replication_factor=3)
    acknowledged: dict[tuple[int, int], bytes] = {}
    leaders: list[int] = []

    async def produce(process: Process) -> None:
        async with cluster.producer(process, linger_ms=1) as producer:
            for number in range(RECORDS):
                value = b"%d" % number
                sent = await producer.send_and_wait("payments", value, partition=number % 2)
                place = (sent.partition, sent.offset)
                assert place not in acknowledged
                acknowledged[place] = value
                await asyncio.sleep(0.01)

    async def kill_the_leader() -> None:
        await eventually(lambda: len(acknowledged) >= RECORDS // 4, within_s=60)
        victim = leader_of(cluster, partitions[0])
        leaders.append(victim)
        cluster.nodes[victim].crash()
        await eventually(lambda: leader_of(cluster, partitions[0]) not in (-1, victim), within_s=60)
        leaders.append(leader_of(cluster, partitions[0]))
        cluster.nodes[victim].start()
        await cluster.nodes[victim].running.wait()

    async def consume(process: Process) -> dict[tuple[int, int], bytes]:
        read: dict[tuple[int, int], bytes] = {}
        async with cluster.consumer(process, auto_offset_reset="earliest") as consumer:
            consumer.assign(partitions)
            while len(read) < RECORDS:
                record = await consumer.getone()
                place = (record.partition, record.offset)
                assert place not in read
                read[place] = record.value
        return read

    producer, consumer = Process("producer"), Process("consumer")
    async with asyncio.timeout(300):
        writing = producer.spawn(produce(producer), "produce")
        reading = consumer.spawn(consume(consumer), "consume")
        await kill_the_leader()
        await asyncio.gather(writing, reading)
    await eventually(lambda: is_whole(cluster, partitions), within_s=60)
    return Outcome(
        [event.to_json() for event in cluster.events],
        acknowledged,
        reading.result(),
        list(cluster.defects),
        list(loop.faults),
        leaders,
    )


def run(seed: int) -> Outcome:
    return simulate(lambda loop: world(loop, seed))


def test_what_was_acknowledged_survives_the_leader_s_crash() -> None:
    outcome = run(1)
    assert outcome.defects == []
    assert outcome.faults == []
    assert outcome.leaders[0] != outcome.leaders[1]
    assert len(outcome.acknowledged) == RECORDS
    assert outcome.read == outcome.acknowledged
    for partition in (0, 1):
        numbers = [int(outcome.read[place]) for place in sorted(outcome.read) if place[0] == partition]
        assert numbers == list(range(partition, RECORDS, 2))


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = run(7), run(7)
    for number, (one, other) in enumerate(zip(first.journal, second.journal, strict=False)):
        assert one == other, f"event {number} differs"
    assert len(first.journal) == len(second.journal)
    assert first.acknowledged == second.acknowledged


def test_another_seed_gives_another_history() -> None:
    assert run(1).journal != run(2).journal
