"""The real disk: `DiskFiles`, and a log on it that is killed, torn and damaged."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kafkalite.common import BrokerId, LeaderEpoch, TopicPartition
from kafkalite.edge import ThreadOffload
from kafkalite.journal import Journal
from kafkalite.log.config import LogConfig
from kafkalite.log.files import DirLocked, DiskFiles, Files
from kafkalite.log.log import Log, Read
from kafkalite.log.manager import LogManager, LogManagerConfig
from kafkalite.protocol.errors import CorruptMessageError
from kafkalite.protocol.record_batch import batches, check_crc
from tests.support.disk import SimulatedDisk
from tests.support.logs import ManualClock, make_batch

PARTITION = TopicPartition("t", 0)


@pytest.fixture(params=["disk", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Files, str]:
    """The contract holds for the real thing and for the fake."""
    if request.param == "disk":
        return DiskFiles(), str(tmp_path)
    disk = SimulatedDisk()
    disk.mkdir("/d")
    return disk, "/d"


def test_the_contract_of_files(place: tuple[Files, str]) -> None:
    files, root = place
    path = f"{root}/inner/file"
    with pytest.raises(FileNotFoundError):
        files.open(path)
    files.mkdir(f"{root}/inner")
    files.mkdir(f"{root}/inner")
    with pytest.raises(FileNotFoundError):
        files.read(path)
    file = files.open(path, create=True)
    assert file.append([b"abc", memoryview(b"defg"), bytearray(b"h")]) == 8
    assert (bytes(file.pread(3, 2)), bytes(file.pread(99, 6)), bytes(file.pread(5, 99))) == (
        b"cde",
        b"gh",
        b"",
    )
    assert bytes(file.pread_nowait(3, 2)) == b"cde"
    assert bytes(file.pread_nowait(9, 6)) == b"gh"
    file.truncate(4)
    file.append([b"X"])
    file.sync()
    assert (file.size(), files.size(path), files.read(path)) == (5, 5, b"abcdX")
    again = files.open(path)
    assert bytes(again.pread(9, 0)) == b"abcdX"
    files.rename(path, f"{path}2")
    assert not files.exists(path)
    file.append([b"Y"])  # A handle follows its file.
    assert files.read(f"{path}2") == b"abcdXY"
    file.close()
    file.close()
    again.close()
    with pytest.raises(OSError):
        file.append([b"Z"])
    for sync in (True, False):
        files.write_atomically(path, b"1" * 5, sync=sync)
        files.write_atomically(path, b"22", sync=sync)
        assert files.read(path) == b"22"
    files.sync_dir(f"{root}/inner")
    assert files.listdir(f"{root}/inner") == ["file", "file2"]
    assert (files.is_dir(f"{root}/inner"), files.is_dir(path), files.is_dir(f"{root}/no")) == (
        True,
        False,
        False,
    )
    files.remove(path)
    files.remove(path)
    files.remove_tree(f"{root}/inner")
    files.remove_tree(f"{root}/inner")
    assert not files.exists(f"{root}/inner")


def test_locks(place: tuple[Files, str]) -> None:
    files, root = place
    lock = files.lock(root)
    with pytest.raises(DirLocked, match="Stop that broker"):
        files.lock(root)
    lock.release()
    lock.release()
    files.lock(root).release()


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [b"".join(buffers)[:5]]))
    file = DiskFiles().open(str(tmp_path / "f"), create=True)
    assert file.append([b"abc", b"defg", b"h"]) == 8
    assert bytes(file.pread(99, 0)) == b"abcdefgh"


def test_a_write_that_cannot_be_completed_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [b"".join(buffers)[:5]]))
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match="no more bytes"):
        DiskFiles().open(str(tmp_path / "f"), create=True).append([b"abc", b"defg"])


def test_a_full_device(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"):
        DiskFiles().open("/dev/full").append([b"abc"])


# --- A log on the real disk -----------------------------------------------------------------------


async def open_log(root: Path) -> tuple[LogManager, Log]:
    clock = ManualClock()
    manager = LogManager(
        DiskFiles(),
        [str(root)],
        LogManagerConfig(),
        clock=clock,
        offload=ThreadOffload(),
        journal=Journal(BrokerId(1), clock),
        chance=random.Random(1),
    )
    await manager.start({})
    return manager, manager.get_or_create(PARTITION, None, LogConfig(segment_bytes=2000), is_new=True)


async def killed(root: Path) -> tuple[LogManager, Log]:
    """A log of 30 batches whose process is gone: the lock with it, nothing closed."""
    manager, log = await open_log(root)
    for number in range(30):
        log.append_as_leader(
            make_batch([b"x" * 100], producer=(1, 0, number)), leader_epoch=LeaderEpoch(2), now_ms=0
        )
    manager.unlock_dirs()
    return manager, log


async def test_a_killed_log_is_whole(tmp_path: Path) -> None:
    _, before = await killed(tmp_path)
    manager, log = await open_log(tmp_path)
    assert log.log_end_offset == 30
    assert not log.report.was_clean
    assert list(log.segment_base_offsets) == list(before.segment_base_offsets)
    retry = log.append_as_leader(
        make_batch([b"x" * 100], producer=(1, 0, 27)), leader_epoch=LeaderEpoch(2), now_ms=0
    )
    assert (retry.is_duplicate, retry.first_offset) == (True, 27)
    await manager.close()
    manager, log = await open_log(tmp_path)
    assert log.report.was_clean
    await manager.close()


async def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    _, before = await killed(tmp_path)
    active = tmp_path / "t-0" / f"{before.segment_base_offsets[-1]:020d}.log"
    size = active.stat().st_size
    os.truncate(active, size - 7)
    manager, log = await open_log(tmp_path)
    assert log.log_end_offset == 29
    assert log.report.truncated_bytes > 0
    assert active.stat().st_size < size - 7
    log.append_as_leader(make_batch(), leader_epoch=LeaderEpoch(3), now_ms=0)
    found = log.read(29, max_bytes=1000)
    assert isinstance(found, Read)
    assert check_crc(bytes(found.records)).base_offset == 29
    await manager.close()


async def test_a_flipped_byte_of_the_durable_part_is_found_by_who_reads_it(tmp_path: Path) -> None:
    manager, log = await killed(tmp_path)
    await log.flush()
    await manager.checkpoint_recovery_points()
    path = tmp_path / "t-0" / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    data[150] ^= 0xFF
    path.write_bytes(data)
    manager, log = await open_log(tmp_path)
    assert log.log_end_offset == 30
    found = await log.read_cold(0, max_bytes=2000)
    first = next(batches(found.records))
    with pytest.raises(CorruptMessageError):
        check_crc(memoryview(found.records)[: first.size])
    await manager.close()


async def test_files_have_kafkas_names(tmp_path: Path) -> None:
    manager, log = await open_log(tmp_path)
    log.append_as_leader(make_batch(), leader_epoch=LeaderEpoch(2), now_ms=0)
    await manager.close()
    zero, one = f"{0:020d}", f"{1:020d}"
    assert sorted(os.listdir(tmp_path / "t-0")) == [
        f"{zero}.index",
        f"{zero}.log",
        f"{zero}.timeindex",
        f"{one}.snapshot",
        "leader-epoch-checkpoint",
    ]
    assert sorted(os.listdir(tmp_path)) == [
        ".kafka_cleanshutdown",
        ".lock",
        "log-start-offset-checkpoint",
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "t-0",
    ]
