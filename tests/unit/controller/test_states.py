"""Every move of both state machines, legal or not, against the reference's tables."""

import itertools

import pytest

from controller import partition_state, replica_state
from controller.partition_state import PartitionState
from controller.replica_state import ReplicaState

P, R = PartitionState, ReplicaState

LEGAL_PARTITION_MOVES = {
    (P.NON_EXISTENT, P.NEW),
    (P.NEW, P.ONLINE),
    (P.ONLINE, P.ONLINE),
    (P.OFFLINE, P.ONLINE),
    (P.NEW, P.OFFLINE),
    (P.ONLINE, P.OFFLINE),
    (P.OFFLINE, P.OFFLINE),
    (P.OFFLINE, P.NON_EXISTENT),
}

LEGAL_REPLICA_MOVES = {
    (R.NON_EXISTENT, R.NEW),
    *((state, R.ONLINE) for state in (R.NEW, R.ONLINE, R.OFFLINE, R.DELETION_INELIGIBLE)),
    *((state, R.OFFLINE) for state in (R.NEW, R.ONLINE, R.OFFLINE, R.DELETION_INELIGIBLE)),
    (R.OFFLINE, R.DELETION_STARTED),
    (R.DELETION_STARTED, R.DELETION_SUCCESSFUL),
    (R.OFFLINE, R.DELETION_INELIGIBLE),
    (R.DELETION_STARTED, R.DELETION_INELIGIBLE),
    (R.DELETION_SUCCESSFUL, R.NON_EXISTENT),
}


@pytest.mark.parametrize(("current", "target"), list(itertools.product(P, P)))
def test_partition_moves(current: PartitionState, target: PartitionState) -> None:
    assert partition_state.is_valid_move(current, target) == ((current, target) in LEGAL_PARTITION_MOVES)


@pytest.mark.parametrize(("current", "target"), list(itertools.product(R, R)))
def test_replica_moves(current: ReplicaState, target: ReplicaState) -> None:
    assert replica_state.is_valid_move(current, target) == ((current, target) in LEGAL_REPLICA_MOVES)


def test_numbers_are_kafkas() -> None:
    assert [state.value for state in (P.NEW, P.ONLINE, P.OFFLINE, P.NON_EXISTENT)] == [0, 1, 2, 3]
    assert [state.value for state in R] == [1, 2, 3, 4, 5, 6, 7]
