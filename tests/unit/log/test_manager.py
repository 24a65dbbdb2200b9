"""All logs of a broker: directories, locks, checkpoints, deletion, failure."""

from __future__ import annotations

import asyncio
import errno
import json
import random
from dataclasses import dataclass, field

import pytest

from kafkalite.common import BrokerId, LeaderEpoch, TopicPartition, Uuid
from kafkalite.journal import Journal
from kafkalite.log.checkpoint import CorruptCheckpointError, read_offsets, write_offsets
from kafkalite.log.config import LogConfig
from kafkalite.log.files import DirLocked
from kafkalite.log.log import Log
from kafkalite.log.log_dir import LogDirFailed
from kafkalite.log.loss_receipts import write_receipts
from kafkalite.log.manager import LogManager, LogManagerConfig, parse_log_name
from kafkalite.protocol.errors import InconsistentTopicIdError, KafkaStorageError
from tests.support.disk import SimulatedDisk
from tests.support.logs import InlineOffload, ManualClock, make_batch

ID = Uuid("A" * 21 + "Q")


@dataclass
class House:
    """A disk, and one broker's log manager after another on it."""

    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    dirs: tuple[str, ...] = ("/a", "/b")
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.journal = Journal(BrokerId(1), self.clock)

    async def start(self, config: LogManagerConfig | None = None) -> LogManager:
        manager = LogManager(
            self.disk,
            self.dirs,
            config or LogManagerConfig(),
            clock=self.clock,
            offload=InlineOffload(),
            journal=self.journal,
            chance=random.Random(1),
            on_dir_failure=self.failed.append,
        )
        await manager.start({"short": LogConfig(retention_ms=1)})
        return manager

    def events(self, type: str) -> list[dict[str, object]]:
        return [event.facts for event in self.journal.events(type=type)]


def partition(number: int, topic: str = "t") -> TopicPartition:
    return TopicPartition(topic, number)


def make(manager: LogManager, number: int, *, is_new: bool = True) -> Log:
    return manager.get_or_create(partition(number), ID, LogConfig(), is_new=is_new)


def fill(log: Log, batches: int = 3) -> None:
    log.assign_epoch(LeaderEpoch(1), log.log_end_offset)
    for _ in range(batches):
        log.append_as_leader(make_batch(), leader_epoch=LeaderEpoch(1), now_ms=0)


async def test_logs_go_where_fewest_are() -> None:
    manager = await House().start()
    assert [make(manager, number).log_dir.path for number in range(4)] == ["/a", "/b", "/a", "/b"]
    assert make(manager, 0) is manager.log(partition(0))


async def test_a_directory_belongs_to_one_broker() -> None:
    house = House()
    manager = await house.start()
    house.dirs = ("/c", "/b")
    with pytest.raises(DirLocked, match=r"/b is locked: another broker"):
        await house.start()
    # The one that was refused has let go of what it held, and the first holds on.
    assert house.disk.locked == {"/a", "/b"}
    await manager.close()
    assert house.disk.locked == set()


async def test_a_clean_stop_spares_the_recovery_and_is_believed_once() -> None:
    house = House()
    manager = await house.start()
    fill(make(manager, 0))
    manager.logs()[0].update_high_watermark(2)
    await manager.close()
    assert house.disk.exists("/a/.kafka_cleanshutdown")
    manager = await house.start()
    assert not house.disk.exists("/a/.kafka_cleanshutdown")
    log = manager.log(partition(0))
    assert log is not None
    assert (log.log_end_offset, log.high_watermark, log.topic_id) == (3, 2, ID)
    assert log.report.was_clean
    await manager.close(clean=False)
    manager = await house.start()
    log = manager.log(partition(0))
    assert log is not None
    assert not log.report.was_clean
    assert (log.log_end_offset, log.high_watermark) == (3, 2)
    assert [event["log_end_offset"] for event in house.events("LogRecovered")] == [3]


async def test_the_removed_marker_stays_removed_after_a_power_cut() -> None:
    house = House()
    await (await house.start()).close()
    manager = await house.start()
    fill(make(manager, 0))
    house.disk.crash_power()
    assert not house.disk.exists("/a/.kafka_cleanshutdown")


async def test_another_topics_log_is_not_taken_for_it() -> None:
    manager = await House().start()
    make(manager, 0)
    with pytest.raises(InconsistentTopicIdError):
        manager.get_or_create(partition(0), Uuid("B" * 21 + "Q"), LogConfig(), is_new=False)


