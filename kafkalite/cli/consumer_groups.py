"""`kafka-consumer-groups`: what groups there are, how far they have come, and how to move them."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

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
from kafkalite.client.admin import AdminClient, OffsetSpec
from kafkalite.client.consumer import Consumer
from kafkalite.client.errors import BrokerError
from kafkalite.client.group.admin import GroupDescription, MemberDescription
from kafkalite.client.records import OffsetAndMetadata
from kafkalite.common import TopicPartition
from kafkalite.edge import SystemClock
from kafkalite.protocol.errors import ErrorCode, UnknownTopicOrPartitionError

Rows = list[tuple[str, ...]]

ACTIONS: Final = ("list", "describe", "delete", "reset_offsets", "delete_offsets")
SCENARIOS: Final = (
    "to_earliest",
    "to_latest",
    "to_current",
    "to_offset",
    "shift_by",
    "to_datetime",
    "by_duration",
    "from_file",
)
INACTIVE: Final = ("Empty", "Dead")
STATES: Final = ("PreparingRebalance", "CompletingRebalance", "Stable", "Dead", "Empty")
_FIRST_RECORD_MS: Final = 2000
"""How long the oldest unread record of a partition is waited for, whose age is the lag in time."""


class Lag(msgspec.Struct, frozen=True):
    """One partition of one group."""

    group: str
    partition: TopicPartition
    current_offset: int | None
    log_end_offset: int | None
    """None where the partition has no leader, or is gone."""
    lag_seconds: float | None
    member: MemberDescription | None

    @property
    def lag(self) -> int | None:
        """Records between the two offsets. Never negative: what was committed was in the log."""
        if self.current_offset is None or self.log_end_offset is None:
            return None
        return max(0, self.log_end_offset - self.current_offset)


# --- Pure: text into values, values into text --------------------------------------------------


def parse_topics(topics: Sequence[str]) -> dict[str, list[int] | None]:
    """`t` (all partitions) and `t:0,1`. Raises ValueError."""
    found: dict[str, list[int] | None] = {}
    for text in topics:
        name, colon, numbers = text.partition(":")
        if not name or (colon and not re.fullmatch(r"\d+(,\d+)*", numbers)):
            raise ValueError(f"--topic {text}: must be a topic, or topic:0,1,2")
        found[name] = [int(number) for number in numbers.split(",")] if colon else None
    return found


_DURATION: Final = re.compile(
    r"([-+]?)P(?:([-+]?\d+)D)?(?:T(?:([-+]?\d+)H)?(?:([-+]?\d+)M)?(?:([-+]?\d+(?:\.\d{1,9})?)S)?)?", re.I
)


def parse_duration_ms(text: str) -> int:
    """ISO 8601's `PnDTnHnMnS` in milliseconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()[1:]) or text.upper().endswith("T"):
        raise ValueError(f"{text!r} is not of the form PnDTnHnMnS")
    sign, days, hours, minutes, seconds = match.groups()
    total = float(seconds or 0) + 60 * int(minutes or 0) + 3600 * int(hours or 0) + 86_400 * int(days or 0)
    return round(total * 1000) * (-1 if sign == "-" else 1)


def parse_datetime_ms(text: str) -> int:
    """`YYYY-MM-DDTHH:mm:SS.sss` with an offset, `Z`, or neither (UTC), in ms. Raises ValueError."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d{1,3})?)?(Z|[+-]\d\d(:?\d\d)?)?", text):
        raise ValueError(f"{text!r} is not of the form YYYY-MM-DDTHH:mm:SS.sss")
    moment = datetime.datetime.fromisoformat(text.replace(",", "."))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)


def parse_states(text: str) -> list[str]:
    """States with commas between, in any case. Raises ValueError."""
    known = {state.lower(): state for state in STATES}
    try:
        return [known[word.strip().lower()] for word in text.split(",")] if text else []
    except KeyError:
        raise ValueError(f"Invalid state list '{text}'. Valid states are: {', '.join(STATES)}") from None


def parse_plan(text: str, groups: Sequence[str]) -> dict[str, dict[TopicPartition, int]]:
    """A file of `topic,partition,offset` for one group, or `group,topic,partition,offset`.

    Raises ValueError naming the line.
    """
    found: dict[str, dict[TopicPartition, int]] = {group: {} for group in groups}
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if not row:
            continue
        if len(row) == 3 and len(groups) == 1:
            row = [groups[0], *row]
        try:
            group, topic, partition, offset = row
            tp, wanted = TopicPartition(topic, int(partition)), int(offset)
        except ValueError:
            columns = "topic,partition,offset" if len(groups) == 1 else "group,topic,partition,offset"
            raise ValueError(f"line {number}: expected {columns}") from None
        if group in found:
            found[group][tp] = wanted
    return found


def plan_text(plans: Mapping[str, Mapping[TopicPartition, int]], *, with_groups: bool) -> str:
    """What `--export` prints and `--from-file` reads: a column less where one group was asked for."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for group, offsets in plans.items():
        for tp, offset in offsets.items():
            row = (tp.topic, tp.partition, offset)
            writer.writerow((group, *row) if with_groups else row)
    return out.getvalue()


