"""Consumers in groups against a fake coordinator under virtual time: sharing, moving, committing, faults."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kafkalite.client import Consumer, ConsumerRecord, RebalanceListener, errors
from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import (
    ErrorCode,
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    OffsetMetadataTooLargeError,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupRequest
from kafkalite.protocol.message import Message
from kafkalite.protocol.offset_commit import OffsetCommitRequest
from kafkalite.protocol.record_batch import encode_batch
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import Fault
from tests.support.fake_groups import GroupCluster

Story = Callable[[GroupCluster], Awaitable[None]]


def parts(*numbers: int, topic: str = "t") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in numbers)


class Heard(RebalanceListener):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        await asyncio.sleep(0)
        self.events.append(("revoked", revoked))

    def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        self.events.append(("assigned", assigned))

    def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> None:
        self.events.append(("lost", lost))


def consumer_of(cluster: GroupCluster, **options: Any) -> Consumer:
    arguments: dict[str, Any] = {
        "bootstrap_servers": "fake:9001",
        "group_id": "g",
        "auto_offset_reset": "earliest",
        "transport": Shared(cluster),
        "clock": VirtualClock(asyncio.get_running_loop()),
        "chance": random.Random(1),
    }
    return Consumer(**arguments | options)


class Shared:
    """The cluster as the transport of one of several clients: its lanes, and their end, are its own."""

    def __init__(self, cluster: GroupCluster) -> None:
        self._cluster = cluster

    async def ask(self, *arguments: Any, lane: str, **options: Any) -> Any:
        return await self._cluster.ask(*arguments, lane=f"{lane} of {id(self)}", **options)

    async def disconnect(self) -> None:
        pass

    async def close(self) -> None:
        pass


def fill(cluster: GroupCluster, count: int, topic: str = "t") -> None:
    """``count`` records into every partition of ``topic``, two a batch."""
    for tp in list(cluster.partitions):
        if tp.topic == topic:
            for start in range(0, count, 2):
                values: list[bytes | None] = [b"%s/%d" % (str(tp).encode(), start + i) for i in range(2)]
                cluster.append(tp, encode_batch(values, timestamps=1000))


class Worker:
    """A consumer with a task that reads on and on."""

    def __init__(self, cluster: GroupCluster, *, pace: float = 0.01, **options: Any) -> None:
        self.heard = Heard()
        self.consumer = consumer_of(cluster, **options)
        self.pace = pace
        self.limit = 4
        self.seen: list[tuple[TopicPartition, int]] = []
        self.times: dict[TopicPartition, list[float]] = {}
        self.errors: list[Exception] = []
        self.is_stuck = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Worker:
        await self.consumer.start()
        self.consumer.subscribe(["t"], listener=self.heard)
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def _run(self) -> None:
        while True:
            try:
                found = await self.consumer.getmany(timeout_ms=200, max_records=self.limit)
            except errors.ClientClosedError:
                return
            except Exception as error:
                self.errors.append(error)
                await asyncio.sleep(0.01)
                continue
            while self.is_stuck:
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.pace)
            for tp, records in found.items():
                self.seen += [(tp, record.offset) for record in records]
                self.times.setdefault(tp, []).append(asyncio.get_running_loop().time())

    async def stop(self) -> None:
        assert self._task is not None
        await self.consumer.stop()
        await self._task

    async def kill(self) -> None:
        """Nothing more is heard of it: no commit, no leave."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.consumer._background.stop()


def scenario(story: Story, partitions: int = 4) -> GroupCluster:
    async def main() -> GroupCluster:
        cluster = GroupCluster()
        cluster.create_topic("t", partitions)
        async with asyncio.timeout(3000):
            await story(cluster)
        return cluster

    return run_virtual(main())


async def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def shared_by(*workers: Worker, count: int = 4) -> Callable[[], bool]:
    """Every partition is owned by exactly one of ``workers``, and each has its fair share."""

    def condition() -> bool:
        owned = [tp for worker in workers for tp in worker.consumer.assignment()]
        sizes = [len(worker.consumer.assignment()) for worker in workers]
        return len(owned) == len(set(owned)) == count and max(sizes) - min(sizes) <= 1

    return condition


