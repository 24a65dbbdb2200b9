"""`kafkalite broker`: one broker in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kafkalite.cli.outcome import Failed
from kafkalite.cli.place import overrides_from
from kafkalite.server.config import BrokerConfig, ConfigError
from kafkalite.server.process import main


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="The server.properties to start from.",
)
@click.option("--override", multiple=True, metavar="K=V", help="A setting that counts before the file's.")
def broker(config_file: Path, override: tuple[str, ...]) -> None:
    """Run one broker in the foreground, until SIGTERM.

    Settings come from the file, from environment variables (KAFKALITE_LOG_RETENTION_MS for
    log.retention.ms) and from --override; the later ones count.

    \b
    kafkalite broker --config server.properties
    kafkalite broker --config server.properties --override broker.id=2 --override listeners=PLAINTEXT://:9093
    """
    try:
        overrides = overrides_from(override)
    except ValueError as error:
        raise click.UsageError(f"--override: {error}") from error
    try:
        config = BrokerConfig.load(config_file, environ=os.environ, overrides=overrides)
    except ConfigError as error:
        raise Failed(f"kafkalite broker: {error}") from error
    if main(config):
        raise Failed("")  # It has said why.
