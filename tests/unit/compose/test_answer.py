"""What the journals tell after a fault: moves of leaders, the controller, what is still broken."""

from __future__ import annotations

from typing import Any

from kafkalite.common import BrokerId
from kafkalite.compose.answer import tell, text
from kafkalite.compose.view import PartitionView, View
from kafkalite.journal import Event, EventId
from kafkalite.why import History


def event(
    number: int, time: int, type: str, *, cause: int | None = None, broker: int = 3, **facts: Any
) -> Event:
    place = {name: facts.pop(name) for name in ("topic", "partition") if name in facts}
    return Event(
        id=EventId(f"{broker}-0-{number}"),
        time=time,
        broker=BrokerId(broker),
        type=type,
        cause=None if cause is None else EventId(f"{broker}-0-{cause}"),
        facts=facts,
        **place,
    )


def view(controller: int, *parts: PartitionView) -> View:
    ids = (2, 3)
    return View(
        frozenset(ids),
        dict.fromkeys(ids, controller),
        dict.fromkeys(ids, frozenset(ids)),
        dict.fromkeys(ids, parts),
    )


BEFORE = view(1, PartitionView("orders", 0, 1, (1, 2, 3), (1, 2, 3)))
AFTER = view(3, PartitionView("orders", 0, 2, (1, 2, 3), (2, 3)))


def elected(number: int, time: int, leader: int, *, cause: int | None = None, old_leader: int = -1) -> Event:
    return event(
        number, time, "LeaderElected", cause=cause, topic="orders", partition=0,
        leader=leader, old_leader=old_leader, leader_epoch=number, isr=[2, 3],
    )  # fmt: skip


GONE = event(1, 5_900, "ZnodeChanged", path="/brokers/ids/1", change="deleted")


def test_a_move_names_who_led_and_why() -> None:
    history = History([GONE, elected(3, 6_300, 2, cause=1)])
    (move,) = tell(history, since=1_000, before=BEFORE, after=AFTER).moves
    assert (move.partition, move.before, move.after, move.at_ms) == ("orders-0", 1, 2, 5_300)
    assert move.why[-1].startswith("ZooKeeper deleted /brokers/ids/1")


def test_what_was_before_is_not_told() -> None:
    history = History([elected(1, 900, 3), elected(2, 1_000, 2)])
    answer = tell(history, since=1_000, before=BEFORE, after=AFTER)
    assert [move.after for move in answer.moves] == [2]
    assert answer.took_ms == 0


def test_the_same_leader_in_a_new_epoch_has_not_moved() -> None:
    history = History([elected(1, 1_100, 1, old_leader=1)])
    assert tell(history, since=1_000, before=BEFORE, after=AFTER).moves == ()


def test_a_leader_that_comes_back_moved_twice() -> None:
    history = History([elected(1, 1_100, 2), elected(2, 1_200, 1, old_leader=2)])
    moves = tell(history, since=1_000, before=BEFORE, after=AFTER).moves
    assert [(move.before, move.after) for move in moves] == [(1, 2), (2, 1)]


def test_the_answer_in_words() -> None:
    history = History([GONE, elected(3, 6_300, 2, cause=1)])
    told = text(tell(history, since=1_000, before=BEFORE, after=AFTER, silent=[1]))
    assert told.startswith("The cluster's answer, 5.3 s:")
    assert "leader 1 -> 2 of orders-0 (+5.3 s), because ZooKeeper deleted /brokers/ids/1" in told
    assert "controller: broker 3 (before: broker 1)" in told
    assert "not whole (no leader, or a replica out of the ISR): orders-0" in told
    assert "what broker 1 wrote down could not be read" in told


def test_brokers_that_disagree_agree_on_nobody() -> None:
    split = View(frozenset({2, 3}), {2: 3, 3: 1}, {}, {})
    assert split.controller is None
    assert split.of([2]).controller == 3


def test_many_events_of_a_kind_are_summed_up() -> None:
    many = [
        event(n, 1_000 + n, "IsrShrunk", topic="orders", partition=n, isr=[2], isr_before=[1, 2], lagging=[])
        for n in range(20)
    ]
    told = text(tell(History(many), since=1_000, before=BEFORE, after=AFTER))
    assert "IsrShrunk: 12 more" in told
