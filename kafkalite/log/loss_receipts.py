"""Loss receipts: what a truncation throws away is written down *before* it is gone.

One JSON line in `loss-receipts.jsonl` of the log directory for each stretch: topic, partition,
exact offset range, leader epoch, cause. An operator who asks "what did we lose?" gets an answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from kafkalite.common import LeaderEpoch, TopicPartition
from kafkalite.log.log_dir import LogDir

LOSS_RECEIPTS: Final = "loss-receipts.jsonl"


class LossReceipts:
    """The receipts of one log directory."""

    def __init__(self, directory: LogDir) -> None:
        self._dir = directory

    def record(
        self,
        partition: TopicPartition,
        ranges: Sequence[tuple[LeaderEpoch, int, int]],
        *,
        reason: str,
        now_ms: int,
        cause: str | None = None,
    ) -> None:
        """Write a durable receipt for ``ranges`` of (epoch, first offset, last exclusive).

        ``reason`` is for people, ``cause`` the journal's event. Returns only after the fsync, so
        the caller may truncate. Raises LogDirFailed (the directory is then offline) where the
        receipt cannot be made durable. Without ranges nothing is written.
        """
        if not ranges:
            return
        self._dir.check_online()
        try:
            write_receipts(self._dir, partition, ranges, reason=reason, now_ms=now_ms, cause=cause)
        except OSError as error:
            raise self._dir.failed(error, f"writing the loss receipt of {partition}") from error


def write_receipts(
    directory: LogDir,
    partition: TopicPartition,
    ranges: Sequence[tuple[LeaderEpoch, int, int]],
    *,
    reason: str,
    now_ms: int,
    cause: str | None = None,
) -> None:
    """What :meth:`LossReceipts.record` does, for threads: OSError is left to the caller."""
    lines = [
        json.dumps(
            {
                "time": now_ms,
                "topic": partition.topic,
                "partition": partition.partition,
                "leader_epoch": epoch,
                "first_offset": first,
                "last_offset": end - 1,
                "records": end - first,
                "reason": reason,
                "cause": cause,
            }
        )
        for epoch, first, end in ranges
    ]
    path = directory.join(LOSS_RECEIPTS)
    is_new = not directory.files.exists(path)
    file = directory.files.open(path, create=True)
    try:
        file.append(["".join(f"{line}\n" for line in lines).encode()])
        file.sync()
    finally:
        file.close()
    if is_new:
        directory.files.sync_dir(directory.path)
