"""The coordinator at work: writing, waiting, loading, taking over; on a log in memory, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from kafkalite.common import TopicPartition
from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.group.records import OffsetKey, OffsetValue, Record
from kafkalite.protocol.delete_groups import DeleteGroupsRequest
from kafkalite.protocol.describe_groups import DescribeGroupsRequest
from kafkalite.protocol.errors import (
    CoordinatorNotAvailableError,
    ErrorCode,
    InvalidGroupIdError,
    InvalidReplicationFactorError,
    KafkaStorageError,
    MessageTooLargeError,
    NotEnoughReplicasError,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupMember, LeaveGroupRequest
from kafkalite.protocol.list_groups import ListGroupsRequest
from kafkalite.protocol.record_batch import decode_batch, encode_batch, patch_header
from tests.simulation.loop import run_virtual
from tests.unit.coordinator.harness import ORDERS, Broker, World, commit_request, world

E = ErrorCode


def heartbeat(joined: JoinGroupResponse, group: str = "g") -> HeartbeatRequest:
    return HeartbeatRequest(group_id=group, generation_id=joined.generation_id, member_id=joined.member_id)


async def stable(broker: Broker) -> JoinGroupResponse:
    """A group of one member that has its assignment."""
    joined = await broker.enter()
    assert joined.error_code == E.NONE
    synced = await broker.sync(joined, {joined.member_id: b"mine"})
    assert (synced.error_code, synced.assignment) == (E.NONE, b"mine")
    return joined


# ---- writing ----


def test_a_commit_is_acknowledged_and_visible_only_when_it_is_replicated() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            made.partition.is_replicating = False
            commit = asyncio.create_task(broker.commit(5))
            await asyncio.sleep(1)
            assert not commit.done()
            assert await broker.committed() == (E.NONE, None)
            made.partition.replicate()
            assert await commit == E.NONE
            assert await broker.committed() == (E.NONE, 5)

    run_virtual(main())


def test_a_commit_that_timed_out_counts_once_it_is_replicated_all_the_same() -> None:
    """What the next coordinator would find in the log, this one shows as well."""

    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            made.partition.is_replicating = False
            assert await broker.commit(5) == E.COORDINATOR_NOT_AVAILABLE
            assert await broker.committed() == (E.NONE, None)
            made.partition.replicate()
            assert await broker.committed() == (E.NONE, 5)

    run_virtual(main())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotEnoughReplicasError("one in sync"), E.COORDINATOR_NOT_AVAILABLE),
        (KafkaStorageError("a disk"), E.NOT_COORDINATOR),
        (MessageTooLargeError("large"), E.INVALID_COMMIT_OFFSET_SIZE),
    ],
)
def test_what_a_refused_append_is_to_a_committer(error: Exception, code: ErrorCode) -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            made.partition.refuses = error  # type: ignore[assignment]
            assert await broker.commit(5) == code
            made.partition.refuses = None
            assert await broker.committed() == (E.NONE, None)

    run_virtual(main())


def test_commits_of_one_turn_share_a_batch() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            codes = await asyncio.gather(*(broker.commit(n, group=f"g{n}") for n in range(50)))
            assert set(codes) == {E.NONE}
            assert len(made.partition.batches) == 1
            columns = decode_batch(made.partition.batches[0][1])
            assert len(columns) == 50
            assert columns.keys is not None
            assert None not in columns.keys

    run_virtual(main())


def test_a_refused_assignment_goes_to_all_who_wait_and_the_group_begins_again() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            joined = await broker.enter()
            made.partition.refuses = NotEnoughReplicasError("one in sync")
            synced = await broker.sync(joined, {joined.member_id: b"mine"})
            assert synced.error_code == E.COORDINATOR_NOT_AVAILABLE
            assert broker.groups.heartbeat(heartbeat(joined)).error_code == E.REBALANCE_IN_PROGRESS
            made.partition.refuses = None
            again = await broker.join(joined.member_id)
            assert (again.error_code, again.generation_id) == (E.NONE, 2)

    run_virtual(main())


# ---- taking over ----


def test_the_next_coordinator_knows_members_assignment_and_offsets() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            first, second = made.brokers[1], made.brokers[2]
            joined = await stable(first)
            assert await first.commit(5, generation=1, member=joined.member_id) == E.NONE
            assert await second.commit(6) == E.NOT_COORDINATOR
            await made.elect(2)
            assert await first.commit(6, generation=1, member=joined.member_id) == E.NOT_COORDINATOR
            assert await second.committed() == (E.NONE, 5)
            assert second.groups.heartbeat(heartbeat(joined)).error_code == E.NONE
            assert (await second.sync(joined)).assignment == b"mine"
            assert await second.commit(6, generation=1, member=joined.member_id) == E.NONE
            await made.elect(1)
            assert await first.committed() == (E.NONE, 6)

    run_virtual(main())


def test_joins_and_syncs_that_wait_are_sent_to_the_next_coordinator() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            first = made.brokers[1]
            joined = await stable(first)
            pending = await first.join()
            waiting = asyncio.create_task(first.join(pending.member_id))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await made.elect(2)
            assert (await waiting).error_code == E.NOT_COORDINATOR
            await made.elect(1)

            again = asyncio.create_task(first.join(joined.member_id))
            await asyncio.sleep(0)
            generation = await again
            made.partition.is_replicating = False
            syncing = asyncio.create_task(first.sync(generation, {generation.member_id: b"new"}))
            await asyncio.sleep(0.1)
            assert not syncing.done()
            made.partition.is_replicating = True
            await made.elect(2)
            assert (await syncing).error_code == E.NOT_COORDINATOR

    run_virtual(main())


def test_a_commit_under_way_when_the_leadership_ends_is_not_acknowledged() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            first, second = made.brokers[1], made.brokers[2]
            assert await first.commit(5) == E.NONE
            made.partition.is_replicating = False
            commit = asyncio.create_task(first.commit(6))
            await asyncio.sleep(0.1)
            made.partition.batches.pop()  # The next leader never had it.
            made.partition.is_replicating = True
            await made.elect(2)
            assert await commit == E.NOT_COORDINATOR
            assert await second.committed() == (E.NONE, 5)

    run_virtual(main())


def test_while_a_partition_is_loaded_clients_wait() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            joined = await stable(made.brokers[1])
            second = made.brokers[2]
            made.partition.is_readable.clear()
            await made.elect(2)
            await asyncio.sleep(0.1)
            assert (await second.join()).error_code == E.COORDINATOR_LOAD_IN_PROGRESS
            assert (await second.sync(joined)).error_code == E.REBALANCE_IN_PROGRESS
            assert second.groups.heartbeat(heartbeat(joined)).error_code == E.NONE
            assert await second.commit(1) == E.COORDINATOR_LOAD_IN_PROGRESS
            assert await second.committed() == (E.COORDINATOR_LOAD_IN_PROGRESS, None)
            assert second.groups.list_groups(ListGroupsRequest()).error_code == E.COORDINATOR_LOAD_IN_PROGRESS
            made.partition.is_readable.set()
            await second.until("GroupCoordinatorLoaded")
            assert (await second.sync(joined)).assignment == b"mine"

    run_virtual(main())


def test_what_is_loaded_is_shown_only_when_it_is_committed() -> None:
    """The last leader's uncommitted records may still be lost with this one."""

    async def main() -> None:
        async with world(brokers=2) as made:
            made.partition.is_replicating = False
            commit = asyncio.create_task(made.brokers[1].commit(5))
            await asyncio.sleep(0.1)
            await made.elect(2)
            assert await commit == E.NOT_COORDINATOR
            await asyncio.sleep(100)
            assert await made.brokers[2].committed() == (E.COORDINATOR_LOAD_IN_PROGRESS, None)
            made.partition.replicate()
            await made.brokers[2].until("GroupCoordinatorLoaded")
            assert await made.brokers[2].committed() == (E.NONE, 5)

    run_virtual(main())


