"""`kafkalite why`: why a partition is as it is, or a group rebalanced, from the journals of all brokers."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import click

from kafkalite.cli.client_options import bootstrap_option, output_option
from kafkalite.cli.events import journal
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.cli.place import cluster_directory
from kafkalite.client.cluster import parse_bootstrap
from kafkalite.cluster.journals import read_journals
from kafkalite.cluster.launcher import Cluster
from kafkalite.cluster.layout import HOST, BadLayout, NoCluster
from kafkalite.common import Address, TopicPartition
from kafkalite.edge import SystemClock
from kafkalite.why import History, explain, explain_group, group_text, read_event, text


@click.command()
@click.argument("wanted", nargs=-1, required=True, metavar="TOPIC/PARTITION | group GROUP")
@bootstrap_option
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="The local cluster's directory: its dead brokers speak too, through their files.",
)
@output_option
def why(wanted: tuple[str, ...], bootstrap: str | None, directory: Path | None, output: str) -> None:
    """Say why a partition has this leader, this ISR, and which of its records are gone; or why a
    group rebalanced, who came and went, how long it stood still and what changed hands.

    The journals of all brokers that answer are read, and with --dir (or ./.kafkalite) the files
    of those that do not.

    \b
    kafkalite why orders/2
    kafkalite why group payments
    kafkalite why orders/2 --bootstrap-server broker-1:9092,broker-2:9092 --output json
    """
    match wanted:
        case ("group", group):
            _why_group(group, bootstrap, directory, output)
        case (partition,):
            _why_partition(_partition(partition), bootstrap, directory, output)
        case _:
            raise click.UsageError("name one TOPIC/PARTITION, or: group GROUP")


def _why_group(group: str, bootstrap: str | None, directory: Path | None, output: str) -> None:
    history, silent = _read(bootstrap, directory)
    answer = explain_group(history, group)
    if output == "json":
        click.echo(json.dumps(answer.to_json() | {"silent": sorted(silent)}))
    elif answer.is_known:
        click.echo("\n".join(group_text(answer, now_ms=SystemClock().wall_ms())))
    if not answer.is_known:
        raise Failed(f"no journal tells of group {group}", ExitCode.NOT_FOUND)


def _why_partition(
    wanted: TopicPartition, bootstrap: str | None, directory: Path | None, output: str
) -> None:
    history, silent = _read(bootstrap, directory)
    answer = explain(history, wanted, silent=silent)
    if output == "json":
        click.echo(json.dumps(answer.to_json() | {"silent": sorted(silent)}))
    elif answer.state != "unknown":
        click.echo("\n".join(text(answer)))
    if answer.state == "unknown":
        raise Failed(
            f"no journal tells of partition {wanted.partition} of {wanted.topic}", ExitCode.NOT_FOUND
        )


def _partition(given: str) -> TopicPartition:
    topic, _, number = given.rpartition("/")
    if not topic:
        topic, _, number = given.rpartition("-")
    if not topic or not number.isdecimal():
        raise click.UsageError(f"{given!r} names no partition: write TOPIC/PARTITION, such as orders/2")
    return TopicPartition(topic, int(number))


def _read(bootstrap: str | None, directory: Path | None) -> tuple[History, set[int]]:
    """All that can be read, and the brokers of a local cluster that did not answer."""
    cluster = None
    if bootstrap is None or directory is not None:
        try:
            cluster = Cluster.load(cluster_directory(directory))
        except (NoCluster, BadLayout) as error:
            if bootstrap is None:
                raise Failed(
                    f"{error}; name brokers with --bootstrap-server, or a local cluster with --dir",
                    ExitCode.NOT_FOUND,
                ) from error
            raise Failed(str(error), ExitCode.NOT_FOUND) from error
    asked: dict[Address, int | None] = {}
    if cluster is not None:
        asked |= {Address(HOST, node.port): node.id for node in cluster.layout.brokers}
    if bootstrap is not None:
        try:
            asked |= {address: asked.get(address) for address in parse_bootstrap(bootstrap)}
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    events = []
    silent: list[tuple[Address, Exception]] = []
    for address in asked:
        try:
            events += [read_event(body) for body in journal(address, None)]
        except (OSError, http.client.HTTPException, ValueError) as error:
            silent.append((address, error))
    for address, reason in silent:
        click.echo(f"does not answer: {address}: {reason}", err=True)
    if cluster is None:
        if len(silent) == len(asked):
            raise Failed("no broker answered", ExitCode.NO_CONNECTION)
        return History(events), set()
    filed = read_journals(cluster)
    return (
        History([*filed.events, *events], filed.receipts),
        {id for address, _ in silent if (id := asked[address]) is not None},
    )
