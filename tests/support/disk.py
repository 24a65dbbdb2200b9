"""A disk that forgets, tears and fails: `Files` in memory, for tests and the simulation.

It keeps two worlds. The *volatile* one is what processes see (the page cache); the *durable* one is
what fsync has reached: contents by file, names by directory, apart. Two kinds of crash:

- of the **process** (:meth:`SimulatedDisk.crash_process`): locks and handles go, every byte that a
  call has returned stays;
- of **power** (:meth:`SimulatedDisk.crash_power`): only what was fsynced stays. Given chance, a part
  of the rest does too, as on a real disk: any prefix of a file's unsynced bytes (a torn write), any
  prefix of a directory's unsynced operations, each file and directory for itself.

A crash can be set for the n-th operation that changes anything (:meth:`crash_at`), also in the
middle of a write at any byte; failures (ENOSPC, EIO, short writes) for any operation that matches
(:meth:`fail`), or at random from a seed (:meth:`fail_at_random`). :func:`crash_points` runs one
scenario again and again, crashed at each of its operations.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from kafkalite.edge import Buffer
from kafkalite.log.files import DirLocked


class SimulatedCrash(BaseException):
    """The machine or the process died in the middle of a call. No handler of Exception sees it."""


@dataclass(eq=False, slots=True)
class _Inode:
    """A file's contents."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    kept: int = 0
    """How much of ``durable`` is still the beginning of ``data``: a truncation lowers it."""
    modified_ms: int = 0


@dataclass(eq=False, slots=True)
class _Directory:
    """A directory's names. ``changes`` are those not fsynced: (name, new entry or None), in order."""

    entries: dict[str, _Inode | _Directory] = field(default_factory=dict)
    durable: dict[str, _Inode | _Directory] = field(default_factory=dict)
    changes: list[list[tuple[str, _Inode | _Directory | None]]] = field(default_factory=list)

    def change(self, *changes: tuple[str, _Inode | _Directory | None]) -> None:
        """Apply changes that take effect together or, after a power cut, not at all."""
        for name, entry in changes:
            if entry is None:
                del self.entries[name]
            else:
                self.entries[name] = entry
        self.changes.append(list(changes))


@dataclass(slots=True)
class _Failure:
    operation: str
    pattern: str
    error: int
    skip: int
    times: int
    written: int


