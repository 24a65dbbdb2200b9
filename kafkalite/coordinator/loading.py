"""Reading a partition of `__consumer_offsets` back: large chunks, columns, the last value of each key.

Only the last record of a key matters (:meth:`Shard.apply` is last-writer-wins by key), so a chunk
becomes one dictionary in which later records overwrite earlier ones, made column by column off the
loop; keys and values are decoded once at the end, for the keys that are left. That is what keeps a
partition that nobody compacts quick to load: the work a record is an entry in a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kafkalite.coordinator.group.records import MalformedRecord, Record
from kafkalite.edge import Buffer
from kafkalite.protocol.errors import CorruptMessageError, InvalidRecordError, UnsupportedCompressionTypeError
from kafkalite.protocol.record_batch import batches, check_crc, decode_batch


class Chunk(NamedTuple):
    """What some batches came to."""

    latest: dict[bytes, bytes | None]
    """The last value of each key; None is a tombstone."""
    records: int
    problems: list[str]
    """What could not be read, and was left out."""


def read_chunk(buffer: Buffer) -> Chunk:
    """Take the batches of ``buffer`` apart; blocking, for a thread."""
    latest: dict[bytes, bytes | None] = {}
    records = 0
    problems = []
    view = memoryview(buffer)
    for header, position, size in batches(buffer):
        if header.is_control:
            continue
        batch = view[position : position + size]
        try:
            check_crc(batch, header)
            columns = decode_batch(batch)
        except (CorruptMessageError, InvalidRecordError, UnsupportedCompressionTypeError) as error:
            problems.append(f"the batch at offset {header.base_offset}: {error}")
            continue
        records += len(columns)
        if columns.keys is not None:
            for key, value in zip(columns.keys, columns.values, strict=True):
                if key is not None:
                    latest[key] = value
    return Chunk(latest, records, problems)


def decode_latest(latest: Mapping[bytes, bytes | None]) -> tuple[list[Record], list[str]]:
    """Decode what is left of a whole partition: records without tombstones, and what was unreadable."""
    records = []
    problems = []
    for key, value in latest.items():
        if value is None:
            continue
        try:
            record = Record.decode(key, value)
        except MalformedRecord as error:
            problems.append(str(error))
            continue
        if record is not None:
            records.append(record)
    return records, problems
