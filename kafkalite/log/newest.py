"""The newest batches that were appended, still in memory: what followers are about to ask for.

A follower that keeps up asks for a batch within a millisecond of its append, and every follower
asks for the same one. Handing out the buffer that was appended spares each of them a read from the
page cache. One bound holds for all logs of a broker, and the oldest batch goes first.
"""

from __future__ import annotations

from collections import deque
from typing import Final, cast

from kafkalite.edge import Buffer

_OVERHEAD: Final = 256
"""What a kept batch takes besides its bytes, roughly."""


def held_bytes(records: Buffer) -> int:
    """The bytes that holding ``records`` keeps from being freed: of a view, all of its buffer."""
    return len(cast(bytes, records.obj)) if isinstance(records, memoryview) else len(records)


class KeptBatch:
    """A batch, as it lies in the log."""

    __slots__ = ("base_offset", "log", "next_offset", "records", "weight")

    def __init__(self, log: KeptOfLog, base_offset: int, next_offset: int, records: Buffer) -> None:
        self.log = log
        self.base_offset = base_offset
        self.next_offset = next_offset
        """The offset after it (exclusive)."""
        self.records = records
        self.weight = held_bytes(records) + _OVERHEAD


class NewestBatches:
    """Keeps batches of several logs, up to ``max_bytes`` together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: deque[KeptBatch] = deque()

    def add(self, batch: KeptBatch) -> None:
        """Take a batch in, and let go of the oldest ones beyond the bound."""
        self._kept.append(batch)
        self._bytes += batch.weight
        while self._bytes > self._max_bytes:
            oldest = self._kept.popleft()
            self._bytes -= oldest.weight
            oldest.log.forget(oldest)


class KeptOfLog:
    """The kept batches of one log, by base offset."""

    def __init__(self, newest: NewestBatches) -> None:
        self._newest = newest
        self._batches: dict[int, KeptBatch] = {}

    def keep(self, base_offset: int, next_offset: int, records: Buffer) -> None:
        """Remember the batch that was just appended; ``records`` must not change any more."""
        batch = KeptBatch(self, base_offset, next_offset, records)
        self._batches[base_offset] = batch
        self._newest.add(batch)

    def forget(self, batch: KeptBatch) -> None:
        """Let go of ``batch``."""
        if self._batches.get(batch.base_offset) is batch:
            del self._batches[batch.base_offset]

    def clear(self) -> None:
        """Forget all: the log was cut, and other batches may come to lie at these offsets."""
        for batch in self._batches.values():
            batch.records = b""  # The bound goes on counting it until its turn comes.
        self._batches.clear()

    def read(
        self, offset: int, *, max_bytes: int, upper_bound: int, min_one_message: bool
    ) -> tuple[Buffer, int] | None:
        """Return the batches from the one that begins at ``offset`` on, and where they end.

        The limits are those of :meth:`kafkalite.log.log.Log.read`. None where that batch is not
        here, or not within the limits: what there is to say then, the log itself says.
        """
        pieces: list[Buffer] = []
        size = 0
        batch = self._batches.get(offset)
        while batch is not None and batch.next_offset <= upper_bound:
            size += len(batch.records)
            if size > max_bytes and (pieces or not min_one_message):
                break
            pieces.append(batch.records)
            offset = batch.next_offset
            batch = self._batches.get(offset)
        if not pieces:
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), offset
