"""The rules of one partition, one sentence of DESIGN section 3 and of the reference at a time."""

from __future__ import annotations

import pytest

from kafkalite.common import (
    BrokerEpoch,
    BrokerId,
    ControllerEpoch,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
)
from kafkalite.protocol.errors import (
    BrokerError,
    FencedLeaderEpochError,
    KafkaStorageError,
    NotLeaderOrFollowerError,
    StaleBrokerEpochError,
    UnknownLeaderEpochError,
)
from kafkalite.replication.edges import Conflict, Fenced, IsrChange, Unknown, Written
from kafkalite.replication.partition import FollowerState, Partition, Role, Settled, Verdict

TP = TopicPartition("orders", 0)
LAG_MS = 30_000
ME, TWO, THREE = BrokerId(1), BrokerId(2), BrokerId(3)
REPLICAS = (ME, TWO, THREE)


def state(
    *,
    leader: int = 1,
    epoch: int = 5,
    isr: tuple[int, ...] = (1, 2, 3),
    version: int = 10,
    controller_epoch: int = 1,
) -> LeaderAndIsr:
    return LeaderAndIsr(
        leader=BrokerId(leader),
        leader_epoch=LeaderEpoch(epoch),
        isr=tuple(BrokerId(member) for member in isr),
        controller_epoch=ControllerEpoch(controller_epoch),
        partition_epoch=PartitionEpoch(version),
    )


def leader(
    *, isr: tuple[int, ...] = (1, 2, 3), log_end_offset: int = 100, now_ms: int = 0, epoch: int = 5
) -> Partition:
    partition = Partition(TP, ME)
    partition.become_leader(
        state(isr=isr, epoch=epoch), REPLICAS, log_end_offset=log_end_offset, now_ms=now_ms
    )
    return partition


def everyone_alive(broker_id: BrokerId) -> bool:
    return True


def fetched(
    partition: Partition,
    broker: BrokerId,
    offset: int,
    *,
    leader_end: int = 100,
    now_ms: int = 0,
    life: int = 7,
) -> FollowerState:
    follower = partition.follower(broker, broker_epoch=BrokerEpoch(life), current_leader_epoch=5)
    follower.broker_epoch = BrokerEpoch(life)
    follower.record_fetch(
        fetch_offset=offset, log_start_offset=0, leader_end_offset=leader_end, now_ms=now_ms
    )
    return follower


def watermark(
    partition: Partition,
    current: int = 0,
    *,
    leader_end: int = 100,
    min_isr: int = 1,
    now_ms: int = 0,
    alive: bool = True,
) -> int:
    return partition.next_high_watermark(
        current,
        leader_end_offset=leader_end,
        min_isr=min_isr,
        now_ms=now_ms,
        lag_max_ms=LAG_MS,
        is_alive=lambda broker: alive,
    )


def shrink(partition: Partition, *, now_ms: int, leader_end: int = 100) -> IsrChange | None:
    return partition.propose_shrink(leader_end_offset=leader_end, now_ms=now_ms, lag_max_ms=LAG_MS)


def expand(
    partition: Partition, follower: FollowerState, *, high_watermark: int = 0, now_ms: int = 0
) -> IsrChange | None:
    return partition.propose_expansion(
        follower, high_watermark=high_watermark, now_ms=now_ms, is_alive=everyone_alive
    )


def pending_expansion(isr: tuple[int, ...] = (1, 2)) -> tuple[Partition, IsrChange]:
    partition = leader(isr=isr)
    change = expand(partition, fetched(partition, THREE, 100, life=7))
    assert change is not None
    return partition, change


# ---- followers' states (5.1) ----


@pytest.mark.parametrize(
    ("fetches", "caught_up_ms"),
    [
        # (time, offset, the leader's log end)
        ([(10, 100, 100)], 10),  # Everything there was.
        ([(10, 90, 100), (20, 95, 110)], None),  # Never had what there was at the fetch before.
        ([(10, 90, 100), (20, 100, 110)], 10),  # At 20 it had all there was at 10.
        ([(10, 100, 100), (20, 90, 100)], 10),  # Going back does not undo it.
    ],
)
def test_last_caught_up_time(fetches: list[tuple[int, int, int]], caught_up_ms: int | None) -> None:
    follower = FollowerState(TWO)
    never = follower.last_caught_up_ms
    for now_ms, offset, leader_end in fetches:
        follower.record_fetch(
            fetch_offset=offset, log_start_offset=0, leader_end_offset=leader_end, now_ms=now_ms
        )
    assert follower.last_caught_up_ms == (never if caught_up_ms is None else caught_up_ms)
    assert follower.log_end_offset == fetches[-1][1]


