"""Whatever faults come: what is acknowledged is in the log once, in order, and no send is forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafkalite.client import Producer
from kafkalite.client.delivery import Delivery
from kafkalite.client.errors import ClientError
from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import BrokerError
from kafkalite.protocol.message import Message
from kafkalite.protocol.record_batch import decode_batch
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import FakeCluster, Fault

HARMFUL = [
    Fault.LOSE_REQUEST,
    Fault.LOSE_ANSWER,
    Fault.LATE,
    Fault.SLOW,
    Fault.REFUSE,
    Fault.APPEND_UNSURE,
    Fault.TIME_OUT,
    Fault.DENY_LEADERSHIP,
    Fault.UNAVAILABLE,
    Fault.HANG,
]


@dataclass(frozen=True)
class Weather:
    """How bad it gets, and from which seed."""

    seed: int
    fault_rate: float
    election_rate: float
    """Of each request, that an election happens before it."""
    loss_rate: float
    """Of each election, that it cuts off what was never acknowledged."""
    stale_rate: float
    """Of each metadata answer, that it is an old one."""
    resize_rate: float
    """Of each request, that `max.message.bytes` changes."""
    records: int
    partitions: int
    burst: int
    most_at_once: int
    """Up to how many records go in one call; more than one by `send_many`."""
    hints: bool
    patience_ms: int


weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    fault_rate=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    election_rate=st.sampled_from([0.0, 0.05, 0.2]),
    loss_rate=st.sampled_from([0.0, 0.5, 1.0]),
    stale_rate=st.sampled_from([0.0, 0.3]),
    resize_rate=st.sampled_from([0.0, 0.0, 0.1]),
    records=st.integers(1, 150),
    partitions=st.integers(1, 3),
    burst=st.integers(1, 40),
    most_at_once=st.sampled_from([1, 2, 40]),
    hints=st.booleans(),
    patience_ms=st.sampled_from([1_500, 10_000]),
)


async def storm(weather: Weather, *, idempotent: bool) -> tuple[FakeCluster, list[tuple[bytes, Delivery]]]:
    """Send through ``weather``; return the cluster and what became of each record."""
    chance = random.Random(weather.seed)
    cluster = FakeCluster()
    cluster.give_hints = weather.hints
    cluster.create_topic("t", weather.partitions)
    past: list[Mapping[TopicPartition, tuple[int, int]]] = [cluster.leaders()]
    is_calm = False

    def metadata_of(node: int) -> Mapping[TopicPartition, tuple[int, int]]:
        if not is_calm and chance.random() < weather.stale_rate:
            return chance.choice(past)
        return cluster.leaders()

    def hook(api: str, node: int, request: Message) -> Fault:
        if is_calm:
            return Fault.NONE
        if chance.random() < weather.election_rate:
            tp = chance.choice(list(cluster.partitions))
            keep = None
            if chance.random() < weather.loss_rate:
                p = cluster.partitions[tp]
                keep = chance.randint(p.acknowledged, p.end)
            cluster.elect(tp, chance.randint(1, 3), keep=keep)
            past.append(cluster.leaders())
        if chance.random() < weather.resize_rate:
            cluster.max_message_bytes = chance.choice([250, 1_048_588])
        if chance.random() < weather.fault_rate:
            fault = chance.choice(HARMFUL)
            # Only what a producer sends can be appended without being acknowledged.
            return fault if api == "produce" or fault in (Fault.LOSE_REQUEST, Fault.SLOW) else Fault.NONE
        return Fault.NONE

    cluster.metadata_of = metadata_of
    cluster.hook = hook
    sent: list[tuple[bytes, Delivery]] = []
    producer = Producer(
        bootstrap_servers="fake:9001,fake:9002,fake:9003",
        transport=cluster,
        clock=VirtualClock(asyncio.get_running_loop()),
        chance=random.Random(weather.seed + 1),
        enable_idempotence=idempotent,
        max_batch_size=512,
        linger_ms=2,
        delivery_timeout_ms=weather.patience_ms,
        request_timeout_ms=1_000,
        max_block_ms=60_000,
        buffer_memory=16_384,
    )
    while True:
        try:
            await producer.start()
            break
        except ClientError:
            producer = producer_again(producer, cluster, weather, idempotent=idempotent)
    number = 0
    while number < weather.records:
        count = chance.randint(1, weather.most_at_once)
        values = [b"%04d" % (number + i) + b"." * chance.randint(0, 60) for i in range(count)]
        number += count
        partition = chance.randrange(weather.partitions)
        if count == 1:
            sent.append((values[0], await producer.send("t", values[0], partition=partition)))
        else:
            many = await producer.send_many("t", values, partition=partition)
            sent += [(value, many[i]) for i, value in enumerate(values)]
        if number % weather.burst == 0:
            await asyncio.sleep(chance.random() * 0.3)
    begun = asyncio.get_running_loop().time()
    await producer.flush()
    assert asyncio.get_running_loop().time() - begun <= weather.patience_ms / 1000 + 0.1
    is_calm = True
    cluster.max_message_bytes = 1_048_588
    await asyncio.sleep(1)  # Delayed requests arrive now at the latest.
    last = await producer.send("t", b"last", partition=0)
    sent.append((b"last", last))
    await last
    await producer.stop()
    return cluster, sent


def producer_again(before: Producer, cluster: FakeCluster, weather: Weather, *, idempotent: bool) -> Producer:
    """Another producer after one that found nobody; its transport was closed with it."""
    cluster.is_closed = False
    return Producer(
        bootstrap_servers="fake:9001,fake:9002,fake:9003",
        transport=cluster,
        clock=VirtualClock(asyncio.get_running_loop()),
        chance=random.Random(weather.seed + 2),
        enable_idempotence=idempotent,
        max_batch_size=512,
        linger_ms=2,
        delivery_timeout_ms=weather.patience_ms,
        request_timeout_ms=1_000,
        max_block_ms=60_000,
        buffer_memory=16_384,
    )


def first_places(values: list[bytes | None]) -> list[int]:
    """The numbers of the records, each where it appears first."""
    found: dict[int, None] = {}
    for value in values:
        if value is not None and value != b"last":
            found.setdefault(int(value[:4]))
    return list(found)


@pytest.mark.timeout(600)
@settings(max_examples=150)
@given(weathers)
def test_acknowledged_records_are_there_once_at_their_offset_in_order(weather: Weather) -> None:
    cluster, sent = run_virtual(storm(weather, idempotent=True))
    logs = {tp: p.records() for tp, p in cluster.partitions.items()}
    for value, delivery in sent:
        assert delivery.done()
        error = delivery.exception()
        if error is not None:
            assert isinstance(error, ClientError | BrokerError)
            continue
        written = delivery.result()
        log = logs[written.topic_partition]
        places = [offset for offset, _, found in log if found == value]
        assert len(places) == 1, f"{value!r} is at {places}"
        if written.offset >= 0:
            assert places == [written.offset]
    for log in logs.values():
        values = [value for _, _, value in log]
        assert len(set(values)) == len(values), "a record is there twice"
        numbers = first_places(values)
        assert numbers == sorted(numbers)


@pytest.mark.timeout(600)
@settings(max_examples=75)
@given(weathers)
def test_without_idempotence_order_holds_and_nothing_acknowledged_is_missing(weather: Weather) -> None:
    cluster, sent = run_virtual(storm(weather, idempotent=False))
    logs = {tp: p.records() for tp, p in cluster.partitions.items()}
    acknowledged: dict[TopicPartition, list[int]] = {tp: [] for tp in logs}
    for value, delivery in sent:
        assert delivery.done()
        if delivery.exception() is None:
            written = delivery.result()
            assert logs[written.topic_partition][written.offset][2] == value
            acknowledged[written.topic_partition].append(written.offset)
    for offsets in acknowledged.values():
        assert offsets == sorted(offsets)


def test_the_same_seed_gives_the_same_run() -> None:
    weather = Weather(7, 0.3, 0.2, 0.5, 0.3, 0.1, 60, 2, 5, 3, True, 10_000)

    def run() -> list[tuple[str, int, Message]]:
        return run_virtual(storm(weather, idempotent=True))[0].asked

    assert run() == run()


@dataclass(frozen=True)
class Row:
    """A record to be sent."""

    value: bytes | None
    key: bytes | None
    timestamp: int
    headers: list[tuple[str, bytes | None]]


contents = st.none() | st.binary(max_size=80)
rows = st.builds(
    Row,
    value=contents,
    key=contents,
    timestamp=st.integers(1_000, 1_003),
    headers=st.lists(st.tuples(st.text(max_size=3), contents), max_size=2),
)


@settings(max_examples=150)
@given(
    st.lists(rows, max_size=60),
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([128, 300, 65_536]),
)
def test_send_many_is_send_for_each(
    records: list[Row],
    sizes: list[int],
    partition: int | None,
    given_columns: tuple[bool, bool, bool],
    max_batch_size: int,
) -> None:
    """The same records in the same order in the same partitions; stickiness alone draws its own."""
    with_keys, with_timestamps, with_headers = given_columns

    def key_of(row: Row) -> bytes | None:
        return (row.key or b"k") if with_keys else None

    async def sent(*, at_once: bool) -> dict[TopicPartition, list[tuple[Any, ...]]]:
        cluster = FakeCluster()
        cluster.create_topic("t", 3)
        logs: dict[TopicPartition, list[tuple[Any, ...]]] = {tp: [] for tp in cluster.partitions}
        async with Producer(
            bootstrap_servers="fake:9001",
            transport=cluster,
            clock=VirtualClock(asyncio.get_running_loop()),
            chance=random.Random(1),
            max_batch_size=max_batch_size,
            buffer_memory=2_000 if max_batch_size < 1_000 else 1_000_000,
        ) as producer:
            deliveries: list[tuple[Row, Delivery]] = []
            start = 0
            while start < len(records):
                chunk = records[start : start + sizes[start % len(sizes)]]
                start += len(chunk)
                if at_once:
                    many = await producer.send_many(
                        "t",
                        [row.value for row in chunk],
                        keys=[key_of(row) for row in chunk] if with_keys else None,
                        timestamps=[row.timestamp for row in chunk] if with_timestamps else 7,
                        headers=[row.headers for row in chunk] if with_headers else None,
                        partition=partition,
                    )
                    assert len(many) == len(chunk)
                    deliveries += [(row, many[i]) for i, row in enumerate(chunk)]
                    written = await many
                    assert sorted(i for each in written for i in each.indices) == list(range(len(chunk)))
                    for each in written:
                        for place, i in enumerate(each.indices):
                            result = many[i].result()
                            assert (result.partition, result.offset) == (each.partition, each.offset + place)
                    continue
                for row in chunk:
                    delivery = await producer.send(
                        "t",
                        row.value,
                        key=key_of(row),
                        timestamp_ms=row.timestamp if with_timestamps else 7,
                        headers=row.headers if with_headers else None,
                        partition=partition,
                    )
                    deliveries.append((row, delivery))
            await producer.flush()
        for row, delivery in deliveries:
            tp, offset = delivery.result().topic_partition, delivery.result().offset
            assert cluster.partitions[tp].records()[offset][2] == row.value
        for tp, p in cluster.partitions.items():
            for batch in p.batches:
                columns = decode_batch(batch.data)
                assert len(batch.data) <= max_batch_size or len(columns) == 1
                stamps = columns.timestamps
                logs[tp] += zip(
                    columns.keys or [None] * len(columns),
                    columns.values,
                    [stamps] * len(columns) if isinstance(stamps, int) else stamps,
                    [h or [] for h in columns.headers or [None] * len(columns)],
                    strict=True,
                )
        return logs

    one_by_one, many = run_virtual(sent(at_once=False)), run_virtual(sent(at_once=True))
    if with_keys or partition is not None:
        assert many == one_by_one
    else:
        everything = [
            sorted(map(repr, (r for log in logs.values() for r in log))) for logs in (many, one_by_one)
        ]
        assert everything[0] == everything[1]
