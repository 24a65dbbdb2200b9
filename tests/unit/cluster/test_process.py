"""Processes that outlive their starter: known by pid and start time, never by pid alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafkalite.cluster.process import ProcessId, Running, recall, remember, start

SLEEPER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessId]:
    process = start(SLEEPER, directory=tmp_path, log=tmp_path / "logs" / "sleeper.log")
    yield process
    process.send(signal.SIGKILL)
    process.wait_gone(10)


def state_of(process: ProcessId) -> Running:
    return process.running


def wait_for(process: ProcessId, state: Running) -> None:
    while state_of(process) is not state:
        assert state_of(process) is not Running.GONE
        os.sched_yield()


def test_started_paused_resumed_killed(sleeper: ProcessId) -> None:
    assert state_of(sleeper) is Running.RUNNING
    assert sleeper.send(signal.SIGSTOP)
    wait_for(sleeper, Running.PAUSED)
    assert sleeper.send(signal.SIGCONT)
    wait_for(sleeper, Running.RUNNING)
    assert not sleeper.wait_gone(0)
    assert sleeper.send(signal.SIGKILL)
    assert sleeper.wait_gone(10)
    assert state_of(sleeper) is Running.GONE
    assert not sleeper.send(signal.SIGTERM)


def test_it_lives_in_a_session_of_its_own(sleeper: ProcessId) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid


def test_a_reused_pid_is_not_the_process(sleeper: ProcessId) -> None:
    other = ProcessId(sleeper.pid, sleeper.start_ticks - 1)
    assert state_of(other) is Running.GONE
    assert not other.send(signal.SIGKILL)
    assert other.wait_gone(0)
    assert state_of(sleeper) is Running.RUNNING


def test_it_is_remembered_until_it_is_gone(sleeper: ProcessId, tmp_path: Path) -> None:
    file = tmp_path / "process.json"
    assert recall(file) is None
    remember(sleeper, file)
    assert recall(file) == sleeper
    sleeper.send(signal.SIGKILL)
    assert sleeper.wait_gone(10)
    assert recall(file) is None


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    process = start([sys.executable, "-c", "print('after')"], directory=tmp_path, log=log)
    assert process.wait_gone(30)
    assert log.read_text() == "before\nafter\n"
