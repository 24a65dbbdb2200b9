"""The rules of one group: every API's errors, and how generations come about."""

from __future__ import annotations

from typing import Any

import pytest

from kafkalite.common import TopicPartition
from kafkalite.coordinator.config import GroupConfig
from kafkalite.coordinator.group.effects import Answer, Effects, Now, Ticket
from kafkalite.coordinator.group.group import Client
from kafkalite.coordinator.group.records import GroupKey, Record
from kafkalite.coordinator.group.shard import Shard
from kafkalite.coordinator.group.state import VALID_PREVIOUS, GroupState
from kafkalite.protocol.consumer_protocol import Assignment, Subscription
from kafkalite.protocol.errors import BrokerError, ErrorCode, NotEnoughReplicasError
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupMember, LeaveGroupRequest
from kafkalite.protocol.offset_delete import OffsetDeletePartition, OffsetDeleteRequest, OffsetDeleteTopic
from kafkalite.protocol.sync_group import SyncGroupAssignment, SyncGroupRequest, SyncGroupResponse
from tests.unit.coordinator.harness import commit_request, join_request

E = ErrorCode


class Driver:
    """One shard whose appends are committed at once, and what was answered."""

    def __init__(self, *, group_initial_rebalance_delay_ms: int = 0, group_max_size: int = 2**31 - 1) -> None:
        self.shard = Shard(
            GroupConfig(
                group_initial_rebalance_delay_ms=group_initial_rebalance_delay_ms,
                group_max_size=group_max_size,
            )
        )
        self.answers: dict[int, Answer] = {}
        self.facts: list[tuple[str, dict[str, Any]]] = []
        self.now_ms = 1_000
        self.store_error: BrokerError | None = None
        self.holds_stores = False
        self._tickets = 0

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000 + self.now_ms)

    def carry_out(self, effects: Effects) -> None:
        self.answers.update(effects.answers)
        self.facts += [(fact.type, fact.facts) for fact in effects.facts]
        for store in effects.stores if not self.holds_stores else []:
            if self.store_error is None:
                self.shard.apply(Record(GroupKey(store.group_id), store.value))
            self.carry_out(self.shard.after_store(store, self.store_error, self.now()))

    def join(self, member_id: str = "", **more: Any) -> int:
        """Send a join; returns its ticket."""
        self._tickets += 1
        effects = self.shard.join(
            join_request(member_id, **more),
            Client("c", "/h"),
            fresh_id=str(self._tickets),
            ticket=Ticket(self._tickets),
            now=self.now(),
        )
        self.carry_out(effects)
        return self._tickets

    def joined(self, ticket: int) -> JoinGroupResponse:
        answer = self.answers[ticket]
        assert isinstance(answer, JoinGroupResponse)
        return answer

    def enter(self, **more: Any) -> int:
        """Join for the first time, both steps; returns the second's ticket."""
        return self.join(self.joined(self.join(**more)).member_id, **more)

    def sync(
        self, generation: int, member_id: str, given: dict[str, bytes] | None = None, **more: Any
    ) -> int:
        self._tickets += 1
        request = SyncGroupRequest(
            group_id="g",
            generation_id=generation,
            member_id=member_id,
            assignments=[
                SyncGroupAssignment(member_id=member, assignment=assignment)
                for member, assignment in (given or {}).items()
            ],
            **more,
        )
        self.carry_out(self.shard.sync(request, ticket=Ticket(self._tickets), now=self.now()))
        return self._tickets

    def synced(self, ticket: int) -> SyncGroupResponse:
        answer = self.answers[ticket]
        assert isinstance(answer, SyncGroupResponse)
        return answer

    def heartbeat(self, generation: int, member_id: str, instance: str | None = None) -> ErrorCode:
        request = HeartbeatRequest(
            group_id="g", generation_id=generation, member_id=member_id, group_instance_id=instance
        )
        try:
            self.shard.heartbeat(request, self.now())
        except BrokerError as error:
            return error.code
        return E.NONE

    def leave(self, *members: LeaveGroupMember) -> list[int]:
        response, effects = self.shard.leave(
            LeaveGroupRequest(group_id="g", members=list(members)), self.now()
        )
        self.carry_out(effects)
        return [member.error_code for member in response.members]

    def commit(self, offset: int = 1, **more: Any) -> int:
        plan = self.shard.commit(commit_request(offset, **more), is_known=lambda _: True, now=self.now())
        for record in plan.records:
            self.shard.apply(record)
        return plan.answer(None).topics[0].partitions[0].error_code

    def wait(self, ms: int) -> None:
        """Let time pass, ringing each timer when it is due."""
        end = self.now_ms + ms
        while True:
            group = self.shard.groups.get("g")
            deadline = group.next_deadline() if group is not None else None
            if group is None or deadline is None or deadline > end:
                break
            self.now_ms = max(deadline, self.now_ms)
            self.carry_out(self.shard.on_time(group, self.now()))
        self.now_ms = end

    @property
    def state(self) -> GroupState:
        return self.shard.groups["g"].state

    def stable(self, *, members: int = 1) -> list[str]:
        """A stable group; returns its member ids, the leader's first."""
        ids = [self.joined(self.enter()).member_id]
        for _ in range(members - 1):
            waiting = self.enter()
            ticket = self.join(ids[0])
            for other in ids[1:]:
                self.join(other)
            ids.append(self.joined(waiting).member_id)
            assert self.joined(ticket).error_code == E.NONE
        generation = self.shard.groups["g"].generation_id
        for member in ids:
            self.sync(generation, member, {one: one.encode() for one in ids})
        assert self.state is GroupState.STABLE
        return ids


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_the_table_of_moves_is_kafkas() -> None:
    s = GroupState
    assert set(VALID_PREVIOUS) == set(s)
    for state, previous in VALID_PREVIOUS.items():
        if state is not s.DEAD:
            assert s.DEAD not in previous, "nothing comes back from the dead"
    assert VALID_PREVIOUS[s.STABLE] == {s.COMPLETING_REBALANCE}
    assert VALID_PREVIOUS[s.DEAD] == set(s)


