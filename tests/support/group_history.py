"""Members of a group as processes, what they wrote down, and whether the group kept its word.

The promise: every record is processed, and none once its offset was committed. The processes share one
clock, so this can be seen from their notes alone: whoever notes that it got a record after somebody noted
that a commit beyond it was acknowledged has got it again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kafkalite.client import Producer, TopicPartition
from tests.support import group_process
from tests.support.group_process import Orders

Record = tuple[TopicPartition, int]


class Note(NamedTuple):
    """One line of a member's."""

    letter: str
    time_ns: int
    facts: list[str]

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """Of an assignment, a revocation or a loss."""
        names = (name.rpartition("-") for name in self.facts[0].split(",")) if self.facts else ()
        return frozenset(TopicPartition(topic, int(number)) for topic, _, number in names)

    @property
    def partition(self) -> TopicPartition:
        """Of records or a commit."""
        return TopicPartition(self.facts[0], int(self.facts[1]))


class Member:
    """One process."""

    def __init__(self, directory: Path, name: str, orders: Orders) -> None:
        self.name = name
        self._notes = directory / f"{name}.notes"
        self._complaints = directory / f"{name}.err"
        with open(self._notes, "ab") as out, open(self._complaints, "ab") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, group_process.__file__, msgspec.json.encode(orders).decode()],
                stdout=out,
                stderr=complaints,
            )

    def notes(self) -> Iterator[Note]:
        for line in self._notes.read_text().split("\n")[:-1]:
            letter, time_ns, *facts = line.split()
            yield Note(letter, int(time_ns), facts)

    def processed(self) -> set[Record]:
        return {
            (note.partition, offset)
            for note in self.notes()
            if note.letter == "P"
            for offset in range(int(note.facts[2]), int(note.facts[3]) + 1)
        }

    def owns(self) -> frozenset[TopicPartition]:
        """As far as it has been told."""
        owned: frozenset[TopicPartition] = frozenset()
        for note in self.notes():
            if note.letter == "A":
                owned |= note.partitions
            elif note.letter in "RL":
                owned -= note.partitions
        return owned

    def gave_up(self, *, since_ns: int) -> frozenset[TopicPartition]:
        """Everything that was taken from it since then."""
        return frozenset(
            tp
            for note in self.notes()
            if note.letter in "RL" and note.time_ns > since_ns
            for tp in note.partitions
        )

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it, also where it is paused."""
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(number)
            self.process.wait(30)

    def check(self) -> None:
        """It has not ended by itself, nor complained."""
        complaints = self._complaints.read_text()
        assert self.process.poll() in (None, 0, -signal.SIGKILL), f"{self.name} ended: {complaints}"
        assert not complaints, f"{self.name}: {complaints}"


class Party:
    """A topic and the members that read it, in one group."""

    def __init__(self, directory: Path, bootstrap: str, topic: str, partitions: int, group: str) -> None:
        self.members: dict[str, Member] = {}
        self._directory = directory
        self._bootstrap = bootstrap
        self.topic = topic
        self.partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self.group = group
        self._filled = dict.fromkeys(self.partitions, 0)

    async def __aenter__(self) -> Party:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for member in self.members.values():
            await asyncio.to_thread(member.end)

    def start(self, name: str, *, hold: Path | None = None, commits: bool = True, **options: Any) -> Member:
        """Start a member; one that ended before goes on under the same name."""
        settings = {
            "bootstrap_servers": self._bootstrap,
            "group_id": self.group,
            "client_id": name,
            "auto_offset_reset": "earliest",
            "session_timeout_ms": 10_000,
            "heartbeat_interval_ms": 300,
        }
        orders = Orders(
            topics=[self.topic],
            options=settings | options,
            commits=commits,
            hold=None if hold is None else str(hold),
        )
        made = self.members[name] = Member(self._directory, name, orders)
        return made

    async def fill(self, count: int) -> None:
        """``count`` more records into each partition."""
        await self.fill_some(self.partitions, count)

    async def fill_some(self, partitions: Sequence[TopicPartition], count: int) -> None:
        """The same for some of them; where one has no leader it is waited for."""
        async with Producer(bootstrap_servers=self._bootstrap) as producer:
            sent = [
                await producer.send(tp.topic, b"%d" % number, partition=tp.partition)
                for number in range(count)
                for tp in partitions
            ]
            for delivery in sent:
                await delivery
        for tp in partitions:
            self._filled[tp] += count

    def everything(self, of: Iterable[TopicPartition] | None = None) -> set[Record]:
        return {(tp, n) for tp in (self.partitions if of is None else of) for n in range(self._filled[tp])}

    def processed(self) -> set[Record]:
        return set().union(*(member.processed() for member in self.members.values()))

    async def until_all_is_processed(self, of: Iterable[TopicPartition] | None = None) -> None:
        wanted = self.everything(of)
        await until(lambda: self.processed() >= wanted)
        assert self.processed() <= self.everything(), "records were processed that nobody wrote"

    async def until_shared(self, *names: str) -> None:
        """Wait until these members, and no others, own every partition once, each its share."""
        least, more = divmod(len(self.partitions), len(names))
        wanted = sorted([least + 1] * more + [least] * (len(names) - more))

        def shared() -> bool:
            owned = {name: self.members[name].owns() for name in names}
            return (
                sorted(map(len, owned.values())) == wanted
                and frozenset().union(*owned.values()) == frozenset(self.partitions)
                and sum(map(len, owned.values())) == len(self.partitions)
            )

        await until(shared)

    def verify(self) -> None:
        """Every record was processed, and none once its offset was committed."""
        for member in self.members.values():
            member.check()
        missing = self.everything() - self.processed()
        assert not missing, f"{len(missing)} records were not processed: {sorted(missing)[:5]}"
        assert not (again := list(self._again())), "\n".join(again[:10])

    def _again(self) -> Iterator[str]:
        commits: dict[TopicPartition, list[tuple[int, int]]] = defaultdict(list)
        """When, and the highest offset committed until then."""
        for note in sorted(self.notes("C"), key=lambda note: note.time_ns):
            known = commits[note.partition]
            known.append((note.time_ns, max(int(note.facts[2]), known[-1][1] if known else 0)))
        assert commits, "nobody committed anything"
        for name, member in self.members.items():
            for note in member.notes():
                if note.letter == "P":
                    known = commits[note.partition]
                    place = bisect(known, (note.time_ns, -1))
                    committed = known[place - 1][1] if place else 0
                    if committed > int(note.facts[2]):
                        yield f"{name} got {note.facts} after {committed} was committed"

    def notes(self, letter: str) -> list[Note]:
        return [note for m in self.members.values() for note in m.notes() if note.letter == letter]


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 90) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)