async def test_topic_configs_reach_their_logs() -> None:
    house = House()
    manager = await house.start()
    manager.get_or_create(partition(0, "short"), ID, LogConfig(), is_new=True)
    await manager.close()
    log = (await house.start()).log(partition(0, "short"))
    assert log is not None
    assert log.config.retention_ms == 1


async def test_a_failed_directory_is_offline_before_anything_else_is_served() -> None:
    house = House()
    manager = await house.start()
    first, second = make(manager, 0), make(manager, 1)
    fill(second)
    house.disk.fail("write", "/a/*", error=errno.ENOSPC)
    with pytest.raises(LogDirFailed):
        fill(first)
    assert house.failed == ["/a"]
    assert (manager.online_dirs, manager.offline_dirs) == (["/b"], ["/a"])
    with pytest.raises(KafkaStorageError):
        manager.log(partition(0))
    assert manager.log(partition(1)) is second
    fill(second)
    # Partition 7 may have been there; a new one cannot have been.
    with pytest.raises(KafkaStorageError, match="offline"):
        make(manager, 7, is_new=False)
    assert make(manager, 7).log_dir.path == "/b"
    assert house.events("LogDirFailed")[0]["partitions"] == ["t-0"]
    await manager.close()
    assert not house.disk.exists("/a/.kafka_cleanshutdown")
    assert house.disk.exists("/b/.kafka_cleanshutdown")


@pytest.mark.parametrize(
    ("operation", "pattern"),
    [("fsync", "/a/*"), ("rename", "/a/*"), ("write", "/a/recovery*"), ("fsync_dir", "/a")],
)
async def test_a_failed_checkpoint_is_a_failed_directory(operation: str, pattern: str) -> None:
    house = House()
    manager = await house.start()
    make(manager, 0)
    house.disk.fail(operation, pattern)
    await manager.checkpoint_recovery_points()
    assert house.failed == ["/a"]


async def test_a_directory_that_cannot_be_read_does_not_stop_the_others() -> None:
    house = House()
    manager = await house.start()
    fill(make(manager, 0))
    fill(make(manager, 1))
    await manager.close()
    house.disk.fail("read", "/a/*")
    manager = await house.start()
    assert house.failed == ["/a"]
    log = manager.log(partition(1))
    assert log is not None
    assert log.log_end_offset == 3


async def test_a_damaged_checkpoint_is_a_failed_directory() -> None:
    house = House()
    await (await house.start()).close()
    house.disk.write_atomically("/a/recovery-point-offset-checkpoint", b"0\n2\nt 0 5\n")
    await house.start()
    assert house.failed == ["/a"]