def test_time_not_distance_decides_who_is_caught_up() -> None:
    follower = FollowerState(TWO, log_end_offset=1, last_caught_up_ms=0)
    assert follower.is_caught_up(leader_end_offset=1_000_000, now_ms=LAG_MS, lag_max_ms=LAG_MS)
    assert not follower.is_caught_up(leader_end_offset=1_000_000, now_ms=LAG_MS + 1, lag_max_ms=LAG_MS)
    assert follower.is_caught_up(leader_end_offset=1, now_ms=10 * LAG_MS, lag_max_ms=LAG_MS)


def test_a_replica_outside_the_isr_is_not_caught_up_where_the_clock_starts_at_zero() -> None:
    partition = leader(isr=(1, 2), now_ms=0)
    follower = partition.followers[THREE]
    assert not follower.is_caught_up(leader_end_offset=100, now_ms=0, lag_max_ms=LAG_MS)


# ---- the high watermark (5.4) ----


@pytest.mark.parametrize(
    ("isr", "two", "three", "expected"),
    [
        ((1, 2, 3), 70, 80, 70),  # The least of the ISR.
        ((1, 2), 70, None, 70),  # A replica outside that was never caught up does not count.
        ((1,), None, None, 100),  # Alone.
        ((1, 2, 3), 70, None, 0),  # A member that has not fetched in this epoch holds it.
    ],
)
def test_high_watermark_is_the_least_log_end_of_the_isr(
    isr: tuple[int, ...], two: int | None, three: int | None, expected: int
) -> None:
    partition = leader(isr=isr)
    for broker, offset in ((TWO, two), (THREE, three)):
        if offset is not None:
            fetched(partition, broker, offset)
    assert watermark(partition) == expected


def test_high_watermark_never_goes_back() -> None:
    partition = leader()
    fetched(partition, TWO, 50)
    fetched(partition, THREE, 50)
    assert watermark(partition, current=60) == 60


def test_high_watermark_waits_for_a_replica_about_to_join_unless_it_is_dead() -> None:
    partition = leader(isr=(1, 2))
    fetched(partition, TWO, 100, leader_end=100)
    fetched(partition, THREE, 90, leader_end=90)  # Caught up a moment ago.
    assert watermark(partition) == 90
    assert watermark(partition, alive=False) == 100
    assert watermark(partition, now_ms=LAG_MS + 1) == 100


def test_high_watermark_stands_still_below_min_isr() -> None:
    partition = leader(isr=(1,))
    assert watermark(partition, current=40, min_isr=2) == 40
    assert watermark(partition, current=40, min_isr=1) == 100


def test_a_follower_has_no_say_in_the_high_watermark() -> None:
    partition = Partition(TP, ME)
    partition.become_follower(state(leader=2), REPLICAS)
    assert watermark(partition, current=3) == 3


def test_only_followers_in_this_leader_epoch_advance_the_high_watermark() -> None:
    partition = leader(isr=(1, 2))
    fetched(partition, TWO, 100)
    partition.become_leader(state(epoch=6, isr=(1, 2), version=11), REPLICAS, log_end_offset=100, now_ms=0)
    assert watermark(partition, current=40) == 40  # What was fetched in epoch 5 is forgotten.
    partition.followers[TWO].record_fetch(
        fetch_offset=90, log_start_offset=0, leader_end_offset=100, now_ms=1
    )
    assert watermark(partition, current=40) == 90


def test_min_isr_is_bounded_by_the_number_of_replicas() -> None:
    partition = leader()
    assert partition.effective_min_isr(2) == 2
    assert partition.effective_min_isr(5) == 3


# ---- ISR changes (5.2) ----


def test_shrink_drops_only_those_that_lag() -> None:
    partition = leader()
    fetched(partition, TWO, 100, now_ms=20_000)
    change = shrink(partition, now_ms=LAG_MS + 1)
    assert change is not None
    assert (change.isr_before, change.isr, change.joining) == (REPLICAS, (ME, TWO), None)
    assert (change.expected_version, change.leader_epoch) == (10, 5)
    assert change.proposed == state(isr=(1, 2))