def test_a_leadership_that_ends_while_it_is_loaded_leaves_nothing() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            assert await made.brokers[1].commit(5) == E.NONE
            made.partition.is_readable.clear()
            await made.elect(2)
            await asyncio.sleep(0.1)
            await made.elect(None)
            made.partition.is_readable.set()
            await asyncio.sleep(1)
            assert not made.brokers[2].events("GroupCoordinatorLoaded")
            assert not made.brokers[2].events("GroupCoordinatorFailed")
            assert await made.brokers[2].commit(6) == E.NOT_COORDINATOR

    run_virtual(main())


def test_unreadable_records_are_left_out_and_told() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            assert await made.brokers[1].commit(5) == E.NONE
            partition = made.partition
            bad = encode_batch([b"\xc1", b"v"], keys=[b"\x93\x01\xa1g\xa1t", b"\x92\x09\xa1g"], timestamps=0)
            partition.batches.append(
                (partition.end + 2, patch_header(bad, base_offset=1, leader_epoch=1) + bad[61:])
            )
            damaged = bytearray(partition.batches[0][1])
            damaged[-1] ^= 1
            partition.batches.append((partition.end + 1, bytes(damaged)))
            await made.elect(2)
            assert await made.brokers[2].committed() == (E.NONE, 5)
            told = made.brokers[2].events("GroupRecordsUnreadable")
            # The key without a partition and the damaged batch; a key of a newer kind is no fault.
            assert [event.facts["count"] for event in told] == [2]

    run_virtual(main())