def test_one_member_reads_everything_and_leaves_cleanly() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        worker = await Worker(cluster).start()
        await until(lambda: len(worker.seen) == 40)
        await worker.stop()
        assert worker.heard.events == [("assigned", parts(0, 1, 2, 3)), ("revoked", parts(0, 1, 2, 3))]
        assert {tp: offset for tp, (offset, _, _) in cluster.group.offsets.items()} == dict.fromkeys(
            parts(0, 1, 2, 3), 10
        )
        assert len(cluster.left) == 1
        assert cluster.group.state == "Empty"

    scenario(story)


def test_members_share_and_cooperative_keeps_what_stays() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 400)
        first = await Worker(cluster).start()
        await until(lambda: len(first.seen) > 20)
        second = await Worker(cluster).start()
        await until(shared_by(first, second))
        kept = first.consumer.assignment()
        assert first.heard.events[0] == ("assigned", parts(0, 1, 2, 3))
        assert first.heard.events[1] == ("revoked", parts(0, 1, 2, 3) - kept)
        await until(lambda: ("assigned", second.consumer.assignment()) in second.heard.events)
        # Nothing of what it kept was ever announced again, nor did it stop: no gap longer than usual.
        assert [e for e in first.heard.events if e[1] & kept] == first.heard.events[:1]
        await until(lambda: len(first.seen) + len(second.seen) >= 1600)
        for tp in kept:
            times = first.times[tp]
            assert max(b - a for a, b in itertools.pairwise(times)) < 0.5
        await first.stop()
        await until(shared_by(second))
        await second.stop()
        assert Counter(first.seen + second.seen) == Counter(
            (TopicPartition("t", p), offset) for p in range(4) for offset in range(400)
        )

    scenario(story)


def test_eager_gives_up_everything_first() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 100)
        strategy = ["range"]
        first = await Worker(cluster, partition_assignment_strategy=strategy).start()
        await until(lambda: len(first.seen) > 20)
        second = await Worker(cluster, partition_assignment_strategy=strategy).start()
        await until(shared_by(first, second))
        await until(lambda: len(first.seen) + len(second.seen) == 400)
        assert first.heard.events[:2] == [("assigned", parts(0, 1, 2, 3)), ("revoked", parts(0, 1, 2, 3))]
        await first.stop()
        await second.stop()

    scenario(story)


def test_a_killed_member_is_replaced_from_its_last_commit() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 200)
        first = await Worker(cluster, session_timeout_ms=6000, auto_commit_interval_ms=500).start()
        second = await Worker(cluster, session_timeout_ms=6000, auto_commit_interval_ms=500).start()
        await until(shared_by(first, second))
        await until(lambda: len(first.seen) > 50 and bool(cluster.commits))
        mine = first.consumer.assignment()
        await first.kill()
        committed = {tp: cluster.group.offsets[tp][0] for tp in mine if tp in cluster.group.offsets}
        await until(shared_by(second))
        await until(lambda: len(set(first.seen + second.seen)) == 800)
        # Nothing before the last commit of the dead is read again.
        for tp, offset in second.seen:
            if tp in committed:
                assert offset >= committed[tp]
        await second.stop()

    scenario(story)


def test_auto_commit_never_runs_ahead_of_the_caller() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 20)
        async with consumer_of(cluster, auto_commit_interval_ms=100) as consumer:
            consumer.subscribe(["t"])
            got = await consumer.getmany(timeout_ms=30_000, max_records=5)
            [(tp, records)] = got.items()
            await asyncio.sleep(5)
            assert cluster.group.offsets.get(tp, (0, 0, ""))[0] == 0
            await consumer.getmany(TopicPartition("t", (tp.partition + 1) % 4), timeout_ms=1000)
            await asyncio.sleep(1)
            assert cluster.group.offsets[tp][0] == records[-1].offset + 1
            one = await consumer.getone()
            await asyncio.sleep(1)
            assert cluster.group.offsets[TopicPartition(one.topic, one.partition)][0] == one.offset
            two = await consumer.getone()  # The short cut of single records: the one before is processed.
            await asyncio.sleep(1)
            assert (two.partition, two.offset) == (one.partition, one.offset + 1)
            assert cluster.group.offsets[TopicPartition(one.topic, one.partition)][0] == two.offset

    scenario(story)


