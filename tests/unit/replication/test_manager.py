"""Replica managers on real logs: what is acknowledged, read, refused, and survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from kafkalite.common import BrokerId, LeaderEpoch, PartitionEpoch, TopicPartition, Uuid
from kafkalite.log.log import UnexpectedOffset
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.fetch import FetchRequest
from kafkalite.protocol.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponsePartition,
    ListOffsetsTopic,
)
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochPartition,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochTopic,
)
from kafkalite.replication.fetcher import fetcher_id_of
from kafkalite.replication.manager import NotRegistered
from tests.unit.replication.harness import TP, Cluster, Node, error_of, run, values_of

Scenario = Callable[[Cluster], Awaitable[None]]


def play(scenario: Scenario, *, cluster: Cluster | None = None, brokers: int = 3) -> None:
    """Run a scenario on a cluster of its own, and end in whatever ended a broker's tasks."""

    async def main() -> None:
        stage = cluster if cluster is not None else Cluster()
        await stage.start(brokers)
        try:
            await scenario(stage)
        finally:
            await stage.stop()

    run(main())


async def list_offset(
    node: Node, timestamp: int, *, replica: int = -1, epoch: int = -1
) -> ListOffsetsResponsePartition:
    response = await node.manager.list_offsets(
        ListOffsetsRequest(
            replica_id=replica,
            topics=[
                ListOffsetsTopic(
                    name=TP.topic,
                    partitions=[
                        ListOffsetsPartition(
                            partition_index=0, timestamp=timestamp, current_leader_epoch=epoch
                        )
                    ],
                )
            ],
        )
    )
    return response.topics[0].partitions[0]


async def epoch_end(node: Node, epoch: int, *, current: int = -1) -> OffsetForLeaderEpochResponsePartition:
    response = await node.manager.offset_for_leader_epoch(
        OffsetForLeaderEpochRequest(
            topics=[
                OffsetForLeaderEpochTopic(
                    topic=TP.topic,
                    partitions=[
                        OffsetForLeaderEpochPartition(
                            partition=0, leader_epoch=epoch, current_leader_epoch=current
                        )
                    ],
                )
            ]
        )
    )
    return response.topics[0].partitions[0]


# ---- produce and fetch ----


def test_records_acknowledged_by_all_are_on_every_replica_and_readable() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        answer = await cluster[1].produce(b"a", b"b")
        assert (answer.error_code, answer.base_offset) == (0, 0)
        for node in cluster.nodes.values():
            assert values_of(node.log) == {0: b"a", 1: b"b"}
        got = await cluster[1].fetch(0)
        assert (got.error_code, got.high_watermark) == (0, 2)
        assert got.records is not None

    play(scenario)


