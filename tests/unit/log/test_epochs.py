"""The leader-epoch cache."""

from __future__ import annotations

import pytest

from kafkalite.common import LeaderEpoch
from kafkalite.log.checkpoint import CorruptCheckpointError
from kafkalite.log.epochs import EpochEntry, LeaderEpochCache


def cache(*entries: tuple[int, int]) -> LeaderEpochCache:
    return LeaderEpochCache(EpochEntry(LeaderEpoch(epoch), offset) for epoch, offset in entries)


def pairs(epochs: LeaderEpochCache) -> list[tuple[int, int]]:
    return [(entry.epoch, entry.start_offset) for entry in epochs.entries]


@pytest.mark.parametrize(
    ("epoch", "offset", "expected"),
    [
        (4, 30, [(1, 0), (3, 10), (4, 30)]),
        (3, 30, [(1, 0), (3, 10)]),  # Already known, and from earlier on.
        (3, 5, [(1, 0), (3, 5)]),
        (2, 20, [(1, 0), (2, 20)]),  # What contradicts a later truth goes.
        (4, 10, [(1, 0), (4, 10)]),
        (9, 0, [(9, 0)]),
    ],
)
def test_assign(epoch: int, offset: int, expected: list[tuple[int, int]]) -> None:
    epochs = cache((1, 0), (3, 10))
    changed = epochs.assign(LeaderEpoch(epoch), offset)
    assert pairs(epochs) == expected
    assert changed == (expected != [(1, 0), (3, 10)])


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (-1, (-1, -1)),
        (0, (0, 5)),
        (1, (1, 10)),
        (2, (1, 10)),
        (3, (3, 20)),
        (4, (3, 20)),
        (5, (5, 99)),
        (6, (-1, -1)),
    ],
)
def test_end_offset_for(question: int, answer: tuple[int, int]) -> None:
    assert cache((1, 5), (3, 10), (5, 20)).end_offset_for(LeaderEpoch(question), 99) == answer


def test_an_empty_cache_knows_nothing() -> None:
    assert cache().end_offset_for(LeaderEpoch(0), 7) == (-1, -1)
    assert cache().latest_epoch == -1


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, []), (5, []), (6, [(1, 5)]), (10, [(1, 5)]), (11, [(1, 5), (3, 10)])]
)
def test_truncate_from_end(offset: int, expected: list[tuple[int, int]]) -> None:
    epochs = cache((1, 5), (3, 10))
    assert epochs.truncate_from_end(offset) == (len(expected) != 2)
    assert pairs(epochs) == expected


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (4, [(1, 5), (3, 10)]),
        (5, [(1, 5), (3, 10)]),
        (7, [(1, 7), (3, 10)]),
        (10, [(3, 10)]),
        (12, [(3, 12)]),
    ],
)
def test_truncate_from_start(offset: int, expected: list[tuple[int, int]]) -> None:
    epochs = cache((1, 5), (3, 10))
    assert epochs.truncate_from_start(offset) == (expected != [(1, 5), (3, 10)])
    assert pairs(epochs) == expected


def test_ranges() -> None:
    epochs = cache((1, 5), (3, 10), (5, 20))
    assert epochs.ranges_between(7, 25) == [(1, 7, 10), (3, 10, 20), (5, 20, 25)]
    assert epochs.ranges_between(2, 6) == [(-1, 2, 5), (1, 5, 6)]
    assert epochs.ranges_between(6, 6) == []


def test_the_file_is_kafkas() -> None:
    epochs = cache((1, 5), (3, 10))
    assert epochs.encode() == b"0\n2\n1 5\n3 10\n"
    assert pairs(LeaderEpochCache.decode(b"0\n2\n1 5\n3 10\n", "f")) == [(1, 5), (3, 10)]


@pytest.mark.parametrize(
    "data",
    [b"", b"1\n0\n", b"0\n", b"0\n2\n1 5\n", b"0\n1\n1 5 6\n", b"0\n1\na 5\n", b"0\n2\n3 5\n1 10\n",
     b"0\n1\n1 5", b"\xff\xfe", b"0\n-1\n"],
)  # fmt: skip
def test_damaged_files_are_noticed(data: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        LeaderEpochCache.decode(data, "f")