# ---- joining ----


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"session_timeout_ms": 5_999}, E.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 1_800_001}, E.INVALID_SESSION_TIMEOUT),
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"protocol": ""}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": ""}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({}, E.MEMBER_ID_REQUIRED),
        ({"instance": "i"}, E.NONE),
    ],
)
def test_the_first_join(driver: Driver, request_: dict[str, Any], code: ErrorCode) -> None:
    assert driver.joined(driver.join(**request_)).error_code == code


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"protocol": "roundrobin"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"member_id": "LEADER", "instance": "unknown"}, E.UNKNOWN_MEMBER_ID),
    ],
)
def test_a_join_of_a_group_that_has_members(
    driver: Driver, request_: dict[str, Any], code: ErrorCode
) -> None:
    (leader,) = driver.stable()
    if request_.get("member_id") == "LEADER":
        request_ = {**request_, "member_id": leader}
    assert driver.joined(driver.join(**request_)).error_code == code
    assert driver.state is GroupState.STABLE


def test_an_empty_group_waits_for_company_and_longer_while_some_comes() -> None:
    driver = Driver(group_initial_rebalance_delay_ms=3_000)
    first = driver.enter()
    driver.wait(2_900)
    second = driver.enter()
    driver.wait(200)  # The delay is over, but somebody had come.
    assert first not in driver.answers
    third = driver.enter()
    driver.wait(3_000)
    assert first not in driver.answers
    driver.wait(3_000)  # Nobody came during this one.
    answers = [driver.joined(ticket) for ticket in (first, second, third)]
    assert {answer.generation_id for answer in answers} == {1}
    assert [len(answer.members) for answer in answers] == [3, 0, 0]
    assert answers[1].leader == answers[0].member_id


def test_company_is_not_waited_for_beyond_the_rebalance_timeout() -> None:
    driver = Driver(group_initial_rebalance_delay_ms=3_000)
    first = driver.enter(rebalance_timeout_ms=7_000)
    for _ in range(3):
        assert first not in driver.answers
        driver.wait(2_000)
        driver.enter(rebalance_timeout_ms=7_000)
    driver.wait(999)
    assert first not in driver.answers
    driver.wait(1)
    assert driver.joined(first).generation_id == 1