@pytest.mark.parametrize(("acks", "base_offset"), [(0, -1), (1, 0), (-1, 0)])
def test_base_offset_by_acks(acks: int, base_offset: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        answer = await cluster[1].produce(b"a", acks=acks)
        assert (answer.error_code, answer.base_offset) == (0, base_offset)
        assert cluster[1].log.log_end_offset == 1

    play(scenario)


def test_other_acks_are_refused() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        assert (await cluster[1].produce(b"a", acks=2)).error_code == ErrorCode.INVALID_REQUIRED_ACKS
        assert cluster[1].log.log_end_offset == 0

    play(scenario)


def test_who_does_not_lead_says_who_does() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        answer = await cluster[2].produce(b"a")
        assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (answer.current_leader.leader_id, answer.current_leader.leader_epoch) == (1, 0)
        got = await cluster[2].fetch(0)
        assert got.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert got.current_leader.leader_id == 1

    play(scenario)


def test_an_unknown_partition() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        other = TopicPartition("other", 7)
        assert (await cluster[1].produce(b"a", tp=other)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert (await cluster[1].fetch(0, tp=other)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    play(scenario)


def test_too_few_in_sync_before_the_append() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(isr=(1,))
        cluster.cut(1, 2)
        cluster.cut(1, 3)
        answer = await cluster[1].produce(b"a")
        assert answer.error_code == ErrorCode.NOT_ENOUGH_REPLICAS
        assert cluster[1].log.log_end_offset == 0
        assert cluster[1].manager.under_min_isr_partitions == 1
        assert (await cluster[1].produce(b"a", acks=1)).error_code == 0

    play(scenario)


def test_acks_all_times_out_when_a_member_does_not_fetch() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.settle(1.0)
        cluster.cut(1, 3)
        await cluster.settle(1.0)
        answer = await cluster[1].produce(b"a", timeout_ms=2_000)
        assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT
        assert cluster[1].log.high_watermark == 0

    play(scenario)


def test_a_batch_that_is_refused_leaves_no_trace() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        big = bytes(2_000_000)
        assert (await cluster[1].produce(big)).error_code == ErrorCode.MESSAGE_TOO_LARGE
        assert cluster[1].log.log_end_offset == 0
        assert (await cluster[1].produce(b"a")).base_offset == 0

    play(scenario)


def test_a_waiting_fetch_is_woken_by_the_append_and_not_before() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(isr=(1,))
        cluster[1].manager.update_log_config(TP.topic, replace(cluster.log_config, min_insync_replicas=1))
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(cluster[1].fetch(0, max_wait_ms=60_000))
        await asyncio.sleep(5)
        assert not waiting.done()
        before = loop.time()
        await cluster[1].produce(b"a", acks=1)
        got = await waiting
        assert got.records is not None
        assert loop.time() - before < 0.5

    play(scenario)


def test_a_waiting_fetch_ends_with_its_time_and_with_its_caller() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        loop = asyncio.get_running_loop()
        before = loop.time()
        got = await cluster[1].fetch(0, max_wait_ms=3_000)
        assert (got.error_code, len(got.records or b"")) == (0, 0)
        assert loop.time() - before == pytest.approx(3.0)
        waiting = loop.create_task(cluster[1].fetch(0, max_wait_ms=60_000))
        await asyncio.sleep(1)
        delayed = cluster[1].manager.delayed_requests
        waiting.cancel()
        await asyncio.sleep(0)
        assert cluster[1].manager.delayed_requests == delayed - 1

    play(scenario)


def test_min_bytes_is_waited_for() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(cluster[1].fetch(0, max_wait_ms=60_000, min_bytes=400))
        for _ in range(3):
            await cluster[1].produce(bytes(50))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        await cluster[1].produce(bytes(50))
        got = await waiting
        assert len(got.records or b"") >= 400

    play(scenario)


def test_consumers_read_below_the_high_watermark_only() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        cluster.cut(1, 2)
        cluster.cut(1, 3)
        await cluster.settle(1.0)
        await cluster[1].produce(b"b", acks=1)
        got = await cluster[1].fetch(0)
        assert (got.high_watermark, cluster[1].log.log_end_offset) == (1, 2)
        empty = await cluster[1].fetch(1)
        assert (empty.error_code, len(empty.records or b"")) == (0, 0)

    play(scenario)


@pytest.mark.parametrize("offset", [-1, 2])
def test_out_of_range(offset: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        assert (await cluster[1].fetch(offset)).error_code == ErrorCode.OFFSET_OUT_OF_RANGE

    play(scenario)


def test_records_that_are_not_in_memory_are_read_off_the_loop() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        cluster[1].disk.is_cold = True
        got = await cluster[1].fetch(0)
        assert (got.error_code, got.records is not None and len(got.records) > 0) == (0, True)

    play(scenario)


def test_max_bytes_holds_for_the_whole_answer_but_for_one_batch() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        for _ in range(3):
            await cluster[1].produce(bytes(100))
        one = await cluster[1].fetch(0, max_bytes=1)
        size = len(one.records or b"")
        assert size > 100
        two = await cluster[1].fetch(0, max_bytes=2 * size)
        assert len(two.records or b"") == 2 * size

    play(scenario)


def test_followers_fetch_in_sessions_and_name_only_what_has_changed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        await cluster.settle(5.0)
        fetches = cluster[2].channel.fetches
        assert fetches[0].session_epoch == 0
        assert len(fetches[0].topics[0].partitions) == 1
        idle = fetches[-3:]
        assert len({fetch.session_id for fetch in idle}) == 1
        assert [fetch.session_epoch - idle[0].session_epoch for fetch in idle] == [0, 1, 2]
        assert [fetch.topics for fetch in idle] == [[], [], []]
        # Reports all the same: the follower stays in the ISR for longer than its allowed lag.
        await cluster.settle(60.0)
        assert cluster.zk.state().isr == (1, 2, 3)
        # A new leader life has no session; the fetcher is told so and fetches in full at once.
        before = len(fetches)
        cluster[1].manager._sessions._sessions.clear()
        await cluster[1].produce(b"b", acks=1)
        await cluster.settle(1.0)
        assert cluster[2].log.log_end_offset == 2
        assert 0 in [fetch.session_epoch for fetch in fetches[before:]]

    play(scenario)


def test_an_incremental_fetch_is_told_that_there_is_no_session() -> None:
    async def scenario(cluster: Cluster) -> None:
        request = FetchRequest(max_wait_ms=0, min_bytes=0, session_id=5, session_epoch=1, topics=[])
        response = await cluster[1].manager.fetch(request)
        assert response.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        full = await cluster[1].manager.fetch(
            FetchRequest(max_wait_ms=0, min_bytes=0, session_id=0, session_epoch=0, topics=[])
        )
        assert (full.error_code, full.session_id) == (0, 0)

    play(scenario)


def test_list_offsets() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a", b"b")
        node = cluster[1]
        assert (await list_offset(node, -1)).offset == 2
        assert (await list_offset(node, -2)).offset == 0
        assert (await list_offset(node, 1_700_000_000_000)).offset == 0
        assert (await list_offset(node, 1_700_000_000_001)).offset == -1
        assert (await list_offset(node, -5)).offset == -1
        assert (await list_offset(node, -9)).error_code == ErrorCode.INVALID_REQUEST
        assert (await list_offset(node, -1, epoch=1)).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
        assert (await list_offset(cluster[2], -1)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    play(scenario)


def test_the_end_is_not_told_while_a_new_leader_does_not_know_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        await cluster[1].crash()
        cluster.cut(2, 3)
        await cluster.elect(2, isr=(2, 3), tell=[2])
        assert cluster[2].log.high_watermark < cluster[2].log.log_end_offset
        assert (await list_offset(cluster[2], -1)).error_code == ErrorCode.OFFSET_NOT_AVAILABLE
        assert (await list_offset(cluster[2], -1, replica=3)).offset == 1

    play(scenario)


def test_where_epochs_ended() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        await cluster.elect(1)
        await cluster[1].produce(b"b", b"c")
        first = await epoch_end(cluster[1], 0)
        assert (first.leader_epoch, first.end_offset) == (0, 1)
        last = await epoch_end(cluster[1], 1, current=1)
        assert (last.leader_epoch, last.end_offset) == (1, 3)
        assert (await epoch_end(cluster[1], 2)).end_offset == -1
        assert (await epoch_end(cluster[1], 0, current=0)).error_code == ErrorCode.FENCED_LEADER_EPOCH

    play(scenario)


# ---- the lease, frozen and deposed leaders ----


@pytest.mark.parametrize(("acks", "error"), [(0, 6), (1, 6), (-1, 0)])
def test_without_a_lease_only_acks_all_is_acknowledged(acks: int, error: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        cluster[1].has_lease = False
        assert (await cluster[1].produce(b"a", acks=acks)).error_code == error
        cluster[1].has_lease = True  # (a) The same session answered again.
        assert (await cluster[1].produce(b"b", acks=acks)).error_code == 0

    play(scenario)


def test_a_leader_that_may_have_a_successor_sends_no_consumer_back_to_the_beginning() -> None:
    """Found by the simulation: stopped for long, then asked by a consumer that had read on elsewhere."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        node = cluster[1]
        await node.produce(b"a")
        node.has_lease = False
        assert (await node.fetch(2)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (await node.fetch(-1)).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        assert (await node.fetch(0)).error_code == ErrorCode.NONE
        assert (await epoch_end(node, 7)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (await epoch_end(node, 0)).end_offset == 1
        node.has_lease = True
        assert (await epoch_end(node, 7)).end_offset == -1
        node.lose_session()
        assert (await node.fetch(2)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        node.open_session()  # With a lease, but not confirmed.
        assert (await node.fetch(2)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    play(scenario)


def test_a_lease_that_runs_out_during_the_append_is_noticed_at_the_answer() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        node = cluster[1]
        append = node.log.append_as_leader

        def slow(*args: object, **kwargs: object) -> object:
            node.has_lease = False  # The disk took longer than the lease.
            return append(*args, **kwargs)  # type: ignore[arg-type]

        node.log.append_as_leader = slow  # type: ignore[assignment, method-assign]
        answer = await node.produce(b"a", acks=1)
        assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert node.log.log_end_offset == 1  # It was appended; it was not acknowledged.

    play(scenario)


@pytest.mark.parametrize("version_step", [-1, 0, 1])
def test_a_new_session_lifts_the_freeze_by_a_confirmation(version_step: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        node = cluster[1]
        node.lose_session()
        assert (await node.produce(b"a", acks=1)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert node.manager.frozen_partitions == 1
        node.open_session()  # Registered and with a lease, but not confirmed.
        assert (await node.produce(b"a", acks=1)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (await node.produce(b"a")).error_code == 0  # acks=all needs neither.
        shown = replace(state, partition_epoch=PartitionEpoch(state.partition_epoch + version_step))
        assert error_of(await node.instruct(shown)) == 0
        assert (await node.produce(b"b", acks=1)).error_code == 0
        assert node.partition.partition_epoch == max(state.partition_epoch, shown.partition_epoch)
        assert [event["leader_epoch"] for event in node.events("PartitionUnfrozen")] == [0]

    play(scenario)


def test_what_does_not_lift_a_freeze() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        node = cluster[1]
        old_life = cluster.zk.registrations[BrokerId(1)]
        node.lose_session()
        with pytest.raises(NotRegistered):  # No life without an epoch.
            await node.instruct(state, broker_epoch=old_life)
        node.open_session()
        answer = await node.instruct(state, broker_epoch=old_life)
        assert answer.error_code == ErrorCode.STALE_BROKER_EPOCH
        assert error_of(await node.instruct(state, broker_epoch=-1)) == 0  # To no life in particular.
        other_leader = replace(state, leader=BrokerId(2))
        assert error_of(await node.instruct(other_leader)) == ErrorCode.STALE_CONTROLLER_EPOCH
        older = replace(state, leader_epoch=LeaderEpoch(-1))
        assert error_of(await node.instruct(older)) == ErrorCode.STALE_CONTROLLER_EPOCH
        assert node.partition.is_frozen

    play(scenario)


def test_a_stale_controller_is_refused() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        assert error_of(await cluster[1].instruct(state, controller_epoch=5)) == 0
        stale = await cluster[1].instruct(state, controller_epoch=4)
        assert stale.error_code == ErrorCode.STALE_CONTROLLER_EPOCH

    play(scenario)


def test_no_isr_change_without_a_lease() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.settle()
        cluster.cut(1, 3)
        await cluster[1].produce(b"a", acks=1)
        cluster[1].has_lease = False
        await cluster.settle(60)
        assert cluster[1].store.writes == []
        cluster[1].has_lease = True
        await cluster.eventually(lambda: cluster.zk.state().isr == (1, 2))

    play(scenario)


def test_a_deposed_leader_acknowledges_nothing_not_even_what_waits() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        cluster.cut(1, 3)
        await cluster.settle(1.0)
        waiting = asyncio.get_running_loop().create_task(cluster[1].produce(b"b", timeout_ms=120_000))
        # The controller elects 2 and cannot reach 1, which still serves 2's last fetches.
        await cluster.elect(2, isr=(2, 3), tell=[3])
        answer = await waiting
        assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert cluster[1].events("LeaderDeposed")
        high_watermark = cluster[1].log.high_watermark
        for acks in (0, 1, -1):
            refused = await cluster[1].produce(b"c", acks=acks)
            assert refused.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        writes = len(cluster[1].store.writes)
        cluster.heal()
        await cluster.settle(60)
        assert cluster[1].log.high_watermark == high_watermark
        assert len(cluster[1].store.writes) == writes

    play(scenario)


# ---- the ISR ----


def test_a_replica_that_lags_leaves_and_joins_again() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.settle(1.0)
        cluster.cut(1, 3)
        await cluster.settle(100)
        assert cluster.zk.state().isr == (1, 2, 3)  # It has all there is.
        answer = await cluster[1].produce(b"a", timeout_ms=120_000)
        assert answer.error_code == 0
        assert cluster.zk.state().isr == (1, 2)
        assert cluster[1].manager.under_replicated_partitions == 1
        cluster.heal()
        await cluster.eventually(lambda: cluster.zk.state().isr == (1, 2, 3))
        assert values_of(cluster[3].log) == {0: b"a"}
        manager = cluster[1].manager
        assert (manager.isr_shrinks_total, manager.isr_expands_total) == (1, 1)
        assert manager.under_replicated_partitions == 0
        await cluster.eventually(lambda: cluster[1].store.notified == [[TP]])
        assert [event["isr"] for event in cluster[1].events("IsrShrunk")] == [[1, 2]]
        assert [event["isr"] for event in cluster[1].events("IsrExpanded")] == [[1, 2, 3]]

    play(scenario)


def test_a_lost_answer_is_read_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(isr=(1, 2))
        cluster[1].fate.lose_isr_answer = True
        await cluster.eventually(lambda: cluster.zk.state().isr == (1, 2, 3))
        await cluster.eventually(lambda: cluster[1].partition.isr == (1, 2, 3))
        assert cluster[1].partition.partition_epoch == cluster.zk.state().partition_epoch
        assert not cluster[1].partition.is_deposed

    play(scenario)


def test_a_lost_request_is_read_back_and_proposed_anew() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(isr=(1, 2))
        cluster[1].fate.lose_isr_request = True
        await cluster.eventually(lambda: bool(cluster[1].events("IsrChangeDropped")))
        assert cluster[1].partition.isr == (1, 2)
        cluster[1].fate.lose_isr_request = False
        await cluster.eventually(lambda: cluster.zk.state().isr == (1, 2, 3))

    play(scenario)


def test_the_write_of_a_lost_session_stays_pending_until_the_next_one_reads_it_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create(isr=(1, 2))
        node = cluster[1]
        node.fate.hold_isr = asyncio.Event()
        await cluster.eventually(lambda: node.partition.change is not None)
        node.lose_session()
        node.fate.hold_isr.set()
        await cluster.settle(30)
        assert node.partition.change is not None
        assert node.partition.counted == {1, 2, 3}
        assert len(node.events("IsrChangePending")) == 1
        node.fate.hold_isr = None
        node.open_session()
        await node.instruct(state)
        await cluster.eventually(lambda: cluster.zk.state().isr == (1, 2, 3))

    play(scenario)


def test_a_restarted_candidate_joins_only_as_the_life_that_caught_up() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(isr=(1, 2))
        node = cluster[1]
        node.fate.hold_isr = asyncio.Event()
        await cluster.eventually(lambda: node.partition.change is not None)
        # 3 bounces while the write is under way; a fetch of its old life had caught up.
        cluster.zk.register(BrokerId(3))
        node.fate.hold_isr.set()
        await cluster.eventually(lambda: bool(node.events("IsrChangeDropped")))
        assert cluster.zk.state().isr == (1, 2)

    play(scenario)


def test_a_fault_in_isr_code_comes_out_of_run() -> None:
    async def main() -> None:
        cluster = Cluster()
        await cluster.start()
        node = cluster[1]

        async def broken(change: object) -> object:
            raise ValueError("a bug")

        node.store.write = broken  # type: ignore[assignment, method-assign]
        await cluster.create(isr=(1, 2))
        await asyncio.sleep(2)
        with pytest.raises(BaseExceptionGroup):
            node.check_runs()
        for other in (2, 3):
            await cluster[other].crash()

    run(main())


# ---- fetches know which life they are from ----


def test_a_fetch_of_an_earlier_life_changes_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        cluster.cut(1, 2)
        await cluster[1].produce(b"a", acks=1)
        assert (await cluster[1].fetch(0, replica=2, life=900, epoch=0)).error_code == 0
        before = cluster[1].partition.followers[BrokerId(2)].log_end_offset
        stale = await cluster[1].fetch(1, replica=2, life=899, epoch=0)
        assert stale.error_code == ErrorCode.STALE_BROKER_EPOCH
        assert cluster[1].partition.followers[BrokerId(2)].log_end_offset == before == 0

    play(scenario)


@pytest.mark.parametrize(
    ("epoch", "error"),
    [(0, ErrorCode.FENCED_LEADER_EPOCH), (1, ErrorCode.NONE), (2, ErrorCode.UNKNOWN_LEADER_EPOCH)],
)
def test_fetches_are_fenced_by_leader_epoch(epoch: int, error: ErrorCode) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.elect(1)
        assert (await cluster[1].fetch(0, replica=2, life=900, epoch=epoch)).error_code == error

    play(scenario)


def test_a_broker_that_is_no_replica_is_behind_or_the_leader_is() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        assert (await cluster[1].fetch(0, replica=9, epoch=0)).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
        assert (await cluster[1].fetch(0, replica=9)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    play(scenario)


# ---- leadership changes ----


def test_a_change_of_leader_answers_what_waits() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        cluster.cut(1, 3)
        await cluster.settle(1.0)
        loop = asyncio.get_running_loop()
        produce = loop.create_task(cluster[1].produce(b"a", timeout_ms=60_000))
        fetch = loop.create_task(cluster[1].fetch(0, max_wait_ms=60_000))
        await asyncio.sleep(0.5)
        assert not produce.done()
        await cluster.elect(2)
        assert (await produce).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        answer = await fetch
        assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (answer.current_leader.leader_id, answer.current_leader.leader_epoch) == (2, 1)

    play(scenario)


def test_a_deposed_leaders_tail_is_cut_with_a_receipt() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        cluster.cut(1, 2)
        cluster.cut(1, 3)
        await cluster.settle(1.0)
        await cluster[1].produce(b"lost", b"lost too", acks=1)
        await cluster.elect(2, isr=(2, 3), tell=[2, 3])
        assert (await cluster[2].produce(b"b")).base_offset == 1
        cluster.heal()
        await cluster.tell(cluster.zk.state(), to=[1])
        await cluster.eventually(lambda: values_of(cluster[1].log) == {0: b"a", 1: b"b"})
        lost = cluster[1].events("RecordsLost")
        assert [(event["first_offset"], event["last_offset"], event["epochs"]) for event in lost] == [
            (1, 2, [0])
        ]
        receipt = json.loads(cluster[1].disk.read("/data/loss-receipts.jsonl"))
        assert (receipt["first_offset"], receipt["last_offset"], receipt["leader_epoch"]) == (1, 2, 0)
        trace = [
            step for step in cluster[1].disk.trace if "loss-receipts" in step[1] or step[0] == "truncate"
        ]
        assert [step[0] for step in trace] == ["create", "write", "fsync", "truncate"]
        await cluster.eventually(lambda: cluster.zk.state().isr == (2, 3, 1))

    play(scenario)


def test_a_follower_before_its_leaders_start_begins_anew() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        cluster.cut(1, 3)
        for value in (b"b", b"c", b"d"):
            assert (await cluster[1].produce(value, timeout_ms=120_000)).error_code == 0
        cluster[1].log.raise_log_start_offset(3)
        cluster.heal()
        await cluster.eventually(lambda: values_of(cluster[3].log) == {3: b"d"})
        assert cluster[3].log.log_start_offset == 3

    play(scenario)


def test_with_no_leader_known_the_epoch_is_taken_and_nothing_fetched() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.settle(1.0)
        await cluster.elect(-1, tell=[3])
        await cluster.settle(1.0)
        fetches = len(cluster[3].channel.fetches)
        await cluster.settle(5.0)
        assert len(cluster[3].channel.fetches) == fetches
        assert cluster[3].partition.leader_epoch == 1

    play(scenario)


def test_followers_learn_the_high_watermark_and_keep_it_over_a_restart() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        await cluster.settle(6.0)  # The checkpoint is written every 5 s.
        assert cluster[2].log.high_watermark == 1
        await cluster[2].crash()
        await cluster[2].start()
        assert cluster[2].log.high_watermark == 1

    play(scenario)


def test_a_fetch_carries_the_broker_epoch_and_the_last_fetched_epoch() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        await cluster.settle(1.0)
        # In a session, a fetch names only what has changed.
        request = [fetch for fetch in cluster[2].channel.fetches if fetch.topics][-1]
        assert request.replica_state.replica_id == 2
        assert request.replica_state.replica_epoch == cluster.zk.registrations[BrokerId(2)]
        assert request.topics[0].partitions[0].last_fetched_epoch == 0
        assert request.topics[0].partitions[0].current_leader_epoch == 0

    play(scenario)


# ---- instructions ----


def test_topic_ids_are_checked() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        other = Uuid("AAAAAAAAAAAAAAAAAAAAAQ")
        newer = replace(state, leader_epoch=LeaderEpoch(1), partition_epoch=PartitionEpoch(9))
        assert error_of(await cluster[1].instruct(newer, topic_id=other)) == ErrorCode.INCONSISTENT_TOPIC_ID
        assert cluster[1].partition.leader_epoch == 0

    play(scenario)


def test_a_broker_that_is_not_a_replica_refuses() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        newer = replace(state, leader_epoch=LeaderEpoch(1))
        answer = await cluster[1].instruct(newer, replicas=(2, 3))
        assert error_of(answer) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    play(scenario)


@pytest.mark.parametrize(("leader_epoch", "error"), [(-1, 0), (-2, 0), (1, 0), (0, 74)])
def test_stop_replica_is_fenced_by_leader_epoch(leader_epoch: int, error: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.elect(1)
        waiting = asyncio.get_running_loop().create_task(cluster[1].fetch(0, max_wait_ms=60_000))
        await asyncio.sleep(0.1)
        response = await cluster[1].stop_replica(leader_epoch=leader_epoch, delete=True)
        assert response.partition_errors[0].error_code == error
        assert (cluster[1].manager.partition(TP) is None) == (error == 0)
        assert (cluster[1].logs.log(TP) is None) == (error == 0)
        if error == 0:
            assert (await waiting).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert cluster[1].manager.partition_count == 0
        waiting.cancel()

    play(scenario)


def test_a_stopped_replica_keeps_its_log_unless_told_otherwise() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a")
        await cluster[3].stop_replica(leader_epoch=0)
        assert cluster[3].log.log_end_offset == 1
        fetches = len(cluster[3].channel.fetches)
        await cluster.settle(5.0)
        assert len(cluster[3].channel.fetches) <= fetches + 1  # The one that was under way.

    play(scenario)


# ---- failing disks ----


def test_a_failing_disk_takes_the_partition_offline() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        await cluster.settle(1.0)
        cluster[1].disk.fail("write", "*.log")
        answer = await cluster[1].produce(b"a")
        assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR
        assert cluster[1].manager.offline_replica_count == 1
        assert (await cluster[1].fetch(0)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        newer = replace(state, leader_epoch=LeaderEpoch(1), partition_epoch=PartitionEpoch(9))
        assert error_of(await cluster[1].instruct(newer)) == ErrorCode.KAFKA_STORAGE_ERROR
        assert cluster[1].events("PartitionOffline")
        assert cluster[2].manager.offline_replica_count == 0

    play(scenario)


def test_a_failing_disk_of_a_follower_stops_its_fetching() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster.settle(1.0)
        cluster[3].disk.fail("write", "*.log")
        await cluster[1].produce(b"a", acks=1)
        await cluster.settle(2.0)
        assert cluster[3].manager.offline_replica_count == 1
        fetches = len(cluster[3].channel.fetches)
        await cluster.settle(5.0)
        assert len(cluster[3].channel.fetches) == fetches
        await cluster.eventually(lambda: cluster.zk.state().isr == (1, 2))

    play(scenario)


def test_a_partition_that_cannot_be_opened_is_offline() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster[3].disk.fail("mkdir", "*orders-0*")
        state = await cluster.create()
        assert cluster[3].manager.offline_replica_count == 1
        assert error_of(await cluster[3].instruct(state)) == ErrorCode.KAFKA_STORAGE_ERROR

    play(scenario)


def test_a_bug_in_one_partitions_work_leaves_the_broker_running() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        node = cluster[3]

        def broken(records: object) -> object:
            raise ZeroDivisionError("a bug")

        node.log.append_as_follower = broken  # type: ignore[assignment, method-assign]
        await cluster[1].produce(b"a", acks=1)
        await cluster.settle(2.0)
        assert node.failed == [TP]
        assert node.manager.offline_replica_count == 1
        assert "ZeroDivisionError" in node.events("PartitionFailed")[0]["error"]

    play(scenario)


def test_what_a_follower_gave_up_is_tried_again_after_a_confirmation() -> None:
    async def scenario(cluster: Cluster) -> None:
        state = await cluster.create()
        node = cluster[3]
        append = node.log.append_as_follower

        def unexpected(records: object) -> object:
            raise UnexpectedOffset(TP, first_offset=5, last_offset=6, expected=0)

        node.log.append_as_follower = unexpected  # type: ignore[assignment, method-assign]
        await cluster[1].produce(b"a", acks=1)
        await cluster.eventually(lambda: node.manager.failed_follower_partitions == 1)
        assert node.events("ReplicationFailed")
        node.log.append_as_follower = append  # type: ignore[method-assign]
        await cluster.settle(10)
        assert node.log.log_end_offset == 0
        await node.instruct(state)
        await cluster.eventually(lambda: values_of(node.log) == {0: b"a"})

    play(scenario)


# ---- small things ----


def test_counters() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create()
        await cluster[1].produce(b"a", b"b")
        await cluster[1].produce(b"c", acks=7)
        got = await cluster[1].fetch(0)
        counters = cluster[1].manager.topic_counters[TP.topic]
        size = len(got.records or b"")
        assert (counters.messages_in, counters.bytes_in, counters.bytes_out) == (2, size, size)
        assert counters.replication_bytes_out == 2 * size
        assert cluster[2].manager.topic_counters[TP.topic].replication_bytes_in == size
        assert (cluster[1].manager.leader_count, cluster[2].manager.leader_count) == (1, 0)
        assert cluster[1].manager.at_min_isr_partitions == 0

    play(scenario)


@pytest.mark.parametrize(
    ("topic", "partition", "fetchers", "expected"),
    [
        ("orders", 0, 1, 0),
        # "a".hashCode() is 97: 31 * 97 + 2 = 3009.
        ("a", 2, 10, 9),
        # "polygenelubricants".hashCode() is -2147483648; times 31 it is that again, modulo 2^32.
        ("polygenelubricants", 0, 7, 2147483648 % 7),
    ],
)
def test_partitions_are_spread_over_fetchers_as_in_kafka(
    topic: str, partition: int, fetchers: int, expected: int
) -> None:
    assert fetcher_id_of(TopicPartition(topic, partition), fetchers) == expected
