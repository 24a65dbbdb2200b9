"""Columns of records: timestamps that are added up late, parts and joins."""

from __future__ import annotations

import pytest

from kafkalite.client.records import RecordColumns, Timestamps


def columns(first: int, timestamps: Timestamps | list[int]) -> RecordColumns:
    count = len(timestamps)
    return RecordColumns(
        "t", 0, range(first, first + count), timestamps, [0] * count, None, [b"v"] * count, None
    )


def test_timestamps_are_a_sequence_of_sums() -> None:
    stamps = Timestamps([(100, [0, 3, -2, 3])])
    assert len(stamps) == 4
    assert list(stamps) == [100, 103, 98, 103]
    assert (stamps[1], stamps[-2]) == (103, 98)
    assert stamps[1:3] == [103, 98]
    assert stamps[::-1] == [103, 98, 103, 100]
    assert 98 in stamps
    assert stamps == [100, 103, 98, 103]
    assert stamps != [100, 103, 98]
    assert stamps.index(103) == 1
    with pytest.raises(IndexError):
        stamps[4]
    assert repr(stamps) == "[100, 103, 98, 103]"
    assert stamps[1] == 103  # And the same once they are added up.


def test_joined_columns_keep_each_batch_s_own_base() -> None:
    parts = [
        columns(5, Timestamps([(100, [0, 1])])),
        columns(7, [42, 43]),
        columns(9, Timestamps([(200, [7])])),
    ]
    joined = RecordColumns.joined(parts)
    assert joined.offsets == range(5, 10)
    assert joined.timestamps == [100, 101, 42, 43, 207]
    assert joined.timestamps[1:4] == [101, 42, 43]
    assert [record.timestamp for record in joined.records()] == [100, 101, 42, 43, 207]
    assert joined.part(1, 3).timestamps == [101, 42]
    assert RecordColumns.joined([joined, columns(10, [1])]).timestamps == [100, 101, 42, 43, 207, 1]