def test_a_member_that_does_not_rejoin_in_time_is_left_behind(driver: Driver) -> None:
    leader, other = driver.stable(members=2)
    ticket = driver.join(leader)
    for _ in range(19):
        driver.wait(1_000)
        assert driver.heartbeat(2, other) == E.REBALANCE_IN_PROGRESS
    assert ticket not in driver.answers
    driver.wait(1_000)
    assert driver.joined(ticket).generation_id == 3
    assert [member.member_id for member in driver.joined(ticket).members] == [leader]
    assert driver.heartbeat(3, other) == E.UNKNOWN_MEMBER_ID


def test_a_pending_member_is_waited_for_and_then_not(driver: Driver) -> None:
    (leader,) = driver.stable()
    driver.join()  # Gets a member id and never comes back with it.
    ticket = driver.join(leader)
    assert ticket not in driver.answers
    driver.wait(10_000)
    assert driver.joined(ticket).generation_id == 2


def test_the_leader_hands_over_when_it_does_not_come(driver: Driver) -> None:
    leader, other = driver.stable(members=2)
    driver.enter()
    ticket = driver.join(other)
    driver.wait(20_000)
    answer = driver.joined(ticket)
    assert answer.leader == other != leader
    assert len(answer.members) == 2


def test_the_protocol_that_most_prefer_of_those_that_all_support() -> None:
    driver = Driver(group_initial_rebalance_delay_ms=3_000)
    tickets = [driver.enter(protocol=names) for names in ("a,b,c", "c,b,a", "d,c,b", "b,c")]
    driver.wait(10_000)
    # a and d are not for all; b and c are, and two members each put them first.
    assert {driver.joined(ticket).protocol_name for ticket in tickets} == {"b"}


@pytest.mark.parametrize(("who", "metadata", "rebalances"), [(0, "", True), (1, "", False), (1, "new", True)])
def test_a_join_of_a_stable_member(driver: Driver, who: int, metadata: str, rebalances: bool) -> None:
    members = driver.stable(members=2)
    ticket = driver.join(members[who], metadata=metadata)
    if rebalances:
        assert driver.state is GroupState.PREPARING_REBALANCE
        assert ticket not in driver.answers
    else:
        assert driver.joined(ticket).generation_id == 2
        assert driver.joined(ticket).members == []


def test_a_join_whose_answer_was_lost_is_answered_again(driver: Driver) -> None:
    first = driver.joined(driver.enter())
    again = driver.joined(driver.join(first.member_id))
    assert again == first


def test_a_group_holds_no_more_members_than_allowed() -> None:
    driver = Driver(group_max_size=2)
    driver.stable(members=2)
    assert driver.joined(driver.join()).error_code == E.GROUP_MAX_SIZE_REACHED
    assert driver.state is GroupState.STABLE


# ---- syncing ----


