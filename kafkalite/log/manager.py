"""`LogManager`: all logs of a broker, in all its log directories.

It locks the directories, loads their logs (recovering them after anything but a clean stop),
makes and deletes logs, and does in the background what logs need: flushing, retention,
checkpoints, forgetting idle producers, removing deleted files. A directory that fails goes offline
before anything else is served; what it held answers KafkaStorageError until the broker restarts.

Recovery points, log starts and high watermarks of a directory's logs are in three checkpoint
files. They may lag behind, which costs work at the next start and never records: each is written
only after what it promises is durable.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from kafkalite.common import TopicPartition, Uuid
from kafkalite.edge import Clock, Offload
from kafkalite.journal import EventId, Journal
from kafkalite.log.checkpoint import (
    HIGH_WATERMARK_CHECKPOINT,
    LOG_START_CHECKPOINT,
    RECOVERY_POINT_CHECKPOINT,
    read_offsets,
    write_offsets,
)
from kafkalite.log.config import LONG_MAX, LogConfig
from kafkalite.log.files import DirLock, DirLocked, Files
from kafkalite.log.log import Log
from kafkalite.log.log_dir import LogDir
from kafkalite.log.newest import NewestBatches
from kafkalite.log.recovery import LoadedLog, load_log
from kafkalite.protocol.errors import KafkaStorageError

NEWEST_BATCHES_BYTES: Final = 16 << 20
"""What all logs together keep of what was just appended."""
CLEAN_SHUTDOWN: Final = ".kafka_cleanshutdown"
_DELETE_SUFFIX: Final = "-delete"
_LOG_NAME: Final = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+)-(?P<partition>[0-9]+)")
_NAME_MAX: Final = 255
_RETENTION_DELAY_S: Final = 30.0
"""Retention is first checked this long after the start."""
_MAX_WAIT_S: Final = 86_400.0
"""No timer sleeps longer: intervals may be as long as 2^63 ms, which no clock can count to."""


class LogManagerConfig(msgspec.Struct, frozen=True):
    """The broker's configs about its logs, by Kafka's names and with Kafka's defaults."""

    log_defaults: LogConfig = msgspec.field(default_factory=LogConfig)
    """For topics' configs that are not set (:meth:`LogConfig.from_server`)."""
    num_recovery_threads_per_data_dir: int = 1
    log_flush_scheduler_interval_ms: int = LONG_MAX
    log_flush_offset_checkpoint_interval_ms: int = 60_000
    log_flush_start_offset_checkpoint_interval_ms: int = 60_000
    log_retention_check_interval_ms: int = 300_000
    producer_id_expiration_ms: int = 86_400_000
    producer_id_expiration_check_interval_ms: int = 600_000


class _Removal(msgspec.Struct, frozen=True):
    """Files or a directory to be removed when ``due`` (monotonic seconds) has come."""

    due: float
    directory: LogDir
    paths: tuple[str, ...]