def test_an_exception_of_the_caller_leaves_its_batch_uncommitted() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 4)

        async def fail() -> None:
            async with consumer_of(cluster) as consumer:
                consumer.subscribe(["t"])
                await consumer.getmany(timeout_ms=30_000, max_records=4)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert {offset for offset, _, _ in cluster.group.offsets.values()} == {0}
        assert cluster.left

    scenario(story)


def test_a_partition_is_given_up_only_when_its_records_are_processed() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 100)
        first = await Worker(cluster).start()
        await until(lambda: len(first.seen) > 8)
        first.limit = 100  # Something of each partition.
        await asyncio.sleep(0.1)
        first.is_stuck = True
        second = await Worker(cluster).start()
        await asyncio.sleep(20)  # Heartbeats go on: nobody is thrown out.
        assert len(cluster.group.members) == 2
        assert not second.seen
        first.is_stuck = False
        await until(shared_by(first, second))
        await until(lambda: len(first.seen) + len(second.seen) >= 400)
        assert len(set(first.seen + second.seen)) == len(first.seen + second.seen) == 400
        await first.stop()
        await second.stop()

    scenario(story)


def test_who_does_not_read_leaves_and_comes_back() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 100)
        worker = await Worker(cluster, max_poll_interval_ms=10_000).start()
        await until(lambda: len(worker.seen) > 8)
        worker.is_stuck = True
        await until(lambda: bool(cluster.left))
        await until(lambda: worker.heard.events[-1] == ("lost", parts(0, 1, 2, 3)))
        with pytest.raises(errors.CommitFailedError, match="did not read in time"):
            await worker.consumer.commit({TopicPartition("t", 0): 3})
        assert "max_poll_interval_ms" in (cluster.reasons[-1] or "")
        worker.is_stuck = False
        await until(shared_by(worker))
        await until(lambda: len(set(worker.seen)) == 400)
        await worker.stop()

    scenario(story)


def test_heartbeats_go_on_while_the_caller_and_the_listener_take_their_time() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)

        class Slow(RebalanceListener):
            async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
                await asyncio.sleep(30)

        async with consumer_of(cluster, session_timeout_ms=6000, heartbeat_interval_ms=1000) as consumer:
            consumer.subscribe(["t"], listener=Slow())
            await consumer.getone()
            await asyncio.sleep(30)
            assert len(cluster.rebalances) == 1
            assert len(cluster.requests(HeartbeatRequest)) > 50

    scenario(story)


def test_a_static_member_restarts_without_a_rebalance() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 1000)
        workers = [await Worker(cluster, group_instance_id=f"i{n}").start() for n in range(4)]
        await until(shared_by(*workers))
        before = {n: worker.consumer.assignment() for n, worker in enumerate(workers)}
        count = len(cluster.rebalances)
        for n in range(4):
            await workers[n].stop()
            await asyncio.sleep(1)
            workers[n] = await Worker(cluster, group_instance_id=f"i{n}").start()
            await until(shared_by(*workers))
        assert {n: worker.consumer.assignment() for n, worker in enumerate(workers)} == before
        assert len(cluster.rebalances) == count
        assert not cluster.left
        for worker in workers:
            await worker.stop()

    scenario(story)


def test_a_duplicate_static_member_is_fenced() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        first = await Worker(cluster, group_instance_id="i").start()
        await until(shared_by(first))
        second = await Worker(cluster, group_instance_id="i").start()
        await until(lambda: bool(first.errors))
        assert isinstance(first.errors[0], FencedInstanceIdError)
        assert first.heard.events[-1] == ("lost", parts(0, 1, 2, 3))
        with pytest.raises(FencedInstanceIdError):
            await first.consumer.getone()
        await until(shared_by(second))
        assert not second.errors
        await first.stop()
        await second.stop()

    scenario(story)


@pytest.mark.parametrize("api", ["join_group", "sync_group", "heartbeat", "offset_commit", "leave_group"])
@pytest.mark.parametrize("fault", [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.UNAVAILABLE, Fault.SLOW])
def test_faults_on_the_way_to_the_coordinator(api: str, fault: Fault) -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 40)
        chance = random.Random(7)
        cluster.hook = lambda name, node, request: (
            fault if name == api and chance.random() < 0.4 else Fault.NONE
        )
        options = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 1000, "auto_commit_interval_ms": 300}
        workers = [await Worker(cluster, **options).start() for _ in range(3)]
        await until(lambda: len({s for w in workers for s in w.seen}) == 160, within_s=600)
        cluster.hook = lambda name, node, request: Fault.NONE
        await until(shared_by(*workers), within_s=600)
        for worker in workers:
            await worker.stop()
        assert cluster.group.offsets.keys() == parts(0, 1, 2, 3)
        assert {offset for offset, _, _ in cluster.group.offsets.values()} == {40}

    scenario(story)