def test_nobody_is_dropped_while_all_are_caught_up() -> None:
    partition = leader()
    assert shrink(partition, now_ms=LAG_MS) is None


def test_the_leader_never_drops_itself() -> None:
    change = shrink(leader(), now_ms=10 * LAG_MS)
    assert change is not None
    assert change.isr == (ME,)


@pytest.mark.parametrize(
    ("offset", "high_watermark", "joins"),
    [
        (100, 100, True),
        (99, 99, False),  # Not up to the start of this leader epoch (100).
        (100, 101, False),  # Not up to the high watermark.
        (120, 110, True),
    ],
)
def test_who_may_join(offset: int, high_watermark: int, joins: bool) -> None:
    partition = leader(isr=(1, 2), log_end_offset=100)
    follower = fetched(partition, THREE, offset, leader_end=130, life=7)
    change = expand(partition, follower, high_watermark=high_watermark)
    assert (change is not None) == joins
    if change is not None:
        assert change.isr == (ME, TWO, THREE)
        assert (change.joining, change.joining_epoch) == (THREE, 7)


def test_a_dead_broker_does_not_join() -> None:
    partition = leader(isr=(1, 2))
    follower = fetched(partition, THREE, 100)
    assert (
        partition.propose_expansion(follower, high_watermark=0, now_ms=0, is_alive=lambda broker: False)
        is None
    )


def test_a_member_does_not_join_again() -> None:
    partition = leader()
    assert expand(partition, fetched(partition, THREE, 100)) is None


def test_at_most_one_change_is_in_flight() -> None:
    partition, _ = pending_expansion()
    assert shrink(partition, now_ms=10 * LAG_MS) is None
    partition = leader()
    assert shrink(partition, now_ms=LAG_MS + 1) is not None
    assert expand(partition, fetched(partition, THREE, 100)) is None


def test_until_the_outcome_is_known_members_before_and_after_count() -> None:
    expanding, _ = pending_expansion(isr=(1, 2))
    fetched(expanding, TWO, 100)
    fetched(expanding, THREE, 80, leader_end=200, now_ms=1)
    assert watermark(expanding, now_ms=10 * LAG_MS) == 80  # The one that may have joined.
    shrinking = leader()
    fetched(shrinking, TWO, 100, now_ms=LAG_MS)
    fetched(shrinking, THREE, 30, leader_end=100)
    assert shrink(shrinking, now_ms=LAG_MS + 1) is not None
    assert watermark(shrinking, now_ms=10 * LAG_MS) == 30  # The one that may have left.


def test_a_written_change_is_committed() -> None:
    partition, change = pending_expansion()
    written = Written(PartitionEpoch(11), (ME, TWO, THREE))
    assert partition.settle(change, written) is Settled.COMMITTED
    assert (partition.isr, partition.partition_epoch, partition.change) == (REPLICAS, 11, None)


def test_the_store_may_have_left_out_members_that_restarted() -> None:
    partition, change = pending_expansion()
    assert partition.settle(change, Written(PartitionEpoch(11), (ME, THREE))) is Settled.COMMITTED
    assert partition.isr == (ME, THREE)
    fetched(partition, THREE, 100)
    assert watermark(partition, now_ms=10 * LAG_MS) == 100  # TWO counts no more.


def test_a_conflict_under_the_same_leader_and_epoch_is_adopted() -> None:
    partition, change = pending_expansion()
    found = state(isr=(1, 2), version=12)
    assert partition.settle(change, Conflict(found)) is Settled.ADOPTED
    assert (partition.isr, partition.partition_epoch, partition.change) == ((ME, TWO), 12, None)
    assert not partition.is_deposed
    # The next check decides anew, from the version found.
    follower = fetched(partition, THREE, 100)
    again = expand(partition, follower)
    assert again is not None
    assert again.expected_version == 12


