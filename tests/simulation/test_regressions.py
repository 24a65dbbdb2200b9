"""Seeds that once failed: each found a defect, and must never find it again.

Changes to what draws chance shift what a seed does, so a defect that matters also has a test of its own
where it was mended.
"""

from __future__ import annotations

import pytest

from .test_worlds import kept
from .world import run_world

SEEDS: list[tuple[str, int, float]] = [
    # A broker that was stopping when the world was healed was never started again: the simulation's own.
    ("wild", 524, 2),
]
"""(profile, seed, minutes)."""


@pytest.mark.parametrize(("profile", "seed", "minutes"), SEEDS)
def test_a_seed_that_once_failed(profile: str, seed: int, minutes: float) -> None:
    kept(run_world(seed, profile, minutes=minutes))