@pytest.mark.parametrize("api", ["join_group", "sync_group", "heartbeat", "offset_commit"])
def test_the_coordinator_dies_in_a_phase_of_the_rebalance(api: str) -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 300)
        workers = [await Worker(cluster).start()]
        await until(lambda: len(workers[0].seen) > 10)

        def die(name: str, node: int, request: Message) -> Fault:
            if name == api and node == 1 and 1 not in cluster.down:
                for tp in cluster.partitions:
                    if cluster.partitions[tp].leader == 1:
                        cluster.elect(tp, 2)
                cluster.kill(1)
                asyncio.get_running_loop().call_later(2, cluster.move_coordinator, 2)
                return Fault.LOSE_REQUEST
            return Fault.NONE

        cluster.hook = die
        workers.append(await Worker(cluster).start())
        await until(lambda: bool(cluster.down))
        await until(shared_by(*workers), within_s=120)
        await until(lambda: len({s for w in workers for s in w.seen}) == 1200, within_s=600)
        for worker in workers:
            assert not worker.errors
            await worker.stop()
        assert Counter(offset for offset, _, _ in cluster.group.offsets.values()) == {300: 4}

    scenario(story)


def test_a_join_is_not_waited_for_at_a_coordinator_that_hangs() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        cluster.hook = lambda name, node, request: (
            Fault.HANG if node == 1 and isinstance(request, JoinGroupRequest) else Fault.NONE
        )
        worker = await Worker(cluster).start()
        await until(lambda: worker.consumer._group is not None and len(cluster.asked) > 3)
        await asyncio.sleep(1)
        cluster.coordinator = 2
        await until(shared_by(worker), within_s=10)
        await worker.stop()

    scenario(story)


def test_growth_and_patterns_are_noticed() -> None:
    async def story(cluster: GroupCluster) -> None:
        cluster.create_topic("logs-a", 1)
        cluster.internal.add("logs-internal")
        cluster.create_topic("logs-internal", 1)
        first = consumer_of(cluster, metadata_max_age_ms=5000)
        second = consumer_of(cluster, metadata_max_age_ms=5000)
        async with first, second:
            first.subscribe(pattern="logs-.*")
            second.subscribe(["t"])
            await until(lambda: first.assignment() == parts(0, topic="logs-a"))
            await until(lambda: second.assignment() == parts(0, 1, 2, 3))
            assert first.subscription() == {"logs-a"}
            cluster.create_topic("logs-b", 2)
            await until(lambda: first.assignment() == parts(0, topic="logs-a") | parts(0, 1, topic="logs-b"))
            cluster.create_topic("t", 6)  # The first four stay what they are to the consumers.
            await until(lambda: second.assignment() == parts(0, 1, 2, 3, 4, 5))

    scenario(story)


def test_subscriptions_change_and_end() -> None:
    async def story(cluster: GroupCluster) -> None:
        cluster.create_topic("u", 1)
        fill(cluster, 4)
        fill(cluster, 4, "u")
        heard = Heard()
        async with consumer_of(cluster) as consumer:
            consumer.subscribe(["t"], listener=heard)
            await until(lambda: consumer.assignment() == parts(0, 1, 2, 3))
            await consumer.getone()
            consumer.subscribe(["u"], listener=heard)
            while consumer.assignment() != parts(0, topic="u"):
                await consumer.getmany(timeout_ms=100)
            assert heard.events[1:3] == [
                ("revoked", parts(0, 1, 2, 3)),
                ("assigned", parts(0, topic="u")),
            ]
            consumer.unsubscribe()
            assert consumer.assignment() == frozenset()
            await until(lambda: cluster.group.state == "Empty")
            assert cluster.left
            consumer.subscribe(["t"])
            await until(lambda: consumer.assignment() == parts(0, 1, 2, 3))

    scenario(story)


