"""The log against a list: any operations, any crash, at any byte.

The state machine does what hypothesis draws; the crash points walk one long scenario and crash it
instead of each of its operations. ``LOG_CRASH_POINTS`` sets how many points are tried.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kafkalite.protocol.errors import KafkaStorageError
from tests.support.disk import CrashPoint, SimulatedCrash, SimulatedDisk, crash_points
from tests.support.logs import LogDriver

CRASH_POINTS = int(os.environ.get("LOG_CRASH_POINTS", "600"))

seeds = st.one_of(st.none(), st.integers(0, 2**20))


class LogMachine(RuleBasedStateMachine):
    """Draws operations for a :class:`LogDriver`; a crash may be armed to hit inside one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = LogDriver()
        self.armed: CrashPoint | None = None

    def teardown(self) -> None:
        self.driver.close()

    def _do(self, *actions: str, **arguments: int | list[int]) -> None:
        try:
            for action in actions:
                getattr(self.driver, action)(**arguments)
        except SimulatedCrash:
            assert self.armed is not None
            self.driver.crash(self.armed)
            self.armed = None

    @precondition(lambda self: self.armed is None)
    @rule(operation=st.integers(0, 12), after_bytes=st.one_of(st.none(), st.integers(0, 300)), seed=seeds)
    def arm(self, operation: int, after_bytes: int | None, seed: int | None) -> None:
        self.armed = CrashPoint(operation, after_bytes, seed)
        self.driver.disk.crash_at(operation, after_bytes=after_bytes)

    @rule(
        count=st.integers(1, 5), size=st.integers(0, 120), producer_id=st.integers(-1, 2), keep=st.booleans()
    )
    def append(self, count: int, size: int, producer_id: int, keep: bool) -> None:
        self._do("append", count=count, size=size, producer_id=producer_id, keep=keep)

    @rule(sizes=st.lists(st.integers(0, 120), min_size=1, max_size=4))
    def append_replicated(self, sizes: list[int]) -> None:
        self._do("append_replicated", sizes=sizes)

    @rule()
    def become_leader(self) -> None:
        self._do("become_leader")

    @rule()
    def flush(self) -> None:
        self._do("flush")

    @rule()
    def flush_rolled(self) -> None:
        self._do("flush_rolled")

    @rule()
    def checkpoint(self) -> None:
        self._do("checkpoint")

    @rule(back=st.integers(0, 40))
    def truncate(self, back: int) -> None:
        self._do("truncate", offset=max(self.driver.end - back, 0))

    @rule(ahead=st.integers(-20, 20))
    def restart_at(self, ahead: int) -> None:
        self._do("restart_at", offset=max(self.driver.end + ahead, 0))

    @rule(back=st.integers(0, 20))
    def commit(self, back: int) -> None:
        self.driver.commit(self.driver.end - back)

    @rule(ahead=st.integers(0, 10))
    def raise_start(self, ahead: int) -> None:
        self._do("raise_start", offset=self.driver.start + ahead)

    @rule(retention_bytes=st.integers(0, 3000))
    def retain(self, retention_bytes: int) -> None:
        self._do("retain", retention_bytes=retention_bytes)

    @rule()
    def restart_cleanly(self) -> None:
        self._do("restart_cleanly")

    @rule(seed=seeds)
    def crash(self, seed: int | None) -> None:
        self.armed = None
        self.driver.crash(CrashPoint(0, None, seed))

    @rule(ms=st.integers(-5, 1000))
    def pass_time(self, ms: int) -> None:
        self.driver.clock.now_ms += ms

    @invariant()
    def is_what_the_model_says(self) -> None:
        self.driver.check()


LogMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLog = LogMachine.TestCase


def scenario(driver: LogDriver) -> None:
    """A life of a log: leading, rolling, flushing, following, truncating, retention, stops."""
    driver.become_leader()
    for number in range(8):
        driver.append(count=1 + number % 3, size=60, producer_id=number % 2)
    driver.flush_rolled()
    driver.checkpoint()
    driver.append_replicated([10, 20, 30])
    driver.truncate(driver.end - 2)
    driver.append_replicated([40, 50])
    driver.flush()
    driver.checkpoint()
    # Below the recovery point, in an earlier segment: the promise must be taken back first.
    driver.truncate(6)
    for _ in range(6):
        driver.append(count=2, size=70, producer_id=1)
    driver.commit(driver.end)
    driver.retain(500)
    driver.raise_start(driver.start + 3)
    driver.checkpoint()
    driver.restart_cleanly()
    for _ in range(4):
        driver.append(count=1, size=90, producer_id=0)
    driver.flush_rolled()
    driver.checkpoint()
    driver.restart_at(100)
    for _ in range(3):
        driver.append(count=2, size=80, producer_id=2)
    driver.flush()
    driver.checkpoint()
    driver.append(count=1, size=5)


def test_every_crash_point_leaves_a_log_that_is_right() -> None:
    whole = LogDriver()
    before = whole.disk.operations
    scenario(whole)
    whole.check()
    operations = whole.disk.operations - before
    whole.close()
    crashes = 0
    for point in crash_points(operations, limit=CRASH_POINTS, chance=random.Random(2024)):
        driver = LogDriver(SimulatedDisk())
        driver.disk.crash_at(point.operation, after_bytes=point.after_bytes)
        try:
            scenario(driver)
        except SimulatedCrash:
            crashes += 1
            try:
                driver.crash(point)
                # It works on: what comes next is appended, kept, and survives another crash.
                driver.become_leader()
                driver.append(count=2, size=30, producer_id=1)
                driver.flush()
                driver.crash(CrashPoint(0, None, 0))
            except BaseException as error:
                error.add_note(f"at {point}")
                raise
        finally:
            driver.close()
    assert crashes == CRASH_POINTS


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("power", [None, 1])
def test_a_disk_that_fails_leaves_a_log_that_is_right(seed: int, power: int | None) -> None:
    """An EIO, ENOSPC or short write anywhere; then the broker stops, and starts on a mended disk."""
    driver = LogDriver(SimulatedDisk())
    driver.disk.fail_at_random(random.Random(seed), 0.01)
    try:
        scenario(driver)
    except (KafkaStorageError, OSError):
        driver.disk.heal()
        driver.crash(CrashPoint(0, None, power and seed + 1))
    driver.check()
    driver.close()
