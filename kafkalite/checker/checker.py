"""Takes a history event by event and names what must not have happened.

Readers are the authority on what stands where: of each partition one array says which record was first
read at each offset. Whatever contradicts it afterwards is an anomaly at once; what was acknowledged is
held against it at the end. Work and memory grow with the number of records, by a few list operations
and one small entry each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

import msgspec

from kafkalite.checker.groups import Groups
from kafkalite.checker.history import (
    Acknowledged,
    Assigned,
    Disowned,
    Ended,
    Failed,
    HistoryEvent,
    Lost,
    Polled,
    Positioned,
    Revoked,
    Sent,
    Unknown,
)
from kafkalite.checker.promise import GROUPS_MAY_SHOW, MAY_SHOW, READERS_MAY_SEE, Anomaly, Faults, Mode
from kafkalite.common import TopicPartition

_NOTHING: Final = -1
EXAMPLES: Final = 10
"""Findings of one kind that are kept in full; beyond that they are only counted."""


class Finding(msgspec.Struct, frozen=True):
    """One anomaly, in words."""

    anomaly: Anomaly
    is_allowed: bool
    """The mode and the faults allow it: it is counted, and nobody's fault."""
    text: str


class Verdict(msgspec.Struct):
    """What a whole history came to."""

    findings: list[Finding]
    """Examples, the first ones of each kind."""
    counts: Counter[Anomaly]
    """All anomalies, allowed or not."""
    violations: Counter[Anomaly]
    """Those that break a promise."""
    sent: int
    acknowledged: int
    failed: int
    unknown: int
    read: int
    without_receipt: int
    """Acknowledged records that are gone and on no loss receipt."""
    generations: int
    """Generations of consumer groups."""
    commits: int
    """Offsets that groups committed."""

    @property
    def is_kept(self) -> bool:
        """Whether the cluster kept its word."""
        return not self.violations


class _Record(msgspec.Struct):
    """One record's way. Kept small: there is one for each record."""

    partition: _Partition
    producer: str
    offset: int = _NOTHING
    """Where it was acknowledged."""
    outcome: str = ""
    seen_at: int = _NOTHING
    """Where it was read first."""


class _Partition(msgspec.Struct):
    name: TopicPartition
    values: list[int] = msgspec.field(default_factory=list)
    """What was first read at each offset."""
    end: int = 0
    """Everything below was read by one who began at 0."""
    receipts: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """Ranges of offsets that brokers say they threw away."""


