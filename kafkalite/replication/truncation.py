"""Where a follower cuts its log so that it becomes a prefix of its leader's. No IO.

High watermarks cannot tell: a follower's is always a little behind. Leader epochs can (KIP-101,
KIP-279): the leader says where the epoch that the follower last wrote in ended *in its own log*,
and the follower cuts there. Where the leader never had that epoch, it answers with the largest
one below it, and the two walk down together until they meet.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kafkalite.common import UNKNOWN_LEADER_EPOCH, UNKNOWN_OFFSET


class EpochEnd(NamedTuple):
    """An epoch and the exclusive end of its records in one log; (-1, -1) where it is unknown."""

    epoch: int
    end_offset: int

    @property
    def is_known(self) -> bool:
        return self.end_offset != UNKNOWN_OFFSET


class Truncation(msgspec.Struct, frozen=True):
    """A decision: cut the log so that it ends at ``offset``."""

    offset: int
    done: bool
    """False: the logs may still differ below; ask again with the epoch that is now the last."""


def truncation_after(
    leader: EpochEnd, follower: EpochEnd | None, *, log_end_offset: int, initial_offset: int
) -> Truncation:
    """Decide from the leader's answer.

    ``follower`` is where the epoch of the leader's answer ended in the follower's own log (with
    the epoch it found), None where it has no entry for it. ``initial_offset`` is where the
    follower would start without any answer: its high watermark.
    """
    if not leader.is_known:
        return Truncation(min(initial_offset, log_end_offset), done=True)
    if leader.epoch == UNKNOWN_LEADER_EPOCH or follower is None or not follower.is_known:
        return Truncation(min(leader.end_offset, log_end_offset), done=True)
    if follower.epoch != leader.epoch:
        return Truncation(min(follower.end_offset, log_end_offset), done=False)
    return Truncation(min(follower.end_offset, leader.end_offset, log_end_offset), done=True)


def diverges(last_fetched_epoch: int, fetch_offset: int, leader: EpochEnd) -> bool:
    """Tell, on the leader, whether a follower's log has left the leader's.

    ``leader`` is where ``last_fetched_epoch`` ended in the leader's log, and is known.
    """
    return leader.epoch < last_fetched_epoch or leader.end_offset < fetch_offset


class OutOfRange(msgspec.Struct, frozen=True):
    """What a follower does that asked for an offset its leader does not have."""

    truncate_to: int | None = None
    """Cut here and go on fetching here: the leader's log ends before ours."""
    restart_at: int | None = None
    """Throw everything away and start here: the leader's log starts after ours ends."""


def after_out_of_range(*, leader_start: int, leader_end: int, log_end_offset: int) -> OutOfRange:
    """Decide from the leader's first and (exclusive) last offset.

    Neither field set means: nothing to cut, fetch again from the own log end.
    """
    if leader_end < log_end_offset:
        return OutOfRange(truncate_to=leader_end)
    if leader_start > log_end_offset:
        return OutOfRange(restart_at=leader_start)
    return OutOfRange()
