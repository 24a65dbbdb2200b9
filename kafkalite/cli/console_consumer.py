"""`kafka-console-consumer`: records become lines of stdout, byte for byte."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from kafkalite.cli.client_options import (
    COMMON_PROPERTIES,
    Properties,
    boolean,
    bootstrap_option,
    bootstrap_servers,
    client_arguments,
    read_properties,
    refused,
    run,
)
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.client.admin import AdminClient
from kafkalite.client.assignors import assignor
from kafkalite.client.consumer import Consumer
from kafkalite.client.records import LOG_APPEND_TIME, ConsumerRecord
from kafkalite.common import TopicPartition


def _assignors(text: str) -> list[str]:
    """Names, or Kafka's class names. Raises ValueError for one that there is not."""
    names = [name.strip().rpartition(".")[2] for name in text.split(",")]
    return [assignor(_ASSIGNOR_CLASSES.get(name, name)).name for name in names]


_ASSIGNOR_CLASSES: Final = {
    "RangeAssignor": "range",
    "RoundRobinAssignor": "roundrobin",
    "StickyAssignor": "sticky",
    "CooperativeStickyAssignor": "cooperative-sticky",
}

CONSUMER_PROPERTIES: Final[Properties] = {
    **COMMON_PROPERTIES,
    "auto.offset.reset": ("auto_offset_reset", str),
    "isolation.level": ("isolation_level", str),
    "fetch.min.bytes": ("fetch_min_bytes", int),
    "fetch.max.bytes": ("fetch_max_bytes", int),
    "fetch.max.wait.ms": ("fetch_max_wait_ms", int),
    "max.partition.fetch.bytes": ("max_partition_fetch_bytes", int),
    "check.crcs": ("check_crcs", boolean),
    "group.id": ("group_id", str),
    "group.instance.id": ("group_instance_id", str),
    "client.rack": ("client_rack", str),
    "enable.auto.commit": ("enable_auto_commit", boolean),
    "auto.commit.interval.ms": ("auto_commit_interval_ms", int),
    "session.timeout.ms": ("session_timeout_ms", int),
    "heartbeat.interval.ms": ("heartbeat_interval_ms", int),
    "max.poll.interval.ms": ("max_poll_interval_ms", int),
    "partition.assignment.strategy": ("partition_assignment_strategy", _assignors),
}

TOPIC_PATIENCE_S: Final = 5.0
"""How long a topic may take to appear: it may have been created a moment ago."""
_IDLE_MS: Final = 500
"""How long one wait for records lasts where no limit is near."""

_NUMBERS: Final = {"Long": ">q", "Integer": ">i", "Short": ">h", "Double": ">d", "Float": ">f"}


class BadRecord(Exception):
    """A deserialiser cannot make anything of a record."""


def _as_is(data: bytes) -> bytes:
    return data


def deserializer(name: str) -> Callable[[bytes], bytes]:
    """What turns stored bytes into text, by the name of Kafka's class. Raises click.UsageError."""
    short = name.rpartition(".")[2].removesuffix("Deserializer")
    if short in ("String", "ByteArray", "Bytes"):
        return _as_is
    if short not in _NUMBERS:
        raise click.UsageError(
            f"deserializer {name}: there are String, ByteArray, {', '.join(_NUMBERS)} (Kafka's class names)"
        )
    layout = struct.Struct(_NUMBERS[short])

    def number(data: bytes) -> bytes:
        if len(data) != layout.size:
            raise BadRecord(f"Size of data received by {short}Deserializer is not {layout.size}")
        return str(layout.unpack(data)[0]).encode()

    return number