def test_manual_commits() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        tp = TopicPartition("t", 0)
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.assign([tp])
            assert await consumer.committed(tp) is None
            for _ in range(3):
                await consumer.getone()
            await consumer.commit()
            assert await consumer.committed(tp) == 3
            await consumer.commit({tp: (5, "half")})
            assert cluster.group.offsets[tp] == (5, -1, "half")
            with pytest.raises(OffsetMetadataTooLargeError):
                await consumer.commit({tp: (6, "x" * 5000)})
            with pytest.raises(ValueError, match="negative"):
                await consumer.commit({tp: -1})
            assert await consumer.seek_to_committed() == {tp: 5}
            assert (await consumer.getone()).offset == 5
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.assign([tp])
            assert (await consumer.getone()).offset == 5
            assert await consumer.position(tp) == 6

    cluster = scenario(story)
    assert cluster.group.offsets[TopicPartition("t", 0)][0] == 5


def test_a_commit_that_is_tried_again_does_not_undo_a_later_one() -> None:
    """Found by the simulation: an automatic commit without an answer went back behind the last one."""

    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        tp = TopicPartition("t", 0)
        refused = 0

        def hook(name: str, node: int, request: Message) -> Fault:
            nonlocal refused
            if isinstance(request, OffsetCommitRequest) and not refused:
                refused += 1
                return Fault.LOSE_REQUEST
            return Fault.NONE

        cluster.hook = hook
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.subscribe(["t"])
            await consumer.getone()
            early = asyncio.ensure_future(consumer.commit({tp: 3, TopicPartition("t", 1): 4}))
            await until(lambda: refused == 1)
            await consumer.commit({tp: 5})
            await early
            assert {tp: offset for tp, (offset, _, _) in cluster.group.offsets.items()} == {
                tp: 5,
                TopicPartition("t", 1): 4,
            }

    scenario(story)


def test_a_commit_in_a_rebalance_does_not_wait_for_what_waits_for_the_caller() -> None:
    """Partitions are given up once the caller is done with them; it is not while it waits for a commit."""

    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 4)
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.subscribe(["t"])
            found: dict[TopicPartition, list[ConsumerRecord]] = {}
            while len(found) < 4:
                found |= await consumer.getmany(timeout_ms=100, max_records=100)
            refused: list[int] = []

            def slow_to_divide(name: str, node: int, request: Message) -> Fault:
                if name == "offset_commit" and cluster.group.state == "CompletingRebalance":
                    refused.append(node)
                return Fault.SLOW if name == "metadata" and len(cluster.group.members) == 2 else Fault.NONE

            cluster.hook = slow_to_divide
            second = await Worker(cluster).start()
            await until(lambda: cluster.group.state == "CompletingRebalance")
            async with asyncio.timeout(20):
                await consumer.commit({tp: records[-1].offset + 1 for tp, records in found.items()})
            assert refused, "the commit did not meet the rebalance"
            assert {tp: cluster.group.offsets[tp][0] for tp in found} == dict.fromkeys(parts(0, 1, 2, 3), 4)
            async with asyncio.timeout(20):
                while len(second.consumer.assignment()) < 2:
                    await consumer.getmany(timeout_ms=100)
            await second.stop()
            assert second.seen == []

    scenario(story)


def test_a_commit_that_is_tried_again_leaves_alone_what_was_given_up() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        is_broken = True

        def hook(name: str, node: int, request: Message) -> Fault:
            is_old = isinstance(request, OffsetCommitRequest) and any(
                part.committed_offset == 1 for topic in request.topics for part in topic.partitions
            )
            return Fault.LOSE_REQUEST if is_old and is_broken else Fault.NONE

        cluster.hook = hook
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.subscribe(["t"])
            await consumer.getone()
            early = asyncio.ensure_future(consumer.commit(dict.fromkeys(parts(0, 1, 2, 3), 1)))
            reading = asyncio.ensure_future(read_on(consumer))
            other = await Worker(cluster, enable_auto_commit=False).start()
            await until(lambda: len(consumer.assignment()) == len(other.consumer.assignment()) == 2)
            theirs = dict.fromkeys(other.consumer.assignment(), 7)
            await other.consumer.commit(theirs)
            is_broken = False
            with pytest.raises(errors.CommitFailedError, match="given up"):
                await early
            assert {tp: offset for tp, (offset, _, _) in cluster.group.offsets.items()} == theirs
            reading.cancel()
            await other.stop()

    scenario(story)


