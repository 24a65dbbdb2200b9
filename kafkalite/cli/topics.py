"""`kafka-topics`, and `kafkalite topics`, which says a little more."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from kafkalite.cli import topic_text
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
from kafkalite.cli.topic_text import Filters, PartitionView, TopicView
from kafkalite.client.admin import (
    AdminClient,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    NewTopic,
    TopicDescription,
)
from kafkalite.client.errors import BrokerError
from kafkalite.protocol.errors import ErrorCode

PREFIX = "Error while executing topic command : "
ACTIONS = ("create", "list", "describe")


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Kafka's flags, shared by the two commands."""
    flags: list[tuple[str, dict[str, Any]]] = [
        ("--create", {"is_flag": True, "help": "Create a topic."}),
        ("--list", {"is_flag": True, "help": "Print the names of topics."}),
        ("--describe", {"is_flag": True, "help": "Print partitions, leaders, replicas and ISR."}),
        ("--topic", {"help": "A name; for --list and --describe a regular expression."}),
        ("--partitions", {"type": click.IntRange(1), "help": "How many; else the broker's num.partitions."}),
        ("--replication-factor", {"type": click.IntRange(1), "help": "Else default.replication.factor."}),
        ("--replica-assignment", {"metavar": "1:2,2:3", "help": "Replicas of each partition, by hand."}),
        ("--config", {"multiple": True, "metavar": "K=V", "help": "A config of the topic."}),
        ("--if-not-exists", {"is_flag": True, "help": "No error where the topic exists."}),
        ("--if-exists", {"is_flag": True, "help": "No error where the topic does not exist."}),
        ("--exclude-internal", {"is_flag": True, "help": "Leave out topics like __consumer_offsets."}),
        ("--under-replicated-partitions", {"is_flag": True, "help": "Only partitions with a short ISR."}),
        ("--unavailable-partitions", {"is_flag": True, "help": "Only partitions without a live leader."}),
        ("--under-min-isr-partitions", {"is_flag": True, "help": "Only those that refuse acks=all."}),
        ("--at-min-isr-partitions", {"is_flag": True, "help": "Only those one failure away from that."}),
        ("--topics-with-overrides", {"is_flag": True, "help": "Only topics that have configs of their own."}),
        (
            "--command-config",
            {"type": click.Path(path_type=Path, exists=True, dir_okay=False), "help": "Client properties."},
        ),
    ]
    function = output_option(function)
    function = refused("--delete", "--alter", because="not in this version of kafkalite", takes_value=False)(
        function
    )
    function = refused("--zookeeper", because="this tool asks the brokers: use --bootstrap-server host:port")(
        function
    )
    function = refused(
        "--topic-id",
        "--delete-config",
        "--partition-size-limit-per-response",
        because="not in this version of kafkalite",
    )(function)
    for flag, arguments in reversed(flags):
        function = click.option(flag, **arguments)(function)
    return bootstrap_option(function)


@click.command("kafka-topics")
@_options
def kafka_topics(**arguments: Any) -> None:
    """Create, list and describe topics, with Kafka's flags and Kafka's output.

    \b
    kafka-topics --bootstrap-server localhost:9092 --create --topic t --partitions 6 --replication-factor 3
    kafka-topics --bootstrap-server localhost:9092 --describe --under-replicated-partitions
    """
    _run(arguments, talkative=False)


@click.command()
@click.argument("action", required=False, type=click.Choice(ACTIONS))
@click.argument("name", required=False)
@_options
def topics(action: str | None, name: str | None, **arguments: Any) -> None:
    """Create, list and describe topics. Takes kafka-topics' flags, and words in place of two of them.

    \b
    kafkalite topics create orders --partitions 6 --replication-factor 3
    kafkalite topics describe orders
    """
    if action is not None:
        arguments[action] = True
    if name is not None:
        arguments["topic"] = name
    _run(arguments, talkative=True)


def _run(arguments: dict[str, Any], *, talkative: bool) -> None:
    chosen = [action for action in ACTIONS if arguments[action]]
    if len(chosen) != 1:
        raise click.UsageError("Command must include exactly one action: --list, --describe, --create")
    action = chosen[0]
    _check(action, arguments)
    new_topic = _new_topic(arguments) if action == "create" else None
    properties = read_properties(arguments["command_config"])
    admin = {
        **client_arguments(properties, ADMIN_PROPERTIES),
        "bootstrap_servers": bootstrap_servers(arguments["bootstrap"], properties),
    }
    if new_topic is not None:
        run(_create(admin, new_topic, arguments["if_not_exists"], arguments["output"]), prefix=PREFIX)
    else:
        try:
            pattern = re.compile(arguments["topic"]) if arguments["topic"] is not None else None
        except re.error as error:
            raise click.UsageError(
                f"--topic {arguments['topic']}: not a regular expression ({error})"
            ) from error
        filters = Filters(
            under_replicated=arguments["under_replicated_partitions"],
            unavailable=arguments["unavailable_partitions"],
            under_min_isr=arguments["under_min_isr_partitions"],
            at_min_isr=arguments["at_min_isr_partitions"],
            with_overrides=arguments["topics_with_overrides"],
        )
        run(
            _show(
                admin,
                pattern,
                filters,
                names_only=action == "list",
                exclude_internal=arguments["exclude_internal"],
                if_exists=arguments["if_exists"],
                output=arguments["output"],
                talkative=talkative,
            ),
            prefix=PREFIX,
        )


