"""Connections that are cut, in both directions and in one, and links that are slow.

All brokers are known by the addresses of proxies, so a link between two processes can be broken while
every process is well. Each test holds the cut until its consequence shows in a journal, and asks the
proxies whether the traffic met it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import pytest_asyncio

from kafkalite.cluster.launcher import Cluster
from kafkalite.torture.links import Cut, Links

from .conftest import OVERRIDES, SESSION_TIMEOUT_MS, FaultCluster
from .workload import Workload, kept_its_word

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

REQUEST_TIMEOUT_MS = 3_000
"""Of the clients: shorter than the cuts, so that they have to do something about them."""


class LinkedCluster(FaultCluster):
    """A cluster behind proxies."""

    def __init__(self, cluster: Cluster, links: Links) -> None:
        super().__init__(cluster)
        self.links = links

    @property
    def bootstrap_servers(self) -> str:
        return self.links.bootstrap_servers

    def lives(self, broker: int) -> int:
        """How often the broker has registered so far."""
        return sum(event.type == "BrokerRegistered" for event in self.events(broker))

    async def until_event(self, broker: int, type: str, *, after: int) -> None:
        """Wait for an event of ``type`` in the broker's journal, beyond the first ``after`` events."""
        async with asyncio.timeout(60):
            while type not in {event.type for event in self.events(broker)[after:]}:
                await asyncio.sleep(0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def linked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LinkedCluster]:
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("links"), brokers=3, zookeepers=3, overrides=OVERRIDES
    )
    async with Links(cluster.layout) as links:
        cluster.own_overrides = links.overrides()
        try:
            await asyncio.to_thread(cluster.up, timeout_s=120)
            yield LinkedCluster(cluster, links)
        finally:
            await asyncio.to_thread(cluster.down, timeout_s=60, delete=True)


@contextmanager
def healed_at_the_end(cut: Cut) -> Iterator[None]:
    """Whatever happens inside, the tests after this one find whole links."""
    try:
        yield
    finally:
        cut.heal()


def workload_for(cluster: LinkedCluster, topic: str) -> Workload:
    return Workload(cluster.bootstrap_servers, topic, 3)


@pytest.mark.parametrize(
    "way",
    [
        "both ways",
        pytest.param("nothing comes in", marks=pytest.mark.soak),
        "nothing goes out",
        pytest.param("reset", marks=pytest.mark.soak),
    ],
)
async def test_a_leader_is_cut_off_from_the_other_brokers(linked: LinkedCluster, way: str) -> None:
    """It keeps its session, so it keeps leading: with the ISR below the minimum nothing is acknowledged."""
    topic = await linked.create_topic()
    victim = await linked.leader(topic)
    async with workload_for(linked, topic).running(request_timeout_ms=REQUEST_TIMEOUT_MS) as workload:
        await workload.acknowledges(300)
        cut = Cut(*linked.links.between_brokers(victim))
        with healed_at_the_end(cut):
            cut.apply(way)
            await linked.until_why(topic, 0, lambda answer: len(answer.isr) == 1 or answer.leader != victim)
            assert cut.met, "no traffic met the cut"
        await workload.acknowledges(600)
    await linked.is_whole(topic)
    await kept_its_word(workload)


@pytest.mark.parametrize(
    "way",
    [
        "both ways",
        "nothing goes out",
        pytest.param("reset", marks=pytest.mark.soak),
    ],
)
async def test_a_leader_is_cut_off_from_zookeeper(linked: LinkedCluster, way: str) -> None:
    """Its session ends; it freezes before that, others lead, and it comes back under a new epoch."""
    topic = await linked.create_topic()
    victim = await linked.leader(topic)
    before, lives = len(linked.events(victim)), linked.lives(victim)
    async with workload_for(linked, topic).running(request_timeout_ms=REQUEST_TIMEOUT_MS) as workload:
        await workload.acknowledges(300)
        cut = Cut([], linked.links.to_zookeeper(victim))
        with healed_at_the_end(cut):
            cut.apply(way)
            await linked.until_event(victim, "LeaseExpired", after=before)
            answer = await linked.until_why(
                topic, 0, lambda answer: answer.leader is not None and answer.leader != victim
            )
            assert cut.met, "no traffic met the cut"
            (chain,) = [one for one in answer.chains if one.question == "leader"]
            assert chain.links[-1].broker == victim, f"why does not know what befell broker {victim}: {chain}"
            await workload.acknowledges(300)
        async with asyncio.timeout(60):
            while linked.lives(victim) == lives:
                await asyncio.sleep(0.2)
        await workload.acknowledges(300)
    await linked.is_whole(topic)
    await kept_its_word(workload)


@pytest.mark.soak
async def test_a_leader_that_zookeepers_answers_do_not_reach(linked: LinkedCluster) -> None:
    """It freezes. What it sends arrives, so ZooKeeper keeps its session, and acks=all goes on with it."""
    topic = await linked.create_topic()
    victim = await linked.leader(topic)
    before, lives = len(linked.events(victim)), linked.lives(victim)
    async with workload_for(linked, topic).running(request_timeout_ms=REQUEST_TIMEOUT_MS) as workload:
        await workload.acknowledges(300)
        cut = Cut([], linked.links.to_zookeeper(victim))
        with healed_at_the_end(cut):
            cut.apply("nothing comes in")
            await linked.until_event(victim, "LeaseExpired", after=before)
            await asyncio.sleep(2.5 * SESSION_TIMEOUT_MS / 1000)
            assert cut.met, "no traffic met the cut"
            await workload.acknowledges(300)
        assert linked.lives(victim) == lives
        await workload.acknowledges(300)
    await linked.is_whole(topic)
    await kept_its_word(workload)


@pytest.mark.parametrize("way", ["no answers", pytest.param("reset", marks=pytest.mark.soak)])
async def test_clients_are_cut_off_from_a_leader(linked: LinkedCluster, way: str) -> None:
    """What was appended and not answered is sent again, and stands in the log once."""
    topic = await linked.create_topic()
    victim = await linked.leader(topic)
    async with workload_for(linked, topic).running(request_timeout_ms=REQUEST_TIMEOUT_MS) as workload:
        await workload.acknowledges(300)
        cut = Cut(linked.links.from_clients(victim), [])
        with healed_at_the_end(cut):
            cut.apply(way)
            await asyncio.sleep(1.5 * REQUEST_TIMEOUT_MS / 1000)
            assert cut.met, "no traffic met the cut"
        await workload.acknowledges(300)
    await linked.is_whole(topic)
    await kept_its_word(workload)


async def test_slow_links(linked: LinkedCluster) -> None:
    """Two hundred milliseconds more on every piece of data: slower, and otherwise the same."""
    topic = await linked.create_topic()
    victim = await linked.leader(topic)
    lives = linked.lives(victim)
    async with workload_for(linked, topic).running() as workload:
        await workload.acknowledges(300)
        incoming, outgoing = linked.links.between_brokers(victim)
        cut = Cut(
            [*incoming, *linked.links.from_clients(victim)],
            [*outgoing, *linked.links.to_zookeeper(victim)],
        )
        with healed_at_the_end(cut):
            cut.slow(0.2)
            await asyncio.sleep(2 * SESSION_TIMEOUT_MS / 1000)
            await workload.acknowledges(100)
            assert cut.met, "no traffic met the slow links"
        await workload.acknowledges(300)
    assert linked.lives(victim) == lives, "slow links cost the session"
    assert not workload.failed
    await linked.is_whole(topic)
    await kept_its_word(workload)