async def test_a_deleted_log_goes_after_its_delay() -> None:
    house = House()
    manager = await house.start()
    fill(make(manager, 0))
    await manager.delete(partition(0))
    assert manager.log(partition(0)) is None
    [name] = [name for name in house.disk.listdir("/a") if name.endswith("-delete")]
    assert name.startswith("t-0.")
    task = asyncio.create_task(manager.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert house.disk.exists(f"/a/{name}")
    house.clock.now_ms += 60_000
    await manager.delete(partition(99))  # Nothing there: nothing happens.
    make(manager, 0)
    await manager.delete(partition(0))  # Wakes the remover, which finds the first one due.
    for _ in range(5):
        await asyncio.sleep(0)
    assert not house.disk.exists(f"/a/{name}")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_being_deleted_is_not_loaded_again() -> None:
    house = House()
    manager = await house.start()
    fill(make(manager, 0))
    await manager.delete(partition(0))
    house.disk.crash_power()
    manager = await house.start()
    assert manager.log(partition(0)) is None
    task = asyncio.create_task(manager.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not [name for name in house.disk.listdir("/a") if name.endswith("-delete")]
    task.cancel()


async def test_a_new_log_inherits_nothing_from_a_deleted_one_of_its_name() -> None:
    house = House(dirs=("/a",))
    manager = await house.start()
    log = make(manager, 0)
    fill(log)
    await log.flush()
    log.update_high_watermark(3)
    log.raise_log_start_offset(2)
    await manager.checkpoint_recovery_points()
    await manager.checkpoint_log_start_offsets()
    await manager.checkpoint_high_watermarks()
    await manager.delete(partition(0))
    fill(make(manager, 0), batches=5)
    house.disk.crash_process()
    log2 = (await house.start()).log(partition(0))
    assert log2 is not None
    assert (log2.log_start_offset, log2.log_end_offset, log2.high_watermark) == (0, 5, 0)


async def test_retention_records_what_it_deletes() -> None:
    house = House(dirs=("/a",))
    manager = await house.start()
    log = manager.get_or_create(
        partition(0), ID, LogConfig(segment_bytes=80, retention_bytes=80), is_new=True
    )
    fill(log, batches=4)
    log.update_high_watermark(4)
    await manager.delete_old_segments()
    assert house.events("SegmentsDeleted") == [{"reason": "size", "first_offset": 0, "log_start_offset": 2}]


async def test_flush_due_and_producer_expiry() -> None:
    house = House(dirs=("/a",))
    manager = await house.start()
    log = manager.get_or_create(partition(0), ID, LogConfig(flush_ms=100), is_new=True)
    log.append_as_leader(
        make_batch(producer=(5, 0, 0), timestamp=house.clock.now_ms), leader_epoch=LeaderEpoch(1), now_ms=0
    )
    await manager.flush_due()
    assert log.recovery_point == 0
    house.clock.now_ms += 100
    await manager.flush_due()
    assert log.recovery_point == 1
    await manager.expire_producers()
    assert list(log.producers.entries) == [5]
    house.clock.now_ms += 86_400_000
    await manager.expire_producers()
    assert list(log.producers.entries) == []


async def test_a_rolled_segment_is_flushed_in_the_background() -> None:
    house = House(dirs=("/a",))
    manager = await house.start()
    task = asyncio.create_task(manager.run())
    await asyncio.sleep(0)
    log = manager.get_or_create(partition(0), ID, LogConfig(segment_bytes=80), is_new=True)
    fill(log, batches=3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert log.recovery_point == 2
    task.cancel()


async def test_a_checkpoint_overtaken_by_a_truncation_is_thrown_away() -> None:
    house = House(dirs=("/a",))
    manager = await house.start()
    log = make(manager, 0)
    fill(log)
    await log.flush()
    await manager.checkpoint_recovery_points()

    class TruncatingMeanwhile:
        async def run(self, work, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            result = work(*args, **kwargs)
            if work is write_offsets:
                log.truncate_to(1)
            return result

    manager._offload = TruncatingMeanwhile()
    await manager.checkpoint_recovery_points()
    assert read_offsets(house.disk, "/a/recovery-point-offset-checkpoint") == {partition(0): 0}


async def test_loss_receipts_are_durable_before_they_return() -> None:
    house = House(dirs=("/a",))
    manager = await house.start()
    log = make(manager, 0)
    fill(log)
    write_receipts(log.log_dir, partition(0), [], reason="nothing", now_ms=1)
    assert not house.disk.exists("/a/loss-receipts.jsonl")
    write_receipts(
        log.log_dir, partition(0), log.ranges_above(1), reason="truncated", now_ms=5, cause="1-2-3"
    )
    write_receipts(log.log_dir, partition(0), log.ranges_above(2), reason="truncated", now_ms=6)
    house.disk.crash_power()
    lines = [json.loads(line) for line in house.disk.read("/a/loss-receipts.jsonl").splitlines()]
    assert [(line["first_offset"], line["last_offset"], line["records"]) for line in lines] == [
        (1, 2, 2),
        (2, 2, 1),
    ]
    assert (lines[0]["topic"], lines[0]["leader_epoch"], lines[0]["cause"]) == ("t", 1, "1-2-3")


def test_checkpoints_round_trip_and_refuse_damage() -> None:
    disk = SimulatedDisk()
    offsets = {partition(1, "b"): 7, partition(0, "a.b_c-1"): 2**40}
    write_offsets(disk, "/c", offsets)
    assert disk.read("/c") == b"0\n2\na.b_c-1 0 1099511627776\nb 1 7\n"
    assert read_offsets(disk, "/c") == offsets
    assert read_offsets(disk, "/missing") == {}
    for data in (b"", b"0\n1\n", b"0\n1\na 0\n", b"0\n1\na 0 -1\n", b"0\n1\na x 1\n", b"0\n1\na 0 1"):
        disk.write_atomically("/c", data)
        with pytest.raises(CorruptCheckpointError):
            read_offsets(disk, "/c")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t-0", TopicPartition("t", 0)),
        ("my-topic-12", TopicPartition("my-topic", 12)),
        ("t-0.abc-delete", None),
        ("t-0.abc-stray", None),
        ("lost+found", None),
        ("t", None),
    ],
)
def test_names_of_logs(name: str, expected: TopicPartition | None) -> None:
    assert parse_log_name(name) == expected