@pytest.mark.parametrize(
    ("generation", "member", "more", "code"),
    [
        (1, "nobody", {}, E.UNKNOWN_MEMBER_ID),
        (0, None, {}, E.ILLEGAL_GENERATION),
        (2, None, {}, E.ILLEGAL_GENERATION),
        (1, None, {"protocol_type": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
        (1, None, {"protocol_name": "sticky"}, E.INCONSISTENT_GROUP_PROTOCOL),
        (1, None, {"group_instance_id": "i"}, E.UNKNOWN_MEMBER_ID),
        (1, None, {"protocol_type": "consumer", "protocol_name": "range"}, E.NONE),
    ],
)
def test_a_sync(
    driver: Driver, generation: int, member: str | None, more: dict[str, Any], code: ErrorCode
) -> None:
    (leader,) = driver.stable()
    assert driver.synced(driver.sync(generation, member or leader, **more)).error_code == code


def test_followers_get_theirs_when_the_leaders_is_stored_and_nothing_where_it_names_none(
    driver: Driver,
) -> None:
    leader, other = driver.stable(members=2)
    driver.join(other, metadata="new")
    driver.join(leader)
    waiting = driver.sync(3, other)
    assert waiting not in driver.answers
    first = driver.sync(3, leader, {leader: b"all"})
    assert driver.synced(first).assignment == b"all"
    assert driver.synced(waiting) == SyncGroupResponse(
        error_code=0, protocol_type="consumer", protocol_name="range", assignment=b""
    )


def test_a_repeated_sync_of_the_leader_does_not_store_another_assignment(driver: Driver) -> None:
    joined = driver.joined(driver.enter())
    driver.holds_stores = True
    first = driver.sync(1, joined.member_id, {joined.member_id: b"first"})
    effects = driver.shard.sync(
        SyncGroupRequest(
            group_id="g",
            generation_id=1,
            member_id=joined.member_id,
            assignments=[SyncGroupAssignment(member_id=joined.member_id, assignment=b"second")],
        ),
        ticket=Ticket(99),
        now=driver.now(),
    )
    assert effects.stores == []
    driver.carry_out(effects)
    assert driver.synced(first).error_code == E.REBALANCE_IN_PROGRESS


def test_a_member_that_joins_and_never_syncs_is_removed(driver: Driver) -> None:
    leader, other = driver.stable(members=2)
    driver.join(other, metadata="new")
    driver.join(leader)
    driver.sync(3, leader, {})
    for _ in range(19):
        driver.wait(1_000)
        assert driver.heartbeat(3, other) == driver.heartbeat(3, leader) == E.NONE
    driver.wait(1_000)
    assert driver.heartbeat(3, other) == E.UNKNOWN_MEMBER_ID
    assert driver.heartbeat(3, leader) == E.REBALANCE_IN_PROGRESS
    assert driver.facts[-2][1]["reason"] == "it joined and did not sync"


def test_an_assignment_that_cannot_be_stored_begins_the_join_phase_again(driver: Driver) -> None:
    joined = driver.joined(driver.enter())
    driver.store_error = NotEnoughReplicasError("one in sync")
    ticket = driver.sync(1, joined.member_id, {})
    assert driver.synced(ticket).error_code == E.NOT_ENOUGH_REPLICAS
    assert driver.state is GroupState.PREPARING_REBALANCE


# ---- static members ----


def static(driver: Driver, instance: str) -> str:
    ticket = driver.join(instance=instance)
    for member in list(driver.shard.groups["g"].members.values()):
        if member.join_ticket is None:
            driver.join(member.member_id, instance=member.group_instance_id)
    return driver.joined(ticket).member_id


def test_a_restarted_static_member_takes_its_place_without_a_rebalance(driver: Driver) -> None:
    leader = static(driver, "a")
    follower = static(driver, "b")
    driver.sync(2, leader, {leader: b"one", follower: b"two"})
    driver.sync(2, follower)
    for instance, old, assignment, leads in (("b", follower, b"two", False), ("a", leader, b"one", True)):
        answer = driver.joined(driver.join(instance=instance))
        assert (answer.error_code, answer.generation_id) == (E.NONE, 2)
        assert answer.member_id != old
        assert (answer.skip_assignment, len(answer.members)) == ((True, 2) if leads else (False, 0))
        assert driver.synced(driver.sync(2, answer.member_id)).assignment == assignment
        # The life before it is fenced, whatever it asks.
        assert driver.heartbeat(2, old, instance) == E.FENCED_INSTANCE_ID
        assert driver.commit(generation=2, member=old) == E.UNKNOWN_MEMBER_ID
        assert (
            driver.synced(driver.sync(2, old, group_instance_id=instance)).error_code == E.FENCED_INSTANCE_ID
        )
        assert driver.joined(driver.join(old, instance=instance)).error_code == E.FENCED_INSTANCE_ID
        assert driver.leave(LeaveGroupMember(member_id=old, group_instance_id=instance)) == [
            E.FENCED_INSTANCE_ID
        ]
    assert driver.state is GroupState.STABLE
    stored = driver.shard.groups["g"].stored
    assert stored is not None
    assert {member.member_id for member in stored.members} == set(driver.shard.groups["g"].members)


def test_a_static_member_that_comes_back_with_other_protocols_rebalances(driver: Driver) -> None:
    leader = static(driver, "a")
    driver.sync(1, leader, {leader: b"one"})
    ticket = driver.join(instance="a", protocol="sticky,range")
    # It alone decides what is chosen, and prefers another now.
    assert (driver.joined(ticket).generation_id, driver.joined(ticket).protocol_name) == (2, "sticky")
    driver = Driver()
    leader = static(driver, "a")
    follower = driver.join(instance="b", protocol="sticky,range")
    driver.join(leader, instance="a", protocol="sticky,range")
    assert driver.joined(follower).protocol_name == "sticky"
    driver.sync(2, leader, {})
    driver.sync(2, driver.joined(follower).member_id)
    ticket = driver.join(instance="b", protocol="range")
    assert ticket not in driver.answers
    assert driver.state is GroupState.PREPARING_REBALANCE


def test_what_a_static_member_gave_up_is_given_on_though_it_was_started_again(driver: Driver) -> None:
    """Found by the simulation: the process that was to join once more died before it did, and the one that
    took its place knew nothing of that: what had been given up was nobody's."""

    def owning(*numbers: int) -> bytes:
        return Subscription(("t",), None, tuple(TopicPartition("t", one) for one in numbers)).encode()

    def given(*numbers: int) -> bytes:
        return Assignment(tuple(TopicPartition("t", one) for one in numbers)).encode()

    leader = static(driver, "a")
    driver.sync(1, leader, {leader: given(0, 1)})
    follower = driver.join(instance="b", metadata=owning())
    driver.join(leader, instance="a", metadata=owning(0, 1))
    driver.sync(2, leader, {leader: given(0), driver.joined(follower).member_id: given()})
    # The leader is to give up partition 1 and to join again, but dies.
    ticket = driver.join(instance="a", metadata=owning())
    assert driver.state is GroupState.PREPARING_REBALANCE
    driver.join(driver.joined(follower).member_id, instance="b", metadata=owning())
    again = driver.joined(ticket)
    assert (again.generation_id, again.leader, again.skip_assignment) == (3, again.member_id, False)
    driver.sync(3, again.member_id, {again.member_id: given(0), driver.joined(follower).member_id: given(1)})
    # Nothing is owed any more: the next restart moves nothing.
    assert driver.joined(driver.join(instance="a", metadata=owning())).generation_id == 3


def test_a_duplicate_static_member_fences_the_one_that_waits(driver: Driver) -> None:
    driver.stable()
    first = driver.join(instance="a")
    assert first not in driver.answers
    second = driver.join(instance="a")
    assert driver.joined(first).error_code == E.FENCED_INSTANCE_ID
    assert second not in driver.answers


def test_an_absent_static_member_is_kept_until_its_session_ends(driver: Driver) -> None:
    leader = static(driver, "a")
    other = driver.join(instance="b", session_timeout_ms=60_000)
    driver.join(leader, instance="a")
    driver.sync(2, leader, {})
    absent = driver.joined(other).member_id
    driver.sync(2, absent)
    ticket = driver.join(leader, instance="a")
    driver.wait(20_000)
    assert [member.member_id for member in driver.joined(ticket).members] == [leader, absent]


# ---- leaving ----


def test_leaving(driver: Driver) -> None:
    assert driver.leave(LeaveGroupMember(member_id="nobody")) == [E.UNKNOWN_MEMBER_ID]
    leader, other = driver.stable(members=2)
    pending = driver.joined(driver.join()).member_id
    assert driver.leave(
        LeaveGroupMember(member_id="nobody"),
        LeaveGroupMember(group_instance_id="nobody"),
        LeaveGroupMember(),
        LeaveGroupMember(member_id=pending),
        LeaveGroupMember(member_id=other, reason="closing"),
    ) == [E.UNKNOWN_MEMBER_ID, E.UNKNOWN_MEMBER_ID, E.UNKNOWN_MEMBER_ID, E.NONE, E.NONE]
    assert driver.heartbeat(2, leader) == E.REBALANCE_IN_PROGRESS
    assert ("GroupMemberLeft", "closing") in [(type, facts.get("reason")) for type, facts in driver.facts]
    assert driver.leave(LeaveGroupMember(member_id=leader)) == [E.NONE]
    assert driver.state is GroupState.EMPTY


def test_a_static_member_is_removed_by_its_instance_id(driver: Driver) -> None:
    leader = static(driver, "a")
    assert driver.leave(LeaveGroupMember(group_instance_id="a")) == [E.NONE]
    assert driver.heartbeat(1, leader) == E.UNKNOWN_MEMBER_ID


# ---- commits ----


@pytest.mark.parametrize(
    ("generation", "member", "code"),
    [
        (1, "LEADER", E.NONE),
        (0, "LEADER", E.ILLEGAL_GENERATION),
        (2, "LEADER", E.ILLEGAL_GENERATION),
        (-1, "LEADER", E.ILLEGAL_GENERATION),
        (1, "nobody", E.UNKNOWN_MEMBER_ID),
        (-1, "", E.UNKNOWN_MEMBER_ID),
    ],
)
def test_commits_to_a_group_with_members(
    driver: Driver, generation: int, member: str, code: ErrorCode
) -> None:
    (leader,) = driver.stable()
    member = leader if member == "LEADER" else member
    assert driver.commit(generation=generation, member=member) == code


def test_commits_to_groups_without_members(driver: Driver) -> None:
    assert driver.commit(generation=0, member="m") == E.ILLEGAL_GENERATION
    assert "g" not in driver.shard.groups
    assert driver.commit() == E.NONE
    assert driver.state is GroupState.EMPTY
    assert driver.commit(metadata="m" * 4_096) == E.NONE
    assert driver.commit(metadata="m" * 4_097) == E.OFFSET_METADATA_TOO_LARGE


def test_commits_wait_for_the_assignment_and_keep_the_session(driver: Driver) -> None:
    joined = driver.joined(driver.enter())
    assert driver.commit(generation=1, member=joined.member_id) == E.REBALANCE_IN_PROGRESS
    driver.sync(1, joined.member_id, {})
    for _ in range(5):
        driver.wait(9_000)
        assert driver.commit(generation=1, member=joined.member_id) == E.NONE
    # A member that is called to rejoin still commits what it has done.
    driver.enter()
    assert driver.heartbeat(1, joined.member_id) == E.REBALANCE_IN_PROGRESS
    assert driver.commit(generation=1, member=joined.member_id) == E.NONE


def test_offsets_of_topics_that_members_want_are_not_deleted(driver: Driver) -> None:
    def delete(topic: str) -> tuple[int, list[int]]:
        request = OffsetDeleteRequest(
            group_id="g",
            topics=[OffsetDeleteTopic(name=topic, partitions=[OffsetDeletePartition(partition_index=0)])],
        )
        plan = driver.shard.delete_offsets(request)
        for record in plan.records:
            driver.shard.apply(record)
        answer = plan.answer(None)
        return len(plan.records), [part.error_code for one in answer.topics for part in one.partitions]

    metadata = Subscription(("orders",)).encode()
    joined = driver.joined(driver.enter(metadata=metadata))
    driver.sync(1, joined.member_id, {})
    assert driver.commit(generation=1, member=joined.member_id) == E.NONE
    assert driver.commit(generation=1, member=joined.member_id, topic="old") == E.NONE
    assert delete("orders") == (0, [E.GROUP_SUBSCRIBED_TO_TOPIC])
    assert delete("old") == (1, [E.NONE])
    assert delete("old") == (0, [E.NONE])
    driver.leave(LeaveGroupMember(member_id=joined.member_id))
    assert delete("orders") == (1, [E.NONE])


# ---- what people are told ----


def test_a_completed_rebalance_says_what_moved(driver: Driver) -> None:
    joined = driver.joined(driver.enter())
    partitions = [TopicPartition("orders", index) for index in range(3)]
    driver.sync(1, joined.member_id, {joined.member_id: Assignment(tuple(partitions)).encode()})
    waiting = driver.enter()
    driver.wait(70)
    driver.join(joined.member_id)
    other = driver.joined(waiting).member_id
    given = {
        joined.member_id: Assignment(tuple(partitions[:2])).encode(),
        other: Assignment(tuple(partitions[2:])).encode(),
    }
    driver.sync(2, joined.member_id, given)
    type_, facts = driver.facts[-1]
    assert type_ == "GroupRebalanceCompleted"
    assert (facts["generation"], facts["took_ms"], facts["partitions_moved"]) == (2, 70, 1)
    assert facts["moves"] == [{"topic": "orders", "partition": 2, "from": joined.member_id, "to": other}]
    assert f"{other} joined" in facts["reason"]
