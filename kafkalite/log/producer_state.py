"""What the broker remembers of producers, so that a retry is not a second copy (KIP-98).

For each producer id: its epoch and the last five batches. A batch that repeats one of the five is
a duplicate and gets the earlier offsets; any other must carry on where the last one ended. Five,
because a client has at most five requests in flight.

Invariant: the state at offset X is a function of the batch headers below X (as far as they are
still in the log). So it can be rebuilt from a snapshot and the headers after it. A snapshot holds
all five batches of a producer (version 2; Kafka's version 1, which is still read, holds only the
last): a clean restart replays nothing, and a retry that comes after it must still be recognised.

Pure: time comes in as ``now_ms``, bytes go out to whoever writes files.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import InvalidProducerEpochError, OutOfOrderSequenceNumberError
from kafkalite.protocol.record_batch import NO_PRODUCER_EPOCH, NO_SEQUENCE, BatchHeader

WINDOW: Final = 5
"""Batches remembered of each producer: as many as a client may have in flight."""
_SEQUENCE_MASK: Final = 0x7FFF_FFFF

_VERSION: Final = struct.Struct(">h")
_CRC: Final = struct.Struct(">I")
_COUNT: Final = struct.Struct(">i")
_ENTRY: Final = struct.Struct(">qhiqiqiq")
_EARLIER_COUNT: Final = struct.Struct(">b")
_EARLIER: Final = struct.Struct(">iqiq")
_BODY_AT: Final = _VERSION.size + _CRC.size


class CorruptSnapshotError(Exception):
    """A snapshot is torn or damaged; the state is rebuilt from an older one."""


class BatchMetadata(NamedTuple):
    """What is remembered of one batch."""

    last_sequence: int
    last_offset: int
    offset_delta: int
    """Last offset less first offset."""
    timestamp: int

    @property
    def first_sequence(self) -> int:
        if self.last_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return (self.last_sequence - self.offset_delta) & _SEQUENCE_MASK

    @property
    def first_offset(self) -> int:
        return self.last_offset - self.offset_delta


class ProducerEntry(msgspec.Struct):
    """One producer in one partition."""

    producer_id: int
    epoch: int
    batches: deque[BatchMetadata] = msgspec.field(default_factory=lambda: deque(maxlen=WINDOW))
    """The last up to five batches of ``epoch``, oldest first; empty after a mere epoch bump."""
    last_timestamp: int = -1
    """The timestamp of the last batch; expiry counts from it."""
    coordinator_epoch: int = -1
    """The epoch of the transaction coordinator that wrote the last marker; -1 for none."""
    current_transaction_first_offset: int = -1
    """Where the open transaction began; -1 while none is open."""

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    def duplicate_of(self, header: BatchHeader) -> BatchMetadata | None:
        """Return the remembered batch that ``header`` repeats."""
        if header.producer_epoch != self.epoch:
            return None
        last_sequence = header.last_sequence
        for batch in reversed(self.batches):
            if batch.last_sequence == last_sequence and batch.first_sequence == header.base_sequence:
                return batch
        return None


class ProducerStates:
    """All producers of one partition."""

    def __init__(self, partition: TopicPartition) -> None:
        self._partition = partition
        self._entries: dict[int, ProducerEntry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Mapping[int, ProducerEntry]:
        """By producer id."""
        return self._entries

    def check(self, header: BatchHeader) -> BatchMetadata | None:
        """Decide about a client's batch with a producer id; nothing is changed.

        Returns the earlier batch that this one repeats, or None where it may be appended. Raises
        InvalidProducerEpochError for an epoch older than the one known, and
        OutOfOrderSequenceNumberError for a gap. A producer not known here may start anywhere: it
        may have been forgotten by expiry or with deleted records.
        """
        entry = self._entries.get(header.producer_id)
        if entry is None:
            return None
        duplicate = entry.duplicate_of(header)
        if duplicate is not None:
            return duplicate
        if header.producer_epoch < entry.epoch:
            raise InvalidProducerEpochError(
                f"{self._partition}: producer {header.producer_id} has epoch {entry.epoch} by now, "
                f"the batch has {header.producer_epoch}"
            )
        if header.producer_epoch > entry.epoch:
            if header.base_sequence != 0 and entry.epoch != NO_PRODUCER_EPOCH:
                raise OutOfOrderSequenceNumberError(
                    f"{self._partition}: producer {header.producer_id} must begin its epoch "
                    f"{header.producer_epoch} with sequence 0, the batch has {header.base_sequence}"
                )
        elif entry.batches and entry.last_sequence != NO_SEQUENCE:
            expected = (entry.last_sequence + 1) & _SEQUENCE_MASK
            if header.base_sequence != expected:
                raise OutOfOrderSequenceNumberError(
                    f"{self._partition}: producer {header.producer_id} must go on with sequence {expected}, "
                    f"the batch has {header.base_sequence}"
                )
        return None

    def update(self, header: BatchHeader) -> None:
        """Remember an appended batch (its offsets set). Never fails: what is in the log happened.

        Batches without a producer id, and control batches, leave the sequences alone.
        """
        if not header.has_producer_id or header.is_control:
            return
        entry = self._entries.get(header.producer_id)
        if entry is None:
            entry = self._entries[header.producer_id] = ProducerEntry(
                header.producer_id, header.producer_epoch
            )
        elif entry.epoch != header.producer_epoch:
            entry.epoch = header.producer_epoch
            entry.batches.clear()
        entry.batches.append(
            BatchMetadata(
                header.last_sequence, header.last_offset, header.last_offset_delta, header.max_timestamp
            )
        )
        entry.last_timestamp = header.max_timestamp

    def expire(self, now_ms: int, expiration_ms: int) -> list[int]:
        """Forget producers silent for ``expiration_ms``; return their ids."""
        expired = [
            producer_id
            for producer_id, entry in self._entries.items()
            if entry.current_transaction_first_offset < 0 and now_ms - entry.last_timestamp >= expiration_ms
        ]
        for producer_id in expired:
            del self._entries[producer_id]
        return expired

    def clear(self) -> None:
        """Forget everybody."""
        self._entries.clear()

    def encode(self) -> bytes:
        """The content of a snapshot file (version 2).

        int16 version, uint32 CRC-32C of what follows, int32 count, and for each producer the
        fields of Kafka's version 1 (with its last batch), then int8 number of earlier batches and
        for each int32 last sequence, int64 last offset, int32 offset delta, int64 timestamp.
        """
        body = bytearray(_COUNT.pack(len(self._entries)))
        for entry in self._entries.values():
            last = entry.batches[-1] if entry.batches else BatchMetadata(NO_SEQUENCE, -1, 0, -1)
            body += _ENTRY.pack(
                entry.producer_id,
                entry.epoch,
                last.last_sequence,
                last.last_offset,
                last.offset_delta,
                entry.last_timestamp,
                entry.coordinator_epoch,
                entry.current_transaction_first_offset,
            )
            earlier = list(entry.batches)[:-1]
            body += _EARLIER_COUNT.pack(len(earlier))
            for batch in earlier:
                body += _EARLIER.pack(*batch)
        return _VERSION.pack(2) + _CRC.pack(crc32c(bytes(body))) + bytes(body)

    def load(self, data: bytes, path: str) -> None:
        """Become what a snapshot says. Raises :class:`CorruptSnapshotError` and is then unchanged."""
        try:
            entries = {entry.producer_id: entry for entry in _decode(data)}
        except (struct.error, ValueError) as error:
            raise CorruptSnapshotError(f"{path}: {error}") from None
        self._entries = entries


def _decode(data: bytes) -> Iterable[ProducerEntry]:
    version = _VERSION.unpack_from(data)[0]
    if version not in (1, 2):
        raise ValueError(f"snapshot version {version} is unknown")
    if _CRC.unpack_from(data, _VERSION.size)[0] != crc32c(data[_BODY_AT:]):
        raise ValueError("the checksum is wrong")
    count = _COUNT.unpack_from(data, _BODY_AT)[0]
    position = _BODY_AT + _COUNT.size
    for _ in range(count):
        (producer_id, epoch, sequence, offset, delta, timestamp, coordinator, transaction) = (
            _ENTRY.unpack_from(data, position)
        )
        position += _ENTRY.size
        batches: deque[BatchMetadata] = deque(maxlen=WINDOW)
        if version == 2:
            earlier = _EARLIER_COUNT.unpack_from(data, position)[0]
            position += _EARLIER_COUNT.size
            for _ in range(earlier):
                batches.append(BatchMetadata(*_EARLIER.unpack_from(data, position)))
                position += _EARLIER.size
        if offset >= 0:
            batches.append(BatchMetadata(sequence, offset, delta, timestamp))
        yield ProducerEntry(producer_id, epoch, batches, timestamp, coordinator, transaction)
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes too many")
