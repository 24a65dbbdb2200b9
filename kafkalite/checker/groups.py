"""What the members of consumer groups tell: who owns what, how far the group has come, what it has read.

Three things are kept of each group. *Ownership*: of the latest generations who was given what, and what
each consumer has not given up yet. *Committed offsets*: of each partition the commits that whoever asks
may be shown. A commit takes effect at some moment between its sending and its answer, so it is out of the
question only once another one was *sent* after it had been answered, and was accepted; a commit without an
answer may take effect until a later generation has begun, in which it would be refused. *Coverage*: what
has been processed, from offset 0 on, with the holes in it.

All of it is bounded by the number of partitions and members, but for the commits whose outcome nobody
knows and the holes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from kafkalite.checker.history import (
    Assigned,
    CommitAccepted,
    CommitRefused,
    CommitSent,
    CommittedAsked,
    CommittedRead,
    Disowned,
    Finished,
    GroupEvent,
    Joined,
    Polled,
    Positioned,
    Revoked,
)
from kafkalite.checker.promise import Anomaly
from kafkalite.common import TopicPartition

NO_OFFSET: Final = -1
GENERATIONS_KEPT: Final = 5
"""Of which owners are remembered: answers of older ones do not arrive any more."""


class _Consumer(msgspec.Struct):
    """One life of one consumer in its group."""

    name: str
    group: _Group
    owner: str = ""
    """Its instance id or member id: who it is as far as ownership goes."""
    generation: int = -1
    held: dict[TopicPartition, int] = msgspec.field(default_factory=dict)
    """What it owns or has not given up yet, and in which generation it got it."""
    must_begin_at: dict[TopicPartition, int] = msgspec.field(default_factory=dict)
    """Of what it took over and has not read yet: what was committed by then."""
    given_up: set[TopicPartition] = msgspec.field(default_factory=set)


class _Generation(msgspec.Struct):
    owners: dict[TopicPartition, str] = msgspec.field(default_factory=dict)
    consumers: dict[str, _Consumer] = msgspec.field(default_factory=dict)
    """Those that were told their assignment in it."""


class _Commit(msgspec.Struct):
    """One commit for one partition."""

    offset: int
    generation: int
    sent: int
    latest_generation: int
    """The latest one in which anybody had been assigned anything when it was sent."""
    floor: int
    """The highest offset that had been accepted when it was sent."""
    accepted: int | None = None


class _Offset(msgspec.Struct):
    """How far a group may be said to have come in one partition."""

    possible: list[_Commit] = msgspec.field(
        default_factory=lambda: [_Commit(NO_OFFSET, -1, 0, -1, NO_OFFSET, 0)]
    )
    highest_sent: int = NO_OFFSET
    highest_accepted: int = NO_OFFSET


class _Coverage(msgspec.Struct):
    """What a group has processed of one partition."""

    next: int = 0
    """The offset after the last record processed."""
    holes: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """What was left out before that: first offset, and the one after the last."""


class _Group(msgspec.Struct):
    name: str
    generation: int = -1
    """The latest in which a member was assigned anything."""
    generations: dict[int, _Generation] = msgspec.field(default_factory=dict)
    holders: dict[TopicPartition, dict[str, _Consumer]] = msgspec.field(default_factory=dict)
    instances: dict[str, str] = msgspec.field(default_factory=dict)
    """The member id under which each static member joined last."""
    predecessors: dict[str, str] = msgspec.field(default_factory=dict)
    """Member ids whose place another took, by the member id that took it, until that is assigned."""
    replaced: set[str] = msgspec.field(default_factory=set)
    offsets: dict[TopicPartition, _Offset] = msgspec.field(default_factory=dict)
    coverage: dict[TopicPartition, _Coverage] = msgspec.field(default_factory=dict)
    questions: dict[int, dict[TopicPartition, set[int]]] = msgspec.field(default_factory=dict)
    """Open questions for committed offsets: what may be answered."""

    def possible(self, partition: TopicPartition) -> set[int]:
        """What whoever asks now may be shown."""
        known = self.offsets.get(partition)
        return {NO_OFFSET} if known is None else {commit.offset for commit in known.possible}


class Groups:
    """All groups of a history."""

    def __init__(self, note: Callable[[Anomaly, str], None]) -> None:
        """``note`` is told of every anomaly."""
        self._note = note
        self._groups: dict[str, _Group] = {}
        self.consumers: dict[str, _Consumer] = {}
        """By name; who is not in it is in no group."""
        self._open: dict[int, tuple[CommitSent, dict[TopicPartition, _Commit], bool]] = {}
        """Commits without an answer, with whether they were hopeless from the start."""
        self._asked: dict[int, _Group] = {}
        self._clock = 0
        self.commits = 0
        """Offsets that were committed and acknowledged."""
        self.generations = 0
        """Generations that came to an assignment."""

    def take(self, event: GroupEvent) -> Sequence[TopicPartition]:
        """Take the next event; returns the partitions of which the consumer's position is news now."""
        self._clock += 1
        match event:
            # What there is most of comes first.
            case CommitSent():
                self._commit_sent(event)
            case CommitAccepted():
                self._commit_accepted(event)
            case CommitRefused():
                self._commit_refused(event)
            case CommittedAsked():
                group = self._group(event.group)
                self._asked[event.number] = group
                asked = [TopicPartition(*partition) for partition in event.partitions]
                group.questions[event.number] = {partition: group.possible(partition) for partition in asked}
            case CommittedRead():
                self._committed_read(event)
            case Assigned():
                return self._assigned(event)
            case Joined():
                self._joined(event)
            case Revoked():
                return self._gave_up(event, in_good_order=True)
            case Disowned():
                return self._gave_up(event, in_good_order=False)
            case Finished():
                partition = TopicPartition(event.topic, event.partition)
                covered = self._group(event.group).coverage.setdefault(partition, _Coverage())
                if covered.next < event.offset:
                    covered.holes.append((covered.next, event.offset))
                    covered.next = event.offset
        return ()

    def _group(self, name: str) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(name)
        return group

    def _consumer(self, name: str, group: str) -> _Consumer:
        consumer = self.consumers.get(name)
        if consumer is None:
            consumer = self.consumers[name] = _Consumer(name, self._group(group))
        return consumer

    # --- ownership -----------------------------------------------------------------------

    def _joined(self, event: Joined) -> None:
        consumer = self._consumer(event.consumer, event.group)
        consumer.owner = event.instance or event.member
        if event.instance is not None:
            group = consumer.group
            before = group.instances.get(event.instance)
            if before is not None and before != event.member:
                group.predecessors[event.member] = before
            group.instances[event.instance] = event.member

    def _assigned(self, event: Assigned) -> Sequence[TopicPartition]:
        consumer = self._consumer(event.consumer, event.group)
        consumer.owner = event.instance or event.member
        group = consumer.group
        number = event.generation
        if number > group.generation:
            group.generation = number
            self.generations += 1
            for old in [one for one in group.generations if one <= number - GENERATIONS_KEPT]:
                del group.generations[old]
        before = group.predecessors.pop(event.member, None)
        if before is not None:
            group.replaced.add(before)
        generation = group.generations.setdefault(number, _Generation())
        generation.consumers[consumer.name] = consumer
        consumer.generation = max(consumer.generation, number)
        mine = [TopicPartition(*partition) for partition in event.partitions]
        for partition in mine:
            owner = generation.owners.setdefault(partition, consumer.owner)
            if owner != consumer.owner:
                self._note(
                    Anomaly.TWO_OWNERS,
                    f"{partition}: {owner} and {consumer.owner} ({consumer.name}) both own it in generation "
                    f"{number} of {group.name}",
                )
        self._check_handover(consumer, number, generation, mine)
        new = [partition for partition in mine if partition not in consumer.held]
        for partition in new:
            consumer.held[partition] = number
            consumer.given_up.discard(partition)
            group.holders.setdefault(partition, {})[consumer.name] = consumer
            consumer.must_begin_at[partition] = min(group.possible(partition))
        return new

    def _check_handover(
        self, consumer: _Consumer, number: int, generation: _Generation, mine: Sequence[TopicPartition]
    ) -> None:
        """Whoever takes part in a generation has given up before what it gives to another."""
        group = consumer.group
        for partition in mine:
            for other in group.holders.get(partition, {}).values():
                if (
                    other.owner != consumer.owner
                    and other.name in generation.consumers
                    and other.held[partition] < number
                ):
                    self._early(group, partition, number, taker=consumer.name, holder=other)
        for partition, since in consumer.held.items():
            owner = generation.owners.get(partition, consumer.owner)
            if owner != consumer.owner and since < number:
                # By now it may have joined anew, as another owner.
                takers = (one.name for one in generation.consumers.values() if one.owner == owner)
                self._early(group, partition, number, taker=next(takers, owner), holder=consumer)

    def _early(
        self, group: _Group, partition: TopicPartition, number: int, *, taker: str, holder: _Consumer
    ) -> None:
        self._note(
            Anomaly.EARLY_HANDOVER,
            f"{partition}: given to {taker} in generation {number} of {group.name}, of which "
            f"{holder.name} is too, which still has it from generation {holder.held[partition]}",
        )

    def _gave_up(self, event: Revoked | Disowned, *, in_good_order: bool) -> Sequence[TopicPartition]:
        consumer = self._consumer(event.consumer, event.group)
        gone = [TopicPartition(*partition) for partition in event.partitions]
        for partition in gone:
            consumer.held.pop(partition, None)
            consumer.must_begin_at.pop(partition, None)
            consumer.group.holders.get(partition, {}).pop(consumer.name, None)
            if in_good_order:
                consumer.given_up.add(partition)
        return gone

    # --- committed offsets ---------------------------------------------------------------

    def _commit_sent(self, event: CommitSent) -> None:
        group = self._group(event.group)
        is_over = event.generation >= 0 and (
            event.generation < group.generation or event.member in group.replaced
        )
        commits = {}
        for topic, number, offset in event.offsets:
            partition = TopicPartition(topic, number)
            known = group.offsets.get(partition)
            if known is None:
                known = group.offsets[partition] = _Offset()
            commit = commits[partition] = _Commit(
                offset, event.generation, self._clock, group.generation, known.highest_accepted
            )
            known.highest_sent = max(known.highest_sent, offset)
            known.possible.append(commit)
            for question in group.questions.values():
                if partition in question:
                    question[partition].add(offset)
        self._open[event.number] = (event, commits, is_over)

    def _commit_accepted(self, event: CommitAccepted) -> None:
        sent, commits, is_over = self._open[event.number]
        group = self._group(sent.group)
        for name in event.partitions:
            partition = TopicPartition(*name)
            commit = commits.pop(partition)
            known = group.offsets[partition]
            commit.accepted = self._clock
            self.commits += 1
            if is_over:
                since = "replaced by then" if sent.member in group.replaced else f"{commit.latest_generation}"
                self._note(
                    Anomaly.FENCED_COMMIT,
                    f"{partition}: the commit of {commit.offset} by {sent.member} ({sent.consumer}), of "
                    f"generation {sent.generation} of {group.name}, was accepted; the group was in: {since}",
                )
            if commit.offset < commit.floor:
                self._note(
                    Anomaly.NONMONOTONIC_COMMIT,
                    f"{partition}: {sent.consumer} committed {commit.offset} for {group.name} in generation "
                    f"{sent.generation}, though {commit.floor} had been committed",
                )
            known.highest_accepted = max(known.highest_accepted, commit.offset)
            known.possible = [one for one in known.possible if not _is_superseded(one, commit)]
        if not commits:
            del self._open[event.number]

    def _commit_refused(self, event: CommitRefused) -> None:
        sent, commits, _ = self._open[event.number]
        group = self._group(sent.group)
        for name in event.partitions:
            partition = TopicPartition(*name)
            commit = commits.pop(partition)
            known = group.offsets[partition]
            known.possible = [one for one in known.possible if one is not commit]
        if not commits:
            del self._open[event.number]

    def _committed_read(self, event: CommittedRead) -> None:
        group = self._asked.pop(event.number)
        question = group.questions.pop(event.number)
        for topic, number, offset in event.offsets:
            partition = TopicPartition(topic, number)
            if partition not in question:
                continue  # Shown without having been asked for: since when it could be is not known.
            may_be = question[partition] | group.possible(partition)
            if offset in may_be:
                continue
            known = group.offsets.get(partition)
            if known is None or offset > known.highest_sent:
                self._note(
                    Anomaly.INVENTED_COMMIT,
                    f"{partition}: {offset} is shown as committed by {group.name}, which nobody committed",
                )
            else:
                self._note(
                    Anomaly.LOST_COMMIT,
                    f"{partition}: {offset} is shown as committed by {group.name}, though before that was "
                    f"asked it had come to {' or '.join(map(str, sorted(may_be)))}",
                )

    # --- processing ----------------------------------------------------------------------

    def polled(self, consumer: _Consumer, partition: TopicPartition, event: Polled) -> None:
        """A member has processed records."""
        first, after = event.offsets[0], event.offsets[-1] + 1
        group = consumer.group
        if partition in consumer.given_up:
            self._note(
                Anomaly.READ_AFTER_REVOKE,
                f"{partition}: {consumer.name} was handed {first} to {after - 1} though it had given it up",
            )
        least = consumer.must_begin_at.pop(partition, None)
        if least is not None and first < least:
            self._note(
                Anomaly.PROCESSED_AGAIN,
                f"{partition}: {consumer.name} of {group.name} began at {first}, though {least} was "
                f"committed before it took over in generation {consumer.held.get(partition)}",
            )
        covered = group.coverage.get(partition)
        if covered is None:
            covered = group.coverage[partition] = _Coverage()
        if covered.holes:
            covered.holes = [left for hole in covered.holes for left in _without(hole, first, after)]
        if first > covered.next:
            covered.holes.append((covered.next, first))
        covered.next = max(covered.next, after)

    def positioned(self, consumer: _Consumer, event: Positioned) -> None:
        """A member was told to go elsewhere: what follows from that is what was wanted."""
        partition = TopicPartition(event.topic, event.partition)
        consumer.must_begin_at.pop(partition, None)
        known = consumer.group.offsets.get(partition)
        if known is not None:
            known.highest_accepted = min(known.highest_accepted, event.offset)

    def finish(self, values: Callable[[TopicPartition], Sequence[int]]) -> None:
        """The history is over: ``values`` says what is known to stand in a partition, -1 where nothing is."""
        for group in self._groups.values():
            for partition, covered in group.coverage.items():
                known = values(partition)
                for first, after in covered.holes:
                    left_out = [
                        offset for offset in range(first, min(after, len(known))) if known[offset] >= 0
                    ]
                    if left_out:
                        self._note(
                            Anomaly.UNPROCESSED,
                            f"{partition}: {group.name} never processed {len(left_out)} records from "
                            f"{left_out[0]} to {left_out[-1]}",
                        )


def _is_superseded(one: _Commit, by: _Commit) -> bool:
    """Whether ``by``, which was accepted, certainly took effect after ``one`` (if that ever did)."""
    if one is by:
        return False
    if one.accepted is not None:
        return one.accepted < by.sent
    return 0 <= one.generation < by.latest_generation


def _without(hole: tuple[int, int], first: int, after: int) -> Iterator[tuple[int, int]]:
    """What is left of a hole when the offsets from ``first`` to before ``after`` are there."""
    begin, end = hole
    if begin < min(end, first):
        yield begin, min(end, first)
    if max(begin, after) < end:
        yield max(begin, after), end