class Formatter(msgspec.Struct, frozen=True):
    """How records become lines: the properties of Kafka's DefaultMessageFormatter. Pure."""

    print_timestamp: bool = False
    print_key: bool = False
    print_offset: bool = False
    print_partition: bool = False
    print_headers: bool = False
    print_value: bool = True
    key_separator: bytes = b"\t"
    line_separator: bytes = b"\n"
    headers_separator: bytes = b","
    null_literal: bytes = b"null"
    key_deserializer: Callable[[bytes], bytes] = _as_is
    value_deserializer: Callable[[bytes], bytes] = _as_is
    headers_deserializer: Callable[[bytes], bytes] = _as_is

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> Formatter:
        """Raises click.UsageError for a property that there is not."""
        arguments: dict[str, Any] = {}
        for name, text in properties.items():
            field = name.replace(".", "_")
            if field not in cls.__struct_fields__:
                raise click.UsageError(f"--property {name}: there is no such property")
            if field.startswith("print_"):
                try:
                    arguments[field] = boolean(text)
                except ValueError as error:
                    raise click.UsageError(f"--property {name}={text}: {error}") from error
            elif field.endswith("_deserializer"):
                arguments[field] = deserializer(text)
            else:
                arguments[field] = os.fsencode(text)
        return cls(**arguments)

    def line(self, record: ConsumerRecord) -> bytes:
        """One record as it is written to stdout. Raises BadRecord."""
        parts = []
        if self.print_timestamp:
            kind = "LogAppendTime" if record.timestamp_type == LOG_APPEND_TIME else "CreateTime"
            parts.append(f"{kind}:{record.timestamp}".encode() if record.timestamp >= 0 else b"NO_TIMESTAMP")
        if self.print_partition:
            parts.append(b"Partition:%d" % record.partition)
        if self.print_offset:
            parts.append(b"Offset:%d" % record.offset)
        if self.print_headers:
            parts.append(
                self.headers_separator.join(
                    name.encode() + b":" + self._text(value, self.headers_deserializer)
                    for name, value in record.headers
                )
                or b"NO_HEADERS"
            )
        if self.print_key:
            parts.append(self._text(record.key, self.key_deserializer))
        if self.print_value:
            parts.append(self._text(record.value, self.value_deserializer))
        return self.key_separator.join(parts) + self.line_separator

    def _text(self, data: bytes | None, convert: Callable[[bytes], bytes]) -> bytes:
        return self.null_literal if data is None else convert(data)


class Plan(msgspec.Struct, frozen=True):
    """What to read, from where, and when to stop."""

    topic: str | None
    include: str | None
    partition: int | None
    offset: str | None
    """earliest, latest or a number; only with a partition."""
    max_messages: int | None
    timeout_ms: int | None
    skip_on_error: bool


@click.command("kafka-console-consumer")
@bootstrap_option
@click.option("--topic")
@click.option("--include", "--whitelist", "include", metavar="REGEX", help="Read all topics of such names.")
@click.option("--partition", type=click.IntRange(0), help="Read this partition only.")
@click.option("--offset", help="With --partition: earliest, latest or a number (latest).")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest record, not with the next one.")
@click.option("--max-messages", type=click.IntRange(0), help="Stop after so many.")
@click.option("--timeout-ms", type=click.IntRange(0), help="Stop when none has come for so long.")
@click.option("--skip-message-on-error", is_flag=True, help="Go on after a record that cannot be printed.")
@click.option(
    "--isolation-level", type=click.Choice(["read_uncommitted", "read_committed"]), help="read_uncommitted."
)
@click.option("--key-deserializer", help="Kafka's class name, such as …StringDeserializer.")
@click.option("--value-deserializer", help="Likewise.")
@click.option("--consumer-property", multiple=True, metavar="K=V", help="A property of the consumer.")
@click.option(
    "--consumer.config",
    "--command-config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of such properties; --consumer-property counts before it.",
)
@click.option(
    "--property",
    "--formatter-property",
    "formatter_properties",
    multiple=True,
    metavar="K=V",
    help="print.timestamp, print.key, print.offset, print.partition, print.headers, print.value, "
    "key.separator, line.separator, headers.separator, null.literal, {key,value,headers}.deserializer.",
)
@click.option(
    "--group", metavar="ID", help="Read as a member of this group; without it, all partitions are read."
)
@refused(
    "--formatter",
    "--formatter-config",
    because="formatters are Java classes in Kafka; here is only the default one",
)
@refused("--enable-systest-events", because="not in this version of kafkalite", takes_value=False)
def console_consumer(
    bootstrap: str | None,
    topic: str | None,
    include: str | None,
    partition: int | None,
    offset: str | None,
    from_beginning: bool,
    max_messages: int | None,
    timeout_ms: int | None,
    skip_message_on_error: bool,
    isolation_level: str | None,
    key_deserializer: str | None,
    value_deserializer: str | None,
    consumer_property: tuple[str, ...],
    config_file: Path | None,
    formatter_properties: tuple[str, ...],
    group: str | None,
) -> None:
    """Print records as they come, until interrupted.

    \b
    kafka-console-consumer --bootstrap-server localhost:9092 --topic t --from-beginning
    kafka-console-consumer --topic t --partition 0 --offset 5 --max-messages 1 --property print.key=true
    """
    if (topic is None) == (include is None):
        raise click.UsageError("Exactly one of --topic and --include is required")
    if partition is not None and topic is None:
        raise click.UsageError("The topic is required when partition is specified")
    if offset is not None and partition is None:
        raise click.UsageError("The partition is required when offset is specified")
    if offset is not None and from_beginning:
        raise click.UsageError("--from-beginning and --offset cannot be specified together")
    if offset not in (None, "earliest", "latest") and not (offset or "").isdigit():
        raise click.UsageError(f"--offset {offset}: must be earliest, latest or a number from 0 on")
    formatting = read_properties(None, formatter_properties)
    if key_deserializer is not None:
        formatting["key.deserializer"] = key_deserializer
    if value_deserializer is not None:
        formatting["value.deserializer"] = value_deserializer
    formatter = Formatter.from_properties(formatting)
    properties = read_properties(config_file, consumer_property)
    arguments: dict[str, Any] = {
        "client_id": "console-consumer",
        "auto_offset_reset": "latest",
        **client_arguments(properties, CONSUMER_PROPERTIES),
        "bootstrap_servers": bootstrap_servers(bootstrap, properties),
    }
    if from_beginning:
        arguments["auto_offset_reset"] = "earliest"
    if isolation_level is not None:
        arguments["isolation_level"] = isolation_level
    if group is not None:
        if arguments.get("group_id", group) != group:
            raise click.UsageError(
                "The group ids provided by --group and by the property group.id are different"
            )
        arguments["group_id"] = group
    if partition is not None and "group_id" in arguments:
        raise click.UsageError("Options group and partition cannot be specified together.")
    plan = Plan(topic, include, partition, offset, max_messages, timeout_ms, skip_message_on_error)
    run(_consume(arguments, plan, formatter))


