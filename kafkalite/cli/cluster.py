"""`kafkalite cluster`: ZooKeeper and brokers as processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.cli.place import cluster_directory, overrides_from
from kafkalite.cluster.launcher import Cluster, StartFailed, Status, TimedOut
from kafkalite.cluster.layout import BadLayout, NoCluster
from kafkalite.cluster.zookeeper import ZooKeeperNotFound

Function = TypeVar("Function", bound=Callable[..., Any])


def say(line: str) -> None:
    """Progress, for a person who watches."""
    if sys.stderr.isatty():
        click.echo(line, err=True)


def quiet_zookeeper() -> None:
    """A ZooKeeper that is down shows in the outcome; its client's own log of it would only be noise."""
    for name in ("kazoo", "zk.session"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def outcomes() -> Iterator[None]:
    """Turn what the launcher raises into one line and an exit code."""
    try:
        yield
    except NoCluster as error:
        raise Failed(f"{error}: make one with `kafkalite cluster up`", ExitCode.NOT_FOUND) from error
    except KeyError as error:
        raise Failed(str(error.args[0]), ExitCode.NOT_FOUND) from error
    except TimedOut as error:
        raise Failed(str(error), ExitCode.TIMED_OUT) from error
    except (BadLayout, StartFailed, ZooKeeperNotFound) as error:
        raise Failed(str(error)) from error
    except KeyboardInterrupt as error:
        raise Failed(
            "interrupted; what was started goes on: see kafkalite cluster status", ExitCode.INTERRUPTED
        ) from error
    except BrokenPipeError:
        raise  # No fault of the cluster's: whoever read our output has seen enough.
    except OSError as error:
        raise Failed(f"{error.filename or 'this machine'}: {error.strerror}") from error


def show(status: Status, output: str) -> None:
    """Print a status: as JSON, or in words."""
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
        return
    width = max(len(process.name) for process in status.processes)
    click.echo(f"{status.state}  {status.dir}")
    click.echo(f"cluster id         {status.cluster_id or '-'}")
    click.echo(f"controller         {status.controller if status.controller is not None else 'none'}")
    click.echo(f"bootstrap servers  {status.bootstrap_servers}")
    click.echo(f"zookeeper connect  {status.zookeeper_connect}")
    for process in status.processes:
        pid = f"pid {process.pid}" if process.pid is not None else "-"
        click.echo(
            f"  {process.name:<{width}}  {process.state:<8}  {process.host}:{process.port:<5}  "
            f"{pid:<11}  {process.log}"
        )


def options(*, names: bool, timeout_s: float | None = None) -> Callable[[Function], Function]:
    """The options that all verbs share."""

    def decorate(function: Function) -> Function:
        if timeout_s is not None:
            function = click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0.1),
                default=timeout_s,
                show_default=True,
                help="Seconds to wait for it to come true.",
            )(function)
        function = click.option(
            "--output",
            type=click.Choice(["text", "json"]),
            default="text",
            help="json: print the status afterwards as one JSON document.",
        )(function)
        function = click.option(
            "--dir",
            "directory",
            type=click.Path(path_type=Path, file_okay=False),
            help="The cluster's directory; ./.kafkalite unless given.",
        )(function)
        if names:
            function = click.argument("names", nargs=-1, metavar="[NAME]...")(function)
        return function

    return decorate


def load(directory: Path | None) -> Cluster:
    """The cluster that the command means."""
    return Cluster.load(cluster_directory(directory), say=say)


def show_after(cluster: Cluster, output: str) -> None:
    """Verbs are silent, as Unix has it, but for who asks for JSON."""
    if output == "json":
        show(cluster.status(), output)


@click.group()
def cluster() -> None:
    """ZooKeeper and brokers as processes of this machine.

    Processes are called broker-1, broker-2, …, zookeeper-1, …; a verb without names means all.

    \b
    kafkalite cluster up --brokers 3 --zookeepers 3
    kafkalite cluster kill broker-2
    """
    quiet_zookeeper()


@cluster.command()
@click.option("--brokers", type=click.IntRange(1, 100), help="How many brokers (3).")
@click.option("--zookeepers", type=click.IntRange(1, 9), help="How many ZooKeepers (1).")
@click.option(
    "--override", "override", multiple=True, metavar="K=V", help="Broker configuration, for every broker."
)
@options(names=False, timeout_s=120)
def up(
    brokers: int | None,
    zookeepers: int | None,
    override: tuple[str, ...],
    directory: Path | None,
    output: str,
    timeout_s: float,
) -> None:
    """Start the cluster (make it, the first time); return when every broker serves."""
    with outcomes():
        try:
            overrides = overrides_from(override)
        except ValueError as error:
            raise click.UsageError(f"--override: {error}") from error
        found = Cluster.load_or_create(
            cluster_directory(directory), brokers=brokers, zookeepers=zookeepers, overrides=overrides, say=say
        )
        show(found.up(timeout_s=timeout_s), output)


@cluster.command()
@options(names=False)
def status(directory: Path | None, output: str) -> None:
    """Show every process, and whether the cluster is healthy.

    Exit code 0 when it is healthy, 10 when it is not, 3 when there is no cluster.
    """
    with outcomes():
        found = load(directory).status()
        show(found, output)
    if found.state != "healthy":
        raise Failed("", ExitCode.UNHEALTHY)


@cluster.command()
@options(names=True)
def kill(names: tuple[str, ...], directory: Path | None, output: str) -> None:
    """End processes at once (SIGKILL); return when they are gone."""
    with outcomes():
        found = load(directory)
        found.kill(names)
        show_after(found, output)


@cluster.command()
@options(names=True)
def pause(names: tuple[str, ...], directory: Path | None, output: str) -> None:
    """Freeze processes where they are (SIGSTOP)."""
    with outcomes():
        found = load(directory)
        found.pause(names)
        show_after(found, output)


@cluster.command()
@options(names=True)
def resume(names: tuple[str, ...], directory: Path | None, output: str) -> None:
    """Let paused processes go on (SIGCONT)."""
    with outcomes():
        found = load(directory)
        found.resume(names)
        show_after(found, output)


@cluster.command()
@options(names=True, timeout_s=120)
def start(names: tuple[str, ...], directory: Path | None, output: str, timeout_s: float) -> None:
    """Start processes; return when they serve again."""
    with outcomes():
        found = load(directory)
        found.start(names, timeout_s=timeout_s)
        show_after(found, output)


@cluster.command()
@options(names=True, timeout_s=120)
def stop(names: tuple[str, ...], directory: Path | None, output: str, timeout_s: float) -> None:
    """Stop processes in good order (SIGTERM: a broker hands over its leaders first)."""
    with outcomes():
        found = load(directory)
        found.stop(names, timeout_s=timeout_s)
        show_after(found, output)


@cluster.command()
@options(names=True, timeout_s=120)
def restart(names: tuple[str, ...], directory: Path | None, output: str, timeout_s: float) -> None:
    """Stop and start processes, one after the other."""
    with outcomes():
        found = load(directory)
        found.restart(names, timeout_s=timeout_s)
        show_after(found, output)


@cluster.command()
@click.option("--delete", is_flag=True, help="Remove the data too.")
@options(names=False, timeout_s=60)
def down(directory: Path | None, output: str, timeout_s: float, delete: bool) -> None:
    """Stop everything; the data stays, unless --delete."""
    with outcomes():
        found = load(directory)
        found.down(timeout_s=timeout_s, delete=delete)
        if not delete:
            show_after(found, output)
