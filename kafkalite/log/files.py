"""The only place that touches the disk: `Files`, and `DiskFiles` on the operating system.

Everything above asks this interface for files, so a simulation can hand in a disk that forgets
what was not fsynced, tears writes and fails on demand. The promises are narrow on purpose:

- :meth:`File.append` returns only when *all* bytes were taken; a short write is completed or raises;
- nothing is durable before :meth:`File.sync` (contents) and :meth:`Files.sync_dir` (names);
- :meth:`Files.write_atomically` replaces a file's whole content or leaves the old one.

Failures are plain ``OSError``; :class:`kafkalite.log.log_dir.LogDir` turns them into an offline
directory. A handle is not thread-safe against its own ``close``; whoever lends one to a thread
keeps it open until the thread is done (:meth:`kafkalite.log.segment.Segment.pin`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from kafkalite.edge import Buffer


class DirLocked(Exception):
    """Another process holds the lock of a log directory."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is locked: another broker is using this log directory. "
            "Stop that broker, or give this one a directory of its own in log.dirs."
        )
        self.path = path


class File(Protocol):
    """An open file: appended at its end, read anywhere."""

    @property
    def path(self) -> str:
        """Where the file was when it was opened or last renamed through ``Files``."""
        ...

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write all ``buffers`` at the end, in order and without copying; return their total size.

        Raises OSError when not everything could be written. Then an unknown part is in the file.
        """
        ...

    def pread(self, size: int, position: int) -> Buffer:
        """Read ``size`` bytes from ``position``; fewer only where the file ends."""
        ...

    def pread_nowait(self, size: int, position: int) -> Buffer:
        """Like :meth:`pread`, from memory only.

        Raises BlockingIOError where a part of it would have to come from the disk.
        """
        ...

    def size(self) -> int:
        """The file's length in bytes."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        ...

    def sync(self) -> None:
        """Make the contents durable (fsync)."""
        ...

    def close(self) -> None:
        """Close; a second call does nothing."""
        ...


class DirLock(Protocol):
    """A held lock of a log directory."""

    def release(self) -> None:
        """Give the lock up; a second call does nothing."""
        ...


class Files(Protocol):
    """A disk. Paths are absolute or relative to the process; all errors are OSError."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and appending. Raises FileNotFoundError unless ``create``."""
        ...

    def read(self, path: str) -> bytes:
        """Read a whole file. Raises FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether a file or directory is there."""
        ...

    def is_dir(self, path: str) -> bool:
        """Tell whether ``path`` is a directory."""
        ...

    def size(self, path: str) -> int:
        """A file's length in bytes. Raises FileNotFoundError."""
        ...

    def modified_ms(self, path: str) -> int:
        """When the file was last written, milliseconds since the Unix epoch."""
        ...

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        ...

    def mkdir(self, path: str) -> None:
        """Make a directory and those above it; one that is there is fine."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name in its directory, replacing a file of that name."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all in it; one that is not there is fine."""
        ...

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable: creations, renames and removals."""
        ...

    def write_atomically(self, path: str, data: bytes, *, sync: bool = True) -> None:
        """Replace the whole content: write ``path.tmp``, fsync, rename, fsync the directory.

        Without ``sync`` the two fsyncs are left to the caller's next flush: a crash of the process
        still finds the old content or the new, a crash of the machine may find neither.
        """
        ...

    def lock(self, path: str) -> DirLock:
        """Lock the directory ``path`` through its `.lock` file. Raises :class:`DirLocked`."""
        ...


class DiskFile:
    """A `File` on the operating system's file API."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd

    @property
    def path(self) -> str:
        return self._path

    def append(self, buffers: Sequence[Buffer]) -> int:
        total = sum(map(len, buffers))
        written = os.writev(self._fd, buffers)
        if written != total:
            self._complete(buffers, written, total)
        return total

    def _complete(self, buffers: Sequence[Buffer], written: int, total: int) -> None:
        """Write what a short write left over. A full disk answers the next write with ENOSPC."""
        rest = memoryview(b"".join(buffers))
        while written < total:
            count = os.write(self._fd, rest[written:])
            if count == 0:
                raise OSError(errno.EIO, "the disk takes no more bytes and gives no reason", self._path)
            written += count

    def pread(self, size: int, position: int) -> Buffer:
        data = os.pread(self._fd, size, position)
        if 0 < len(data) < size:
            # One call may return less than asked for (signals, 2 GiB limit), not only at the end.
            pieces = [data]
            got = len(data)
            while got < size:
                piece = os.pread(self._fd, size - got, position + got)
                if not piece:
                    break
                pieces.append(piece)
                got += len(piece)
            data = b"".join(pieces)
        return data

    def pread_nowait(self, size: int, position: int) -> Buffer:
        buffer = bytearray(size)
        try:
            got = os.preadv(self._fd, [buffer], position, os.RWF_NOWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # This file system cannot tell; waiting for the disk is all that is left.
            return self.pread(size, position)
        if got < size and position + got < self.size():
            raise BlockingIOError(errno.EAGAIN, "not in the page cache", self._path)
        return memoryview(buffer)[:got] if got < size else buffer

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class FlockLock:
    """A `DirLock` by flock(2): the kernel drops it when the process dies, however it dies."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class DiskFiles:
    """`Files` on the operating system."""

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return DiskFile(path, os.open(path, flags, 0o644))

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)

    def remove_tree(self, path: str) -> None:
        if not os.path.isdir(path):
            return
        for name in os.listdir(path):
            inner = os.path.join(path, name)
            if os.path.isdir(inner) and not os.path.islink(inner):
                self.remove_tree(inner)
            else:
                self.remove(inner)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def write_atomically(self, path: str, data: bytes, *, sync: bool = True) -> None:
        temporary = f"{path}.tmp"
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            file.append([data])
            if sync:
                file.sync()
        os.rename(temporary, path)
        if sync:
            self.sync_dir(os.path.dirname(path) or ".")

    def lock(self, path: str) -> FlockLock:
        fd = os.open(os.path.join(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DirLocked(path) from None
        except OSError:
            os.close(fd)
            raise
        return FlockLock(fd)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[DiskFile]:
    file = DiskFile(path, os.open(path, flags | os.O_CLOEXEC, 0o644))
    try:
        yield file
    finally:
        file.close()
