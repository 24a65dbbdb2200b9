"""The simulation finds bugs that were planted: each within 50 seeds of a profile that stresses it.

For every commit those that show within a seed or two; `scripts/test -m soak tests/simulation` runs all.
"""

from __future__ import annotations

import pytest

from .planted import BUGS, Bug
from .world import run_world

SEEDS = 50
MINUTES = 1.5


def find(bug: Bug, seeds: int) -> str | None:
    """What gives the bug away; None where nothing does."""
    for seed in range(1, seeds + 1):
        with bug.plant():
            report = run_world(seed, bug.profile, minutes=MINUTES)
        if report.failure is not None:
            return report.failure
    return None


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.shows_at_once], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_at_once(bug: Bug) -> None:
    assert find(bug, seeds=3) is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bug", [bug for bug in BUGS if not bug.shows_at_once], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_in_the_end(bug: Bug) -> None:
    assert find(bug, SEEDS) is not None
