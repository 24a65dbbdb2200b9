"""What must hold at every moment, checked from outside while a cluster runs.

Elections are checked as the journals tell of them and states as ZooKeeper commits them; the rest after
every step of the loop: high watermarks against what they were, against the logs of the ISR, and the
records below them against what was seen there before. A step changes only its own process, so only that
broker is looked at; and only what is new since the last look is compared, straight from the simulated disk.

A *life* is one process of a broker. ISR members count as long as the life that ZooKeeper's state knows
of goes on: one that restarted since (its registration is younger than the state's last write) is no
member any more, whatever the state says (DESIGN section 3).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NoReturn

from kafkalite.common import LeaderAndIsr, TopicPartition
from kafkalite.journal import Event
from kafkalite.log.log import Log
from kafkalite.protocol.errors import BrokerError, ErrorCode
from kafkalite.protocol.produce import ProduceRequest, ProduceResponse
from kafkalite.protocol.record_batch import BatchHeader
from kafkalite.replication.partition import Partition, Role
from kafkalite.server.broker import Broker
from zk import paths
from zk.codecs import decode_partition_state

from .cluster import SESSION_TIMEOUT_MS, Cluster, Node
from .loop import Process

HEADER_BYTES = 61


class InvariantBroken(Exception):
    """The simulation stops here."""


@dataclass(slots=True)
class _Look:
    """What one life's replica of a partition was at the last look, and how far it was compared."""

    leader_epoch: int = -1
    """Of a leader; -1 of others."""
    high_watermark: int = 0
    end: int = -1
    """Its log end offset; -1 where it has no log to be held to."""
    verified: int = 0
    """Records below were compared."""
    segment: int = -1
    position: int = 0
    was_in_step: bool = False
    """Whether this life ever had all that its partition's leader had committed."""


@dataclass(slots=True)
class _Life:
    """One life of a broker."""

    node: Node
    broker: Broker
    looks: dict[TopicPartition, _Look] = field(default_factory=dict)
    replicas: list[tuple[TopicPartition, Partition, Log, _Look]] | None = None
    """What there is to look at; None where something has happened that may have changed that."""


@dataclass(slots=True)
class _State:
    state: LeaderAndIsr
    mzxid: int


@dataclass(slots=True)
class _Committed:
    """What stands below the high watermark of a partition, as far as anybody has seen it."""

    batches: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """(base offset, leader epoch or -1) to (last offset, CRC); the epoch only where loss is allowed."""
    epochs: dict[int, int] = field(default_factory=dict)


