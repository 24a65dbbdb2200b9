"""`kafka-get-offsets`: the offsets of partitions at a point in time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from kafkalite.cli.client_options import (
    ADMIN_PROPERTIES,
    bootstrap_option,
    bootstrap_servers,
    client_arguments,
    output_option,
    read_properties,
    refused,
    run,
)
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.client.admin import AdminClient, OffsetSpec, TopicDescription
from kafkalite.common import TopicPartition

TIMES: Final = {
    "latest": OffsetSpec.LATEST,
    "earliest": OffsetSpec.EARLIEST,
    "max-timestamp": OffsetSpec.MAX_TIMESTAMP,
}
TIERED: Final = ("earliest-local", "latest-tiered", "-4", "-5")


@click.command("kafka-get-offsets")
@bootstrap_option
@click.option("--topic", "topic", help="A regular expression of names; else all topics.")
@click.option("--topic-partitions", metavar="t:0,u:1-3", help="Patterns of topics with their partitions.")
@click.option("--partitions", metavar="0,1,2", help="Only these partitions of --topic.")
@click.option(
    "--time",
    "time_text",
    default="latest",
    show_default=True,
    help="latest (-1), earliest (-2), max-timestamp (-3), or milliseconds since the epoch.",
)
@click.option("--exclude-internal-topics", is_flag=True, help="Leave out topics like __consumer_offsets.")
@click.option(
    "--command-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Client properties.",
)
@refused("--offsets", "--max-wait-ms", because="Kafka removed it; there is no older tool behind this one")
@output_option
def get_offsets(
    bootstrap: str | None,
    topic: str | None,
    topic_partitions: str | None,
    partitions: str | None,
    time_text: str,
    exclude_internal_topics: bool,
    command_config: Path | None,
    output: str,
) -> None:
    """Print `topic:partition:offset` lines.

    \b
    kafka-get-offsets --bootstrap-server localhost:9092 --topic t
    kafka-get-offsets --bootstrap-server localhost:9092 --topic-partitions t:0,u:1-3 --time earliest
    """
    if topic_partitions is not None and (topic is not None or partitions is not None):
        raise click.UsageError("--topic-partitions cannot be used with --topic or --partitions")
    try:
        rules = (
            parse_topic_partitions(topic_partitions)
            if topic_partitions is not None
            else [(re.compile(topic if topic is not None else ".*"), parse_ranges(partitions or ""))]
        )
        timestamp = parse_time(time_text)
    except (ValueError, re.error) as error:
        raise click.UsageError(str(error)) from error
    properties = read_properties(command_config)
    arguments = {
        **client_arguments(properties, ADMIN_PROPERTIES),
        "bootstrap_servers": bootstrap_servers(bootstrap, properties),
    }
    found = run(_offsets(arguments, rules, timestamp, exclude_internal_topics), prefix="Error occurred: ")
    if output == "json":
        rows = [
            {"topic": tp.topic, "partition": tp.partition, "offset": offset} for tp, offset in found.items()
        ]
        click.echo(msgspec.json.format(msgspec.json.encode({"offsets": rows}), indent=2).decode())
    else:
        for (name, partition), offset in found.items():
            click.echo(f"{name}:{partition}:{offset}")


def parse_time(text: str) -> int:
    """What `--time` stands for. Raises ValueError."""
    if text in TIERED:
        raise ValueError(f"--time {text}: there is no tiered storage")
    if text in TIMES:
        return TIMES[text]
    try:
        number = int(text)
    except ValueError:
        number = -100
    if number < OffsetSpec.MAX_TIMESTAMP:
        raise ValueError(f"--time {text}: must be latest, earliest, max-timestamp or milliseconds")
    return number


def parse_ranges(text: str) -> list[range]:
    """`0,2,4-6` (a range's end excluded, as Kafka has it), `3-` and `-3`; empty: everything."""
    ranges = []
    for part in text.split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        try:
            start = int(first) if first else 0
            stop = (int(last) if last else 2**31) if dash else start + 1
        except ValueError:
            raise ValueError(f"{part!r} is neither a partition nor a range of them") from None
        if not dash and not first:
            raise ValueError(f"{part!r} is neither a partition nor a range of them")
        ranges.append(range(start, stop))
    return ranges


def parse_topic_partitions(text: str) -> list[tuple[re.Pattern[str], list[range]]]:
    """`t:0,u:1-3,v`: patterns of topics, each with a partition, a range or nothing. Raises ValueError."""
    rules = []
    for part in text.split(","):
        name, _, partitions = part.strip().partition(":")
        rules.append((re.compile(name or ".*"), parse_ranges(partitions)))
    return rules


def wanted(
    topics: list[TopicDescription], rules: list[tuple[re.Pattern[str], list[range]]]
) -> list[TopicPartition]:
    """The partitions that a rule names, in order."""
    return [
        TopicPartition(topic.name, p.partition)
        for topic in topics
        for p in topic.partitions
        if any(
            name.fullmatch(topic.name) and (not ranges or any(p.partition in r for r in ranges))
            for name, ranges in rules
        )
    ]


async def _offsets(
    arguments: dict[str, Any],
    rules: list[tuple[re.Pattern[str], list[range]]],
    timestamp: int,
    exclude_internal: bool,
) -> dict[TopicPartition, int]:
    async with AdminClient(**arguments) as admin:
        topics = [t for t in await admin.describe_topics() if not (exclude_internal and t.is_internal)]
        partitions = wanted(topics, rules)
        if not partitions:
            raise Failed(
                "Error occurred: Could not match any topic-partitions with the specified filters",
                ExitCode.NOT_FOUND,
            )
        # A partition without a leader cannot be asked; it is named, and the others answer.
        leaders = {TopicPartition(t.name, p.partition): p.leader for t in topics for p in t.partitions}
        for partition in partitions:
            if leaders[partition] < 0:
                click.echo(f"Skip getting offsets for topic-partition {partition} due to no leader", err=True)
        found = await admin.list_offsets({tp: timestamp for tp in partitions if leaders[tp] >= 0})
    return {tp: found[tp].offset for tp in partitions if tp in found and found[tp].offset >= 0}
