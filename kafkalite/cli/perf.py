"""`kafkalite perf` and Kafka's performance tools: its options, its lines, or one JSON document."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from kafkalite.cli.client_options import (
    COMMON_PROPERTIES,
    Function,
    Properties,
    boolean,
    bootstrap_option,
    bootstrap_servers,
    client_arguments,
    outcomes,
    output_option,
    read_properties,
    refused,
)
from kafkalite.cli.console_producer import PRODUCER_PROPERTIES
from kafkalite.cli.outcome import Failed
from kafkalite.client.consumer import Consumer
from kafkalite.client.producer import Producer
from kafkalite.perf import consuming, end_to_end, producing
from kafkalite.perf.latencies import Summary
from kafkalite.perf.load import Monotonic, Payloads, Pooled
from kafkalite.server.malloc import tune_process

MIB: Final = 1024 * 1024
CONSUMER_PROPERTIES: Final[Properties] = {
    **COMMON_PROPERTIES,
    "auto.offset.reset": ("auto_offset_reset", str),
    "check.crcs": ("check_crcs", boolean),
    "default.api.timeout.ms": ("default_api_timeout_ms", int),
    "fetch.max.bytes": ("fetch_max_bytes", int),
    "fetch.max.wait.ms": ("fetch_max_wait_ms", int),
    "fetch.min.bytes": ("fetch_min_bytes", int),
    "isolation.level": ("isolation_level", str),
    "max.partition.fetch.bytes": ("max_partition_fetch_bytes", int),
}


@click.group()
def perf() -> None:
    """Measure producing, consuming, and the way from one end to the other."""


def run_tuned(work: Callable[[], Any]) -> Any:
    """Run the coroutine that ``work`` makes on uvloop, in a process set up as brokers are."""
    import uvloop

    tune_process()
    with outcomes():
        return uvloop.run(work())


def config_option(*flags: str) -> Callable[[Function], Function]:
    return click.option(
        *flags,
        "config_file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="A file of properties; the flags count before it.",
    )


def print_json(document: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


# --- Producer ----------------------------------------------------------------------------------


@click.command("kafka-producer-perf-test")
@bootstrap_option
@click.option("--topic", required=True)
@click.option("--num-records", type=click.IntRange(1), required=True)
@click.option("--record-size", type=click.IntRange(1), help="Bytes of a value.")
@click.option(
    "--payload-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Values to send over and over, instead of random ones.",
)
@click.option("--payload-delimiter", default="\\n", show_default=True, help="What stands between them.")
@click.option("--payload-monotonic", is_flag=True, help="The numbers 0, 1, 2, … as values.")
@click.option("--throughput", type=float, required=True, help="Records a second; -1 for as many as go.")
@click.option("--producer-props", multiple=True, metavar="K=V", help="Properties of the producer.")
@config_option("--producer.config")
@click.option(
    "--send",
    "how",
    type=click.Choice(["record", "many"]),
    default="record",
    show_default=True,
    help="record: `send` for each one; many: `send_many`.",
)
@click.option("--check/--no-check", default=True, show_default=True, help="Read back what was written.")
@output_option
@click.argument("more_props", nargs=-1)
@refused("--print-metrics", because="the client keeps no metrics", takes_value=False)
@refused(
    "--transactional-id", "--transaction-duration-ms", because="this version of kafkalite has no transactions"
)
def producer(
    bootstrap: str | None,
    topic: str,
    num_records: int,
    record_size: int | None,
    payload_file: Path | None,
    payload_delimiter: str,
    payload_monotonic: bool,
    throughput: float,
    producer_props: tuple[str, ...],
    config_file: Path | None,
    how: str,
    check: bool,
    output: str,
    more_props: tuple[str, ...],
) -> None:
    """Send records as fast as they go, or at a rate; then read them back and compare.

    The check takes count and checksum of all that came to the topic meanwhile: where others write to
    it too, turn it off.

    \b
    kafka-producer-perf-test --topic t --num-records 1000000 --record-size 100 --throughput -1 \\
        --producer-props bootstrap.servers=localhost:9092 acks=all batch.size=65536
    """
    if sum((record_size is not None, payload_file is not None, payload_monotonic)) != 1:
        raise click.UsageError("give one of --record-size, --payload-file and --payload-monotonic")
    # Kafka's option takes several values: those after the first arrive as arguments.
    properties = read_properties(config_file, (*producer_props, *more_props))
    arguments = client_arguments(properties, PRODUCER_PROPERTIES)
    servers = bootstrap_servers(bootstrap, properties)
    payloads = _payloads(record_size, payload_file, payload_delimiter)

    def tell(report: producing.Report) -> None:
        rate = report.records / report.seconds
        size = (record_size or 0) * rate / MIB
        click.echo(
            f"{report.records} records sent, {rate:.1f} records/sec ({size:.2f} MB/sec), "
            f"{report.mean_ms:.1f} ms avg latency, {report.max_ms:.1f} ms max latency."
        )

    async def main() -> tuple[producing.Produced, producing.ReadBack | None]:
        begin = await producing.ends_of(servers, topic) if check else {}
        async with Producer(
            bootstrap_servers=servers, **{"client_id": "perf-producer-client", **arguments}
        ) as client:
            done = await producing.produce(
                client,
                topic,
                payloads,
                num_records,
                rate=throughput if throughput > 0 else None,
                bulk=how == "many",
                tell=tell if output == "text" else lambda report: None,
            )
        return done, await producing.read_back(servers, topic, begin) if check else None

    done, found = run_tuned(main)
    if output == "json":
        print_json({"topic": topic, "send": how, "checked": check, **msgspec.structs.asdict(done)})
    else:
        rate, each = done.records / done.seconds, done.latency_ms
        megabytes = done.bytes / done.seconds / MIB
        click.echo(
            f"{done.records} records sent, {rate:.1f} records/sec ({megabytes:.2f} MB/sec), "
            f"{each.mean:.2f} ms avg latency, {each.max:.2f} ms max latency, {each.p50:.0f} ms 50th, "
            f"{each.p95:.0f} ms 95th, {each.p99:.0f} ms 99th, {each.p999:.0f} ms 99.9th."
        )
    if found is not None and (found.records, found.checksum) != (done.records, done.checksum):
        raise Failed(
            f"{done.records} records with checksum {done.checksum} were acknowledged, but {found.records} "
            f"with checksum {found.checksum} are in the topic (where others write to it meanwhile, use "
            "--no-check)"
        )


def _payloads(size: int | None, file: Path | None, delimiter: str) -> Payloads:
    if size is not None:
        return Pooled.random(size)
    if file is None:
        return Monotonic()
    separator = delimiter.encode().decode("unicode_escape").encode()
    values = [value for value in file.read_bytes().split(separator) if value]
    if not values:
        raise click.UsageError(f"--payload-file {file} has no values")
    return Pooled(values)


# --- Consumer ----------------------------------------------------------------------------------

_HEADER: Final = (
    "data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, "
    "rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
)


@click.command("kafka-consumer-perf-test")
@bootstrap_option
@click.option("--topic", required=True)
@click.option("--messages", type=click.IntRange(1), required=True, help="Records to read.")
@click.option("--group", help="The consumer group to read as; without one all partitions are assigned.")
@click.option("--fetch-size", type=int, default=1_048_576, show_default=True, help="Bytes a partition.")
@click.option("--from-latest", is_flag=True, help="Begin at the end where there is no committed offset.")
@click.option("--timeout", type=int, default=10_000, show_default=True, help="Ms without a record; then end.")
@click.option("--show-detailed-stats", is_flag=True, help="A line each --reporting-interval.")
@click.option("--reporting-interval", type=int, default=5000, show_default=True, help="Ms.")
@click.option("--hide-header", is_flag=True)
@config_option("--consumer.config", "--command-config")
@click.option(
    "--read",
    "how",
    type=click.Choice(["objects", "columns"]),
    default="objects",
    show_default=True,
    help="objects: `getmany`; columns: `getcolumns`.",
)
@output_option
@refused("--socket-buffer-size", because="the consumer leaves socket buffers to the system")
@refused("--date-format", because="times are printed as 2011-01-19 13:05:00:000 (UTC)")
@refused("--print-metrics", because="the client keeps no metrics", takes_value=False)
@refused("--num-fetch-threads", "--threads", because="one consumer reads on one loop")
def consumer(
    bootstrap: str | None,
    topic: str,
    messages: int,
    group: str | None,
    fetch_size: int,
    from_latest: bool,
    timeout: int,
    show_detailed_stats: bool,
    reporting_interval: int,
    hide_header: bool,
    config_file: Path | None,
    how: str,
    output: str,
) -> None:
    """Read records as fast as they go. The checksum of each batch is checked, and that none is left out.

    \b
    kafka-consumer-perf-test --bootstrap-server localhost:9092 --topic t --messages 1000000
    """
    properties = read_properties(config_file)
    arguments = {
        "client_id": "perf-consumer-client",
        "auto_offset_reset": "latest" if from_latest else "earliest",
        "max_partition_fetch_bytes": fetch_size,
        **client_arguments(properties, CONSUMER_PROPERTIES),
    }
    if group is not None:
        arguments["group_id"] = group
    servers = bootstrap_servers(bootstrap, properties)
    started = time.time()
    before = [consuming.Consumed(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)]

    def tell(so_far: consuming.Consumed) -> None:
        last = before[0]
        records, size = so_far.records - last.records, so_far.bytes - last.bytes
        seconds = so_far.seconds - last.seconds
        click.echo(
            f"{_time(started + so_far.seconds)}, 0, {so_far.bytes / MIB:.4f}, {size / MIB / seconds:.4f}, "
            f"{so_far.records}, {records / seconds:.4f}, {so_far.join_s * 1000:.0f}, "
            f"{(so_far.seconds - so_far.join_s) * 1000:.0f}, {size / MIB / seconds:.4f}, "
            f"{records / seconds:.4f}"
        )
        before[0] = so_far

    async def main() -> consuming.Consumed:
        async with Consumer(topic, bootstrap_servers=servers, **arguments) as client:
            return await consuming.consume(
                client,
                messages,
                timeout_s=timeout / 1000,
                columns=how == "columns",
                tell=tell if show_detailed_stats and output == "text" else lambda so_far: None,
                report_every_s=reporting_interval / 1000,
            )

    if output == "text" and not hide_header:
        first = "time, threadId, " if show_detailed_stats else "start.time, end.time, "
        click.echo(first + _HEADER)
    try:
        done: consuming.Consumed = run_tuned(main)
    except consuming.WrongCount as error:
        raise Failed(str(error)) from error
    if output == "json":
        print_json({"topic": topic, "read": how, **msgspec.structs.asdict(done)})
    elif not show_detailed_stats:
        seconds = max(done.seconds, 1e-9)
        fetch_s = max(done.seconds - done.join_s, 1e-9)
        click.echo(
            f"{_time(started)}, {_time(started + done.seconds)}, {done.bytes / MIB:.4f}, "
            f"{done.bytes / MIB / seconds:.4f}, {done.records}, {done.records / seconds:.4f}, "
            f"{done.join_s * 1000:.0f}, {fetch_s * 1000:.0f}, {done.bytes / MIB / fetch_s:.4f}, "
            f"{done.records / fetch_s:.4f}"
        )
    if done.records < messages:
        click.echo(
            f"WARNING: Exiting before consuming the expected number of messages: timeout ({timeout} ms) "
            "exceeded. You can use the --timeout option to increase the timeout.",
            err=True,
        )


def _time(seconds: float) -> str:
    """As Kafka's default `yyyy-MM-dd HH:mm:ss:SSS`, in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}:{moment.microsecond // 1000:03d}"


