"""The member's machine, step by step: what each answer leads to."""

from __future__ import annotations

from typing import Any

import pytest

from kafkalite.client.assignors import COOPERATIVE_STICKY, RANGE, Assignor
from kafkalite.client.group.member import (
    VALID_PREVIOUS,
    Adopt,
    BackOff,
    Divide,
    Fail,
    Join,
    Lose,
    Member,
    Phase,
    Rest,
    Revoke,
    Sync,
)
from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import Assignment, Subscription
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupResponse, JoinGroupResponseMember
from kafkalite.protocol.sync_group import SyncGroupResponse

T0, T1, T2, U0 = (TopicPartition(topic, n) for topic, n in (("t", 0), ("t", 1), ("t", 2), ("u", 0)))


def member(*assignors: Assignor, instance: str | None = None, rack: str | None = None) -> Member:
    made = Member(
        group_id="g",
        group_instance_id=instance,
        session_timeout_ms=45_000,
        rebalance_timeout_ms=300_000,
        assignors=assignors or (COOPERATIVE_STICKY,),
        client_rack=rack,
    )
    made.subscribe(["t"])
    return made


def joined(
    code: int = 0, *, generation: int = 1, id: str = "m", leader: str = "other", **more: Any
) -> JoinGroupResponse:
    return JoinGroupResponse(
        error_code=code,
        generation_id=generation,
        protocol_name=more.pop("protocol", "cooperative-sticky"),
        leader=leader,
        member_id=id,
        members=more.pop("members", []),
        **more,
    )


def synced(*partitions: TopicPartition, code: int = 0) -> SyncGroupResponse:
    return SyncGroupResponse(error_code=code, assignment=Assignment(partitions).encode())


def beats(machine: Member) -> bool:
    return machine.needs_heartbeat


def settle(machine: Member, *partitions: TopicPartition, generation: int = 1) -> None:
    """Through a join and a sync, as no leader."""
    assert isinstance(machine.step(), Join)
    machine.joined(joined(generation=generation))
    assert isinstance(machine.step(), Sync)
    machine.synced(synced(*partitions))


def test_the_table_names_every_phase() -> None:
    assert VALID_PREVIOUS.keys() == set(Phase)


def test_the_first_join_names_its_member_id_the_second_time() -> None:
    machine = member()
    first = machine.step()
    assert isinstance(first, Join)
    assert (first.request.member_id, first.request.reason) == ("", "joins for the first time")
    machine.joined(joined(ErrorCode.MEMBER_ID_REQUIRED, id="m-1"))
    again = machine.step()
    assert isinstance(again, Join)
    assert again.request.member_id == "m-1"
    assert not beats(machine)
    machine.joined(joined(generation=4, id="m-1"))
    assert beats(machine)
    sync = machine.step()
    assert isinstance(sync, Sync)
    assert (sync.request.generation_id, sync.request.assignments) == (4, [])
    machine.synced(synced(T0, T1))
    assert machine.step() == Adopt((T0, T1), (T0, T1))
    assert machine.step() == Rest()
    assert machine.is_settled


def test_the_leader_divides() -> None:
    machine = member()
    machine.step()
    metadata = Subscription(("t",), None, (), -1).encode()
    other = Subscription(("t", "u"), None, (), -1).encode()
    machine.joined(
        joined(
            leader="m",
            members=[
                JoinGroupResponseMember(member_id="m", metadata=metadata),
                JoinGroupResponseMember(member_id="n", metadata=other),
            ],
        )
    )
    assert machine.step() == Divide(("t", "u"))
    machine.divide({"t": 2}, {})
    sync = machine.step()
    assert isinstance(sync, Sync)
    divided = {a.member_id: Assignment.decode(a.assignment).partitions for a in sync.request.assignments}
    assert divided == {"m": (T0,), "n": (T1,)}
    machine.synced(synced(T0))
    machine.step()
    machine.partitions_counted({"t": 2, "x": 9}, {})
    assert machine.is_settled
    machine.partitions_counted({"t": 2, "u": 1}, {})  # A topic that somebody waited for has come.
    step = machine.step()
    assert isinstance(step, Join)
    assert "topic u has 1 partitions, not 0" in (step.request.reason or "")


