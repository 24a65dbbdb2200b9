"""Consumer groups in the simulation: the bugs that it finds, and the seeds that once failed.

Worlds of the profiles with groups run with all the others in :mod:`.test_worlds`.
"""

from __future__ import annotations

import pytest

from .planted import Bug
from .planted_groups import BUGS
from .test_planted_bugs import SEEDS, find
from .test_worlds import kept
from .world import run_world

FAILED = [
    # An automatic commit that was tried again went back behind a later one.
    ("groups", 6, 1.5),
    # A loop without a pause where rounding left less than the clock can tell.
    ("groups", 14, 1.5),
    # What a static member gave up was nobody's when its next process took its place too early.
    ("groups", 23, 1.5),
]
"""(profile, seed, minutes). What each found has a test of its own where it was mended."""


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.shows_at_once], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_at_once(bug: Bug) -> None:
    assert find(bug, seeds=3) is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bug", [bug for bug in BUGS if not bug.shows_at_once], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_in_the_end(bug: Bug) -> None:
    assert find(bug, SEEDS) is not None


@pytest.mark.soak
@pytest.mark.parametrize(("profile", "seed", "minutes"), FAILED)
def test_a_seed_that_once_failed(profile: str, seed: int, minutes: float) -> None:
    kept(run_world(seed, profile, minutes=minutes))


@pytest.mark.soak
def test_one_seed_is_one_history_with_groups_too() -> None:
    first, second = (run_world(3, "groups", minutes=1) for _ in range(2))
    assert [event.to_json() for event in first.journal] == [event.to_json() for event in second.journal]
    assert first.history == second.history
