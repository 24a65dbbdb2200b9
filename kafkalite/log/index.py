"""Sparse indexes of a segment: offset to position, timestamp to offset.

Entries are fixed in size and rise, so a lookup is a binary search and costs O(log n) whatever the
log's age. The entries of the *active* segment are kept in arrays beside the file, which gets them
some dozens at a time (two write calls a batch would be half of all that an append makes), and at
the latest before it is fsynced; a rolled one drops its arrays and is searched by reading the file,
a few blocks at a time, so memory does not grow with the log. Files are never mapped: a page fault
on a bad disk would kill the process where a failed read is an error. For the same reason, and since
nothing is mapped, files are not preallocated either: they are as long as what they hold.

- offset index: int32 offset relative to the segment's base, int32 position; the offset is the
  *last* one of the batch at that position;
- time index: int64 timestamp, int32 relative offset: the largest timestamp so far, and where.

A missing or corrupt index is rebuilt from the log: it holds nothing that the log does not.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

from kafkalite.log.files import File, Files

_OFFSET_ENTRY: Final = struct.Struct(">ii")
_TIME_ENTRY: Final = struct.Struct(">qi")
_WRITE_BYTES: Final = 1024
"""The active segment's new entries are written together when they come to so much."""
_BLOCK_ENTRIES: Final = 256
"""A search by reading ends with one read of this many entries."""
RELATIVE_OFFSET_MAX: Final = 2**31 - 1


class CorruptIndexError(Exception):
    """An index contradicts itself or its log; rebuilding it mends that."""


class OffsetPosition(NamedTuple):
    """The batch that ends with ``offset`` begins at ``position``."""

    offset: int
    position: int


class TimestampOffset(NamedTuple):
    """``timestamp`` is the largest up to ``offset``, where it occurs."""

    timestamp: int
    offset: int


