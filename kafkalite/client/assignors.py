"""Who reads what: the assignors, which divide partitions among the members of a group.

One member of a group, its leader, runs one of them on what all members said when they joined. Each is a pure
function with exactly Kafka's result for the same input, so that members of different languages may lead in
turn and nothing moves for that reason alone. To that end two orders of the JVM are rebuilt here, since the
sticky algorithms depend on them: strings compare by their UTF-16 units, and hash maps are walked in the order
of their buckets.

*Range* and *roundrobin* know no past. *Sticky* moves as little as balance allows; what each member had comes
in its subscription. *Cooperative-sticky* leaves out what another member still holds: the partition has no
owner until that member has let go of it and joined again.

Members may say in which rack they stand. *Range* and the sticky ones then prefer a member that stands beside
a replica, as far as balance allows (KIP-881). Where that cannot help, because no member told its rack, none
is a replica's, or every partition has a replica in every rack, the result is the one without racks.

In two cases of nonsense the result is not Kafka's: a claim of a partition that does not exist counts for
nothing, and nobody gets back, for the sake of an older claim, a topic that it does not want any more.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from itertools import islice
from typing import Final, Protocol, TypeAlias

from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import NO_GENERATION, Subscription

Assigned: TypeAlias = dict[str, list[TopicPartition]]
"""What each member gets, by member id."""
Racks: TypeAlias = Mapping[TopicPartition, Set[str]]
"""In which racks the replicas of partitions stand; a partition without known racks may be left out."""

EAGER: Final = "eager"
COOPERATIVE: Final = "cooperative"


class Assignor(Protocol):
    """One way to divide partitions."""

    @property
    def name(self) -> str:
        """The name that members agree on."""
        ...

    @property
    def rebalance_protocol(self) -> str:
        """EAGER: everything is given up before joining; COOPERATIVE: only what has to move, after it."""
        ...

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        """What this assignor wants to know of a member that last got ``owned`` in ``generation``."""
        ...

    def assign(
        self,
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, Subscription],
        instances: Mapping[str, str],
        racks: Racks,
    ) -> Assigned:
        """Divide the ``partitions`` (the number of each topic that exists) among the members.

        ``subscriptions`` are by member id, in the order in which the coordinator named them, which decides
        where the bucket order of a hash map does not; ``instances`` are the names of the static members.
        ``racks`` may be empty where no subscription tells a rack.
        """
        ...


def assignor(name: str) -> Assignor:
    """The assignor called ``name``. Raises ValueError where there is none."""
    for known in (COOPERATIVE_STICKY, RANGE, ROUND_ROBIN, STICKY):
        if known.name == name:
            return known
    raise ValueError(f"assignor {name!r}: there are range, roundrobin, sticky and cooperative-sticky")


# --- The orders of the JVM ---------------------------------------------------------------------


def _units(text: str) -> bytes:
    """A key that orders strings as Java's compareTo does."""
    return text.encode("utf-16-be", "surrogatepass")


def java_hash(text: str) -> int:
    """Java's String.hashCode, as an unsigned 32-bit number."""
    value = 0
    data = _units(text)
    for index in range(0, len(data), 2):
        value = (31 * value + (data[index] << 8 | data[index + 1])) & 0xFFFFFFFF
    return value


def _partition_hash(tp: TopicPartition) -> int:
    return (31 * (31 + tp.partition) + java_hash(tp.topic)) & 0xFFFFFFFF


def _bucket(value: int, capacity: int) -> int:
    return (value ^ value >> 16) & (capacity - 1)


def _capacity(size: int, capacity: int = 16) -> int:
    while size > 0.75 * capacity:
        capacity *= 2
    return capacity


def map_order(keys: Iterable[str]) -> list[str]:
    """``keys`` in the order in which a Java HashMap is walked that they were put into in turn."""
    inserted = list(keys)
    capacity = _capacity(len(inserted))
    return sorted(inserted, key=lambda key: _bucket(java_hash(key), capacity))


