"""Producers and consumers that note every invocation and completion.

Records are numbered across all producers. What a producer is told about a record is one of three:
acknowledged at an offset; certainly not written (it never left the producer); unknown (it was sent, and
what became of it is not certain). Consumers are given every partition and read on from where they were;
they never fall back silently, so a position that the cluster no longer has is an error to be told.

Beside them the members of a group share the partitions. They are started anew now and then, one of them
as a static member, and a witness notes what they and their coordinator tell each other.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final

import msgspec

from kafkalite.checker.checker import Checker
from kafkalite.checker.history import (
    Acknowledged,
    Ended,
    Failed,
    Finished,
    HistoryEvent,
    Polled,
    Positioned,
    Sent,
    Unknown,
    to_lines,
)
from kafkalite.checker.promise import Mode
from kafkalite.client import Consumer, Producer, TopicPartition
from kafkalite.client.delivery import Delivery
from kafkalite.client.errors import ClientError, ClusterUnreachableError
from kafkalite.edge import Clock
from kafkalite.protocol.errors import BrokerError, FencedInstanceIdError
from kafkalite.torture.witness import Witness
from kafkalite.transport.http import HttpTransport

REQUEST_TIMEOUT_MS: Final = 3_000
"""Short, so that a silent broker is given up while it is silent: the interesting retries."""
RECORD_BYTES: Final = 100
WINDOW: Final = 500
"""Records that one producer may have unacknowledged."""
SESSION_TIMEOUT_MS: Final = 6_000
"""Of the group's members: the shortest that brokers allow by default."""
MEMBER_LIFE_S: Final = (8.0, 40.0)
"""How long a member lives until it is started anew."""


class Recorder:
    """Takes the history as it happens: counts it, writes it to a file, hands it to the checker."""

    def __init__(self, checker: Checker, file: BinaryIO, clock: Clock) -> None:
        self._checker = checker
        self._file = file
        self._clock = clock
        self._began = clock.monotonic()
        self._values = itertools.count()
        self.numbers = itertools.count(1)
        """Of the group's commits and questions."""
        self.members: set[str] = set()
        """Consumers that are members of the group: what they read is counted apart."""
        self.sent = self.acknowledged = self.failed = self.unknown = self.read = self.processed = 0

    def at(self) -> float:
        """Seconds since the beginning."""
        return round(self._clock.monotonic() - self._began, 3)

    def next_value(self) -> int:
        """A number that no record has yet."""
        return next(self._values)

    def note(self, event: HistoryEvent) -> None:
        """Take the next event."""
        match event:
            case Sent():
                self.sent += 1
            case Acknowledged():
                self.acknowledged += 1
            case Failed():
                self.failed += 1
            case Unknown():
                self.unknown += 1
            case Polled() if event.consumer in self.members:
                self.processed += len(event.values)
            case Polled():
                self.read += len(event.values)
            case _:
                pass
        self._file.writelines(to_lines([event]))
        self._checker.take(event)


class ProducerPlan(msgspec.Struct, frozen=True):
    """How one producer writes."""

    name: str
    mode: Mode

    @property
    def acks(self) -> int | str:
        match self.mode:
            case Mode.ACKS_0:
                return 0
            case Mode.ACKS_1:
                return 1
            case _:
                return "all"


def producer_plans(acks: str, count: int) -> list[ProducerPlan]:
    """``count`` producers with these acks; of those with all, every fourth is not idempotent."""
    modes = {"0": [Mode.ACKS_0], "1": [Mode.ACKS_1], "all": [*3 * [Mode.IDEMPOTENT], Mode.ACKS_ALL]}[acks]
    return [
        ProducerPlan(f"torture-producer-{number + 1}", modes[number % len(modes)]) for number in range(count)
    ]


def value_of(number: int) -> bytes:
    """The record with that number."""
    return b"%d " % number + b"." * (RECORD_BYTES - 1 - len(str(number)))


