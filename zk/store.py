"""What brokers and the controller read from ZooKeeper and write to it, as types.

Every write is one multi. A plain :class:`Store` sends it as it is; a :class:`FencedStore`, which is
what a controller uses, puts a check of ``/controller_epoch`` before it, so that a deposed controller
cannot write: it gets :class:`ControllerMoved` instead.

When the answer to a write is lost, nobody knows whether it took effect. Then, and only then, the
store looks: after a ``sync`` (which waits for whatever the lost request may have set in motion) it
reads back what the write would have left behind. A write that is found is done; one that is found
missing is tried again, which is safe because every write here names the version or the absence that
it builds on. Reads are simply repeated.

**Registrations are counted.** The multi that creates ``/brokers/ids/N`` also sets the data of
``/brokers/ids``, to the empty data it has in Kafka too: only the version counts. It rises with
every registration, so whoever checks it in the multi that writes a partition's state knows that no
broker has begun a new life since the registrations were read. A check on the follower's own znode
would not do, since a new znode's version is 0 again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec

from kafkalite.common import (
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    ControllerEpoch,
    LeaderAndIsr,
    PartitionEpoch,
    TopicPartition,
    Uuid,
)
from zk import codecs, paths
from zk.client import (
    BadVersion,
    Check,
    ConnectionLoss,
    Create,
    Delete,
    MultiFailed,
    NodeExists,
    NoNode,
    NotEmpty,
    Op,
    OpResult,
    SetData,
    Stat,
    WatchCallback,
    ZooKeeper,
)
from zk.codecs import (
    BadRecord,
    BrokerRegistration,
    ConfigChange,
    ControllerRecord,
    Features,
    LogDirEvent,
    ProducerIdBlock,
    TopicRecord,
)

T = TypeVar("T")

__all__ = [
    "BadRecord",
    "BrokerRegistration",
    "ControllerMoved",
    "ControllerRecord",
    "DuplicateBroker",
    "Elected",
    "FencedStore",
    "LogDirEvent",
    "ProducerIdBlock",
    "ProducerIdsExhausted",
    "RegistrationOwner",
    "Registrations",
    "RegistrationsChanged",
    "Store",
    "TopicExists",
    "TopicRecord",
]


class ControllerMoved(Exception):
    """Another controller was elected. ``current`` is what ``/controller`` says, where it was read."""

    def __init__(self, message: str, current: ControllerRecord | None = None) -> None:
        super().__init__(message)
        self.current = current


class DuplicateBroker(Exception):
    """A live session holds the registration of this broker id."""

    def __init__(self, owner: RegistrationOwner) -> None:
        endpoints = ", ".join(str(endpoint) for endpoint in owner.broker.endpoints) if owner.broker else "?"
        super().__init__(
            f"broker {owner.broker_id} is registered already, by ZooKeeper session "
            f"{owner.session_id:#x} with the endpoints {endpoints}"
        )
        self.owner = owner


class RegistrationsChanged(Exception):
    """A broker registered after the registrations were read: read them again and decide anew."""


class TopicExists(Exception):
    """The topic is there already."""


class ProducerIdsExhausted(Exception):
    """The next block would go beyond 2^63 - 1."""


class RegistrationOwner(msgspec.Struct, frozen=True):
    """Who holds ``/brokers/ids/N``."""

    broker_id: BrokerId
    session_id: int
    epoch: BrokerEpoch
    broker: BrokerInfo | None
    """What the registration says; None where it holds no record that can be read."""


class Registrations(msgspec.Struct, frozen=True):
    """All registrations, and the version of ``/brokers/ids`` that was read before them."""

    version: int
    """To be checked by the multi that writes what was decided from :attr:`czxid`."""
    czxid: Mapping[BrokerId, int]
    """When each registered broker registered: its broker epoch."""


class Elected(msgspec.Struct, frozen=True):
    """This broker is the controller."""

    epoch: ControllerEpoch
    epoch_zk_version: int
    """Version of ``/controller_epoch``: what fences every write."""


class Store:
    """Typed reads and conditional writes within one session.

    Every method raises SessionExpired once the session is over. A read raises
    :class:`~zk.codecs.BadRecord` where a znode holds something else than its record.
    ``watch`` is the one-shot watch of :mod:`zk.client`, set by the read itself.
    """

    def __init__(self, zk: ZooKeeper) -> None:
        self._zk = zk

    @property
    def zk(self) -> ZooKeeper:
        """The session underneath."""
        return self._zk

    # ------------------------------------------------------------------ plain reads and writes

    async def write(self, operations: Sequence[Op]) -> list[OpResult]:
        """Carry out one multi. Raises MultiFailed, or ConnectionLoss (unknown), as ZooKeeper does."""
        return await self._zk.multi(operations)

    async def get(self, path: str, *, watch: WatchCallback | None = None) -> tuple[bytes, Stat] | None:
        """Data and stat of ``path``, or None where it does not exist (then no watch is set)."""
        try:
            return await _repeated(lambda: self._zk.get(path, watch=watch))
        except NoNode:
            return None

    async def exists(self, path: str, *, watch: WatchCallback | None = None) -> Stat | None:
        """The stat of ``path``, or None where it does not exist; the watch is set either way."""
        return await _repeated(lambda: self._zk.exists(path, watch=watch))

    async def children(self, path: str, *, watch: WatchCallback | None = None) -> list[str]:
        """The sorted names below ``path``; none where it does not exist (then no watch is set)."""
        try:
            return sorted(await _repeated(lambda: self._zk.children(path, watch=watch)))
        except NoNode:
            return []

    async def _settle(
        self, operations: Sequence[Op], landed: Callable[[], Awaitable[T | None]]
    ) -> list[OpResult] | T:
        """Carry out ``operations``; after a lost answer ask ``landed`` whether they took effect.

        ``landed`` returns what proves the effect, or None where there was none: then they are
        tried again. Raises MultiFailed.
        """
        while True:
            try:
                return await self.write(operations)
            except ConnectionLoss:
                await _repeated(self._zk.sync)
                found = await landed()
                if found is not None:
                    return found

    async def _has_data(self, path: str, data: bytes, *, version: int) -> Stat | None:
        """The stat of ``path``, provided that it has exactly this data and version."""
        found = await self.get(path)
        return found[1] if found is not None and found[0] == data and found[1].version == version else None

    async def create_if_missing(self, path: str, data: bytes = b"") -> None:
        """Make sure that ``path`` exists: create it with ``data``, and its parents without."""
        for step in paths.parents(path):
            if await self.exists(step) is None:
                await self._create_unless_there(step, b"")
        await self._create_unless_there(path, data)

    async def _create_unless_there(self, path: str, data: bytes) -> None:
        """Create ``path`` where it is missing; what is there stays as it is."""
        while True:
            try:
                await self.write([Create(path, data)])
                return
            except ConnectionLoss:
                continue  # Created or not: trying again answers it.
            except MultiFailed as failure:
                if isinstance(failure.error, NodeExists):
                    return
                raise

    async def delete_if_there(self, path: str) -> None:
        """Make sure that ``path`` does not exist. Raises MultiFailed with NotEmpty."""
        while True:
            try:
                await self.write([Delete(path)])
                return
            except ConnectionLoss:
                continue  # Deleted or not: trying again answers it.
            except MultiFailed as failure:
                if isinstance(failure.error, NoNode):
                    return
                raise

    async def delete_tree(self, path: str) -> None:
        """Delete ``path`` and all below it, the leaves first."""
        while True:
            for child in await self.children(path):
                await self.delete_tree(f"{path}/{child}")
            try:
                return await self.delete_if_there(path)
            except MultiFailed as failure:
                if not isinstance(failure.error, NotEmpty):
                    raise
                # A child came in between.

    async def create_sequential(self, path: str, data: bytes) -> str:
        """Create a sequential child; return its path.

        After a lost answer it is created again: these are notifications, and a second one of the
        same content does no harm.
        """
        while True:
            try:
                (created,) = await self.write([Create(path, data, sequential=True)])
            except ConnectionLoss:
                continue
            assert isinstance(created, str)
            return created

    # ------------------------------------------------------------------------- the cluster

    async def create_persistent_paths(self) -> None:
        """Create what every broker expects to be there (reference 1.1)."""
        wanted: list[str] = []
        for path in paths.PERSISTENT:
            wanted.extend(step for step in (*paths.parents(path), path) if step not in wanted)
        stats = await asyncio.gather(*(self.exists(path) for path in wanted))
        for path, stat in zip(wanted, stats, strict=True):
            if stat is None:
                await self._create_unless_there(path, b"")

    async def cluster_id(self, proposed: Uuid) -> Uuid:
        """The cluster's id; where it has none yet, ``proposed`` becomes it unless another is faster."""
        found = await self.get(paths.CLUSTER_ID)
        if found is None:
            await self.create_if_missing(paths.CLUSTER_ID, codecs.encode_cluster_id(proposed))
            found = await self.get(paths.CLUSTER_ID)
            if found is None:
                raise BadRecord(paths.CLUSTER_ID, "it was deleted while the cluster started")
        return codecs.decode_cluster_id(found[0])

    async def enable_features(self) -> None:
        """Create `/feature`, or flip it from disabled to enabled without features (reference 1.3).

        Done by each new controller. One that is enabled is left as it is.
        """
        data = codecs.encode_features(Features(enabled=True))
        while True:
            found = await self.get(paths.FEATURE)
            if found is None:
                await self._create_unless_there(paths.FEATURE, data)
            elif codecs.decode_features(found[0]).enabled:
                return
            else:
                try:
                    await self.write([SetData(paths.FEATURE, data, found[1].version)])
                except ConnectionLoss:
                    continue  # Written or not: the next look tells.
                except MultiFailed as failure:
                    if not isinstance(failure.error, BadVersion | NoNode):
                        raise

    async def generate_broker_id(self, reserved_max_id: int) -> BrokerId:
        """A broker id above ``reserved_max_id`` that was never given out before.

        After a lost answer a number is skipped, which does no harm.
        """
        stat = await _repeated(lambda: self._zk.set(paths.BROKER_SEQUENCE_ID, b""))
        return BrokerId(reserved_max_id + stat.version)

    # ------------------------------------------------------------------------- brokers

    async def broker_ids(self, *, watch: WatchCallback | None = None) -> list[BrokerId]:
        """The ids of the registered brokers, in order. Children that are no number are passed over."""
        names = await self.children(paths.BROKER_IDS, watch=watch)
        return sorted(BrokerId(int(name)) for name in names if name.isascii() and name.isdigit())

    async def broker(self, broker_id: BrokerId, *, watch: WatchCallback | None = None) -> BrokerInfo | None:
        """A registered broker, or None (then no watch is set). Its epoch is the znode's czxid."""
        found = await self.get(paths.broker(broker_id), watch=watch)
        if found is None:
            return None
        return codecs.decode_broker(broker_id, found[0]).info(BrokerEpoch(found[1].czxid))

    async def live_brokers(self, *, watch: WatchCallback | None = None) -> dict[BrokerId, BrokerInfo]:
        """All registered brokers by id. ``watch`` is set on the children of ``/brokers/ids``."""
        ids = await self.broker_ids(watch=watch)
        found = await asyncio.gather(*(self.broker(broker_id) for broker_id in ids))
        return {info.broker_id: info for info in found if info is not None}

    async def registrations(self) -> Registrations:
        """The version of ``/brokers/ids`` and then, in that order, every registration's czxid."""
        parent = await self.exists(paths.BROKER_IDS)
        if parent is None:
            raise BadRecord(paths.BROKER_IDS, "it does not exist")
        ids = await self.broker_ids()
        stats = await asyncio.gather(*(self.exists(paths.broker(broker_id)) for broker_id in ids))
        return Registrations(
            parent.version,
            {broker_id: stat.czxid for broker_id, stat in zip(ids, stats, strict=True) if stat is not None},
        )

    async def registration_owner(
        self, broker_id: BrokerId, *, watch: WatchCallback | None = None
    ) -> RegistrationOwner | None:
        """Who holds the registration of ``broker_id``, or None (then no watch is set)."""
        found = await self.get(paths.broker(broker_id), watch=watch)
        if found is None:
            return None
        data, stat = found
        epoch = BrokerEpoch(stat.czxid)
        try:
            info = codecs.decode_broker(broker_id, data).info(epoch)
        except BadRecord:  # Whatever it says, it stands in the way; the owner is what counts here.
            info = None
        return RegistrationOwner(broker_id, stat.ephemeral_owner, epoch, info)

    async def register_broker(
        self,
        registration: BrokerRegistration,
        *,
        previous_session: int | None = None,
        answers: Callable[[BrokerInfo], Awaitable[bool]] | None = None,
    ) -> BrokerEpoch:
        """Register this broker with the present session; return its new broker epoch.

        A registration of the same id stands in the way. It is this broker's own leftover when the
        session ``previous_session`` holds it; ``answers`` then tells whether the endpoint in it still
        answers as this broker (None: the caller knows that nobody does), and if it does not, the
        leftover is replaced. In every other case :class:`DuplicateBroker` is raised.
        """
        broker_id = registration.broker_id
        while True:
            epoch = await self._try_to_register(registration)
            if epoch is not None:
                return epoch
            owner = await self.registration_owner(broker_id)
            if owner is None:
                continue  # It went away in between.
            if previous_session is None or owner.session_id != previous_session:
                raise DuplicateBroker(owner)
            if answers is not None and owner.broker is not None and await answers(owner.broker):
                raise DuplicateBroker(owner)
            epoch = await self.replace_registration(registration, owner)
            if epoch is not None:
                return epoch

    async def replace_registration(
        self, registration: BrokerRegistration, leftover: RegistrationOwner
    ) -> BrokerEpoch | None:
        """Delete ``leftover`` and register, in one multi. None where things have changed meanwhile.

        The number of registrations guards it: had ``leftover`` gone and another broker taken
        its place, a registration would have been counted.
        """
        broker_id = registration.broker_id
        counted = await self.exists(paths.BROKER_IDS)
        if counted is None or await self.registration_owner(broker_id) != leftover:
            return None
        return await self._register(
            registration,
            [
                SetData(paths.BROKER_IDS, b"", counted.version),
                Delete(paths.broker(broker_id)),
                *_registering(registration),
            ],
        )

    async def _try_to_register(self, registration: BrokerRegistration) -> BrokerEpoch | None:
        return await self._register(
            registration, [*_registering(registration), SetData(paths.BROKER_IDS, b"")]
        )

    async def _register(
        self, registration: BrokerRegistration, operations: Sequence[Op]
    ) -> BrokerEpoch | None:
        """The epoch of the registration that this session holds afterwards, or None."""
        path = paths.broker(registration.broker_id)

        async def own() -> Stat | None:
            stat = await self.exists(path)
            return stat if stat is not None and stat.ephemeral_owner == self._zk.session_id else None

        try:
            await self._settle(operations, own)
        except MultiFailed as failure:
            if not isinstance(failure.error, NodeExists | NoNode | BadVersion):
                raise
            if isinstance(failure.error, NoNode) and await self.exists(paths.BROKER_IDS) is None:
                raise
        stat = await own()
        return None if stat is None else BrokerEpoch(stat.czxid)

    # ---------------------------------------------------------------------- the controller

    async def controller(self, *, watch: WatchCallback | None = None) -> ControllerRecord | None:
        """Who rules, or None.

        Unlike other reads this sets ``watch`` in either case, so that nobody misses the next vacancy.
        """
        while True:
            found = await self.get(paths.CONTROLLER, watch=watch)
            if found is not None:
                return codecs.decode_controller(found[0])
            if watch is None or await self.exists(paths.CONTROLLER, watch=watch) is None:
                return None

    async def controller_epoch(self) -> tuple[ControllerEpoch, int]:
        """The epoch of the last controller and the znode's version; created with 0 where missing."""
        while True:
            found = await self.get(paths.CONTROLLER_EPOCH)
            if found is not None:
                return codecs.decode_controller_epoch(found[0]), found[1].version
            await self._create_unless_there(
                paths.CONTROLLER_EPOCH, codecs.encode_controller_epoch(ControllerEpoch(0))
            )

    async def elect_controller(
        self, broker_id: BrokerId, now_ms: int, *, previous_session: int | None = None
    ) -> Elected:
        """Become the controller, or raise :class:`ControllerMoved` naming the one there is.

        A ``/controller`` held by ``previous_session`` is this broker's own leftover, and one held by
        the present session belongs to a reign that this broker has given up: both are replaced, under
        a new epoch. (A broker elects only after it registered, and there it made sure that nobody
        answers for its previous session any more.)
        """
        own_sessions = (self._zk.session_id, previous_session)
        record = codecs.encode_controller(ControllerRecord(broker_id, now_ms))
        while True:
            found = await self.get(paths.CONTROLLER)
            if found is not None and found[1].ephemeral_owner not in own_sessions:
                current = codecs.decode_controller(found[0])
                raise ControllerMoved(f"broker {current.broker_id} is the controller", current)
            epoch, version = await self.controller_epoch()
            next_epoch = ControllerEpoch(epoch + 1)
            operations: list[Op] = [
                SetData(paths.CONTROLLER_EPOCH, codecs.encode_controller_epoch(next_epoch), version),
                Create(paths.CONTROLLER, record, ephemeral=True),
            ]
            if found is not None:
                operations.insert(1, Delete(paths.CONTROLLER))
            won = Elected(next_epoch, version + 1)

            async def landed(won: Elected = won) -> Elected | None:
                there = await self.get(paths.CONTROLLER)
                mine = there is not None and there[1].ephemeral_owner == self._zk.session_id
                now = await self.controller_epoch()
                return won if mine and now == (won.epoch, won.epoch_zk_version) else None

            try:
                await self._settle(operations, landed)
                return won
            except MultiFailed as failure:
                if not isinstance(failure.error, BadVersion | NodeExists | NoNode):
                    raise
                # Somebody was faster, or the leftover is gone: look again.

    # -------------------------------------------------------------------------- topics

    async def topics(self, *, watch: WatchCallback | None = None) -> list[str]:
        """The names of all topics, sorted."""
        return await self.children(paths.TOPICS, watch=watch)

    async def topic(self, name: str, *, watch: WatchCallback | None = None) -> TopicRecord | None:
        """A topic's id and assignment, or None (then no watch is set)."""
        found = await self.get(paths.topic(name), watch=watch)
        return None if found is None else codecs.decode_topic(name, found[0], zk_version=found[1].version)

    async def create_topic(self, name: str, record: TopicRecord) -> None:
        """Create the topic's znode, which is what brings it to life. Raises :class:`TopicExists`.

        Its configs are written before (:func:`zk.admin.create_topic` does both).
        """
        path, data = paths.topic(name), codecs.encode_topic(record)
        try:
            await self._settle([Create(path, data)], lambda: self._has_data(path, data, version=0))
        except MultiFailed as failure:
            if isinstance(failure.error, NodeExists):
                raise TopicExists(f"topic {name} exists already") from None
            raise failure.error from None

    async def set_topic(self, name: str, record: TopicRecord) -> TopicRecord:
        """Rewrite a topic, provided that its znode has the version ``record.zk_version``.

        Returns the record with the new version. Raises BadVersion, NoNode.
        """
        path, data = paths.topic(name), codecs.encode_topic(record)
        expected = record.zk_version
        assert expected >= 0, "a topic is rewritten on the ground of what was read"
        try:
            await self._settle(
                [SetData(path, data, expected)], lambda: self._has_data(path, data, version=expected + 1)
            )
        except MultiFailed as failure:
            raise failure.error from None
        return replace(record, zk_version=expected + 1)

    async def topic_deletions(self, *, watch: WatchCallback | None = None) -> list[str]:
        """The topics that somebody wants deleted, sorted."""
        return await self.children(paths.DELETE_TOPICS, watch=watch)

    # ------------------------------------------------------------------- partition states

    async def partition_state(
        self, topic_partition: TopicPartition, *, watch: WatchCallback | None = None
    ) -> tuple[LeaderAndIsr, Stat] | None:
        """Leader and ISR of a partition, or None (then no watch is set)."""
        found = await self.get(paths.partition_state(topic_partition), watch=watch)
        if found is None:
            return None
        data, stat = found
        return codecs.decode_partition_state(topic_partition, data, zk_version=stat.version), stat

    async def partition_states(
        self, topic_partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, tuple[LeaderAndIsr, Stat]]:
        """The states of those partitions that have one, read all at once."""
        wanted = list(topic_partitions)
        found = await asyncio.gather(*(self.partition_state(tp) for tp in wanted))
        return {tp: state for tp, state in zip(wanted, found, strict=True) if state is not None}

    async def create_partition_state(
        self, topic_partition: TopicPartition, state: LeaderAndIsr, *, registrations_version: int
    ) -> Stat:
        """Write a new partition's first state. ``state.partition_epoch`` is not written; it becomes 0.

        Raises NodeExists where the partition has a state, NoNode where its topic is gone,
        :class:`RegistrationsChanged`.
        """
        path, data = paths.partition_state(topic_partition), codecs.encode_partition_state(state)
        operations: list[Op] = [Check(paths.BROKER_IDS, registrations_version)]
        await self._create_unless_there_below_topic(topic_partition)
        if await self.exists(paths.partition(topic_partition)) is None:
            operations.append(Create(paths.partition(topic_partition)))
        operations.append(Create(path, data))
        try:
            await self._settle(operations, lambda: self._has_data(path, data, version=0))
        except MultiFailed as failure:
            raise _state_error(failure) from None
        stat = await self.exists(path)
        if stat is None:
            raise NoNode(path)
        return stat

    async def _create_unless_there_below_topic(self, topic_partition: TopicPartition) -> None:
        parent = paths.topic_partitions(topic_partition.topic)
        if await self.exists(parent) is None:
            try:
                await self._create_unless_there(parent, b"")
            except MultiFailed as failure:
                raise failure.error from None

    async def write_partition_state(
        self,
        topic_partition: TopicPartition,
        state: LeaderAndIsr,
        *,
        expected_version: PartitionEpoch,
        registrations_version: int,
    ) -> Stat:
        """Write leader and ISR where the znode has ``expected_version``; return the new stat.

        The stat's version is the new partition epoch; ``state.partition_epoch`` is not written.
        ``registrations_version`` is that of :meth:`registrations`, read before the decision. Raises
        BadVersion or NoNode (the state is another by now), :class:`RegistrationsChanged`.
        """
        path, data = paths.partition_state(topic_partition), codecs.encode_partition_state(state)
        operations: list[Op] = [
            Check(paths.BROKER_IDS, registrations_version),
            SetData(path, data, expected_version),
        ]
        try:
            done = await self._settle(
                operations, lambda: self._has_data(path, data, version=expected_version + 1)
            )
        except MultiFailed as failure:
            raise _state_error(failure) from None
        if isinstance(done, Stat):
            return done
        assert isinstance(done[1], Stat)
        return done[1]

    # ------------------------------------------------------------------------- configs

    async def entity_config(
        self, entity_type: str, *names: str, watch: WatchCallback | None = None
    ) -> dict[str, str]:
        """The configs of an entity; none where it has no znode.

        ``names`` as in :func:`zk.paths.entity_config`.
        """
        path = paths.entity_config(entity_type, *names)
        found = await self.get(path, watch=watch)
        return {} if found is None else codecs.decode_config(path, found[0])

    async def topic_config(self, topic: str) -> dict[str, str]:
        """The configs set for a topic."""
        return await self.entity_config("topics", topic)

    async def config_entities(self, entity_type: str) -> list[str]:
        """The names of all entities of a type that have a config znode, decoded and sorted."""
        names = await self.children(f"{paths.CONFIG}/{entity_type}")
        encoded = entity_type in ("users", "clients")
        return sorted(paths.desanitize(name) if encoded else name for name in names)

    async def config_changes(
        self, *, watch: WatchCallback | None = None
    ) -> dict[str, ConfigChange | BadRecord]:
        """The config change notifications by path, oldest first; see :meth:`isr_changes`."""
        return await self._notifications(paths.CONFIG_CHANGES, codecs.decode_config_change, watch)

    # ------------------------------------------------------------------- notifications

    async def isr_changes(
        self, *, watch: WatchCallback | None = None
    ) -> dict[str, tuple[TopicPartition, ...] | BadRecord]:
        """The ISR change notifications by path, oldest first; ``watch`` is set on their parent.

        What cannot be read is returned as the BadRecord it is, so that it can be told and deleted.
        """
        return await self._notifications(paths.ISR_CHANGE_NOTIFICATION, codecs.decode_isr_change, watch)

    async def log_dir_events(
        self, *, watch: WatchCallback | None = None
    ) -> dict[str, LogDirEvent | BadRecord]:
        """The log directory events by path, oldest first; see :meth:`isr_changes`."""
        return await self._notifications(paths.LOG_DIR_EVENT_NOTIFICATION, codecs.decode_log_dir_event, watch)

    async def _notifications(
        self, parent: str, decode: Callable[[str, bytes], T], watch: WatchCallback | None
    ) -> dict[str, T | BadRecord]:
        wanted = [f"{parent}/{name}" for name in await self.children(parent, watch=watch)]
        wanted.sort(key=lambda path: path[-10:])
        contents = await asyncio.gather(*(self.get(path) for path in wanted))
        found: dict[str, T | BadRecord] = {}
        for path, content in zip(wanted, contents, strict=True):
            if content is not None:
                try:
                    found[path] = decode(path, content[0])
                except BadRecord as bad:
                    found[path] = bad
        return found

    async def publish_isr_change(self, topic_partitions: Iterable[TopicPartition]) -> str:
        """Tell the controller that a leader changed the ISR of these partitions; return the path."""
        return await self.create_sequential(paths.isr_change(), codecs.encode_isr_change(topic_partitions))

    async def publish_log_dir_event(self, broker_id: BrokerId) -> str:
        """Tell the controller that a log directory of this broker failed; return the path."""
        return await self.create_sequential(
            paths.log_dir_event(), codecs.encode_log_dir_event(LogDirEvent(broker_id))
        )

    async def delete_notifications(self, notifications: Iterable[str]) -> None:
        """Delete notifications by their paths; those that are gone already do not matter."""
        await asyncio.gather(*(self.delete_if_there(path) for path in notifications))

    # ------------------------------------------------------------------- producer ids

    async def next_producer_id_block(self, broker_id: BrokerId) -> ProducerIdBlock:
        """Take the next block of producer ids, for the use of ``broker_id`` alone.

        Raises :class:`ProducerIdsExhausted`.
        """
        path = paths.LATEST_PRODUCER_ID_BLOCK
        while True:
            found = await self.get(path)
            if found is None:
                await self._create_unless_there(path, b"")
                continue
            latest, version = codecs.decode_producer_id_block(found[0]), found[1].version
            first = 0 if latest is None else latest.last + 1
            last = first + codecs.PRODUCER_ID_BLOCK_SIZE - 1
            if last > codecs.MAX_PRODUCER_ID:
                raise ProducerIdsExhausted(f"producer ids end at {codecs.MAX_PRODUCER_ID}")
            block = ProducerIdBlock(broker_id, first, last)
            if await self._take_block(block, version):
                return block

    async def _take_block(self, block: ProducerIdBlock, version: int) -> bool:
        path, data = paths.LATEST_PRODUCER_ID_BLOCK, codecs.encode_producer_id_block(block)
        try:
            await self._settle(
                [SetData(path, data, version)], lambda: self._has_data(path, data, version=version + 1)
            )
        except MultiFailed as failure:
            if isinstance(failure.error, BadVersion):
                return False  # Somebody else took it.
            raise
        return True