def _check(action: str, arguments: dict[str, Any]) -> None:
    """Refuse what does not go with ``action``, as Kafka does. Raises click.UsageError."""
    only = {
        "create": ("partitions", "replication_factor", "replica_assignment", "config", "if_not_exists"),
        "describe": (
            "under_replicated_partitions",
            "unavailable_partitions",
            "under_min_isr_partitions",
            "at_min_isr_partitions",
            "topics_with_overrides",
        ),
    }
    for owner, names in only.items():
        for name in names:
            if action != owner and arguments[name]:
                raise click.UsageError(f"Option --{name.replace('_', '-')} can't be used with --{action}")
    if action == "create" and arguments["topic"] is None:
        raise click.UsageError("Missing required argument --topic")
    if action != "describe" and arguments["if_exists"]:
        raise click.UsageError(f"Option --if-exists can't be used with --{action}")
    if action == "create" and arguments["exclude_internal"]:
        raise click.UsageError("Option --exclude-internal can't be used with --create")
    if arguments["replica_assignment"] and (arguments["partitions"] or arguments["replication_factor"]):
        raise click.UsageError(
            "Option --replica-assignment can't be used with --partitions or --replication-factor"
        )
    if sum(arguments[name] for name in only["describe"]) > 1:
        raise click.UsageError("Only one of the filters of --describe can be used at a time")


def _new_topic(arguments: dict[str, Any]) -> NewTopic:
    try:
        assignment = (
            topic_text.parse_assignment(arguments["replica_assignment"])
            if arguments["replica_assignment"]
            else {}
        )
    except ValueError as error:
        raise click.UsageError(f"--replica-assignment: {error}") from error
    return NewTopic(
        name=arguments["topic"],
        num_partitions=arguments["partitions"] or -1,
        replication_factor=arguments["replication_factor"] or -1,
        replica_assignments=assignment,
        topic_configs=dict(read_properties(None, arguments["config"])),
    )


async def _create(admin_arguments: dict[str, Any], topic: NewTopic, if_not_exists: bool, output: str) -> None:
    if output == "text" and ("." in topic.name or "_" in topic.name):
        click.echo(topic_text.COLLISION_WARNING)
    async with AdminClient(**admin_arguments) as admin:
        try:
            await admin.create_topics([topic])
        except BrokerError as error:
            if not (if_not_exists and error.code == ErrorCode.TOPIC_ALREADY_EXISTS):
                raise
        else:
            if output == "text":
                click.echo(f"Created topic {topic.name}.")
        if output == "json":
            [description] = await admin.describe_topics([topic.name])
            _print_json(await _views(admin, [description]), Filters(), frozenset())


async def _show(
    admin_arguments: dict[str, Any],
    pattern: re.Pattern[str] | None,
    filters: Filters,
    *,
    names_only: bool,
    exclude_internal: bool,
    if_exists: bool,
    output: str,
    talkative: bool,
) -> None:
    async with AdminClient(**admin_arguments) as admin:
        found = [
            topic
            for topic in await admin.describe_topics()
            if (pattern is None or pattern.fullmatch(topic.name))
            and not (exclude_internal and topic.is_internal)
        ]
        if pattern is not None and not found and not names_only and not if_exists:
            raise Failed(f"{PREFIX}Topic '{pattern.pattern}' does not exist as expected", ExitCode.NOT_FOUND)
        if names_only and output == "text":
            for topic in found:
                click.echo(topic.name)
            return
        views = await _views(admin, found)
        live = frozenset(node.node_id for node in (await admin.describe_cluster()).brokers)
    if output == "json":
        _print_json(views, filters, live)
    else:
        for line in topic_text.describe(views, filters, live, talkative=talkative):
            click.echo(line)


async def _views(admin: AdminClient, descriptions: Sequence[TopicDescription]) -> list[TopicView]:
    resources = {topic.name: ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in descriptions}
    configs = await admin.describe_configs(resources.values()) if resources else {}
    views = []
    for topic in descriptions:
        entries = configs[resources[topic.name]]
        minimum, unclean = entries["min.insync.replicas"], entries["unclean.leader.election.enable"]
        views.append(
            TopicView(
                topic=topic.name,
                topic_id=topic.topic_id,
                partitions=tuple(
                    PartitionView(
                        partition=p.partition,
                        leader=p.leader if p.leader >= 0 else None,
                        leader_epoch=p.leader_epoch,
                        replicas=p.replicas,
                        isr=p.isr,
                    )
                    for p in topic.partitions
                ),
                is_internal=topic.is_internal,
                overrides={
                    name: entry.value or ""
                    for name, entry in entries.items()
                    if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG
                },
                min_insync_replicas=int(minimum.value or 1),
                unclean_elections=unclean.value == "true",
            )
        )
    return views


def _print_json(views: Sequence[TopicView], filters: Filters, live: frozenset[int]) -> None:
    document = topic_text.to_json(views, filters, live)
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
