"""Each anomaly in a history of its own: the checker finds it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kafkalite.checker.checker import Checker, Verdict
from kafkalite.checker.history import (
    Acknowledged,
    Assigned,
    CommitAccepted,
    CommitRefused,
    CommitSent,
    CommittedAsked,
    CommittedRead,
    Disowned,
    Ended,
    Failed,
    Finished,
    HistoryEvent,
    Joined,
    Lost,
    Polled,
    Positioned,
    Revoked,
    Sent,
    Unknown,
    from_lines,
    to_lines,
)
from kafkalite.checker.promise import GROUPS_MAY_SHOW, MAY_SHOW, READERS_MAY_SEE, Anomaly, Faults, Mode

MODES = {mode.name: mode for mode in Mode}


def sent(*values: int, by: str = "IDEMPOTENT", partition: int = 0) -> list[HistoryEvent]:
    return [Sent(by, "t", partition, value) for value in values]


def acknowledged(places: dict[int, int]) -> list[HistoryEvent]:
    return [Acknowledged(value, offset) for value, offset in places.items()]


def polled(first: int, *values: int, by: str = "reader", partition: int = 0) -> HistoryEvent:
    return Polled(by, "t", partition, list(range(first, first + len(values))), list(values))


def assigned(
    consumer: str, generation: int, *partitions: int, member: str = "", instance: str | None = None
) -> list[HistoryEvent]:
    member = member or consumer
    return [
        Joined(consumer, "g", member, generation, instance),
        Assigned(consumer, "g", member, generation, [("t", one) for one in partitions], instance),
    ]


def revoked(consumer: str, *partitions: int) -> HistoryEvent:
    return Revoked(consumer, "g", [("t", one) for one in partitions])


def asks(number: int, consumer: str, generation: int, offset: int, *, member: str = "") -> HistoryEvent:
    return CommitSent(number, consumer, "g", member or consumer, generation, [("t", 0, offset)])


def accepted(number: int) -> HistoryEvent:
    return CommitAccepted(number, [("t", 0)])


def committed(number: int, consumer: str, generation: int, offset: int) -> list[HistoryEvent]:
    return [asks(number, consumer, generation, offset), accepted(number)]


def shown(number: int, offset: int) -> list[HistoryEvent]:
    return [CommittedAsked(number, "g", [("t", 0)]), CommittedRead(number, [("t", 0, offset)])]


def check(*parts: HistoryEvent | Sequence[HistoryEvent], faults: Faults = Faults.TAME) -> Verdict:
    checker = Checker(MODES, faults)
    for part in parts:
        for event in part if isinstance(part, Sequence) else (part,):
            checker.take(event)
    return checker.verdict()


GOOD: list[HistoryEvent] = [
    *sent(1, 2, 3),
    *acknowledged({1: 0, 2: 1, 3: 2}),
    Positioned("reader", "t", 0, 0),
    polled(0, 1, 2),
    polled(2, 3),
    Ended("t", 0, 3),
]

ANOMALIES: dict[Anomaly, list[HistoryEvent]] = {
    Anomaly.LOST_WRITE: [*sent(1, 2), *acknowledged({1: 0, 2: 1}), polled(1, 2), Ended("t", 0, 2)],
    Anomaly.UNSEEN: [*sent(1, 2), *acknowledged({1: 0, 2: 1}), polled(0, 1), Ended("t", 0, 1)],
    Anomaly.DUPLICATE: [*sent(1), *acknowledged({1: 0}), polled(0, 1, 1)],
    Anomaly.INCONSISTENT_OFFSETS: [
        *sent(1, 2),
        Unknown(1),
        Unknown(2),
        polled(0, 1),
        polled(0, 2, by="other"),
    ],
    Anomaly.MISPLACED: [*sent(1, 2), *acknowledged({2: 0}), Unknown(1), polled(0, 1, 2)],
    Anomaly.ABORTED_READ: [*sent(1), Failed(1), polled(0, 1)],
    Anomaly.INVENTED: [polled(0, 99)],
    Anomaly.POLL_SKIP: [*sent(1, 2, 3), polled(0, 1), polled(2, 3), polled(0, 1, 2, 3, by="other")],
    Anomaly.INT_POLL_SKIP: [
        *sent(1, 2, 3),
        Polled("reader", "t", 0, [0, 2], [1, 3]),
        polled(0, 1, 2, 3, by="other"),
    ],
    Anomaly.NONMONOTONIC_POLL: [*sent(1, 2), polled(0, 1, 2), polled(1, 2)],
    Anomaly.INT_NONMONOTONIC_POLL: [*sent(1, 2), Polled("reader", "t", 0, [0, 1, 1], [1, 2, 2])],
    Anomaly.NONMONOTONIC_SEND: [*sent(1, 2), *acknowledged({1: 1, 2: 0}), polled(0, 2, 1)],
    Anomaly.ACKNOWLEDGED_TWICE: [*sent(1), *acknowledged({1: 0}), Failed(1)],
    Anomaly.TWO_OWNERS: [*assigned("a", 1, 0, 1), *assigned("b", 1, 1, 2)],
    Anomaly.EARLY_HANDOVER: [*assigned("a", 1, 0, 1), *assigned("b", 2, 1), *assigned("a", 2, 0)],
    Anomaly.READ_AFTER_REVOKE: [
        *sent(1, 2),
        *assigned("a", 1, 0),
        polled(0, 1, by="a"),
        revoked("a", 0),
        polled(1, 2, by="a"),
    ],
    Anomaly.FENCED_COMMIT: [*assigned("a", 1, 0), *assigned("b", 2, 0), *committed(1, "a", 1, 5)],
    Anomaly.NONMONOTONIC_COMMIT: [
        *assigned("a", 1, 0),
        *committed(1, "a", 1, 5),
        *assigned("b", 2, 0),
        *committed(2, "b", 2, 4),
    ],
    Anomaly.LOST_COMMIT: [
        *assigned("a", 1, 0),
        *committed(1, "a", 1, 5),
        *committed(2, "a", 1, 9),
        *shown(1, 5),
    ],
    Anomaly.INVENTED_COMMIT: [*assigned("a", 1, 0), *committed(1, "a", 1, 5), *shown(1, 6)],
    Anomaly.PROCESSED_AGAIN: [
        *sent(1, 2, 3),
        *assigned("a", 1, 0),
        polled(0, 1, 2, by="a"),
        *committed(1, "a", 1, 2),
        revoked("a", 0),
        *assigned("b", 2, 0),
        polled(1, 2, 3, by="b"),
    ],
    Anomaly.UNPROCESSED: [
        *sent(1, 2, 3),
        *assigned("a", 1, 0),
        polled(0, 1, by="a"),
        revoked("a", 0),
        *assigned("b", 2, 0),
        polled(2, 3, by="b"),
        polled(0, 1, 2, 3),
    ],
}


def test_a_good_history_has_no_anomaly() -> None:
    verdict = check(GOOD)
    assert verdict.is_kept
    assert not verdict.counts
    assert (verdict.sent, verdict.acknowledged, verdict.read) == (3, 3, 3)


@pytest.mark.parametrize("anomaly", list(Anomaly), ids=lambda anomaly: anomaly.value)
def test_each_anomaly_is_found(anomaly: Anomaly) -> None:
    verdict = check(ANOMALIES[anomaly])
    assert set(verdict.counts) == {anomaly}
    assert not verdict.is_kept
    assert verdict.findings[0].anomaly is anomaly


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.name)
@pytest.mark.parametrize("faults", list(Faults), ids=lambda faults: faults.value)
@pytest.mark.parametrize("anomaly", list(Anomaly), ids=lambda anomaly: anomaly.value)
def test_the_table_decides_what_breaks_a_promise(anomaly: Anomaly, mode: Mode, faults: Faults) -> None:
    history = [
        Sent(mode.name, event.topic, event.partition, event.value) if isinstance(event, Sent) else event
        for event in ANOMALIES[anomaly]
    ]
    verdict = check(history, faults=faults)
    assert verdict.counts[anomaly] > 0
    may_show = MAY_SHOW[faults][mode] | READERS_MAY_SEE[faults] | GROUPS_MAY_SHOW[faults]
    assert verdict.is_kept == (anomaly in may_show)


def test_nothing_excuses_what_was_never_written() -> None:
    for faults in Faults:
        for mode in Mode:
            assert not MAY_SHOW[faults][mode] & {Anomaly.INVENTED, Anomaly.ABORTED_READ}
        assert not GROUPS_MAY_SHOW[faults] & {Anomaly.INVENTED_COMMIT, Anomaly.UNPROCESSED}


def test_a_hole_that_nobody_ever_filled_is_no_skip() -> None:
    assert check(sent(1, 3), polled(0, 1), polled(5, 3)).is_kept


def test_a_seek_back_is_no_anomaly() -> None:
    assert check(GOOD, Positioned("reader", "t", 0, 1), polled(1, 2, 3)).is_kept


def test_a_lost_record_is_told_with_its_receipt() -> None:
    verdict = check(sent(1, by="ACKS_1"), acknowledged({1: 0}), Lost("t", 0, 0, 0), Ended("t", 0, 0))
    assert verdict.is_kept
    assert "loss receipt" in verdict.findings[0].text


def test_partitions_are_judged_apart() -> None:
    verdict = check(
        sent(1, partition=0), sent(2, partition=1), polled(0, 1, partition=0), polled(0, 2, partition=1)
    )
    assert verdict.is_kept
    wrong = check(sent(1, partition=0), polled(0, 1, partition=1))
    assert wrong.violations == {Anomaly.INVENTED: 1}


def test_an_unknown_record_may_be_there_or_not() -> None:
    assert check(sent(1, 2), Unknown(1), Unknown(2), polled(0, 2), Ended("t", 0, 1)).is_kept


def test_a_history_survives_its_file() -> None:
    groups: list[HistoryEvent] = [
        *assigned("a", 1, 0, instance="i"),
        *committed(1, "a", 1, 1),
        asks(2, "a", 1, 2),
        CommitRefused(2, [("t", 0)]),
        *shown(1, 1),
        revoked("a", 0),
        Disowned("a", "g", []),
        Finished("g", "t", 0, 1),
    ]
    assert list(from_lines(to_lines(GOOD + groups))) == GOOD + groups


# --- groups: what looks like an anomaly and is none -----------------------------------------


GROUP_GOOD: list[HistoryEvent] = [
    *sent(1, 2, 3, 4),
    *assigned("a", 1, 0),
    polled(0, 1, 2, by="a"),
    *committed(1, "a", 1, 2),
    *assigned("a", 2, 1),
    revoked("a", 0),
    *assigned("b", 2),
    *assigned("a", 3, 1),
    *assigned("b", 3, 0),
    *shown(1, 2),
    polled(2, 3, 4, by="b"),
    *committed(2, "b", 3, 4),
    Finished("g", "t", 0, 4),
]


def test_a_good_handover_has_no_anomaly() -> None:
    verdict = check(GROUP_GOOD)
    assert not verdict.counts
    assert (verdict.generations, verdict.commits) == (3, 2)


def test_an_early_handover_is_found_though_the_taker_has_joined_anew() -> None:
    """Seed 3017 of "groups wild": the owner of that generation was nobody's name any more."""
    early = [
        *assigned("a", 1, 0, 1),
        *assigned("b", 2, 1),
        Joined("b", "g", "b anew", 2),
        *assigned("a", 2, 0),
    ]
    assert check(early).violations == {Anomaly.EARLY_HANDOVER: 1}


