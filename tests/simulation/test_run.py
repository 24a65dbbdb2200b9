"""`scripts/simulate`: what it prints at the end, and results that survive an interruption."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .run import Outcome, Summary, main


def outcome(seed: int, *, faults: int, failure: str | None = None) -> Outcome:
    return Outcome(
        seed=seed,
        profile="everything",
        minutes=10,
        failure=failure,
        tail=[],
        brokers=3,
        simulated_s=600,
        cpu_s=5,
        steps=100,
        faults=Counter({"crash": faults}),
        states=Counter({"truncation": 1}),
        records=10,
        acknowledged=9,
        read=18,
        allowed=Counter(),
    )


def test_an_outcome_comes_back_from_its_line() -> None:
    before = outcome(7, faults=12, failure="it broke")
    after = Outcome.from_json(before.to_json())
    assert after == before
    assert isinstance(after.faults, Counter)


def test_the_summary_names_the_seed_with_the_fewest_faults(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary()
    for one in (outcome(1, faults=30), outcome(2, faults=11), outcome(3, faults=2, failure="it broke\nhere")):
        summary.add(one)
    summary.print(elapsed_s=10, now_done=3)
    printed = capsys.readouterr().out
    assert "fewest faults: 11, in seed 2 (everything)" in printed
    assert "3 of 3" in printed
    assert "0.5 simulated hours, 120 times as fast as life; 43 faults, 30 records" in printed
    assert "43  crash" in printed
    assert "it broke\nhere" in printed
    assert "replay: scripts/simulate --seeds 1 --first-seed 3 --profile everything --minutes 10" in printed


def test_what_is_in_the_results_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.jsonl"
    arguments = ["--minutes", "0.1", "--profile", "network", "--processes", "1", "--results", str(results)]
    assert main(["--seeds", "1", *arguments]) == 0
    (first,) = results.read_text().splitlines()
    with results.open("a") as file:
        file.write('{"seed": 2, "pro')  # Killed in mid-write.
    assert main(["--seeds", "2", *arguments]) == 0
    assert results.read_text().splitlines()[0] == first
    assert [Outcome.from_json(line).seed for line in results.read_text().splitlines()] == [1, 2]
    assert "2 seeds (1 now" in capsys.readouterr().out