class FencedStore(Store):
    """The store of one reign: every write first checks that ``/controller_epoch`` is still its own.

    Every write raises :class:`ControllerMoved` once another controller has been elected.
    """

    def __init__(self, store: Store, epoch_zk_version: int) -> None:
        super().__init__(store.zk)
        self._epoch_zk_version = epoch_zk_version

    async def write(self, operations: Sequence[Op]) -> list[OpResult]:
        """As in :class:`Store`, behind the check; the index in MultiFailed does not count it."""
        try:
            results = await self._zk.multi(
                [Check(paths.CONTROLLER_EPOCH, self._epoch_zk_version), *operations]
            )
        except MultiFailed as failure:
            if failure.index == 0:
                raise ControllerMoved(
                    f"{paths.CONTROLLER_EPOCH} has no longer version {self._epoch_zk_version}: "
                    "another controller was elected"
                ) from None
            raise MultiFailed(failure.index - 1, failure.error) from None
        return results[1:]

    async def resign(self) -> None:
        """Give up ``/controller``, provided that it still belongs to this reign."""
        await self.delete_if_there(paths.CONTROLLER)


def _registering(registration: BrokerRegistration) -> list[Op]:
    """Create the znode empty, then fill it: the two steps in which Kafka registers a broker."""
    path = paths.broker(registration.broker_id)
    return [Create(path, ephemeral=True), SetData(path, codecs.encode_broker(registration), 0)]


def _state_error(failure: MultiFailed) -> Exception:
    return RegistrationsChanged("a broker registered meanwhile") if failure.index == 0 else failure.error


async def _repeated(read: Callable[[], Awaitable[T]]) -> T:
    """Carry out a read, or a write that may happen twice, until it is answered."""
    while True:
        try:
            return await read()
        except ConnectionLoss:
            continue  # The next one waits until the connection is back or the session over.