def test_without_the_lease_offsets_are_not_shown_but_commits_go_on() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            assert await broker.commit(5) == E.NONE
            made.partition.has_lease = False
            assert await broker.committed() == (E.COORDINATOR_NOT_AVAILABLE, None)
            assert await broker.commit(6) == E.NONE
            made.partition.has_lease = True
            assert await broker.committed() == (E.NONE, 6)

    run_virtual(main())


# ---- time ----


def test_a_silent_member_is_removed_when_its_session_ends_and_not_before() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            joined = await stable(broker)
            for _ in range(5):
                await asyncio.sleep(9)
                assert broker.groups.heartbeat(heartbeat(joined)).error_code == E.NONE
            await asyncio.sleep(10.1)
            assert broker.groups.heartbeat(heartbeat(joined)).error_code == E.UNKNOWN_MEMBER_ID
            expired = broker.events("GroupMemberExpired")
            started = broker.events("GroupRebalanceStarted")
            assert [event.facts["member"] for event in expired] == [joined.member_id]
            assert started[-1].cause == expired[0].id
            assert broker.events("GroupRebalanceCompleted")[-1].cause == started[-1].id
            assert (
                broker.groups.describe_groups(DescribeGroupsRequest(groups=["g"])).groups[0].group_state
                == "Empty"
            )

    run_virtual(main())


def test_offsets_of_an_empty_group_expire_and_take_the_group_with_them() -> None:
    async def main() -> None:
        config = GroupConfig(
            group_initial_rebalance_delay_ms=0,
            offsets_retention_minutes=10,
            offsets_retention_check_interval_ms=60_000,
        )
        async with world(brokers=2, config=config) as made:
            broker = made.brokers[1]
            joined = await stable(broker)
            assert await broker.commit(5, generation=1, member=joined.member_id) == E.NONE
            assert await broker.commit(7, group="simple") == E.NONE
            for _ in range(200):
                await asyncio.sleep(8)
                broker.groups.heartbeat(heartbeat(joined))
            # The members' age keeps what they consume; a simple group's ages by itself.
            assert await broker.committed() == (E.NONE, 5)
            assert await broker.committed("simple") == (E.NONE, None)
            leave = LeaveGroupRequest(group_id="g", members=[LeaveGroupMember(member_id=joined.member_id)])
            broker.groups.leave(leave)
            await asyncio.sleep(500)
            assert await broker.committed() == (E.NONE, 5)
            await asyncio.sleep(300)
            assert await broker.committed() == (E.NONE, None)
            assert broker.groups.list_groups(ListGroupsRequest()).groups == []
            assert {event.facts["group"] for event in broker.events("GroupOffsetsExpired")} == {"g", "simple"}
            await made.elect(2)
            assert made.brokers[2].groups.list_groups(ListGroupsRequest()).groups == []

    run_virtual(main())


# ---- the rest ----


def test_the_topic_is_created_once_for_all_who_ask() -> None:
    async def main() -> None:
        async with world() as made:
            made.partition.exists = False
            broker = made.brokers[1]
            found = await asyncio.gather(*(broker.groups.locate(f"g{n}") for n in range(5)))
            assert {one.broker_id for one in found} == {1}
            assert made.partition.creations == 1
            with pytest.raises(InvalidGroupIdError):
                await broker.groups.locate("")

    run_virtual(main())


