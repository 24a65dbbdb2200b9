"""The tree of commands: what is refused, with which words and which exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kafkalite.cli import main as tree
from kafkalite.cli.get_offsets import parse_ranges, parse_time, parse_topic_partitions
from kafkalite.cli.outcome import ExitCode
from kafkalite.cli.place import cluster_directory, overrides_from


@pytest.fixture(autouse=True)
def _no_local_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever runs in this checkout, these tests see no cluster but their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kafkalite.cli.place.checkout", lambda: None)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr("sys.argv", ["kafkalite", *arguments])
    with pytest.raises(SystemExit) as ended:
        tree.main()
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


@pytest.mark.parametrize("name", [*tree.COMMANDS])
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(tree.kafkalite, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["clutser"], "Did you mean cluster?"),
        (["kafka-topics"], "exactly one action"),
        (["kafka-topics", "--list", "--create"], "exactly one action"),
        (["kafka-topics", "--list"], "Missing required argument --bootstrap-server"),
        (["kafka-topics", "--create", "--bootstrap-server", "h:1"], "Missing required argument --topic"),
        (["kafka-topics", "--list", "--partitions", "3"], "--partitions can't be used with --list"),
        (["kafka-topics", "--delete", "--topic", "t"], "--delete: not in this version"),
        (["kafka-topics", "--list", "--zookeeper", "h:2181"], "--zookeeper: this tool asks the brokers"),
        (
            ["kafka-topics", "--describe", "--bootstrap-server", "h:1", "--topic", "("],
            "not a regular expression",
        ),
        (["kafka-topics", "--create", "--topic", "t", "--replica-assignment", "1:1"], "duplicate entries"),
        (["kafka-topics", "--create", "--topic", "t", "--config", "nonsense"], "not of the form name=value"),
        (
            [
                *("kafka-console-consumer", "--bootstrap-server", "h:1", "--topic", "t"),
                *("--group", "g", "--partition", "0"),
            ],
            "group and partition cannot be specified together",
        ),
        (["kafka-consumer-groups", "--bootstrap-server", "h:1"], "Exactly one of --list, --describe"),
        (["kafka-consumer-groups", "--describe", "--bootstrap-server", "h:1"], "takes --group"),
        (
            [
                *("kafka-consumer-groups", "--bootstrap-server", "h:1", "--reset-offsets", "--group", "g"),
                *("--to-latest", "--all-topics", "--to-offset", "1"),
            ],
            "Exactly one of --to-earliest",
        ),
        (["kafka-console-consumer"], "Exactly one of --topic and --include"),
        (["kafka-console-consumer", "--topic", "t", "--offset", "3"], "The partition is required"),
        (
            ["kafka-console-consumer", "--topic", "t", "--consumer-property", "sasl.jaas.config=r"],
            "property sasl.jaas.config: not honoured",
        ),
        (["kafka-console-producer", "--topic", "t", "--line-reader", "X"], "--line-reader: readers are Java"),
        (["kafka-console-producer", "--topic", "t", "--property", "nope=1"], "there is no such property"),
        (["kafka-get-offsets", "--time", "-4"], "no tiered storage"),
        (["cluster", "up", "--override", "nonsense"], "not of the form name=value"),
        (["cluster", "explode"], "No such command"),
    ],
)
def test_usage_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert complaint in " ".join(err.split())


@pytest.mark.parametrize("verb", ["status", "kill", "pause", "resume", "start", "stop", "restart", "down"])
def test_no_cluster_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    code, out, err = run(monkeypatch, capsys, "cluster", verb, "--dir", str(tmp_path))
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert err == f"no cluster in {tmp_path}: make one with `kafkalite cluster up`\n"


def test_a_wrong_override_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(
        monkeypatch, capsys, "cluster", "up", "--dir", str(tmp_path), "--override", "min.insync.replica=2"
    )
    assert code == ExitCode.ERROR
    assert err.count("\n") == 1
    assert "did you mean min.insync.replicas?" in err
    assert not (tmp_path / "cluster.json").exists()


def test_nobody_there_is_7(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(monkeypatch, capsys, "kafka-topics", "--list", "--bootstrap-server", "127.0.0.1:1")
    assert code == ExitCode.NO_CONNECTION
    assert err.startswith("Error while executing topic command : ")
    assert "127.0.0.1:1" in err


def test_a_broker_that_cannot_start_is_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "server.properties"
    config.write_text("broker.id=zero\n")
    code, out, err = run(monkeypatch, capsys, "broker", "--config", str(config))
    assert (code, out) == (ExitCode.ERROR, "")
    assert err.count("\n") == 1
    assert "broker.id=zero" in err


def test_the_checkouts_cluster_is_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    (checkout / ".kafkalite").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("kafkalite.cli.place.checkout", lambda: checkout)
    assert cluster_directory(None) == Path(".kafkalite"), "there is none yet"
    (checkout / ".kafkalite" / "cluster.json").touch()
    assert cluster_directory(None) == checkout / ".kafkalite"
    (elsewhere / ".kafkalite").mkdir()
    (elsewhere / ".kafkalite" / "cluster.json").touch()
    assert cluster_directory(None) == Path(".kafkalite"), "the nearer one counts"
    assert cluster_directory(Path("given")) == Path("given")


def test_overrides() -> None:
    assert overrides_from(("a=b=c", " d = e ")) == {"a": "b=c", "d": "e"}
    with pytest.raises(ValueError, match="'x' is not of the form"):
        overrides_from(("x",))


def test_times_and_ranges() -> None:
    assert [parse_time(t) for t in ("latest", "-1", "earliest", "max-timestamp", "17")] == [
        -1,
        -1,
        -2,
        -3,
        17,
    ]
    with pytest.raises(ValueError, match="milliseconds"):
        parse_time("yesterday")
    assert [n for n in range(9) if any(n in r for r in parse_ranges("0,2-4,7-"))] == [0, 2, 3, 7, 8]
    assert parse_ranges("-3") == [range(3)]
    with pytest.raises(ValueError, match="neither a partition nor a range"):
        parse_ranges("x")
    rules = parse_topic_partitions("t:0,u:1-3,v")
    assert [(name.pattern, ranges) for name, ranges in rules] == [
        ("t", [range(1)]),
        ("u", [range(1, 3)]),
        ("v", []),
    ]
    assert isinstance(rules[0][0], re.Pattern)


def test_commands_are_clicks() -> None:
    context = click.Context(tree.kafkalite)
    for name in tree.COMMANDS:
        assert isinstance(tree.kafkalite.get_command(context, name), click.Command)
