"""`kafkalite torture`: break a cluster at random, and show whether it kept its word."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from kafkalite.cli.client_options import output_option, run
from kafkalite.cli.cluster import outcomes, quiet_zookeeper
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.torture.run import Refused, Report, Settings
from kafkalite.torture.run import torture as torture_run
from kafkalite.torture.schedule import KINDS

DEFAULT_DIRECTORY: Final = Path(".kafkalite-torture")
_EPILOG: Final = "\b\nFaults:\n" + "\n".join(f"  {name:12}{kind.summary}" for name, kind in KINDS.items())


def _kinds(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return tuple(KINDS)
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'}: there are {', '.join(KINDS)}")
    return names


@click.command(
    epilog="\b\nFaults:\n" + "\n".join(f"  {name:12}{kind.summary}" for name, kind in KINDS.items())
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=3, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="What the schedule follows from.")
@click.option("--faults", "kinds", metavar="KIND,…", callback=_kinds, help="Only these; else all.")
@click.option(
    "--acks", type=click.Choice(["all", "1", "0"]), default="all", show_default=True, help="Of all producers."
)
@click.option("--rate", type=click.IntRange(1), default=1_000, show_default=True, help="Records a second.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="The cluster's directory. One that runs there is used as it is; else one is started.",
)
@output_option
def torture(
    minutes: float, seed: int, kinds: tuple[str, ...], acks: str, rate: int, directory: Path, output: str
) -> None:
    """Break a cluster at random for a while, and check that it keeps its word.

    Three ZooKeepers and three brokers are started, records are written and read all the while, and
    what the seed says is done to processes, disks and connections. At the end every record is read,
    the replicas' files are compared, and the history is checked.

    Exit code 0 when the promise was kept, 1 when it was broken; then history and logs are kept.

    \b
    kafkalite torture --minutes 3 --seed 7
    kafkalite torture --minutes 30 --seed 1 --faults kill,pause,partition --acks 1
    """
    quiet_zookeeper()
    # What the clients complain of is in the history, record by record.
    logging.getLogger("kafkalite.client").setLevel(logging.CRITICAL)
    live = _live if sys.stderr.isatty() else None
    settings = Settings(directory, seed=seed, minutes=minutes, kinds=kinds, acks=acks, rate=rate)
    with outcomes():
        try:
            report = run(torture_run(settings, say=_say, live=live))
        except Refused as error:
            raise Failed(str(error), ExitCode.REFUSED) from error
    if live is not None:
        _live("")
    if output == "json":
        click.echo(json.dumps(report.to_json()))
    else:
        _show(report)
    if not report.is_kept:
        raise Failed("")


def _say(line: str) -> None:
    click.echo(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, err=True)


def _live(line: str) -> None:
    """Replace the line at the bottom of the terminal."""
    width = shutil.get_terminal_size().columns - 1
    click.echo(f"\r\x1b[K{line[:width]}", nl=False, err=True)


def _show(report: Report) -> None:
    click.echo(
        f"records   written {report.written:,}, acknowledged {report.acknowledged:,}, "
        f"unknown {report.unknown:,}, failed {report.failed:,}, read {report.read:,}"
    )
    if report.generations:
        click.echo(
            f"group     processed {report.processed:,}, committed {report.commits:,} offsets "
            f"in {report.generations:,} generations"
        )
    kinds = ", ".join(f"{kind} {count}" for kind, count in report.counts().items())
    click.echo(
        f"faults    {len(report.faults)} ({kinds or 'none'}); {len(report.without_effect)} had no effect"
    )
    if report.lost or report.without_receipt:
        click.echo(
            f"receipts  {report.lost:,} records that brokers threw away; "
            f"{report.without_receipt:,} acknowledged ones are gone without one"
        )
    if report.allowed:
        found = ", ".join(f"{name} {count}" for name, count in sorted(report.allowed.items()))
        click.echo(f"allowed   {found} (acks={report.acks} promises no better)")
    if report.is_kept:
        click.echo(f"verdict   kept: seed {report.seed}, {report.seconds:.0f} s")
        return
    for problem in report.problems:
        click.echo(f"problem   {problem}")
    for line in report.why:
        click.echo(f"why       {line}")
    click.echo(f"verdict   BROKEN: seed {report.seed}; history, logs and journals are in {report.folder}")
