"""Stories of the whole controller against an in-memory ZooKeeper and obedient brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kafkalite.common import ZERO_UUID, TopicPartition
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest
from kafkalite.protocol.create_topics import (
    CreateTopicsAssignment,
    CreateTopicsConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
    CreateTopicsTopic,
)
from kafkalite.protocol.errors import ErrorCode, InvalidConfigError, NotControllerError
from kafkalite.protocol.leader_and_isr import LeaderAndIsrRequest
from kafkalite.protocol.update_metadata import UpdateMetadataRequest
from tests.support.controllers import Cluster, LoopClock
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk import codecs, paths

T0 = TopicPartition("t", 0)


@pytest.fixture
def server() -> MemoryZooKeeper:
    return MemoryZooKeeper(LoopClock())


@pytest.fixture
async def cluster(server: MemoryZooKeeper) -> AsyncIterator[Cluster]:
    async with Cluster(lambda: server.connect(), LoopClock()) as cluster:
        yield cluster


def session(cluster: Cluster, id: int) -> MemoryClient:
    zk = cluster[id].zk
    assert isinstance(zk, MemoryClient)
    return zk


def topic(
    name: str,
    partitions: int = -1,
    replication_factor: int = -1,
    assignments: dict[int, list[int]] | None = None,
    configs: dict[str, str | None] | None = None,
) -> CreateTopicsTopic:
    return CreateTopicsTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replication_factor,
        assignments=[
            CreateTopicsAssignment(partition_index=p, broker_ids=b) for p, b in (assignments or {}).items()
        ],
        configs=[CreateTopicsConfig(name=n, value=v) for n, v in (configs or {}).items()],
    )


async def create(
    cluster: Cluster, *topics: CreateTopicsTopic, timeout_ms: int = 5000
) -> CreateTopicsResponse:
    return await cluster.controller.create_topics(
        CreateTopicsRequest(topics=list(topics), timeout_ms=timeout_ms)
    )


# --- election and fail-over ---------------------------------------------------------------


async def test_one_of_three_reigns_and_everybody_knows_it(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    assert [cluster[id].controller.is_active for id in (1, 2, 3)] == [True, False, False]
    await cluster.until(lambda: all(cluster[id].controller.controller_id == 1 for id in (1, 2, 3)))
    assert cluster.controller.epoch == 1
    await cluster.until(lambda: cluster.brokers.of(cluster[3].id).live_brokers == [1, 2, 3])
    assert cluster.controller.active_broker_count == 3


async def test_a_lost_reply_to_the_election_is_still_a_victory(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    await cluster.start(1, 2)
    await cluster[1].leave()
    await cluster.until(lambda: cluster[2].controller.is_active)
    await cluster[2].controller.session_lost()
    server.lose_reply(session(cluster, 2))
    assert cluster[2].store is not None
    cluster[2].controller.session_started(cluster[2].store, cluster[2].epoch)
    await cluster.until(lambda: cluster[2].controller.is_active)
    assert server.dump()[paths.CONTROLLER_EPOCH] == str(cluster[2].controller.epoch).encode()


async def test_the_next_controller_has_a_higher_epoch_and_tells_who_lives_first(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (1, 2, 3)})
    await cluster[1].leave()
    await cluster.until(lambda: cluster.active is not None)
    assert cluster.controller.epoch == 2
    state = await cluster.until_state(T0, lambda s: s.leader == 2)
    # Two decisions: the dead leader leaves the ISR, then its successor is elected.
    assert (state.isr, state.leader_epoch, state.controller_epoch) == ((2, 3), 2, 2)
    await cluster.until(lambda: cluster.brokers.of(cluster[2].id).leader_and_isr[T0].leader_epoch == 2)
    reign = [
        r
        for r in cluster.brokers.of(cluster[2].id).requests
        if isinstance(r, LeaderAndIsrRequest | UpdateMetadataRequest) and r.controller_epoch == 2
    ]
    assert isinstance(reign[0], UpdateMetadataRequest)
    assert reign[0].topic_states == []
    assert [live.id for live in reign[0].live_brokers] == [2, 3]


async def test_an_expired_controller_resigns_and_its_writes_are_fenced(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    server.expire(session(cluster, 1))
    await cluster[1].controller.session_lost()
    assert not cluster[1].controller.is_active
    with pytest.raises(NotControllerError):
        await cluster[1].controller.create_topics(CreateTopicsRequest(topics=[topic("u")]))
    await cluster.until(lambda: cluster.active is not None)
    assert cluster.controller is not cluster[1].controller
    await cluster[1].join()
    await cluster.until(lambda: cluster[1].controller.controller_id == cluster.controller.controller_id)


async def test_a_deposed_controller_that_knows_nothing_cannot_write(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    """Somebody deletes /controller by hand and wins while the old one's watch is on its way."""
    await cluster.start(1, 2)
    await cluster.create("t", {0: (1, 2)})
    reader = cluster.reader
    assert reader is not None
    epoch, version = await reader.controller_epoch()
    await reader.zk.set(paths.CONTROLLER_EPOCH, str(epoch + 1).encode(), version=version)
    response = cluster.controller.create_topics(CreateTopicsRequest(topics=[topic("u", 1, 1)]))
    with pytest.raises(NotControllerError):
        await response
    assert paths.topic("u") not in server.dump()
    # It still owns /controller, so it stands again, under a new epoch.
    await cluster.until(lambda: cluster.active is not None)
    assert cluster.controller.epoch == epoch + 2


