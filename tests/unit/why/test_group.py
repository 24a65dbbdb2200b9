"""Why a group rebalanced, from events as coordinators write them."""

from __future__ import annotations

from typing import Any

from kafkalite.common import BrokerId
from kafkalite.journal import Event, EventId
from kafkalite.why import History, explain_group, group_text


def event(number: int, type: str, broker: int = 1, **facts: Any) -> Event:
    return Event(
        id=EventId(f"{broker}-0-{number}"),
        time=1000 * number,
        broker=BrokerId(broker),
        type=type,
        cause=None,
        topic=None,
        partition=None,
        facts={"group": "g", **facts},
    )


MEMBER: dict[str, Any] = {"client": "app", "host": "/10.0.0.1"}
EVENTS = [
    event(1, "GroupMemberJoined", member="app-1", reason="joins for the first time", **MEMBER),
    event(2, "GroupRebalanceStarted", generation=0, reason="app-1 joined", members=1),
    event(
        *(3, "GroupRebalanceCompleted"),
        generation=1,
        members=1,
        took_ms=3000,
        reason="app-1 joined",
        partitions=1,
        partitions_moved=1,
        moves=[{"topic": "t", "partition": 0, "from": None, "to": "app-1"}],
    ),
    event(4, "GroupMemberExpired", 2, member="app-1", reason="no heartbeat for 45000 ms", **MEMBER),
    event(5, "GroupMemberJoined", 2, member="other", group="h", reason=""),
]


def test_a_groups_story() -> None:
    answer = explain_group(History(EVENTS), "g")
    assert answer.is_known
    [rebalance] = answer.rebalances
    assert (rebalance.generation, rebalance.took_ms, rebalance.partitions_moved) == (1, 3000, 1)
    assert [change.member for change in rebalance.changes] == ["app-1"]
    assert [change.what for change in answer.since] == ["was removed"]
    assert group_text(answer, now_ms=33_000) == [
        "Group g: 1 rebalance that the journals tell of.",
        "",
        "Generation 1, 30 s ago, coordinated by broker 1",
        "  why: app-1 joined",
        "  app-1 (app at /10.0.0.1) joined: joins for the first time",
        "  it took 3000 ms; 1 members since",
        "  1 partitions changed hands",
        "    t-0: nobody to app-1",
        "",
        "Since then:",
        "  app-1 (app at /10.0.0.1) was removed: no heartbeat for 45000 ms",
    ]
    document = answer.to_json()
    assert document["rebalances"][0]["moves"] == [{"topic": "t", "partition": 0, "from": None, "to": "app-1"}]
    assert document["since"][0]["reason"] == "no heartbeat for 45000 ms"


def test_what_befell_the_offsets() -> None:
    partitions = [f"t-{number}" for number in range(12)]
    events = [
        event(1, "GroupOffsetsDeleted", offsets=1, partitions=["t-0"], reason="asked for"),
        event(2, "GroupOffsetsExpired", offsets=12, partitions=partitions, retention_ms=604_800_000),
        event(3, "GroupDeleted", reason="no offsets are left"),
    ]
    answer = explain_group(History(events), "g")
    assert group_text(answer, now_ms=4000)[2:] == [
        "So far:",
        "  offsets were deleted: t-0 (asked for)",
        "  offsets expired: t-0, t-1, t-2, t-3, t-4, t-5, t-6, t-7, t-8, t-9, … (not used for 168 h)",
        "  the group was deleted: no offsets are left",
    ]


def test_a_group_nobody_tells_of() -> None:
    answer = explain_group(History(EVENTS), "nothing")
    assert not answer.is_known
    assert answer.to_json() == {"group": "nothing", "rebalances": [], "since": []}