def clamped(
    wanted: Mapping[TopicPartition, int],
    earliest: Mapping[TopicPartition, int],
    latest: Mapping[TopicPartition, int],
) -> tuple[dict[TopicPartition, int], list[str]]:
    """Offsets moved into the logs, and a warning for each that had to be."""
    found, warnings = {}, []
    for tp, offset in wanted.items():
        if offset < earliest[tp]:
            warnings.append(
                f"New offset ({offset}) is lower than earliest offset for topic partition {tp}. "
                f"Value will be set to {earliest[tp]}"
            )
        elif offset > latest[tp]:
            warnings.append(
                f"New offset ({offset}) is higher than latest offset for topic partition {tp}. "
                f"Value will be set to {latest[tp]}"
            )
        found[tp] = min(max(offset, earliest[tp]), latest[tp])
    return found, warnings


def lag_lines(lags: Sequence[Lag], *, with_time: bool = False) -> list[str]:
    """Kafka's table; with the age of the oldest unread record as a column of ours at its end."""
    header = (
        *("GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"),
        *("CONSUMER-ID", "HOST", "CLIENT-ID"),
    )
    rows: Rows = []
    for lag in lags:
        member = lag.member
        owner = (member.member_id, member.host, member.client_id) if member is not None else ("-",) * 3
        row = (
            lag.group,
            lag.partition.topic,
            str(lag.partition.partition),
            *map(_known, (lag.current_offset, lag.log_end_offset, lag.lag)),
            *owner,
        )
        seconds = "-" if lag.lag_seconds is None else f"{lag.lag_seconds:.1f}"
        rows.append((*row, seconds) if with_time else row)
    widths = [15, 15, 10, 15, 15, 15, 15, 15, *([15, 0] if with_time else [0])]
    return _table((*header, "LAG-SECONDS") if with_time else header, rows, widths, growing={0, 1, 6, 7, 8})


def member_lines(group: GroupDescription, *, verbose: bool) -> list[str]:
    """Kafka's table of members."""
    has_instances = any(member.group_instance_id for member in group.members)
    rows: Rows = []
    for member in group.members:
        by_topic: dict[str, list[int]] = {}
        for tp in member.assignment:
            by_topic.setdefault(tp.topic, []).append(tp.partition)
        shown = ", ".join(f"{topic}({','.join(map(str, numbers))})" for topic, numbers in by_topic.items())
        rows.append(
            (
                group.group_id,
                member.member_id,
                *((member.group_instance_id or "-",) if has_instances else ()),
                member.host,
                member.client_id,
                str(len(member.assignment)),
                *((shown or "-",) if verbose else ()),
            )
        )
    header = (
        *("GROUP", "CONSUMER-ID"),
        *(("GROUP-INSTANCE-ID",) if has_instances else ()),
        *("HOST", "CLIENT-ID", "#PARTITIONS"),
        *(("ASSIGNMENT",) if verbose else ()),
    )
    widths = [17 if name == "GROUP-INSTANCE-ID" else 15 for name in header]
    return _table(header, rows, widths, growing=set(range(len(header) - 1 - verbose)))