@pytest.mark.parametrize(
    "found", [state(leader=2, epoch=6, version=12), state(leader=1, epoch=6, version=12), None]
)
def test_a_conflict_with_another_leader_or_epoch_deposes(found: LeaderAndIsr | None) -> None:
    partition, change = pending_expansion()
    assert partition.settle(change, Conflict(found)) is Settled.DEPOSED
    assert partition.is_deposed
    fetched(partition, TWO, 100)
    fetched(partition, THREE, 100)
    assert watermark(partition, current=7) == 7  # It stands still.
    assert shrink(partition, now_ms=10 * LAG_MS) is None  # It writes no more.


def test_a_deposed_leader_waits_for_a_newer_epoch_not_for_a_confirmation() -> None:
    partition, change = pending_expansion()
    partition.settle(change, Conflict(state(leader=2, epoch=6, version=12)))
    partition.confirm(state(version=11), REPLICAS)
    assert partition.is_deposed
    partition.become_leader(state(epoch=7, version=13), REPLICAS, log_end_offset=100, now_ms=0)
    assert not partition.is_deposed


def test_a_refused_write_leaves_the_isr_and_the_next_attempt_waits() -> None:
    partition, change = pending_expansion()
    assert partition.settle(change, Fenced("another life")) is Settled.UNCHANGED
    assert (partition.isr, partition.change) == ((ME, TWO), None)
    follower = fetched(partition, THREE, 100)
    follower.join_not_before_ms = 500
    assert expand(partition, follower, now_ms=499) is None
    assert expand(partition, follower, now_ms=500) is not None


@pytest.mark.parametrize(
    ("found", "settled", "isr"),
    [
        (state(isr=(1, 2, 3), version=11), Settled.COMMITTED, (1, 2, 3)),
        (state(isr=(1, 2), version=10), Settled.UNCHANGED, (1, 2)),
        (state(isr=(1,), version=11), Settled.ADOPTED, (1,)),
        (state(leader=3, epoch=6, version=11), Settled.DEPOSED, (1, 2)),
        (None, Settled.DEPOSED, (1, 2)),
    ],
)
def test_an_unknown_outcome_stays_pending_until_read_back(
    found: LeaderAndIsr | None, settled: Settled, isr: tuple[int, ...]
) -> None:
    partition, change = pending_expansion()
    assert partition.settle(change, Unknown("connection lost")) is Settled.PENDING
    assert partition.change is change
    assert partition.read_back(change, state(isr=(1, 2), version=9)) is Settled.PENDING  # A stale answer.
    assert partition.read_back(change, found) is settled
    assert partition.isr == isr


def test_outcomes_of_an_epoch_that_is_over_do_not_count() -> None:
    partition, change = pending_expansion()
    partition.become_leader(state(epoch=6, isr=(1, 2), version=12), REPLICAS, log_end_offset=100, now_ms=0)
    assert partition.settle(change, Written(PartitionEpoch(11), REPLICAS)) is Settled.MOOT
    assert partition.read_back(change, None) is Settled.MOOT
    assert (partition.isr, partition.is_deposed) == ((ME, TWO), False)


# ---- frozen leaders ----


def test_a_frozen_leader_proposes_no_change_and_its_high_watermark_goes_on() -> None:
    partition = leader(isr=(1, 2))
    follower = fetched(partition, THREE, 100)
    fetched(partition, TWO, 100)
    partition.freeze()
    assert expand(partition, follower) is None
    assert shrink(partition, now_ms=10 * LAG_MS) is None
    assert watermark(partition) == 100  # acks=all goes on.
    partition.unfreeze()
    assert expand(partition, follower) is not None


def test_a_new_epoch_does_not_lift_the_freeze_by_itself() -> None:
    partition = leader()
    partition.freeze()
    partition.become_leader(state(epoch=6, version=11), REPLICAS, log_end_offset=100, now_ms=0)
    assert partition.is_frozen  # Whether it does is a matter of the broker epoch it came with.


@pytest.mark.parametrize(
    ("version", "isr", "partition_epoch"),
    [(11, (1, 2), 11), (10, (1, 2, 3), 10), (9, (1, 2, 3), 10)],
)
def test_a_confirmation_adopts_the_isr_only_with_a_higher_partition_epoch(
    version: int, isr: tuple[int, ...], partition_epoch: int
) -> None:
    partition = leader()
    changed = partition.confirm(state(isr=(1, 2), version=version), REPLICAS)
    assert (partition.isr, partition.partition_epoch) == (isr, partition_epoch)
    assert changed == (version == 11)


