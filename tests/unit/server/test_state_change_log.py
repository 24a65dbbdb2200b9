"""The journal's file: one line an event, bounded, and never the reason that state does not change."""

import json
import logging
from pathlib import Path

import pytest

from kafkalite.common import BrokerId
from kafkalite.journal import Journal
from kafkalite.log.files import DiskFiles
from kafkalite.server.state_change_log import FileSink, StateChangeLog


class Clock:
    def wall_ms(self) -> int:
        return 5

    def monotonic(self) -> float:
        return 0.0


class Memory:
    """A file and its older generation; refuses to write while it is full."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.older: list[bytes] = []
        self.is_full = False

    def append(self, line: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.lines.append(line)

    def rotate(self) -> None:
        self.older, self.lines = self.lines, []


def test_every_event_is_one_line_of_json() -> None:
    sink, journal = Memory(), Journal(BrokerId(1), Clock())
    journal.subscribe(StateChangeLog(sink).write)
    first = journal.record("BrokerFailed", failed=3)
    journal.record("LeaderElected", cause=first, topic="with\nnewline")
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in sink.lines)
    assert [json.loads(line) for line in sink.lines] == [event.to_json() for event in journal.events()]


def test_the_file_is_bounded_and_one_generation_is_kept() -> None:
    sink, journal = Memory(), Journal(BrokerId(1), Clock())
    journal.record("X")
    size = len(json.dumps(journal.events()[0].to_json(), separators=(",", ":"))) + 1
    journal.subscribe(StateChangeLog(sink, size=size, max_bytes=3 * size).write)
    for _ in range(4):  # Beside the one event's worth that was there: 2, then 2 in the next file.
        journal.record("X")
    assert (len(sink.older), len(sink.lines)) == (2, 2)
    journal.record("Y" * 10 * size)  # Larger than the bound: it gets a file of its own.
    assert (len(sink.older), len(sink.lines)) == (2, 1)


def test_a_full_disk_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    sink, journal = Memory(), Journal(BrokerId(1), Clock())
    journal.subscribe(StateChangeLog(sink).write)
    sink.is_full = True
    for _ in range(3):
        journal.record("X")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "No space left" in caplog.text
    sink.is_full = False
    journal.record("Y")
    journal.record("Z")
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "lacks 3 events" in caplog.text
    assert len(sink.lines) == 2


def test_a_file_is_continued_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "state-change.log"
    sink = FileSink(DiskFiles(), str(path))
    sink.append(b"one\n")
    sink.close()
    sink = FileSink(DiskFiles(), str(path))
    assert sink.size == 4
    sink.append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    sink.rotate()
    sink.append(b"three\n")
    assert (tmp_path / "state-change.log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"
    sink.rotate()
    assert (tmp_path / "state-change.log.1").read_bytes() == b"three\n"
    sink.close()
