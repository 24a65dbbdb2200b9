"""One log: what it refuses, what it returns, what a failing disk makes of it."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kafkalite.common import LeaderEpoch, Uuid
from kafkalite.log.config import LogConfig
from kafkalite.log.log import MAX_TIMESTAMP, Log, Read, UnexpectedOffset, WouldBlock
from kafkalite.log.log_dir import LogDirFailed
from kafkalite.protocol.errors import (
    BrokerError,
    CorruptMessageError,
    InconsistentTopicIdError,
    InvalidRecordError,
    InvalidTxnStateError,
    KafkaStorageError,
    MessageTooLargeError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumberError,
    RecordListTooLargeError,
)
from kafkalite.protocol.record_batch import BatchHeader, TimestampType, batches, check_crc, encode_batch
from tests.support.disk import CrashPoint, SimulatedDisk
from tests.support.logs import DIRECTORY, LOG_PATH, NOW_MS, LogDriver, make_batch, placed

EPOCH = LeaderEpoch(1)


@pytest.fixture
def driver() -> Iterator[LogDriver]:
    driver = LogDriver(config=LogConfig(index_interval_bytes=100))
    driver.become_leader()
    yield driver
    driver.close()


def append(log: Log, batch: bytes) -> int:
    return log.append_as_leader(batch, leader_epoch=EPOCH, now_ms=NOW_MS).first_offset


def read(log: Log, offset: int, max_bytes: int = 1 << 20, upper_bound: int | None = None) -> Read:
    found = log.read(offset, max_bytes=max_bytes, upper_bound=upper_bound)
    assert isinstance(found, Read)
    return found


def flipped(batch: bytes) -> bytes:
    return batch[:-1] + bytes([batch[-1] ^ 1])


@pytest.mark.parametrize(
    ("batch", "config", "error"),
    [
        (flipped(make_batch()), {}, CorruptMessageError),
        (make_batch()[:40], {}, CorruptMessageError),
        (make_batch() * 2, {}, InvalidRecordError),
        (make_batch([b"x" * 200]), {"max_message_bytes": 100}, MessageTooLargeError),
        (make_batch([b"x" * 200]), {"segment_bytes": 100}, RecordListTooLargeError),
        (make_batch(producer=(5, 0, 3)), {}, OutOfOrderSequenceNumberError),
        (
            bytes(
                encode_batch(
                    [b"v"],
                    timestamps=NOW_MS,
                    producer_id=9,
                    producer_epoch=0,
                    base_sequence=0,
                    is_transactional=True,
                )
            ),
            {},
            InvalidTxnStateError,
        ),
    ],
)
def test_a_refused_batch_leaves_no_trace(
    driver: LogDriver, batch: bytes, config: dict[str, int], error: type[BrokerError]
) -> None:
    driver.append(count=1, size=10, producer_id=5)
    driver.log.config = replace(driver.config, **config)  # type: ignore[arg-type]
    operations = driver.disk.operations
    with pytest.raises(error):
        append(driver.log, batch)
    assert driver.disk.operations == operations
    driver.check()


def test_the_leader_sets_offset_and_epoch_and_leaves_the_rest(driver: LogDriver) -> None:
    batch = make_batch([b"a", b"b", b"c"])
    append(driver.log, batch)
    info = driver.log.append_as_leader(memoryview(batch), leader_epoch=EPOCH, now_ms=NOW_MS)
    assert (info.first_offset, info.last_offset, info.record_count, info.size) == (3, 5, 3, len(batch))
    assert (info.log_append_time_ms, info.is_duplicate) == (-1, False)
    assert bytes(read(driver.log, 3).records) == placed(batch, 3, 1)


def test_log_append_time_is_stamped_and_the_checksum_holds(driver: LogDriver) -> None:
    driver.log.config = replace(driver.config, timestamp_type=TimestampType.LOG_APPEND_TIME)
    batch = make_batch(timestamp=5, producer=(1, 0, 0))
    info = driver.log.append_as_leader(batch, leader_epoch=EPOCH, now_ms=NOW_MS + 7)
    header = check_crc(bytes(read(driver.log, 0).records))
    assert (info.log_append_time_ms, header.max_timestamp) == (NOW_MS + 7, NOW_MS + 7)
    assert header.timestamp_type is TimestampType.LOG_APPEND_TIME
    again = driver.log.append_as_leader(batch, leader_epoch=EPOCH, now_ms=NOW_MS + 9)
    assert (again.is_duplicate, again.first_offset, again.log_append_time_ms) == (True, 0, NOW_MS + 7)


@pytest.mark.parametrize(
    "timestamp_type", [TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME], ids=lambda type: type.name
)
@pytest.mark.parametrize("around", [0, 10_000], ids=["alone in its buffer", "in a large buffer"])
@pytest.mark.parametrize("is_writable", [True, False])
def test_a_kept_batch_is_handed_out_as_it_was_written(
    driver: LogDriver, timestamp_type: TimestampType, around: int, is_writable: bool
) -> None:
    driver.log.config = replace(driver.config, timestamp_type=timestamp_type)
    for number in range(3):
        batch = make_batch([b"value %d" % number])
        received = bytearray(batch + bytes(around))
        records = memoryview(received if is_writable else bytes(received))[: len(batch)]
        driver.log.append_as_leader(records, leader_epoch=EPOCH, now_ms=NOW_MS, keep=True)
    driver.disk.is_cold = True
    kept = read(driver.log, 0)
    assert (kept.base_offset, kept.next_offset) == (0, 3)
    newest = read(driver.log, 2)
    assert check_crc(bytes(newest.records)).base_offset == 2
    driver.disk.is_cold = False
    on_disk = driver.disk.read(f"{LOG_PATH}/{0:020d}.log")
    assert bytes(kept.records) == on_disk
    assert on_disk.endswith(bytes(newest.records))


def test_a_batch_that_replaced_a_kept_one_is_what_is_read(driver: LogDriver) -> None:
    for value in (b"first", b"second"):
        records = memoryview(bytearray(make_batch([value])))
        driver.log.append_as_leader(records, leader_epoch=EPOCH, now_ms=NOW_MS, keep=True)
    driver.log.truncate_to(1)
    append(driver.log, make_batch([b"another"]))
    assert bytes(read(driver.log, 1).records) == placed(make_batch([b"another"]), 1, 1)


def test_a_refused_batch_is_not_written_into(driver: LogDriver) -> None:
    batch = make_batch([b"a"])
    received = bytearray(flipped(batch))
    with pytest.raises(CorruptMessageError):
        driver.log.append_as_leader(memoryview(received), leader_epoch=EPOCH, now_ms=NOW_MS, keep=True)
    assert received == flipped(batch)


def test_a_retry_is_answered_and_not_appended(driver: LogDriver) -> None:
    for sequence in range(6):
        append(driver.log, make_batch(producer=(4, 0, sequence)))
    for sequence in range(1, 6):
        info = driver.log.append_as_leader(
            make_batch(producer=(4, 0, sequence)), leader_epoch=EPOCH, now_ms=NOW_MS
        )
        assert (info.is_duplicate, info.first_offset, info.size) == (True, sequence, 0)
    assert driver.log.log_end_offset == 6


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_retry_is_recognised_after_a_restart(driver: LogDriver, is_clean: bool) -> None:
    for _ in range(6):
        driver.append(count=2, size=10, producer_id=4)
    if is_clean:
        driver.restart_cleanly()
    else:
        driver.crash(CrashPoint(0, None, None))
    driver.check()  # Among others, that the last five batches are recognised.
    with pytest.raises(OutOfOrderSequenceNumberError):
        append(driver.log, make_batch(producer=(4, 0, 20)))


# --- Following ------------------------------------------------------------------------------------


def test_a_follower_keeps_what_the_leader_wrote(driver: LogDriver) -> None:
    data = placed(make_batch([b"a", b"b"]), 0, 3) + placed(make_batch(), 2, 5)
    info = driver.log.append_as_follower(data)
    assert (info.first_offset, info.last_offset, info.record_count) == (0, 2, 3)
    assert bytes(read(driver.log, 0).records) == data
    assert [tuple(entry) for entry in driver.log.epochs.entries] == [(3, 0), (5, 2)]


def test_a_follower_takes_gaps_and_sequences_as_they_come(driver: LogDriver) -> None:
    driver.log.append_as_follower(placed(make_batch(producer=(1, 0, 40)), 0, 1))
    driver.log.append_as_follower(placed(make_batch(producer=(1, 0, 90)), 10, 1))
    assert driver.log.log_end_offset == 11
    assert read(driver.log, 1).base_offset == 10


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (placed(make_batch(), 1, 1), UnexpectedOffset),
        (placed(make_batch(), 2, 1) + placed(make_batch(), 2, 1), UnexpectedOffset),
        (placed(make_batch(), 2, 1) + flipped(placed(make_batch(), 3, 1)), CorruptMessageError),
        (placed(make_batch(), 2, 1) + b"half a batch", CorruptMessageError),
    ],
)
def test_a_follower_appends_all_or_nothing(driver: LogDriver, data: bytes, error: type[Exception]) -> None:
    driver.append(count=2, size=1)
    with pytest.raises(error):
        driver.log.append_as_follower(data)
    driver.check()


def test_an_empty_follower_begins_at_the_batch_that_spans_its_end(driver: LogDriver) -> None:
    driver.restart_at(10)
    driver.log.append_as_follower(placed(make_batch([b"a"] * 4), 8, 1))
    assert (driver.log.log_start_offset, driver.log.log_end_offset) == (8, 12)
    assert read(driver.log, 10).base_offset == 8


# --- Reading --------------------------------------------------------------------------------------


def test_limits_of_a_read(driver: LogDriver) -> None:
    for _ in range(50):
        driver.append(count=2, size=20)
    log = driver.log
    size = len(read(log, 0, max_bytes=1).records)
    for max_bytes in (1, size, size + 1, 3 * size - 1, 3 * size, 20 * size + 5, 10**6):
        found = read(log, 11, max_bytes=max_bytes)
        whole = min(max(max_bytes // size, 1), 45)
        assert (found.base_offset, found.next_offset) == (10, 10 + 2 * whole)
        assert len(found.records) == whole * size
    for bound in range(12, 100):
        found = read(log, 11, upper_bound=bound)
        assert found.next_offset == bound - bound % 2
    assert read(log, 11, upper_bound=11).records == b""
    for offset in (-1, 101):
        with pytest.raises(OffsetOutOfRangeError):
            log.read(offset, max_bytes=1)


def test_a_cold_read_waits_in_a_thread(driver: LogDriver) -> None:
    driver.append(count=2, size=20)
    driver.disk.is_cold = True
    assert isinstance(driver.log.read(0, max_bytes=100), WouldBlock)
    found = driver.runner.run(driver.log.read_cold(0, max_bytes=1000))
    assert bytes(found.records) == driver.history[0].data


def test_a_cold_read_does_not_return_what_was_truncated_meanwhile(driver: LogDriver) -> None:
    """The truncation comes while the thread has read and the loop has not resumed."""
    driver.append(count=1, size=20)
    driver.append(count=1, size=30)
    log = driver.log

    class Meddling:
        truncated = False

        async def run(self, work, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            result = work(*args, **kwargs)
            if not self.truncated:
                self.truncated = True
                log.truncate_to(1)
                append(log, make_batch([b"another"]))
            return result

    log._offload = Meddling()
    found = asyncio.run(log.read_cold(1, max_bytes=1000))
    assert bytes(found.records) == placed(make_batch([b"another"]), 1, 1)


def test_finding_offsets_by_time(driver: LogDriver) -> None:
    chance = random.Random(3)
    timestamps = []
    driver.log.config = replace(driver.config, segment_bytes=900)
    for _ in range(60):
        one = [NOW_MS + chance.randrange(-500, 500) for _ in range(chance.randrange(1, 4))]
        append(driver.log, bytes(encode_batch([b"v" * 20] * len(one), timestamps=one)))
        timestamps += one
    assert driver.log.segment_count > 3

    def find(timestamp: int, bound: int | None = None) -> tuple[int, int] | None:
        found = driver.runner.run(driver.log.offset_for_timestamp(timestamp, upper_bound=bound))
        return (found.offset, found.timestamp) if found else None

    for target in range(NOW_MS - 505, NOW_MS + 505, 7):
        expected = next(((offset, t) for offset, t in enumerate(timestamps) if t >= target), None)
        assert find(target) == expected
        if expected is not None:
            assert find(target, expected[0]) is None
    largest = max(timestamps)
    assert find(MAX_TIMESTAMP) == (timestamps.index(largest), largest)


# --- Watermarks, truncation, the disk -------------------------------------------------------------


def test_watermarks_stay_in_bounds(driver: LogDriver) -> None:
    for _ in range(3):
        driver.append(count=2, size=1)
    log = driver.log
    assert log.update_high_watermark(99) == 6
    assert log.update_high_watermark(4) == 4
    with pytest.raises(OffsetOutOfRangeError):
        log.raise_log_start_offset(5)
    assert log.raise_log_start_offset(3)
    assert not log.raise_log_start_offset(2)
    assert log.update_high_watermark(0) == 3
    with pytest.raises(OffsetOutOfRangeError):
        log.read(2, max_bytes=1)


def test_what_a_truncation_would_drop(driver: LogDriver) -> None:
    driver.append(count=2, size=1)
    driver.become_leader()
    driver.append(count=4, size=1)
    driver.append(count=1, size=1)
    # Offset 4 lies in the batch from 2 to 5, which goes as a whole.
    assert driver.log.ranges_above(4) == [(2, 2, 7)]
    assert driver.log.ranges_above(1) == [(1, 0, 2), (2, 2, 7)]
    assert driver.log.ranges_above(7) == []
    assert driver.log.truncate_to(4) == 2


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("written", [0, 10, 61, 70])
def test_nothing_is_appended_after_a_failed_append(driver: LogDriver, error: int, written: int) -> None:
    driver.append(count=2, size=20)
    log = driver.log
    driver.disk.fail("write", "*.log", error=error, written=written)
    with pytest.raises(LogDirFailed, match=r"/data failed: appending to orders-0"):
        append(log, make_batch())
    assert log.log_end_offset == 2
    assert not log.log_dir.is_online
    driver.disk.heal()
    operations = driver.disk.operations
    for use in (
        lambda: append(log, make_batch()),
        lambda: log.append_as_follower(placed(make_batch(), 2, 1)),
        lambda: log.read(0, max_bytes=1),
        lambda: log.truncate_to(0),
        lambda: log.assign_epoch(LeaderEpoch(9), 2),
        lambda: driver.manager.log(log.topic_partition),
    ):
        with pytest.raises(KafkaStorageError):
            use()
    assert driver.disk.operations == operations
    # The torn tail is cut off by the next start, and what was promised is there.
    driver.crash(CrashPoint(0, None, None))


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("fsync", lambda driver: driver.flush()),
        ("fsync_dir", lambda driver: driver.flush()),
        ("rename", lambda driver: driver.become_leader()),
        ("write", lambda driver: driver.become_leader()),
        ("truncate", lambda driver: driver.truncate(0)),
        ("fsync", lambda driver: driver.truncate(0)),
        ("read", lambda driver: driver.read(0, max_bytes=1)),
        ("remove", lambda driver: driver.restart_at(9)),
        ("create", lambda driver: driver.restart_at(9)),
    ],
)
def test_any_failing_operation_takes_the_directory_offline(driver: LogDriver, operation: str, action) -> None:  # type: ignore[no-untyped-def]
    driver.append(count=2, size=20)
    driver.disk.fail(operation)
    with pytest.raises(LogDirFailed):
        action(driver)
    assert driver.manager.offline_dirs == [DIRECTORY]


def test_flush_messages_makes_records_durable_before_the_append_returns(driver: LogDriver) -> None:
    driver.log.config = replace(driver.config, flush_messages=3)
    driver.append(count=2, size=1)
    assert driver.log.recovery_point == 0
    driver.append(count=1, size=1)
    assert driver.log.recovery_point == 3
    driver.crash(CrashPoint(0, None, 0))
    assert driver.log.log_end_offset == 3


def test_rolling_by_time(driver: LogDriver) -> None:
    driver.log.config = replace(driver.config, segment_ms=1000)
    for ms in (0, 1000, 1001, 1500, 2001, 2002):
        append(driver.log, make_batch(timestamp=NOW_MS + ms))
    assert list(driver.log.segment_base_offsets) == [0, 2, 5]


def test_retention_by_time_stops_at_the_first_segment_kept(driver: LogDriver) -> None:
    driver.log.config = replace(driver.config, segment_bytes=80, retention_ms=1000)
    for ms in (0, 10, 5000, 20):
        append(driver.log, make_batch(timestamp=NOW_MS + ms))
    driver.log.update_high_watermark(4)
    deleted = driver.log.delete_old_segments(NOW_MS + 2000)
    assert [(one.first_offset, one.next_offset, one.reason) for one in deleted] == [(0, 2, "time")]
    assert all(path.endswith(".deleted") for one in deleted for path in one.paths)
    assert driver.log.log_start_offset == 2
    # Everything is old by now, the active segment too: a new one is rolled first.
    driver.log.delete_old_segments(NOW_MS + 9000)
    assert (driver.log.log_start_offset, driver.log.log_end_offset, driver.log.segment_count) == (4, 4, 1)


def test_retention_never_passes_the_high_watermark(driver: LogDriver) -> None:
    driver.log.config = replace(driver.config, segment_bytes=80, retention_bytes=0)
    for _ in range(4):
        append(driver.log, make_batch())
    driver.log.update_high_watermark(2)
    driver.log.delete_old_segments(NOW_MS)
    assert driver.log.log_start_offset == 2


def test_the_topic_id_is_learnt_once(driver: LogDriver) -> None:
    topic_id = Uuid("A" * 21 + "Q")
    driver.log.assign_topic_id(topic_id)
    driver.restart_cleanly()
    assert driver.log.topic_id == topic_id
    driver.log.assign_topic_id(topic_id)
    with pytest.raises(InconsistentTopicIdError):
        driver.log.assign_topic_id(Uuid("B" * 21 + "Q"))
    assert (
        driver.disk.read(f"{LOG_PATH}/partition.metadata") == f"version: 0\ntopic_id: {topic_id}\n".encode()
    )


# --- Damage ---------------------------------------------------------------------------------------


def filled(config: LogConfig) -> LogDriver:
    driver = LogDriver(SimulatedDisk(), config)
    driver.become_leader()
    for number in range(9):
        driver.append(count=2, size=100, producer_id=number % 2)
    return driver


def test_a_flipped_byte_beyond_the_recovery_point_ends_the_log_and_leaves_a_receipt() -> None:
    driver = filled(LogConfig(segment_bytes=700, index_interval_bytes=100))
    assert list(driver.log.segment_base_offsets) == [0, 4, 8, 12, 16]
    driver.disk.flip_byte(f"{LOG_PATH}/{4:020d}.log", 400)
    driver.disk.crash_process()
    driver.manager = driver._manager()
    log = driver._open()
    assert log.log_end_offset == 6
    assert log.report.dropped_segments == [16, 12, 8]
    receipt = driver.disk.read(f"{DIRECTORY}/loss-receipts.jsonl").decode()
    assert '"first_offset": 6, "last_offset": 17' in receipt
    assert '"leader_epoch": 1' in receipt


def test_a_flipped_byte_below_the_recovery_point_is_left_to_consumers() -> None:
    driver = filled(LogConfig(segment_bytes=700, index_interval_bytes=100))
    driver.flush()
    driver.checkpoint()
    driver.disk.flip_byte(f"{LOG_PATH}/{4:020d}.log", 400)
    driver.disk.crash_process()
    driver.manager = driver._manager()
    log = driver._open()
    assert log.log_end_offset == 18
    found = read(log, 6)
    located = next(batches(found.records))
    with pytest.raises(CorruptMessageError):
        check_crc(memoryview(found.records)[: located.size])


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("base", [4, 16])
@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_lost_index_is_rebuilt(is_clean: bool, base: int, suffix: str, damage: str) -> None:
    driver = filled(LogConfig(segment_bytes=700, index_interval_bytes=100))
    if is_clean:
        driver.runner.run(driver.manager.close())
    else:
        driver.flush()
        driver.checkpoint()
        driver.disk.crash_process()
    path = f"{LOG_PATH}/{base:020d}{suffix}"
    if damage == "missing":
        driver.disk.remove(path)
    else:
        driver.disk.open(path).append([b"xyz"])
    driver.manager = driver._manager()
    driver.log = driver._open()
    assert driver.log.log_end_offset == 18
    driver.check()
    driver.close()


def test_an_unreadable_epoch_file_is_read_again_from_the_batches() -> None:
    driver = filled(LogConfig(segment_bytes=700))
    driver.become_leader()
    driver.append(count=1, size=1)
    driver.runner.run(driver.manager.close())
    driver.disk.remove(f"{LOG_PATH}/leader-epoch-checkpoint")
    driver.manager = driver._manager()
    log = driver._open()
    assert [tuple(entry) for entry in log.epochs.entries] == [(1, 0), (2, 18)]


def test_header_fields_survive(driver: LogDriver) -> None:
    append(driver.log, make_batch(producer=(3, 2, 0)))
    header = BatchHeader.parse(read(driver.log, 0).records)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (3, 2, 0)
