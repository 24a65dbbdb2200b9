"""`kafkalite events`: the journals of all brokers as one, so that a change and its cause stand together."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import click

from kafkalite.cli.client_options import bootstrap_option, bootstrap_servers
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.client.cluster import parse_bootstrap
from kafkalite.common import Address

TIMEOUT_S = 5.0


@click.command()
@bootstrap_option
@click.option("--type", "event_type", help="Only events of this type, such as LeaderElected.")
@click.option("--topic", help="Only events of this topic.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", help="json: one event a line, on stdout."
)
def events(bootstrap: str | None, event_type: str | None, topic: str | None, limit: int, output: str) -> None:
    """Show what changed in the cluster, and why; of every broker named that answers.

    An event is followed by the id of what caused it, which may be another broker's.

    \b
    kafkalite events --limit 20
    kafkalite events --type LeaderElected --topic orders
    """
    found: list[dict[str, Any]] = []
    silent = []
    try:
        addresses = parse_bootstrap(bootstrap_servers(bootstrap, {}))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for address in addresses:
        try:
            found += journal(address, event_type)
        except (OSError, http.client.HTTPException, ValueError) as error:
            silent.append(f"{address}: {error}")
    for line in silent:
        click.echo(f"not asked: {line}", err=True)
    if len(silent) == len(addresses):
        raise Failed("no broker answered", ExitCode.NO_CONNECTION)
    chosen = [event for event in found if topic is None or event.get("topic") == topic]
    chosen.sort(key=lambda event: (event["time"], event["broker"]))
    for event in chosen[-limit:]:
        click.echo(json.dumps(event, separators=(",", ":")) if output == "json" else line_of(event))


def journal(address: Address, event_type: str | None) -> Iterable[dict[str, Any]]:
    """All that one broker's ring holds. Raises OSError, HTTPException, ValueError."""
    after: str | None = None
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    found: list[dict[str, Any]] = []
    try:
        while True:
            query = {"limit": "1000", "type": event_type, "after": after}
            target = "/v1/events?" + urlencode({name: text for name, text in query.items() if text})
            connection.request("GET", target, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            if answer.status != 200:
                raise ValueError(body.get("message", f"status {answer.status}"))
            found += body["events"]
            after = body["next"]
            if len(body["events"]) < 1000:
                return found
    finally:
        connection.close()


def line_of(event: dict[str, Any]) -> str:
    """One event in words: when, who, what, where, the facts, and why."""
    when = datetime.fromtimestamp(event["time"] / 1000, UTC).isoformat(timespec="milliseconds")
    where = event.get("topic", "")
    if "partition" in event:
        where += f"-{event['partition']}"
    facts = " ".join(f"{name}={_plain(value)}" for name, value in event["facts"].items())
    cause = f"<- {event['cause']}" if event["cause"] is not None else ""
    parts = [when.replace("+00:00", "Z"), f"[{event['id']}]", event["type"], where, facts, cause]
    return " ".join(part for part in parts if part)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
