"""What scripts/bench measures and how it tells; the measuring itself needs a cluster (tests/cluster)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kafkalite.cli import bench as command
from kafkalite.cli.bench import _Chosen, _chosen, _group_text
from kafkalite.perf.groups import GROUP_ROWS, GroupRun, _sizes
from kafkalite.perf.rows import ROWS, TABLE, Row
from kafkalite.perf.runner import Run, RunFailed
from kafkalite.perf.studies import STUDIES


def test_rows_are_chosen_by_name() -> None:
    assert _chosen(None) == _Chosen(TABLE)
    assert _chosen("groups") == _Chosen(group_rows=tuple(GROUP_ROWS.values()))
    assert _chosen("all") == _Chosen(tuple(ROWS.values()), tuple(GROUP_ROWS.values()), tuple(STUDIES))
    assert _chosen("growth,commits,produce-1x") == _Chosen(
        [ROWS["produce-1x"]], [GROUP_ROWS["commits"]], ["growth"]
    )
    with pytest.raises(click.UsageError, match="no row 'commit'"):
        _chosen("produce-1x,commit")
    assert len({*ROWS, *GROUP_ROWS, *STUDIES}) == len(ROWS) + len(GROUP_ROWS) + len(STUDIES)


def test_the_figures_of_groups_are_told_with_their_spread() -> None:
    runs = [
        GroupRun(row="commits", figures={"commits_per_s": rate}, broker_peak_rss_mb=60.4, load_before=0.0)
        for rate in (1000.0, 3000.0, 1234.5)
    ]
    line = _group_text(GROUP_ROWS["commits"], runs)
    assert line.endswith("commits per s 1,234 (1,000 to 3,000); a broker's memory 60 MB")
    assert "commits per s 3,000;" in _group_text(GROUP_ROWS["commits"], runs[1:2])


@pytest.mark.parametrize(("members", "sizes"), [(1, [1]), (25, [25]), (26, [25, 1]), (100, [25] * 4)])
def test_members_are_spread_over_processes(members: int, sizes: list[int]) -> None:
    assert _sizes(members) == sizes


def test_what_was_measured_stays_when_a_later_row_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_row(row: Row, records: int, say: Callable[[str], None]) -> Run:
        if row.name == "both":
            raise RunFailed("both: 1 of 2 records came out")
        return Run(
            row=row.name,
            records=records,
            records_per_s=5.0,
            seconds=1.0,
            latency_ms=None,
            client_cpu_s_per_million=0.1,
            broker_cpu_s_per_million=0.1,
            broker_peak_rss_mb=1.0,
            client_peak_rss_mb=1.0,
            load_before=0.0,
        )

    monkeypatch.setattr(command, "run_row", run_row)
    arguments = ["--rows", "produce-1x,both", "--rounds", "1", "--results", str(tmp_path)]
    outcome = CliRunner().invoke(command.bench, arguments)
    assert outcome.exit_code != 0
    assert "1 of 2 records came out" in str(outcome.exception) + outcome.output
    document = json.loads((tmp_path / "bench.json").read_text())
    assert [run["row"] for run in document["runs"]] == ["produce-1x"]
    assert [row["name"] for row in document["rows"]] == ["produce-1x"]
    assert f"{tmp_path}/bench.json" in outcome.output
