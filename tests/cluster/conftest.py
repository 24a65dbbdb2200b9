"""What tests against real servers share: one ZooKeeper for the session, a chroot for each test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.ensemble import Ensemble
from tests.support.zookeeper import RealHarness, make_ensemble, running_ensemble

_chroots = itertools.count(1)


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    """One real ZooKeeper server, shared by all tests: leave it running."""
    ensemble = make_ensemble(tmp_path_factory.mktemp("zookeeper"), 1)
    try:
        asyncio.run(ensemble.start())
        yield ensemble
    finally:
        asyncio.run(ensemble.stop())


@pytest.fixture
def chroot() -> str:
    """A place in the shared ZooKeeper that no other test uses."""
    return f"/test-{next(_chroots)}"


@pytest.fixture
def zookeeper_connect(zookeeper: Ensemble, chroot: str) -> str:
    """The connect string of the shared ZooKeeper with this test's chroot."""
    return zookeeper.connect_string + chroot


@pytest.fixture
async def three_zookeepers(tmp_path: Path) -> AsyncIterator[Ensemble]:
    """An ensemble of three for one test, which may kill and pause its members."""
    async with running_ensemble(tmp_path / "ensemble", 3) as ensemble:
        yield ensemble


@pytest.fixture
async def harness(zookeeper: Ensemble, chroot: str) -> AsyncIterator[RealHarness]:
    """Sessions with the shared ZooKeeper, each breakable on its own."""
    async with RealHarness.open(zookeeper.connect_string, chroot) as opened:
        yield opened