class _MovedSet:
    """Partitions, of which the one is taken that is first in a Java HashSet. Such a set never shrinks."""

    def __init__(self) -> None:
        self._members: dict[TopicPartition, None] = {}
        self._capacity = 16

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, tp: TopicPartition) -> None:
        self._members[tp] = None
        self._capacity = _capacity(len(self._members), self._capacity)

    def remove(self, tp: TopicPartition) -> None:
        del self._members[tp]

    def first(self) -> TopicPartition:
        return min(self._members, key=lambda tp: _bucket(_partition_hash(tp), self._capacity))


def _by_partition(tp: TopicPartition) -> tuple[int, bytes]:
    return tp.partition, _units(tp.topic)


def _by_topic(tp: TopicPartition) -> tuple[bytes, int]:
    return _units(tp.topic), tp.partition


def _ordered_members(members: Iterable[str], instances: Mapping[str, str]) -> list[str]:
    """Static members by their names, then the others by their ids."""

    def key(member: str) -> tuple[bool, bytes]:
        instance = instances.get(member)
        return instance is None, _units(member if instance is None else instance)

    return sorted(members, key=key)


# --- Racks -------------------------------------------------------------------------------------

_NO_RACKS: Final[Set[str]] = frozenset()


def _racks_help(members: Collection[str], partitions: Iterable[Set[str]]) -> bool:
    """Whether members in these racks could stand beside some partitions' replicas and not beside others'."""
    found = list(partitions)
    every = frozenset().union(*found)
    return not every.isdisjoint(members) and any(racks != every for racks in found)


class _Neighbours:
    """Which members stand beside a replica of a partition; all do where racks cannot help."""

    def __init__(
        self, subscriptions: Mapping[str, Subscription], partitions: Mapping[str, int], racks: Racks
    ) -> None:
        told = {member: said.rack_id for member, said in subscriptions.items() if said.rack_id}
        everything = (TopicPartition(topic, n) for topic, count in partitions.items() for n in range(count))
        self._of_partitions = {tp: racks.get(tp, _NO_RACKS) for tp in everything} if told else {}
        self.matter = _racks_help(told.values(), self._of_partitions.values())
        self._of_members = told if self.matter else {}

    def are_apart(self, member: str, tp: TopicPartition) -> bool:
        """Whether ``member`` told its rack, and no replica of ``tp`` is there."""
        rack = self._of_members.get(member)
        return rack is not None and rack not in self._of_partitions[tp]

    def count(self, tp: TopicPartition) -> int:
        """How many members stand beside a replica of ``tp``."""
        racks = self._of_partitions[tp]
        return sum(rack in racks for rack in self._of_members.values())

    def first(self, tp: TopicPartition, members: Sequence[str], start: int = 0) -> int | None:
        """The index of the first such member in ``members``, which are gone round from ``start``."""
        racks = self._of_partitions[tp]
        for step in range(len(members)):
            index = (start + step) % len(members)
            if self._of_members.get(members[index]) in racks:
                return index
        return None


# --- Range and roundrobin ----------------------------------------------------------------------


