"""Indexes: a lookup finds what a scan of the entries would find, in memory and in the file."""

from __future__ import annotations

import pytest

from kafkalite.log.index import CorruptIndexError, OffsetIndex, TimeIndex
from tests.support.disk import SimulatedDisk

BASE = 1000


def offset_index(disk: SimulatedDisk, max_bytes: int = 1 << 20) -> OffsetIndex:
    return OffsetIndex(disk, "/i.index", base_offset=BASE, max_bytes=max_bytes)


def time_index(disk: SimulatedDisk, max_bytes: int = 1 << 20) -> TimeIndex:
    return TimeIndex(disk, "/i.timeindex", base_offset=BASE, max_bytes=max_bytes)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1500])
def test_lookups_agree_with_a_scan(count: int, in_memory: bool) -> None:
    index = offset_index(SimulatedDisk())
    if in_memory:
        index.activate()
    entries = [(BASE + 3 * n + 1, 100 * n) for n in range(count)]
    for entry in entries:
        index.append(*entry)
    assert index.entries() == entries
    step = max(count // 40, 1)
    for target in [*range(BASE - 2, BASE + 3 * count + 4, step)]:
        expected = max((entry for entry in entries if entry[0] <= target), default=(BASE, 0))
        assert index.lookup(target) == expected
    for position in range(0, 100 * count + 50, 50 * step):
        expected = max((entry for entry in entries if entry[1] <= position), default=(BASE, 0))
        assert index.lookup_position(position) == expected


def test_the_file_is_kafkas() -> None:
    disk = SimulatedDisk()
    offset_index(disk).append(BASE + 5, 77)
    time_index(disk).maybe_append(123, BASE + 5)
    assert disk.read("/i.index") == bytes([0, 0, 0, 5, 0, 0, 0, 77])
    assert disk.read("/i.timeindex") == bytes([0, 0, 0, 0, 0, 0, 0, 123, 0, 0, 0, 5])


def test_sealing_and_opening_keep_the_entries() -> None:
    disk = SimulatedDisk()
    index = offset_index(disk)
    index.activate()
    index.append(BASE + 1, 10)
    index.append(BASE + 2, 20)
    index.seal()
    assert index.lookup(BASE + 2) == (BASE + 2, 20)
    again = offset_index(disk)
    again.activate()
    assert again.entries() == [(BASE + 1, 10), (BASE + 2, 20)]


@pytest.mark.parametrize(
    ("offset", "kept"), [(BASE, 0), (BASE + 1, 0), (BASE + 2, 1), (BASE + 3, 2), (BASE + 9, 2)]
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_truncate(offset: int, kept: int, in_memory: bool) -> None:
    disk = SimulatedDisk()
    offsets, times = offset_index(disk), time_index(disk)
    if in_memory:
        offsets.activate()
        times.activate()
    for number in (1, 2):
        offsets.append(BASE + number, 10 * number)
        times.maybe_append(100 * number, BASE + number)
    offsets.truncate_to(offset)
    times.truncate_to(offset)
    assert offsets.entries() == [(BASE + 1, 10), (BASE + 2, 20)][:kept]
    assert times.entries() == [(100, BASE + 1), (200, BASE + 2)][:kept]
    assert disk.size("/i.index") == 8 * kept


def test_time_entries_rise() -> None:
    index = time_index(SimulatedDisk())
    for timestamp, offset in [(10, BASE + 1), (10, BASE + 2), (5, BASE + 3), (11, BASE + 4)]:
        index.maybe_append(timestamp, offset)
    assert index.entries() == [(10, BASE + 1), (11, BASE + 4)]
    assert index.lookup(9) == (-1, BASE)
    assert index.lookup(10) == (10, BASE + 1)
    assert index.lookup(99) == (11, BASE + 4)


def test_a_full_time_index_keeps_one_slot() -> None:
    index = time_index(SimulatedDisk(), max_bytes=3 * 12 + 5)
    fullness = []
    for number in (1, 2):
        index.maybe_append(number, BASE + number)
        fullness.append(index.is_full)
    assert fullness == [False, True]
    index.maybe_append(3, BASE + 3)
    index.maybe_append(4, BASE + 4)
    assert [entry.timestamp for entry in index.entries()] == [1, 2, 3]


def test_visible_damage() -> None:
    disk = SimulatedDisk()
    index = offset_index(disk)
    index.append(BASE + 5, 77)
    index.check(log_size=78)
    with pytest.raises(CorruptIndexError, match="outside of the log"):
        index.check(log_size=77)
    disk.open("/i.index").append([b"x"])
    with pytest.raises(CorruptIndexError, match="no multiple of 8"):
        offset_index(disk).check(log_size=78)


def test_a_lookup_that_must_not_wait() -> None:
    disk = SimulatedDisk()
    index = offset_index(disk)
    index.append(BASE + 5, 77)
    disk.is_cold = True
    with pytest.raises(BlockingIOError):
        index.lookup(BASE + 5, wait=False)
    index.activate()
    assert index.lookup(BASE + 5, wait=False) == (BASE + 5, 77)