class Invariants:
    """Watches one cluster. :meth:`check` is called after each step of its loop."""

    def __init__(self, cluster: Cluster, *, may_lose: bool) -> None:
        """``may_lose``: the faults are beyond the promise, so committed records may vanish."""
        self._cluster = cluster
        self._may_lose = may_lose
        self._failure: str | None = None
        self._leaders: dict[tuple[TopicPartition, int], Process] = {}
        self._controllers: dict[int, str] = {}
        self._registered: dict[Process, int] = {}
        """The first broker epoch of each life."""
        self._states: dict[TopicPartition, _State] = {}
        self._established: dict[tuple[TopicPartition, int], int] = {}
        """By leader epoch: the last transaction that wrote a state with it."""
        self._lives: dict[Process, _Life] = {}
        """Every broker's present life."""
        self._changed: dict[TopicPartition, None] = {}
        """Partitions whose ISR is to be checked again, in order."""
        self._committed: dict[TopicPartition, _Committed] = {}
        self._acknowledged: dict[TopicPartition, int] = {}
        """Where the records acknowledged with acks=all end."""
        self.checks = 0
        self.compared_batches = 0
        cluster.observers.append(self._observe)
        cluster.zookeeper.on_write = self._written

    def acknowledged(self, partition: TopicPartition, offset: int) -> None:
        """A record was acknowledged with acks=all."""
        if offset >= self._acknowledged.get(partition, 0):
            self._acknowledged[partition] = offset + 1
            self._changed[partition] = None

    def state(self, partition: TopicPartition) -> LeaderAndIsr | None:
        """What ZooKeeper holds of the partition now."""
        known = self._states.get(partition)
        return None if known is None else known.state

    # --- as it happens -------------------------------------------------------------------

    def _observe(self, node: Node, broker: Broker) -> None:
        process = node.process
        assert process is not None
        for former, life in list(self._lives.items()):
            if life.node is node:
                del self._lives[former]
        self._lives[process] = _Life(node, broker)
        broker.journal.subscribe(lambda event: self._happened(process, event))
        produce = broker.replicas.produce

        async def watched_produce(request: ProduceRequest) -> ProduceResponse:
            response = await produce(request)
            if process.is_alive and request.acks != -1:
                self._answered_alone(node, response)
            return response

        broker.replicas.produce = watched_produce  # type: ignore[method-assign]

    def _happened(self, process: Process, event: Event) -> None:
        if not process.is_alive:
            return
        self._lives[process].replicas = None
        if event.type == "BecameLeader":
            assert event.topic is not None
            assert event.partition is not None
            key = (TopicPartition(event.topic, event.partition), int(event.facts["leader_epoch"]))
            if self._leaders.setdefault(key, process) is not process:
                self._broken(f"{process.name} leads {key[0]} in epoch {key[1]}, which had a leader before")
        elif event.type == "ControllerElected":
            epoch, who = int(event.facts["controller_epoch"]), f"{process.name} ({event.id})"
            if self._controllers.setdefault(epoch, who) != who:
                self._broken(f"controller epoch {epoch} has two: {self._controllers[epoch]} and {who}")
        elif event.type == "BrokerRegistered":
            self._registered.setdefault(process, int(event.facts["epoch"]))

    def _answered_alone(self, node: Node, response: ProduceResponse) -> None:
        """The lease: nothing that one broker alone has is acknowledged once its session is over, nor under
        the next one before the controller has dealt with the new registration."""
        acknowledged = [
            TopicPartition(topic.name, part.index)
            for topic in response.responses
            for part in topic.partition_responses
            if part.error_code == ErrorCode.NONE
        ]
        session = node.session
        if session is not None:
            early = self._cluster.expired_early.get(session.session_id)
            if early is not None and self._cluster.loop.time() - early <= SESSION_TIMEOUT_MS / 2000:
                return  # The lease, half the time-out, cannot know of it yet.
        if acknowledged and (session is None or not self._cluster.zookeeper.is_alive(session)):
            self._broken(
                f"{node.name} acknowledged records of {', '.join(map(str, acknowledged))} with acks=0 or 1 "
                "after its session was over"
            )
        registration = self._cluster.zookeeper.peek(paths.broker(node.broker_id))
        if registration is None or node.broker is None:
            return
        for partition in acknowledged:
            replica = node.broker.replicas.partition(partition)
            if replica is None:
                continue
            written = self._established.get((partition, replica.leader_epoch))
            if written is not None and registration[1].czxid > written:
                self._broken(
                    f"{node.name} acknowledged records of {partition} with acks=0 or 1 in leader epoch "
                    f"{replica.leader_epoch}, which is older than its registration"
                )

    def _written(self, zxid: int, path: str) -> None:
        if not path.startswith("/brokers/topics/") or not path.endswith("/state"):
            return
        partition = _partition_of(path)
        found = self._cluster.zookeeper.peek(path)
        if found is None:
            self._states.pop(partition, None)
            return
        data, stat = found
        state = decode_partition_state(partition, data, zk_version=stat.version)
        before = self._states.get(partition)
        if before is None:
            for life in self._lives.values():
                life.replicas = None
        if before is not None and state.leader_epoch < before.state.leader_epoch:
            self._broken(f"{partition}: leader epoch {before.state.leader_epoch} became {state.leader_epoch}")
        if before is not None and state.leader_epoch == before.state.leader_epoch:
            if state.leader != before.state.leader:
                self._broken(
                    f"{partition}: two leaders in epoch {state.leader_epoch}: {before.state}, {state}"
                )
        else:
            # The controller's doing: leaders change only the ISR.
            present = self._cluster.zookeeper.peek(paths.CONTROLLER_EPOCH)
            if present is not None and state.controller_epoch < int(present[0]):
                self._broken(
                    f"{partition}: written under controller epoch {state.controller_epoch} in the time of "
                    f"{int(present[0])}"
                )
        self._states[partition] = _State(state, stat.mzxid)
        self._changed[partition] = None
        self._established[partition, state.leader_epoch] = stat.mzxid
        topic = self._cluster.zookeeper.peek(paths.topic(partition.topic))
        assert topic is not None
        assigned = set(json.loads(topic[0])["partitions"][str(partition.partition)])
        if not set(state.isr) <= assigned:
            self._broken(f"{partition}: the ISR {state.isr} is not among the replicas {sorted(assigned)}")

    # --- after steps ---------------------------------------------------------------------

    def check(self, process: Process | None) -> None:
        """Look at what the step that ``process`` has just made may have changed."""
        if self._failure is not None:
            raise InvariantBroken(self._failure)
        life = self._lives.get(process) if process is not None else None
        if life is not None and process is not None and process.is_alive:
            self._look_at(life)
        if self._changed:
            changed, self._changed = self._changed, {}
            for partition in changed:
                self._check_isr(partition)

    def check_now(self) -> None:
        """Look at everything, whatever has changed."""
        for process, life in self._lives.items():
            if process.is_alive:
                life.replicas = None
                self._look_at(life)
        for partition in self._states:
            self._check_isr(partition)
        self._changed.clear()

    def _look_at(self, life: _Life) -> None:
        """See what has changed in one broker's replicas."""
        self.checks += 1
        replicas = life.replicas
        if replicas is None:
            replicas = life.replicas = self._replicas_of(life)
        for partition, state, log, look in replicas:
            high_watermark, end = log.high_watermark, log.log_end_offset
            leader_epoch = state.leader_epoch if state.role is Role.LEADER else -1
            if (
                end != look.end
                or high_watermark != look.high_watermark
                or leader_epoch != look.leader_epoch
                or high_watermark > look.verified
            ):
                self._take(life.node, partition, log, look, leader_epoch)

    def _replicas_of(self, life: _Life) -> list[tuple[TopicPartition, Partition, Log, _Look]]:
        """The broker's replicas that have a log to be held to; others are forgotten until they have one."""
        found = []
        for partition in self._states:
            state = life.broker.replicas.partition(partition)
            if state is None:
                continue
            log = life.node.log(partition) if state.role is not Role.OFFLINE else None
            look = life.looks.get(partition)
            if log is None or log.is_closed:
                if look is not None:
                    look.end, look.leader_epoch = -1, -1
            else:
                if look is None:
                    look = life.looks[partition] = _Look(high_watermark=log.high_watermark)
                found.append((partition, state, log, look))
        return found

    def _take(self, node: Node, partition: TopicPartition, log: Log, look: _Look, leader_epoch: int) -> None:
        """Check what is new of one replica, and note it."""
        high_watermark, end = log.high_watermark, log.log_end_offset
        if 0 <= leader_epoch == look.leader_epoch and high_watermark < look.high_watermark:
            self._broken(
                f"{partition}: the high watermark of {node.name}, leader in epoch "
                f"{leader_epoch}, went back from {look.high_watermark} to {high_watermark}"
            )
        look.leader_epoch, look.high_watermark, look.end = leader_epoch, high_watermark, end
        self._changed[partition] = None
        if end < look.verified:
            if not self._may_lose:
                self._broken(
                    f"{partition}: {node.name} was committed up to {look.verified} and now ends at {end}"
                )
            look.verified, look.segment = 0, -1
        if high_watermark > look.verified:
            self._compare(node, partition, look, high_watermark, log.log_dir.path)

    def _check_isr(self, partition: TopicPartition) -> None:
        """Hold every member of the ISR to the leader's high watermark and to what was acknowledged."""
        known = self._states.get(partition)
        if known is None:
            return
        isr, mzxid = known.state.isr, known.mzxid
        must_have = 0 if self._may_lose else self._acknowledged.get(partition, 0)
        leader, committed = "", -1
        members: list[tuple[Node, _Look]] = []
        for process, life in self._lives.items():
            look = life.looks.get(partition)
            if look is None or look.end < 0 or not process.is_alive:
                continue
            if look.leader_epoch == known.state.leader_epoch:
                leader, committed = process.name, look.high_watermark
            if life.node.broker_id in isr and self._registered.get(process, mzxid) < mzxid:
                members.append((life.node, look))
        for node, look in members:
            end = look.end
            if end >= committed:
                look.was_in_step |= committed >= 0
            elif self._may_lose and not look.was_in_step:
                continue  # All members lost power; the ISR was kept, and this one is still to catch up.
            else:
                self._broken(
                    f"{partition}: {leader} has the high watermark {committed}, but broker "
                    f"{node.broker_id}, in the ISR {isr}, ends at {end}"
                )
            if end < must_have:
                self._broken(
                    f"{partition}: acknowledged up to {must_have}, but broker {node.broker_id}, in the ISR "
                    f"{isr}, ends at {end}"
                )

    def _compare(
        self, node: Node, partition: TopicPartition, look: _Look, high_watermark: int, directory: str
    ) -> None:
        """Compare the batches that are newly below the high watermark with what others have there."""
        committed = self._committed.setdefault(partition, _Committed())
        folder = f"{directory}/{partition}"
        segments = [int(name[:-4]) for name in node.disk.peek_names(folder) if name.endswith(".log")]
        if not segments:
            return
        if look.segment not in segments:
            look.segment, look.position = segments[0], 0
        while True:
            data = node.disk.peek(f"{folder}/{look.segment:020d}.log")
            while look.position + HEADER_BYTES <= len(data):
                try:
                    header = BatchHeader.parse(data, look.position)
                except BrokerError as error:
                    self._broken(
                        f"{partition}: no batch below the high watermark {high_watermark} of {node.name}, "
                        f"at byte {look.position} of segment {look.segment}: {error}"
                    )
                if header.base_offset >= high_watermark:
                    break
                last = header.base_offset + header.last_offset_delta
                epoch = header.partition_leader_epoch
                key = (header.base_offset, epoch if self._may_lose else -1)
                seen = committed.batches.setdefault(key, (last, header.crc))
                if committed.epochs.setdefault(header.base_offset, epoch) != epoch and not self._may_lose:
                    self._broken(
                        f"{partition} at {header.base_offset}: epoch {epoch} on {node.name}, "
                        f"{committed.epochs[header.base_offset]} before, both committed"
                    )
                if seen != (last, header.crc):
                    self._broken(
                        f"{partition} at {header.base_offset}: {node.name} has another batch, committed in "
                        f"epoch {epoch}, than was seen before"
                    )
                self.compared_batches += 1
                look.position += header.size
                look.verified = last + 1
            later = [base for base in segments if base > look.segment]
            if look.verified >= high_watermark or not later:
                return
            look.segment, look.position = later[0], 0

    def _broken(self, what: str) -> NoReturn:
        """Stop here; where the code under test would swallow that, after the present turn."""
        if self._failure is None:
            self._failure = f"{self._cluster.loop.time():.3f}: {what}"
        raise InvariantBroken(self._failure)


def _partition_of(path: str) -> TopicPartition:
    _, _, _, topic, _, number, _ = path.split("/")
    return TopicPartition(topic, int(number))


def compare_logs(cluster: Cluster, partitions: list[TopicPartition]) -> list[str]:
    """Compare the bytes of all replicas' logs; tells where two differ."""
    differences = []
    for partition in partitions:
        contents: dict[str, bytes] = {}
        for node in cluster.nodes.values():
            log = node.log(partition)
            if log is not None:
                folder = f"{log.log_dir.path}/{partition}"
                contents[node.name] = b"".join(
                    bytes(node.disk.peek(f"{folder}/{name}"))
                    for name in node.disk.peek_names(folder)
                    if name.endswith(".log")
                )
        first = next(iter(contents), None)
        for name, content in contents.items():
            assert first is not None
            if content != contents[first]:
                where = next(
                    (i for i, (a, b) in enumerate(zip(content, contents[first], strict=False)) if a != b),
                    min(len(content), len(contents[first])),
                )
                differences.append(
                    f"{partition}: {first} ({len(contents[first])} bytes) and {name} ({len(content)} bytes) "
                    f"differ from byte {where} on"
                )
    return differences
