"""The consumer against an in-memory cluster under virtual time: positions, reading, faults, truncation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from kafkalite.client import Consumer, ConsumerRecord, OffsetAndTimestamp, errors
from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import (
    CorruptMessageError,
    ErrorCode,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from kafkalite.protocol.fetch import FetchRequest
from kafkalite.protocol.message import Message
from kafkalite.protocol.record_batch import encode_batch
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import FakeCluster, Fault, script

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)

Story = Callable[[FakeCluster, Consumer], Awaitable[None]]


def consumer_of(cluster: FakeCluster, *topics: str, **options: Any) -> Consumer:
    options.setdefault("auto_offset_reset", "earliest")
    return Consumer(
        *topics,
        bootstrap_servers="fake:9001",
        transport=cluster,
        clock=VirtualClock(asyncio.get_running_loop()),
        chance=random.Random(1),
        **options,
    )


def put(cluster: FakeCluster, tp: TopicPartition, *values: bytes | None, **columns: Any) -> None:
    """Append one batch."""
    columns.setdefault("timestamps", 1000)
    cluster.append(tp, encode_batch(list(values), **columns))


def scenario(
    story: Story,
    *topics: str,
    partitions: int = 1,
    prepare: Callable[[FakeCluster], None] | None = None,
    **options: Any,
) -> FakeCluster:
    async def main() -> FakeCluster:
        cluster = FakeCluster()
        cluster.create_topic("t", partitions)
        if prepare is not None:
            prepare(cluster)
        async with consumer_of(cluster, *topics, **options) as consumer:
            await story(cluster, consumer)
        return cluster

    return run_virtual(main())


async def read(consumer: Consumer, count: int, within_s: float = 30) -> list[ConsumerRecord]:
    """The next ``count`` records."""
    found: list[ConsumerRecord] = []
    async with asyncio.timeout(within_s):
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += records
    assert len(found) == count
    return found


def values(records: Sequence[ConsumerRecord]) -> list[Any]:
    return [record.value for record in records]


def test_everything_of_a_record_is_read() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(
            cluster,
            T0,
            b"a",
            None,
            timestamps=[5, 7],
            keys=[None, b"k"],
            headers=[None, [("h", b"1"), ("n", None)]],
        )
        first, second = await read(consumer, 2)
        assert first == ConsumerRecord("t", 0, 0, 5, 0, None, b"a", ())
        assert (second.offset, second.timestamp, second.key, second.value) == (1, 7, b"k", None)
        assert [tuple(h) for h in second.headers] == [("h", b"1"), ("n", None)]
        assert await consumer.position(T0) == 2
        assert consumer.highwater(T0) == consumer.last_stable_offset(T0) == 2

    scenario(story, "t")


def test_position_moves_only_with_what_is_handed_out() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, *[b"%d" % i for i in range(10)])
        put(cluster, T0, *[b"%d" % i for i in range(10, 20)])
        assert (await consumer.getone()).offset == 0
        assert await consumer.position(T0) == 1
        got = await consumer.getmany(timeout_ms=100, max_records=3)
        assert values(got[T0]) == [b"1", b"2", b"3"]
        assert await consumer.position(T0) == 4
        got = await consumer.getmany(T0, timeout_ms=100, max_records=10)
        assert values(got[T0]) == [b"%d" % i for i in range(4, 14)]
        assert await consumer.position(T0) == 14
        consumer.seek(T0, 12)
        assert values(await read(consumer, 8)) == [b"%d" % i for i in range(12, 20)]
        assert await consumer.getmany() == {}
        assert await consumer.getmany(timeout_ms=50) == {}

    scenario(story, "t")


def test_async_for_and_stop() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, *[b"%d" % i for i in range(5)])
        seen = []

        async def loop() -> None:
            async for record in consumer:
                seen.append(record.value)

        task = asyncio.ensure_future(loop())
        await asyncio.sleep(1)
        put(cluster, T0, b"5")
        await asyncio.sleep(1)
        await consumer.stop()
        await task
        assert seen == [b"%d" % i for i in range(6)]
        with pytest.raises(errors.ClientClosedError):
            await consumer.getone()

    scenario(story, "t")


def test_where_to_begin() -> None:
    def prepare(cluster: FakeCluster) -> None:
        put(cluster, T0, b"old", b"older")

    async def latest(cluster: FakeCluster, consumer: Consumer) -> None:
        assert await consumer.position(T0) == 2
        put(cluster, T0, b"new")
        assert values(await read(consumer, 1)) == [b"new"]
        await consumer.seek_to_beginning()
        assert await consumer.position(T0) == 0
        assert (await consumer.getone()).value == b"old"
        await consumer.seek_to_end(T0)
        assert await consumer.position(T0) == 3

    scenario(latest, "t", auto_offset_reset="latest", prepare=prepare)

    async def none(cluster: FakeCluster, consumer: Consumer) -> None:
        for _ in range(2):
            with pytest.raises(errors.NoOffsetForPartitionError):
                await consumer.getone()
        with pytest.raises(errors.NoOffsetForPartitionError):
            await consumer.position(T0)
        consumer.seek(T0, 1)
        assert (await consumer.getone()).value == b"older"

    scenario(none, "t", auto_offset_reset="none", prepare=prepare)


def test_assign_pause_resume() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, b"a")
        put(cluster, T1, b"b")
        consumer.assign([T0, T1])
        assert consumer.assignment() == {T0, T1}
        assert consumer.subscription() == frozenset()
        consumer.pause(T0)
        assert consumer.paused() == {T0}
        assert values(await read(consumer, 1)) == [b"b"]
        assert await consumer.getmany(timeout_ms=1500) == {}
        consumer.resume(T0)
        assert values(await read(consumer, 1)) == [b"a"]
        put(cluster, T0, b"c")
        assert (await consumer.getone(T0)).value == b"c"
        with pytest.raises(errors.IllegalStateError, match="t-7"):
            consumer.seek(TopicPartition("t", 7), 0)
        with pytest.raises(errors.IllegalStateError):
            consumer.subscribe(["t"])
        consumer.unsubscribe()
        assert consumer.assignment() == frozenset()
        consumer.subscribe(["t"])
        assert values(await read(consumer, 3))
        with pytest.raises(errors.IllegalStateError):
            consumer.assign([T0])

    scenario(story, partitions=2)


def test_new_partitions_and_topics_are_noticed() -> None:
    def prepare(cluster: FakeCluster) -> None:
        cluster.create_topic("late")

    async def by_pattern(cluster: FakeCluster, consumer: Consumer) -> None:
        consumer.subscribe(pattern="t$|u-")
        put(cluster, T0, b"a")
        assert values(await read(consumer, 1)) == [b"a"]
        cluster.partitions[T1] = type(cluster.partitions[T0])(leader=2)
        put(cluster, T1, b"b")
        for name in ("u-1", "other", "u-internal"):
            cluster.create_topic(name)
        cluster.internal.add("u-internal")
        put(cluster, TopicPartition("u-1", 0), b"u")
        assert sorted(values(await read(consumer, 2))) == [b"b", b"u"]
        assert consumer.subscription() == {"t", "u-1"}
        del cluster.partitions[TopicPartition("u-1", 0)]
        await asyncio.sleep(3)
        assert consumer.subscription() == {"t"}
        assert consumer.assignment() == {T0, T1}

    scenario(by_pattern, prepare=prepare, metadata_max_age_ms=1000)


def test_offsets_can_be_asked_for() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, b"a", b"b", b"c", timestamps=[10, 20, 30])
        cluster.partitions[T0].log_start_offset = 1
        assert await consumer.beginning_offsets([T0, T1]) == {T0: 1, T1: 0}
        assert await consumer.end_offsets([T0, T1]) == {T0: 3, T1: 0}
        found = await consumer.offsets_for_times({T0: 15, T1: 15})
        assert found == {T0: OffsetAndTimestamp(1, 20), T1: None}
        assert consumer.partitions_for_topic("t") == {0, 1}
        assert consumer.partitions_for_topic("x") is None
        assert await consumer.topics() == {"t"}
        with pytest.raises(ValueError, match="negative"):
            await consumer.offsets_for_times({T0: -1})
        cluster.elect(T0, 3)
        assert await consumer.end_offsets([T0]) == {T0: 3}

    scenario(story, partitions=2)


def test_out_of_range() -> None:
    def prepare(cluster: FakeCluster) -> None:
        put(cluster, T0, b"a")

    async def by_policy(cluster: FakeCluster, consumer: Consumer) -> None:
        await consumer.position(T0)
        consumer.seek(T0, 77)
        assert values(await read(consumer, 1)) == [b"a"]

    scenario(by_policy, "t", prepare=prepare)

    async def no_policy(cluster: FakeCluster, consumer: Consumer) -> None:
        consumer.assign([T0])
        consumer.seek(T0, 77)
        with pytest.raises(OffsetOutOfRangeError, match="77"):
            await consumer.getone()
        consumer.seek(T0, 0)
        assert (await consumer.getone()).value == b"a"

    scenario(no_policy, prepare=prepare, auto_offset_reset="none")


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("how", ["elect", "kill", "hang"])
def test_reading_goes_on_at_the_next_leader(hints: bool, how: str) -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        cluster.give_hints = hints
        put(cluster, T0, b"a")
        assert values(await read(consumer, 1)) == [b"a"]
        if how == "kill":
            cluster.kill(1)
        elif how == "hang":
            cluster.hook = lambda api, node, request: Fault.HANG if node == 1 else Fault.NONE
        await asyncio.sleep(0.7)
        cluster.elect(T0, 2)
        put(cluster, T0, b"b")
        begun = asyncio.get_running_loop().time()
        assert values(await read(consumer, 1)) == [b"b"]
        assert asyncio.get_running_loop().time() - begun < (6 if how == "hang" else 2)

    scenario(story, "t")


@pytest.mark.parametrize("fault", [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.UNAVAILABLE, Fault.SLOW])
@pytest.mark.parametrize("api", ["fetch", "list_offsets", "metadata"])
def test_faults_lose_and_repeat_nothing(fault: Fault, api: str) -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        cluster.hook = script(fault, Fault.NONE, fault, fault, api=api)
        consumer.subscribe(["t"])
        for i in range(20):
            put(cluster, T0, b"%d" % i)
            if i % 5 == 0:
                await asyncio.sleep(0.1)
        assert values(await read(consumer, 20)) == [b"%d" % i for i in range(20)]

    scenario(story)


def test_a_truncated_log_is_noticed() -> None:
    async def with_policy(cluster: FakeCluster, consumer: Consumer) -> None:
        for value in (b"a", b"b", b"c"):
            put(cluster, T0, value)
        assert values(await read(consumer, 3)) == [b"a", b"b", b"c"]
        cluster.truncate_uncleanly(T0, 2, 1)
        put(cluster, T0, b"B", b"C", b"D")
        assert values(await read(consumer, 3)) == [b"B", b"C", b"D"]

    scenario(with_policy, "t")

    async def without_policy(cluster: FakeCluster, consumer: Consumer) -> None:
        consumer.assign([T0])
        consumer.seek(T0, 0)
        for value in (b"a", b"b", b"c"):
            put(cluster, T0, value)
        assert values(await read(consumer, 3)) == [b"a", b"b", b"c"]
        cluster.truncate_uncleanly(T0, 2, 1)
        put(cluster, T0, b"B", b"C", b"D")
        with pytest.raises(errors.LogTruncationError) as caught:
            await consumer.getone()
        assert (caught.value.position, caught.value.divergent_offset) == (3, 1)
        consumer.seek(T0, 1)
        assert values(await read(consumer, 3)) == [b"B", b"C", b"D"]

    scenario(without_policy, auto_offset_reset="none")


def test_a_clean_election_is_no_truncation() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        for leader in (2, 3, 1, 2):
            put(cluster, T0, b"x", b"y")
            assert len(await read(consumer, 2)) == 2
            cluster.elect(T0, leader)
        put(cluster, T0, b"z")
        assert values(await read(consumer, 1)) == [b"z"]
        assert await consumer.position(T0) == 9

    scenario(story, "t")


def test_a_corrupt_batch_is_reported_and_not_skipped() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, b"good")
        put(cluster, T0, b"bad")
        stored = cluster.partitions[T0].batches[1]
        sound = stored.data
        stored.data = sound[:-1] + b"?"
        assert values(await read(consumer, 1)) == [b"good"]
        for _ in range(2):
            with pytest.raises(CorruptMessageError, match="t-0 at offset 1"):
                await consumer.getone()
            assert await consumer.position(T0) == 1
        stored.data = sound
        while True:  # A fetch that is under way may still bring the bad one.
            try:
                assert (await consumer.getone()).value == b"bad"
                break
            except CorruptMessageError:
                pass

    scenario(story, "t")

    async def unchecked(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, b"bad")
        stored = cluster.partitions[T0].batches[0]
        stored.data = stored.data.replace(b"bad", b"ba?")
        assert (await consumer.getone()).value == b"ba?"

    scenario(unchecked, "t", check_crcs=False)


def test_deserializers() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, b"1", None, b"x", b"4", keys=[b"k", None, b"k", b"k"])
        got = await read(consumer, 2)
        assert [(r.key, r.value) for r in got] == [("k", 1), (None, None)]
        for _ in range(2):
            with pytest.raises(errors.DeserializationError, match="value of t-0 at offset 2") as caught:
                await consumer.getone()
            assert caught.value.offset == 2
        assert await consumer.position(T0) == 2
        consumer.seek(T0, 3)
        assert values(await read(consumer, 1)) == [4]

    scenario(story, "t", value_deserializer=int, key_deserializer=bytes.decode)


def test_control_batches_and_gaps_are_passed_over() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        put(cluster, T0, b"a")
        put(cluster, T0, b"marker", is_control=True, is_transactional=True, producer_id=1, producer_epoch=0)
        put(cluster, T0, b"c", b"e", offset_deltas=[1, 3], last_offset_delta=5)
        got = await read(consumer, 3)
        assert [(r.offset, r.value) for r in got] == [(0, b"a"), (3, b"c"), (5, b"e")]
        assert await consumer.position(T0) == 8

    scenario(story, "t")


def test_a_busy_partition_is_not_starved_by_a_quiet_one() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        cluster.elect(T1, 1)
        for _ in range(200):
            put(cluster, T0, *[b"." * 100] * 10)
        begun = asyncio.get_running_loop().time()
        await read(consumer, 2000)
        # Each answer holds ten records; long polls of 500 ms for the quiet partition must not come between.
        assert asyncio.get_running_loop().time() - begun < 5

    scenario(story, "t", partitions=2, max_partition_fetch_bytes=1200)


def test_a_steady_reader_is_not_held_up_by_a_partition_that_ends() -> None:
    """While it reads both, one or the other always has enough; that says nothing of how fast it reads."""

    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        cluster.elect(T1, 1)
        for number in range(200):
            put(cluster, T0, b"%d" % number)
            if number < 100:
                put(cluster, T1, b"%d" % number)
        loop = asyncio.get_running_loop()
        longest = 0.0
        for _ in range(300):
            began = loop.time()
            await consumer.getone()
            longest = max(longest, loop.time() - began)
            await asyncio.sleep(0.01)
        assert longest < 0.1

    scenario(story, "t", partitions=2, max_partition_fetch_bytes=1)


def test_no_more_is_fetched_than_is_wanted() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        for _ in range(50):
            put(cluster, T0, b"x" * 1000)
        assert (await consumer.getone()).offset == 0
        await asyncio.sleep(60)
        wanted = [
            p.fetch_offset
            for request in cluster.requests(FetchRequest)
            for topic in request.topics
            for p in topic.partitions
        ]
        assert max(wanted) <= 2
        assert len(wanted) < 10

    scenario(story, "t", max_partition_fetch_bytes=1000)


def test_errors_without_remedy_are_raised() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        def deny(api: str, node: int, request: Message) -> Fault:
            cluster.topic_errors["t"] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            return Fault.NONE

        cluster.hook = deny
        consumer.assign([T0])
        with pytest.raises(TopicAuthorizationFailedError):
            await consumer.getone()
        with pytest.raises(errors.NoGroupError):
            await consumer.seek_to_committed()

    scenario(story)


def test_positions_are_bounded_in_time() -> None:
    async def story(cluster: FakeCluster, consumer: Consumer) -> None:
        for node in (1, 2, 3):
            cluster.kill(node)
        consumer.assign([T0])
        with pytest.raises(errors.ClusterUnreachableError, match="no position for t-0"):
            await consumer.position(T0)
        with pytest.raises(errors.ClusterUnreachableError, match="no offset for t-0"):
            await consumer.end_offsets([T0])
        with pytest.raises(errors.ClusterUnreachableError):
            await consumer.topics()

    scenario(story, default_api_timeout_ms=3000)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"group_id": ""}, ValueError),
        ({"group_instance_id": "a"}, ValueError),
        ({"group_id": "g", "heartbeat_interval_ms": 45_000}, ValueError),
        ({"group_id": "g", "partition_assignment_strategy": ["fair"]}, ValueError),
        ({"group_id": "g", "partition_assignment_strategy": []}, ValueError),
        ({"auto_offset_reset": "smallest"}, ValueError),
        ({"isolation_level": "serializable"}, ValueError),
        ({"max_poll_records": 0}, ValueError),
        ({"fetch_max_wait_ms": 30_000}, ValueError),
        ({"no_such_option": True}, TypeError),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Consumer(**options)