def test_an_early_handover_is_found_whoever_hears_of_it_first() -> None:
    early = [*assigned("a", 1, 0, 1), *assigned("a", 2, 0), *assigned("b", 2, 1), revoked("a", 1)]
    assert check(early).violations == {Anomaly.EARLY_HANDOVER: 1}


def test_a_member_that_missed_a_generation_may_still_think_that_it_owns() -> None:
    """It was paused: what it processed and could not commit is processed again, by who came next."""
    verdict = check(
        sent(1, 2, 3),
        assigned("a", 1, 0),
        polled(0, 1, by="a"),
        assigned("b", 2, 0),
        polled(0, 1, 2, by="b"),
        committed(1, "b", 2, 2),
        polled(1, 2, by="a"),
        asks(2, "a", 1, 2),
        CommitRefused(2, [("t", 0)]),
        Disowned("a", "g", [("t", 0)]),
        assigned("a", 3),
        assigned("b", 3, 0),
        polled(2, 3, by="b"),
        Finished("g", "t", 0, 3),
    )
    assert not verdict.counts


def test_what_is_taken_over_without_a_word_is_lost_with_the_old_membership() -> None:
    assert not check(
        assigned("a", 1, 0), Disowned("a", "g", [("t", 0)]), assigned("a", 2), assigned("b", 2, 0)
    ).counts