class Checker:
    """Feed it with :meth:`take`, in order; ask :meth:`verdict` once at the end."""

    def __init__(self, modes: Mapping[str, Mode], faults: Faults) -> None:
        """``modes`` says how each producer writes; every producer of the history is in it."""
        self._modes = modes
        self._faults = faults
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._records: dict[int, _Record] = {}
        self._next: dict[tuple[str, TopicPartition], int] = {}
        """The offset that each consumer is to be handed next."""
        self._skips: list[tuple[Anomaly, str, _Partition, int, int]] = []
        self._findings: list[Finding] = []
        self._counts: Counter[Anomaly] = Counter()
        self._violations: Counter[Anomaly] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._groups = Groups(self._of_groups)
        self._read = 0
        self._without_receipt = 0

    def take(self, event: HistoryEvent) -> None:
        """Take the next event."""
        match event:
            case Polled():
                self._polled(event)
            case Sent():
                partition = self._partition(event.topic, event.partition)
                self._records[event.value] = _Record(partition, event.producer)
            case Acknowledged():
                record = self._settle(event.value, "acknowledged")
                record.offset = event.offset
            case Failed():
                self._settle(event.value, "failed")
            case Unknown():
                self._settle(event.value, "unknown")
            case Positioned():
                name = TopicPartition(event.topic, event.partition)
                self._next[event.consumer, name] = event.offset
                member = self._groups.consumers.get(event.consumer)
                if member is not None:
                    self._groups.positioned(member, event)
            case Lost():
                self._partition(event.topic, event.partition).receipts.append((event.first, event.last))
            case Ended():
                self._partition(event.topic, event.partition).end = event.offset
            case Assigned() | Revoked() | Disowned():
                for name in self._groups.take(event):
                    # Where a member begins is where its group is, not where itself once was.
                    self._next.pop((event.consumer, name), None)
            case _:
                self._groups.take(event)

    def take_all(self, events: Iterable[HistoryEvent]) -> None:
        """Take many events."""
        for event in events:
            self.take(event)

    # --- as it goes ----------------------------------------------------------------------

    def _partition(self, topic: str, number: int) -> _Partition:
        name = TopicPartition(topic, number)
        partition = self._partitions.get(name)
        if partition is None:
            partition = self._partitions[name] = _Partition(name)
        return partition

    def _settle(self, value: int, outcome: str) -> _Record:
        record = self._records[value]
        if record.outcome:
            self._of_record(
                Anomaly.ACKNOWLEDGED_TWICE, record, f"record {value}: first {record.outcome}, then {outcome}"
            )
        record.outcome = outcome
        self._outcomes[outcome] += 1
        return record

    def _polled(self, event: Polled) -> None:
        offsets, values = event.offsets, event.values
        if not offsets:
            return
        partition = self._partition(event.topic, event.partition)
        key = (event.consumer, partition.name)
        count = len(offsets)
        self._read += count
        member = self._groups.consumers.get(event.consumer)
        if member is not None:
            self._groups.polled(member, partition.name, event)
        first, last = offsets[0], offsets[-1]
        expected = self._next.get(key)
        if expected is not None and first != expected:
            self._jumped(event.consumer, partition, expected, first, is_inside=False)
        if last - first + 1 != count or offsets != list(range(first, last + 1)):
            for before, after in pairwise(offsets):
                if after != before + 1:
                    self._jumped(event.consumer, partition, before + 1, after, is_inside=True)
        self._next[key] = last + 1
        known = partition.values
        if known[first : last + 1] == values:
            return  # Another reader has seen the same.
        if len(known) <= max(offsets):
            known.extend([_NOTHING] * (max(offsets) + 1 - len(known)))
        for offset, value in zip(offsets, values, strict=True):
            before = known[offset]
            if before == value:
                continue
            if before == _NOTHING:
                known[offset] = value
                self._first_read(partition, offset, value)
            else:
                self._of_readers(
                    Anomaly.INCONSISTENT_OFFSETS,
                    f"{partition.name} at {offset}: record {before} was read, then record {value} "
                    f"(by {event.consumer})",
                )
                known[offset] = value  # What stands there now is what later readers must see.
                self._first_read(partition, offset, value)

    def _first_read(self, partition: _Partition, offset: int, value: int) -> None:
        record = self._records.get(value)
        if record is None or record.partition is not partition:
            self._of_readers(
                Anomaly.INVENTED, f"{partition.name} at {offset}: record {value}, which nobody wrote there"
            )
            return
        if record.outcome == "failed":
            self._of_record(
                Anomaly.ABORTED_READ,
                record,
                f"{partition.name} at {offset}: record {value}, whose write failed for certain",
            )
        if record.seen_at != _NOTHING:
            self._of_record(
                Anomaly.DUPLICATE,
                record,
                f"{partition.name}: record {value} at {record.seen_at} and {offset}",
            )
        else:
            record.seen_at = offset

    def _jumped(
        self, consumer: str, partition: _Partition, expected: int, found: int, *, is_inside: bool
    ) -> None:
        if found > expected:
            # A skip only if there was something to skip: that shows at the end.
            kind = Anomaly.INT_POLL_SKIP if is_inside else Anomaly.POLL_SKIP
            self._skips.append((kind, consumer, partition, expected, found))
        else:
            kind = Anomaly.INT_NONMONOTONIC_POLL if is_inside else Anomaly.NONMONOTONIC_POLL
            self._of_readers(
                kind, f"{consumer} was to read {partition.name} on from {expected} and was handed {found}"
            )

    # --- findings ------------------------------------------------------------------------

    def _of_record(self, anomaly: Anomaly, record: _Record, text: str) -> None:
        mode = self._modes[record.producer]
        is_allowed = anomaly in MAY_SHOW[self._faults][mode]
        self._note(anomaly, is_allowed, f"{text} ({record.producer}, {mode.value})")

    def _of_readers(self, anomaly: Anomaly, text: str) -> None:
        self._note(anomaly, anomaly in READERS_MAY_SEE[self._faults], text)

    def _of_groups(self, anomaly: Anomaly, text: str) -> None:
        self._note(anomaly, anomaly in GROUPS_MAY_SHOW[self._faults], text)

    def _note(self, anomaly: Anomaly, is_allowed: bool, text: str) -> None:
        self._counts[anomaly] += 1
        if not is_allowed:
            self._violations[anomaly] += 1
        kept = self._counts[anomaly] if is_allowed else self._violations[anomaly]
        if kept <= EXAMPLES:
            self._findings.append(Finding(anomaly, is_allowed, text))

    # --- at the end ----------------------------------------------------------------------

    def verdict(self) -> Verdict:
        """Compare what was acknowledged with what was read, and say what it all came to."""
        for kind, consumer, partition, expected, found in self._skips:
            if any(value != _NOTHING for value in partition.values[expected:found]):
                self._of_readers(
                    kind,
                    f"{consumer} read {partition.name} up to {expected - 1} and then {found}, "
                    "though there are records in between",
                )
        self._groups.finish(lambda name: self._partition(*name).values)
        latest: dict[tuple[str, TopicPartition], tuple[int, int]] = {}
        for value, record in self._records.items():
            name = record.partition.name
            if record.outcome == "acknowledged":
                self._check_acknowledged(value, record)
            at = record.seen_at if record.seen_at != _NOTHING else record.offset
            if at == _NOTHING:
                continue
            # In the order of sending: each must stand after the one before it.
            key = (record.producer, name)
            before = latest.get(key)
            if before is not None and at < before[1]:
                self._of_record(
                    Anomaly.NONMONOTONIC_SEND,
                    record,
                    f"{name}: record {value} at {at}, though record {before[0]}, sent before it, "
                    f"is at {before[1]}",
                )
            else:
                latest[key] = (value, at)
        return Verdict(
            findings=self._findings,
            counts=self._counts,
            violations=self._violations,
            sent=len(self._records),
            acknowledged=self._outcomes["acknowledged"],
            failed=self._outcomes["failed"],
            unknown=self._outcomes["unknown"],
            read=self._read,
            without_receipt=self._without_receipt,
            generations=self._groups.generations,
            commits=self._groups.commits,
        )

    def _check_acknowledged(self, value: int, record: _Record) -> None:
        partition, offset = record.partition, record.offset
        if offset == _NOTHING:
            if record.seen_at == _NOTHING:
                self._of_record(
                    Anomaly.UNSEEN, record, f"{partition.name}: record {value} was acknowledged, never read"
                )
            return
        known = partition.values
        there = known[offset] if offset < len(known) else _NOTHING
        if there == value:
            return
        if record.seen_at != _NOTHING:
            self._of_record(
                Anomaly.MISPLACED,
                record,
                f"{partition.name}: record {value} was acknowledged at {offset} and read at {record.seen_at}",
            )
        elif there != _NOTHING or offset < partition.end:
            by = f"record {there} is there" if there != _NOTHING else "nothing is there"
            self._of_record(
                Anomaly.LOST_WRITE,
                record,
                f"{partition.name}: record {value} was acknowledged at {offset}, but {by}"
                + self._receipt(partition, offset),
            )
        else:
            self._of_record(
                Anomaly.UNSEEN,
                record,
                f"{partition.name}: record {value} was acknowledged at {offset}, but the partition ends "
                f"at {partition.end}" + self._receipt(partition, offset),
            )

    def _receipt(self, partition: _Partition, offset: int) -> str:
        is_noted = any(first <= offset <= last for first, last in partition.receipts)
        self._without_receipt += not is_noted
        return " (on a loss receipt)" if is_noted else ""