class LogManager:
    """See the module. Belongs to the loop; blocking work goes through ``offload``."""

    def __init__(
        self,
        files: Files,
        dirs: Sequence[str],
        config: LogManagerConfig,
        *,
        clock: Clock,
        offload: Offload,
        journal: Journal,
        chance: random.Random,
        on_dir_failure: Callable[[str], None] = lambda path: None,
    ) -> None:
        """``on_dir_failure(path)`` is called after a directory went offline, before anything else runs.

        With :attr:`online_dirs` empty by then, its owner ends the broker.
        """
        assert dirs, "a broker needs a log directory"
        self._files = files
        self._config = config
        self._clock = clock
        self._offload = offload
        self._journal = journal
        self._chance = chance
        self.on_dir_failure = on_dir_failure
        self._dirs = [LogDir(path, files, self._dir_failed) for path in dirs]
        self._locks: dict[str, DirLock] = {}
        self._logs: dict[TopicPartition, Log] = {}
        self._offline: dict[TopicPartition, LogDir] = {}
        self._in_checkpoint: dict[str, set[TopicPartition]] = {}
        self._removals: deque[_Removal] = deque()
        self._to_flush: dict[TopicPartition, Log] = {}
        self._wake_flusher = asyncio.Event()
        self._wake_remover = asyncio.Event()
        self._generation: dict[str, int] = {directory.path: 0 for directory in self._dirs}
        self._was_closed = False
        self._newest = NewestBatches(NEWEST_BATCHES_BYTES)

    # --- What there is ------------------------------------------------------------------------

    @property
    def dirs(self) -> Sequence[LogDir]:
        """All log directories, in the order of `log.dirs`."""
        return self._dirs

    @property
    def online_dirs(self) -> list[str]:
        """The paths of the directories that work."""
        return [directory.path for directory in self._dirs if directory.is_online]

    @property
    def offline_dirs(self) -> list[str]:
        """The paths of the directories that failed."""
        return [directory.path for directory in self._dirs if not directory.is_online]

    def logs(self) -> list[Log]:
        """All logs that are online."""
        return list(self._logs.values())

    def log(self, partition: TopicPartition) -> Log | None:
        """The log of ``partition``, or None. Raises KafkaStorageError where its directory failed."""
        log = self._logs.get(partition)
        if log is None and partition in self._offline:
            self._offline[partition].check_online()
        return log

    # --- Locks and loading --------------------------------------------------------------------

    async def lock_dirs(self) -> None:
        """Make the directories where they are missing, and lock them; once locked, does nothing.

        Raises :class:`DirLocked` where another process holds one. A directory that fails goes
        offline.
        """
        for directory in self._dirs:
            if directory.path in self._locks or not directory.is_online:
                continue
            try:
                self._locks[directory.path] = await self._offload.run(self._lock, directory.path)
            except DirLocked:
                self.unlock_dirs()
                raise
            except OSError as error:
                directory.failed(error, "locking the directory")

    def _lock(self, path: str) -> DirLock:
        missing = [path]
        while not self._files.is_dir(missing[-1]):
            missing.append(os.path.dirname(missing[-1]) or ".")
        self._files.mkdir(path)
        for parent in missing[1:]:
            self._files.sync_dir(parent)
        return self._files.lock(path)

    def unlock_dirs(self) -> None:
        """Give the locks up."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    async def start(self, topic_configs: Mapping[str, LogConfig]) -> None:
        """Lock the directories and load every log, recovering those that were not closed cleanly.

        ``topic_configs`` are the effective configs of topics that have some of their own. Raises
        :class:`DirLocked`. Failing directories go offline; the others are served.
        """
        await self.lock_dirs()
        async with asyncio.TaskGroup() as tasks:
            for directory in self._dirs:
                if directory.is_online:
                    tasks.create_task(self._load_dir(directory, topic_configs), name=f"load {directory.path}")

    async def _load_dir(self, directory: LogDir, topic_configs: Mapping[str, LogConfig]) -> None:
        try:
            found = await self._offload.run(_look_into, directory)
        except OSError as error:
            directory.failed(error, "reading the directory")
            return
        for file, offsets in (
            (RECOVERY_POINT_CHECKPOINT, found.recovery_points),
            (LOG_START_CHECKPOINT, found.log_starts),
            (HIGH_WATERMARK_CHECKPOINT, found.high_watermarks),
        ):
            self._in_checkpoint[directory.join(file)] = set(offsets)
        for name in found.deleted:
            self._remove_later(directory, (directory.join(name),), 0)
        threads = asyncio.Semaphore(self._config.num_recovery_threads_per_data_dir)
        remaining = len(found.logs)
        started = self._journal.record(
            "LogLoadingStarted", log_dir=directory.path, logs=remaining, clean=found.is_clean
        )

        async def load(name: str, partition: TopicPartition) -> None:
            nonlocal remaining
            config = topic_configs.get(partition.topic, self._config.log_defaults)
            async with threads:
                if not directory.is_online:
                    return
                try:
                    loaded = await self._offload.run(
                        load_log,
                        directory,
                        name,
                        partition,
                        config,
                        is_clean=found.is_clean,
                        recovery_point=found.recovery_points.get(partition, 0),
                        log_start_offset=found.log_starts.get(partition, 0),
                        now_ms=self._clock.wall_ms(),
                    )
                except OSError as error:
                    directory.failed(error, f"loading {name}")
                    return
                remaining -= 1
                self._loaded(directory, loaded, config, found.high_watermarks.get(partition, 0), started)

        async with asyncio.TaskGroup() as tasks:
            for name, partition in found.logs:
                tasks.create_task(load(name, partition), name=f"load {name}")
        if not directory.is_online:
            for _, partition in found.logs:
                self._offline[partition] = directory
        self._journal.record("LogLoadingFinished", cause=started, log_dir=directory.path, failed=remaining)

    def _loaded(
        self, directory: LogDir, loaded: LoadedLog, config: LogConfig, high_watermark: int, cause: EventId
    ) -> None:
        if not directory.is_online:
            for segment in loaded.segments:
                segment.close()
            return
        partition = loaded.partition
        if partition in self._logs:
            error = OSError(f"{partition} is also in {self._logs[partition].log_dir.path}")
            directory.failed(error, f"loading {loaded.path}")
            return
        log = self._make(directory, loaded, config, high_watermark)
        report = loaded.report
        is_notable = (
            report.truncated_bytes or report.dropped_segments or report.rebuilt_indexes or report.notes
        )
        if not report.was_clean or is_notable:
            event = self._journal.record(
                "LogRecovered",
                cause=cause,
                partition=partition,
                recovered_segments=report.recovered_segments,
                truncated_bytes=report.truncated_bytes,
                dropped_segments=report.dropped_segments,
                rebuilt_indexes=report.rebuilt_indexes,
                log_start_offset=log.log_start_offset,
                log_end_offset=log.log_end_offset,
                notes=report.notes,
            )
            if report.lost_offsets is not None:
                first, end = report.lost_offsets
                self._journal.record(
                    "RecordsLost", cause=event, partition=partition, first_offset=first, last_offset=end - 1
                )

    def _make(self, directory: LogDir, loaded: LoadedLog, config: LogConfig, high_watermark: int) -> Log:
        log = Log(
            directory,
            loaded,
            config,
            clock=self._clock,
            offload=self._offload,
            chance=self._chance,
            newest=self._newest,
            high_watermark=high_watermark,
            on_roll=self._rolled,
            before_truncation=self._lower_checkpoints,
        )
        self._logs[log.topic_partition] = log
        return log

    # --- Making and deleting logs -------------------------------------------------------------

    def get_or_create(
        self, partition: TopicPartition, topic_id: Uuid | None, config: LogConfig, *, is_new: bool
    ) -> Log:
        """The log of ``partition``, made in the online directory with the fewest logs if need be.

        ``is_new`` says that the partition cannot have had a log here before. If it may have, and a
        directory is offline, the log may be there: KafkaStorageError, as where its directory is
        known to have failed. Raises InconsistentTopicIdError where the log is another topic's.
        """
        log = self.log(partition)
        if log is not None:
            if topic_id is not None:
                log.assign_topic_id(topic_id)
            return log
        if not is_new and self.offline_dirs:
            raise KafkaStorageError(
                f"{partition} may have its log in one of the offline directories {self.offline_dirs}"
            )
        directory = self._emptiest_dir()
        name = str(partition)
        try:
            self._forget_checkpoints(directory, partition)
            self._files.mkdir(directory.join(name))
            loaded = load_log(
                directory,
                name,
                partition,
                config,
                is_clean=True,
                recovery_point=0,
                log_start_offset=0,
                now_ms=self._clock.wall_ms(),
            )
        except OSError as error:
            raise directory.failed(error, f"creating {name}") from error
        log = self._make(directory, loaded, config, 0)
        if topic_id is not None:
            log.assign_topic_id(topic_id)
        self._journal.record("LogCreated", partition=partition, log_dir=directory.path, topic_id=topic_id)
        return log

    def _emptiest_dir(self) -> LogDir:
        counts = {directory.path: 0 for directory in self._dirs if directory.is_online}
        if not counts:
            raise KafkaStorageError("every log directory is offline")
        for log in self._logs.values():
            counts[log.log_dir.path] += 1
        return min(
            (directory for directory in self._dirs if directory.is_online),
            key=lambda directory: counts[directory.path],
        )

    async def delete(self, partition: TopicPartition) -> None:
        """Take the log away: its directory is renamed at once and removed after the delay.

        Without such a log nothing happens. Raises KafkaStorageError where its directory failed.
        """
        log = self.log(partition)
        if log is None:
            return
        directory = log.log_dir
        unique = f".{self._chance.getrandbits(128):032x}{_DELETE_SUFFIX}"
        name = f"{partition.topic[: _NAME_MAX - len(unique) - 11]}-{partition.partition}{unique}"
        log.close()
        del self._logs[partition]
        self._to_flush.pop(partition, None)
        self._generation[directory.path] += 1
        target = directory.join(name)
        try:
            self._files.rename(log.path, target)
            # A new log of the same name may be made at once: this deletion must not be undone by
            # a power cut after that.
            await self._offload.run(self._files.sync_dir, directory.path)
        except OSError as error:
            raise directory.failed(error, f"deleting {partition}") from error
        self._journal.record("LogDeleted", partition=partition, log_dir=directory.path)
        self._remove_later(directory, (target,), log.config.file_delete_delay_ms)

    def _remove_later(self, directory: LogDir, paths: tuple[str, ...], delay_ms: int) -> None:
        self._removals.append(_Removal(self._clock.monotonic() + delay_ms / 1000, directory, paths))
        self._wake_remover.set()

    # --- Failure ------------------------------------------------------------------------------

    def _dir_failed(self, directory: LogDir) -> None:
        """Take everything in the directory out of service; called before anybody else runs."""
        gone = [partition for partition, log in self._logs.items() if log.log_dir is directory]
        event = self._journal.record(
            "LogDirFailed",
            log_dir=directory.path,
            reason=directory.failure,
            partitions=sorted(str(partition) for partition in gone),
        )
        for partition in gone:
            self._logs.pop(partition).close()
            self._offline[partition] = directory
            self._to_flush.pop(partition, None)
        with self._journal.because(event):
            self.on_dir_failure(directory.path)

    # --- Checkpoints --------------------------------------------------------------------------

    async def checkpoint_recovery_points(self) -> None:
        """Write how far each log is durable."""
        for directory in self._dirs:
            await self._checkpoint(directory, RECOVERY_POINT_CHECKPOINT)

    async def checkpoint_log_start_offsets(self) -> None:
        """Write where logs start that do not start with their first segment."""
        for directory in self._dirs:
            await self._checkpoint(directory, LOG_START_CHECKPOINT)

    async def checkpoint_high_watermarks(self) -> None:
        """Write the high watermarks; replication calls this every 5 s."""
        for directory in self._dirs:
            await self._checkpoint(directory, HIGH_WATERMARK_CHECKPOINT)

    def _logs_in(self, directory: LogDir) -> list[Log]:
        return [log for log in self._logs.values() if log.log_dir is directory]

    def _offsets(self, directory: LogDir, name: str) -> dict[TopicPartition, int]:
        """What the checkpoint ``name`` of a directory should say now."""
        logs = self._logs_in(directory)
        if name == RECOVERY_POINT_CHECKPOINT:
            return {log.topic_partition: log.recovery_point for log in logs}
        if name == HIGH_WATERMARK_CHECKPOINT:
            return {log.topic_partition: log.high_watermark for log in logs}
        return {
            log.topic_partition: log.log_start_offset
            for log in logs
            if log.log_start_offset > log.segment_base_offsets[0]
        }

    async def _checkpoint(self, directory: LogDir, name: str) -> None:
        """Write one checkpoint without holding up the loop.

        The new text is written and fsynced in a thread, but takes the file's place on the loop:
        a truncation or deletion in between has made it a lie, and then it is thrown away.
        """
        if not directory.is_online:
            return
        generation = self._generation[directory.path]
        offsets = self._offsets(directory, name)
        path = directory.join(name)
        prepared = f"{path}.next"
        try:
            await self._offload.run(write_offsets, self._files, prepared, offsets)
            if generation != self._generation[directory.path] or not directory.is_online:
                return
            self._files.rename(prepared, path)
            self._in_checkpoint[path] = set(offsets)
            await self._offload.run(self._files.sync_dir, directory.path)
        except OSError as error:
            directory.failed(error, f"writing {name}")

    def _lower_checkpoints(self, log: Log, offset: int) -> None:
        """Make it durable that ``log`` is to be checked from ``offset`` on, and may start there.

        OSError is left to the caller.
        """
        directory = log.log_dir
        partition = log.topic_partition
        self._generation[directory.path] += 1
        for name in (RECOVERY_POINT_CHECKPOINT, LOG_START_CHECKPOINT):
            path = directory.join(name)
            if partition not in self._in_checkpoint.get(path, ()):
                continue  # On disk it is 0 as it is.
            offsets = self._offsets(directory, name)
            offsets[partition] = min(offset, offsets.get(partition, offset))
            write_offsets(self._files, path, offsets)
            self._in_checkpoint[path] = set(offsets)

    def _forget_checkpoints(self, directory: LogDir, partition: TopicPartition) -> None:
        """Take what is left of an earlier log of ``partition`` out of the checkpoints.

        A new log must not inherit the recovery point, start or high watermark of a deleted one.
        """
        self._generation[directory.path] += 1
        for name in (RECOVERY_POINT_CHECKPOINT, LOG_START_CHECKPOINT, HIGH_WATERMARK_CHECKPOINT):
            path = directory.join(name)
            if partition in self._in_checkpoint.get(path, ()):
                offsets = self._offsets(directory, name)
                write_offsets(self._files, path, offsets)
                self._in_checkpoint[path] = set(offsets)

    # --- The background -----------------------------------------------------------------------

    async def run(self) -> None:
        """Do the background work until cancelled."""
        config = self._config
        async with asyncio.TaskGroup() as tasks:
            for name, interval_ms, work in (
                ("flush", config.log_flush_scheduler_interval_ms, self.flush_due),
                (
                    "recovery points",
                    config.log_flush_offset_checkpoint_interval_ms,
                    self.checkpoint_recovery_points,
                ),
                (
                    "log starts",
                    config.log_flush_start_offset_checkpoint_interval_ms,
                    self.checkpoint_log_start_offsets,
                ),
                (
                    "producer expiry",
                    config.producer_id_expiration_check_interval_ms,
                    self.expire_producers,
                ),
            ):
                tasks.create_task(self._repeat(interval_ms, work), name=f"logs: {name}")
            tasks.create_task(self._run_retention(), name="logs: retention")
            tasks.create_task(self._run_flusher(), name="logs: flush rolled segments")
            tasks.create_task(self._run_remover(), name="logs: remove deleted files")

    async def _repeat(self, interval_ms: int, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._sleep(interval_ms / 1000)
            await work()

    async def _sleep(self, seconds: float) -> None:
        while seconds > 0:
            await asyncio.sleep(min(seconds, _MAX_WAIT_S))
            seconds -= _MAX_WAIT_S

    async def _run_retention(self) -> None:
        await self._sleep(_RETENTION_DELAY_S)
        while True:
            await self.delete_old_segments()
            await self._sleep(self._config.log_retention_check_interval_ms / 1000)

    async def delete_old_segments(self) -> None:
        """Apply retention to every log that is not compacted."""
        now_ms = self._clock.wall_ms()
        for log in self.logs():
            if log.config.is_compacted or log.is_closed:
                continue
            try:
                deleted = log.delete_old_segments(now_ms)
            except KafkaStorageError:
                continue  # The directory is offline by now, and the journal says so.
            for files in deleted:
                self._remove_later(log.log_dir, files.paths, log.config.file_delete_delay_ms)
                self._journal.record(
                    "SegmentsDeleted",
                    partition=log.topic_partition,
                    reason=files.reason,
                    first_offset=files.first_offset,
                    log_start_offset=files.next_offset,
                )

    async def flush_due(self) -> None:
        """Flush the logs whose `flush.ms` has passed since their last flush."""
        now_ms = self._clock.wall_ms()
        for log in self.logs():
            if now_ms - log.last_flush_ms >= log.config.flush_ms:
                await self._flush(log)

    def _rolled(self, log: Log) -> None:
        self._to_flush[log.topic_partition] = log
        self._wake_flusher.set()

    async def _run_flusher(self) -> None:
        while True:
            await self._wake_flusher.wait()
            self._wake_flusher.clear()
            while self._to_flush:
                _, log = self._to_flush.popitem()
                await self._flush(log, up_to=log.segment_base_offsets[-1])

    async def _flush(self, log: Log, up_to: int | None = None) -> None:
        if log.is_closed:
            return
        try:
            await log.flush(up_to)
        except KafkaStorageError:
            return  # The directory is offline by now, and the journal says so.

    async def expire_producers(self) -> None:
        """Forget producers that have been silent too long."""
        now_ms = self._clock.wall_ms()
        for log in self.logs():
            log.expire_producers(now_ms, self._config.producer_id_expiration_ms)

    async def _run_remover(self) -> None:
        while True:
            self._wake_remover.clear()
            now = self._clock.monotonic()
            due = [removal for removal in self._removals if removal.due <= now]
            self._removals = deque(removal for removal in self._removals if removal.due > now)
            for removal in due:
                await self._remove(removal)
            wait = min((removal.due - now for removal in self._removals), default=_MAX_WAIT_S)
            try:
                async with asyncio.timeout(min(wait, _MAX_WAIT_S)):
                    await self._wake_remover.wait()
            except TimeoutError:
                pass  # The next removal is due.

    async def _remove(self, removal: _Removal) -> None:
        if not removal.directory.is_online:
            return
        try:
            for path in removal.paths:
                await self._offload.run(self._remove_path, path)
        except OSError as error:
            removal.directory.failed(error, f"removing {removal.paths[0]}")

    def _remove_path(self, path: str) -> None:
        if self._files.is_dir(path):
            self._files.remove_tree(path)
        else:
            self._files.remove(path)

    # --- The end ------------------------------------------------------------------------------

    async def close(self, *, clean: bool = True) -> None:
        """Close all logs and give the locks up; :meth:`run` has ended before. A second call does nothing.

        ``clean``: flush everything, write all checkpoints and, last, the marker that spares the
        next start the recovery. A directory that fails on the way is left without the marker.
        """
        if self._was_closed:
            return
        self._was_closed = True
        if clean:
            async with asyncio.TaskGroup() as tasks:
                for directory in self._dirs:
                    if directory.is_online and directory.path in self._locks:
                        tasks.create_task(self._close_dir(directory), name=f"close {directory.path}")
        for log in self._logs.values():
            log.close()
        self.unlock_dirs()

    async def _close_dir(self, directory: LogDir) -> None:
        logs = self._logs_in(directory)
        try:
            for log in logs:
                await self._offload.run(log.close_cleanly)
            for name in (RECOVERY_POINT_CHECKPOINT, LOG_START_CHECKPOINT, HIGH_WATERMARK_CHECKPOINT):
                offsets = self._offsets(directory, name)
                await self._offload.run(write_offsets, self._files, directory.join(name), offsets)
            await self._offload.run(
                self._files.write_atomically, directory.join(CLEAN_SHUTDOWN), b'{"version":0}'
            )
        except OSError as error:
            directory.failed(error, "closing the directory")
            return
        self._journal.record("LogDirClosed", log_dir=directory.path, logs=len(logs))


class _Found(msgspec.Struct, frozen=True):
    """What a log directory holds."""

    is_clean: bool
    logs: list[tuple[str, TopicPartition]]
    deleted: list[str]
    recovery_points: dict[TopicPartition, int]
    log_starts: dict[TopicPartition, int]
    high_watermarks: dict[TopicPartition, int]


def _look_into(directory: LogDir) -> _Found:
    files = directory.files
    marker = directory.join(CLEAN_SHUTDOWN)
    is_clean = files.exists(marker)
    if is_clean:
        # Gone for good before anything is written, or a later crash would pass for a clean stop.
        files.remove(marker)
        files.sync_dir(directory.path)
    names = [name for name in files.listdir(directory.path) if files.is_dir(directory.join(name))]
    return _Found(
        is_clean=is_clean,
        logs=[(name, partition) for name in names if (partition := parse_log_name(name)) is not None],
        deleted=[name for name in names if name.endswith(_DELETE_SUFFIX)],
        recovery_points=read_offsets(files, directory.join(RECOVERY_POINT_CHECKPOINT)),
        log_starts=read_offsets(files, directory.join(LOG_START_CHECKPOINT)),
        high_watermarks=read_offsets(files, directory.join(HIGH_WATERMARK_CHECKPOINT)),
    )


def parse_log_name(name: str) -> TopicPartition | None:
    """The partition whose log a directory of this name is; None for any other directory."""
    match = _LOG_NAME.fullmatch(name)
    return TopicPartition(match["topic"], int(match["partition"])) if match else None