async def test_shutdown_gives_the_controllership_up_at_once(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster[1].controller.shutdown()
    await cluster.until(lambda: cluster[2].controller.is_active)
    assert [e.type for e in cluster[1].journal.events(type="ControllerResigned")] == ["ControllerResigned"]


async def test_shutdown_ends_even_while_zookeeper_is_away(
    server: MemoryZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.controller.STOP_TIMEOUT_S", 0.05)
    async with Cluster(lambda: server.connect(), LoopClock()) as cluster:
        await cluster.start(1)
        server.stop()
        waiting = asyncio.create_task(create(cluster, topic("t", 1, 1)))
        await asyncio.sleep(0)
        await cluster[1].controller.shutdown()
        with pytest.raises(NotControllerError):
            await waiting
        server.start()


async def test_without_its_lease_a_controller_neither_writes_nor_sends(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    cluster[1].lease = False
    sent = len(cluster.brokers.causes)
    await cluster[2].leave()
    await asyncio.sleep(0.2)
    state = await cluster.state(T0)
    assert state is not None
    assert state[0].leader == 2
    assert len(cluster.brokers.causes) == sent
    cluster[1].lease = True
    assert (await cluster.until_state(T0, lambda s: s.leader == 3)).isr == (3,)


# --- restarts that nobody saw -------------------------------------------------------------


async def test_a_leader_that_restarted_while_nobody_ruled_loses_its_leadership(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    cluster[1].lease = cluster[3].lease = False  # Nobody acts.
    await cluster[2].bounce()
    cluster[2].lease = False
    await cluster[1].leave()
    cluster[2].lease = cluster[3].lease = True
    state = await cluster.until_state(T0, lambda s: s.leader == 3)
    assert (state.isr, state.leader_epoch) == ((3,), 1)
    # The znode changes before its writer hears so, and tells.
    await cluster.until(lambda: any(e.facts["leader"] == 3 for e in cluster.events("LeaderElected")))
    elected = [e for e in cluster.events("LeaderElected") if e.facts["leader"] == 3]
    assert elected[0].facts["strategy"] == "restart"


async def test_where_every_isr_member_restarted_the_isr_is_kept_in_a_new_epoch(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    cluster[1].lease = False
    await cluster[2].bounce()
    cluster[2].lease = False
    await cluster[3].bounce()
    cluster[3].lease = False
    await cluster[1].leave()
    cluster[2].lease = cluster[3].lease = True
    state = await cluster.until_state(T0, lambda s: s.leader_epoch > 0)
    assert (state.leader, state.isr, state.leader_epoch) == (2, (2, 3), 1)


async def test_a_conflict_makes_the_comparison_again_with_what_was_found(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    """The leader took the restarted follower back in before the controller looked: nothing to do."""
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    cluster[1].lease = False
    await cluster[3].bounce()
    await cluster.write_isr(T0, (2,))
    await cluster.write_isr(T0, (2, 3))
    cluster[1].lease = True
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[3].id).leader_and_isr)
    state = await cluster.state(T0)
    assert state is not None
    assert (state[0].leader, state[0].isr, state[0].leader_epoch) == (2, (2, 3), 0)
    assert cluster.events("ControllerFailed") == []


# --- brokers come and go ------------------------------------------------------------------


async def test_a_dead_leader_is_followed_by_the_next_in_sync_replica(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3, 1), 1: (3, 2, 1)})
    await cluster[2].leave()
    state = await cluster.until_state(T0, lambda s: 2 not in s.isr)
    assert (state.leader, state.isr, state.leader_epoch) == (3, (3, 1), 1)
    other = await cluster.until_state(TopicPartition("t", 1), lambda s: 2 not in s.isr)
    assert (other.leader, other.isr) == (3, (3, 1))
    await cluster.until(lambda: cluster.brokers.of(cluster[1].id).metadata[T0].leader == 3)
    assert cluster.brokers.of(cluster[1].id).metadata[T0].offline_replicas == [2]


async def test_the_chain_of_causes_leads_from_the_request_to_the_znode(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    await cluster[2].leave()
    await cluster.until(lambda: cluster.brokers.of(cluster[3].id).leader_and_isr[T0].leader == 3)
    events = {e.id: e for e in cluster[1].journal.events()}
    elected = next(e for e in cluster.events("LeaderElected") if e.facts["leader"] == 3)
    sent = next(e for e in cluster.events("LeaderAndIsrSent") if e.cause == elected.id)
    assert sent.id in cluster.brokers.causes
    assert elected.cause is not None
    failed = events[elected.cause]
    assert (failed.type, failed.facts["broker"]) == ("BrokerFailed", 2)
    assert failed.cause is not None
    znode = events[failed.cause]
    assert (znode.type, znode.facts["path"], znode.cause) == ("ZnodeChanged", "/brokers/ids/2", None)


async def test_the_last_isr_member_stays_and_leads_again_when_it_is_back(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (2,)})
    await cluster[2].leave()
    state = await cluster.until_state(T0, lambda s: s.leader == -1)
    assert (state.isr, state.leader_epoch) == ((2,), 1)
    assert cluster.controller.offline_partitions_count == 1
    await cluster[2].join()
    state = await cluster.until_state(T0, lambda s: s.leader == 2)
    assert (state.isr, state.leader_epoch) == ((2,), 2)
    await cluster.until(lambda: cluster.controller.offline_partitions_count == 0)


async def test_a_bounced_broker_fails_and_starts(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3)})
    await cluster[2].bounce()
    state = await cluster.until_state(T0, lambda s: s.leader == 3)
    assert state.isr == (3,)
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[2].id).leader_and_isr)
    assert [e.facts["broker"] for e in cluster.events("BrokerBounced")] == [2]


