"""A few worlds of each profile, for every commit; `scripts/simulate` runs as many as one likes."""

from __future__ import annotations

import pytest

from .world import PROFILES, Report, run_world

SEEDS_A_PROFILE = 2


def kept(report: Report) -> None:
    """Fail with everything that is needed to look into it."""
    assert report.failure is None, "\n".join([*report.tail, report.failure or ""])
    assert report.verdict is not None
    assert report.verdict.acknowledged > 100


@pytest.mark.parametrize("seed", range(1, SEEDS_A_PROFILE + 1))
@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_promise_is_kept(profile: str, seed: int) -> None:
    kept(run_world(seed, profile, minutes=1.5))


def test_one_seed_is_one_history_whatever_is_done_to_the_cluster() -> None:
    first, second = (run_world(3, "everything", minutes=0.5) for _ in range(2))
    assert [event.to_json() for event in first.journal] == [event.to_json() for event in second.journal]
    assert first.history == second.history
    assert first.steps == second.steps


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 1030))
@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_promise_is_kept_for_ten_minutes(profile: str, seed: int) -> None:
    kept(run_world(seed, profile, minutes=10))