class _Index:
    """What both indexes share: two rising columns, in memory while active, else in the file."""

    def __init__(self, files: Files, path: str, entry: struct.Struct, max_bytes: int) -> None:
        self._files = files
        self._file: File = files.open(path, create=True)
        self._entry = entry
        self._max_entries = max_bytes // entry.size
        self._unwritten = bytearray()
        """Entries that are not in the file yet. A crash may lose them: recovery makes them again."""
        self._first: array[int] | None = None
        self._second: array[int] | None = None
        self._count = self._file.size() // entry.size

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def entry_count(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether no further entry fits."""
        return self._count >= self._max_entries

    def activate(self) -> None:
        """Keep the entries in memory from now on."""
        if self._first is not None:
            return
        self._first, self._second = array("q"), array("q")
        data = self._file.pread(self._count * self._entry.size, 0)
        for first, second in self._entry.iter_unpack(data):
            self._first.append(first)
            self._second.append(second)

    def seal(self) -> None:
        """Let go of the memory: the segment is no longer active."""
        self.write()
        self._first = self._second = None

    def _append(self, first: int, second: int) -> None:
        self._unwritten += self._entry.pack(first, second)
        self._count += 1
        if self._first is not None and self._second is not None:
            self._first.append(first)
            self._second.append(second)
        if self._first is None or len(self._unwritten) >= _WRITE_BYTES:
            self.write()

    def write(self) -> None:
        """Bring the file up to date. Raises OSError."""
        if self._unwritten:
            entries, self._unwritten = self._unwritten, bytearray()
            self._file.append([entries])

    def _get(self, index: int, *, wait: bool = True) -> tuple[int, int]:
        # Looked at once: the loop may seal the segment while a thread searches it.
        memory = self._first, self._second
        if memory[0] is not None and memory[1] is not None:
            return memory[0][index], memory[1][index]
        data = self._read(index, 1, wait)
        first, second = self._entry.unpack(data)
        return first, second

    def _read(self, index: int, count: int, wait: bool) -> bytes:
        size = self._entry.size
        read = self._file.pread if wait else self._file.pread_nowait
        data = bytes(read(count * size, index * size))
        if len(data) != count * size:
            raise CorruptIndexError(f"{self.path} is shorter than its {self._count} entries")
        return data

    def _floor(self, target: int, column: int, *, wait: bool) -> int:
        """The index of the last entry whose ``column`` is at most ``target``; -1 for none."""
        memory = (self._first, self._second)[column]
        if memory is not None:
            return bisect_right(memory, target) - 1
        low, high = 0, self._count  # The answer + 1 lies in [low, high].
        while high - low > _BLOCK_ENTRIES:
            middle = (low + high) // 2
            if self._entry.unpack(self._read(middle, 1, wait))[column] <= target:
                low = middle + 1
            else:
                high = middle
        if high > low:
            for entry in self._entry.iter_unpack(self._read(low, high - low, wait)):
                if entry[column] > target:
                    break
                low += 1
        return low - 1

    def _truncate_to(self, count: int) -> None:
        """Keep the first ``count`` entries."""
        self.write()
        if count == self._count and self._file.size() == count * self._entry.size:
            return
        self._file.truncate(count * self._entry.size)
        self._count = count
        if self._first is not None and self._second is not None:
            del self._first[count:]
            del self._second[count:]

    def reset(self) -> None:
        """Forget all entries."""
        self._truncate_to(0)

    def sync(self) -> None:
        """Make durable what is in the file: all there is, after :meth:`write`. May run in a thread."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class OffsetIndex(_Index):
    """Where batches lie in a segment's file."""

    def __init__(self, files: Files, path: str, *, base_offset: int, max_bytes: int) -> None:
        super().__init__(files, path, _OFFSET_ENTRY, max_bytes)
        self.base_offset = base_offset

    def append(self, offset: int, position: int) -> None:
        """Add the batch at ``position`` that ends with ``offset``; both exceed the last entry's."""
        self._append(offset - self.base_offset, position)

    def lookup(self, offset: int, *, wait: bool = True) -> OffsetPosition:
        """The last entry at or below ``offset``; (base, 0) where there is none.

        Raises BlockingIOError unless ``wait`` where the disk would have to be read.
        """
        return self._at(self._floor(offset - self.base_offset, 0, wait=wait), wait=wait)

    def lookup_position(self, position: int, *, wait: bool = True) -> OffsetPosition:
        """The last entry whose batch begins at or before ``position``; (base, 0) for none."""
        return self._at(self._floor(position, 1, wait=wait), wait=wait)

    def _at(self, index: int, *, wait: bool) -> OffsetPosition:
        if index < 0:
            return OffsetPosition(self.base_offset, 0)
        relative, position = self._get(index, wait=wait)
        return OffsetPosition(self.base_offset + relative, position)

    def entries(self) -> list[OffsetPosition]:
        """All entries (for tests and tools; reads the file)."""
        return [self._at(index, wait=True) for index in range(self._count)]

    def truncate_to(self, offset: int) -> None:
        """Drop the entries at or beyond ``offset``."""
        self._truncate_to(self._floor(offset - self.base_offset - 1, 0, wait=True) + 1)

    def check(self, log_size: int) -> None:
        """Look at what can be seen cheaply. Raises :class:`CorruptIndexError`."""
        if self._file.size() % self._entry.size:
            raise CorruptIndexError(f"{self.path}: its size is no multiple of {self._entry.size}")
        if self._count:
            relative, position = self._get(self._count - 1)
            if relative < 0 or not 0 <= position < log_size:
                raise CorruptIndexError(f"{self.path}: its last entry points outside of the log")


class TimeIndex(_Index):
    """From when the records of a segment are."""

    def __init__(self, files: Files, path: str, *, base_offset: int, max_bytes: int) -> None:
        super().__init__(files, path, _TIME_ENTRY, max_bytes)
        self.base_offset = base_offset

    @property
    def is_full(self) -> bool:
        """Whether only the slot kept for the entry that is forced on a roll is left."""
        return self._count >= self._max_entries - 1

    def maybe_append(self, timestamp: int, offset: int) -> None:
        """Add an entry unless it says nothing new: the timestamp must exceed the last one's."""
        last = self.last()
        if self._count < self._max_entries and (
            last is None or (timestamp > last.timestamp and offset >= last.offset)
        ):
            self._append(timestamp, offset - self.base_offset)

    def last(self) -> TimestampOffset | None:
        """The newest entry: the segment's largest timestamp as far as it is indexed."""
        if not self._count:
            return None
        timestamp, relative = self._get(self._count - 1)
        return TimestampOffset(timestamp, self.base_offset + relative)

    def lookup(self, timestamp: int) -> TimestampOffset:
        """The last entry at or below ``timestamp``; (-1, base) where there is none."""
        index = self._floor(timestamp, 0, wait=True)
        if index < 0:
            return TimestampOffset(-1, self.base_offset)
        found, relative = self._get(index)
        return TimestampOffset(found, self.base_offset + relative)

    def entries(self) -> list[TimestampOffset]:
        """All entries (for tests and tools; reads the file)."""
        found = [self._get(index) for index in range(self._count)]
        return [TimestampOffset(timestamp, self.base_offset + relative) for timestamp, relative in found]

    def truncate_to(self, offset: int) -> None:
        """Drop the entries at or beyond ``offset``."""
        self._truncate_to(self._floor(offset - self.base_offset - 1, 1, wait=True) + 1)

    def check(self) -> None:
        """Look at what can be seen cheaply. Raises :class:`CorruptIndexError`."""
        if self._file.size() % self._entry.size:
            raise CorruptIndexError(f"{self.path}: its size is no multiple of {self._entry.size}")
        if self._count:
            _, relative = self._get(self._count - 1)
            if relative < 0:
                raise CorruptIndexError(f"{self.path}: its last entry points before the segment")