async def test_outside_the_isr_nobody_leads_unless_the_topic_says_so(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    await cluster.start(1, 2, 3)
    for name, unclean in (("t", "false"), ("u", "true")):
        await create(
            cluster,
            topic(name, assignments={0: [2, 3]}, configs={"unclean.leader.election.enable": unclean}),
        )
        await cluster.write_isr(TopicPartition(name, 0), (2,))
    await cluster[2].leave()
    state = await cluster.until_state(TopicPartition("u", 0), lambda s: s.leader == 3)
    assert (state.isr, state.leader_recovery_state) == ((3,), 1)
    assert (await cluster.until_state(T0, lambda s: s.leader == -1)).isr == (2,)
    assert cluster.controller.unclean_elections_total == 1


async def test_requests_are_repeated_until_a_broker_can_be_reached(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    cluster.brokers.unreachable.add(cluster[2].id)
    await cluster.create("t", {0: (2, 1)})
    await cluster.until(lambda: cluster.events("ControllerRequestFailed"))
    cluster.brokers.unreachable.clear()
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[2].id).leader_and_isr)
    assert cluster.brokers.of(cluster[2].id).leader_and_isr[T0].is_new


async def test_changed_endpoints_reach_everybody(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    cluster[2].rack = "r2"
    store = cluster[2].store
    assert store is not None
    # As somebody's tool would: in place, so the broker epoch stays.
    await store.zk.set(paths.broker(cluster[2].id), codecs.encode_broker(cluster[2].registration))

    def racks() -> list[str | None]:
        requests = cluster.brokers.of(cluster[1].id).requests
        updates = [r for r in requests if isinstance(r, UpdateMetadataRequest)]
        return [live.rack for live in updates[-1].live_brokers] if updates else []

    await cluster.until(lambda: racks() == [None, "r2"])


# --- topics -------------------------------------------------------------------------------


async def test_created_topics_have_leaders_when_the_answer_comes(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    response = await create(cluster, topic("t", 6, 3), topic("bad/name", 1, 1), topic("u"))
    assert [t.error_code for t in response.topics] == [0, ErrorCode.INVALID_TOPIC_EXCEPTION, 0]
    assert (response.topics[0].num_partitions, response.topics[0].replication_factor) == (6, 3)
    assert response.topics[0].topic_id != ZERO_UUID
    known = cluster.brokers.of(cluster[1].id).metadata
    assert {TopicPartition("t", p) for p in range(6)} <= set(known)
    assert cluster.controller.global_partition_count == 7
    again = await create(cluster, topic("t", 1, 1))
    assert again.topics[0].error_code == ErrorCode.TOPIC_ALREADY_EXISTS


async def test_validate_only_writes_nothing(server: MemoryZooKeeper, cluster: Cluster) -> None:
    await cluster.start(1)
    response = await cluster.controller.create_topics(
        CreateTopicsRequest(topics=[topic("t", 2, 1), topic("u", 1, 2)], validate_only=True)
    )
    assert [t.error_code for t in response.topics] == [0, ErrorCode.INVALID_REPLICATION_FACTOR]
    assert paths.topic("t") not in server.dump()


async def test_refused_configs_and_names_given_twice(cluster: Cluster) -> None:
    def refuse(topic: str, config: dict[str, str | None]) -> None:
        if "nonsense" in config:
            raise InvalidConfigError("unknown config nonsense")

    cluster.validate = refuse
    await cluster.start(1)
    response = await create(
        cluster, topic("t", 1, 1, configs={"nonsense": "1"}), topic("u", 1, 1), topic("u", 1, 1)
    )
    assert {t.name: t.error_code for t in response.topics} == {
        "t": ErrorCode.INVALID_CONFIG,
        "u": ErrorCode.INVALID_REQUEST,
    }


async def test_a_topic_on_dead_brokers_times_out_and_comes_up_later(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    response = await create(cluster, topic("t", assignments={0: [7]}), timeout_ms=50)
    assert response.topics[0].error_code == ErrorCode.REQUEST_TIMED_OUT
    await cluster.start(7)
    assert (await cluster.until_state(T0, lambda s: s.leader == 7)).isr == (7,)


@pytest.mark.parametrize(
    "znode",
    [
        b'{"version":1,"partitions":{"0":[2,1]}}',
        b'{"version":2,"partitions":{"0":[2,1]},"adding_replicas":{},"removing_replicas":{}}',
        b'{"version":3,"topic_id":"Yx5xvQ9ESSS0kqTmUqIVTw","partitions":{"0":[2,1]},'
        b'"adding_replicas":{},"removing_replicas":{}}',
    ],
)
async def test_a_topic_written_by_anyone_comes_up(
    server: MemoryZooKeeper, cluster: Cluster, znode: bytes
) -> None:
    await cluster.start(1, 2)
    assert cluster.reader is not None
    await cluster.reader.zk.create(paths.topic("t"), znode)
    state = await cluster.until_state(T0, lambda s: s.leader == 2)
    assert (state.isr, state.leader_epoch) == ((2, 1), 0)
    assert b'"topic_id":"' in server.dump()[paths.topic("t")]
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[2].id).leader_and_isr)
    assert cluster.brokers.of(cluster[2].id).leader_and_isr[T0].is_new
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[1].id).metadata)


