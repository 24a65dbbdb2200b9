"""What scripts/bench measures and how it tells; the measuring itself needs a cluster (tests/cluster)."""

from __future__ import annotations

import click
import pytest

from kafkalite.cli.bench import _Chosen, _chosen, _group_text
from kafkalite.perf.groups import GROUP_ROWS, GroupRun, _sizes
from kafkalite.perf.rows import ROWS, TABLE
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