class _Range:
    """Topic by topic a stretch of partitions each: equal topics lie alike, so that they can be joined."""

    name: Final = "range"
    rebalance_protocol: Final = EAGER

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        return None

    def assign(
        self,
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, Subscription],
        instances: Mapping[str, str],
        racks: Racks,
    ) -> Assigned:
        result: Assigned = {member: [] for member in subscriptions}
        members = _ordered_members(subscriptions, instances)
        stretches = []
        for topic in sorted(partitions, key=_units):
            takers = {
                member: subscriptions[member].rack_id or None
                for member in members
                if topic in subscriptions[member].topics
            }
            if takers:
                stretches.append(_Stretch(topic, partitions[topic], takers, racks))
        racks_matter = any(stretch.racks_matter for stretch in stretches)
        if racks_matter:
            self._assign_neighbours(stretches, result)
        for stretch in stretches:
            for member in stretch.takers:
                stretch.give(member, stretch.left, result)
        if racks_matter:
            for mine in result.values():
                mine.sort(key=_by_topic)
        return result

    def _assign_neighbours(self, stretches: Iterable[_Stretch], result: Assigned) -> None:
        """Give what members can get that stand beside a replica: topics that are alike stay alike."""
        alike: dict[tuple[frozenset[str], int], list[_Stretch]] = {}
        for stretch in stretches:
            if any(stretch.takers.values()):
                key = frozenset(stretch.takers), len(stretch.left)
                alike.setdefault(key, []).append(stretch)
        for same in alike.values():
            if len(same) > 1:
                self._assign_rows(same, result)
                continue
            [only] = same
            if only.racks_matter:
                for member in only.takers:
                    near = [tp for tp in only.left if only.is_beside(member, tp.partition)]
                    only.give(member, near, result)

    def _assign_rows(self, stretches: Sequence[_Stretch], result: Assigned) -> None:
        """Give partition n of all topics to one member that stands beside a replica of each."""
        members = list(stretches[0].takers)
        for number in range(len(stretches[0].left)):
            for member in members:
                if all(each.is_beside(member, number) and each.room(member) for each in stretches):
                    for each in stretches:
                        each.give(member, [TopicPartition(each.topic, number)], result)
                    if not any(each.room(member) for each in stretches):
                        members.remove(member)
                    break


class _Stretch:
    """One topic while its partitions are divided."""

    def __init__(self, topic: str, count: int, takers: Mapping[str, str | None], racks: Racks) -> None:
        self.topic = topic
        self.takers = takers
        """The members that want it, in order, with their racks."""
        self.left = dict.fromkeys(TopicPartition(topic, number) for number in range(count))
        """What nobody has got yet, in order."""
        self._racks = [racks.get(tp, _NO_RACKS) for tp in self.left]
        self.racks_matter = _racks_help([rack for rack in takers.values() if rack], self._racks)
        self._share, self._larger_shares = divmod(count, len(takers))
        self._given = dict.fromkeys(takers, 0)

    def is_beside(self, member: str, number: int) -> bool:
        """Whether ``member`` stands beside a replica, or does not tell where it stands."""
        rack = self.takers[member]
        return rack is None or rack in self._racks[number]

    def room(self, member: str) -> int:
        """How many more partitions ``member`` may get."""
        return max(0, self._share + (self._larger_shares > 0) - self._given[member])

    def give(self, member: str, partitions: Iterable[TopicPartition], result: Assigned) -> None:
        """Let ``member`` have ``partitions`` of what is left, as many as it has room for."""
        given = list(islice(partitions, self.room(member)))
        for tp in given:
            del self.left[tp]
        result[member] += given
        self._given[member] += len(given)
        if given and self._given[member] > self._share:
            self._larger_shares -= 1


class _RoundRobin:
    """All partitions of all topics, dealt out like cards."""

    name: Final = "roundrobin"
    rebalance_protocol: Final = EAGER

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        return None

    def assign(
        self,
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, Subscription],
        instances: Mapping[str, str],
        racks: Racks,
    ) -> Assigned:
        result: Assigned = {member: [] for member in subscriptions}
        members = _ordered_members(subscriptions, instances)
        wanted = {topic for subscription in subscriptions.values() for topic in subscription.topics}
        turn = 0
        for topic in sorted(wanted & partitions.keys(), key=_units):
            for number in range(partitions[topic]):
                while topic not in subscriptions[members[turn]].topics:
                    turn = (turn + 1) % len(members)
                result[members[turn]].append(TopicPartition(topic, number))
                turn = (turn + 1) % len(members)
        return result


# --- Sticky ------------------------------------------------------------------------------------

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")


