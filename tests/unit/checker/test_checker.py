"""Each anomaly in a history of its own: the checker finds it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kafkalite.checker.checker import Checker, Verdict
from kafkalite.checker.history import (
    Acknowledged,
    Ended,
    Failed,
    HistoryEvent,
    Lost,
    Polled,
    Positioned,
    Sent,
    Unknown,
    from_lines,
    to_lines,
)
from kafkalite.checker.promise import MAY_SHOW, READERS_MAY_SEE, Anomaly, Faults, Mode

MODES = {mode.name: mode for mode in Mode}


def sent(*values: int, by: str = "IDEMPOTENT", partition: int = 0) -> list[HistoryEvent]:
    return [Sent(by, "t", partition, value) for value in values]


def acknowledged(places: dict[int, int]) -> list[HistoryEvent]:
    return [Acknowledged(value, offset) for value, offset in places.items()]


def polled(first: int, *values: int, by: str = "reader", partition: int = 0) -> HistoryEvent:
    return Polled(by, "t", partition, list(range(first, first + len(values))), list(values))


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
    may_show = MAY_SHOW[faults][mode] | READERS_MAY_SEE[faults]
    assert verdict.is_kept == (anomaly in may_show)


def test_nothing_excuses_what_was_never_written() -> None:
    for faults in Faults:
        for mode in Mode:
            assert not MAY_SHOW[faults][mode] & {Anomaly.INVENTED, Anomaly.ABORTED_READ}


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
    assert list(from_lines(to_lines(GOOD))) == GOOD
