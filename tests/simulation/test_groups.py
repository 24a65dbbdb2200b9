"""Consumer groups in the simulation: the bugs that it finds.

Worlds of the profiles with groups run with all the others in :mod:`.test_worlds`.
"""

from __future__ import annotations

import pytest

from .planted import Bug
from .planted_groups import AT_ONCE, IN_THE_END
from .test_planted_bugs import find
from .world import run_world


@pytest.mark.parametrize("bug", AT_ONCE, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_at_once(bug: Bug) -> None:
    assert find(bug) is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bug", IN_THE_END, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_in_the_end(bug: Bug) -> None:
    assert find(bug) is not None


@pytest.mark.soak
def test_one_seed_is_one_history_with_groups_too() -> None:
    first, second = (run_world(3, "groups", minutes=1) for _ in range(2))
    assert [event.to_json() for event in first.journal] == [event.to_json() for event in second.journal]
    assert first.history == second.history
