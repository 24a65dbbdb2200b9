"""Why, on journals recorded from real clusters of three brokers that were broken on purpose.

`recorded/*.jsonl` are the events of all brokers at the moment of the question, in the order of time;
the partition is orders/0, and each file goes on from the one before it in the list below.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kafkalite.common import BrokerId, TopicPartition
from kafkalite.journal import Event, EventId
from kafkalite.why import Answer, Chain, History, explain, read_event, read_receipt, text

RECORDED = Path(__file__).parent / "recorded"
ORDERS = TopicPartition("orders", 0)
STORIES = ["follower-paused", "leader-killed", "leader-stopped", "whole", "offline", "unclean"]


def recorded(name: str) -> History:
    events = [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]
    receipts = RECORDED / f"{name}.receipts.jsonl"
    lines = receipts.read_text().splitlines() if receipts.exists() else []
    found = [json.loads(line) for line in lines]
    return History(
        [read_event(body) for body in events],
        [read_receipt(body["broker"], body) for body in found],
    )


def ask(name: str, **options: object) -> Answer:
    return explain(recorded(name), ORDERS, **options)  # type: ignore[arg-type]


def chain(answer: Answer, question: str) -> Chain:
    (found,) = [one for one in answer.chains if one.question == question]
    return found


def told(found: Chain) -> list[str | None]:
    return [link.type for link in found.links]


def test_a_new_partitions_leader_is_its_first_replica() -> None:
    answer = ask("follower-paused")
    assert (answer.state, answer.leader, answer.leader_epoch) == ("online", 1, 1)
    assert told(chain(answer, "leader")) == ["LeaderElected", "TopicCreated", "TopicCreationRequested"]


def test_a_paused_follower_is_missed() -> None:
    answer = ask("follower-paused")
    assert answer.isr == (1, 2)
    isr = chain(answer, "isr")
    assert isr.about == "broker 3 is not in the ISR"
    assert told(isr)[:3] == ["ReplicaWentOffline", "BrokerFailed", "ZnodeChanged"]
    # It stands still, so its own journal cannot know.
    assert "nothing has been heard from it since" in isr.links[-1].text


def test_a_killed_leader_explains_the_new_one() -> None:
    answer = ask("leader-killed")
    assert answer.leader == 3
    leader = chain(answer, "leader")
    assert told(leader)[:3] == ["LeaderElected", "BrokerFailed", "ZnodeChanged"]
    assert "/brokers/ids/1" in leader.links[2].text
    assert answer.since == leader.links[0].time


def test_a_leader_that_stops_in_good_order_is_no_failure() -> None:
    answer = ask("leader-stopped")
    assert told(chain(answer, "leader")) == ["LeaderElected", "ControlledShutdownStarted"]
    assert "asked to be relieved" in chain(answer, "leader").links[0].text


def test_a_whole_isr_says_who_came_back_last() -> None:
    answer = ask("whole")
    assert sorted(answer.isr) == [1, 2, 3]
    isr = chain(answer, "isr")
    assert isr.about == "every replica is in the ISR"
    assert told(isr) == ["IsrExpanded"]
    assert not [one for one in answer.chains if one.question == "lost"]


def test_without_a_leader_it_says_what_can_be_done_and_at_what_price() -> None:
    answer = ask("offline")
    assert (answer.state, answer.leader, answer.isr) == ("offline", None, (1,))
    leader = chain(answer, "leader")
    assert told(leader)[:3] == ["NoLeaderElected", "ReplicaWentOffline", "BrokerFoundAbsent"]
    start, unclean = answer.options
    assert (start.action, start.price) == ("start broker 1", "loses nothing that was committed")
    assert "unclean.leader.election.enable=true" in unclean.action
    assert "only broker 1 had" in unclean.price


def test_each_absent_broker_is_explained_by_its_own_end() -> None:
    """Two brokers failed at once; neither is blamed for the other."""
    answer = ask("offline")
    for found in answer.chains:
        if found.question == "isr":
            broker = found.about.split()[1]
            (end,) = [link for link in found.links if link.type == "BrokerFoundAbsent"]
            assert f"found broker {broker} absent" in end.text
            assert f"broker {broker} had ended without a word" in found.links[-1].text


def test_lost_records_are_counted_and_blamed_on_the_unclean_election() -> None:
    answer = ask("unclean")
    assert answer.leader == 2
    lost = chain(answer, "lost")
    assert "offsets 40-44 (5 records) of leader epoch 5" in lost.about
    assert told(lost)[:2] == ["RecordsLost", "LeaderElected"]
    assert "an unclean election" in lost.links[1].text


def test_a_receipt_and_its_event_are_one_loss() -> None:
    history = recorded("unclean")
    assert len(history.receipts) == 1
    assert len([event for event in history.events if event.type == "RecordsLost"]) == 1
    without = explain(History(history.events), ORDERS)
    assert len([one for one in without.chains if one.question == "lost"]) == 1


@pytest.mark.parametrize("name", STORIES)
def test_every_link_has_words(name: str) -> None:
    """No event in a chain is shown raw, and the answer for people says all that the one for programs says."""
    answer = ask(name)
    lines = "\n".join(text(answer))
    for found in answer.chains:
        assert found.about in lines
        for link in found.links:
            assert link.text in lines
            assert link.type is None or not link.text.startswith(link.type), f"{link.type} has no sentence"
    json.dumps(answer.to_json())


@pytest.mark.parametrize("name", STORIES)
def test_the_order_and_the_number_of_copies_do_not_matter(name: str) -> None:
    history = recorded(name)
    again = History([*reversed(history.events), *history.events], history.receipts)
    assert explain(again, ORDERS) == explain(history, ORDERS)


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("mute", [1, 2, 3])
def test_a_journal_that_cannot_be_read_leaves_a_gap_and_no_nonsense(name: str, mute: int) -> None:
    """Whatever is left is told; a chain that breaks off says where it would go on."""
    history = recorded(name)
    rest = History([event for event in history.events if event.broker != mute], history.receipts)
    answer = explain(rest, ORDERS, silent={mute})
    for found in answer.chains:
        for link in found.links:
            assert link.broker != mute or link.id is None
    assert text(answer)


def test_a_silent_leader_will_be_replaced() -> None:
    answer = explain(recorded("whole"), ORDERS, silent={1})
    assert [option.action.partition(":")[0] for option in answer.options] == ["wait"]


def test_an_unknown_partition_is_unknown() -> None:
    answer = explain(recorded("whole"), TopicPartition("orders", 7))
    assert answer.state == "unknown"
    assert len(text(answer)) == 1


def test_a_topic_created_again_has_no_past() -> None:
    history = recorded("unclean")
    last = history.events[-1]
    created = Event(
        EventId("9-1-0"),
        last.time + 1,
        BrokerId(1),
        "TopicCreated",
        None,
        "orders",
        None,
        {"assignment": {"0": [2, 1]}},
    )
    elected = Event(
        EventId("9-1-1"),
        last.time + 1,
        BrokerId(1),
        "LeaderElected",
        created.id,
        "orders",
        0,
        {
            "leader": 2,
            "old_leader": -1,
            "leader_epoch": 0,
            "isr": [2, 1],
            "partition_epoch": 0,
            "strategy": "initial",
        },
    )
    answer = explain(History([*history.events, created, elected], history.receipts), ORDERS)
    assert (answer.leader, answer.leader_epoch, answer.replicas) == (2, 0, (2, 1))
    assert not [one for one in answer.chains if one.question == "lost"]


def test_causes_that_bite_their_tail_end() -> None:
    events = [
        Event(EventId("1-1-0"), 1, BrokerId(1), "A", EventId("1-1-1")),
        Event(EventId("1-1-1"), 2, BrokerId(1), "B", EventId("1-1-0")),
    ]
    assert [event.type for event in History(events).causes(events[1])] == ["B", "A"]
