"""Whatever faults come, a consumer hands out the record at its position, then the next, however it reads."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafkalite.client import Consumer, ConsumerRecord
from kafkalite.common import TopicPartition
from kafkalite.protocol.message import Message
from kafkalite.protocol.record_batch import encode_batch
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import FakeCluster, Fault

HARMFUL = [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.SLOW, Fault.UNAVAILABLE, Fault.HANG]


@dataclass(frozen=True)
class Weather:
    """How bad it gets, from which seed, and how the reader reads."""

    seed: int
    fault_rate: float
    election_rate: float
    batches: int
    partitions: int
    fetch_bytes: int
    seek_rate: float
    """Of each read, that a seek goes before it."""
    ways: tuple[str, ...]
    """The methods that it reads with, drawn anew each time."""
    hints: bool


weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    fault_rate=st.sampled_from([0.0, 0.1, 0.4]),
    election_rate=st.sampled_from([0.0, 0.1, 0.3]),
    batches=st.integers(1, 40),
    partitions=st.integers(1, 4),
    fetch_bytes=st.sampled_from([1, 300, 100_000]),
    seek_rate=st.sampled_from([0.0, 0.1]),
    ways=st.sampled_from(
        [("getone",), ("getmany",), ("getcolumns",), ("getone", "getmany", "getcolumns")],
    ),
    hints=st.booleans(),
)


async def read_through(weather: Weather) -> None:
    chance = random.Random(weather.seed)
    cluster = FakeCluster()
    cluster.give_hints = weather.hints
    cluster.create_topic("t", weather.partitions)
    written: dict[TopicPartition, list[bytes | None]] = {tp: [] for tp in cluster.partitions}
    place = dict.fromkeys(cluster.partitions, 0)
    """Where the reader must be in each partition."""
    is_calm = False

    def write() -> None:
        tp = chance.choice(list(cluster.partitions))
        values: list[bytes | None] = [
            b"%d-%d" % (tp.partition, len(written[tp]) + i) for i in range(chance.randint(1, 8))
        ]
        written[tp] += values
        cluster.append(tp, encode_batch(values, timestamps=1))

    def check(records: list[ConsumerRecord]) -> None:
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            assert (record.offset, record.value) == (place[tp], written[tp][place[tp]])
            place[tp] += 1

    def hook(api: str, node: int, request: Message) -> Fault:
        if is_calm:
            return Fault.NONE
        if chance.random() < weather.election_rate:
            cluster.elect(chance.choice(list(cluster.partitions)), chance.randint(1, 3))
        return chance.choice(HARMFUL) if chance.random() < weather.fault_rate else Fault.NONE

    async with Consumer(
        "t",
        bootstrap_servers="fake:9001,fake:9002,fake:9003",
        transport=cluster,
        clock=VirtualClock(asyncio.get_running_loop()),
        chance=random.Random(weather.seed + 1),
        auto_offset_reset="earliest",
        request_timeout_ms=2_000,
        max_partition_fetch_bytes=weather.fetch_bytes,
    ) as consumer:
        cluster.hook = hook
        left = weather.batches
        async with asyncio.timeout(3_000):
            while left or any(place[tp] < len(written[tp]) for tp in written):
                for _ in range(min(left, chance.randint(0, 3))):
                    write()
                    left -= 1
                is_calm = is_calm or (not left and chance.random() < 0.05)
                if not is_calm and consumer.assignment() and chance.random() < weather.seek_rate:
                    tp = chance.choice(sorted(consumer.assignment()))
                    place[tp] = chance.randint(0, len(written[tp]))
                    consumer.seek(tp, place[tp])
                way = chance.choice(weather.ways)
                if way == "getone":
                    try:
                        async with asyncio.timeout(chance.random()):
                            check([await consumer.getone()])
                    except TimeoutError:
                        pass  # Cancelled while it waited; nothing may be lost by that.
                    continue
                timeout_ms, max_records = chance.choice([0, 1, 700]), chance.randint(1, 20)
                if way == "getmany":
                    found = await consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)
                else:
                    columns = await consumer.getcolumns(timeout_ms=timeout_ms, max_records=max_records)
                    found = {tp: list(each.records()) for tp, each in columns.items()}
                for tp, records in found.items():
                    assert records
                    check(records)
                    assert await consumer.position(tp) == place[tp]
                if not found:
                    await asyncio.sleep(chance.random() * 0.1)


@pytest.mark.timeout(600)
@settings(max_examples=120)
@given(weathers)
def test_each_record_is_handed_out_once_and_in_order(weather: Weather) -> None:
    run_virtual(read_through(weather))


values = st.none() | st.binary(max_size=12)
batches = st.lists(
    st.lists(
        st.tuples(
            values,
            values,
            st.none() | st.lists(st.tuples(st.text(max_size=3), values), max_size=2),
            st.integers(0, 5),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=6,
    ),
    max_size=6,
)


@settings(max_examples=150)
@given(batches, st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1), st.booleans())
def test_columns_are_the_records_that_getmany_returns(
    rows: list[list[tuple[Any, Any, Any, int, int]]], start: int, limits: list[int], with_deserializers: bool
) -> None:
    """Rows are (key, value, headers, timestamp, step to the offset before): compacted batches, too."""
    tp = TopicPartition("t", 0)

    def cluster_of_rows() -> FakeCluster:
        cluster = FakeCluster()
        cluster.create_topic("t", 1)
        for batch in rows:
            keys, vals, headers, timestamps, steps = zip(*batch, strict=True)
            deltas = [sum(steps[1 : i + 1]) for i in range(len(steps))]
            cluster.append(
                tp,
                encode_batch(
                    vals,
                    timestamps=[1000 + t for t in timestamps],
                    keys=keys if any(k is not None for k in keys) else None,
                    headers=headers if any(headers) else None,
                    offset_deltas=deltas if any(step != 1 for step in steps[1:]) else None,
                ),
            )
        return cluster

    async def everything(*, as_columns: bool) -> tuple[list[ConsumerRecord], list[int]]:
        found: list[ConsumerRecord] = []
        positions = []
        async with Consumer(
            bootstrap_servers="fake:9001",
            transport=cluster_of_rows(),
            clock=VirtualClock(asyncio.get_running_loop()),
            chance=random.Random(1),
            key_deserializer=bytes.hex if with_deserializers else None,
            value_deserializer=len if with_deserializers else None,
        ) as consumer:
            consumer.assign([tp])
            end = (await consumer.end_offsets([tp]))[tp]
            consumer.seek(tp, min(start, end))
            calls = 0
            while await consumer.position(tp) < end:
                limit = limits[calls % len(limits)]
                calls += 1
                if as_columns:
                    columns = await consumer.getcolumns(timeout_ms=1000, max_records=limit)
                    assert all(len(each) <= limit for each in columns.values())
                    found += [record for each in columns.values() for record in each.records()]
                else:
                    records = await consumer.getmany(timeout_ms=1000, max_records=limit)
                    found += [record for each in records.values() for record in each]
                positions.append(await consumer.position(tp))
        return found, positions

    assert run_virtual(everything(as_columns=True)) == run_virtual(everything(as_columns=False))