def test_an_attempt_that_fails_does_not_change_why_it_joins() -> None:
    machine = member()

    def reason() -> str:
        step = machine.step()
        while not isinstance(step, Join):
            assert isinstance(step, BackOff)
            step = machine.step()
        assert step.request.reason is not None
        return step.request.reason

    assert reason() == "joins for the first time"
    machine.failed()
    assert reason() == "joins for the first time"
    machine.joined(joined(ErrorCode.MEMBER_ID_REQUIRED, generation=-1))
    assert reason() == "joins for the first time"
    machine.joined(joined())
    assert isinstance(machine.step(), Sync)
    machine.failed()
    assert reason() == "the coordinator did not answer"
    machine.joined(joined(ErrorCode.UNKNOWN_MEMBER_ID, generation=-1))
    assert reason() == "the coordinator did not know it any more"
    machine.joined(joined(ErrorCode.MEMBER_ID_REQUIRED, generation=-1))
    assert reason() == "the coordinator did not know it any more"


def test_the_leader_looks_at_racks_where_a_member_told_its_own() -> None:
    machine = member(rack="east")
    join = machine.step()
    assert isinstance(join, Join)
    mine = join.request.protocols[0].metadata
    assert Subscription.decode(mine).rack_id == "east"
    other = Subscription(("t",), None, (), -1, "west").encode()
    machine.joined(
        joined(
            leader="m",
            members=[
                JoinGroupResponseMember(member_id="m", metadata=mine),
                JoinGroupResponseMember(member_id="n", metadata=other),
            ],
        )
    )
    assert isinstance(machine.step(), Divide)
    assert machine.group_has_racks
    machine.divide({"t": 2}, {T0: {"west"}, T1: {"east"}})
    sync = machine.step()
    assert isinstance(sync, Sync)
    divided = {a.member_id: Assignment.decode(a.assignment).partitions for a in sync.request.assignments}
    assert divided == {"m": (T1,), "n": (T0,)}
    machine.synced(synced(T1))
    machine.step()
    machine.partitions_counted({"t": 2}, {T0: {"west"}, T1: {"east"}})
    machine.partitions_counted({"t": 2}, {})  # Nobody knows at the moment: that is no change.
    assert machine.is_settled
    machine.partitions_counted({"t": 2}, {T0: {"east"}, T1: {"east"}})
    step = machine.step()
    assert isinstance(step, Join)
    assert "replicas of t-0 are in other racks" in (step.request.reason or "")


def test_a_static_leader_that_came_back_divides_nothing() -> None:
    machine = member(instance="i")
    machine.step()
    metadata = Subscription(("t",), None, (), -1).encode()
    only = [JoinGroupResponseMember(member_id="m", metadata=metadata)]
    machine.joined(joined(leader="m", skip_assignment=True, members=only))
    assert isinstance(machine.step(), Divide)
    machine.divide({"t": 1}, {})
    sync = machine.step()
    assert isinstance(sync, Sync)
    assert sync.request.assignments == []
    assert machine.leave_request("bye") is None


def test_cooperative_gives_up_after_the_sync_and_joins_again() -> None:
    machine = member()
    settle(machine, T0, T1)
    assert machine.step() == Adopt((T0, T1), (T0, T1))
    machine.rejoin("the group rebalances")
    join = machine.step()
    assert isinstance(join, Join)
    said = Subscription.decode(join.request.protocols[0].metadata)
    assert (said.owned_partitions, said.generation_id) == ((T0, T1), 1)
    machine.joined(joined(generation=2))
    machine.step()
    machine.synced(synced(T0))
    assert machine.step() == Revoke((T1,))
    machine.revoked((T1,))
    assert machine.step() == Adopt((T0,), ())
    assert isinstance(machine.step(), Join)


def test_eager_gives_up_before_the_join() -> None:
    machine = member(RANGE, COOPERATIVE_STICKY)
    settle(machine, T0, T1)
    machine.step()
    machine.rejoin("the group rebalances")
    assert machine.step() == Revoke((T0, T1))
    machine.revoked((T0, T1))
    assert isinstance(machine.step(), Join)


