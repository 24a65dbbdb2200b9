"""What is done to the cluster, and when: a list that follows from the seed alone.

A fault names its victim by role (the leader of a partition, the controller) and is aimed only when
its time has come; the list is the same for every run of a seed, what it meets is not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

Role = Literal["leader", "follower", "controller", "any"]


class Kind(msgspec.Struct, frozen=True):
    """One kind of fault."""

    summary: str
    """For `--help`."""
    lasts_s: tuple[float, float]
    """Shortest and longest time before it is healed."""
    ways: tuple[str, ...] = ("",)
    """Variants; each fault is of one of them."""
    alone: bool = False
    """It begins with everything healed and every replica in sync, and nothing overlaps it."""
    needs_links: bool = False
    """Only where all connections pass proxies."""
    hits_broker: bool = True
    """It is aimed at one broker, which no other fault may hit meanwhile."""


KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind("a broker is killed (SIGKILL) and started again", (0.2, 8)),
    "pause": Kind("a broker is stopped in its tracks (SIGSTOP) and goes on", (0.5, 9)),
    "bounce": Kind("a broker is stopped in good order and started again", (0.2, 3)),
    "kill-all": Kind("all brokers are killed at once and started again", (0.2, 3), hits_broker=False),
    "disk": Kind(
        "a broker is killed, loses or garbles the end of a log or an index, and is started again",
        (0.2, 4),
        ways=("torn tail", "flipped byte", "index deleted"),
        alone=True,
    ),
    "zookeeper": Kind(
        "a ZooKeeper is killed or paused, and is back",
        (1, 8),
        ways=("leader killed", "follower killed", "leader paused", "follower paused"),
        hits_broker=False,
    ),
    "quorum": Kind("ZooKeeper's majority is killed, and is back", (2, 10), hits_broker=False),
    "partition": Kind(
        "a broker is cut off from the other brokers",
        (2, 9),
        ways=("both ways", "nothing comes in", "nothing goes out", "reset"),
        needs_links=True,
    ),
    "zk-cut": Kind(
        "a broker is cut off from ZooKeeper",
        (2, 9),
        ways=("both ways", "nothing comes in", "nothing goes out", "reset"),
        needs_links=True,
    ),
    "client-cut": Kind(
        "the clients are cut off from a broker",
        (2, 6),
        ways=("both ways", "no answers", "reset"),
        needs_links=True,
    ),
    "slow": Kind("all connections of a broker are slow", (2, 8), needs_links=True),
}


class Planned(msgspec.Struct, frozen=True):
    """One fault of the list."""

    number: int
    kind: str
    way: str
    role: Role
    """Whom it is aimed at, where it is aimed at a broker."""
    chance: int
    """Decides among several that fit, and whatever else is left to chance when it is carried out."""
    gap_s: float
    """How long all is quiet, or only the fault before it is there, until it comes."""
    lasts_s: float
    overlaps: bool
    """It does not wait until the fault before it is healed."""


def plan(chance: random.Random, kinds: Sequence[str]) -> Iterator[Planned]:
    """Faults without end, of ``kinds`` (names of :data:`KINDS`), all of them in turn but in no order."""
    number = 0
    bag: list[str] = []
    while True:
        if not bag:
            bag = sorted(kinds)
            chance.shuffle(bag)
        name = bag.pop()
        kind = KINDS[name]
        number += 1
        yield Planned(
            number=number,
            kind=name,
            way=chance.choice(kind.ways),
            role=chance.choice(("leader", "leader", "follower", "controller", "any")),
            chance=chance.getrandbits(32),
            gap_s=chance.uniform(0.5, 4),
            lasts_s=chance.uniform(*kind.lasts_s),
            overlaps=not kind.alone and chance.random() < 0.3,
        )
