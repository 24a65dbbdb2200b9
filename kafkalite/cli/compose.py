"""`kafkalite compose` (`scripts/compose`): a cluster in containers, and what can be done to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.cli.place import checkout
from kafkalite.compose import faults, verbs
from kafkalite.compose.answer import text
from kafkalite.compose.project import OVERLAYS, ComposeFailed, NoEngine, NoProject, Project
from kafkalite.compose.view import look

Command = Callable[..., None]


@click.group()
def compose() -> None:
    """Run a cluster in containers; break it, and see how it answers.

    \b
    scripts/compose up
    scripts/compose kill broker-2
    scripts/compose partition broker-1 --from zookeeper
    scripts/compose heal

    Services are named as in compose/docker-compose.yml: zookeeper-1 to -3, broker-1 to -3.
    A command that breaks something first makes sure that it is really broken, then waits until the
    cluster has answered, and shows the answer from the brokers' journals.
    """


def _options(function: Command) -> Command:
    function = click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", help="json: one document on stdout."
    )(function)
    function = click.option(
        "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=120, show_default=True,
        help="Seconds that the cluster has to answer.",
    )(function)  # fmt: skip
    return click.option("--project", help="The compose project's name; that of compose/.env unless given.")(
        function
    )


def _names(required: bool) -> Callable[[Command], Command]:
    return click.argument("names", nargs=-1, required=required, metavar="SERVICE...")


@compose.command()
@click.option(
    "--with", "overlays", multiple=True, type=click.Choice(OVERLAYS),
    help="An overlay; more than one may be given. A running cluster keeps those it has.",
)  # fmt: skip
@click.option("--build", is_flag=True, help="Build the images anew.")
@_options
def up(overlays: tuple[str, ...], build: bool, project: str | None, timeout_s: float, output: str) -> None:
    """Start the cluster; return when every broker serves."""
    with _outcomes():
        chosen = [one for one in OVERLAYS if one in overlays]
        found = _project(project)
        _show(_verbs(found, timeout_s).up(chosen, build=build), output)
        if output == "text":
            addresses = ",".join(f"127.0.0.1:{one.host_port}" for one in found.brokers())
            click.echo(f"Clients on this machine begin with {addresses}; inside, with broker-1:9092.")


@compose.command()
@click.option("--volumes", is_flag=True, help="Remove the data too: ZooKeeper's and the brokers', together.")
@click.option("--project", help="The compose project's name; that of compose/.env unless given.")
def down(volumes: bool, project: str | None) -> None:
    """Stop and remove the containers; the data stays, unless --volumes."""
    with _outcomes():
        _verbs(_project(project), 0).down(volumes=volumes)


@compose.command()
@_options
def ps(project: str | None, timeout_s: float, output: str) -> None:
    """Show what runs, who leads, and which faults are in force. Exit code 10 where not all is well."""
    with _outcomes():
        found = _project(project)
        services = found.services()
        view = look([one for one in services if one.kind == "broker" and one.status == "running"])
        rows = []
        for one in services:
            broken = faults.in_force(found, one)
            leads = None
            if one.kind == "broker":
                parts = view.agreed or next(iter(view.partitions.values()), ())
                leads = sum(part.leader == one.id for part in parts)
                if one.status == "running" and one.id not in view.answering and not broken:
                    broken.append("does not answer")
            rows.append(
                {
                    "service": one.name,
                    "status": one.status,
                    "health": one.health,
                    "port": one.host_port,
                    "controller": one.kind == "broker" and one.id == view.controller,
                    "leads": leads,
                    "faults": broken,
                }
            )
        healthy = view.controller is not None and not view.broken and not any(row["faults"] for row in rows)
        if output == "json":
            answer = {"state": "healthy" if healthy else "degraded", "controller": view.controller}
            click.echo(json.dumps(answer | {"services": rows, "broken": [part.name for part in view.broken]}))
        else:
            for row in rows:
                click.echo(_row(row))
            if view.broken:
                click.echo(f"not whole: {', '.join(part.name for part in view.broken)}")
        if not healthy:
            raise Failed("", ExitCode.UNHEALTHY)


@compose.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--tail", type=click.IntRange(1), default=50, show_default=True, help="The last lines.")
@click.option("--project", help="The compose project's name; that of compose/.env unless given.")
@click.argument("service")
def logs(service: str, follow: bool, tail: int, project: str | None) -> None:
    """Print what a service has written."""
    with _outcomes():
        (found,) = _project(project).services([service])
        if follow:
            for part in found.container.logs(stream=True, follow=True, tail=tail):
                click.echo(part, nl=False)
        else:
            click.echo(found.container.logs(tail=tail), nl=False)


@compose.command()
@_names(required=True)
@_options
def kill(names: tuple[str, ...], project: str | None, timeout_s: float, output: str) -> None:
    """End containers at once (SIGKILL). They stay down until heal or up."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).kill(names), output)