def encode_sticky_user_data(owned: Sequence[TopicPartition], generation: int) -> bytes:
    """What the sticky assignor remembers of a member: its last assignment, and from which generation."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in owned:
        by_topic.setdefault(topic, []).append(partition)
    parts = [_INT32.pack(len(by_topic))]
    for topic, numbers in by_topic.items():
        name = topic.encode()
        parts += [_INT16.pack(len(name)), name, _INT32.pack(len(numbers)), *map(_INT32.pack, numbers)]
    parts.append(_INT32.pack(generation))
    return b"".join(parts)


def decode_sticky_user_data(data: bytes) -> tuple[list[TopicPartition], int | None]:
    """Read that back; old members tell no generation. What cannot be read counts for nothing."""
    try:
        at = 4
        owned = []
        for _ in range(_INT32.unpack_from(data, 0)[0]):
            size: int = _INT16.unpack_from(data, at)[0]
            if size < 0 or at + 2 + size > len(data):
                return [], None
            topic = data[at + 2 : at + 2 + size].decode()
            at += 2 + size
            count: int = _INT32.unpack_from(data, at)[0]
            owned += [
                TopicPartition(topic, _INT32.unpack_from(data, at + 4 + 4 * index)[0])
                for index in range(count)
            ]
            at += 4 + 4 * count
        generation: int | None = _INT32.unpack_from(data, at)[0] if len(data) >= at + 4 else None
    except (struct.error, UnicodeDecodeError):
        return [], None
    return owned, generation


class _Sticky:
    """Balanced, and as much as possible stays where it was."""

    name: Final = "sticky"
    rebalance_protocol: Final = EAGER

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        return encode_sticky_user_data(owned, generation) if owned or generation >= 0 else None

    def assign(
        self,
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, Subscription],
        instances: Mapping[str, str],
        racks: Racks,
    ) -> Assigned:
        claims = {
            member: decode_sticky_user_data(subscription.user_data) if subscription.user_data else ([], None)
            for member, subscription in subscriptions.items()
        }
        return _assign_sticky(partitions, subscriptions, claims, racks)[0]


class _CooperativeSticky:
    """Sticky, and what moves rests for one rebalance, so that its old owner can let go of it."""

    name: Final = "cooperative-sticky"
    rebalance_protocol: Final = COOPERATIVE

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        return _INT32.pack(generation)

    def assign(
        self,
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, Subscription],
        instances: Mapping[str, str],
        racks: Racks,
    ) -> Assigned:
        claims = {
            member: (list(subscription.owned_partitions), _generation(subscription))
            for member, subscription in subscriptions.items()
        }
        result, moving = _assign_sticky(partitions, subscriptions, claims, racks)
        if moving is None:
            moving = _changing_owner(subscriptions, result)
        for tp, member in moving.items():
            result[member].remove(tp)
        return result


def _generation(subscription: Subscription) -> int | None:
    if subscription.generation_id != NO_GENERATION:
        return subscription.generation_id
    data = subscription.user_data
    if data is None:
        return None
    generation: int = _INT32.unpack_from(data)[0] if len(data) >= 4 else NO_GENERATION
    return generation


def _changing_owner(subscriptions: Mapping[str, Subscription], result: Assigned) -> dict[TopicPartition, str]:
    """What would pass from one member to another."""
    added = {
        tp: member
        for member, assigned in result.items()
        for tp in assigned
        if tp not in subscriptions[member].owned_partitions
    }
    given_up = {
        tp
        for member, assigned in result.items()
        for tp in subscriptions[member].owned_partitions
        if tp not in assigned
    }
    return {tp: member for tp, member in added.items() if tp in given_up}


_Claims: TypeAlias = Mapping[str, tuple[Sequence[TopicPartition], int | None]]


def _assign_sticky(
    partitions: Mapping[str, int], subscriptions: Mapping[str, Subscription], claims: _Claims, racks: Racks
) -> tuple[Assigned, dict[TopicPartition, str] | None]:
    """Assign; the second result is what changes its owner, None where the caller is to find out."""
    if not subscriptions:
        return {}, {}
    members = map_order(subscriptions)
    wanted = {topic for member in members for topic in subscriptions[member].topics}
    existing = {topic: count for topic, count in partitions.items() if topic in wanted and count > 0}
    owned: Assigned = {}
    doubly_claimed: set[TopicPartition] = set()
    owner_of: dict[TopicPartition, str] = {}
    max_generation = NO_GENERATION
    for member in members:
        owned[member] = mine = []
        claimed, known = claims[member]
        generation = NO_GENERATION if known is None else known
        max_generation = max(max_generation, generation)
        for tp in claimed:
            # A claim of a partition that is no more counts for nothing, nor does a second one by itself.
            if not 0 <= tp.partition < existing.get(tp.topic, 0) or owner_of.get(tp) == member:
                continue
            other = owner_of.get(tp)
            if other is None:
                mine.append(tp)
                owner_of[tp] = member
                continue
            known_of_other = claims[other][1]
            others_generation = NO_GENERATION if known_of_other is None else known_of_other
            if generation == others_generation:
                doubly_claimed.add(tp)
                if tp in owned[other]:
                    owned[other].remove(tp)
                owner_of[tp] = member
            elif generation > others_generation:
                mine.append(tp)
                if tp in owned[other]:
                    owned[other].remove(tp)
                owner_of[tp] = member
    neighbours = _Neighbours(subscriptions, existing, racks)
    first = set(subscriptions[members[0]].topics)
    if all(set(subscriptions[member].topics) == first for member in members):
        return _Equals(existing, members, owned, doubly_claimed, neighbours).assign()
    general = _General(existing, members, subscriptions, owned, claims, max_generation, neighbours)
    return general.assign(), None


class _Equals:
    """All want the same: everyone gets ``least`` partitions or one more."""

    def __init__(
        self,
        partitions: Mapping[str, int],
        members: Sequence[str],
        owned: Assigned,
        doubly_claimed: Set[TopicPartition],
        neighbours: _Neighbours,
    ) -> None:
        self._partitions = partitions
        self._members = members
        self._owned = owned
        self._doubly_claimed = doubly_claimed
        self._neighbours = neighbours
        self._least, self._larger_shares = divmod(sum(partitions.values()), len(members))
        """How many each gets at least, and how many members may still get one more."""
        self._most = self._least + (self._larger_shares > 0)
        self._result: Assigned = {}
        self._given_up: dict[TopicPartition, str] = {}
        """What its owner could not keep, with the owner."""
        self._under: list[str] = []
        """Members with less than the least."""
        self._exact: list[str] = []
        """Members with the least, of which some get one more."""
        self._moving: dict[TopicPartition, str] = {}

    def assign(self) -> tuple[Assigned, dict[TopicPartition, str]]:
        for member in self._members:
            self._keep(member)
        taken = {tp for kept in self._result.values() for tp in kept}
        every = [
            TopicPartition(topic, number)
            for topic in sorted(self._partitions, key=_units)
            for number in range(self._partitions[topic])
        ]
        left = [tp for tp in every if tp not in taken]
        self._under.sort(key=_units)
        self._exact.sort(key=_units)
        if self._neighbours.matter:
            # What fewest could read from nearby is given first.
            left = self._deal_to_neighbours(sorted(left, key=self._neighbours.count))
        self._deal(left)
        return self._result, self._moving

    def _keep(self, member: str) -> None:
        """Leave ``member`` what it may keep of what it has."""
        mine = []
        for tp in sorted(self._owned[member], key=_by_partition):
            if self._neighbours.are_apart(member, tp):
                self._given_up[tp] = member
            elif tp not in self._doubly_claimed:
                mine.append(tp)
        if len(mine) < self._least:
            keep = len(mine)
            self._under.append(member)
        elif len(mine) >= self._most and self._larger_shares:
            keep = self._most
            self._take_larger_share()
        else:
            keep = self._least
            if self._larger_shares:
                self._exact.append(member)
        self._result[member] = mine[:keep]
        self._given_up.update(dict.fromkeys(mine[keep:], member))

    def _take_larger_share(self) -> None:
        self._larger_shares -= 1
        if not self._larger_shares:
            self._exact.clear()

    def _deal_to_neighbours(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Give ``partitions`` to members beside their replicas; returns those for which there is none."""
        left = []
        turn = 0
        for tp in partitions:
            if (index := self._neighbours.first(tp, self._under, turn)) is not None:
                member = self._under[index]
                if self._give(tp, member) >= self._least:
                    del self._under[index]
                    if self._least < self._most and self._larger_shares:
                        self._exact.append(member)
                else:
                    index += 1
                turn = index % len(self._under) if self._under else 0
            elif (index := self._neighbours.first(tp, self._exact)) is not None:
                self._give(tp, self._exact.pop(index))
                self._take_larger_share()
            else:
                left.append(tp)
        return left

    def _deal(self, partitions: Iterable[TopicPartition]) -> None:
        turn = 0
        for tp in partitions:
            if turn >= len(self._under):
                turn = 0
            if self._under:
                member = self._under[turn]
                if self._give(tp, member) == self._least:
                    del self._under[turn]
                    self._exact.append(member)
                else:
                    turn += 1
            else:
                self._give(tp, self._exact.pop(0))

    def _give(self, tp: TopicPartition, member: str) -> int:
        """Returns how many ``member`` has then."""
        self._result[member].append(tp)
        if self._given_up.get(tp, member) != member or tp in self._doubly_claimed:
            self._moving[tp] = member
        return len(self._result[member])