async def _consume(arguments: dict[str, Any], plan: Plan, formatter: Formatter) -> None:
    count = 0
    try:
        if plan.topic is not None:
            await _check_topic(arguments["bootstrap_servers"], plan.topic, plan.partition)
        async with Consumer(**arguments) as consumer:
            await _choose(consumer, plan)
            loop = asyncio.get_running_loop()
            last = loop.time()
            while plan.max_messages is None or count < plan.max_messages:
                wait_ms = _IDLE_MS
                if plan.timeout_ms is not None:
                    wait_ms = min(wait_ms, plan.timeout_ms - int((loop.time() - last) * 1000))
                    if wait_ms < 0:
                        break
                room = None if plan.max_messages is None else plan.max_messages - count
                found = await consumer.getmany(timeout_ms=wait_ms, max_records=room)
                for records in found.values():
                    count += _print(records, plan, formatter)
                if found:
                    last = loop.time()
                    sys.stdout.buffer.flush()
    finally:
        click.echo(f"Processed a total of {count} messages", err=True)


def _print(records: Sequence[ConsumerRecord], plan: Plan, formatter: Formatter) -> int:
    """Write records; return how many. A record that cannot be printed ends the command, or is skipped."""
    lines = []
    for record in records:
        try:
            lines.append(formatter.line(record))
        except BadRecord as error:
            if not plan.skip_on_error:
                sys.stdout.buffer.writelines(lines)
                raise Failed(
                    f"{TopicPartition(record.topic, record.partition)} offset {record.offset}: {error}"
                ) from error
            click.echo(f"skipped offset {record.offset}: {error}", err=True)
    sys.stdout.buffer.writelines(lines)
    return len(records)


async def _choose(consumer: Consumer, plan: Plan) -> None:
    """Tell the consumer what to read, and from where."""
    if plan.topic is None:
        consumer.subscribe(pattern=plan.include)
        return
    if plan.partition is None:
        consumer.subscribe([plan.topic])
        return
    partition = TopicPartition(plan.topic, plan.partition)
    consumer.assign([partition])
    if plan.offset == "earliest":
        await consumer.seek_to_beginning(partition)
    elif plan.offset == "latest":
        await consumer.seek_to_end(partition)
    elif plan.offset is not None:
        consumer.seek(partition, int(plan.offset))


async def _check_topic(bootstrap: str, topic: str, partition: int | None) -> None:
    """Wait a little for ``topic``; end the command where it, or the partition, does not exist."""
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TOPIC_PATIENCE_S
        while topic not in await admin.list_topics():
            if loop.time() > deadline:
                raise Failed(f"topic {topic!r} does not exist", ExitCode.NOT_FOUND)
            await asyncio.sleep(0.1)
        if partition is not None:
            [description] = await admin.describe_topics([topic])
            if partition >= len(description.partitions):
                raise Failed(
                    f"topic {topic!r} has no partition {partition}: it has {len(description.partitions)}",
                    ExitCode.NOT_FOUND,
                )