async def test_a_topic_that_is_no_record_is_told_and_comes_up_when_mended(cluster: Cluster) -> None:
    await cluster.start(1)
    assert cluster.reader is not None
    await cluster.reader.zk.create(paths.topic("t"), b"{")
    await cluster.until(lambda: cluster.events("TopicUnreadable"))
    await cluster.reader.zk.set(paths.topic("t"), b'{"version":1,"partitions":{"0":[1]}}')
    await cluster.until_state(T0, lambda s: s.leader == 1)


async def test_partitions_added_to_the_znode_come_up(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (1, 2)})
    assert cluster.reader is not None
    record = await cluster.reader.topic("t")
    assert record is not None
    assert record.topic_id is not None
    await cluster.reader.zk.set(
        paths.topic("t"),
        b'{"version":3,"topic_id":"%s","partitions":{"0":[1,2],"1":[2,1]},'
        b'"adding_replicas":{},"removing_replicas":{}}' % record.topic_id.encode(),
    )
    assert (await cluster.until_state(TopicPartition("t", 1), lambda s: s.leader == 2)).isr == (2, 1)


async def test_deleting_a_topic_takes_logs_first_and_znodes_last(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    await cluster.start(1, 2)
    await create(cluster, topic("t", 2, 2))
    assert cluster.reader is not None
    await cluster.reader.zk.create(paths.delete_topic("t"))
    await cluster.until(lambda: not any("/t" in path.replace("/topics", "") for path in server.dump()))
    for id in (1, 2):
        assert cluster.brokers.of(cluster[id].id).stopped == {T0: True, TopicPartition("t", 1): True}
        assert cluster.brokers.of(cluster[id].id).metadata == {}
    assert cluster.controller.global_topic_count == 0
    response = await create(cluster, topic("t", 1, 1))
    assert response.topics[0].error_code == 0


async def test_deletion_waits_for_a_replica_that_is_down(server: MemoryZooKeeper, cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (1, 2)})
    await cluster[2].leave()
    await cluster.until_state(T0, lambda s: s.isr == (1,))
    assert cluster.reader is not None
    await cluster.reader.zk.create(paths.delete_topic("t"))
    await cluster.until(lambda: cluster.controller.topics_ineligible_to_delete_count == 1)
    await cluster[2].join()
    await cluster.until(lambda: paths.topic("t") not in server.dump())
    assert cluster.brokers.of(cluster[2].id).stopped == {T0: True}


