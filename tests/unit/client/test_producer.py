"""The producer against an in-memory cluster under virtual time: batching, order, faults, limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kafkalite.client import Producer, errors
from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import (
    ErrorCode,
    MessageTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from kafkalite.protocol.message import Message
from kafkalite.protocol.produce import ProduceRequest
from kafkalite.protocol.record_batch import BatchHeader, decode_batch
from tests.simulation.loop import START_MS, VirtualClock, run_virtual
from tests.support.fake_broker import FakeCluster, Fault, script

T0 = TopicPartition("t", 0)


def producer_of(cluster: FakeCluster, **options: Any) -> Producer:
    options.setdefault("bootstrap_servers", "fake:9001,fake:9002,fake:9003")
    return Producer(
        transport=cluster,
        clock=VirtualClock(asyncio.get_running_loop()),
        chance=random.Random(options.pop("seed", 1)),
        **options,
    )


def scenario(
    story: Callable[[FakeCluster, Producer], Awaitable[None]], *, partitions: int = 1, **options: Any
) -> FakeCluster:
    """Run ``story`` with a topic "t" and a started producer; return the cluster as it is afterwards."""

    async def main() -> FakeCluster:
        cluster = FakeCluster()
        cluster.create_topic("t", partitions)
        async with producer_of(cluster, **options) as producer:
            await story(cluster, producer)
        return cluster

    return run_virtual(main())


def batches_of(cluster: FakeCluster) -> list[BatchHeader]:
    """The headers of all batches that were sent, in order."""
    return [
        BatchHeader.parse(part.records)
        for request in cluster.requests(ProduceRequest)
        for topic in request.topic_data
        for part in topic.partition_data
    ]


def test_records_are_acknowledged_at_their_offsets() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        deliveries = [await producer.send("t", b"%d" % i) for i in range(10)]
        for i, delivery in enumerate(deliveries):
            metadata = await delivery
            assert (metadata.topic, metadata.partition, metadata.offset) == ("t", 0, i)
            assert metadata.timestamp == START_MS + 2  # After two requests for metadata.
        assert [d.done() for d in deliveries] == [True] * 10
        assert deliveries[3].exception() is None
        assert deliveries[3].result().topic_partition == T0

    cluster = scenario(story)
    assert cluster.values(T0) == [b"%d" % i for i in range(10)]
    assert [header.record_count for header in batches_of(cluster)] == [10]


def test_everything_of_a_record_arrives() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"a", partition=0)
        await producer.send("t", b"b", b"k", headers=[("h", b"1"), ("n", None)], timestamp_ms=77)
        await producer.send("t", None, b"k")
        await producer.send("t", bytearray(b"d"))
        await producer.flush()

    cluster = scenario(story)
    columns = decode_batch(cluster.partitions[T0].batches[0].data)
    assert columns.keys == [None, b"k", b"k", None]
    assert columns.values == [b"a", b"b", None, b"d"]
    assert columns.headers == [None, [("h", b"1"), ("n", None)], None, None]
    assert isinstance(columns.timestamps, list)
    assert columns.timestamps[1] == 77


def test_serializers_and_types() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", "ü", "key")
        await producer.send_and_wait("t", None, None)
        for _ in range(2):
            assert (await producer.send("t", "z")) is not None
        with pytest.raises(TypeError, match="header name"):
            await producer.send("t", "x", headers=[(1, b"")])  # type: ignore[list-item]

    cluster = scenario(story, value_serializer=str.encode, key_serializer=str.encode)
    assert cluster.partitions[T0].records() == [
        (0, b"key", "ü".encode()),
        (1, None, None),
        (2, None, b"z"),
        (3, None, b"z"),
    ]

    async def doubled(cluster: FakeCluster, producer: Producer) -> None:
        for _ in range(2):
            await producer.send("t", b"z")

    assert scenario(doubled, value_serializer=lambda value: value * 2).values(T0) == [b"zz", b"zz"]

    async def untyped(cluster: FakeCluster, producer: Producer) -> None:
        with pytest.raises(TypeError, match="value: expected bytes"):
            await producer.send("t", "text")

    scenario(untyped)


def test_linger_waits_and_size_does_not() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        now = asyncio.get_running_loop().time
        begun = now()
        await producer.send_and_wait("t", b"x")
        assert 0.1 <= now() - begun < 0.11
        begun = now()
        deliveries = [await producer.send("t", b"y" * 100) for _ in range(30)]
        await deliveries[0]
        assert now() - begun < 0.05

    scenario(story, linger_ms=100, max_batch_size=1000)


def test_batches_stay_within_their_size_and_large_records_go_alone() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        for i in range(200):
            await producer.send("t", b"v" * (i % 90), b"k" * (i % 7) if i % 3 else None)
        await producer.send("t", b"L" * 5000)
        await producer.flush()

    cluster = scenario(story, max_batch_size=1024)
    sizes = [len(batch.data) for batch in cluster.partitions[T0].batches]
    assert max(sizes[:-1]) <= 1024
    assert sizes[-1] > 5000
    assert cluster.partitions[T0].end == 201


class TickingClock(VirtualClock):
    """Wall time moves on whenever somebody looks."""

    ticks = 0

    def wall_ms(self) -> int:
        self.ticks += 1
        return START_MS + self.ticks


def test_a_full_batch_goes_at_once_and_its_records_share_their_time() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create_topic("t", 1)
        clock = TickingClock(asyncio.get_running_loop())
        producer = Producer(
            bootstrap_servers="fake:9001",
            transport=cluster,
            clock=clock,
            max_batch_size=1024,
            linger_ms=60_000,
        )
        async with producer:
            before = clock.ticks
            deliveries = [await producer.send("t", b"v" * 90) for _ in range(27)]
            # Nothing lingers: the last batch is sealed though no record came that it has no room for.
            stamps = [(await delivery).timestamp for delivery in deliveries]
            assert [header.record_count for header in batches_of(cluster)] == [9, 9, 9]
            assert all(header.base_timestamp == header.max_timestamp for header in batches_of(cluster))
            assert stamps == sorted(stamps)
            assert len(set(stamps)) == 3 == clock.ticks - before
            many = await producer.send_many("t", [b"v" * 84] * 4, timestamps=[5, 5, 7, 6])
            last = await producer.send("t", b"v" * 90)
            await producer.flush()
            assert [many[i].result().timestamp for i in range(4)] == [5, 5, 7, 6]
            assert last.result().timestamp == START_MS + clock.ticks

    run_virtual(main())


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compression(compression: str) -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        for i in range(100):
            await producer.send("t", b"same old story %d" % i)
        await producer.flush()

    cluster = scenario(story, compression_type=compression)
    assert cluster.values(T0) == [b"same old story %d" % i for i in range(100)]
    assert batches_of(cluster)[0].compression.name.lower() == compression


def test_records_without_key_stick_and_move_on_with_the_batch() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        for _ in range(120):
            await producer.send("t", b"v" * 90)
        await producer.flush()

    cluster = scenario(story, partitions=3, max_batch_size=1024)
    for tp in cluster.partitions:
        full = [batch.header.record_count for batch in cluster.partitions[tp].batches]
        assert full
        assert max(full) == 9
    assert sum(p.end for p in cluster.partitions.values()) == 120
    assert len(batches_of(cluster)) == 14


def test_keys_choose_kafkas_partition_and_a_partitioner_overrides() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        # murmur2("foobar") = -790332482; & 0x7fffffff = 1357151166, % 3 = 0
        assert (await producer.send_and_wait("t", b"", b"foobar")).partition == 1357151166 % 3
        assert (await producer.send_and_wait("t", b"", b"abc")).partition == 479470107 % 3
        assert await producer.partitions_for("t") == {0, 1, 2}

    scenario(story, partitions=3)

    async def chosen(cluster: FakeCluster, producer: Producer) -> None:
        assert (await producer.send_and_wait("t", b"", b"foobar")).partition == 2

    scenario(chosen, partitions=3, partitioner=lambda key, every, available: every[-1])


def test_partitions_share_requests() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        for i in range(12):
            await producer.send("t", b"%d" % i, partition=i)
        await producer.flush()

    cluster = scenario(story, partitions=12)
    assert len(cluster.requests(ProduceRequest)) == 3


def test_five_requests_are_in_flight_a_broker_and_one_without_idempotence() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"first")
        cluster.delay = 0.1
        for _ in range(100):
            await producer.send("t", b"v" * 200)
        await producer.flush()

    assert scenario(story, max_batch_size=512).most_in_flight == 5
    assert scenario(story, max_batch_size=512, enable_idempotence=False).most_in_flight == 1


def test_acks_zero_has_no_offset() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        assert (await producer.send_and_wait("t", b"x")).offset == -1

    cluster = scenario(story, acks=0)
    assert cluster.values(T0) == [b"x"]
    assert cluster.requests(ProduceRequest)[0].acks == 0
    assert batches_of(cluster)[0].producer_id == -1


@pytest.mark.parametrize(
    "fault",
    [
        Fault.LOSE_REQUEST,
        Fault.LOSE_ANSWER,
        Fault.REFUSE,
        Fault.APPEND_UNSURE,
        Fault.TIME_OUT,
        Fault.DENY_LEADERSHIP,
        Fault.UNAVAILABLE,
        Fault.SLOW,
    ],
)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_fault_neither_loses_nor_doubles_nor_reorders(fault: Fault, at: int) -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        cluster.hook = script(*[Fault.NONE] * at, fault)
        deliveries = []
        for i in range(60):
            deliveries.append(await producer.send("t", b"%03d" % i + b"." * 100))
        for i, delivery in enumerate(deliveries):
            assert (await delivery).offset == i

    cluster = scenario(story, max_batch_size=1024)
    assert [value and value[:3] for value in cluster.values(T0)] == [b"%03d" % i for i in range(60)]


def test_a_moved_leader_is_found_in_one_round_trip() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")
        for hints in (True, False):
            cluster.give_hints = hints
            cluster.elect(T0, cluster.partitions[T0].leader % 3 + 1)
            begun = asyncio.get_running_loop().time()
            await producer.send_and_wait("t", b"b")
            assert asyncio.get_running_loop().time() - begun < 0.015

    cluster = scenario(story)
    assert cluster.values(T0) == [b"a", b"b", b"b"]


def test_a_dead_leader_is_replaced_while_sending() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"0")
        deliveries = [await producer.send("t", b"%d" % i) for i in range(1, 50)]
        cluster.kill(1)
        await asyncio.sleep(2)
        cluster.elect(T0, 2)
        assert [(await d).offset for d in deliveries] == list(range(1, 50))

    cluster = scenario(story)
    assert cluster.values(T0) == [b"%d" % i for i in range(50)]


def test_a_leader_that_hangs_is_left_once_another_is_elected() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")
        cluster.hook = lambda api, node, request: Fault.HANG if node == 1 else Fault.NONE
        delivery = await producer.send("t", b"b")
        await asyncio.sleep(3)
        cluster.elect(T0, 2)
        begun = asyncio.get_running_loop().time()
        assert (await delivery).offset == 1
        assert asyncio.get_running_loop().time() - begun < 5  # and not request_timeout_ms, 30 s

    scenario(story)


def test_delivery_timeout_names_the_last_error() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")
        cluster.hook = lambda api, node, request: Fault.REFUSE if api == "produce" else Fault.NONE
        begun = asyncio.get_running_loop().time()
        with pytest.raises(errors.DeliveryTimeoutError, match="NOT_ENOUGH_REPLICAS") as caught:
            await producer.send_and_wait("t", b"b")
        assert 4.9 < asyncio.get_running_loop().time() - begun < 5.1
        assert isinstance(caught.value, TimeoutError)
        cluster.hook = script()
        assert (await producer.send_and_wait("t", b"c")).offset == 1

    cluster = scenario(story, delivery_timeout_ms=5000, request_timeout_ms=2000)
    assert cluster.values(T0) == [b"a", b"c"]


def test_after_an_expired_batch_the_next_epoch_fences_what_is_still_under_way() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")
        cluster.hook = lambda api, node, request: Fault.HANG if api == "produce" else Fault.NONE
        with pytest.raises(errors.DeliveryTimeoutError):
            await producer.send_and_wait("t", b"lost")
        cluster.hook = script()
        await producer.send_and_wait("t", b"c")

    cluster = scenario(story, delivery_timeout_ms=5000, request_timeout_ms=2000)
    assert cluster.values(T0) == [b"a", b"c"]
    last = cluster.partitions[T0].batches[-1].header
    assert (last.producer_epoch, last.base_sequence) == (1, 0)
    assert last.producer_id == cluster.partitions[T0].batches[0].header.producer_id


def test_used_up_epochs_lead_to_another_producer_id() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        cluster.first_producer_epoch = 32766
        await producer.send_and_wait("t", b"a")
        for _ in range(2):
            cluster.max_message_bytes = 10
            with pytest.raises(MessageTooLargeError):
                await producer.send_and_wait("t", b"too large now")
            cluster.max_message_bytes = 1000
            await producer.send_and_wait("t", b"b")

    cluster = scenario(story)
    identities = [(b.header.producer_id, b.header.producer_epoch) for b in cluster.partitions[T0].batches]
    assert identities == [(1001, 32766), (1001, 32767), (1002, 32766)]


def test_a_batch_that_is_too_large_is_split_in_order() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"first")
        cluster.max_message_bytes = 600
        deliveries = [await producer.send("t", b"%02d" % i + b"." * 98) for i in range(40)]
        assert [(await d).offset for d in deliveries] == list(range(1, 41))

    cluster = scenario(story, max_batch_size=4096)
    assert [value and value[:2] for value in cluster.values(T0)][1:] == [b"%02d" % i for i in range(40)]
    assert all(header.producer_epoch == 0 for header in batches_of(cluster))


def test_a_refused_record_fails_alone() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")
        cluster.max_message_bytes = 500
        large = await producer.send("t", b"L" * 3000)
        small = await producer.send("t", b"b")
        with pytest.raises(MessageTooLargeError):
            await large
        assert (await small).offset == 1
        with pytest.raises(MessageTooLargeError, match="max_request_size"):
            await producer.send("t", b"M" * 5000)

    cluster = scenario(story, max_batch_size=1000, max_request_size=4000)
    assert cluster.values(T0) == [b"a", b"b"]


def test_a_full_buffer_waits_and_then_says_so() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")
        cluster.delay = 0.2
        deliveries = [await producer.send("t", b"x" * 400) for _ in range(60)]
        assert asyncio.get_running_loop().time() > 0.2
        await producer.flush()
        assert all(d.done() and d.exception() is None for d in deliveries)
        cluster.hook = lambda api, node, request: Fault.REFUSE if api == "produce" else Fault.NONE
        begun = asyncio.get_running_loop().time()
        filling = asyncio.gather(*(producer.send("t", b"x" * 400) for _ in range(60)))
        with pytest.raises(errors.BufferExhaustedError):
            await filling
        assert asyncio.get_running_loop().time() - begun == pytest.approx(3, abs=0.5)
        cluster.hook = script()

    scenario(story, buffer_memory=4096, max_batch_size=1024, max_block_ms=3000)


def test_an_unknown_topic_is_waited_for() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        task = asyncio.ensure_future(producer.send_and_wait("later", b"x"))
        await asyncio.sleep(1)
        cluster.create_topic("later")
        assert (await task).offset == 0
        with pytest.raises(UnknownTopicOrPartitionError, match="never"):
            await producer.send("never", b"x")
        with pytest.raises(UnknownTopicOrPartitionError, match="no partition 7"):
            await producer.send("t", b"x", partition=7)
        cluster.topic_errors["secret"] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        begun = asyncio.get_running_loop().time()
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send("secret", b"x")
        assert asyncio.get_running_loop().time() - begun < 2

    scenario(story, max_block_ms=5000)


def test_nobody_there() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.down = {1, 2, 3}
        producer = producer_of(cluster)
        with pytest.raises(errors.ClusterUnreachableError) as caught:
            await producer.start()
        assert sorted(a.address.port for a in caught.value.attempts) == [9001, 9002, 9003]
        assert "connection refused" in str(caught.value)
        assert "kafkalite cluster status" in caught.value.hint
        with pytest.raises(errors.ClientClosedError):
            await producer.send("t", b"x")

    run_virtual(main())


def test_a_cluster_that_went_away_is_named_with_its_addresses() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        for node in (1, 2, 3):
            cluster.kill(node)
        with pytest.raises(errors.ClusterUnreachableError) as caught:
            await producer.send("other", b"x")
        assert "broker 1 at fake:9001" in str(caught.value)
        assert "advertised.listeners" in caught.value.hint

    scenario(story, max_block_ms=4000)


def test_stop_sends_what_is_buffered_and_then_refuses() -> None:
    kept: list[Any] = []

    async def story(cluster: FakeCluster, producer: Producer) -> None:
        kept.append(producer)
        kept.append(await producer.send("t", b"x"))

    cluster = scenario(story, linger_ms=10_000)
    assert cluster.values(T0) == [b"x"]
    assert kept[1].result().offset == 0
    with pytest.raises(errors.ClientClosedError):
        kept[0].send("t", b"y").send(None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"acks": 2}, "acks"),
        ({"acks": 1, "enable_idempotence": True}, "enable_idempotence"),
        ({"delivery_timeout_ms": 1000}, "delivery_timeout_ms"),
        ({"compression_type": "rar"}, "compression_type"),
        ({"compression_type": "gzip", "compression_level": 77}, "compression_level"),
        ({"bootstrap_servers": "a:b"}, "bootstrap_servers"),
        ({"bootstrap_servers": ""}, "bootstrap_servers"),
        ({"buffer_memory": 0}, "buffer_memory"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Producer(**options)


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="batch_size"):
        Producer(batch_size=1)  # type: ignore[call-arg]


def test_a_defect_in_the_background_fails_every_record_and_every_later_call() -> None:
    async def story(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send_and_wait("t", b"a")

        def broken(api: str, node: int, request: Message) -> Fault:
            raise RuntimeError("a defect")

        cluster.hook = broken
        delivery = await producer.send("t", b"b")
        with pytest.raises(RuntimeError, match="a defect"):
            await delivery
        with pytest.raises(errors.ClientClosedError):
            await producer.send("t", b"c")

    scenario(story)


def test_leaders_that_move_while_requests_start() -> None:
    """Metadata may change between the start of a request's task and its first step."""

    async def story(cluster: FakeCluster, producer: Producer) -> None:
        for i in range(100):
            delivery = await producer.send("t", b"%d" % i)
            producer._sender.wake()
            cluster.elect(T0, i % 3 + 1)
            for _ in range(i % 5):
                await asyncio.sleep(0)
            for tp, (leader, epoch) in cluster.leaders().items():
                if producer._cluster.metadata.hint_leader(tp, leader, epoch):
                    producer._cluster.changed()
            assert (await delivery).offset == i

    scenario(story, linger_ms=0, delivery_timeout_ms=40_000)
