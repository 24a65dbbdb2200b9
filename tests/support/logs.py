"""Logs on a simulated disk, driven beside a model that knows what they must hold.

:class:`LogDriver` does to a log and to a list of batches the same things, crashes the disk, starts
again and says what the log may hold then:

- after a crash of the process exactly what was there (and a prefix of what was being appended, or
  a longer prefix of what was being truncated);
- after a power cut a prefix of that, and at least everything below the recovery point.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, ParamSpec, TypeVar

from kafkalite.common import BrokerId, LeaderEpoch, TopicPartition
from kafkalite.journal import Journal
from kafkalite.log.config import LogConfig
from kafkalite.log.log import Log, Read, WouldBlock
from kafkalite.log.manager import LogManager, LogManagerConfig
from kafkalite.log.segment import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, file_name
from kafkalite.protocol.errors import KafkaStorageError
from kafkalite.protocol.record_batch import BatchHeader, batches, encode_batch, patch_header
from tests.support.disk import CrashPoint, SimulatedCrash, SimulatedDisk

P = ParamSpec("P")
T = TypeVar("T")

PARTITION: Final = TopicPartition("orders", 0)
DIRECTORY: Final = "/data"
LOG_PATH: Final = f"{DIRECTORY}/{PARTITION}"
NOW_MS: Final = 1_700_000_000_000


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.now_ms / 1000


class InlineOffload:
    """Blocking work on the spot."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)


