"""Loading a log: from what a stop, a kill or a power cut left on the disk to a log that is right.

After a clean stop everything on disk is trusted. After any other end only what lies below the
recovery point is: from the segment that holds it on, every batch is checked, indexes, leader
epochs and producer state are built again from what is valid, and at the first invalid byte the
log ends; later segments go. (A byte that flipped below the recovery point is not looked for:
consumers find it by the batch's checksum.) What recovery leaves is made durable at once, so the
recovery point of a loaded log is its end.

Segments beyond the recovery point must join without a gap. A power cut may keep a later file's
name and lose an earlier one's, and a log with a hole would serve offsets of two histories.

What recovery has to throw away although an index or a later segment knew of it is written to the
loss receipts before it is cut. Everything here is blocking and runs in a thread, one log at a time.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from kafkalite.common import LeaderEpoch, TopicPartition, Uuid
from kafkalite.log.checkpoint import CorruptCheckpointError
from kafkalite.log.config import LogConfig
from kafkalite.log.epochs import LEADER_EPOCH_CHECKPOINT, LeaderEpochCache
from kafkalite.log.files import Files
from kafkalite.log.index import CorruptIndexError
from kafkalite.log.log_dir import LogDir
from kafkalite.log.loss_receipts import write_receipts
from kafkalite.log.partition_metadata import PARTITION_METADATA, decode_partition_metadata
from kafkalite.log.producer_state import CorruptSnapshotError, ProducerStates
from kafkalite.log.segment import (
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    Segment,
    file_name,
)
from kafkalite.protocol.errors import CorruptMessageError
from kafkalite.protocol.record_batch import BatchHeader


class LoadReport(msgspec.Struct):
    """What loading found and did, for the journal."""

    was_clean: bool
    """Whether the last stop was clean, so nothing had to be checked."""
    recovered_segments: int = 0
    """Segments whose every batch was checked."""
    truncated_bytes: int = 0
    """Invalid bytes cut off the end."""
    dropped_segments: list[int] = msgspec.field(default_factory=list)
    """Base offsets of segments that did not join what is before them."""
    rebuilt_indexes: list[int] = msgspec.field(default_factory=list)
    """Base offsets of segments below the recovery point whose index had to be rebuilt."""
    lost_offsets: tuple[int, int] | None = None
    """Known offsets [first, end) that are gone."""
    notes: list[str] = msgspec.field(default_factory=list)
    """What else was found wrong and mended, in words."""


class LoadedLog(msgspec.Struct):
    """The parts of a log, ready to be used."""

    partition: TopicPartition
    path: str
    topic_id: Uuid | None
    segments: list[Segment]
    epochs: LeaderEpochCache
    producers: ProducerStates
    snapshots: list[int]
    log_start_offset: int
    recovery_point: int
    report: LoadReport
    unsynced_paths: list[str] = msgspec.field(default_factory=list)
    unsynced_dirs: list[str] = msgspec.field(default_factory=list)


def load_log(
    directory: LogDir,
    name: str,
    partition: TopicPartition,
    config: LogConfig,
    *,
    is_clean: bool,
    recovery_point: int,
    log_start_offset: int,
    now_ms: int,
) -> LoadedLog:
    """Load the log in ``name`` of ``directory``, recovering it unless the last stop ``is_clean``.

    A directory without segments becomes an empty log at ``log_start_offset``. Raises OSError.
    """
    return _Loader(directory, name, partition, config, is_clean, now_ms).load(
        recovery_point, log_start_offset
    )


class _Loader:
    def __init__(
        self,
        directory: LogDir,
        name: str,
        partition: TopicPartition,
        config: LogConfig,
        is_clean: bool,
        now_ms: int,
    ) -> None:
        self._dir = directory
        self._files: Files = directory.files
        self._path = directory.join(name)
        self._partition = partition
        self._config = config
        self._is_clean = is_clean
        self._now_ms = now_ms
        self._report = LoadReport(was_clean=is_clean)
        self._segments: list[Segment] = []
        self._snapshots: list[int] = []
        self._epochs = LeaderEpochCache()
        self._known_epochs = LeaderEpochCache()
        self._is_changed = False

    def load(self, recovery_point: int, log_start_offset: int) -> LoadedLog:
        topic_id = self._read_topic_id()
        bases = self._tidy()
        before = self._read_epochs()
        if self._is_clean:
            self._load_trusted(bases, len(bases))
        else:
            first = max(bisect_right(bases, recovery_point) - 1, 0)
            self._load_trusted(bases, first)
            self._recover(bases[first:], recovery_point)
        if self._segments and self._segments[-1].next_offset < log_start_offset:
            end = self._segments[-1].next_offset
            self._note(f"the log ends at {end}, below its start {log_start_offset}: begun anew")
            self._drop(self._segments)
            self._segments = []
            self._epochs.clear()
        if not self._segments:
            # Producers must not be remembered for records that are gone: a retry would be answered
            # with their offsets.
            self._drop_snapshots()
            self._segments.append(self._open(log_start_offset))
            self._is_changed = True
        end = self._segments[-1].next_offset
        start = max(log_start_offset, self._segments[0].base_offset)
        self._complete_epochs(start, end)
        self._epochs.truncate_from_end(end)
        self._epochs.truncate_from_start(start)
        path = os.path.join(self._path, LEADER_EPOCH_CHECKPOINT)
        if self._epochs.encode() != before:
            self._files.write_atomically(path, self._epochs.encode(), sync=False)
            self._is_changed = True
        producers = ProducerStates(self._partition)
        if not self._is_clean or self._snapshots:
            load_producer_states(
                self._files, self._path, self._segments, producers, self._snapshots, start, end
            )
        if not self._is_clean:
            # A killed process leaves much in memory only. What is seen now must not change again
            # with a power cut, or this log would have shown two histories.
            self._sync(path)
        return LoadedLog(
            partition=self._partition,
            path=self._path,
            topic_id=topic_id,
            segments=self._segments,
            epochs=self._epochs,
            producers=producers,
            snapshots=self._snapshots,
            log_start_offset=start,
            recovery_point=end,
            report=self._report,
            unsynced_paths=[path, *self._side_files()] if self._is_clean and self._is_changed else [],
            unsynced_dirs=[self._path, self._dir.path] if self._is_clean and self._is_changed else [],
        )

    def _sync(self, epochs_path: str) -> None:
        for segment in self._segments[-max(self._report.recovered_segments, 1) :]:
            segment.sync()
        for path in (epochs_path, *self._side_files()):
            if self._files.exists(path):
                file = self._files.open(path)
                try:
                    file.sync()
                finally:
                    file.close()
        self._files.sync_dir(self._path)
        self._files.sync_dir(self._dir.path)

    def _side_files(self) -> list[str]:
        names = [file_name(offset, SNAPSHOT_SUFFIX) for offset in self._snapshots]
        return [os.path.join(self._path, name) for name in (PARTITION_METADATA, *names)]

    def _note(self, text: str) -> None:
        self._report.notes.append(text)

    def _read_topic_id(self) -> Uuid | None:
        path = os.path.join(self._path, PARTITION_METADATA)
        try:
            return decode_partition_metadata(self._files.read(path), path)
        except FileNotFoundError:
            return None
        except CorruptCheckpointError as error:
            if self._is_clean:
                raise
            # It is synced with the log's first flush; a power cut may come before.
            self._note(f"{error}: the topic id is learnt again")
            return None

    def _tidy(self) -> list[int]:
        """Remove leftovers and return the base offsets of the segments."""
        names = self._files.listdir(self._path)
        bases = [base for name in names if (base := _offset_of(name, LOG_SUFFIX)) is not None]
        for name in names:
            is_orphan = any(
                (offset := _offset_of(name, suffix)) is not None and offset not in bases
                for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX)
            )
            if is_orphan or name.endswith((DELETED_SUFFIX, ".tmp")):
                self._files.remove(os.path.join(self._path, name))
                self._is_changed = True
        self._snapshots = [
            offset for name in names if (offset := _offset_of(name, SNAPSHOT_SUFFIX)) is not None
        ]
        return bases

    def _read_epochs(self) -> bytes:
        path = os.path.join(self._path, LEADER_EPOCH_CHECKPOINT)
        try:
            data = self._files.read(path)
            self._epochs = LeaderEpochCache.decode(data, path)
            self._known_epochs = LeaderEpochCache(self._epochs.entries)
        except FileNotFoundError:
            return b""
        except CorruptCheckpointError:
            return b""
        return data

    def _open(self, base: int) -> Segment:
        return Segment(self._files, self._path, base, self._config, now_ms=self._now_ms)

    def _load_trusted(self, bases: Sequence[int], count: int) -> None:
        """Open the first ``count`` of the segments ``bases`` as what they seem to be."""
        for index, base in enumerate(bases[:count]):
            segment = self._open(base)
            self._segments.append(segment)
            next_base = bases[index + 1] if index + 1 < len(bases) else None
            try:
                segment.check_indexes()
                if next_base is not None:
                    segment.load_sealed(next_base)
                elif not segment.load():
                    raise CorruptIndexError(f"{segment.path} does not end with a whole batch")
            except CorruptIndexError as error:
                self._note(str(error))
                self._report.rebuilt_indexes.append(base)
                if next_base is not None:
                    segment.rebuild_indexes(next_base)
                else:
                    self._report.truncated_bytes += segment.recover()
                    segment.drop_tail()
                segment.sync()
                self._is_changed = True

    def _recover(self, bases: Sequence[int], recovery_point: int) -> None:
        """Check segments batch by batch; end the log at the first thing that is wrong."""
        opened = [self._open(base) for base in bases]
        if opened:
            self._is_changed = True
            self._epochs.truncate_from_end(opened[0].base_offset)
        for index, segment in enumerate(opened):
            if (
                index
                and segment.base_offset != opened[index - 1].next_offset
                and (
                    segment.base_offset > recovery_point
                    or segment.base_offset < opened[index - 1].next_offset
                )
            ):
                self._lose(opened[index - 1].next_offset, opened[index:])
                self._drop(opened[index:])
                return
            known_end = _known_end(segment)
            invalid = segment.recover(self._recovered)
            self._segments.append(segment)
            self._report.recovered_segments += 1
            if invalid:
                self._report.truncated_bytes += invalid
                self._lose(segment.next_offset, opened[index + 1 :], known_end)
                # From the end, so that a crash in between leaves a log without a hole.
                self._drop(opened[index + 1 :])
                segment.drop_tail()
                return
            if known_end > segment.next_offset and index + 1 == len(opened):
                self._lose(segment.next_offset, (), known_end)

    def _recovered(self, header: BatchHeader) -> None:
        epoch = LeaderEpoch(header.partition_leader_epoch)
        if epoch >= 0 and epoch != self._epochs.latest_epoch:
            self._epochs.assign(epoch, header.base_offset)

    def _lose(self, first: int, dropped: Sequence[Segment], known_end: int = 0) -> None:
        """Write a receipt for the known offsets from ``first`` on, before they are cut off."""
        end = max(first, known_end)
        for segment in dropped:
            segment.recover()
            end = max(end, segment.next_offset)
        if end == first:
            return
        self._report.lost_offsets = (first, end)
        write_receipts(
            self._dir,
            self._partition,
            self._known_epochs.ranges_between(first, end),
            reason="found damaged or missing when the log was recovered",
            now_ms=self._now_ms,
        )

    def _drop(self, segments: Sequence[Segment]) -> None:
        for segment in reversed(segments):
            self._report.dropped_segments.append(segment.base_offset)
            segment.close()
            for name in segment.names():
                self._files.remove(os.path.join(self._path, name))
            if segment.base_offset in self._snapshots:
                self._snapshots.remove(segment.base_offset)
            self._is_changed = True

    def _drop_snapshots(self) -> None:
        for offset in self._snapshots:
            self._files.remove(os.path.join(self._path, file_name(offset, SNAPSHOT_SUFFIX)))
        self._snapshots = []

    def _complete_epochs(self, start: int, end: int) -> None:
        """Read the epochs of the batches below the first known entry from the batches themselves.

        There are such batches where the file was damaged, or where it already spoke of a log start
        that a crash has undone.
        """
        entries = self._epochs.entries
        known_from = entries[0].start_offset if entries else end
        if known_from <= start:
            return
        self._epochs.clear()
        try:
            for segment in self._segments:
                for batch in segment.scan(0):
                    if batch.header.base_offset >= known_from:
                        break
                    self._recovered(batch.header)
                if segment.next_offset >= known_from:
                    break
        except CorruptMessageError as error:
            self._note(str(error))
        if self._epochs.entries:
            self._note(f"leader epochs below offset {known_from} were read again from the batches")
        for entry in entries:
            self._epochs.assign(entry.epoch, entry.start_offset)


def _known_end(segment: Segment) -> int:
    """How far the indexes say that a segment reached; its base where they cannot be trusted."""
    try:
        segment.check_indexes()
        return segment.indexed_end()
    except CorruptIndexError:
        return segment.base_offset


def _offset_of(name: str, suffix: str) -> int | None:
    stem = name.removesuffix(suffix)
    return int(stem) if stem != name and len(stem) == 20 and stem.isdecimal() else None


def load_producer_states(
    files: Files,
    path: str,
    segments: Sequence[Segment],
    producers: ProducerStates,
    snapshots: list[int],
    log_start_offset: int,
    end_offset: int,
) -> None:
    """Set ``producers`` to what they are at ``end_offset``: newest snapshot, then the batches after it.

    Snapshots beyond the end, damaged ones, and those of no use are removed (from ``snapshots`` too).
    """
    producers.clear()
    position = log_start_offset
    for offset in sorted(snapshots, reverse=True):
        snapshot = os.path.join(path, file_name(offset, SNAPSHOT_SUFFIX))
        if log_start_offset <= offset <= end_offset:
            try:
                producers.load(files.read(snapshot), snapshot)
                position = offset
                break
            except CorruptSnapshotError:
                pass  # It is removed like one that is of no use; an older one or the log serves.
        files.remove(snapshot)
        snapshots.remove(offset)
    for index, segment in enumerate(segments):
        if index + 1 < len(segments) and segments[index + 1].base_offset <= position:
            continue
        for header in segment.headers_from(position):
            if header.last_offset < end_offset:
                producers.update(header)
