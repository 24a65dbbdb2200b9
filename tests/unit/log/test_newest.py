"""What a log hands out from memory is what it would have read, and no more is kept than allowed."""

from __future__ import annotations

import pytest

from kafkalite.log.newest import KeptOfLog, NewestBatches, held_bytes


def kept(*sizes: int, newest: NewestBatches | None = None) -> KeptOfLog:
    """Batches of one offset each, from 0 on; batch n consists of bytes n."""
    log = KeptOfLog(newest or NewestBatches(1 << 20))
    for offset, size in enumerate(sizes):
        log.keep(offset, offset + 1, bytes([offset]) * size)
    return log


@pytest.mark.parametrize(
    ("offset", "max_bytes", "upper_bound", "min_one_message", "expected"),
    [
        (0, 100, 3, True, (0, 1, 2)),
        (1, 100, 3, True, (1, 2)),
        (0, 100, 2, True, (0, 1)),
        (0, 20, 3, True, (0, 1)),
        (0, 29, 3, True, (0, 1)),
        (0, 30, 3, True, (0, 1, 2)),
        (0, 9, 3, True, (0,)),
        (0, 9, 3, False, None),
        (0, 100, 0, True, None),
        (3, 100, 9, True, None),
    ],
)
def test_reads_keep_to_the_limits(
    offset: int, max_bytes: int, upper_bound: int, min_one_message: bool, expected: tuple[int, ...] | None
) -> None:
    found = kept(10, 10, 10).read(
        offset, max_bytes=max_bytes, upper_bound=upper_bound, min_one_message=min_one_message
    )
    if expected is None:
        assert found is None
    else:
        assert found == (b"".join(bytes([n]) * 10 for n in expected), expected[-1] + 1)


def test_one_batch_is_handed_out_as_it_lies() -> None:
    log = KeptOfLog(NewestBatches(1000))
    records = b"batch"
    log.keep(0, 1, records)
    found = log.read(0, max_bytes=10, upper_bound=1, min_one_message=True)
    assert found is not None
    assert found[0] is records


def test_the_bound_holds_for_all_logs_and_the_oldest_goes_first() -> None:
    newest = NewestBatches(3000)
    first, second = kept(1000, 1000, newest=newest), kept(1000, newest=newest)
    limits = {"max_bytes": 5000, "upper_bound": 9}
    assert first.read(0, min_one_message=True, **limits) is None
    assert first.read(1, min_one_message=True, **limits) is not None
    assert second.read(0, min_one_message=True, **limits) is not None
    second.keep(1, 2, bytes(5000))
    assert first.read(1, min_one_message=True, **limits) is None
    assert second.read(0, min_one_message=True, **limits) is None


def test_a_view_counts_for_all_that_it_holds() -> None:
    assert held_bytes(memoryview(bytearray(5000))[10:20]) == 5000
    newest = NewestBatches(6000)
    log = KeptOfLog(newest)
    for offset in range(2):
        log.keep(offset, offset + 1, memoryview(bytearray(5000))[:10])
    assert log.read(0, max_bytes=100, upper_bound=9, min_one_message=True) is None


def test_what_was_cut_off_is_gone_and_its_successor_is_not_forgotten_with_it() -> None:
    newest = NewestBatches(3000)
    log = kept(1000, newest=newest)
    log.clear()
    assert log.read(0, max_bytes=5000, upper_bound=9, min_one_message=True) is None
    log.keep(0, 1, b"other" * 200)
    kept(1000, newest=newest)  # Pushes the first batch out, which lay at the same offset.
    found = log.read(0, max_bytes=5000, upper_bound=9, min_one_message=True)
    assert found == (b"other" * 200, 1)