def test_a_topic_that_cannot_be_created_says_why_to_all_who_ask() -> None:
    async def main() -> None:
        async with world() as made:
            made.partition.exists = False
            made.partition.creation_error = InvalidReplicationFactorError("3 replicas, 1 broker")
            broker = made.brokers[1]
            answers = await asyncio.gather(
                *(broker.groups.locate(f"g{n}") for n in range(3)), return_exceptions=True
            )
            for answer in answers:
                assert isinstance(answer, CoordinatorNotAvailableError)
                assert "3 replicas, 1 broker" in answer.message

    run_virtual(main())


def test_a_group_is_deleted_with_its_offsets_for_the_next_coordinator_too() -> None:
    async def main() -> None:
        async with world(brokers=2) as made:
            broker = made.brokers[1]
            joined = await stable(broker)
            assert await broker.commit(5, generation=1, member=joined.member_id) == E.NONE
            request = DeleteGroupsRequest(groups_names=["g", "other", ""])
            codes = [result.error_code for result in (await broker.groups.delete_groups(request)).results]
            assert codes == [E.NON_EMPTY_GROUP, E.GROUP_ID_NOT_FOUND, E.GROUP_ID_NOT_FOUND]
            broker.groups.leave(
                LeaveGroupRequest(group_id="g", members=[LeaveGroupMember(member_id=joined.member_id)])
            )
            codes = [result.error_code for result in (await broker.groups.delete_groups(request)).results]
            assert codes[0] == E.NONE
            await made.elect(2)
            assert await made.brokers[2].committed() == (E.NONE, None)
            assert made.brokers[2].groups.list_groups(ListGroupsRequest()).groups == []

    run_virtual(main())


def test_a_deleted_topics_offsets_go() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            made.partition.topics.add("payments")
            request = commit_request(5, topic="payments")
            await broker.groups.commit_offsets(request)
            assert await broker.commit(6, group="h") == E.NONE
            broker.groups.topics_deleted(frozenset({"payments"}))
            await broker.until("GroupOffsetsDeleted")
            assert await broker.committed() == (E.NONE, None)
            assert await broker.committed("h") == (E.NONE, 6)

    run_virtual(main())


def test_lag_is_what_is_left_below_the_high_watermark() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            assert await broker.commit(40) == E.NONE
            assert [tuple(lag) for lag in broker.groups.lags()] == [("g", ORDERS, 60)]

    run_virtual(main())


def test_group_ids_are_checked_before_anything_else() -> None:
    async def main() -> None:
        async with world() as made:
            broker = made.brokers[1]
            assert (await broker.join(group="")).error_code == E.INVALID_GROUP_ID
            joined = await broker.enter()
            assert (await broker.sync(joined, group="")).error_code == E.INVALID_GROUP_ID
            assert broker.groups.heartbeat(heartbeat(joined, "")).error_code == E.INVALID_GROUP_ID
            # Simple consumers without a group have always committed to the empty one.
            assert await broker.commit(5, group="") == E.NONE
            assert await broker.committed("") == (E.NONE, 5)

    run_virtual(main())


def test_a_stopping_broker_sends_waiting_members_away() -> None:
    async def main() -> None:
        async with world() as made:
            waiting = await wait_in_join(made)
        assert (await waiting).error_code == E.NOT_COORDINATOR
        assert (await made.brokers[1].join()).error_code == E.COORDINATOR_NOT_AVAILABLE

    async def wait_in_join(made: World) -> asyncio.Task[JoinGroupResponse]:
        broker = made.brokers[1]
        await stable(broker)
        pending = await broker.join()
        waiting = asyncio.create_task(broker.join(pending.member_id))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        return waiting

    run_virtual(main())


def test_the_log_holds_what_the_records_say() -> None:
    async def main() -> None:
        async with world() as made:
            assert await made.brokers[1].commit(5) == E.NONE
            columns = decode_batch(made.partition.batches[0][1])
            assert columns.keys is not None
            key, value = columns.keys[0], columns.values[0]
            assert key is not None
            record = Record.decode(key, value)
            assert record is not None
            assert record.key == OffsetKey("g", *TopicPartition("orders", 0))
            assert isinstance(record.value, OffsetValue)
            assert record.value.offset == 5

    run_virtual(main())
