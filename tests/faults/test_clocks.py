"""A broker whose wall clock jumps: nothing that is promised may hang on it.

The machine's clock cannot be set for one process alone, so the broker processes are given another one: a
module that the interpreter imports at its start shifts what Python calls wall time by what a file says. The
monotonic clock, on which leases, sessions and time-outs run, stays what it is, as when an operator or NTP
sets a machine's clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafkalite.client import AdminClient, NewTopic, Producer
from kafkalite.cluster.launcher import Cluster
from kafkalite.cluster.layout import write_whole

from .conftest import OVERRIDES, FaultCluster
from .workload import Workload, kept_its_word

pytestmark = pytest.mark.timeout(240)

HOUR_MS = 3_600_000

SHIFTED_CLOCK = """
import time

def shift_ns(read=time.time_ns):
    with open({offset!r}) as file:
        return read() + int(file.read()) * 10**9

time.time_ns = shift_ns
time.time = lambda: shift_ns() / 1e9
"""
"""`sitecustomize.py` of the brokers' interpreters."""


class Clocks:
    """A cluster all of whose brokers take their wall clock from a file."""

    def __init__(self, cluster: Cluster, offset: Path) -> None:
        self.cluster = FaultCluster(cluster)
        self._offset = offset

    def jump(self, seconds: int) -> None:
        """Set the brokers' clock so far ahead of (negative: behind) the machine's."""
        write_whole(self._offset, b"%d" % seconds)


@pytest.fixture
def clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    offset, customized = tmp_path / "clock", tmp_path / "customized"
    customized.mkdir()
    (customized / "sitecustomize.py").write_text(SHIFTED_CLOCK.format(offset=str(offset)))
    offset.write_text("0")
    cluster = Cluster.load_or_create(tmp_path / "cluster", brokers=3, zookeepers=1, overrides=OVERRIDES)
    try:
        with monkeypatch.context() as environment:
            environment.setenv("PYTHONPATH", str(customized))
            cluster.up(timeout_s=120)
        yield Clocks(cluster, offset)
    finally:
        cluster.down(timeout_s=60, delete=True)


async def _appended_at_ms(clocks: Clocks, topic: str) -> int:
    """The leader's wall clock: the time that it gives a record."""
    async with Producer(bootstrap_servers=clocks.cluster.bootstrap_servers) as producer:
        return (await producer.send_and_wait(topic, b"what time is it?", partition=0)).timestamp


@pytest.mark.parametrize("seconds", [3600, pytest.param(-3600, marks=pytest.mark.soak)])
async def test_the_brokers_clock_jumps(clocks: Clocks, seconds: int) -> None:
    cluster = clocks.cluster
    async with AdminClient(bootstrap_servers=cluster.bootstrap_servers) as admin:
        stamped = NewTopic("stamped", 1, 3, topic_configs={"message.timestamp.type": "LogAppendTime"})
        await admin.create_topics([stamped])
    topic = await cluster.create_topic(partitions=3)
    before = {broker: len(cluster.events(broker)) for broker in (1, 2, 3)}
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(200)
        assert abs(await _appended_at_ms(clocks, "stamped") - time.time() * 1000) < HOUR_MS / 2
        clocks.jump(seconds)
        jumped_ms = await _appended_at_ms(clocks, "stamped") - time.time() * 1000
        assert abs(jumped_ms - seconds * 1000) < HOUR_MS / 2, "the clock did not jump"
        await workload.acknowledges(500)
        clocks.jump(0)
        await workload.acknowledges(500)
    assert not workload.failed
    await cluster.is_whole(topic)
    await kept_its_word(workload)
    happened = {event.type for broker in (1, 2, 3) for event in cluster.events(broker)[before[broker] :]}
    assert not happened & {"LeaseExpired", "IsrShrunk", "LeaderElected", "BrokerFailed"}, happened