def test_a_change_in_flight_outlives_a_confirmation() -> None:
    partition, change = pending_expansion(isr=(1, 2))
    partition.confirm(state(isr=(1, 2), version=12), REPLICAS)
    assert partition.change is change
    fetched(partition, TWO, 100)
    fetched(partition, THREE, 80, leader_end=200)
    assert watermark(partition, now_ms=10 * LAG_MS) == 80
    assert partition.read_back(change, state(isr=(1, 2), version=12)) is Settled.UNCHANGED
    assert watermark(partition, now_ms=10 * LAG_MS) == 100


def test_an_answer_older_than_a_confirmation_does_not_take_the_isr_back() -> None:
    partition, change = pending_expansion(isr=(1, 2))
    partition.confirm(state(isr=(1,), version=13), REPLICAS)
    assert partition.settle(change, Written(PartitionEpoch(11), REPLICAS)) is Settled.COMMITTED
    assert (partition.isr, partition.partition_epoch) == ((ME,), 13)


# ---- instructions ----


@pytest.mark.parametrize(
    ("instruction", "replicas", "verdict"),
    [
        (state(epoch=6, version=11), REPLICAS, Verdict.NEW_LEADER_EPOCH),
        (state(epoch=6, leader=2, version=11), REPLICAS, Verdict.NEW_LEADER_EPOCH),
        (state(epoch=6, version=9), REPLICAS, Verdict.SUPERSEDED),
        (state(epoch=5), REPLICAS, Verdict.CONFIRMATION),
        (state(epoch=5, version=3), REPLICAS, Verdict.CONFIRMATION),
        (state(epoch=5, leader=2), REPLICAS, Verdict.STALE),
        (state(epoch=4, version=99), REPLICAS, Verdict.STALE),
        (state(epoch=6, version=11), (TWO, THREE), Verdict.NOT_ASSIGNED),
    ],
)
def test_what_an_instruction_is(
    instruction: LeaderAndIsr, replicas: tuple[BrokerId, ...], verdict: Verdict
) -> None:
    assert leader().judge(instruction, replicas) is verdict


# ---- fencing ----


@pytest.mark.parametrize(
    ("role", "asked_in", "error"),
    [
        (Role.LEADER, 5, None),
        (Role.LEADER, -1, None),
        (Role.LEADER, 4, FencedLeaderEpochError),
        (Role.LEADER, 6, UnknownLeaderEpochError),
        (Role.FOLLOWER, 5, NotLeaderOrFollowerError),
        (Role.FOLLOWER, 4, FencedLeaderEpochError),
        (Role.OFFLINE, 5, KafkaStorageError),
    ],
)
def test_who_is_answered(role: Role, asked_in: int, error: type[BrokerError] | None) -> None:
    partition = leader()
    if role is Role.FOLLOWER:
        partition = Partition(TP, ME)
        partition.become_follower(state(leader=2), REPLICAS)
    elif role is Role.OFFLINE:
        partition.go_offline()
    if error is None:
        partition.check_leader(asked_in)
    else:
        with pytest.raises(error):
            partition.check_leader(asked_in)


def test_a_fetch_of_an_earlier_life_is_refused_in_the_same_leader_epoch() -> None:
    partition = leader()
    fetched(partition, TWO, 80, life=20)
    with pytest.raises(StaleBrokerEpochError):
        partition.follower(TWO, broker_epoch=BrokerEpoch(19), current_leader_epoch=5)
    assert partition.followers[TWO].log_end_offset == 80
    assert fetched(partition, TWO, 0, life=21).log_end_offset == 0
    # In the next leader epoch the count begins anew.
    partition.become_leader(state(epoch=6, version=11), REPLICAS, log_end_offset=100, now_ms=0)
    partition.follower(TWO, broker_epoch=BrokerEpoch(19), current_leader_epoch=6)


@pytest.mark.parametrize(
    ("asked_in", "error"), [(5, UnknownLeaderEpochError), (-1, NotLeaderOrFollowerError)]
)
def test_a_broker_that_is_no_replica(asked_in: int, error: type[BrokerError]) -> None:
    with pytest.raises(error):
        leader().follower(BrokerId(9), broker_epoch=BrokerEpoch(1), current_leader_epoch=asked_in)