class SimulatedFile:
    """A `File` on a :class:`SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: _Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode: _Inode | None = inode

    @property
    def path(self) -> str:
        return self._path

    def _open(self) -> _Inode:
        if self._inode is None:
            raise OSError(errno.EBADF, "the file is closed", self._path)
        return self._inode

    def append(self, buffers: Sequence[Buffer]) -> int:
        inode = self._open()
        data = b"".join(buffers)
        try:
            self._disk.enter("write", self._path, len(data))
        except PartlyWritten as partly:
            inode.data += data[: partly.written]
            raise partly.reason from None
        inode.data += data
        inode.modified_ms = self._disk.now_ms()
        return len(data)

    def pread(self, size: int, position: int) -> Buffer:
        inode = self._open()
        self._disk.enter("read", self._path)
        return bytes(inode.data[position : position + size])

    def pread_nowait(self, size: int, position: int) -> Buffer:
        if self._disk.is_cold:
            raise BlockingIOError(errno.EAGAIN, "not in memory", self._path)
        return self.pread(size, position)

    def size(self) -> int:
        return len(self._open().data)

    def truncate(self, size: int) -> None:
        inode = self._open()
        self._disk.enter("truncate", self._path)
        assert size <= len(inode.data), "logs are only ever cut"
        del inode.data[size:]
        inode.kept = min(inode.kept, size)

    def sync(self) -> None:
        inode = self._open()
        self._disk.enter("fsync", self._path)
        inode.durable = bytes(inode.data)
        inode.kept = len(inode.durable)

    def close(self) -> None:
        self._inode = None


class PartlyWritten(Exception):
    """A write failed, or the crash came, after a part of it."""

    def __init__(self, written: int, reason: BaseException) -> None:
        self.written = written
        self.reason = reason


class SimulatedLock:
    """A `DirLock` that goes with its process."""

    def __init__(self, disk: SimulatedDisk, path: str) -> None:
        self._disk = disk
        self._path: str | None = path

    def release(self) -> None:
        if self._path is not None:
            self._disk.locked.discard(self._path)
            self._path = None


class SimulatedDisk:
    """`Files` in memory. See the module."""

    def __init__(self, *, now_ms: Callable[[], int] = lambda: 0) -> None:
        self.now_ms = now_ms
        self.operations = 0
        """Operations so far that changed something: writes, truncations, fsyncs, renames, …"""
        self.is_cold = False
        """Whether reads that must not wait find nothing in memory."""
        self.locked: set[str] = set()
        self.trace: list[tuple[str, str]] = []
        """(operation, path) of everything that changed something since it was last cleared."""
        self._root = _Directory()
        self._crash_at: int | None = None
        self._crash_after_bytes: int | None = None
        self._failures: list[_Failure] = []
        self._random_failures: tuple[random.Random, float] | None = None
        self._is_dead = False

    # --- Mischief -----------------------------------------------------------------------------

    def crash_at(self, operation: int | None, *, after_bytes: int | None = None) -> None:
        """Raise :class:`SimulatedCrash` instead of the n-th (from 0, counted from here) operation.

        ``after_bytes``: where that is a write, so many of its bytes are still written.
        """
        self._crash_at = None if operation is None else self.operations + operation
        self._crash_after_bytes = after_bytes

    def fail(
        self,
        operation: str,
        pattern: str = "*",
        *,
        error: int = errno.EIO,
        skip: int = 0,
        times: int = 1,
        written: int = 0,
    ) -> None:
        """Let matching operations fail: the ``times`` after the first ``skip``.

        ``operation``: write, truncate, fsync, fsync_dir, rename, remove, mkdir, create, read;
        ``pattern`` is a shell pattern for the path. A failing write leaves its first ``written``
        bytes in the file: a short write that could not be completed.
        """
        self._failures.append(_Failure(operation, pattern, error, skip, times, written))

    def fail_at_random(self, chance: random.Random, probability: float) -> None:
        """Let every changing operation fail with this probability, as EIO or ENOSPC."""
        self._random_failures = (chance, probability)

    def heal(self) -> None:
        """Forget all failures that were set."""
        self._failures.clear()
        self._random_failures = None

    def enter(self, operation: str, path: str, size: int = 0) -> None:
        """Called before every operation; raises what was set for it."""
        if self._is_dead:
            raise SimulatedCrash("this disk's machine is down")
        for failure in self._failures:
            if failure.operation == operation and fnmatch.fnmatch(path, failure.pattern):
                if failure.skip > 0:
                    failure.skip -= 1
                elif failure.times > 0:
                    failure.times -= 1
                    fault = OSError(failure.error, os.strerror(failure.error), path)
                    if operation == "write":
                        raise PartlyWritten(min(failure.written, size), fault)
                    raise fault
        if operation == "read":
            return
        number = self.operations
        self.operations += 1
        self.trace.append((operation, path))
        if self._random_failures is not None:
            chance, probability = self._random_failures
            if chance.random() < probability:
                code = chance.choice([errno.EIO, errno.ENOSPC])
                fault = OSError(code, os.strerror(code), path)
                if operation == "write":
                    raise PartlyWritten(chance.randrange(size + 1), fault)
                raise fault
        if number == self._crash_at:
            self._is_dead = True
            crash = SimulatedCrash(f"crashed at operation {number}: {operation} {path}")
            if operation == "write" and self._crash_after_bytes is not None:
                raise PartlyWritten(min(self._crash_after_bytes, size), crash)
            raise crash

    def crash_process(self) -> None:
        """The process is gone and another may start: what calls have returned is still there."""
        self.locked.clear()
        self._is_dead = False
        self._crash_at = None

    def crash_power(self, chance: random.Random | None = None) -> None:
        """The machine is off and on again: what was not fsynced is gone, all of it without ``chance``."""
        self.crash_process()
        seen: dict[int, _Inode] = {}
        self._lose_names(self._root, chance, seen)
        for inode in seen.values():
            self._lose_contents(inode, chance)

    def _lose_names(
        self, directory: _Directory, chance: random.Random | None, seen: dict[int, _Inode]
    ) -> None:
        entries = dict(directory.durable)
        if chance is not None:
            for changes in directory.changes[: chance.randrange(len(directory.changes) + 1)]:
                for name, entry in changes:
                    if entry is None:
                        entries.pop(name, None)
                    else:
                        entries[name] = entry
        directory.entries = entries
        directory.durable = dict(entries)
        directory.changes = []
        for entry in entries.values():
            if isinstance(entry, _Directory):
                self._lose_names(entry, chance, seen)
            else:
                seen[id(entry)] = entry

    @staticmethod
    def _lose_contents(inode: _Inode, chance: random.Random | None) -> None:
        unsynced = bytes(inode.data[inode.kept :])
        if chance is None or (inode.kept < len(inode.durable) and chance.random() < 0.5):
            inode.data = bytearray(inode.durable)
        else:
            # An unsynced truncation took effect, and so did some of what was written after it.
            torn = unsynced[: chance.randrange(len(unsynced) + 1)]
            inode.data = bytearray(inode.durable[: inode.kept] + torn)
            if chance.random() < 0.25:
                # The length may reach the disk before the bytes: they read as zeros.
                inode.data += bytes(chance.randrange(len(unsynced) - len(torn) + 1))
        inode.durable = bytes(inode.data)
        inode.kept = len(inode.durable)

    # --- Damage -------------------------------------------------------------------------------

    def flip_byte(self, path: str, position: int) -> None:
        """Invert one byte, in both worlds."""
        inode = self._file(path)
        inode.data[position] ^= 0xFF
        inode.durable = bytes(inode.data)
        inode.kept = len(inode.durable)

    # --- Looking ------------------------------------------------------------------------------

    def peek(self, path: str) -> bytearray:
        """A file's present contents, without an operation and without a copy: for checkers."""
        return self._file(path).data

    def peek_names(self, path: str) -> list[str]:
        """The names in a directory, sorted, without an operation; none where it is not there."""
        return sorted(self._directory(path).entries) if self.exists(path) else []

    # --- Files --------------------------------------------------------------------------------

    def _walk(self, path: str) -> _Directory | _Inode:
        entry: _Directory | _Inode = self._root
        for name in _parts(path):
            if not isinstance(entry, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            found = entry.entries.get(name)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            entry = found
        return entry

    def _directory(self, path: str) -> _Directory:
        entry = self._walk(path)
        if not isinstance(entry, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        return entry

    def _file(self, path: str) -> _Inode:
        entry = self._walk(path)
        if isinstance(entry, _Directory):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        return entry

    def open(self, path: str, *, create: bool = False) -> SimulatedFile:
        try:
            inode = self._file(path)
        except FileNotFoundError:
            if not create:
                raise
            self.enter("create", path)
            inode = _Inode(modified_ms=self.now_ms())
            self._directory(os.path.dirname(path)).change((os.path.basename(path), inode))
        return SimulatedFile(self, path, inode)

    def read(self, path: str) -> bytes:
        self.enter("read", path)
        return bytes(self._file(path).data)

    def exists(self, path: str) -> bool:
        try:
            self._walk(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_dir(self, path: str) -> bool:
        return self.exists(path) and isinstance(self._walk(path), _Directory)

    def size(self, path: str) -> int:
        return len(self._file(path).data)

    def modified_ms(self, path: str) -> int:
        return self._file(path).modified_ms

    def listdir(self, path: str) -> list[str]:
        return sorted(self._directory(path).entries)

    def mkdir(self, path: str) -> None:
        directory = self._root
        parts = _parts(path)
        for depth, name in enumerate(parts):
            entry = directory.entries.get(name)
            if entry is None:
                self.enter("mkdir", "/" + "/".join(parts[: depth + 1]))
                entry = _Directory()
                directory.change((name, entry))
            if not isinstance(entry, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            directory = entry

    def rename(self, source: str, target: str) -> None:
        assert os.path.dirname(source) == os.path.dirname(target), "names change within a directory"
        entry = self._walk(source)
        self.enter("rename", source)
        self._directory(os.path.dirname(source)).change(
            (os.path.basename(target), entry), (os.path.basename(source), None)
        )

    def remove(self, path: str) -> None:
        if self.exists(path):
            self._file(path)
            self.enter("remove", path)
            self._directory(os.path.dirname(path)).change((os.path.basename(path), None))

    def remove_tree(self, path: str) -> None:
        if self.is_dir(path):
            for name in self.listdir(path):
                inner = os.path.join(path, name)
                if self.is_dir(inner):
                    self.remove_tree(inner)
                else:
                    self.remove(inner)
            self.enter("remove", path)
            self._directory(os.path.dirname(path)).change((os.path.basename(path), None))

    def sync_dir(self, path: str) -> None:
        directory = self._directory(path)
        self.enter("fsync_dir", path)
        directory.durable = dict(directory.entries)
        directory.changes.clear()

    def write_atomically(self, path: str, data: bytes, *, sync: bool = True) -> None:
        temporary = f"{path}.tmp"
        self.remove(temporary)
        file = self.open(temporary, create=True)
        file.append([data])
        if sync:
            file.sync()
        self.rename(temporary, path)
        if sync:
            self.sync_dir(os.path.dirname(path))

    def lock(self, path: str) -> SimulatedLock:
        self._directory(path)
        if path in self.locked:
            raise DirLocked(path)
        self.locked.add(path)
        return SimulatedLock(self, path)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """Where one run of a scenario is to be crashed."""

    operation: int
    """Instead of this operation, counted from 0 …"""
    after_bytes: int | None
    """… or, if it is a write, after so many of its bytes."""
    seed: int | None
    """What a power cut keeps of the unsynced; None for a crash of the process."""

    def apply(self, disk: SimulatedDisk) -> None:
        """Crash ``disk`` the way this point says, after :class:`SimulatedCrash` was raised."""
        if self.seed is None:
            disk.crash_process()
        else:
            disk.crash_power(random.Random(self.seed) if self.seed else None)


def crash_points(operations: int, *, limit: int, chance: random.Random) -> Iterator[CrashPoint]:
    """Choose at most ``limit`` crash points for a scenario of so many operations.

    Every operation boundary comes first, for both kinds of crash (seed 0: a power cut that keeps
    nothing unsynced); the rest is drawn: torn writes, and power cuts that keep a part.
    """
    count = 0
    for seed in (None, 0):
        for operation in range(operations):
            if count == limit:
                return
            count += 1
            yield CrashPoint(operation, None, seed)
    while count < limit:
        count += 1
        seed = chance.choice([None, chance.randrange(1, 2**32)])
        yield CrashPoint(chance.randrange(operations), chance.choice([None, chance.randrange(200)]), seed)
