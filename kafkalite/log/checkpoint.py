"""Checkpoint files: small texts that say, for each partition of a log directory, one offset.

Line 1 is the version (0), line 2 the number of entries, then `topic partition offset` a line.
A file is always replaced as a whole (:meth:`Files.write_atomically`), so a malformed one is not
the mark of a crash but of a damaged disk: reading it raises, and its directory goes offline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kafkalite.common import TopicPartition
from kafkalite.log.files import Files

RECOVERY_POINT_CHECKPOINT: Final = "recovery-point-offset-checkpoint"
"""The first offset of each log that is not known to be durable."""
LOG_START_CHECKPOINT: Final = "log-start-offset-checkpoint"
"""The log start offset, of logs where it lies beyond the base of their first segment."""
HIGH_WATERMARK_CHECKPOINT: Final = "replication-offset-checkpoint"
"""The high watermark of each log."""


class CorruptCheckpointError(OSError):
    """A checkpoint file is not what was once written: the disk lost or changed bytes."""


def encode_lines(lines: Sequence[str]) -> bytes:
    """The text of a version 0 checkpoint with these entries."""
    return "\n".join(["0", str(len(lines)), *lines, ""]).encode()


def decode_lines(data: bytes, path: str, fields: int) -> list[list[str]]:
    """Split a checkpoint into its entries' fields. Raises :class:`CorruptCheckpointError`."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise CorruptCheckpointError(f"{path}: not a text file") from None
    if lines.pop() != "":
        # A torn file whose last number lost its last digits would read like a whole one.
        raise CorruptCheckpointError(f"{path}: the last line has no end")
    if not lines or lines[0] != "0":
        raise CorruptCheckpointError(f"{path}: version 0 expected in line 1, found {lines[:1]}")
    if len(lines) < 2 or not lines[1].isdecimal() or int(lines[1]) != len(lines) - 2:
        raise CorruptCheckpointError(
            f"{path}: line 2 must be the number of entries ({len(lines) - 2}), found {lines[1:2]}"
        )
    entries = [line.split(" ") for line in lines[2:]]
    for number, entry in enumerate(entries, start=3):
        if len(entry) != fields:
            raise CorruptCheckpointError(f"{path}: line {number} must have {fields} fields")
    return entries


def write_offsets(files: Files, path: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Replace the offset checkpoint at ``path``, durably. Raises OSError."""
    lines = [f"{tp.topic} {tp.partition} {offset}" for tp, offset in sorted(offsets.items())]
    files.write_atomically(path, encode_lines(lines))


def read_offsets(files: Files, path: str) -> dict[TopicPartition, int]:
    """Read an offset checkpoint; one that is not there holds nothing.

    Raises :class:`CorruptCheckpointError`, or OSError where the disk fails.
    """
    try:
        data = files.read(path)
    except FileNotFoundError:
        return {}
    offsets = {}
    for topic, partition, offset in decode_lines(data, path, 3):
        if not partition.isdecimal() or not offset.isdecimal():
            raise CorruptCheckpointError(f"{path}: not an entry: {topic} {partition} {offset}")
        offsets[TopicPartition(topic, int(partition))] = int(offset)
    return offsets
