"""The simulation finds bugs that were planted: each within 50 seeds of a profile that stresses it.

Most show in the first seed, in a second or a few of them. The worlds themselves are in order:
`scripts/test -m soak tests/simulation` runs the same seeds without the bugs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .planted import BUGS, Bug
from .test_worlds import kept
from .world import run_world

SEEDS = 50
CLEAN_SEEDS = 5


@dataclass(frozen=True)
class Found:
    """What gave a bug away."""

    seed: int
    failure: str


def find(bug: Bug) -> Found | None:
    """Run seeds until the bug shows; None where it does not."""
    for seed in range(1, SEEDS + 1):
        with bug.plant():
            report = run_world(seed, bug.profile, minutes=bug.minutes)
        if report.failure is not None:
            return Found(seed, report.failure)
    return None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = find(bug)
    assert found is not None, f"nothing tells in {SEEDS} seeds:\n{bug.history}"
    print(f"{bug.name}: seed {found.seed}: {found.failure}")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_same_worlds_are_in_order_without_the_bug(bug: Bug) -> None:
    for seed in range(1, CLEAN_SEEDS + 1):
        kept(run_world(seed, bug.profile, minutes=bug.minutes))
