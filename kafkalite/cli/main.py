"""The tree of commands. A command's module is imported when the command is looked up, not before."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, Final, NamedTuple, NoReturn

import click

from kafkalite.cli.outcome import ExitCode, Failed


class Entry(NamedTuple):
    """Where a command is to be found, and its line in `--help`."""

    module: str
    attribute: str
    help: str
    hidden: bool = False


COMMANDS: Final[dict[str, Entry]] = {
    "broker": Entry("broker", "broker", "Run one broker in the foreground."),
    "cluster": Entry("cluster", "cluster", "Run a whole cluster on this machine."),
    "compose": Entry("compose", "compose", "Run a cluster in containers, and break it."),
    "topics": Entry("topics", "topics", "Create, list and describe topics."),
    "console-producer": Entry("console_producer", "console_producer", "Send lines of stdin to a topic."),
    "console-consumer": Entry("console_consumer", "console_consumer", "Print the records of topics."),
    "get-offsets": Entry("get_offsets", "get_offsets", "Print offsets of partitions."),
    "consumer-groups": Entry(
        "consumer_groups", "consumer_groups", "List, describe, reset and delete consumer groups."
    ),
    "events": Entry("events", "events", "Show what changed in the cluster, and why."),
    "why": Entry("why", "why", "Say why a partition is as it is."),
    "torture": Entry("torture", "torture", "Break a cluster at random, and check that it keeps its word."),
    "quickstart": Entry("quickstart", "quickstart", "A cluster, and a real file through it."),
    "perf": Entry("perf", "perf", "Measure producing, consuming and latency."),
    "bench": Entry("bench", "bench", "Measure producing and consuming."),
    # The scripts' names: Kafka's own output where `kafkalite` itself has a more talkative one.
    "kafka-topics": Entry("topics", "kafka_topics", "kafka-topics, as Kafka has it.", hidden=True),
    "kafka-console-producer": Entry("console_producer", "console_producer", "", hidden=True),
    "kafka-console-consumer": Entry("console_consumer", "console_consumer", "", hidden=True),
    "kafka-producer-perf-test": Entry("perf", "producer", "", hidden=True),
    "kafka-consumer-perf-test": Entry("perf", "consumer", "", hidden=True),
    "kafka-e2e-latency": Entry("perf", "end_to_end_latency", "", hidden=True),
    "bench-worker": Entry("bench", "worker", "", hidden=True),
    "bench-group-worker": Entry("bench", "group_worker", "", hidden=True),
    "kafka-consumer-groups": Entry("consumer_groups", "consumer_groups", "", hidden=True),
    "kafka-get-offsets": Entry("get_offsets", "get_offsets", "", hidden=True),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(f"kafkalite.cli.{entry.module}"), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader that has seen enough (`| head`) ends it, and that is no error."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered may not be written either, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, e.help) for name, e in COMMANDS.items() if not e.hidden])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="kafkalite", message="%(prog)s %(version)s")
def kafkalite() -> None:
    """ZooKeeper-era Kafka in Python."""


def main() -> NoReturn:
    """Run the command line and exit with one of CONTRACTS section 6's codes."""
    arguments = sys.argv[1:]
    name = os.path.basename(sys.argv[0])
    try:
        kafkalite.main(
            arguments, prog_name="kafkalite" if name == "__main__.py" else name, standalone_mode=False
        )
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.ERROR)
    except Failed as error:
        if str(error):
            click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.OK)
