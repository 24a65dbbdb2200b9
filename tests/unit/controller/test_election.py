"""Every election strategy, in tables. Brokers are numbers; A is the assignment."""

from __future__ import annotations

import pytest

from controller.election import (
    RECOVERED,
    RECOVERING,
    Facts,
    Outcome,
    decided,
    elect_controlled_shutdown,
    elect_initial,
    elect_offline,
    elect_preferred,
    elect_reassigned,
    remove_from_isr,
)
from kafkalite.common import BrokerId, ControllerEpoch, LeaderAndIsr, LeaderEpoch, PartitionEpoch


def ids(*brokers: int) -> tuple[BrokerId, ...]:
    return tuple(BrokerId(broker) for broker in brokers)


def state(leader: int, *isr: int) -> LeaderAndIsr:
    return LeaderAndIsr(BrokerId(leader), LeaderEpoch(5), ids(*isr), ControllerEpoch(1), PartitionEpoch(9))


def facts(
    assigned: tuple[int, ...],
    isr: tuple[int, ...],
    live: tuple[int, ...],
    restarted: tuple[int, ...] = (),
    leader: int | None = None,
) -> Facts:
    return Facts(
        ids(*assigned),
        state(isr[0] if leader is None else leader, *isr),
        lambda broker: broker in live,
        lambda broker: broker in restarted,
    )


@pytest.mark.parametrize(
    ("assigned", "live", "expected"),
    [
        ((1, 2, 3), (1, 2, 3), (1, (1, 2, 3))),
        ((1, 2, 3), (3, 2), (2, (2, 3))),
        ((1,), (), None),
    ],
)
def test_initial(
    assigned: tuple[int, ...], live: tuple[int, ...], expected: tuple[int, tuple[int, ...]] | None
) -> None:
    outcome = elect_initial(ids(*assigned), lambda broker: broker in live)
    assert (None if outcome is None else (outcome.leader, outcome.isr)) == expected


@pytest.mark.parametrize(
    ("assigned", "isr", "live", "restarted", "unclean", "leader", "new_isr"),
    [
        # The first assigned of the live ISR, which is the new ISR.
        ((1, 2, 3), (1, 2, 3), (2, 3), (), False, 2, (2, 3)),
        ((3, 2, 1), (1, 2, 3), (1, 2), (), False, 2, (1, 2)),
        # Who restarted comes after all who did not, and leaves the ISR.
        ((1, 2, 3), (1, 2, 3), (1, 2, 3), (1,), False, 2, (2, 3)),
        ((1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2), False, 3, (3,)),
        # All restarted: the ISR is kept, the dead member too.
        ((1, 2, 3), (1, 2, 3), (1, 2), (1, 2), False, 1, (1, 2, 3)),
        ((1,), (1,), (1,), (1,), False, 1, (1,)),
        # A restarted ISR member goes before any unclean election.
        ((1, 2), (1,), (1, 2), (1,), True, 1, (1,)),
        # Outside the ISR only uncleanly.
        ((1, 2), (1,), (2,), (), False, None, ()),
        ((1, 2), (1,), (2,), (), True, 2, (2,)),
        ((1, 2), (1,), (), (), True, None, ()),
    ],
)
def test_offline(
    assigned: tuple[int, ...],
    isr: tuple[int, ...],
    live: tuple[int, ...],
    restarted: tuple[int, ...],
    unclean: bool,
    leader: int | None,
    new_isr: tuple[int, ...],
) -> None:
    outcome = elect_offline(facts(assigned, isr, live, restarted), unclean_allowed=unclean)
    if leader is None:
        assert outcome is None
        return
    is_unclean = leader not in isr
    recovery = RECOVERING if is_unclean else RECOVERED
    assert outcome == Outcome(BrokerId(leader), ids(*new_isr), recovery, is_unclean)


@pytest.mark.parametrize(
    ("assigned", "isr", "live", "restarted", "expected"),
    [
        ((1, 2, 3), (2, 1), (1, 2), (), (1, (2, 1))),
        ((1, 2, 3), (2, 3), (1, 2, 3), (), None),  # Not in sync.
        ((1, 2, 3), (2, 1), (2,), (), None),  # Not live.
        ((1, 2, 3), (2, 1), (1, 2), (1,), None),  # Restarted since.
        ((1, 2, 3), (2, 1, 3), (1, 2, 3), (3,), (1, (2, 1))),  # No ISR names one that restarted.
    ],
)
def test_preferred(
    assigned: tuple[int, ...],
    isr: tuple[int, ...],
    live: tuple[int, ...],
    restarted: tuple[int, ...],
    expected: tuple[int, tuple[int, ...]] | None,
) -> None:
    outcome = elect_preferred(facts(assigned, isr, live, restarted))
    assert (None if outcome is None else (outcome.leader, outcome.isr)) == expected


def test_reassigned_takes_the_first_target_in_sync() -> None:
    outcome = elect_reassigned(facts((4, 5, 1, 2), (1, 5, 4), (1, 2, 5), leader=1), ids(4, 5))
    assert outcome == Outcome(BrokerId(5), ids(1, 5, 4))
    assert elect_reassigned(facts((4, 1), (1,), (1, 4)), ids(4)) is None


@pytest.mark.parametrize(
    ("isr", "stopping", "expected"),
    [
        ((1, 2, 3), (1,), (2, (2, 3))),
        ((1, 2, 3), (1, 2), (3, (3,))),
        ((1,), (1,), None),
        ((1, 2), (1, 2), None),
    ],
)
def test_controlled_shutdown(
    isr: tuple[int, ...], stopping: tuple[int, ...], expected: tuple[int, tuple[int, ...]] | None
) -> None:
    outcome = elect_controlled_shutdown(
        facts((1, 2, 3), isr, (1, 2, 3)), is_shutting_down=lambda broker: broker in stopping
    )
    assert (None if outcome is None else (outcome.leader, outcome.isr)) == expected


@pytest.mark.parametrize(
    ("leader", "isr", "restarted", "gone", "expected"),
    [
        (1, (1, 2, 3), (), 2, (1, (1, 3))),
        (1, (1, 2, 3), (), 1, (-1, (2, 3))),
        (1, (1,), (), 1, (-1, (1,))),  # The last member stays.
        (1, (1, 2), (), 3, None),
        (1, (1, 2, 3), (2,), 3, (1, (1,))),  # One that restarted leaves with it,
        (1, (1, 2, 3), (1,), 3, (-1, (2,))),  # also the leader;
        (1, (1, 3), (1,), 3, (1, (1,))),  # unless nobody else is left: a new epoch for a new life.
    ],
)
def test_leaving_the_isr(
    leader: int,
    isr: tuple[int, ...],
    restarted: tuple[int, ...],
    gone: int,
    expected: tuple[int, tuple[int, ...]] | None,
) -> None:
    new = remove_from_isr(facts((1, 2, 3), isr, (1, 2, 3), restarted, leader), BrokerId(gone))
    if expected is None:
        assert new is None
    else:
        assert new is not None
        assert (new.leader, new.isr, new.leader_epoch) == (*expected, 6)


def test_a_decision_raises_the_leader_epoch_and_carries_my_controller_epoch() -> None:
    new = decided(state(1, 1, 2), Outcome(BrokerId(2), ids(2)), ControllerEpoch(7))
    assert (new.leader, new.isr, new.leader_epoch, new.controller_epoch) == (2, (2,), 6, 7)
    assert new.partition_epoch == 9  # What the conditional write expects.
