"""Whom a client asks: bootstrap addresses, fall-back, and what errors say."""

from __future__ import annotations

import asyncio
import random

import pytest

from kafkalite.client import AdminClient, Consumer, Producer
from kafkalite.client.cluster import Cluster, backoff_ms, parse_bootstrap
from kafkalite.client.errors import Attempt, ClusterUnreachableError, hint
from kafkalite.common import Address
from kafkalite.protocol.metadata import MetadataRequest
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import FakeCluster, Fault, script


@pytest.mark.parametrize(
    ("servers", "addresses"),
    [
        ("a:1,b:2", [("a", 1), ("b", 2)]),
        (["a:1", "b"], [("a", 1), ("b", 9092)]),
        (" a:1 , ,a:1", [("a", 1)]),
        ("[::1]:7,[fe80::2]", [("::1", 7), ("fe80::2", 9092)]),
        ("::1", [("::1", 9092)]),
    ],
)
def test_bootstrap_servers(servers: str | list[str], addresses: list[tuple[str, int]]) -> None:
    assert list(parse_bootstrap(servers)) == [Address(*a) for a in addresses]


@pytest.mark.parametrize("servers", ["", ",", "a:b", "a:0", "a:70000", ":1", "[::1", "[::1]7", "a:-1", "a:²"])
def test_bad_bootstrap_servers(servers: str) -> None:
    with pytest.raises(ValueError, match="bootstrap_servers"):
        parse_bootstrap(servers)


def test_backoff_doubles_up_to_its_limit_with_jitter() -> None:
    chance = random.Random(1)
    for failures, base in [(1, 100), (2, 200), (4, 800), (5, 1000), (500, 1000)]:
        for _ in range(20):
            assert base * 0.8 <= backoff_ms(failures, 100, 1000, chance) <= base * 1.2


def cluster_of(fake: FakeCluster, bootstrap: str = "fake:9001") -> Cluster:
    return Cluster(
        bootstrap_servers=bootstrap,
        client_id="test",
        transport=fake,
        clock=VirtualClock(asyncio.get_running_loop()),
        chance=random.Random(1),
        request_timeout_ms=30_000,
        metadata_max_age_ms=5_000,
        retry_backoff_ms=100,
        retry_backoff_max_ms=1000,
        allow_auto_create_topics=True,
    )


def test_each_address_is_tried_and_named_with_its_last_error() -> None:
    async def main() -> None:
        fake = FakeCluster()
        fake.down = {1, 3}
        fake.hook = lambda api, node, request: Fault.UNAVAILABLE
        cluster = cluster_of(fake, "fake:9001,fake:9002,elsewhere:1")
        with pytest.raises(ClusterUnreachableError) as caught:
            await cluster.bootstrap_once()
        said = {str(a.address): a.error for a in caught.value.attempts}
        assert said["fake:9001"] == "connection refused"
        assert "503" in said["fake:9002"]
        assert set(said) == {"fake:9001", "fake:9002", "elsewhere:1"}
        assert "ZooKeeper" in caught.value.hint
        assert caught.value.advertised == ()

    run_virtual(main())


def test_brokers_come_before_bootstrap_and_bootstrap_is_fallen_back_upon() -> None:
    async def main() -> None:
        fake = FakeCluster()
        cluster = cluster_of(fake)
        await cluster.bootstrap_once()
        assert set(cluster.metadata.nodes) == {1, 2, 3}
        fake.nodes = {7: Address("fake", 9001)}  # All that was advertised is gone, one new one is there.
        await cluster.bootstrap_once()
        assert set(cluster.metadata.nodes) == {7}

    run_virtual(main())


def test_a_broker_that_hangs_costs_two_seconds_not_thirty() -> None:
    async def main() -> None:
        fake = FakeCluster()
        fake.hook = lambda api, node, request: Fault.HANG if node == 1 else Fault.NONE
        cluster = cluster_of(fake, "fake:9001,fake:9002")
        await cluster.bootstrap_once()
        assert asyncio.get_running_loop().time() < 2.1

    run_virtual(main())


def test_refreshes_come_at_once_then_spaced_and_by_age() -> None:
    async def main() -> None:
        fake = FakeCluster()
        fake.create_topic("t")
        cluster = cluster_of(fake)
        await cluster.bootstrap_once()
        cluster.want(["t"])
        times: list[float] = []
        now = asyncio.get_running_loop().time
        task = asyncio.ensure_future(cluster.keep_fresh())
        for _ in range(6):
            await cluster.refreshed()
            times.append(now())
        assert times[0] < 0.01
        assert times[-1] - times[-2] > 0.7
        asked = len(fake.requests(MetadataRequest))
        await asyncio.sleep(11)
        assert len(fake.requests(MetadataRequest)) == asked + 2
        fake.hook = script(*[Fault.LOSE_REQUEST] * 7, api="metadata")
        await asyncio.sleep(2)
        await asyncio.wait_for(cluster.refreshed(), 20)
        task.cancel()

    run_virtual(main())


@pytest.mark.parametrize(
    ("error", "advertised", "word"),
    [
        ("connection refused", [], "cluster status"),
        ("connection refused", ["1 at h:1"], "advertised.listeners"),
        ("Name or service not known", [], "resolve"),
        ("timed out after 5 ms", [], "firewall"),
    ],
)
def test_hints(error: str, advertised: list[str], word: str) -> None:
    assert word in hint([Attempt(Address("h", 1), error, 0)], advertised)


@pytest.mark.parametrize("make", [Producer, Consumer, AdminClient])
def test_a_start_that_found_nobody_can_be_tried_again(
    make: type[Producer] | type[Consumer] | type[AdminClient],
) -> None:
    """As those do who start together with the cluster. 30 minutes of torture found that it could not."""

    async def main() -> None:
        fake = FakeCluster()
        fake.down = {1, 2, 3}
        clock = VirtualClock(asyncio.get_running_loop())
        client = make(bootstrap_servers="fake:9001,fake:9002", transport=fake, clock=clock)
        for _ in range(2):
            with pytest.raises(ClusterUnreachableError):
                await client.start()
        fake.down = set()
        await client.start()
        await client.stop()
        assert fake.is_closed

    run_virtual(main())
