"""How the cluster answered: what its journals tell of the time since a moment, in words.

The three questions of whoever breaks something: who rules now, which leaders moved and why, how long
did it take. All of it is read from events and their causes; nothing is measured from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from kafkalite.compose.view import View
from kafkalite.journal import Event
from kafkalite.why import History, words

_TOLD: Final = frozenset(
    {
        *("ControllerElected", "ControllerResigned", "BrokerFailed", "BrokerFoundAbsent", "BrokerStarted"),
        *("BrokerBounced", "BrokerRegistered", "ControlledShutdownStarted", "SessionStateChanged"),
        *("LeaseExpired", "RegistrationVanished", "LogDirFailed", "RecordsLost", "NoLeaderElected"),
        *("IsrShrunk", "IsrExpanded", "LeaderDeposed", "PreferredLeaderElectionStarted"),
    }
)
"""The types that are told one by one; moves of leaders have a list of their own."""
_MANY: Final = 8
"""Of one kind of event no more than these are written out."""


class Move(msgspec.Struct, frozen=True):
    """A partition got another leader, or none."""

    partition: str
    before: int
    after: int
    leader_epoch: int
    at_ms: int
    """After the moment, in milliseconds."""
    why: tuple[str, ...]
    """The chain of causes in words, the root last."""


class Answer(msgspec.Struct, frozen=True):
    """What the journals tell of the time since a moment."""

    since: int
    controller_before: int | None
    controller_after: int | None
    moves: tuple[Move, ...]
    events: tuple[Event, ...]
    """What else is worth telling, in order."""
    took_ms: int
    """From the moment to the last thing told."""
    broken: tuple[str, ...]
    """Partitions that are not whole now: no leader, or a replica out of the ISR."""
    silent: tuple[int, ...]
    """Brokers whose journals could not be read."""

    def to_json(self) -> dict[str, Any]:
        """For programs; times in milliseconds after the moment."""
        return {
            "since": self.since,
            "controller": {"before": self.controller_before, "after": self.controller_after},
            "took_ms": self.took_ms,
            "moves": [
                {
                    "partition": move.partition,
                    "from": move.before,
                    "to": move.after,
                    "leader_epoch": move.leader_epoch,
                    "at_ms": move.at_ms,
                    "why": list(move.why),
                }
                for move in self.moves
            ],
            "events": [event.to_json() for event in self.events],
            "broken": list(self.broken),
            "silent": list(self.silent),
        }


def tell(history: History, *, since: int, before: View, after: View, silent: Iterable[int] = ()) -> Answer:
    """Read off ``history`` what happened from ``since`` (wall clock, ms) on."""
    events = [event for event in history.events if event.time >= since]
    led = {part.name: part.leader for parts in before.partitions.values() for part in parts}
    moves = tuple(_moves(history, events, since, led))
    told = tuple(event for event in events if event.type in _TOLD)
    times = [event.time for event in told] + [since + move.at_ms for move in moves]
    return Answer(
        since=since,
        controller_before=before.controller,
        controller_after=after.controller,
        moves=moves,
        events=told,
        took_ms=max(times, default=since) - since,
        broken=tuple(part.name for part in after.broken),
        silent=tuple(silent),
    )


def text(answer: Answer) -> str:
    """The answer for people."""
    lines = []
    for type, events in _by_type(answer.events).items():
        for event in events[:_MANY]:
            place = f"{event.topic}-{event.partition}: " if event.topic is not None else ""
            lines.append((event.time - answer.since, place + words.sentence(event)))
        if len(events) > _MANY:
            lines.append((events[_MANY].time - answer.since, f"{type}: {len(events) - _MANY} more"))
    written = [f"  {_after(at)} {line}" for at, line in sorted(lines, key=lambda one: one[0])]
    written += [f"  {line}" for line in _told_moves(answer.moves)]
    if answer.controller_before != answer.controller_after:
        was, now = _broker(answer.controller_before), _broker(answer.controller_after)
        written.append(f"  controller: {now} (before: {was})")
    else:
        written.append(f"  controller: {_broker(answer.controller_after)}, as before")
    if answer.broken:
        shown = ", ".join(answer.broken[:_MANY]) + (" …" if len(answer.broken) > _MANY else "")
        written.append(f"  not whole (no leader, or a replica out of the ISR): {shown}")
    else:
        written.append("  every partition has its leader and all its replicas in the ISR")
    if answer.silent:
        written.append(f"  what {words.brokers(answer.silent)} wrote down could not be read and is missing")
    return "\n".join([f"The cluster's answer, {words.seconds(answer.took_ms)}:", *written])


def _moves(history: History, events: Iterable[Event], since: int, led: Mapping[str, int]) -> Iterable[Move]:
    """The moves of leaders, each from the one before; ``led``: who led at ``since``.

    The event's own word for it is not enough: it is none where the controller had first noted that the
    old leader is gone.
    """
    leaders = dict(led)
    for event in events:
        if event.type != "LeaderElected":
            continue
        partition, after = f"{event.topic}-{event.partition}", event.facts["leader"]
        before = leaders.get(partition, -1)
        leaders[partition] = after
        if before == after:
            continue  # The same leader in a new epoch.
        yield Move(
            partition=partition,
            before=before,
            after=after,
            leader_epoch=event.facts["leader_epoch"],
            at_ms=event.time - since,
            why=tuple(words.sentence(one) for one in history.causes(event)),
        )


def _told_moves(moves: Iterable[Move]) -> list[str]:
    """One line for all partitions that went the same way for the same reason."""
    groups: dict[tuple[int, int, str], list[Move]] = {}
    for move in moves:
        root = move.why[-1] if len(move.why) > 1 else move.why[0]
        groups.setdefault((move.before, move.after, root), []).append(move)
    lines = []
    for (before, after, root), group in groups.items():
        names = ", ".join(move.partition for move in group[:_MANY])
        names += f" and {len(group) - _MANY} more" if len(group) > _MANY else ""
        first, last = min(move.at_ms for move in group), max(move.at_ms for move in group)
        when = (
            _after(first).strip() if first == last else f"{_after(first).strip()} to {_after(last).strip()}"
        )
        lines.append(f"leader {_id(before)} -> {_id(after)} of {names} ({when}), because {root}")
    return lines


def _by_type(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.type, []).append(event)
    return found


def _after(milliseconds: int) -> str:
    return f"{'+' + words.seconds(milliseconds):>8}"


def _id(broker: int) -> str:
    return str(broker) if broker >= 0 else "none"


def _broker(id: int | None) -> str:
    return "none that all agree on" if id is None else f"broker {id}"
