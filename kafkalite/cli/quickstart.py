"""`quickstart [FILE]`: a real cluster, and a real file through it with nothing lost.

One rule makes any file come out byte for byte: each record is one line without its newline, and is
written out followed by one, unless it carries the header `no-newline`. The last line of a file
that does not end in a newline carries it, and so does every piece but the last of a line that is
too long for one record.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import click
import msgspec

from kafkalite.cli.client_options import outcomes as client_outcomes
from kafkalite.cli.cluster import outcomes as cluster_outcomes
from kafkalite.cli.cluster import quiet_zookeeper
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.cli.place import checkout
from kafkalite.client.admin import AdminClient, NewTopic
from kafkalite.client.consumer import Consumer
from kafkalite.client.delivery import Delivery
from kafkalite.client.errors import BrokerError
from kafkalite.client.producer import Producer
from kafkalite.cluster.launcher import Cluster
from kafkalite.cluster.layout import CLUSTER_FILE
from kafkalite.cluster.view import read_znodes
from kafkalite.common import BrokerId, TopicPartition
from kafkalite.protocol.errors import ErrorCode
from zk import paths

TOPIC: Final = "quickstart"
PARTITION: Final = TopicPartition(TOPIC, 0)
"""One partition: order holds within a partition, and the lines are to come out in order."""

NO_NEWLINE: Final = "no-newline"
MAX_PIECE: Final = 512 * 1024
"""Bytes of a record's value at most: half of what a topic takes by default (max.message.bytes)."""

LOGS: Final = ("/var/log/syslog", "/var/log/messages", "/var/log/dpkg.log", "/var/log/apt/history.log")
"""Logs that most machines have, the most telling first."""

PATIENCE_S: Final = 60.0
"""How long nothing may come out of the consumer before quickstart gives up."""


class Piece(msgspec.Struct, frozen=True):
    """One record to be sent."""

    value: bytes
    ends_line: bool
    """Whether a newline follows it."""


def pieces(chunks: Iterable[bytes], *, max_piece: int = MAX_PIECE) -> Iterator[Piece]:
    """Cut a stream of bytes into records; :func:`restored` of them is the stream again."""
    carry = b""
    for chunk in chunks:
        *lines, carry = (carry + chunk).split(b"\n")
        for line in lines:
            yield from _cut(line, max_piece, ends_line=True)
        if len(carry) > max_piece:
            whole = len(carry) // max_piece * max_piece
            yield from _cut(carry[:whole], max_piece, ends_line=False)
            carry = carry[whole:]
    if carry:
        yield from _cut(carry, max_piece, ends_line=False)


def _cut(line: bytes, max_piece: int, *, ends_line: bool) -> Iterator[Piece]:
    for start in range(0, max(len(line), 1), max_piece):
        end = start + max_piece
        yield Piece(line[start:end], ends_line and end >= len(line))


def restored(piece: Piece) -> bytes:
    """The bytes of the file that a record stands for."""
    return piece.value + b"\n" if piece.ends_line else piece.value


class Passage(msgspec.Struct, frozen=True):
    """What came of sending a file through the cluster."""

    records: int
    sent_sha256: str
    received_sha256: str
    first_offset: int


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="The cluster's directory."
)
def quickstart(file: Path | None, directory: Path | None) -> None:
    """Start a cluster (three ZooKeepers, three brokers) and stream FILE through it.

    FILE may be anything; without one a log of this machine is taken. The cluster stays up.

    \b
    scripts/quickstart
    scripts/quickstart /etc/services
    """
    quiet_zookeeper()
    root = checkout()
    place = directory if directory is not None else (root or Path()) / ".kafkalite"
    source = file if file is not None else find_log(LOGS)
    if not os.access(source, os.R_OK):
        raise Failed(f"{source} cannot be read by this user", ExitCode.NOT_AUTHORISED)
    with cluster_outcomes(), client_outcomes():
        click.echo(f"1. A real cluster in {place}: ZooKeeper and brokers, each a process.")
        if (place / CLUSTER_FILE).exists():  # Whatever its size: it is somebody's, and it will do.
            cluster = Cluster.load(place, say=tell)
        else:
            cluster = Cluster.load_or_create(place, brokers=3, zookeepers=3, overrides=SETTINGS, say=tell)
        status = cluster.up(timeout_s=180)
        click.echo(
            f"   Up: brokers at {status.bootstrap_servers}; broker {status.controller} is the controller."
        )
        out = cluster.scratch / f"{TOPIC}.out"
        with open(out, "wb") as sink:
            asyncio.run(_show(cluster, source, sink, chosen_by_us=file is None))