def state_lines(group: GroupDescription) -> list[str]:
    """Kafka's table of a group's state."""
    node = group.coordinator
    coordinator = f"{node.host}:{node.port}  ({node.node_id})"
    header = ("GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS")
    row = (group.group_id, coordinator, group.assignor, group.state, str(len(group.members)))
    return _table(header, [row], [15, 25, 25, 20, 0], growing={0, 1})


def _known(number: int | None) -> str:
    return "-" if number is None else str(number)


def _table(header: Sequence[str], rows: Rows, widths: Sequence[int], growing: set[int]) -> list[str]:
    """Left-aligned columns of at least ``widths``; those in ``growing`` are as wide as what is in them."""
    wide = [
        max([width, *(len(row[index]) for row in rows)]) if index in growing else width
        for index, width in enumerate(widths)
    ]
    return [
        " ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip()
        for line in [header, *rows]
    ]


# --- The command -------------------------------------------------------------------------------


@click.command("kafka-consumer-groups")
@bootstrap_option
@click.option("--list", "list", is_flag=True, help="List groups.")
@click.option("--describe", is_flag=True, help="How far groups have come, and who reads what.")
@click.option("--delete", is_flag=True, help="Delete groups without members, and their offsets.")
@click.option("--reset-offsets", is_flag=True, help="Move groups without members to other offsets.")
@click.option("--delete-offsets", is_flag=True, help="Forget a group's offsets of topics.")
@click.option("--group", "groups", multiple=True, help="May be given several times.")
@click.option("--all-groups", is_flag=True)
@click.option("--offsets", is_flag=True, help="With --describe (its default): partitions, offsets and lag.")
@click.option("--members", is_flag=True, help="With --describe: members.")
@click.option(
    "--state",
    "state",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[STATE,…]",
    help="With --describe: the group's state. With --list: show it, and list only those in one of STATEs.",
)
@click.option(
    "--verbose",
    is_flag=True,
    help="With --members: what each is assigned. With --offsets: the age of the oldest unread record.",
)
@click.option("--topic", "topics", multiple=True, metavar="T[:0,1]", help="The partitions to be reset.")
@click.option("--all-topics", is_flag=True, help="Reset whatever the group has committed.")
@click.option("--to-earliest", is_flag=True)
@click.option("--to-latest", is_flag=True)
@click.option("--to-current", is_flag=True)
@click.option("--to-offset", type=int)
@click.option("--shift-by", type=int, help="Forward, or backward by a negative number.")
@click.option("--to-datetime", metavar="YYYY-MM-DDTHH:mm:SS.sss", help="UTC unless it ends with ±hh:mm.")
@click.option("--by-duration", metavar="PnDTnHnMnS", help="So long before now.")
@click.option(
    "--from-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What --export printed.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be reset.")
