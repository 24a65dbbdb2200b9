"""Leader-epoch cache: which leader wrote which stretch of the log.

A restarting follower asks the leader where its last epoch ended and truncates there, instead of
trusting its own high watermark (KIP-101; KIP-279 for fast fail-over). The cache is a short list
of (epoch, start offset), kept in `leader-epoch-checkpoint` beside the segments.

Invariant: epochs and start offsets both rise strictly from entry to entry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from kafkalite.common import UNKNOWN_LEADER_EPOCH, UNKNOWN_OFFSET, LeaderEpoch
from kafkalite.log.checkpoint import CorruptCheckpointError, decode_lines, encode_lines

LEADER_EPOCH_CHECKPOINT: Final = "leader-epoch-checkpoint"


class EpochEntry(NamedTuple):
    """The leadership ``epoch`` wrote from ``start_offset`` (inclusive) on."""

    epoch: LeaderEpoch
    start_offset: int


class LeaderEpochCache:
    """The epochs of one log. Every mutator tells whether anything changed (and is to be written)."""

    def __init__(self, entries: Iterable[EpochEntry] = ()) -> None:
        self._entries: list[EpochEntry] = []
        for entry in entries:
            self.assign(entry.epoch, entry.start_offset)

    @property
    def entries(self) -> tuple[EpochEntry, ...]:
        return tuple(self._entries)

    @property
    def latest_epoch(self) -> LeaderEpoch:
        """The newest epoch, or ``UNKNOWN_LEADER_EPOCH`` where none is known."""
        return self._entries[-1].epoch if self._entries else UNKNOWN_LEADER_EPOCH

    def assign(self, epoch: LeaderEpoch, start_offset: int) -> bool:
        """Let ``epoch`` begin at ``start_offset``; what contradicts it at the end is removed.

        Does nothing when the newest entry is that epoch and begins no later.
        """
        entries = self._entries
        if entries and entries[-1].epoch == epoch and entries[-1].start_offset <= start_offset:
            return False
        while entries and (entries[-1].epoch >= epoch or entries[-1].start_offset >= start_offset):
            entries.pop()
        entries.append(EpochEntry(epoch, start_offset))
        return True

    def truncate_from_end(self, offset: int) -> bool:
        """Forget the epochs that begin at or beyond ``offset``."""
        before = len(self._entries)
        while self._entries and self._entries[-1].start_offset >= offset:
            self._entries.pop()
        return len(self._entries) != before

    def truncate_from_start(self, offset: int) -> bool:
        """Forget what lies below ``offset``; the epoch that covers it now begins there."""
        count = bisect_right(self._entries, offset, key=lambda entry: entry.start_offset)
        if count == 0 or (count == 1 and self._entries[0].start_offset == offset):
            return False
        self._entries[:count] = [EpochEntry(self._entries[count - 1].epoch, offset)]
        return True

    def clear(self) -> bool:
        """Forget everything."""
        changed = bool(self._entries)
        self._entries.clear()
        return changed

    def epoch_at(self, offset: int) -> LeaderEpoch:
        """The epoch whose stretch holds ``offset``, or ``UNKNOWN_LEADER_EPOCH``."""
        index = bisect_right(self._entries, offset, key=lambda entry: entry.start_offset)
        return self._entries[index - 1].epoch if index else UNKNOWN_LEADER_EPOCH

    def end_offset_for(self, epoch: LeaderEpoch, log_end_offset: int) -> tuple[LeaderEpoch, int]:
        """Tell where ``epoch`` ended here: (largest epoch ≤ it, start of the next one).

        For the newest epoch that is the log end. (-1, -1) when nothing is known: no epoch was
        asked for, or the question is about the future.
        """
        if epoch == UNKNOWN_LEADER_EPOCH:
            return UNKNOWN_LEADER_EPOCH, UNKNOWN_OFFSET
        if self._entries and epoch == self._entries[-1].epoch:
            return epoch, log_end_offset
        index = bisect_right(self._entries, epoch, key=lambda entry: entry.epoch)
        if index == len(self._entries):
            return UNKNOWN_LEADER_EPOCH, UNKNOWN_OFFSET
        floor = self._entries[index - 1].epoch if index else epoch
        return floor, self._entries[index].start_offset

    def ranges_between(self, first: int, end: int) -> list[tuple[LeaderEpoch, int, int]]:
        """Cut [first, end) into (epoch, first, last exclusive) by epoch."""
        ranges = []
        position = first
        while position < end:
            index = bisect_right(self._entries, position, key=lambda entry: entry.start_offset)
            stop = min(end, self._entries[index].start_offset) if index < len(self._entries) else end
            ranges.append((self.epoch_at(position), position, stop))
            position = stop
        return ranges

    def encode(self) -> bytes:
        """The content of the checkpoint file."""
        return encode_lines([f"{entry.epoch} {entry.start_offset}" for entry in self._entries])

    @staticmethod
    def decode(data: bytes, path: str) -> LeaderEpochCache:
        """Read a checkpoint file. Raises :class:`CorruptCheckpointError`."""
        entries = []
        for epoch, offset in decode_lines(data, path, 2):
            if not epoch.isdecimal() or not offset.isdecimal():
                raise CorruptCheckpointError(f"{path}: not an epoch entry: {epoch} {offset}")
            entries.append(EpochEntry(LeaderEpoch(int(epoch)), int(offset)))
        cache = LeaderEpochCache(entries)
        if cache._entries != entries:
            raise CorruptCheckpointError(f"{path}: epochs and offsets must rise from line to line")
        return cache
