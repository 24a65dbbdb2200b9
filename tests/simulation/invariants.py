"""What must hold at every moment, checked from outside while a cluster runs.

Cheap things are checked when they happen (elections by the journals, states by ZooKeeper's commits), the
rest after every few turns of the loop: high watermarks against what they were, against the logs of the
ISR, and the records below them against what was seen there before. Only what is new since the last
look is read, straight from the simulated disk.

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
from kafkalite.protocol.errors import BrokerError, ErrorCode
from kafkalite.protocol.produce import ProduceRequest, ProduceResponse
from kafkalite.protocol.record_batch import BatchHeader
from kafkalite.replication.partition import Role
from kafkalite.server.broker import Broker
from zk import paths
from zk.codecs import decode_partition_state

from .cluster import SESSION_TIMEOUT_MS, Cluster, Node
from .loop import Process

HEADER_BYTES = 61
EVERY = 10
"""Turns of the loop between two looks."""


class InvariantBroken(Exception):
    """The simulation stops here."""


@dataclass(slots=True)
class _Look:
    """How far one life's replica of a partition has been looked at."""

    leader_epoch: int = -1
    high_watermark: int = 0
    verified: int = 0
    """Records below were compared."""
    segment: int = -1
    position: int = 0


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
    """Watches one cluster. :meth:`check` is called after each turn of its loop."""

    def __init__(self, cluster: Cluster, *, may_lose: bool) -> None:
        """``may_lose``: the faults are beyond the promise, so committed records may vanish."""
        self._cluster = cluster
        self._may_lose = may_lose
        self._turns = 0
        self._failure: str | None = None
        self._leaders: dict[tuple[TopicPartition, int], Process] = {}
        self._controllers: dict[int, str] = {}
        self._registered: dict[Process, int] = {}
        """The first broker epoch of each life."""
        self._states: dict[TopicPartition, _State] = {}
        self._looks: dict[tuple[Process, TopicPartition], _Look] = {}
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

    def state(self, partition: TopicPartition) -> LeaderAndIsr | None:
        """What ZooKeeper holds of the partition now."""
        known = self._states.get(partition)
        return None if known is None else known.state

    # --- as it happens -------------------------------------------------------------------

    def _observe(self, node: Node, broker: Broker) -> None:
        process = node.process
        assert process is not None
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
        """The lease: nothing that one broker alone has is acknowledged once its session is over."""
        acknowledged = [
            f"{topic.name}-{part.index}"
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
                f"{node.name} acknowledged records of {', '.join(acknowledged)} with acks=0 or 1 "
                "after its session was over"
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
        topic = self._cluster.zookeeper.peek(paths.topic(partition.topic))
        assert topic is not None
        assigned = set(json.loads(topic[0])["partitions"][str(partition.partition)])
        if not set(state.isr) <= assigned:
            self._broken(f"{partition}: the ISR {state.isr} is not among the replicas {sorted(assigned)}")

    # --- after turns ---------------------------------------------------------------------

    def check(self) -> None:
        """Look at everything, every few turns."""
        if self._failure is not None:
            raise InvariantBroken(self._failure)
        self._turns += 1
        if self._turns % EVERY == 0:
            self.check_now()

    def check_now(self) -> None:
        """Look at everything."""
        self.checks += 1
        for partition, known in self._states.items():
            ends: dict[int, int] = {}
            leader: tuple[Process, int] | None = None
            for node in self._cluster.nodes.values():
                process, broker = node.process, node.broker
                if process is None or broker is None:
                    continue
                state = broker.replicas.partition(partition)
                if state is None or state.role is Role.OFFLINE:
                    continue
                log = broker.logs.log(partition)
                if log is None or log.is_closed:
                    continue
                look = self._looks.get((process, partition))
                if look is None:
                    look = self._looks[process, partition] = _Look(high_watermark=log.high_watermark)
                high_watermark = log.high_watermark
                if state.is_leader:
                    if look.leader_epoch == state.leader_epoch and high_watermark < look.high_watermark:
                        self._broken(
                            f"{partition}: the high watermark of {node.name}, leader in epoch "
                            f"{state.leader_epoch}, went back from {look.high_watermark} to {high_watermark}"
                        )
                    look.leader_epoch = state.leader_epoch
                    if state.leader_epoch == known.state.leader_epoch:
                        leader = (process, high_watermark)
                else:
                    look.leader_epoch = -1
                look.high_watermark = high_watermark
                if log.log_end_offset < look.verified:
                    if not self._may_lose:
                        self._broken(
                            f"{partition}: {node.name} was committed up to {look.verified} and now ends "
                            f"at {log.log_end_offset}"
                        )
                    look.verified, look.segment = 0, -1
                if high_watermark > look.verified:
                    self._compare(node, partition, look, high_watermark, log.log_dir.path)
                if (
                    node.broker_id in known.state.isr
                    and self._registered.get(process, known.mzxid) < known.mzxid
                ):
                    ends[node.broker_id] = log.log_end_offset
            self._check_isr(partition, known, ends, leader)

    def _check_isr(
        self,
        partition: TopicPartition,
        known: _State,
        ends: dict[int, int],
        leader: tuple[Process, int] | None,
    ) -> None:
        must_have = 0 if self._may_lose else self._acknowledged.get(partition, 0)
        for member, end in ends.items():
            if leader is not None and end < leader[1]:
                self._broken(
                    f"{partition}: {leader[0].name} has the high watermark {leader[1]}, but broker {member}, "
                    f"in the ISR {known.state.isr}, ends at {end}"
                )
            if end < must_have:
                self._broken(
                    f"{partition}: acknowledged up to {must_have}, but broker {member}, in the ISR "
                    f"{known.state.isr}, ends at {end}"
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
            log = node.broker.logs.log(partition) if node.broker is not None else None
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
