"""The benchmark's studies at a small size: they run to their end, and every figure is there."""

from __future__ import annotations

import pytest

from kafkalite.perf.studies import STUDIES, Size

SMALL = Size(
    records=20_000, partitions=12, log_bytes=30_000_000, writes_per_s=2_000, seconds=1, messages=2_000
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("growth", 8),
        ("catch-up", 5),
        pytest.param("cold-start", 6, marks=pytest.mark.soak),
        pytest.param("fail-over", 3, marks=pytest.mark.soak),
        ("floor", 5),
    ],
)
def test_a_study_runs_to_its_end(name: str, expected: int) -> None:
    figures = STUDIES[name].run(SMALL, lambda words: None)
    assert len(figures) == expected
    assert all(figure.value > 0 for figure in figures), figures


def test_every_study_is_tested() -> None:
    assert set(STUDIES) == {"growth", "catch-up", "cold-start", "fail-over", "floor"}
