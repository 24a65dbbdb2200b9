"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


class ClustersInTurn(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types: a base that is Any.
    """Where tests run side by side, those that start clusters do so one after the other."""

    def _split_scope(self, nodeid: str) -> str:
        """Which tests stay together, on one worker: a file's, and all of those."""
        if nodeid.startswith(("tests/cluster/", "tests/compose/", "tests/faults/")):
            return "clusters"
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ClustersInTurn:
    return ClustersInTurn(config, log)