def number_of(value: bytes | None) -> int:
    """Which record that is; -1 for one that no producer of ours can have written."""
    digits = (value or b"").partition(b" ")[0]
    return int(digits) if digits.isdigit() and value_of(int(digits)) == value else -1


class Workload(msgspec.Struct):
    """The clients of one run."""

    bootstrap_servers: str
    topic: str
    partitions: int
    recorder: Recorder
    say: Callable[[str], None]
    problems: list[str] = msgspec.field(default_factory=list)
    """What readers met that no reader may meet."""

    async def write(self, plan: ProducerPlan, *, rate: float, stop: asyncio.Event) -> None:
        """Write ``rate`` records a second until ``stop``; then wait for every outcome."""
        recorder = self.recorder
        loop = asyncio.get_running_loop()
        pending: deque[tuple[int, Delivery]] = deque()
        changed = asyncio.Event()
        done = False

        async def settle() -> None:
            while not (done and not pending):
                if not pending:
                    changed.clear()
                    await changed.wait()
                    continue
                value, delivery = pending[0]
                try:
                    metadata = await delivery
                except (ClientError, BrokerError):
                    recorder.note(Unknown(value, recorder.at()))
                else:
                    recorder.note(Acknowledged(value, metadata.offset, recorder.at()))
                pending.popleft()
                changed.set()

        producer = Producer(
            bootstrap_servers=self.bootstrap_servers,
            client_id=plan.name,
            acks=plan.acks,
            enable_idempotence=plan.mode is Mode.IDEMPOTENT,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=60_000,
        )
        await start_patiently(producer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(settle())
                began, count = loop.time(), 0
                while not stop.is_set():
                    value = recorder.next_value()
                    partition = value % self.partitions
                    recorder.note(Sent(plan.name, self.topic, partition, value, recorder.at()))
                    try:
                        delivery = await producer.send(self.topic, value_of(value), partition=partition)
                    except (ClientError, BrokerError):
                        recorder.note(Failed(value, recorder.at()))  # It never was in the buffer.
                    else:
                        pending.append((value, delivery))
                        changed.set()
                    count += 1
                    while len(pending) >= WINDOW:
                        changed.clear()
                        await changed.wait()
                    ahead = began + count / rate - loop.time()
                    if ahead > 0:
                        await asyncio.sleep(ahead)
                    elif ahead < -1:
                        began, count = loop.time(), 0  # What an outage cost is not caught up.
                done = True
                changed.set()
        finally:
            await producer.stop()

    async def follow(self, name: str, stop: asyncio.Event) -> None:
        """Read every partition from its beginning on until ``stop``."""
        async with self._reader(name) as consumer:
            while not stop.is_set():
                await self._poll(consumer, name)

    async def read_everything(self, name: str, *, timeout_s: float) -> None:
        """Read every partition from its beginning to its present end. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._reader(name) as consumer:
            ends = await consumer.end_offsets(self._assignment)
            while any([await consumer.position(one) < ends[one] for one in self._assignment]):
                await self._poll(consumer, name)
            for one, end in ends.items():
                self.recorder.note(Ended(one.topic, one.partition, end, self.recorder.at()))

    # --- the group -----------------------------------------------------------------------

    @property
    def group(self) -> str:
        """The name of the group."""
        return f"{self.topic}-group"

    async def be_members(
        self, name: str, stop: asyncio.Event, chance: random.Random, *, static: bool
    ) -> None:
        """Fill one place in the group until ``stop``, with one member after the other."""
        for life in itertools.count(1):
            ending = asyncio.Event()
            member = asyncio.ensure_future(
                self._be_member(f"{name}.{life}", ending, instance=name if static else None)
            )
            stopping = asyncio.ensure_future(stop.wait())
            waits: list[asyncio.Future[object]] = [member, stopping]  # type: ignore[list-item]
            try:
                await asyncio.wait(
                    waits, timeout=chance.uniform(*MEMBER_LIFE_S), return_when=asyncio.FIRST_COMPLETED
                )
                ending.set()
                await member
            finally:
                member.cancel()
                stopping.cancel()
            if stop.is_set():
                return
            await asyncio.sleep(chance.uniform(0.1, 3))

    async def _be_member(self, name: str, stop: asyncio.Event, *, instance: str | None) -> None:
        """One life: automatic commits, and an end in good order."""
        self.recorder.members.add(name)
        consumer, witness = self._member(name, group_instance_id=instance, auto_commit_interval_ms=1_000)
        await start_patiently(consumer)
        try:
            consumer.subscribe([self.topic], listener=witness.listener(self.group))
            while not stop.is_set():
                try:
                    await self._poll(consumer, name)
                except FencedInstanceIdError:
                    return  # An old life's join arrived after its own: the next one takes the place.
        finally:
            await consumer.stop()

    def _member(self, name: str, **options: object) -> tuple[Consumer, Witness]:
        recorder = self.recorder
        witness = Witness(
            HttpTransport(), consumer=name, note=recorder.note, at=recorder.at, numbers=recorder.numbers
        )
        consumer = Consumer(
            bootstrap_servers=self.bootstrap_servers,
            client_id=name,
            group_id=self.group,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=1_000,
            max_poll_interval_ms=20_000,
            auto_offset_reset="earliest",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_poll_records=5_000,
            transport=witness,
            **options,  # type: ignore[arg-type]
        )
        return consumer, witness

    async def finish_group(self, *, timeout_s: float) -> None:
        """Wait until the group has committed the end of every partition. Raises TimeoutError."""
        consumer, _ = self._member(f"{self.group}-asker", enable_auto_commit=False)
        committed: dict[TopicPartition, int | None] = {}
        ends: Mapping[TopicPartition, int] = {}
        await start_patiently(consumer)
        try:
            async with asyncio.timeout(timeout_s):
                ends = await consumer.end_offsets(self._assignment)
                while committed != ends:
                    await asyncio.sleep(0.5)
                    committed = {one: await consumer.committed(one) for one in self._assignment}
        except TimeoutError:
            raise TimeoutError(
                f"the group has not come to the end within {timeout_s:g} s: {committed} of {ends}"
            ) from None
        finally:
            await consumer.stop()
        for one, end in ends.items():
            self.recorder.note(Finished(self.group, one.topic, one.partition, end, self.recorder.at()))

    @property
    def _assignment(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in range(self.partitions)]

    def _reader(self, name: str) -> _Reader:
        return _Reader(self, name, self._assignment)

    async def _poll(self, consumer: Consumer, name: str) -> None:
        try:
            found = await consumer.getmany(timeout_ms=500)
        except FencedInstanceIdError:
            raise
        except (ClientError, BrokerError) as error:
            if not error.retriable:
                self.problems.append(f"{name}: {type(error).__name__}: {error}")
                raise
            await asyncio.sleep(0.2)
            return
        for one, records in found.items():
            self.recorder.note(
                Polled(
                    name,
                    one.topic,
                    one.partition,
                    [record.offset for record in records],
                    [number_of(record.value) for record in records],
                    self.recorder.at(),
                )
            )


class _Reader:
    """A consumer that is started patiently and begins at the beginning."""

    def __init__(self, workload: Workload, name: str, assignment: Sequence[TopicPartition]) -> None:
        self._workload = workload
        self._name = name
        self._assignment = assignment
        self._consumer = Consumer(
            bootstrap_servers=workload.bootstrap_servers,
            client_id=name,
            auto_offset_reset="none",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_poll_records=5_000,
        )

    async def __aenter__(self) -> Consumer:
        await start_patiently(self._consumer)
        self._consumer.assign(self._assignment)
        for one in self._assignment:
            self._consumer.seek(one, 0)
            recorder = self._workload.recorder
            recorder.note(Positioned(self._name, one.topic, one.partition, 0, recorder.at()))
        return self._consumer

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()


async def start_patiently(client: Producer | Consumer) -> None:
    """Start, however long the cluster is out of reach."""
    while True:
        try:
            await client.start()
        except ClusterUnreachableError:
            await asyncio.sleep(0.5)
        else:
            return