SETTINGS: Final = {"zookeeper.session.timeout.ms": "6000"}
"""A third of Kafka's default: whoever kills a broker here wants to see the others take over soon."""


def tell(line: str) -> None:
    """Progress of the cluster, indented below its heading."""
    click.echo(f"   {line}")


def find_log(candidates: Sequence[str]) -> Path:
    """Find real log lines on this machine: the first of ``candidates``, else the largest log there is."""
    for name in candidates:
        path = Path(name)
        if path.is_file() and os.access(path, os.R_OK) and path.stat().st_size:
            return path
    others = [p for p in Path("/var/log").rglob("*.log") if p.is_file() and os.access(p, os.R_OK)]
    others = [p for p in others if p.stat().st_size]
    if others:
        return max(others, key=lambda p: p.stat().st_size)
    raise Failed("no log found below /var/log; name a file: scripts/quickstart FILE", ExitCode.NOT_FOUND)


async def _show(cluster: Cluster, source: Path, sink: BinaryIO, *, chosen_by_us: bool) -> None:
    bootstrap = cluster.layout.bootstrap_servers
    replicas = min(3, len(cluster.layout.brokers))
    async with AdminClient(bootstrap_servers=bootstrap) as admin:
        try:
            await admin.create_topics([NewTopic(TOPIC, 1, replicas)])
            click.echo(f"2. Topic {TOPIC}: one partition (so order holds), {replicas} replicas.")
        except BrokerError as error:
            if error.code != ErrorCode.TOPIC_ALREADY_EXISTS:
                raise
            click.echo(f"2. Topic {TOPIC} is there already; the file goes behind what is in it.")
        if chosen_by_us:
            click.echo(f"   No file was named: {source} is the first log found on this machine.")
        click.echo(f"3. {source}: in through a producer with acks=all, out through a consumer.")
        passage = await stream(bootstrap, source, sink)
        click.echo(
            f"   {passage.records} records from offset {passage.first_offset} on, written to {sink.name}"
        )
        click.echo(f"   SHA-256 in   {passage.sent_sha256}")
        click.echo(f"   SHA-256 out  {passage.received_sha256}")
        if passage.sent_sha256 != passage.received_sha256:
            raise Failed("What came out is not what went in.")
        [topic] = await admin.describe_topics([TOPIC])
    partition = topic.partitions[0]
    await _show_places(cluster, partition.leader, partition.isr)
    _show_next(cluster, partition.leader)