def test_a_commit_that_waited_while_its_partitions_were_lost_fails() -> None:
    """They may be this member's again by then, but others may have committed beyond it."""

    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 4)
        heard = Heard()
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.subscribe(["t"], listener=heard)
            await consumer.getone()
            [first] = cluster.group.members
            is_slow = True

            def slow_to_divide(name: str, node: int, request: Message) -> Fault:
                waits = is_slow and name == "metadata" and len(cluster.group.members) == 2
                return Fault.SLOW if waits else Fault.NONE

            cluster.hook = slow_to_divide
            second = await Worker(cluster).start()
            await until(lambda: cluster.group.state == "CompletingRebalance")
            committing = asyncio.create_task(consumer.commit())
            await asyncio.sleep(0.05)
            assert not committing.done()
            is_slow = False
            cluster.expel(first)
            await second.stop()
            with pytest.raises(errors.CommitFailedError):
                async with asyncio.timeout(30):
                    await committing
            await until(lambda: consumer.assignment() == parts(0, 1, 2, 3))
            assert ("lost", parts(0, 1, 2, 3)) in heard.events

    scenario(story)


async def read_on(consumer: Consumer) -> None:
    while True:
        await consumer.getmany(timeout_ms=200)


def test_a_commit_after_expulsion_fails_and_what_was_owned_is_lost() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)
        heard = Heard()
        async with consumer_of(cluster, enable_auto_commit=False) as consumer:
            consumer.subscribe(["t"], listener=heard)
            await consumer.getone()
            cluster.expel(next(iter(cluster.group.members)))
            with pytest.raises(errors.CommitFailedError) as failure:
                await consumer.commit()
            assert failure.value.code == ErrorCode.ILLEGAL_GENERATION
            assert not failure.value.retriable
            await until(lambda: ("lost", parts(0, 1, 2, 3)) in heard.events)
            await until(lambda: consumer.assignment() == parts(0, 1, 2, 3))
            assert (await consumer.getone()).offset == 0

    scenario(story)


def test_listeners_may_commit_and_seek_and_their_exceptions_reach_the_caller() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 10)

        class Mine(RebalanceListener):
            async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
                assert await consumer.position(TopicPartition("t", 0)) == 0
                for tp in assigned:
                    consumer.seek(tp, 8)

            async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
                await consumer.commit()
                raise ZeroDivisionError

        consumer = consumer_of(cluster, enable_auto_commit=False)
        await consumer.start()
        consumer.subscribe(["t"], listener=Mine())
        assert (await consumer.getone()).offset == 8
        other = await Worker(cluster).start()

        async def read_on() -> None:
            while True:
                await consumer.getmany(timeout_ms=100)

        with pytest.raises(ZeroDivisionError):
            await read_on()
        await consumer.stop()
        assert any(commit.offset > 8 for commit in cluster.commits)
        await other.stop()

    scenario(story)


def test_members_without_a_common_assignor() -> None:
    async def story(cluster: GroupCluster) -> None:
        first = await Worker(cluster, partition_assignment_strategy=["range"]).start()
        await until(shared_by(first))
        second = await Worker(cluster, partition_assignment_strategy=["sticky"]).start()
        await until(lambda: bool(second.errors))
        assert isinstance(second.errors[0], InconsistentGroupProtocolError)
        await second.stop()
        await first.stop()

    scenario(story)


def test_a_member_that_was_away_for_its_session_hands_nothing_out_before_it_is_heard() -> None:
    async def story(cluster: GroupCluster) -> None:
        fill(cluster, 100)
        async with consumer_of(cluster, session_timeout_ms=6000, enable_auto_commit=False) as consumer:
            consumer.subscribe(["t"])
            await consumer.getone()
            cluster.hook = lambda name, node, request: (
                Fault.HANG if name in ("heartbeat", "find_coordinator", "join_group") else Fault.NONE
            )
            await asyncio.sleep(20)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await consumer.getone()
            cluster.hook = lambda name, node, request: Fault.NONE
            await consumer.getone()

    scenario(story)