def test_a_static_member_that_was_started_again_owns_what_its_predecessor_owned() -> None:
    history = [*assigned("a", 1, 0, member="i-1", instance="i"), *assigned("b", 1, 1)]
    again = assigned("a2", 1, 0, member="i-2", instance="i")
    assert not check(history, again, asks(1, "a", 1, 5, member="i-1"), CommitRefused(1, [("t", 0)])).counts
    late = check(history, again, asks(1, "a", 1, 5, member="i-1"), accepted(1))
    assert late.violations == {Anomaly.FENCED_COMMIT: 1}
    assert not check(history, asks(1, "a", 1, 5, member="i-1"), again, accepted(1)).counts


def test_a_commit_that_was_under_way_when_the_generation_ended_may_have_come_first() -> None:
    history = [*assigned("a", 1, 0), asks(1, "a", 1, 5), *assigned("b", 2, 0), accepted(1)]
    assert not check(history).counts
    assert not check(history, shown(1, 5)).counts
    assert check(history, shown(1, -1)).violations == {Anomaly.LOST_COMMIT: 1}


def test_of_commits_at_the_same_time_either_may_be_the_last() -> None:
    both = [*assigned("a", 1, 0), asks(1, "a", 1, 5), asks(2, "a", 1, 7), accepted(2), accepted(1)]
    assert not check(both, shown(1, 5), shown(2, 7)).counts
    assert check(both, committed(3, "a", 1, 8), shown(1, 7)).violations == {Anomaly.LOST_COMMIT: 1}