# --- End to end --------------------------------------------------------------------------------


@click.command("kafka-e2e-latency")
@click.argument("bootstrap", metavar="BROKER_LIST")
@click.argument("topic")
@click.argument("num_messages", type=click.IntRange(1))
@click.argument("producer_acks", type=click.Choice(["1", "all", "-1"]))
@click.argument("message_size_bytes", type=click.IntRange(8))
@click.argument("properties_file", required=False, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Records a second, each measured from when it was to be sent; without it, one after the other.",
)
@click.option("--warm-up", type=click.IntRange(0), default=0, help="Records before those that count.")
@output_option
def end_to_end_latency(
    bootstrap: str,
    topic: str,
    num_messages: int,
    producer_acks: str,
    message_size_bytes: int,
    properties_file: Path | None,
    rate: float | None,
    warm_up: int,
    output: str,
) -> None:
    """Measure how long records take from a producer to a consumer. Each must come once, unchanged.

    \b
    kafka-e2e-latency localhost:9092 t 10000 all 100
    kafka-e2e-latency localhost:9092 t 10000 all 100 --rate 1000
    """
    properties = read_properties(properties_file)
    known: Mapping[str, Any] = client_arguments(properties, COMMON_PROPERTIES)

    async def main() -> end_to_end.Measured:
        async with (
            Producer(bootstrap_servers=bootstrap, acks=producer_acks, linger_ms=0, **known) as sending,
            Consumer(bootstrap_servers=bootstrap, **known) as reading,
        ):
            return await end_to_end.measure(
                sending,
                reading,
                topic,
                num_messages,
                size=message_size_bytes,
                rate=rate,
                warm_up=warm_up,
            )

    try:
        done: end_to_end.Measured = run_tuned(main)
    except* end_to_end.WrongRecord as errors:
        raise Failed(str(errors.exceptions[0])) from None
    if output == "json":
        print_json({"topic": topic, "acks": producer_acks, "rate": rate, **msgspec.structs.asdict(done)})
        return
    each: Summary = done.latency_ms
    click.echo(f"Avg latency: {each.mean:.4f} ms")
    click.echo(f"Percentiles: 50th = {each.p50:.3f}, 99th = {each.p99:.3f}, 99.9th = {each.p999:.3f}")


perf.add_command(producer, "producer")
perf.add_command(consumer, "consumer")
perf.add_command(end_to_end_latency, "end-to-end")