def make_batch(
    values: list[bytes | None] | None = None,
    *,
    timestamp: int = NOW_MS,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> bytes:
    """A batch as a producer sends it; ``producer`` is (id, epoch, first sequence)."""
    producer_id, producer_epoch, base_sequence = producer
    return bytes(
        encode_batch(
            values if values is not None else [b"value"],
            timestamps=timestamp,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
        )
    )


def placed(batch: bytes, base_offset: int, leader_epoch: int) -> bytes:
    """A batch as the leader stores it."""
    return patch_header(batch, base_offset=base_offset, leader_epoch=leader_epoch) + batch[61:]


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch that the log holds, according to the model."""

    header: BatchHeader
    data: bytes

    @property
    def base(self) -> int:
        return self.header.base_offset

    @property
    def end(self) -> int:
        return self.header.next_offset


def stored(data: bytes) -> list[Stored]:
    """The batches in ``data``."""
    return [
        Stored(batch.header, data[batch.position : batch.position + batch.size]) for batch in batches(data)
    ]


@dataclass(frozen=True, slots=True)
class Pending:
    """What an operation that was cut short may have left: the log ends between these offsets."""

    appended: tuple[Stored, ...] = ()
    lowest_end: int | None = None
    """For a truncation: the end that it was to have."""
    may_be_empty: bool = False
    highest_start: int = 0
    """For retention: how far the log start may have been raised."""


class LogDriver:
    """One log, one model. Everything that reaches the disk may raise SimulatedCrash."""

    def __init__(self, disk: SimulatedDisk | None = None, config: LogConfig | None = None) -> None:
        self.disk = disk if disk is not None else SimulatedDisk()
        self.config = config or LogConfig(
            segment_bytes=700, index_interval_bytes=100, segment_index_bytes=96, file_delete_delay_ms=0
        )
        self.clock = ManualClock()
        self.runner = asyncio.Runner()
        self.history: list[Stored] = []
        """All batches in order; those below the log start too, for they may come back."""
        self.start = 0
        self.epoch = 0
        self.sequences: dict[int, int] = {}
        self.pending = Pending()
        self.durable = 0
        self.manager = self._manager()
        self.log = self._open()

    def _manager(self) -> LogManager:
        return LogManager(
            self.disk,
            [DIRECTORY],
            LogManagerConfig(log_defaults=self.config),
            clock=self.clock,
            offload=InlineOffload(),
            journal=Journal(BrokerId(1), self.clock),
            chance=random.Random(7),
        )

    def _open(self) -> Log:
        self.runner.run(_unwrapped(self.manager.start({})))
        return self.manager.get_or_create(PARTITION, None, self.config, is_new=True)

    def close(self) -> None:
        self.runner.close()

    @property
    def end(self) -> int:
        return self.history[-1].end if self.history else self.start

    # --- What may be done to a log ------------------------------------------------------------

    def become_leader(self) -> None:
        """A new leader epoch begins here."""
        self.epoch += 1
        self.log.assign_epoch(LeaderEpoch(self.epoch), self.log.log_end_offset)

    def append(self, count: int, size: int, producer_id: int = -1, keep: bool = False) -> None:
        """Append a client's batch; with ``keep`` the log has its buffer and may hand it out again."""
        sequence = self.sequences.get(producer_id, 0)
        producer = (producer_id, 0, sequence) if producer_id >= 0 else (-1, -1, -1)
        batch = make_batch([bytes(size)] * count, timestamp=self.clock.now_ms, producer=producer)
        expected = stored(placed(batch, self.end, self.epoch))
        self.pending = Pending(appended=tuple(expected))
        info = self.log.append_as_leader(
            memoryview(bytearray(batch)) if keep else batch,
            leader_epoch=LeaderEpoch(self.epoch),
            now_ms=self.clock.now_ms,
            keep=keep,
        )
        assert (info.first_offset, info.last_offset) == (self.end, self.end + count - 1)
        self._appended(expected)

    def append_replicated(self, sizes: list[int]) -> None:
        """Append what a leader sent: one batch of a record a size, in a new epoch each."""
        data = b""
        end = self.end
        for size in sizes:
            self.epoch += 1
            data += placed(make_batch([bytes(size)], timestamp=self.clock.now_ms), end, self.epoch)
            end += 1
        expected = stored(data)
        self.pending = Pending(appended=tuple(expected))
        self.log.append_as_follower(data)
        self._appended(expected)

    def _appended(self, expected: list[Stored]) -> None:
        self.history += expected
        for one in expected:
            if one.header.has_producer_id:
                self.sequences[one.header.producer_id] = one.header.last_sequence + 1
        self._done()

    def flush(self) -> None:
        self.pending = Pending()
        self.runner.run(self.log.flush())
        assert self.log.recovery_point == self.log.log_end_offset
        self._done()

    def flush_rolled(self) -> None:
        """What the manager does after a roll: flush up to the active segment."""
        self.runner.run(self.log.flush(self.log.segment_base_offsets[-1]))
        self._done()

    def checkpoint(self) -> None:
        self.pending = Pending()
        self.runner.run(self.manager.checkpoint_recovery_points())
        self.runner.run(self.manager.checkpoint_log_start_offsets())
        self.runner.run(self.manager.checkpoint_high_watermarks())
        self._done()

    def truncate(self, offset: int) -> None:
        kept = [one for one in self.history if one.end <= offset]
        end = kept[-1].end if kept else min([self.start, *(one.base for one in self.history)])
        if offset >= self.end:
            end = self.end
        elif offset < self.log.segment_base_offsets[0]:
            kept, end = [], offset
        lost = self.log.ranges_above(offset)
        if max(end, self.log.log_start_offset) < self.end:
            assert lost[0][1] == max(end, self.log.log_start_offset)
            assert lost[-1][2] == self.end
            assert all(before[2] == after[1] for before, after in itertools.pairwise(lost))
        self.pending = Pending(lowest_end=end, may_be_empty=not kept)
        # While it runs, only what it keeps is promised.
        self.durable = min(self.durable, end)
        self.log.truncate_to(offset)
        self.history = kept
        if not kept:
            self.start = end
        self.start = min(self.start, end)
        self._recount_sequences()
        self._done()

    def restart_at(self, offset: int) -> None:
        """Drop everything and begin anew at ``offset``, as a follower whose leader has moved on."""
        self.pending = Pending(lowest_end=0, may_be_empty=True)
        self.durable = 0
        self.log.truncate_fully_and_start_at(offset)
        self.history, self.start = [], offset
        self._recount_sequences()
        self._done()

    def commit(self, offset: int) -> None:
        self.log.update_high_watermark(offset)

    def raise_start(self, offset: int) -> None:
        offset = min(offset, self.log.high_watermark)
        self.pending = Pending(highest_start=offset)
        self.log.raise_log_start_offset(offset)
        self.start = max(self.start, offset)
        self._done()

    def retain(self, retention_bytes: int) -> None:
        """Delete what is more than ``retention_bytes``, and remove the files."""
        self.pending = Pending(highest_start=self.log.high_watermark)
        self.log.config = replace(self.config, retention_bytes=retention_bytes)
        for deleted in self.log.delete_old_segments(self.clock.now_ms):
            for path in deleted.paths:
                self.disk.remove(path)
        self.log.config = self.config
        assert self.log.log_start_offset >= self.start
        self.start = self.log.log_start_offset
        self._done()

    def _done(self) -> None:
        self.pending = Pending()
        self.durable = self.log.recovery_point

    def _recount_sequences(self) -> None:
        self.sequences = {}
        for one in self.history:
            if one.header.has_producer_id:
                self.sequences[one.header.producer_id] = one.header.last_sequence + 1

    # --- Ends and beginnings ------------------------------------------------------------------

    def restart_cleanly(self) -> None:
        self.pending = Pending()
        self.runner.run(_unwrapped(self.manager.close()))
        if self.manager.offline_dirs:
            raise KafkaStorageError("the directory failed while it was closed")
        self.durable = self.end
        self.manager = self._manager()
        self.log = self._open()
        report = self.log.report
        assert report.was_clean
        assert (report.truncated_bytes, report.dropped_segments, report.notes) == (0, [], [])
        assert not report.rebuilt_indexes
        assert (self.log.log_start_offset, self.log.log_end_offset) == (self.start, self.end)
        self._done()

    def crash(self, point: CrashPoint) -> None:
        """Crash, start again (the start itself is not crashed), and compare with the model."""
        point.apply(self.disk)
        self.manager = self._manager()
        self.log = self._open()
        self._adopt(is_power=point.seed is not None)

    def _adopt(self, *, is_power: bool) -> None:
        """Check that the log is one that this crash may leave, and go on from there."""
        log, pending = self.log, self.pending
        possible = [*self.history, *pending.appended]
        longest = possible[-1].end if possible else self.start
        shortest = min(self.durable, longest) if is_power else self.end
        if pending.lowest_end is not None:
            shortest = min(shortest, pending.lowest_end)
        end = log.log_end_offset
        raised = max(self.start, pending.highest_start)
        if not log.size and (pending.may_be_empty or not possible or shortest <= end == raised):
            # Also where the log start was durable and the records up to it were not.
            self.history, self.start = [], end
        else:
            assert shortest <= end <= longest, f"ends at {end}, not in [{shortest}, {longest}]"
            boundaries = {possible[0].base, *(one.end for one in possible)} if possible else {self.start}
            assert end in boundaries, f"ends at {end}, in the middle of a batch"
            assert log.log_start_offset <= raised
            self.history = [one for one in possible if one.end <= end]
            self.start = log.log_start_offset
        self._recount_sequences()
        self._done()
        self.check()

    # --- Comparison ---------------------------------------------------------------------------

    def check(self) -> None:
        """Compare everything that can be read with the model."""
        log = self.log
        assert (log.log_start_offset, log.log_end_offset) == (self.start, self.end)
        assert log.log_start_offset <= log.high_watermark <= log.log_end_offset
        assert log.recovery_point <= log.log_end_offset
        visible = [one for one in self.history if one.end > self.start]
        self._check_reads(visible)
        self._check_indexes()
        self._check_epochs(visible)
        self._check_producers(visible)

    def _check_reads(self, visible: list[Stored]) -> None:
        log = self.log
        offset = self.start
        everything = b""
        while offset < self.end:
            found = self.read(offset, max_bytes=10_000)
            assert found.records, f"nothing at {offset}"
            everything += bytes(found.records)
            offset = found.next_offset
        assert everything == b"".join(one.data for one in visible)
        for one in visible:
            for offset in {max(one.base, self.start), one.end - 1}:
                found = self.read(offset, max_bytes=1)
                assert (bytes(found.records), found.base_offset, found.next_offset) == (
                    one.data,
                    one.base,
                    one.end,
                )
                assert not self.read(offset, max_bytes=1, min_one_message=False).records
                # An upper bound inside of a batch keeps it out.
                assert not self.read(offset, max_bytes=10_000, upper_bound=one.end - 1).records
        assert not self.read(self.end, max_bytes=10_000).records
        assert log.size == sum(self.disk.size(path) for path in self._paths(LOG_SUFFIX))

    def read(self, offset: int, **options: int | bool) -> Read:
        found = self.log.read(offset, **options)  # type: ignore[arg-type]
        assert not isinstance(found, WouldBlock)
        return found

    def _paths(self, suffix: str) -> Iterator[str]:
        for base in self.log.segment_base_offsets:
            yield f"{LOG_PATH}/{file_name(base, suffix)}"

    def _check_indexes(self) -> None:
        """Every entry must be what a scan of the segment finds at its position."""
        for base, path in zip(self.log.segment_base_offsets, self._paths(""), strict=True):
            data = self.disk.read(path + LOG_SUFFIX)
            found = {batch.position: batch.header for batch in batches(data)}
            largest = -1
            largest_at: dict[int, int] = {}
            for header in found.values():
                largest = max(largest, header.max_timestamp)
                largest_at[header.last_offset] = largest
            index = self.disk.read(path + INDEX_SUFFIX)
            assert len(index) % 8 == 0
            for at in range(0, len(index), 8):
                offset = base + int.from_bytes(index[at : at + 4], "big")
                position = int.from_bytes(index[at + 4 : at + 8], "big")
                assert found[position].last_offset == offset
            times = self.disk.read(path + TIME_INDEX_SUFFIX)
            assert len(times) % 12 == 0
            for at in range(0, len(times), 12):
                timestamp = int.from_bytes(times[at : at + 8], "big", signed=True)
                offset = base + int.from_bytes(times[at + 8 : at + 12], "big")
                assert largest_at[offset] == timestamp

    def _check_epochs(self, visible: list[Stored]) -> None:
        for one in visible:
            offset = max(one.base, self.start)
            assert self.log.epochs.epoch_at(offset) == one.header.partition_leader_epoch
        entries = self.log.epochs.entries
        assert all(
            a.epoch < b.epoch and a.start_offset < b.start_offset for a, b in itertools.pairwise(entries)
        )

    def _check_producers(self, visible: list[Stored]) -> None:
        """The last five batches of each producer that are still in the log must be recognised."""
        last: dict[int, list[Stored]] = {}
        for one in visible:
            if one.header.has_producer_id and one.base >= self.start:
                last.setdefault(one.header.producer_id, []).append(one)
        for sent in last.values():
            for one in sent[-5:]:
                earlier = self.log.producers.check(one.header)
                assert earlier is not None, f"a retry of {one.base} would be appended again"
                assert (earlier.first_offset, earlier.last_offset) == (one.base, one.end - 1)


async def _unwrapped(work: object) -> None:
    """Await ``work``; a crash inside of its task groups comes out as the crash that it is."""
    try:
        await work  # type: ignore[misc]
    except BaseExceptionGroup as group:
        crash: BaseException = group
        while isinstance(crash, BaseExceptionGroup):
            crash = crash.exceptions[0]
        if isinstance(crash, SimulatedCrash):
            raise crash from None
        raise