@compose.command()
@_names(required=True)
@_options
def pause(names: tuple[str, ...], project: str | None, timeout_s: float, output: str) -> None:
    """Freeze containers, as a machine that hangs."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).pause(names), output)


@compose.command()
@_names(required=True)
@_options
def resume(names: tuple[str, ...], project: str | None, timeout_s: float, output: str) -> None:
    """Let paused containers go on."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).resume(names), output)


@compose.command()
@_names(required=True)
@click.option(
    "--from", "away_from", type=click.Choice(["zookeeper", "brokers", "all"]), default="all",
    show_default=True,
    help="The network to cut them off from. Clients on this machine reach a broker that has one left.",
)  # fmt: skip
@_options
def partition(
    names: tuple[str, ...], away_from: str, project: str | None, timeout_s: float, output: str
) -> None:
    """Cut containers off from the network."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).partition(names, away_from), output)


@compose.command()
@_names(required=False)
@_options
def heal(names: tuple[str, ...], project: str | None, timeout_s: float, output: str) -> None:
    """Undo every fault, of these services or of all, and start what does not run."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).heal(names), output)


@compose.command()
@_names(required=True)
@click.option("--delay-ms", type=click.IntRange(1), help="Hold each packet back for so long (needs netem).")
@click.option("--cpus", type=click.FloatRange(0.01), help="Leave it so many CPUs: 0.1 is a tenth of one.")
@_options
def slow(
    names: tuple[str, ...],
    delay_ms: int | None,
    cpus: float | None,
    project: str | None,
    timeout_s: float,
    output: str,
) -> None:
    """Slow containers down: their network, their CPU, or both."""
    if delay_ms is None and cpus is None:
        raise click.UsageError("say how: --delay-ms, --cpus, or both")
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).slow(names, delay_ms=delay_ms, cpus=cpus), output)


@compose.command("rolling-restart")
@_names(required=False)
@_options
def rolling_restart(names: tuple[str, ...], project: str | None, timeout_s: float, output: str) -> None:
    """Restart brokers one by one, the controller last, without a moment of absence."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).rolling_restart(names), output)


@compose.command()
@click.argument("brokers", type=int)
@click.option("--force", is_flag=True, help="Even where partitions are left without a leader.")
@_options
def scale(brokers: int, force: bool, project: str | None, timeout_s: float, output: str) -> None:
    """Let exactly brokers 1 to BROKERS run (at most 5). Data of those that go stays."""
    with _outcomes():
        _show(_verbs(_project(project), timeout_s).scale(brokers, force=force), output)


def _project(name: str | None) -> Project:
    root = checkout()
    if root is None:
        raise Failed("the compose files are in the project's checkout; run scripts/compose there")
    directory: Path = root / "compose"
    return Project(directory, name)


def _verbs(project: Project, timeout_s: float) -> verbs.Verbs:
    return verbs.Verbs(project, say=lambda line: click.echo(line, err=True), timeout_s=timeout_s)


def _show(deed: verbs.Deed, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(deed.to_json()))
        return
    click.echo(f"{deed.what[0].upper()}{deed.what[1:]}.")
    for proof in deed.proofs:
        click.echo(f"  {proof}")
    click.echo(text(deed.answer))


def _row(row: dict[str, Any]) -> str:
    role = "controller" if row["controller"] else ""
    leads = "" if row["leads"] is None else f"leads {row['leads']}"
    port = "" if row["port"] is None else f"127.0.0.1:{row['port']}"
    state = "; ".join(row["faults"]) or row["health"] or row["status"]
    return f"{row['service']:<13}{port:<17}{role:<12}{leads:<10}{state}".rstrip()


@contextlib.contextmanager
def _outcomes() -> Iterator[None]:
    """Turn what can go wrong into the exit codes of CONTRACTS section 6."""
    try:
        yield
    except NoEngine as error:
        raise Failed(str(error), ExitCode.NO_CONNECTION) from error
    except NoProject as error:
        raise Failed(str(error), ExitCode.NOT_FOUND) from error
    except (verbs.Refused, faults.NotPossible) as error:
        raise Failed(str(error), ExitCode.REFUSED) from error
    except verbs.Unanswered as error:
        raise Failed(str(error), ExitCode.TIMED_OUT) from error
    except (ComposeFailed, faults.NotInForce) as error:
        raise Failed(str(error), ExitCode.ERROR) from error
