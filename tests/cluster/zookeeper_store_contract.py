"""What the typed store does on any :class:`zk.client.ZooKeeper`, real or simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from kafkalite.common import (
    BrokerId,
    BrokerInfo,
    ControllerEpoch,
    Endpoint,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
    Uuid,
)
from tests.support.zookeeper import Harness, Told
from zk import admin, paths
from zk.client import (
    BadVersion,
    Create,
    Delete,
    MultiFailed,
    NodeExists,
    NoNode,
    Op,
    OpResult,
    SetData,
    WatchEvent,
    ZooKeeper,
)
from zk.codecs import BadRecord, BrokerRegistration, ConfigChange, LogDirEvent, TopicRecord
from zk.store import (
    ControllerMoved,
    DuplicateBroker,
    Elected,
    FencedStore,
    ProducerIdsExhausted,
    RegistrationsChanged,
    Store,
    TopicExists,
)

ONE, TWO, THREE = BrokerId(1), BrokerId(2), BrokerId(3)
ID = Uuid("Yx5xvQ9ESSS0kqTmUqIVTw")
OTHER_ID = Uuid("4L6g3nShT-eMCtK--X86sw")
TP = TopicPartition("orders", 0)


def registration(broker_id: BrokerId, port: int = 9092) -> BrokerRegistration:
    return BrokerRegistration(broker_id, (Endpoint("PLAINTEXT", "127.0.0.1", port),), timestamp_ms=1)


def state(leader: BrokerId, *isr: BrokerId, epoch: int = 0, version: int = 0) -> LeaderAndIsr:
    return LeaderAndIsr(leader, LeaderEpoch(epoch), isr, ControllerEpoch(1), PartitionEpoch(version))


def topic(*replicas: BrokerId) -> TopicRecord:
    return TopicRecord(ID, {0: replicas})


class LateStore(Store):
    """A store whose every write is preceded by something that somebody else does."""

    def __init__(self, zk: ZooKeeper, before: Callable[[], Awaitable[None]]) -> None:
        super().__init__(zk)
        self._before = before

    async def write(self, operations: Sequence[Op]) -> list[OpResult]:
        await self._before()
        return await super().write(operations)


async def opened(harness: Harness) -> Store:
    store = Store(await harness.connect())
    await store.create_persistent_paths()
    return store


async def counted(store: Store) -> int:
    stat = await store.exists(paths.BROKER_IDS)
    assert stat is not None
    return stat.version


class StoreContract:
    # ----------------------------------------------------------------------- cluster

    async def test_persistent_paths_are_made_once_and_empty(self, harness: Harness) -> None:
        store, other = Store(await harness.connect()), Store(await harness.connect())
        await asyncio.gather(store.create_persistent_paths(), other.create_persistent_paths())
        for path in paths.PERSISTENT:
            found = await store.get(path)
            assert found is not None
            assert (found[0], found[1].version) == (b"", 0)

    async def test_the_first_cluster_id_stays(self, harness: Harness) -> None:
        one, other = await opened(harness), await opened(harness)
        ids = await asyncio.gather(one.cluster_id(ID), other.cluster_id(OTHER_ID))
        assert ids[0] == ids[1] == await one.cluster_id(OTHER_ID)
        found = await one.get(paths.CLUSTER_ID)
        assert found is not None
        assert found[0] == b'{"version":"1","id":"%s"}' % ids[0].encode()

    async def test_features_are_created_enabled_and_flipped_where_they_were_disabled(
        self, harness: Harness
    ) -> None:
        store = await opened(harness)
        await store.enable_features()
        enabled = b'{"version":2,"status":1,"features":{}}'
        assert (await store.zk.get(paths.FEATURE))[0] == enabled
        kept = b'{"version":2,"status":1,"features":{"f":{"max_version_level":3}}}'
        await store.zk.set(paths.FEATURE, kept)
        await store.enable_features()
        assert (await store.zk.get(paths.FEATURE))[0] == kept
        await store.zk.set(paths.FEATURE, b'{"version":1,"status":0,"features":{}}')
        harness.lose_reply(store.zk)
        await store.enable_features()
        assert (await store.zk.get(paths.FEATURE))[0] == enabled

    async def test_generated_broker_ids_begin_after_the_reserved_ones(self, harness: Harness) -> None:
        store = await opened(harness)
        assert [await store.generate_broker_id(1000) for _ in range(2)] == [1001, 1002]

    # ------------------------------------------------------------------ registration

    async def test_a_registration_is_counted_and_its_czxid_is_the_epoch(self, harness: Harness) -> None:
        store, other = await opened(harness), await opened(harness)
        epochs = [
            await store.register_broker(registration(ONE)),
            await other.register_broker(registration(TWO, 9093)),
        ]
        await store.zk.sync()
        found = await store.registrations()
        assert found.version == 2
        assert found.czxid == {ONE: epochs[0], TWO: epochs[1]}
        assert epochs[0] < epochs[1]
        brokers = await store.live_brokers()
        assert brokers[TWO] == BrokerInfo(TWO, epochs[1], (Endpoint("PLAINTEXT", "127.0.0.1", 9093),))
        data = await store.get(paths.broker(ONE))
        assert data is not None
        assert data[1].version == 1
        assert data[1].ephemeral_owner == store.zk.session_id
        assert msgspec.json.decode(data[0])["version"] == 5

    async def test_a_second_broker_of_the_same_id_is_refused(self, harness: Harness) -> None:
        store, other = await opened(harness), await opened(harness)
        epoch = await store.register_broker(registration(ONE))
        with pytest.raises(DuplicateBroker, match=r"127\.0\.0\.1:9092") as caught:
            await other.register_broker(registration(ONE, 9999), previous_session=12345)
        assert caught.value.owner.session_id == store.zk.session_id
        assert caught.value.owner.epoch == epoch
        assert await counted(store) == 1

    async def test_a_lost_answer_to_a_registration_is_looked_up(self, harness: Harness) -> None:
        store = await opened(harness)
        harness.lose_reply(store.zk)
        epoch = await store.register_broker(registration(ONE))
        owner = await store.registration_owner(ONE)
        assert owner is not None
        assert (owner.session_id, owner.epoch) == (store.zk.session_id, epoch)
        assert await counted(store) == 1

    async def test_a_deleted_registration_is_made_again_with_a_new_epoch(self, harness: Harness) -> None:
        store = await opened(harness)
        first = await store.register_broker(registration(ONE))
        await store.zk.delete(paths.broker(ONE))
        second = await store.register_broker(registration(ONE))
        assert second > first
        assert await counted(store) == 2

    async def test_an_own_leftover_that_does_not_answer_is_replaced(self, harness: Harness) -> None:
        old, new = await opened(harness), await opened(harness)
        first = await old.register_broker(registration(ONE, 9000))
        await harness.suspend(old.zk)
        asked: list[BrokerInfo] = []

        async def answers(info: BrokerInfo) -> bool:
            asked.append(info)
            return False

        second = await new.register_broker(
            registration(ONE, 9001), previous_session=old.zk.session_id, answers=answers
        )
        assert [info.endpoints[0].port for info in asked] == [9000]
        assert second > first
        assert await counted(new) == 2
        owner = await new.registration_owner(ONE)
        assert owner is not None
        assert owner.session_id == new.zk.session_id

    async def test_an_own_leftover_that_answers_is_respected(self, harness: Harness) -> None:
        old, new = await opened(harness), await opened(harness)
        await old.register_broker(registration(ONE))

        async def answers(_: BrokerInfo) -> bool:
            return True

        with pytest.raises(DuplicateBroker):
            await new.register_broker(registration(ONE), previous_session=old.zk.session_id, answers=answers)

    async def test_a_leftover_is_not_replaced_once_another_life_has_begun(self, harness: Harness) -> None:
        old, new = await opened(harness), await opened(harness)
        await old.register_broker(registration(ONE))
        leftover = await new.registration_owner(ONE)
        assert leftover is not None
        await old.zk.delete(paths.broker(ONE))
        epoch = await old.register_broker(registration(ONE))
        await new.zk.sync()
        assert await new.replace_registration(registration(ONE), leftover) is None
        info = await new.broker(ONE)
        assert info is not None
        assert info.epoch == epoch

    async def test_a_life_that_begins_just_before_the_replacement_is_spared(self, harness: Harness) -> None:
        old = await opened(harness)

        async def begin_anew() -> None:
            await old.zk.delete(paths.broker(ONE))
            await old.register_broker(registration(ONE))

        await old.register_broker(registration(ONE))
        new = LateStore(await harness.connect(), begin_anew)
        leftover = await new.registration_owner(ONE)
        assert leftover is not None
        assert await new.replace_registration(registration(ONE), leftover) is None
        owner = await old.registration_owner(ONE)
        assert owner is not None
        assert owner.session_id == old.zk.session_id
        assert owner.epoch > leftover.epoch

    async def test_a_lost_answer_to_a_replacement_is_looked_up(self, harness: Harness) -> None:
        old, new = await opened(harness), await opened(harness)
        await old.register_broker(registration(ONE))
        leftover = await new.registration_owner(ONE)
        assert leftover is not None
        harness.lose_reply(new.zk)
        epoch = await new.replace_registration(registration(ONE, 9001), leftover)
        info = await new.broker(ONE)
        assert info is not None
        assert (info.epoch, info.endpoints[0].port) == (epoch, 9001)

    # ---------------------------------------------------------------------- election

    async def test_epochs_rise_from_one(self, harness: Harness) -> None:
        one, two = await opened(harness), await opened(harness)
        assert await one.controller() is None
        first = await one.elect_controller(ONE, 5)
        assert first == Elected(ControllerEpoch(1), 1)
        with pytest.raises(ControllerMoved) as caught:
            await two.elect_controller(TWO, 6)
        assert caught.value.current is not None
        assert caught.value.current.broker_id == ONE
        told = Told()
        await two.controller(watch=told)
        await one.zk.close()
        assert await told.next() == (paths.CONTROLLER, WatchEvent.DELETED)
        second = await two.elect_controller(TWO, 7)
        assert second == Elected(ControllerEpoch(2), 2)
        record = await two.controller()
        assert record is not None
        assert (record.broker_id, record.timestamp_ms) == (TWO, 7)

    async def test_of_several_candidates_one_is_elected(self, harness: Harness) -> None:
        stores = [await opened(harness) for _ in range(4)]
        outcomes = await asyncio.gather(
            *(store.elect_controller(BrokerId(n), 0) for n, store in enumerate(stores)),
            return_exceptions=True,
        )
        won = [outcome for outcome in outcomes if isinstance(outcome, Elected)]
        assert won == [Elected(ControllerEpoch(1), 1)]
        assert sum(isinstance(outcome, ControllerMoved) for outcome in outcomes) == 3

    async def test_a_watch_on_a_vacancy_tells_of_the_next_controller(self, harness: Harness) -> None:
        one, two = await opened(harness), await opened(harness)
        told = Told()
        assert await two.controller(watch=told) is None
        await one.elect_controller(ONE, 0)
        assert await told.next() == (paths.CONTROLLER, WatchEvent.CREATED)

    async def test_a_lost_answer_to_an_election_is_looked_up(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.controller_epoch()
        harness.lose_reply(store.zk)
        elected = await store.elect_controller(ONE, 0)
        assert elected == Elected(ControllerEpoch(1), 1)
        assert await store.controller_epoch() == (1, 1)
        await FencedStore(store, elected.epoch_zk_version).create_if_missing("/x")

    async def test_an_own_leftover_of_a_reign_is_replaced_under_a_new_epoch(self, harness: Harness) -> None:
        old, new = await opened(harness), await opened(harness)
        deposed = FencedStore(old, (await old.elect_controller(ONE, 0)).epoch_zk_version)
        elected = await new.elect_controller(ONE, 1, previous_session=old.zk.session_id)
        assert elected == Elected(ControllerEpoch(2), 2)
        with pytest.raises(ControllerMoved):
            await deposed.create_if_missing("/x")
        again = await new.elect_controller(ONE, 2)  # A reign that this session has given up.
        assert again == Elected(ControllerEpoch(3), 3)

    async def test_a_deposed_controller_cannot_write(self, harness: Harness) -> None:
        one, two = await opened(harness), await opened(harness)
        reign = FencedStore(one, (await one.elect_controller(ONE, 0)).epoch_zk_version)
        await reign.write([Create("/a", b"reigned")])
        with pytest.raises(MultiFailed) as caught:
            await reign.write([SetData("/a", b"x"), Create("/a")])
        assert caught.value.index == 1
        assert isinstance(caught.value.error, NodeExists)
        await reign.resign()
        assert await one.controller() is None
        await two.elect_controller(TWO, 0)
        for attempt in (
            reign.write([SetData("/a", b"deposed")]),
            reign.create_topic("t", topic(ONE)),
            reign.publish_isr_change([TP]),
            reign.next_producer_id_block(ONE),
            reign.delete_notifications(["/a"]),
            reign.resign(),
        ):
            with pytest.raises(ControllerMoved):
                await attempt
        await one.zk.sync()
        assert (await one.zk.get("/a"))[0] == b"reigned"
        assert await one.topics() == []
        assert await one.controller() is not None

    # ---------------------------------------------------------------- partition states

    async def test_a_partition_state_is_created_and_changed(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.register_broker(registration(ONE))
        version = (await store.registrations()).version
        await store.create_topic("orders", topic(ONE, TWO))
        created = await store.create_partition_state(TP, state(ONE, ONE, TWO), registrations_version=version)
        assert created.version == 0
        with pytest.raises(NodeExists):
            await store.create_partition_state(TP, state(ONE, ONE), registrations_version=version)
        changed = await store.write_partition_state(
            TP, state(ONE, ONE), expected_version=PartitionEpoch(0), registrations_version=version
        )
        assert changed.version == 1
        found = await store.partition_state(TP)
        assert found == (state(ONE, ONE, version=1), changed)
        with pytest.raises(BadVersion):
            await store.write_partition_state(
                TP, state(ONE, ONE, TWO), expected_version=PartitionEpoch(0), registrations_version=version
            )
        raw = await store.get("/brokers/topics/orders/partitions/0/state")
        assert raw is not None
        assert raw[0] == b'{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}'

    async def test_a_new_registration_refuses_what_was_decided_before_it(self, harness: Harness) -> None:
        store, other = await opened(harness), await opened(harness)
        await store.create_topic("orders", topic(ONE, TWO))
        version = (await store.registrations()).version
        await store.create_partition_state(TP, state(ONE, ONE), registrations_version=version)
        await other.register_broker(registration(TWO))
        with pytest.raises(RegistrationsChanged):
            await store.write_partition_state(
                TP, state(ONE, ONE, TWO), expected_version=PartitionEpoch(0), registrations_version=version
            )
        with pytest.raises(RegistrationsChanged):
            await store.create_partition_state(
                TopicPartition("orders", 1), state(ONE, ONE), registrations_version=version
            )
        await store.zk.sync()
        version = (await store.registrations()).version
        await store.write_partition_state(
            TP, state(ONE, ONE, TWO), expected_version=PartitionEpoch(0), registrations_version=version
        )

    async def test_lost_answers_to_state_writes_are_looked_up(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.create_topic("orders", topic(ONE, TWO))
        await store.zk.create(paths.topic_partitions("orders"))
        harness.lose_reply(store.zk)
        assert (await store.create_partition_state(TP, state(ONE, ONE), registrations_version=0)).version == 0
        harness.lose_reply(store.zk)
        stat = await store.write_partition_state(
            TP, state(ONE, ONE, TWO), expected_version=PartitionEpoch(0), registrations_version=0
        )
        assert stat.version == 1
        assert await store.partition_state(TP) == (state(ONE, ONE, TWO, version=1), stat)

    async def test_a_state_of_a_deleted_topic_is_not_created(self, harness: Harness) -> None:
        store = await opened(harness)
        with pytest.raises(NoNode):
            await store.create_partition_state(TP, state(ONE, ONE), registrations_version=0)

    async def test_many_states_are_read_at_once(self, harness: Harness) -> None:
        store = await opened(harness)
        partitions = [TopicPartition("orders", n) for n in range(200)]
        await store.create_topic("orders", TopicRecord(ID, dict.fromkeys(range(200), (ONE,))))
        await store.zk.create(paths.topic_partitions("orders"))
        await asyncio.gather(
            *(
                store.create_partition_state(tp, state(ONE, ONE), registrations_version=0)
                for tp in partitions[:150]
            )
        )
        found = await store.partition_states(partitions)
        assert list(found) == partitions[:150]
        assert all(leader_and_isr == state(ONE, ONE) for leader_and_isr, _ in found.values())

    # --------------------------------------------------------------- topics and configs

    async def test_a_topic_is_created_with_its_configs(self, harness: Harness) -> None:
        store = await opened(harness)
        told = Told()
        assert await store.topics(watch=told) == []
        await admin.create_topic(store, "orders", topic(TWO, ONE), {"retention.ms": "60000"})
        assert await told.next() == (paths.TOPICS, WatchEvent.CHILDREN_CHANGED)
        assert await store.topics() == ["orders"]
        assert await store.topic("orders") == topic(TWO, ONE)
        assert await store.topic_config("orders") == {"retention.ms": "60000"}
        assert await store.config_entities("topics") == ["orders"]
        with pytest.raises(TopicExists):
            await admin.create_topic(store, "orders", topic(ONE), {"retention.ms": "1"})
        assert await store.topic_config("orders") == {"retention.ms": "60000"}
        assert await store.topic("absent") is None
        assert await store.topic_config("absent") == {}

    async def test_a_lost_answer_to_a_topic_creation_is_looked_up(self, harness: Harness) -> None:
        store = await opened(harness)
        harness.lose_reply(store.zk)
        await store.create_topic("orders", topic(ONE))
        assert await store.topics() == ["orders"]
        with pytest.raises(TopicExists):
            await store.create_topic("orders", topic(TWO))

    async def test_a_topic_is_rewritten_only_as_it_was_read(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.create_topic("orders", topic(ONE))
        read = await store.topic("orders")
        assert read is not None
        harness.lose_reply(store.zk)
        written = await store.set_topic("orders", TopicRecord(ID, {0: (ONE,), 1: (TWO,)}, zk_version=0))
        assert written.zk_version == 1
        with pytest.raises(BadVersion):
            await store.set_topic("orders", read)
        assert await store.topic("orders") == written

    async def test_a_changed_config_is_announced(self, harness: Harness) -> None:
        store = await opened(harness)
        told = Told()
        await store.config_changes(watch=told)
        await admin.change_config(store, {"quota": "1"}, "users", "ann b", "clients", "<default>")
        assert await told.next() == (paths.CONFIG_CHANGES, WatchEvent.CHILDREN_CHANGED)
        await admin.change_config(store, {}, "topics", "orders")
        assert list((await store.config_changes()).values()) == [
            ConfigChange("users/ann%20b/clients/<default>"),
            ConfigChange("topics/orders"),
        ]
        assert await store.entity_config("users", "ann b", "clients", "<default>") == {"quota": "1"}
        assert await store.config_entities("users") == ["ann b"]

    async def test_a_wish_for_deletion_is_left_once(self, harness: Harness) -> None:
        store = await opened(harness)
        await admin.request_topic_deletion(store, "orders")
        await admin.request_topic_deletion(store, "orders")
        assert await store.topic_deletions() == ["orders"]

    async def test_a_tree_is_deleted(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.create_topic("orders", topic(ONE))
        await store.create_partition_state(TP, state(ONE, ONE), registrations_version=0)
        await store.delete_tree(paths.topic("orders"))
        await store.delete_tree(paths.topic("orders"))
        assert await store.topics() == []

    # ------------------------------------------------------------------- notifications

    async def test_notifications_are_read_in_order_and_deleted(self, harness: Harness) -> None:
        store = await opened(harness)
        other = TopicPartition("payments", 3)
        first = await store.publish_isr_change([TP, other])
        harness.lose_reply(store.zk)
        last = await store.publish_isr_change([other])
        await store.zk.create(paths.isr_change(), b"rubbish", sequential=True)
        found = await store.isr_changes()
        assert next(iter(found)) == first
        assert found[first] == (TP, other)
        assert found[last] == (other,)
        assert isinstance(list(found.values())[-1], BadRecord)
        await store.delete_notifications([*found, first])
        assert await store.isr_changes() == {}
        await store.publish_log_dir_event(TWO)
        assert list((await store.log_dir_events()).values()) == [LogDirEvent(TWO)]

    # -------------------------------------------------------------------- producer ids

    async def test_producer_id_blocks_never_overlap(self, harness: Harness) -> None:
        stores = [await opened(harness) for _ in range(3)]
        blocks = await asyncio.gather(
            *(store.next_producer_id_block(BrokerId(n)) for n, store in enumerate(stores) for _ in range(4))
        )
        assert sorted((block.first, block.last) for block in blocks) == [
            (n * 1000, n * 1000 + 999) for n in range(12)
        ]

    async def test_a_lost_answer_to_a_block_is_looked_up(self, harness: Harness) -> None:
        store = await opened(harness)
        harness.lose_reply(store.zk)
        assert (await store.next_producer_id_block(ONE)).first == 0
        assert (await store.next_producer_id_block(ONE)).first == 1000

    async def test_producer_ids_end(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.zk.set(
            paths.LATEST_PRODUCER_ID_BLOCK,
            b'{"version":1,"broker":1,"block_start":"9223372036854774000","block_end":"9223372036854774999"}',
        )
        with pytest.raises(ProducerIdsExhausted):
            await store.next_producer_id_block(ONE)

    async def test_what_is_no_record_is_told_with_its_path(self, harness: Harness) -> None:
        store = await opened(harness)
        await store.write([Create(paths.topic("t"), b"{}"), Create(paths.CONTROLLER, b"[]")])
        with pytest.raises(BadRecord, match=r"/brokers/topics/t: .*partitions"):
            await store.topic("t")
        with pytest.raises(BadRecord, match="/controller: "):
            await store.controller()
        await store.write([Delete(paths.CONTROLLER)])