class _General:
    """Members want different topics: fill up whoever has least, then move while that makes it more even."""

    def __init__(
        self,
        partitions: Mapping[str, int],
        members: Sequence[str],
        subscriptions: Mapping[str, Subscription],
        owned: Assigned,
        claims: _Claims,
        max_generation: int,
        neighbours: _Neighbours,
    ) -> None:
        self._partitions = partitions
        self._members = members
        self._current: Assigned = {member: list(owned[member]) for member in members}
        self._owner = {tp: member for member in members for tp in owned[member]}
        self._wants = {
            member: [topic for topic in dict.fromkeys(subscriptions[member].topics) if topic in partitions]
            for member in members
        }
        self._takers: dict[str, list[str]] = {topic: [] for topic in partitions}
        for member in members:
            for topic in self._wants[member]:
                self._takers[topic].append(member)
        self._can_get = {
            member: sum(partitions[topic] for topic in wants) for member, wants in self._wants.items()
        }
        self._previous: dict[TopicPartition, tuple[str, int]] = {}
        for member in members:
            claimed, known = claims[member]
            generation = NO_GENERATION if known is None else known
            if generation >= max_generation:
                continue
            for tp in claimed:
                before = self._previous.get(tp)
                if before is None or generation > before[1]:
                    self._previous[tp] = (member, generation)
        self._neighbours = neighbours
        self._moves = _Moves()
        self._active = list(members)
        """The members among whom partitions may still move."""

    def assign(self) -> Assigned:
        must_revoke = False
        for member in self._members:
            kept = [
                tp
                for tp in self._current[member]
                if tp.topic in self._wants[member] and not self._neighbours.are_apart(member, tp)
            ]
            must_revoke |= len(kept) < len(self._current[member])
            self._current[member] = kept
        assigned = {tp for kept in self._current.values() for tp in kept}
        topics = sorted(self._partitions, key=lambda topic: (len(self._takers[topic]), _units(topic)))
        every = [TopicPartition(t, number) for t in topics for number in range(self._partitions[t])]
        unassigned = [tp for tp in every if tp not in assigned]
        is_first = all(not kept for kept in self._current.values())
        left = unassigned
        if self._neighbours.matter:
            left = [tp for tp in left if not self._give(tp, self._takers_beside(tp))]
        for tp in left:
            self._give(tp, self._takers[tp.topic])
        every = [tp for tp in every if len(self._takers[tp.topic]) >= 2]
        unassigned = [tp for tp in unassigned if len(self._takers[tp.topic]) >= 2]
        self._active = [member for member in self._members if self._can_change(member)]
        before = {member: list(self._current[member]) for member in self._active}
        if self._active:
            if not must_revoke:
                self._move(unassigned)
            if self._move(every) and not is_first and self._score() >= _score(before.values()):
                self._current.update(before)
        return self._current

    def _load(self, member: str) -> tuple[int, bytes]:
        return len(self._current[member]), _units(member)

    def _takers_beside(self, tp: TopicPartition) -> list[str]:
        return [member for member in self._takers[tp.topic] if not self._neighbours.are_apart(member, tp)]

    def _give(self, tp: TopicPartition, takers: Sequence[str]) -> bool:
        """Let the one of ``takers`` have ``tp`` that has least; False where there is none."""
        if not takers:
            return False
        member = min(takers, key=self._load)
        self._current[member].append(tp)
        self._owner[tp] = member
        return True

    def _score(self) -> int:
        return _score([self._current[member] for member in self._active])

    def _can_change(self, member: str) -> bool:
        mine = self._current[member]
        return len(mine) < self._can_get[member] or any(len(self._takers[tp.topic]) >= 2 for tp in mine)

    def _move(self, candidates: Sequence[TopicPartition]) -> bool:
        """Pass over ``candidates`` until nothing moves any more; tell whether anything did."""
        has_moved = False
        while True:
            moved_now = False
            for tp in candidates:
                if self._is_balanced():
                    break
                size = len(self._current[self._owner[tp]])
                previous = self._previous.get(tp)
                if (
                    previous is not None
                    and tp.topic in self._wants[previous[0]]
                    and size > len(self._current[previous[0]]) + 1
                ):
                    self._reassign(tp, previous[0])
                    moved_now = True
                    continue
                takers = self._takers[tp.topic]
                if any(size > len(self._current[member]) + 1 for member in takers):
                    self._reassign(tp, min(takers, key=self._load))
                    moved_now = True
            if not moved_now:
                return has_moved
            has_moved = True

    def _is_balanced(self) -> bool:
        sizes = [len(self._current[member]) for member in self._active]
        if min(sizes) >= max(sizes) - 1:
            return True
        for member in self._active:
            size = len(self._current[member])
            if size == self._can_get[member]:
                continue
            for topic in self._wants[member]:
                for number in range(self._partitions[topic]):
                    owner = self._owner[TopicPartition(topic, number)]
                    if owner != member and size + 1 < len(self._current[owner]):
                        return False
        return True

    def _reassign(self, tp: TopicPartition, new: str) -> None:
        moving = self._moves.instead_of(tp, self._owner[tp], new)
        old = self._owner[moving]
        self._moves.record(moving, old, new)
        self._current[old].remove(moving)
        self._current[new].append(moving)
        self._owner[moving] = new