async def test_the_wish_to_delete_an_unknown_topic_is_refused_loudly(
    server: MemoryZooKeeper, cluster: Cluster
) -> None:
    await cluster.start(1)
    assert cluster.reader is not None
    await cluster.reader.zk.create(paths.delete_topic("nothing"))
    await cluster.until(lambda: paths.delete_topic("nothing") not in server.dump())
    assert cluster.events("TopicDeletionRefused")[0].topic == "nothing"


# --- notifications ------------------------------------------------------------------------


async def test_isr_changes_reach_everybodys_metadata(server: MemoryZooKeeper, cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (2, 1)})
    await cluster.write_isr(T0, (2,))
    await cluster.until(lambda: cluster.brokers.of(cluster[1].id).metadata[T0].isr == [2])
    await cluster.until(lambda: not any("isr_change_0" in path for path in server.dump()))


async def test_a_lost_log_directory_moves_its_leaders(server: MemoryZooKeeper, cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (2, 1), 1: (2, 1)})
    cluster.brokers.lost_dirs[cluster[2].id] = {T0}
    assert cluster.reader is not None
    await cluster.reader.publish_log_dir_event(cluster[2].id)
    state = await cluster.until_state(T0, lambda s: s.leader == 1)
    assert state.isr == (1,)
    other = await cluster.state(TopicPartition("t", 1))
    assert other is not None
    assert other[0].leader == 2
    await cluster.until(lambda: not any("log_dir_event_0" in path for path in server.dump()))
    cluster.brokers.lost_dirs.clear()
    await cluster[2].bounce()  # A new life forgets the lost directory.
    await cluster.until(lambda: T0 in cluster.brokers.of(cluster[2].id).leader_and_isr)


