"""What holds for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_TESTS = Path(__file__).parent
_OF_PROCESSES = {"cluster", "compose", "faults"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those that start clusters do so one after the other."""
    for item in items:
        if item.path.relative_to(_TESTS).parts[0] in _OF_PROCESSES:
            item.add_marker(pytest.mark.xdist_group("processes"))
