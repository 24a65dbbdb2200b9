"""The pure parts of kafka-consumer-groups: what it reads, and Kafka's tables."""

from __future__ import annotations

import msgspec
import pytest

from kafkalite.cli.consumer_groups import (
    Lag,
    clamped,
    lag_lines,
    member_lines,
    parse_datetime_ms,
    parse_duration_ms,
    parse_plan,
    parse_states,
    parse_topics,
    plan_text,
    state_lines,
)
from kafkalite.client.group.admin import GroupDescription, MemberDescription
from kafkalite.client.metadata import Node
from kafkalite.common import TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
MEMBER = MemberDescription("c-1", None, "c", "/10.0.0.1", (T0, T1, TopicPartition("u", 2)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("P1D", 86_400_000), ("PT1H30M", 5_400_000), ("PT0.5S", 500), ("P0DT0H0M10S", 10_000), ("-PT1S", -1000)],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration_ms(text) == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "1D", "P1DT", "P1M", "PT1D"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="PnDTnHnMnS"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01.500", 1500),
        ("1970-01-01T01:00:00.000+01:00", 0),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:01", 60_000),
    ],
)
def test_datetimes(text: str, expected: int) -> None:
    assert parse_datetime_ms(text) == expected


@pytest.mark.parametrize("text", ["yesterday", "1970-01-01", "1970-13-01T00:00:00.000"])
def test_bad_datetimes(text: str) -> None:
    with pytest.raises(ValueError, match=r"form|month"):
        parse_datetime_ms(text)


def test_topics() -> None:
    assert parse_topics(["t", "u:0,2"]) == {"t": None, "u": [0, 2]}
    for bad in ("t:", "t:x", ":1", "t:1,"):
        with pytest.raises(ValueError, match="--topic"):
            parse_topics([bad])


def test_plans_are_read_as_they_are_printed() -> None:
    one = {"g": {T0: 3, T1: 4}}
    assert plan_text(one, with_groups=False) == "t,0,3\nt,1,4\n"
    assert parse_plan(plan_text(one, with_groups=False), ["g"]) == one
    two = {"g": {T0: 3}, "h": {T1: 4}}
    assert plan_text(two, with_groups=True) == "g,t,0,3\nh,t,1,4\n"
    assert parse_plan(plan_text(two, with_groups=True), ["g", "h"]) == two
    assert plan_text(one, with_groups=True) == "g,t,0,3\ng,t,1,4\n"  # Of several, one had offsets.
    with pytest.raises(ValueError, match="line 2"):
        parse_plan("t,0,3\nt,0\n", ["g"])


def test_offsets_are_moved_into_the_log() -> None:
    found, warnings = clamped({T0: 1, T1: 99}, {T0: 5, T1: 0}, {T0: 10, T1: 20})
    assert found == {T0: 5, T1: 20}
    assert [warning.split(" for")[0] for warning in warnings] == [
        "New offset (1) is lower than earliest offset",
        "New offset (99) is higher than latest offset",
    ]


def test_tables() -> None:
    lags = [
        Lag("g", T0, 3, 10, None, MEMBER),
        Lag("g", T1, None, None, None, None),
        Lag("g", T0, 9, 7, 0, None),
    ]
    lines = lag_lines(lags)
    assert lines[0] == (
        "GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             "
        "CONSUMER-ID     HOST            CLIENT-ID"
    )
    assert [line.split()[3:] for line in lines[1:]] == [
        ["3", "10", "7", "c-1", "/10.0.0.1", "c"],
        ["-", "-", "-", "-", "-", "-"],
        ["9", "7", "0", "-", "-", "-"],  # Never negative.
    ]
    assert lag_lines(lags, with_time=True)[3].endswith("0.0")
    group = GroupDescription("g", "Stable", "consumer", "range", (MEMBER,), Node(1, "h", 9))
    assert member_lines(group, verbose=True)[1].split(maxsplit=5)[-1] == "t(0,1), u(2)"
    assert member_lines(group, verbose=False)[0].split() == [
        *("GROUP", "CONSUMER-ID", "HOST", "CLIENT-ID", "#PARTITIONS")
    ]
    assert state_lines(group)[1].split() == ["g", "h:9", "(1)", "range", "Stable", "1"]


def test_a_column_holds_its_header_too() -> None:
    static = msgspec.structs.replace(MEMBER, group_instance_id="i")
    group = GroupDescription("g", "Stable", "consumer", "range", (MEMBER, static), Node(1, "h", 9))
    header, *rows = member_lines(group, verbose=False)
    for row, instance in zip(rows, ("-", "i"), strict=True):
        assert row[header.index("GROUP-INSTANCE-ID") :].split()[0] == instance
        assert row.index("/10.0.0.1") == header.index("HOST")


def test_states() -> None:
    assert parse_states("") == []
    assert parse_states("stable, Empty,PREPARINGREBALANCE") == ["Stable", "Empty", "PreparingRebalance"]
    with pytest.raises(ValueError, match=r"Invalid state list 'Stable,bogus'\. Valid states are: Preparing"):
        parse_states("Stable,bogus")
