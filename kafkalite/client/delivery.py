"""What `send` and `send_many` return: awaitables for the outcome, which cost next to nothing to make.

They hold a batch and a place in it, no Future: whoever waits, waits for the batch. A batch that was split
is followed into its parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import NamedTuple

import msgspec

from kafkalite.client.batch import Batch
from kafkalite.client.errors import BufferExhaustedError
from kafkalite.client.records import CREATE_TIME, LOG_APPEND_TIME, RecordMetadata


class Delivery(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What `send` returns: await it for where the record was written, or why it was not.

    It may be awaited never, once or often, by anybody. Without a Future of its own it costs little.
    """

    _batch: Batch
    _index: int

    def __await__(self) -> Generator[object, None, RecordMetadata]:
        while not (batch := self._locate()[0]).done:
            yield from batch.settled().__await__()
        return self.result()

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._locate()[0].done

    def exception(self) -> BaseException | None:
        """Why it was not acknowledged; None where it was, or the outcome is not known yet."""
        return self._locate()[0].error

    def result(self) -> RecordMetadata:
        """Where it was written. Raises its error, or asyncio.InvalidStateError before it is done."""
        batch, index = self._locate()
        if not batch.done:
            raise asyncio.InvalidStateError("the record is still on its way")
        if batch.error is not None:
            raise batch.error
        by_leader = batch.log_append_time >= 0
        return RecordMetadata(
            batch.tp.topic,
            batch.tp.partition,
            batch.tp,
            batch.base_offset + index if batch.base_offset >= 0 else -1,
            batch.log_append_time if by_leader else batch.timestamp_of(index),
            LOG_APPEND_TIME if by_leader else CREATE_TIME,
            batch.log_start_offset if batch.log_start_offset >= 0 else None,
        )

    def _locate(self) -> tuple[Batch, int]:
        """The batch that the record is in now, and its place there."""
        batch, index = self._batch, self._index
        while batch.parts is not None:
            for part in batch.parts:
                if index < part.count:
                    batch = part
                    break
                index -= part.count
        return batch, index


class Written(NamedTuple):
    """Where consecutive records were written: those of one `send_many` that went into one batch."""

    topic: str
    partition: int
    offset: int
    """Of the first; the others follow. -1 where the cluster did not say."""
    indices: Sequence[int]
    """Which they are among those given to `send_many`."""
    log_append_time: int
    """Milliseconds since the Unix epoch where the leader's clock counts (LogAppendTime), else -1."""


class Piece(NamedTuple):
    """Records of one `send_many` that went into one batch."""

    batch: Batch
    first: int
    """The first one's index there."""
    indices: Sequence[int]
    """Which they are among those given."""


class Deliveries:
    """What `send_many` returns: await it for where the records were written, or why one was not.

    It may be awaited never, once or often. ``deliveries[i]`` is what `send` would have returned for
    record i.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._count = sum(len(piece.indices) for piece in pieces)
        self._places: dict[int, tuple[Batch, int]] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Delivery:
        if not -self._count <= number < self._count:
            raise IndexError(f"record {number} of {self._count}")
        if self._places is None:
            self._places = {
                which: (piece.batch, piece.first + i)
                for piece in self._pieces
                for i, which in enumerate(piece.indices)
            }
        return Delivery(*self._places[number % self._count])

    def __await__(self) -> Generator[object, None, list[Written]]:
        while pending := [piece.batch for piece in self._parts() if not piece.batch.done]:
            for batch in pending:
                yield from batch.settled().__await__()
        return self.result()

    def done(self) -> bool:
        """Whether the outcome of all is known."""
        return all(piece.batch.done for piece in self._parts())

    def result(self) -> list[Written]:
        """Where they were written, batch by batch. Raises the first error, or asyncio.InvalidStateError."""
        found = []
        for batch, first, indices in self._parts():
            if not batch.done:
                raise asyncio.InvalidStateError("some of the records are still on their way")
            if batch.error is not None:
                raise batch.error
            offset = batch.base_offset + first if batch.base_offset >= 0 else -1
            found.append(Written(batch.tp.topic, batch.tp.partition, offset, indices, batch.log_append_time))
        return found

    def _parts(self) -> list[Piece]:
        """The pieces by the batches that they are in now: some may have been split."""
        pieces = []
        rest = list(reversed(self._pieces))
        while rest:
            piece = rest.pop()
            if piece.batch.parts is None:
                pieces.append(piece)
                continue
            base, halves = 0, []
            end = piece.first + len(piece.indices)
            for part in piece.batch.parts:
                first, last = max(piece.first, base), min(end, base + part.count)
                if first < last:
                    indices = piece.indices[first - piece.first : last - piece.first]
                    halves.append(Piece(part, first - base, indices))
                base += part.count
            rest += reversed(halves)
        return pieces


class PartlySentError(BufferExhaustedError):
    """`send_many` found no room for all: ``accepted`` has the deliveries of those that it accepted."""

    def __init__(self, message: str, accepted: Deliveries) -> None:
        super().__init__(message)
        self.accepted = accepted
