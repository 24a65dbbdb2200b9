"""`scripts/bench`: the table of LinkedIn's benchmark of 2014 and more, on fresh clusters, in alternation."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from kafkalite.cli.client_options import outcomes as client_outcomes
from kafkalite.cli.cluster import outcomes as cluster_outcomes
from kafkalite.cli.cluster import quiet_zookeeper
from kafkalite.cli.outcome import Failed
from kafkalite.perf.groups import GROUP_ROWS, GroupRow, GroupRun, run_group_row
from kafkalite.perf.kafka import Kafka, KafkaFailed, KafkaRun
from kafkalite.perf.machine import machine, peak_rss_mb
from kafkalite.perf.plot import Bar, svg
from kafkalite.perf.python_clients import MODULES, installed
from kafkalite.perf.rows import ROWS, TABLE, Row
from kafkalite.perf.runner import Run, RunFailed, Spread, run_row
from kafkalite.perf.studies import STUDIES, Figure, Size


@click.command()
@click.option(
    "--rows",
    "names",
    help="Only these rows, with commas between; `groups` for those about groups, `all` for everything.",
)
@click.option("--records", type=click.IntRange(1000), default=2_000_000, show_default=True, help="A row.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="All rows, so often.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Where bench.json and bench.svg go.",
)
@click.option("--against", metavar="HOST:PORT", help="A running Apache Kafka to measure in alternation.")
@click.option(
    "--kafka-home",
    envvar="KAFKA_HOME",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Kafka's directory, or a folder of its jars; KAFKA_HOME by default.",
)
@click.option("--list", "only_list", is_flag=True, help="Print the rows' names and what they are.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def bench(
    names: str | None,
    records: int,
    rounds: int,
    results: Path,
    against: str | None,
    kafka_home: Path | None,
    only_list: bool,
    output: str,
) -> None:
    """Measure producing, consuming, latency and groups, each row on a fresh cluster.

    Every record that was acknowledged is read back: count and checksum must agree. In groups every record
    must have been processed once.

    \b
    scripts/bench
    scripts/bench --rows produce-3x-all,consume-columns --rounds 5
    scripts/bench --rows groups
    KAFKA_HOME=/opt/kafka scripts/bench --against localhost:9092
    """
    if only_list:
        titles = {name: each.title for name, each in ROWS.items()}
        titles |= {name: each.title for name, each in GROUP_ROWS.items()}
        titles |= {name: each.title for name, each in STUDIES.items()}
        for name, title in titles.items():
            click.echo(f"{name:18} {title}")
        return
    rows, group_rows, studies = _chosen(names)
    if against is not None and kafka_home is None:
        raise click.UsageError("--against needs Kafka's own tools: give --kafka-home, or set KAFKA_HOME")
    if against is not None and (missing := MODULES.keys() - set(installed())):
        click.echo(f"not measured, because not installed: {', '.join(sorted(missing))}", err=True)
    kafka = Kafka(against, kafka_home) if against is not None and kafka_home is not None else None
    quiet_zookeeper()
    if output == "text":
        click.echo(machine())
    found = _Found()
    say: Callable[[str], None] = click.echo if output == "text" else lambda words: None
    try:
        with cluster_outcomes(), client_outcomes():
            _measure(rows, group_rows, studies, kafka, rounds=rounds, records=records, found=found, say=say)
    except (RunFailed, KafkaFailed) as error:
        raise Failed(str(error)) from error
    finally:
        # Rows take minutes: what one of them runs into must not cost what the others found.
        files = found.write(rows, results)
        if files:
            say(f"\nIt is all in {' and '.join(str(results / name) for name in files)}.")
    if output == "json":
        click.echo((results / "bench.json").read_text())
        return
    if rows:
        click.echo(f"\nmedian (min to max) of {rounds} rounds:")
    for row in rows:
        beside = _beside([each for each in found.kafka if each.row == row.name])
        click.echo(_text(row, found.of(row)) + beside)
    for group_row in group_rows:
        click.echo(_group_text(group_row, [run for run in found.groups if run.row == group_row.name]))


class _Found(msgspec.Struct):
    """What has been measured so far."""

    runs: list[Run] = []
    kafka: list[KafkaRun] = []
    groups: list[GroupRun] = []
    studies: dict[str, list[Figure]] = {}

    def of(self, row: Row) -> list[Run]:
        return [run for run in self.runs if run.row == row.name]

    def write(self, rows: Sequence[Row], results: Path) -> list[str]:
        """Write the files into ``results``; returns their names, none where nothing was measured."""
        if not (self.runs or self.groups or self.studies):
            return []
        measured = [row for row in rows if self.of(row)]
        document = {
            "machine": machine(),
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "rows": [_summary(row, self.of(row)) for row in measured],
            **msgspec.structs.asdict(self),
        }
        results.mkdir(parents=True, exist_ok=True)
        (results / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
        if not measured:
            return ["bench.json"]
        (results / "bench.svg").write_text(_plot(measured, self.runs))
        return ["bench.json", "bench.svg"]


def _measure(
    rows: Sequence[Row],
    group_rows: Sequence[GroupRow],
    studies: Sequence[str],
    kafka: Kafka | None,
    *,
    rounds: int,
    records: int,
    found: _Found,
    say: Callable[[str], None],
) -> None:
    """Measure everything in turn and add it to ``found``. Raises RunFailed, KafkaFailed."""
    for number in range(rounds):
        for row in rows:
            run = run_row(row, records, lambda words: None)
            found.runs.append(run)
            others = [] if kafka is None else _others(kafka, row, records)
            found.kafka += others
            say(f"round {number + 1}: {_text(row, [run])}{_beside(others)}")
        for group_row in group_rows:
            group_run = run_group_row(group_row, records, lambda words: None)
            found.groups.append(group_run)
            say(f"round {number + 1}: {_group_text(group_row, [group_run])}")
    for name in studies:
        figures = found.studies[name] = STUDIES[name].run(Size(), lambda words: None)
        say(f"{STUDIES[name].title}:")
        for figure in figures:
            say(f"  {figure.what}: {figure.value:,.2f} {figure.unit}")


class _Chosen(NamedTuple):
    """What was asked for."""

    rows: Sequence[Row] = ()
    group_rows: Sequence[GroupRow] = ()
    studies: Sequence[str] = ()


def _chosen(names: str | None) -> _Chosen:
    if names is None:
        return _Chosen(TABLE)
    if names == "all":
        return _Chosen(tuple(ROWS.values()), tuple(GROUP_ROWS.values()), tuple(STUDIES))
    if names == "groups":
        return _Chosen(group_rows=tuple(GROUP_ROWS.values()))
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in {*ROWS, *GROUP_ROWS, *STUDIES}]
    if unknown:
        raise click.UsageError(f"--rows: there is no row {unknown[0]!r}; --list prints them all")
    return _Chosen(
        [ROWS[name] for name in wanted if name in ROWS],
        [GROUP_ROWS[name] for name in wanted if name in GROUP_ROWS],
        [name for name in wanted if name in STUDIES],
    )


def _group_text(row: GroupRow, runs: Sequence[GroupRun]) -> str:
    """The median of each figure; with several rounds also from where to where it went."""
    parts = []
    for name in runs[0].figures:
        spread = Spread.of([run.figures[name] for run in runs])
        width = f" ({_number(spread.low)} to {_number(spread.high)})" if len(runs) > 1 else ""
        parts.append(f"{name.replace('_', ' ')} {_number(spread.median)}{width}")
    memory = max(run.broker_peak_rss_mb for run in runs)
    return f"{row.title}: {', '.join(parts)}; a broker's memory {memory:.0f} MB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _text(row: Row, runs: Sequence[Run]) -> str:
    memory = max(run.broker_peak_rss_mb for run in runs)
    brokers = Spread.of([run.broker_cpu_s_per_million for run in runs])
    clients = Spread.of([run.client_cpu_s_per_million for run in runs])
    if runs[0].latency_ms is not None:
        found = [run.latency_ms for run in runs if run.latency_ms is not None]
        return f"{row.title}: {_latency_text(found)}"
    rate = Spread.of([run.records_per_s for run in runs])
    width = f" ({rate.low:,.0f} to {rate.high:,.0f})" if len(runs) > 1 else ""
    return (
        f"{row.title}: {rate.median:,.0f} records/s{width}, CPU s/M records: brokers {brokers.median:.2f}, "
        f"clients {clients.median:.2f}; a broker's memory {memory:.0f} MB"
    )


def _latency_text(runs: Sequence[Mapping[str, float]]) -> str:
    """The medians of several rounds."""
    parts = [
        f"{name} {Spread.of([run[key] for run in runs]).median:.2f}"
        for name, key in (("mean", "mean"), ("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))
    ]
    return f"{', '.join(parts)} ms"


def _others(kafka: Kafka, row: Row, records: int) -> list[KafkaRun]:
    """What Apache Kafka does in ``row``, by its own tools and by the Python clients that are installed."""
    runs = [
        kafka.run_row(row, records),
        *(kafka.run_python(client, row, records) for client in installed()),
    ]
    return [run for run in runs if run is not None]


def _beside(runs: Sequence[KafkaRun]) -> str:
    """What Apache Kafka did in the same row; nothing where it was not asked."""
    parts = []
    for client in dict.fromkeys(run.client for run in runs):
        same = [run for run in runs if run.client == client]
        latencies = [run.latency_ms for run in same if run.latency_ms is not None]
        who = "Apache Kafka" if client == "java" else f"with {client}"
        if latencies:
            parts.append(f"; {who}: {_latency_text(latencies)}")
        else:
            found = Spread.of([run.records_per_s for run in same])
            parts.append(f"; {who}: {found.median:,.0f} records/s")
    return "".join(parts)


def _summary(row: Row, same: Sequence[Run]) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(row),
        "records_per_s": Spread.of([run.records_per_s for run in same])._asdict(),
        "client_cpu_s_per_million": Spread.of([r.client_cpu_s_per_million for r in same])._asdict(),
        "broker_cpu_s_per_million": Spread.of([r.broker_cpu_s_per_million for r in same])._asdict(),
        "broker_peak_rss_mb": max(run.broker_peak_rss_mb for run in same),
    }


def _plot(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    bars = []
    for row in rows:
        same = [run for run in runs if run.row == row.name]
        if same[0].latency_ms is None:
            spread = Spread.of([run.records_per_s for run in same])
            bars.append(Bar(row.title, spread.median, spread.low, spread.high, row.aim))
    return svg("Records a second; the dashed line is the aim", bars)


@click.command()
@click.argument("task")
def worker(task: str) -> None:
    """One of the benchmark's own processes."""
    import uvloop

    from kafkalite.perf.worker import Work, work
    from kafkalite.server.malloc import tune_process

    tune_process()
    with client_outcomes():
        done = uvloop.run(work(msgspec.json.decode(task, type=Work)))
    answer = {**msgspec.to_builtins(done), "peak_rss_mb": peak_rss_mb(os.getpid())}
    click.echo(msgspec.json.encode(answer).decode())


@click.command()
@click.argument("task")
def group_worker(task: str) -> None:
    """Some members of the benchmark's group."""
    import uvloop

    from kafkalite.perf.group_worker import GroupWork, work_in_group
    from kafkalite.server.malloc import tune_process

    tune_process()
    with client_outcomes():
        done = uvloop.run(work_in_group(msgspec.json.decode(task, type=GroupWork)))
    click.echo(msgspec.json.encode(done).decode())
