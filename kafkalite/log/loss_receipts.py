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


def write_receipts(
    directory: LogDir,
    partition: TopicPartition,
    ranges: Sequence[tuple[LeaderEpoch, int, int]],
    *,
    reason: str,
    now_ms: int,
    cause: str | None = None,
) -> None:
    """Write a durable receipt for ``ranges`` of (epoch, first offset, last exclusive).

    ``reason`` is for people, ``cause`` the journal's event. Returns only after the fsync, so the caller
    may truncate. Blocks; raises OSError, on which the caller takes the directory offline. Without
    ranges nothing is written.
    """
    if not ranges:
        return
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