async def stream(bootstrap: str, source: Path, sink: BinaryIO) -> Passage:
    """Send ``source`` through the topic into ``sink``, record by record, both at the same time."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    async with Consumer(bootstrap_servers=bootstrap, auto_offset_reset="none") as consumer:
        consumer.assign([PARTITION])
        first = (await consumer.end_offsets([PARTITION]))[PARTITION]
        consumer.seek(PARTITION, first)
        count: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def produce() -> None:
            number = 0
            async with Producer(bootstrap_servers=bootstrap) as producer:
                last: Delivery | None = None
                for piece in pieces(_chunks(source)):
                    sent.update(restored(piece))
                    headers = None if piece.ends_line else [(NO_NEWLINE, b"")]
                    last = await producer.send(TOPIC, piece.value, partition=0, headers=headers)
                    number += 1
                if last is not None:
                    await last  # Order holds within a partition: the last one's outcome is everybody's.
            count.set_result(number)

        async def consume() -> None:
            number = 0
            loop = asyncio.get_running_loop()
            heard = loop.time()
            while not (count.done() and number >= count.result()):
                found = await consumer.getmany(timeout_ms=200)
                if found:
                    heard = loop.time()
                elif loop.time() - heard > PATIENCE_S:
                    raise Failed(
                        f"nothing has come out for {PATIENCE_S:g} s, after {number} records",
                        ExitCode.TIMED_OUT,
                    )
                for record in found.get(PARTITION, ()):
                    names = [name for name, _ in record.headers]
                    content = restored(Piece(record.value, NO_NEWLINE not in names))
                    received.update(content)
                    sink.write(content)
                    number += 1

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(produce(), name="producer")
            tasks.create_task(consume(), name="consumer")
    return Passage(count.result(), sent.hexdigest(), received.hexdigest(), first)


def _chunks(source: Path) -> Iterator[bytes]:
    with open(source, "rb") as file:
        while chunk := file.read(1 << 18):
            yield chunk


async def _show_places(cluster: Cluster, leader: int, isr: Sequence[int]) -> None:
    click.echo("4. Where things are now.")
    click.echo(f"   leader    broker {leader}; in sync: {', '.join(map(str, isr))}")
    for node in cluster.layout.brokers:
        for segment in sorted((cluster.directory / node.name / "data" / str(PARTITION)).glob("*.log")):
            click.echo(f"   records   {segment}  {segment.stat().st_size} bytes")
    wanted = (
        paths.CONTROLLER,
        *(paths.broker(BrokerId(node.id)) for node in cluster.layout.brokers),
        paths.topic(TOPIC),
        paths.partition_state(PARTITION),
    )
    for path, content in (await read_znodes(cluster.layout.zookeeper_connect, wanted, timeout_s=10)).items():
        click.echo(f"   znode     {path}  {_short(content)}")


def _short(content: str | None) -> str:
    """A znode's JSON without blanks, cut where it gets long."""
    if content is None:
        return "(not there)"
    try:
        text = json.dumps(json.loads(content), separators=(",", ":"))
    except ValueError:
        text = content
    return text if len(text) <= 140 else text[:137] + "..."


def _show_next(cluster: Cluster, leader: int) -> None:
    root = checkout()
    scripts = root / "scripts" if root is not None else None

    def command(name: str, *arguments: str) -> str:
        start = _path_from_here(scripts / name) if scripts is not None else name
        return shlex.join([start, *arguments])

    bootstrap = ("--bootstrap-server", cluster.layout.bootstrap_servers)
    everything = ("--from-beginning", "--timeout-ms", "3000")
    where = ("--dir", _path_from_here(cluster.directory))
    click.echo("")
    click.echo("The cluster stays up. Three things to try next:")
    click.echo("  Read the file again, from the beginning:")
    click.echo(f"    {command('kafka-console-consumer', *bootstrap, '--topic', TOPIC, *everything)}")
    click.echo("  Kill the leader without warning; a few seconds later another replica leads:")
    click.echo("    " + command("kafkalite", "cluster", "kill", f"broker-{leader}", *where))
    click.echo("    " + command("kafka-topics", *bootstrap, "--describe", "--topic", TOPIC))
    click.echo("  Bring it back, and see that everything is whole again:")
    click.echo("    " + command("kafkalite", "cluster", "up", *where))
    click.echo(f"When you have seen enough: {command('kafkalite', 'cluster', 'down', *where)}")


def _path_from_here(path: Path) -> str:
    """``path`` as one would type it here: relative where it lies below, and never a bare name."""
    try:
        below = path.relative_to(Path.cwd())
    except ValueError:
        return str(path)
    return str(below) if len(below.parts) > 1 or below.name.startswith(".") else f"./{below}"
