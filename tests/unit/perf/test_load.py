"""What the performance tools count on: checksums known beforehand, schedules, percentiles."""

from __future__ import annotations

import zlib

import pytest
from crc32c import crc32c

from kafkalite.perf.latencies import Latencies
from kafkalite.perf.load import Monotonic, Payloads, Pooled, Schedule, Stream, checksum


@pytest.mark.parametrize("payloads", [Pooled([b"a", b"bc", b""]), Monotonic(), Pooled.random(20)])
@pytest.mark.parametrize("count", [0, 1, 3, 7, 25_001])
def test_the_checksum_is_that_of_the_values_whatever_the_slices(payloads: Payloads, count: int) -> None:
    values: list[bytes] = []
    while len(values) < count:
        piece = payloads.slice(len(values), min(999, count - len(values)))
        assert piece
        values += piece
    assert len(values) == count
    assert payloads.checksum(count) == checksum(values) == checksum(reversed(values))
    assert payloads.size(count) == len(b"".join(values))
    assert checksum([b"x"]) == zlib.crc32(b"x")


def test_a_changed_a_lost_and_a_doubled_value_change_the_checksum() -> None:
    values = list(Pooled.random(10).slice(0, 100))
    right = checksum(values)
    assert checksum([b"other", *values[1:]]) != right
    assert checksum(values[1:]) != right
    assert checksum([*values, values[0]]) != right


def test_records_are_due_by_the_rate_however_late_one_looks() -> None:
    schedule = Schedule(10.0, 100)
    assert schedule.due(0, 10.0, 50) == 1
    assert schedule.due(1, 10.0, 50) == 0
    assert schedule.due(1, 10.125, 50) == 12
    assert schedule.due(1, 20.0, 50) == 50
    assert schedule.at(30, 99.0) == pytest.approx(10.3)


def test_without_a_rate_everything_is_due_now() -> None:
    schedule = Schedule(10.0, None)
    assert schedule.due(7, 10.0, 50) == 50
    assert schedule.at(7, 12.5) == 12.5


def test_latencies_are_summed_up_by_values_that_occurred() -> None:
    latencies = Latencies()
    assert latencies.summary().count == 0
    for ms in range(1000, 0, -1):
        latencies.add(float(ms))
    assert latencies.since_last() == (500.5, 1000.0)
    latencies.add(2000.0)
    assert latencies.since_last() == (2000.0, 2000.0)
    assert latencies.since_last() == (0.0, 0.0)
    found = latencies.summary()
    assert (found.count, found.p50, found.p99, found.p999, found.max) == (1001, 501.0, 991.0, 1000.0, 2000.0)


def test_a_stream_is_the_same_however_it_is_cut_and_no_other() -> None:
    values = [b"one", None, b"two", b"", b"three"]
    whole, cut = Stream(), Stream()
    whole.take(values, [b"k", None, None, None, b"key"])
    cut.take(values[:2])
    cut.take(values[2:])
    assert whole.crc == cut.crc == crc32c(b"onetwothree")
    assert (whole.bytes, cut.bytes) == (15, 11)
    for wrong in ([b"two", b"one", b"three"], [b"one", b"two"], [b"one", b"two", b"three", b"three"]):
        other = Stream()
        other.take(wrong)
        assert other.crc != whole.crc
