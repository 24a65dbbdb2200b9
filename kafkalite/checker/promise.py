"""What each acks mode may show, and what it must not: one table.

Two things decide: how the record was produced, and what was done to the cluster. Under *tame* faults
(any number of process crashes, pauses, cuts and session losses; power cuts where `flush.messages=1`, or
of one replica at a time; no unclean election) the cluster keeps the promise of each acks mode. Under
*wild* ones (unsynced data of several replicas lost at once, unclean elections) it may lose what it had
acknowledged, but says so: on a loss receipt, or by a partition that ends earlier than it did.

Never, under anything: a record that nobody wrote, a record read though its write certainly failed.

Of consumer groups Kafka promises less than people think. Two members may *process* a partition at the
same time: one that was paused or cut off does not know that the group went on without it. What holds is
that in one generation each partition has one owner, that a member which takes part in a generation has
given up what that generation gives to others, that whoever is of an older generation (or whose place
another process has taken) commits nothing, and that a committed offset stays until a later one takes
its place. So a record may be processed twice, but not by one who took its partition over after its
offset was committed, and none is left out. Whether records are processed before their offsets are
committed is the application's side of that.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Anomaly(enum.Enum):
    """What a history may contain that a single, never failing machine would not show."""

    LOST_WRITE = "lost-write"
    """Acknowledged, and the partition was read beyond its offset, but it is not there."""
    UNSEEN = "unseen"
    """Acknowledged, and the partition ends before its offset."""
    DUPLICATE = "duplicate"
    """One record at more than one offset."""
    INCONSISTENT_OFFSETS = "inconsistent-offsets"
    """One offset with two different records: to two readers, or to a reader before and after."""
    MISPLACED = "misplaced"
    """Acknowledged at one offset, read at another one."""
    ABORTED_READ = "aborted-read"
    """A record was read though its write certainly failed."""
    INVENTED = "invented"
    """A record was read that nobody wrote, or wrote to another partition."""
    POLL_SKIP = "poll-skip"
    """A consumer's next poll begins beyond the offset after the last one."""
    INT_POLL_SKIP = "int-poll-skip"
    """The same inside one poll."""
    NONMONOTONIC_POLL = "nonmonotonic-poll"
    """A consumer's next poll begins at or before the last offset that it had, without a seek."""
    INT_NONMONOTONIC_POLL = "int-nonmonotonic-poll"
    """The same inside one poll."""
    NONMONOTONIC_SEND = "nonmonotonic-send"
    """A later record of a producer stands before an earlier one of the same partition."""
    ACKNOWLEDGED_TWICE = "acknowledged-twice"
    """The producer was told two outcomes of one record."""
    TWO_OWNERS = "two-owners"
    """Two members of a group own one partition in one generation."""
    EARLY_HANDOVER = "early-handover"
    """A partition was given to a member in a generation in which another one, that takes part in it,
    still has it from before."""
    READ_AFTER_REVOKE = "read-after-revoke"
    """A member was handed records of a partition that it had given up."""
    FENCED_COMMIT = "fenced-commit"
    """A commit was accepted though its generation was over, or the static member replaced."""
    NONMONOTONIC_COMMIT = "nonmonotonic-commit"
    """A commit was accepted that goes back behind one accepted before it was sent, and nobody sought back."""
    LOST_COMMIT = "lost-commit"
    """Whoever asks how far a group has come is shown less than what had been acknowledged before."""
    INVENTED_COMMIT = "invented-commit"
    """Whoever asks how far a group has come is shown more than anybody ever committed."""
    PROCESSED_AGAIN = "processed-again"
    """Who took a partition over began before the offset that had been committed until then."""
    UNPROCESSED = "unprocessed"
    """No member of a group was ever handed the record, though the group went on behind it, or is done."""


class Mode(enum.Enum):
    """How a record was produced."""

    ACKS_0 = "acks=0"
    ACKS_1 = "acks=1"
    ACKS_ALL = "acks=all"
    IDEMPOTENT = "acks=all, idempotent"


class Faults(enum.Enum):
    """What was done to the cluster."""

    TAME = "tame"
    WILD = "wild"


_LOSS: Final = frozenset({Anomaly.LOST_WRITE, Anomaly.UNSEEN})
_REPEATS: Final = frozenset({Anomaly.DUPLICATE, Anomaly.NONMONOTONIC_SEND, Anomaly.MISPLACED})
"""A retry whose first attempt took effect after all, perhaps much later. Which of the two offsets was
acknowledged, and which one is counted, is chance."""
_TRUNCATED_READS: Final = frozenset(
    {Anomaly.INCONSISTENT_OFFSETS, Anomaly.NONMONOTONIC_POLL, Anomaly.POLL_SKIP, Anomaly.MISPLACED}
)
"""What readers see of a partition that lost committed records: its offsets are used again."""

MAY_SHOW: Final[Mapping[Faults, Mapping[Mode, frozenset[Anomaly]]]] = {
    Faults.TAME: {
        Mode.ACKS_0: _LOSS | _REPEATS,
        Mode.ACKS_1: _LOSS | _REPEATS,
        Mode.ACKS_ALL: _REPEATS,
        Mode.IDEMPOTENT: frozenset(),
    },
    Faults.WILD: {
        Mode.ACKS_0: _LOSS | _REPEATS | _TRUNCATED_READS,
        Mode.ACKS_1: _LOSS | _REPEATS | _TRUNCATED_READS,
        Mode.ACKS_ALL: _LOSS | _REPEATS | _TRUNCATED_READS,
        Mode.IDEMPOTENT: _LOSS | _REPEATS | _TRUNCATED_READS,
    },
}
"""Idempotence under wild faults: the leader forgets, with the records, which sequences it had."""

READERS_MAY_SEE: Final[Mapping[Faults, frozenset[Anomaly]]] = {
    Faults.TAME: frozenset(),
    Faults.WILD: _TRUNCATED_READS,
}
"""What does not belong to one record. Readers see only what is committed, so acks do not matter."""

GROUPS_MAY_SHOW: Final[Mapping[Faults, frozenset[Anomaly]]] = {
    Faults.TAME: frozenset(),
    Faults.WILD: frozenset(
        {
            Anomaly.TWO_OWNERS,
            Anomaly.EARLY_HANDOVER,
            Anomaly.FENCED_COMMIT,
            Anomaly.NONMONOTONIC_COMMIT,
            Anomaly.LOST_COMMIT,
            Anomaly.PROCESSED_AGAIN,
        }
    ),
}
"""A coordinator that lost committed records has lost offsets, and generations whose numbers are then used
again. But it skips nothing, and its members stick to what they were told."""
