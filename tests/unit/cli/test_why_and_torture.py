"""`why` and `torture` at the command line: what they refuse, and what they print."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from kafkalite.cli import main as tree
from kafkalite.cli import torture as command
from kafkalite.cli.outcome import ExitCode
from kafkalite.cluster import layout as layouts
from kafkalite.torture.run import FaultNote, Report, Settings

RECORDED = Path(__file__).parents[1] / "why" / "recorded"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["kafkalite", *arguments])
    with pytest.raises(SystemExit) as ended:
        tree.main()
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


@pytest.fixture
def dead_cluster(tmp_path: Path) -> Path:
    """A local cluster of which only the files are left; no port in it is open."""
    layout = layouts.plan(
        brokers=3,
        zookeepers=1,
        overrides={},
        ports={"zookeeper-1": (1,), "broker-1": (2,), "broker-2": (3,), "broker-3": (4,)},
    )
    layouts.save(layout, tmp_path)
    data = tmp_path / "broker-1" / "data"
    data.mkdir(parents=True)
    shutil.copy(RECORDED / "unclean.jsonl", data / "state-change.log")
    shutil.copy(RECORDED / "unclean.receipts.jsonl", data / "loss-receipts.jsonl")
    with (data / "state-change.log").open("a") as file:
        file.write('{"id": "1-1-0", "ti')  # The broker was killed while it wrote.
    return tmp_path


def test_dead_brokers_speak_through_their_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dead_cluster: Path
) -> None:
    code, out, err = run(monkeypatch, capsys, "why", "orders/0", "--dir", str(dead_cluster))
    assert code == ExitCode.OK
    assert "orders/0  led by broker 2" in out
    assert "lost: broker 1 threw away offsets 40-44 (5 records)" in out
    assert err.count("does not answer") == 3


def test_why_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dead_cluster: Path
) -> None:
    code, out, _ = run(monkeypatch, capsys, "why", "orders-0", "--dir", str(dead_cluster), "--output", "json")
    assert code == ExitCode.OK
    answer = json.loads(out)
    assert (answer["leader"], answer["silent"]) == (2, [1, 2, 3])
    assert {one["question"] for one in answer["answers"]} == {"leader", "isr", "lost"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["why", "orders"], ExitCode.USAGE),
        (["why", "orders/x"], ExitCode.USAGE),
        (["why", "orders/0", "--bootstrap-server", "127.0.0.1:1"], ExitCode.NO_CONNECTION),
        (["why", "orders/0", "--dir", "nowhere"], ExitCode.NOT_FOUND),
        (["torture", "--faults", "earthquake"], ExitCode.USAGE),
        (["torture", "--minutes", "0"], ExitCode.USAGE),
        (["torture", "--acks", "2"], ExitCode.USAGE),
    ],
)
def test_refusals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    code: ExitCode,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = run(monkeypatch, capsys, *arguments)
    assert (found, out) == (code, "")
    assert err


def test_an_unknown_partition_is_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dead_cluster: Path
) -> None:
    code, out, _ = run(monkeypatch, capsys, "why", "orders/7", "--dir", str(dead_cluster))
    assert (code, out) == (ExitCode.NOT_FOUND, "")


def report(*problems: str) -> Report:
    return Report(
        seed=7,
        acks="all",
        seconds=60.0,
        topic="torture-7-1",
        written=1200,
        acknowledged=1190,
        unknown=10,
        failed=0,
        read=3600,
        faults=[FaultNote(1, "kill", 1.0, 2.0, "killed broker-1"), FaultNote(2, "kill", 9.0, 2.0, "…")],
        without_effect=["slow: no traffic met it"],
        problems=list(problems),
        allowed=Counter(),
        lost=0,
        without_receipt=0,
        folder=Path("/kept") if problems else None,
        why=["torture-7-1/0  led by broker 1"] if problems else [],
    )


@pytest.mark.parametrize(("problems", "code"), [((), ExitCode.OK), (("lost-write: …",), ExitCode.ERROR)])
def test_the_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problems: tuple[str, ...],
    code: ExitCode,
) -> None:
    asked: list[Settings] = []

    async def torture(settings: Settings, **_: object) -> Report:
        asked.append(settings)
        return report(*problems)

    monkeypatch.setattr(command, "torture_run", torture)
    arguments = ["torture", "--minutes", "2", "--seed", "7", "--faults", "kill,pause"]
    found, out, _ = run(monkeypatch, capsys, *arguments)
    assert found == code
    assert (asked[0].seed, asked[0].minutes, asked[0].kinds) == (7, 2.0, ("kill", "pause"))
    assert "written 1,200, acknowledged 1,190" in out
    assert "faults    2 (kill 2); 1 had no effect" in out
    assert ("verdict   kept" in out) == (not problems)
    assert ("/kept" in out) == bool(problems)
    found, out, _ = run(monkeypatch, capsys, *arguments, "--output", "json")
    assert found == code
    body = json.loads(out)
    assert body["verdict"] == ("broken" if problems else "kept")
    assert body["faults"]["by_kind"] == {"kill": 2}