class _Moves:
    """Which partitions went from whom to whom: a second one that would go the other way stays instead."""

    def __init__(self) -> None:
        self._pairs: dict[TopicPartition, tuple[str, str]] = {}
        self._by_pair: dict[tuple[str, str, str], _MovedSet] = {}

    def record(self, tp: TopicPartition, old: str, new: str) -> None:
        before = self._pairs.pop(tp, None)
        if before is not None:
            key = (tp.topic, *before)
            self._by_pair[key].remove(tp)
            if not self._by_pair[key]:
                del self._by_pair[key]
            if before[0] == new:
                return  # It came home.
            old = before[0]
        self._pairs[tp] = (old, new)
        self._by_pair.setdefault((tp.topic, old, new), _MovedSet()).add(tp)

    def instead_of(self, tp: TopicPartition, old: str, new: str) -> TopicPartition:
        """The partition to move when ``tp`` should: one that came from ``new`` goes back first."""
        if tp in self._pairs:
            old = self._pairs[tp][0]
        back = self._by_pair.get((tp.topic, new, old))
        return tp if back is None else back.first()


def _score(assigned: Iterable[Sequence[TopicPartition]]) -> int:
    """The sum of the differences of all pairs of members: 0 is perfectly even."""
    sizes = [len(partitions) for partitions in assigned]
    return sum(abs(a - b) for index, a in enumerate(sizes) for b in sizes[index + 1 :])


RANGE: Final[Assignor] = _Range()
ROUND_ROBIN: Final[Assignor] = _RoundRobin()
STICKY: Final[Assignor] = _Sticky()
COOPERATIVE_STICKY: Final[Assignor] = _CooperativeSticky()
