"""What is remembered of producers."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from kafkalite.common import TopicPartition
from kafkalite.log.producer_state import CorruptSnapshotError, ProducerStates
from kafkalite.protocol.errors import InvalidProducerEpochError, OutOfOrderSequenceNumberError
from kafkalite.protocol.record_batch import BatchHeader
from tests.support.logs import NOW_MS, make_batch

LAST = 2**31 - 1


def header(
    sequence: int, count: int = 1, *, offset: int = 0, epoch: int = 0, producer_id: int = 7
) -> BatchHeader:
    batch = make_batch([b"v"] * count, producer=(producer_id, epoch, sequence))
    return BatchHeader.parse(batch)._replace(base_offset=offset)


def states(*headers: BatchHeader) -> ProducerStates:
    found = ProducerStates(TopicPartition("t", 0))
    for one in headers:
        found.update(one)
    return found


def six_batches() -> ProducerStates:
    return states(*(header(2 * n, 2, offset=100 + 2 * n) for n in range(6)))


def test_an_unknown_producer_may_start_anywhere() -> None:
    assert states().check(header(41)) is None


@pytest.mark.parametrize("number", range(1, 6))
def test_a_retry_of_any_of_the_last_five_gets_its_offsets(number: int) -> None:
    earlier = six_batches().check(header(2 * number, 2))
    assert earlier is not None
    assert (earlier.first_offset, earlier.last_offset) == (100 + 2 * number, 101 + 2 * number)


@pytest.mark.parametrize(("sequence", "count"), [(0, 2), (11, 1), (13, 1), (2, 1), (2, 3)])
def test_neither_a_retry_nor_the_next(sequence: int, count: int) -> None:
    with pytest.raises(OutOfOrderSequenceNumberError, match="must go on with sequence 12"):
        six_batches().check(header(sequence, count))


def test_the_next_sequence_is_accepted() -> None:
    assert six_batches().check(header(12)) is None


def test_sequences_wrap_to_zero() -> None:
    before = states(header(LAST - 1, 2, offset=5))
    assert before.check(header(0)) is None
    with pytest.raises(OutOfOrderSequenceNumberError):
        before.check(header(1))
    across = states(header(LAST, 3, offset=5))
    assert across.check(header(2)) is None
    earlier = across.check(header(LAST, 3))
    assert earlier is not None
    assert earlier.first_offset == 5


def test_epochs() -> None:
    known = states(header(5, epoch=3))
    with pytest.raises(InvalidProducerEpochError, match="has epoch 3 by now, the batch has 2"):
        known.check(header(6, epoch=2))
    with pytest.raises(OutOfOrderSequenceNumberError, match="must begin its epoch 4 with sequence 0"):
        known.check(header(6, epoch=4))
    assert known.check(header(0, epoch=4)) is None
    known.update(header(0, epoch=4))
    assert known.check(header(1, epoch=4)) is None
    with pytest.raises(InvalidProducerEpochError):
        known.check(header(5, epoch=3))  # Not a duplicate any more: the window is the new epoch's.


def test_expiry_forgets_the_silent() -> None:
    known = states(header(0))
    assert known.expire(NOW_MS + 9, 10) == []
    assert known.expire(NOW_MS + 10, 10) == [7]
    assert known.check(header(41)) is None


def test_batches_without_a_producer_leave_no_trace() -> None:
    assert len(states(BatchHeader.parse(make_batch()))) == 0


def test_a_snapshot_holds_all_five() -> None:
    reloaded = states()
    reloaded.load(six_batches().encode(), "f")
    assert reloaded.entries == six_batches().entries
    for number in range(1, 6):
        assert reloaded.check(header(2 * number, 2)) is not None


def test_kafkas_version_1_is_read_with_its_one_batch() -> None:
    body = struct.pack(">iqhiqiqiq", 1, 7, 0, 11, 111, 1, NOW_MS, -1, -1)
    reloaded = states()
    reloaded.load(struct.pack(">hI", 1, crc32c(body)) + body, "f")
    assert reloaded.check(header(10, 2)) is not None
    assert reloaded.check(header(12)) is None


def test_damage_is_noticed_at_every_byte_and_changes_nothing() -> None:
    data = six_batches().encode()
    known = states(header(0))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        with pytest.raises(CorruptSnapshotError):
            known.load(bytes(damaged), "f")
        with pytest.raises(CorruptSnapshotError):
            known.load(data[:position], "f")
    assert known.entries == states(header(0)).entries