def test_a_commit_without_an_answer_may_take_effect_until_the_next_generation() -> None:
    unanswered = [*assigned("a", 1, 0), asks(1, "a", 1, 5), *committed(2, "a", 1, 7)]
    assert not check(unanswered, shown(1, 5), shown(2, 7)).counts
    over = [*unanswered, revoked("a", 0), *assigned("b", 2, 0)]
    assert not check(over, shown(1, 5)).counts
    assert check(over, committed(3, "b", 2, 8), shown(1, 5)).violations == {Anomaly.LOST_COMMIT: 1}


def test_what_is_committed_while_somebody_asks_may_be_shown_or_not() -> None:
    for offset in (5, 9):
        assert not check(
            assigned("a", 1, 0),
            committed(1, "a", 1, 5),
            CommittedAsked(1, "g", [("t", 0)]),
            committed(2, "a", 1, 9),
            CommittedRead(1, [("t", 0, offset)]),
        ).counts


def test_a_member_that_seeks_back_commits_less_and_processes_again() -> None:
    assert not check(
        sent(1, 2),
        assigned("a", 1, 0),
        polled(0, 1, 2, by="a"),
        committed(1, "a", 1, 2),
        Positioned("a", "t", 0, 0),
        polled(0, 1, by="a"),
        committed(2, "a", 1, 1),
        revoked("a", 0),
        assigned("b", 2, 0),
        polled(1, 2, by="b"),
    ).counts


def test_what_was_handed_out_and_not_committed_is_processed_again() -> None:
    history = [*sent(1, 2, 3), *assigned("a", 1, 0), polled(0, 1, 2, by="a"), *committed(1, "a", 1, 1)]
    assert not check(history, assigned("b", 2, 0), polled(1, 2, 3, by="b")).counts


def test_a_record_at_the_end_that_nobody_processed_is_missed_only_when_the_group_is_done() -> None:
    history = [*sent(1, 2), *assigned("a", 1, 0), polled(0, 1, by="a"), polled(0, 1, 2)]
    assert not check(history).counts
    assert not check(history, Finished("g", "t", 0, 1)).counts
    assert check(history, Finished("g", "t", 0, 2)).violations == {Anomaly.UNPROCESSED: 1}


def test_a_hole_that_another_member_fills_is_none() -> None:
    history = [*sent(1, 2, 3, 4), *assigned("a", 1, 0), polled(0, 1, by="a"), *assigned("b", 2, 0)]
    holes = [polled(3, 4, by="b"), polled(0, 1, 2, 3, 4)]
    assert not check(history, holes, polled(1, 2, 3, by="a")).counts
    half = check(history, holes, polled(1, 2, by="a"))
    assert half.violations == {Anomaly.UNPROCESSED: 1}
    assert "1 records from 2 to 2" in half.findings[0].text
