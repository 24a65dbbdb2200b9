"""Where a follower cuts its log (reference 5.6 and 5.3), case by case."""

from __future__ import annotations

import pytest

from kafkalite.replication.truncation import (
    EpochEnd,
    OutOfRange,
    Truncation,
    after_out_of_range,
    diverges,
    truncation_after,
)

UNKNOWN = EpochEnd(-1, -1)


@pytest.mark.parametrize(
    ("leader", "follower", "expected"),
    [
        (UNKNOWN, None, Truncation(40, done=True)),  # The leader cannot tell: the high watermark.
        (EpochEnd(-1, 70), None, Truncation(70, done=True)),
        (EpochEnd(3, 70), EpochEnd(3, 60), Truncation(60, done=True)),
        (EpochEnd(3, 60), EpochEnd(3, 70), Truncation(60, done=True)),
        (EpochEnd(3, 200), EpochEnd(3, 300), Truncation(100, done=True)),  # Never beyond the own end.
        (EpochEnd(3, 70), EpochEnd(2, 50), Truncation(50, done=False)),  # Walk further down.
        (EpochEnd(3, 70), UNKNOWN, Truncation(70, done=True)),  # No entry here.
        (EpochEnd(3, 70), None, Truncation(70, done=True)),
    ],
)
def test_truncation(leader: EpochEnd, follower: EpochEnd | None, expected: Truncation) -> None:
    assert truncation_after(leader, follower, log_end_offset=100, initial_offset=40) == expected


@pytest.mark.parametrize(
    ("last_fetched_epoch", "fetch_offset", "leader", "expected"),
    [
        (3, 70, EpochEnd(3, 70), False),
        (3, 71, EpochEnd(3, 70), True),  # More in epoch 3 than the leader has.
        (3, 60, EpochEnd(2, 70), True),  # The leader never had epoch 3.
    ],
)
def test_divergence(last_fetched_epoch: int, fetch_offset: int, leader: EpochEnd, expected: bool) -> None:
    assert diverges(last_fetched_epoch, fetch_offset, leader) is expected


@pytest.mark.parametrize(
    ("leader_start", "leader_end", "expected"),
    [
        (0, 90, OutOfRange(truncate_to=90)),
        (150, 200, OutOfRange(restart_at=150)),
        (50, 200, OutOfRange()),
    ],
)
def test_after_out_of_range(leader_start: int, leader_end: int, expected: OutOfRange) -> None:
    assert (
        after_out_of_range(leader_start=leader_start, leader_end=leader_end, log_end_offset=100) == expected
    )