@click.option("--execute", is_flag=True, help="Reset.")
@click.option("--export", "export", is_flag=True, help="Print what would be reset as CSV.")
@click.option("--timeout", "timeout_ms", type=click.IntRange(1), default=5000, show_default=True)
@click.option(
    "--command-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Client properties.",
)
@refused("--type", because="there is one type of groups here: classic")
@refused("--zookeeper", because="Kafka removed it; groups keep their offsets in the brokers")
@output_option
def consumer_groups(
    bootstrap: str | None,
    groups: tuple[str, ...],
    all_groups: bool,
    offsets: bool,
    members: bool,
    state: str | None,
    verbose: bool,
    topics: tuple[str, ...],
    all_topics: bool,
    dry_run: bool,
    execute: bool,
    export: bool,
    timeout_ms: int,
    command_config: Path | None,
    output: str,
    **chosen: Any,
) -> None:
    """List, describe, reset and delete consumer groups.

    \b
    kafka-consumer-groups --bootstrap-server localhost:9092 --describe --group g
    kafka-consumer-groups --reset-offsets --group g --topic t --to-earliest --execute
    """
    [action] = _only([name for name in ACTIONS if chosen[name]], ACTIONS, required=True)
    properties = read_properties(command_config)
    arguments = {
        "default_api_timeout_ms": timeout_ms,
        "bootstrap_servers": bootstrap_servers(bootstrap, properties),
        **client_arguments(properties, ADMIN_PROPERTIES),
    }
    if action != "list" and not groups and not all_groups:
        _usage(f"{_flag(action)} takes --group (or --all-groups)")
    if groups and all_groups:
        _usage("--group and --all-groups cannot be used together")
    if action != "reset_offsets":
        for name in SCENARIOS:
            if chosen[name] not in (None, False):
                _usage(f"{_flag(name)} belongs to --reset-offsets")
        for flag, given in (("--execute", execute), ("--dry-run", dry_run), ("--export", export)):
            if given:
                _usage(f"{flag} belongs to --reset-offsets")
    as_json = output == "json"
    try:
        scope = parse_topics(topics)
        match action:
            case "list":
                states = parse_states(state or "")
                run(_list(arguments, states, with_state=state is not None, as_json=as_json))
            case "describe":
                views = [name for name, given in (("members", members), ("offsets", offsets)) if given]
                [view] = _only(
                    [*views, *(["state"] if state is not None else [])], ("offsets", "members", "state")
                ) or ["offsets"]
                if verbose and view == "state":
                    _usage("--verbose belongs to --members or --offsets")
                run(_describe(arguments, groups, view, verbose=verbose, as_json=as_json))
            case "delete":
                run(_delete(arguments, groups, as_json=as_json))
            case "delete_offsets":
                if not scope:
                    _usage("--delete-offsets takes --topic")
                if len(groups) != 1:
                    _usage("--delete-offsets takes one --group")
                run(_delete_offsets(arguments, groups[0], scope, as_json=as_json))
            case _:
                [scenario] = _only(
                    [name for name in SCENARIOS if chosen[name] not in (None, False)],
                    SCENARIOS,
                    required=True,
                )
                if dry_run and execute:
                    _usage("--dry-run and --execute cannot be used together")
                if scenario != "from_file" and bool(scope) == all_topics:
                    _usage("one of --topic, --all-topics and --from-file is required")
                if not (dry_run or execute or export):
                    click.echo(
                        "WARN: No action will be performed as the --execute option is missing.", err=True
                    )
                reset = Reset(scenario, _value(scenario, chosen[scenario]), scope, execute, export, as_json)
                run(_reset(arguments, groups, reset))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


class Reset(msgspec.Struct, frozen=True):
    """What is to be reset, and how."""

    scenario: str
    value: Any
    """An offset, a shift, milliseconds since the epoch, or a file's text, as the scenario needs."""
    scope: Mapping[str, list[int] | None]
    """Topics with their partitions; empty: all that the group has committed."""
    execute: bool
    export: bool
    as_json: bool


def _value(scenario: str, given: Any) -> Any:
    match scenario:
        case "to_datetime":
            return parse_datetime_ms(given)
        case "by_duration":
            return SystemClock().wall_ms() - parse_duration_ms(given)
        case "from_file":
            return given.read_text(encoding="utf-8")
        case _:
            return given


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _usage(message: str) -> NoReturn:
    raise click.UsageError(message)


def _only(given: list[str], of: Iterable[str], *, required: bool = False) -> list[str]:
    if len(given) > 1 or (required and not given):
        _usage(f"Exactly one of {', '.join(map(_flag, of))} is required")
    return given


