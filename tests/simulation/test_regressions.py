"""What seeds once found, told again so that it does not depend on what a seed draws today.

Changes to what draws chance shift what a seed does. So a defect of the product has a test of its own where
it was mended (its first line says that the simulation found it), and what concerned whole worlds is
arranged here on purpose. A seed itself is listed only until the next such change.
"""

from __future__ import annotations

import pytest

from kafkalite.checker.promise import Faults
from kafkalite.journal import Event
from kafkalite.server.broker import Broker

from . import world
from .cluster import Cluster, Node
from .test_worlds import kept
from .world import HEALED, Profile, run_world

SEEDS: list[tuple[str, int, float]] = [
    # A zombie leader sent a consumer back to offset 0; see tests/unit/replication/test_manager.py.
    ("processes", 4, 5),
    # A topic that brokers did not know for a moment while positions were checked ended its readers.
    ("processes", 3093, 10),
]
"""(profile, seed, minutes)."""


@pytest.mark.parametrize(("profile", "seed", "minutes"), SEEDS)
def test_a_seed_that_once_failed(profile: str, seed: int, minutes: float) -> None:
    kept(run_world(seed, profile, minutes=minutes))


def test_a_broker_that_is_stopping_when_the_world_is_healed_comes_back() -> None:
    """Seed 524 of "wild" once: nobody started it again, and the world was never whole."""

    def stop_at_the_healing(cluster: Cluster) -> None:
        note = cluster.note

        def noted(what: str) -> None:
            note(what)
            if what == HEALED:
                cluster.nodes[1].stop()

        cluster.note = noted  # type: ignore[method-assign]

    profile = Profile("calm", {"slow links": 1}, brokers=(3,))
    report = run_world(1, profile, minutes=0.1, prepare=stop_at_the_healing)
    words = [what for _, what in report.notes]
    assert "broker-1 has shut down" in words[words.index(HEALED) :]
    assert report.failure is None


def test_an_isr_that_lost_its_power_as_a_whole_is_no_broken_invariant() -> None:
    """Seed 4 of "wild" once: where every member restarted, the ISR is kept, and one may have less than the
    new leader until it has fetched again. That is a loss which power cuts of all of them are allowed."""
    profile = Profile(
        "all lose power",
        {"power cut": 1},
        Faults.WILD,
        overrides={"unclean.leader.election.enable": "true"},
        pause_s=1.0,
        brokers=(3,),
    )
    for seed in (1, 2, 3):
        report = run_world(seed, profile, minutes=1)
        assert report.failure is None
        assert report.faults["power cut"] > 5


@pytest.mark.timeout(60)
def test_a_world_that_computes_and_does_not_go_on_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 2021 of "everything" once: a broker's loop never turned again, and neither did the world's."""

    def spin() -> None:
        while True:
            pass

    monkeypatch.setattr(world, "CPU_S_A_MINUTE", 1.0)
    profile = Profile("calm", {"slow links": 1}, brokers=(3,))

    def arrange(cluster: Cluster) -> None:
        cluster.loop.call_later(20, spin)

    report = run_world(1, profile, minutes=0.5, prepare=arrange)
    assert report.failure is not None
    assert report.failure.startswith("Standstill")
    assert "in spin" in report.failure


def test_a_session_that_ends_right_after_the_registration_ends_the_start_in_words() -> None:
    """Seed 2046 of "zookeeper" once: the broker ended with a trace instead of saying why."""

    def arrange(cluster: Cluster) -> None:
        def observe(node: Node, broker: Broker) -> None:
            if node.broker_id == 1 and node.lives == 2:
                broker.journal.subscribe(lambda event: registered(node, event))
            elif node.broker_id == 1 and node.lives == 1:
                cluster.loop.call_later(10, node.crash)

        def registered(node: Node, event: Event) -> None:
            if event.type == "BrokerRegistered":
                assert node.session is not None
                cluster.expire(node.session)

        cluster.observers.append(observe)

    report = run_world(1, Profile("calm", {"slow links": 1}, brokers=(3,)), minutes=1, prepare=arrange)
    assert report.failure is None
    words = [what for _, what in report.notes]
    assert any("StartFailed: the ZooKeeper session ended during the start" in what for what in words)
