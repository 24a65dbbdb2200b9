"""Lines into records and records into lines: nothing is lost on the way, and Kafka's properties hold."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafkalite.cli.console_consumer import BadRecord, Formatter
from kafkalite.cli.console_producer import BadLine, Line, LineReader, LineSplitter
from kafkalite.client.records import CREATE_TIME, LOG_APPEND_TIME, ConsumerRecord


def record(
    value: bytes | None = b"v",
    key: bytes | None = b"k",
    headers: tuple[tuple[str, bytes | None], ...] = (),
    timestamp: int = 1_700_000_000_000,
    timestamp_type: int = CREATE_TIME,
) -> ConsumerRecord:
    return ConsumerRecord(
        topic="t",
        partition=0,
        offset=5,
        timestamp=timestamp,
        timestamp_type=timestamp_type,
        key=key,
        value=value,
        headers=headers,
    )


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"x", b"\n"))))
def test_lines_do_not_depend_on_how_the_bytes_arrive(chunks: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)] + list(splitter.end())
    content = b"".join(chunks)
    expected = content.split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


def test_carriage_returns_and_zeros_stay() -> None:
    assert list(LineSplitter().feed(b"a\r\n\0\n\n")) == [b"a\r", b"\0", b""]


def test_a_line_is_the_value_by_default() -> None:
    assert LineReader().parse(b"k\tv", 1) == Line(None, b"k\tv", None)


@pytest.mark.parametrize(
    ("properties", "line", "expected"),
    [
        ({"parse.key": "true"}, b"k\tv\tw", Line(b"k", b"v\tw", None)),
        ({"parse.key": "true", "key.separator": ":"}, b"k:v", Line(b"k", b"v", None)),
        ({"parse.key": "true", "ignore.error": "true"}, b"kv", Line(None, b"kv", None)),
        (
            {"parse.headers": "true", "parse.key": "true"},
            b"a:1,b:2\tk\tv",
            Line(b"k", b"v", [("a", b"1"), ("b", b"2")]),
        ),
        ({"null.marker": "NULL", "parse.key": "true"}, b"NULL\tNULL", Line(None, None, None)),
        ({"parse.headers": "true", "null.marker": "N"}, b"N\tv", Line(None, b"v", None)),
        ({"parse.headers": "true", "null.marker": "N"}, b"a:N\tv", Line(None, b"v", [("a", None)])),
    ],
)
def test_reader_properties(properties: dict[str, str], line: bytes, expected: Line) -> None:
    assert LineReader.from_properties(properties).parse(line, 1) == expected


@pytest.mark.parametrize(
    ("properties", "line", "complaint"),
    [
        ({"parse.key": "true"}, b"kv", "No key separator found on line number 7: 'kv'"),
        ({"parse.headers": "true"}, b"kv", "No headers delimiter found on line number 7"),
        ({"parse.headers": "true"}, b"kv\tx", "No header key separator found in pair 'kv' on line number 7"),
    ],
)
def test_a_missing_separator_is_named_with_its_line(
    properties: dict[str, str], line: bytes, complaint: str
) -> None:
    with pytest.raises(BadLine, match=complaint):
        LineReader.from_properties(properties).parse(line, 7)


@pytest.mark.parametrize("properties", [{"parse.keys": "true"}, {"parse.key": "yes"}, {"key.separator": ""}])
def test_reader_properties_that_there_are_not(properties: dict[str, str]) -> None:
    with pytest.raises(click.UsageError):
        LineReader.from_properties(properties)


@pytest.mark.parametrize(
    ("properties", "line"),
    [
        ({}, b"v\n"),
        ({"print.key": "true"}, b"k\tv\n"),
        ({"print.key": "true", "key.separator": "="}, b"k=v\n"),
        ({"print.value": "false", "print.offset": "true"}, b"Offset:5\n"),
        (
            {f"print.{what}": "true" for what in ("key", "offset", "partition", "timestamp", "headers")},
            b"CreateTime:1700000000000\tPartition:0\tOffset:5\tNO_HEADERS\tk\tv\n",
        ),
        ({"line.separator": ""}, b"v"),
    ],
)
def test_formatter_properties(properties: dict[str, str], line: bytes) -> None:
    assert Formatter.from_properties(properties).line(record()) == line


def test_nulls_headers_and_append_time() -> None:
    formatter = Formatter.from_properties(
        {"print.key": "true", "print.headers": "true", "print.timestamp": "true", "null.literal": "-"}
    )
    line = formatter.line(
        record(None, None, (("a", b"1"), ("b", None)), timestamp=7, timestamp_type=LOG_APPEND_TIME)
    )
    assert line == b"LogAppendTime:7\ta:1,b:-\t-\t-\n"
    assert formatter.line(record(timestamp=-1)).startswith(b"NO_TIMESTAMP\t")


def test_deserializers_of_numbers() -> None:
    formatter = Formatter.from_properties(
        {"value.deserializer": "org.apache.kafka.common.serialization.LongDeserializer"}
    )
    assert formatter.line(record((258).to_bytes(8, "big"))) == b"258\n"
    with pytest.raises(BadRecord, match="LongDeserializer is not 8"):
        formatter.line(record(b"short"))


@pytest.mark.parametrize(
    "properties", [{"print.keys": "true"}, {"print.key": "1"}, {"key.deserializer": "Avro"}]
)
def test_formatter_properties_that_there_are_not(properties: dict[str, str]) -> None:
    with pytest.raises(click.UsageError):
        Formatter.from_properties(properties)
