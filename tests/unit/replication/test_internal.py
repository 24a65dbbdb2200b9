"""What coordinators rely on: committed appends of their own, and word of every change of role."""

from __future__ import annotations

import asyncio

import pytest

from kafkalite.common import CONSUMER_OFFSETS, LeaderEpoch, TopicPartition
from kafkalite.protocol.errors import (
    ErrorCode,
    NotEnoughReplicasError,
    NotLeaderOrFollowerError,
    RequestTimedOutError,
)
from kafkalite.protocol.produce import ProducePartition, ProduceRequest, ProduceTopic
from kafkalite.protocol.record_batch import decode_batch, encode_batch
from tests.unit.replication.harness import TP, Cluster, run


def batch(value: bytes) -> bytes:
    return bytes(encode_batch([value], keys=[b"k"], timestamps=0))


def test_an_append_is_committed_when_all_in_sync_have_it_and_can_be_read_back() -> None:
    async def main() -> None:
        cluster = Cluster()
        await cluster.start()
        try:
            state = await cluster.create()
            log = cluster[1].manager.internal
            appended = log.append(TP, batch(b"a"), state.leader_epoch)
            assert log.high_watermark(TP) == 0
            await log.committed(appended, timeout_s=10)
            assert log.high_watermark(TP) == log.log_end(TP, state.leader_epoch).required_offset == 1
            found = await log.read(TP, 0, max_bytes=1_000, leader_epoch=state.leader_epoch)
            assert decode_batch(found.records).values == [b"a"]
            cluster[1].has_lease = False
            assert not log.has_lease(TP)
            await log.committed(log.append(TP, batch(b"b"), state.leader_epoch), timeout_s=10)
            cluster.cut(1, 2)
            cluster.cut(1, 3)
            with pytest.raises(RequestTimedOutError):
                await log.committed(log.append(TP, batch(b"c"), state.leader_epoch), timeout_s=1)
        finally:
            await cluster.stop()

    run(main())


def test_an_append_under_another_leader_epoch_or_elsewhere_is_refused() -> None:
    async def main() -> None:
        cluster = Cluster()
        await cluster.start()
        try:
            state = await cluster.create()
            with pytest.raises(NotLeaderOrFollowerError):
                cluster[1].manager.internal.append(TP, batch(b"a"), LeaderEpoch(state.leader_epoch - 1))
            with pytest.raises(NotLeaderOrFollowerError):
                cluster[2].manager.internal.append(TP, batch(b"a"), state.leader_epoch)
            assert cluster[1].log.log_end_offset == 0
            assert cluster[2].manager.internal.known_high_watermark(TP) == 0
            assert cluster[2].manager.internal.known_high_watermark(TopicPartition("elsewhere", 0)) is None
        finally:
            await cluster.stop()

    run(main())


def test_too_few_in_sync() -> None:
    async def main() -> None:
        cluster = Cluster()
        await cluster.start()
        try:
            cluster.cut(1, 2)
            cluster.cut(1, 3)
            state = await cluster.create(isr=(1,))
            with pytest.raises(NotEnoughReplicasError):
                cluster[1].manager.internal.append(TP, batch(b"a"), state.leader_epoch)
        finally:
            await cluster.stop()

    run(main())


def test_every_change_of_role_is_told_in_the_step_that_makes_it() -> None:
    async def main() -> None:
        cluster = Cluster()
        await cluster.start()
        try:
            told: list[tuple[TopicPartition, bool, int]] = []
            cluster[1].manager.internal.on_leadership_change(
                lambda partition, leads, epoch: told.append((partition, leads, epoch))
            )
            first = await cluster.create()
            assert told == [(TP, True, first.leader_epoch)]
            log = cluster[1].manager.internal
            cluster.cut(1, 2)
            cluster.cut(1, 3)
            appended = log.append(TP, batch(b"a"), first.leader_epoch)
            waiting = asyncio.create_task(log.committed(appended, timeout_s=60))
            await asyncio.sleep(0)
            second = await cluster.elect(2)
            assert told[-1] == (TP, False, second.leader_epoch)
            with pytest.raises(NotLeaderOrFollowerError):
                await waiting
            cluster[1].manager.log_dir_failed("/data")
            assert told[-1][1] is False
        finally:
            await cluster.stop()

    run(main())


def test_clients_do_not_write_to_internal_topics() -> None:
    async def main() -> None:
        cluster = Cluster()
        await cluster.start(1)
        try:
            parts = [ProducePartition(index=0, records=memoryview(batch(b"a")))]
            request = ProduceRequest(
                acks=1, timeout_ms=0, topic_data=[ProduceTopic(name=CONSUMER_OFFSETS, partition_data=parts)]
            )
            answer = await cluster[1].manager.produce(request)
            assert answer.responses[0].partition_responses[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
        finally:
            await cluster.stop()

    run(main())