def test_dropped_topics_are_given_up_before_the_join() -> None:
    machine = member()
    settle(machine, T0)
    machine.step()
    machine.subscribe(["u"])
    assert machine.step() == Revoke((T0,))
    machine.revoked((T0,))
    settle(machine, T0, U0, generation=2)  # The leader had not heard of it yet.
    assert machine.step() == Adopt((U0,), (U0,))
    assert isinstance(machine.step(), Join)


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.REBALANCE_IN_PROGRESS,
    ],
)
@pytest.mark.parametrize("in_sync", [False, True])
def test_what_passes_is_tried_again_with_what_is_owned(code: ErrorCode, in_sync: bool) -> None:
    machine = member()
    settle(machine, T0)
    machine.step()
    machine.rejoin("again")
    for failures in (1, 2):
        assert isinstance(machine.step(), Join)
        if in_sync:
            machine.joined(joined(generation=2))
            machine.step()
            machine.synced(synced(code=code))
            failures = 1
        else:
            machine.joined(joined(code))
        assert machine.step() == BackOff(failures)
    assert machine.owned == (T0,)
    assert machine.member_id == "m"


@pytest.mark.parametrize(
    ("code", "member_id"), [(ErrorCode.UNKNOWN_MEMBER_ID, ""), (ErrorCode.ILLEGAL_GENERATION, "m")]
)
def test_thrown_out(code: ErrorCode, member_id: str) -> None:
    machine = member()
    settle(machine, T0)
    machine.step()
    machine.heartbeat_answered(machine.heartbeat_request(), code)
    assert machine.step() == Lose((T0,))
    machine.lost()
    join = machine.step()
    assert isinstance(join, Join)
    assert join.request.member_id == member_id
    assert Subscription.decode(join.request.protocols[0].metadata).owned_partitions == ()


def test_answers_of_another_generation_count_for_nothing() -> None:
    machine = member()
    settle(machine, T0)
    machine.step()
    old = HeartbeatRequest(group_id="g", generation_id=0, member_id="m")
    machine.heartbeat_answered(old, ErrorCode.UNKNOWN_MEMBER_ID)
    assert machine.is_settled
    machine.rejoin("again")
    sent = machine.heartbeat_request()
    machine.step()
    machine.heartbeat_answered(sent, ErrorCode.ILLEGAL_GENERATION)  # The join was answered on its way.
    machine.joined(joined(generation=2))
    assert machine.generation_id == 2
    machine.go_away()
    assert machine.step() == Lose((T0,))
    machine.lost()
    machine.synced(synced(T1))
    machine.joined(joined(generation=3))
    assert machine.step() == Rest()
    assert machine.phase is Phase.AWAY


def test_a_fenced_member_stays_out() -> None:
    machine = member(instance="i")
    settle(machine, T0)
    machine.step()
    machine.heartbeat_answered(machine.heartbeat_request(), ErrorCode.FENCED_INSTANCE_ID)
    assert machine.step() == Lose((T0,))
    machine.lost()
    for _ in range(2):
        step = machine.step()
        assert isinstance(step, Fail)
        assert step.error.code == ErrorCode.FENCED_INSTANCE_ID
        machine.told()


def test_what_the_coordinator_refuses_is_told_and_tried_again_later() -> None:
    machine = member()
    machine.step()
    machine.joined(joined(ErrorCode.GROUP_MAX_SIZE_REACHED))
    step = machine.step()
    assert isinstance(step, Fail)
    assert step.error.code == ErrorCode.GROUP_MAX_SIZE_REACHED
    machine.told()
    assert machine.step() == BackOff(1)
    assert isinstance(machine.step(), Join)


@pytest.mark.parametrize("metadata", [b"", b"\0", b"\0\1\0\0\0\5"])
def test_members_that_cannot_be_understood(metadata: bytes) -> None:
    machine = member()
    machine.step()
    machine.joined(joined(leader="m", members=[JoinGroupResponseMember(member_id="n", metadata=metadata)]))
    step = machine.step()
    assert isinstance(step, Fail)
    assert step.error.code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