# --- other requests -----------------------------------------------------------------------


async def test_a_controlled_shutdown_moves_leaders_and_leaves_isrs(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (2, 3), 1: (3, 2), 2: (2,)})
    response = await cluster.controller.controlled_shutdown(
        ControlledShutdownRequest(broker_id=2, broker_epoch=cluster[2].epoch)
    )
    assert (response.error_code, response.remaining_partitions) == (0, [])
    led, followed, alone = [await cluster.state(TopicPartition("t", p)) for p in range(3)]
    assert led is not None
    assert followed is not None
    assert alone is not None
    assert (led[0].leader, led[0].isr) == (3, (3,))
    assert (followed[0].leader, followed[0].isr) == (3, (3,))
    assert (alone[0].leader, alone[0].isr) == (2, (2,))
    stale = await cluster.controller.controlled_shutdown(
        ControlledShutdownRequest(broker_id=2, broker_epoch=1)
    )
    assert stale.error_code == ErrorCode.STALE_BROKER_EPOCH
    unknown = await cluster.controller.controlled_shutdown(ControlledShutdownRequest(broker_id=9))
    assert unknown.error_code == ErrorCode.BROKER_NOT_AVAILABLE


async def test_a_leader_that_cannot_move_remains(cluster: Cluster) -> None:
    await cluster.start(1, 2)
    await cluster.create("t", {0: (2, 1)})
    await cluster.write_isr(T0, (2,))
    await cluster.until(lambda: cluster.brokers.of(cluster[1].id).metadata[T0].isr == [2])
    response = await cluster.controller.controlled_shutdown(ControlledShutdownRequest(broker_id=2))
    assert [(p.topic_name, p.partition_index) for p in response.remaining_partitions] == [("t", 0)]


async def test_blocks_of_producer_ids_never_overlap(cluster: Cluster) -> None:
    await cluster.start(1, 2)

    async def block(broker: int) -> tuple[int, int]:
        response = await cluster.controller.allocate_producer_ids(
            AllocateProducerIdsRequest(broker_id=broker, broker_epoch=cluster[broker].epoch)
        )
        assert response.error_code == 0
        return response.producer_id_start, response.producer_id_len

    assert list(await asyncio.gather(block(1), block(2), block(1))) == [
        (0, 1000),
        (1000, 1000),
        (2000, 1000),
    ]
    stale = await cluster.controller.allocate_producer_ids(
        AllocateProducerIdsRequest(broker_id=1, broker_epoch=0)
    )
    assert stale.error_code == ErrorCode.STALE_BROKER_EPOCH


async def test_a_thousand_partitions_fail_over(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3)
    await create(cluster, topic("t", assignments={p: [2, 3] for p in range(1000)}), timeout_ms=60_000)
    await cluster[2].leave()
    told = cluster.brokers.of(cluster[3].id).leader_and_isr
    await cluster.until(lambda: sum(s.leader == 3 and s.isr == [3] for s in told.values()) == 1000, 60)
    batches = [r for r in cluster.brokers.of(cluster[3].id).requests if isinstance(r, LeaderAndIsrRequest)]
    assert len(batches) <= 3  # Partitions travel together.