def _print_json(document: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


async def _list(arguments: dict[str, Any], states: list[str], *, with_state: bool, as_json: bool) -> None:
    async with AdminClient(**arguments) as admin:
        found = await admin.list_consumer_groups(states=states)
    if as_json:
        rows = [
            {"group": group.group_id, "protocol_type": group.protocol_type, "state": group.state}
            for group in found
        ]
        _print_json({"groups": rows})
    elif with_state:
        names = [(group.group_id, group.state) for group in found]
        click.echo("\n".join(_table(("GROUP", "STATE"), [*names], [25, 0], growing={0})))
    else:
        for group in found:
            click.echo(group.group_id)


async def _names(admin: AdminClient, groups: Sequence[str]) -> list[str]:
    if groups:
        return list(dict.fromkeys(groups))
    return [group.group_id for group in await admin.list_consumer_groups()]


async def _describe(
    arguments: dict[str, Any], groups: Sequence[str], view: str, *, verbose: bool, as_json: bool
) -> None:
    documents = []
    missing: list[str] = []
    async with AdminClient(**arguments) as admin:
        described = await admin.describe_consumer_groups(await _names(admin, groups))
        for name, group in described.items():
            if group.state == "Dead":
                missing.append(name)
                continue
            lags = None
            if view == "offsets":
                with_time = verbose or as_json
                lags = await _lags(admin, group, arguments if with_time else None)
            if as_json:
                documents.append(_group_document(group, lags))
                continue
            if group.state == "Empty":
                click.echo(f"\nConsumer group '{name}' has no active members.", err=True)
            elif group.state != "Stable":
                click.echo(f"\nWarning: Consumer group '{name}' is rebalancing.", err=True)
            lines = (
                state_lines(group)
                if view == "state"
                else member_lines(group, verbose=verbose)
                if view == "members"
                else lag_lines(lags or [], with_time=verbose)
            )
            if len(lines) > 1:
                click.echo("\n" + "\n".join(lines))
    if as_json:
        _print_json({"groups": documents})
    if missing:
        lines = [f"Error: Consumer group '{name}' does not exist." for name in missing]
        raise Failed("\n" + "\n".join(lines), ExitCode.NOT_FOUND)


def _group_document(group: GroupDescription, lags: Sequence[Lag] | None) -> dict[str, Any]:
    node = group.coordinator
    document: dict[str, Any] = {
        "group": group.group_id,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "assignment_strategy": group.assignor,
        "coordinator": {"id": node.node_id, "host": node.host, "port": node.port},
        "members": [
            {
                "member_id": member.member_id,
                "group_instance_id": member.group_instance_id,
                "client_id": member.client_id,
                "host": member.host,
                "assignment": [{"topic": tp.topic, "partition": tp.partition} for tp in member.assignment],
            }
            for member in group.members
        ],
    }
    if lags is not None:
        document["partitions"] = [
            {
                "topic": lag.partition.topic,
                "partition": lag.partition.partition,
                "current_offset": lag.current_offset,
                "log_end_offset": lag.log_end_offset,
                "lag": lag.lag,
                "lag_seconds": lag.lag_seconds,
                "member_id": lag.member.member_id if lag.member is not None else None,
            }
            for lag in lags
        ]
    return document


async def _lags(admin: AdminClient, group: GroupDescription, arguments: dict[str, Any] | None) -> list[Lag]:
    """Every partition that the group has committed or owns; with ``arguments`` also the lag in time."""
    # The commits come first: an end offset that is asked for later cannot lie before them.
    committed = await admin.list_consumer_group_offsets(group.group_id)
    owners = {tp: member for member in group.members for tp in member.assignment}
    partitions = sorted(committed.keys() | owners.keys())
    readable = await _readable(admin, partitions)
    ends = await admin.list_offsets(dict.fromkeys(readable, OffsetSpec.LATEST)) if readable else {}
    behind = {
        tp: committed[tp].offset
        for tp in readable
        if tp in committed and committed[tp].offset < ends[tp].offset
    }
    ages = await _ages(arguments, behind) if arguments is not None and behind else {}
    found = []
    for tp in partitions:
        current = committed[tp].offset if tp in committed else None
        end = ends[tp].offset if tp in ends else None
        seconds = 0.0 if current is not None and end is not None and current >= end else ages.get(tp)
        found.append(Lag(group.group_id, tp, current, end, seconds, owners.get(tp)))
    return found


async def _readable(admin: AdminClient, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Those that exist and have a leader."""
    existing = {
        TopicPartition(topic.name, p.partition)
        for topic in await admin.describe_topics()
        for p in topic.partitions
        if p.leader >= 0
    }
    return [tp for tp in partitions if tp in existing]


async def _ages(
    arguments: dict[str, Any], offsets: Mapping[TopicPartition, int]
) -> dict[TopicPartition, float]:
    """For how many seconds the first record at or after each offset has been waiting."""
    found: dict[TopicPartition, float] = {}
    clock = SystemClock()
    async with Consumer(
        bootstrap_servers=arguments["bootstrap_servers"],
        client_id="kafka-consumer-groups",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=1,
    ) as consumer:
        consumer.assign(offsets)
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
        deadline = clock.monotonic() + _FIRST_RECORD_MS / 1000
        while offsets.keys() - found.keys() and (left := deadline - clock.monotonic()) > 0:
            for tp, records in (await consumer.getmany(timeout_ms=left * 1000)).items():
                if tp not in found and records[0].timestamp >= 0:
                    found[tp] = max(0.0, (clock.wall_ms() - records[0].timestamp) / 1000)
                consumer.pause(tp)
    return found


async def _delete(arguments: dict[str, Any], groups: Sequence[str], *, as_json: bool) -> None:
    async with AdminClient(**arguments) as admin:
        results = await admin.delete_consumer_groups(await _names(admin, groups))
    failed = {name: error for name, error in results.items() if error is not None}
    deleted = [name for name, error in results.items() if error is None]
    if as_json:
        _print_json({"deleted": deleted, "failed": {name: error.code.name for name, error in failed.items()}})
    elif not failed:
        click.echo(f"Deletion of requested consumer groups ({_quoted(deleted)}) was successful.")
    elif deleted:
        click.echo(f"These consumer groups were deleted successfully: {_quoted(deleted)}.")
    if failed:
        lines = ["\nError: Deletion of some consumer groups failed:"]
        lines += [
            f"* Group '{name}' could not be deleted due to: {error.code.name}: {error.message}"
            for name, error in failed.items()
        ]
        raise Failed("\n".join(lines), _exit_code(failed.values()))


def _exit_code(errors: Iterable[BrokerError]) -> ExitCode:
    match next(iter(errors)).code:
        case ErrorCode.GROUP_ID_NOT_FOUND | ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            return ExitCode.NOT_FOUND
        case ErrorCode.NON_EMPTY_GROUP | ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC | ErrorCode.UNKNOWN_MEMBER_ID:
            return ExitCode.REFUSED
        case _:
            return ExitCode.ERROR


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


async def _in_scope(admin: AdminClient, scope: Mapping[str, list[int] | None]) -> list[TopicPartition]:
    found = []
    try:
        topics = await admin.describe_topics(scope)
    except UnknownTopicOrPartitionError as error:
        raise Failed(f"Error: The {error.message} does not exist.", ExitCode.NOT_FOUND) from error
    for topic in topics:
        numbers = scope[topic.name]
        known = [p.partition for p in topic.partitions]
        for number in known if numbers is None else numbers:
            if number not in known:
                raise Failed(f"Error: The topic {topic.name} has no partition {number}.", ExitCode.NOT_FOUND)
            found.append(TopicPartition(topic.name, number))
    return found


async def _delete_offsets(
    arguments: dict[str, Any], group: str, scope: Mapping[str, list[int] | None], *, as_json: bool
) -> None:
    async with AdminClient(**arguments) as admin:
        # Partitions that are named need not exist: a topic that is gone may have left offsets behind.
        partitions = await _in_scope(admin, {topic: None for topic, numbers in scope.items() if not numbers})
        partitions += [TopicPartition(topic, number) for topic in scope for number in scope[topic] or ()]
        try:
            results = await admin.delete_consumer_group_offsets(group, partitions)
        except BrokerError as error:
            if error.code == ErrorCode.GROUP_ID_NOT_FOUND:
                raise Failed(
                    f"\nError: Consumer group '{group}' does not exist.", ExitCode.NOT_FOUND
                ) from error
            raise Failed(
                f"\nError: the offsets of group '{group}' cannot be deleted: {error.code.name}",
                _exit_code([error]),
            ) from error
    failed = [error for error in results.values() if error is not None]
    if as_json:
        rows = [
            {"topic": tp.topic, "partition": tp.partition, "error": error.code.name if error else None}
            for tp, error in results.items()
        ]
        _print_json({"group": group, "offsets": rows})
    else:
        topics = ", ".join(scope)
        if failed:
            click.echo(
                "\nError: Encountered some partition level error, see the follow-up details:", err=True
            )
        else:
            click.echo(f"Request succeed for deleting offsets with topic {topics} group {group}")
        table = [
            (tp.topic, str(tp.partition), f"Error: {error.code.name}" if error else "Successful")
            for tp, error in results.items()
        ]
        click.echo("\n" + "\n".join(_table(("TOPIC", "PARTITION", "STATUS"), [*table], [30, 15, 15], {0})))
    if failed:
        raise Failed("", _exit_code(failed))


async def _reset(arguments: dict[str, Any], groups: Sequence[str], reset: Reset) -> None:
    plans: dict[str, dict[TopicPartition, int]] = {}
    active: list[GroupDescription] = []
    unplanned: list[str] = []
    async with AdminClient(**arguments) as admin:
        names = await _names(admin, groups)
        given = parse_plan(reset.value, names) if reset.scenario == "from_file" else {}
        for name, group in (await admin.describe_consumer_groups(names)).items():
            if group.state not in INACTIVE:
                active.append(group)
                continue
            if reset.scenario == "from_file" and not given[name]:
                unplanned.append(name)
                continue
            plans[name] = await _plan(admin, name, reset, given.get(name, {}))
            if reset.execute:
                await admin.alter_consumer_group_offsets(name, plans[name])
    if reset.as_json:
        rows = [
            {"group": name, "topic": tp.topic, "partition": tp.partition, "new_offset": offset}
            for name, plan in plans.items()
            for tp, offset in plan.items()
        ]
        _print_json({"executed": reset.execute, "offsets": rows})
    elif reset.export:
        click.echo(plan_text(plans, with_groups=len(groups) != 1), nl=False)
    elif plans:
        table = [
            (name, tp.topic, str(tp.partition), str(offset))
            for name, plan in plans.items()
            for tp, offset in plan.items()
        ]
        header = ("GROUP", "TOPIC", "PARTITION", "NEW-OFFSET")
        click.echo("\n" + "\n".join(_table(header, [*table], [30, 30, 10, 15], {0, 1})))
    if active or unplanned:
        lines = [f"Error: No reset plan for group {name} found" for name in unplanned]
        lines += [
            f"Error: Assignments can only be reset if the group '{group.group_id}' is inactive, "
            f"but the current state is {group.state}."
            for group in active
        ]
        raise Failed("\n" + "\n".join(lines), ExitCode.REFUSED if active else ExitCode.NOT_FOUND)


async def _plan(
    admin: AdminClient, group: str, reset: Reset, given: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Where the group would be; nothing is changed."""
    committed: Mapping[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(group)
    if reset.scenario == "from_file":
        partitions = await _in_scope(
            admin, {topic: [tp.partition for tp in given if tp.topic == topic] for topic, _ in given}
        )
    elif reset.scope:
        partitions = await _in_scope(admin, reset.scope)
    else:
        partitions = await _readable(admin, sorted(committed))
    if not partitions:
        return {}
    earliest = {
        tp: found.offset
        for tp, found in (await admin.list_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))).items()
    }
    latest = {
        tp: found.offset
        for tp, found in (await admin.list_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))).items()
    }
    match reset.scenario:
        case "to_earliest":
            wanted = earliest
        case "to_latest":
            wanted = latest
        case "to_current":
            wanted = {tp: committed[tp].offset if tp in committed else latest[tp] for tp in partitions}
        case "to_offset":
            wanted = dict.fromkeys(partitions, reset.value)
        case "shift_by":
            missing = [tp for tp in partitions if tp not in committed]
            if missing:
                raise Failed(
                    f"Error: Cannot shift offset for partition {missing[0]} since there is no current "
                    "committed offset",
                    ExitCode.NOT_FOUND,
                )
            wanted = {tp: committed[tp].offset + reset.value for tp in partitions}
        case "from_file":
            wanted = {tp: given[tp] for tp in partitions}
        case _:
            found = await admin.list_offsets(dict.fromkeys(partitions, max(0, reset.value)))
            wanted = {tp: at.offset if at.offset >= 0 else latest[tp] for tp, at in found.items()}
            for tp in [tp for tp, at in found.items() if at.offset < 0]:
                click.echo(
                    f"Warn: Partition {tp.partition} from topic {tp.topic} is empty. "
                    "Falling back to latest known offset.",
                    err=True,
                )
    plan, warnings = clamped(wanted, earliest, latest)
    for warning in warnings:
        click.echo(f"WARN: {warning}", err=True)
    return {tp: plan[tp] for tp in partitions}
