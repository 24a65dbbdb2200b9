"""One run: a cluster, clients, faults as the seed says, and at the end a verdict.

Order matters at the end: faults are healed, producers get their answers, replicas come into sync; only
then everything is read once more from the beginning and the files are compared. What the clients saw
goes to the checker; what the journals say (two leaders in one leader epoch, two controllers in one
controller epoch) and what the files say (replicas that differ) stands beside its findings.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from kafkalite.checker.checker import Checker, Finding
from kafkalite.checker.history import Lost
from kafkalite.checker.promise import Faults
from kafkalite.client import AdminClient, ConfigResource, ConfigResourceType, NewTopic
from kafkalite.client.errors import BrokerError, ClientError
from kafkalite.cluster.journals import STATE_CHANGE_LOG, read_journals
from kafkalite.cluster.launcher import Cluster, StartFailed
from kafkalite.cluster.layout import NoCluster
from kafkalite.common import CONSUMER_OFFSETS, TopicPartition
from kafkalite.edge import SystemClock
from kafkalite.log.loss_receipts import LOSS_RECEIPTS
from kafkalite.protocol.errors import UnknownTopicOrPartitionError
from kafkalite.torture import replicas
from kafkalite.torture.faults import Busy, Injected, Injector, NoEffect
from kafkalite.torture.judgement import two_rulers
from kafkalite.torture.links import Links
from kafkalite.torture.schedule import KINDS, Planned, plan
from kafkalite.torture.workload import Recorder, Workload, producer_plans
from kafkalite.why import History, explain, text

OVERRIDES: Final = {
    "zookeeper.session.timeout.ms": "3000",
    "zookeeper.connection.timeout.ms": "60000",
    "replica.lag.time.max.ms": "3000",
    "controlled.shutdown.retry.backoff.ms": "500",
    "log.segment.bytes": str(1 << 20),
    "min.insync.replicas": "2",
    "offsets.topic.num.partitions": "6",
    "group.initial.rebalance.delay.ms": "1000",
}
"""Short times, so that a fault of seconds has all its consequences, and small segments, so that logs roll."""

SETTLE_TIMEOUT_S: Final = 180
"""How long a healed cluster may take until every replica is in sync."""
_LIVE_LINE_S: Final = 0.25


class Refused(Exception):
    """The run cannot be what was asked for. The message says why."""


class Settings(msgspec.Struct, frozen=True):
    """What was asked for."""

    directory: Path
    seed: int
    minutes: float
    kinds: tuple[str, ...] = tuple(KINDS)
    acks: str = "all"
    producers: int = 4
    consumers: int = 2
    members: int = 3
    """Of a consumer group beside those consumers."""
    partitions: int = 6
    rate: int = 1_000
    """Records a second, of all producers together."""


class FaultNote(msgspec.Struct, frozen=True):
    """A fault that took place."""

    number: int
    kind: str
    at: float
    """Seconds since the beginning."""
    lasted_s: float
    text: str

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "kind": self.kind,
            "at": self.at,
            "lasted_s": self.lasted_s,
            "text": self.text,
        }


class Report(msgspec.Struct):
    """What a run came to."""

    seed: int
    acks: str
    seconds: float
    topic: str
    written: int
    acknowledged: int
    unknown: int
    failed: int
    read: int
    faults: list[FaultNote]
    without_effect: list[str]
    """Planned faults that had nothing to break, and why; they are not among ``faults``."""
    problems: list[str]
    """What must not be: broken promises, readers' errors, differing replicas, a cluster that stays broken."""
    allowed: Counter[str]
    """Anomalies that these acks allow, by name."""
    lost: int
    """Records on loss receipts."""
    without_receipt: int
    """Acknowledged records that are gone and on no receipt."""
    partitions: list[int] = msgspec.field(default_factory=list)
    """Those that the problems are about."""
    folder: Path | None = None
    """Where history and logs are; None where nothing was wrong."""
    why: list[str] = msgspec.field(default_factory=list)
    processed: int = 0
    """Records that the group's members were handed."""
    commits: int = 0
    """Offsets that the group committed."""
    generations: int = 0
    """Times that the group divided the partitions."""

    @property
    def is_kept(self) -> bool:
        """Whether the cluster kept its word."""
        return not self.problems

    def counts(self) -> dict[str, int]:
        """Faults that took place, by kind."""
        return dict(sorted(Counter(fault.kind for fault in self.faults).items()))

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "verdict": "kept" if self.is_kept else "broken",
            "seed": self.seed,
            "acks": self.acks,
            "seconds": round(self.seconds, 1),
            "topic": self.topic,
            "records": {
                "written": self.written,
                "acknowledged": self.acknowledged,
                "unknown": self.unknown,
                "failed": self.failed,
                "read": self.read,
                "on_loss_receipts": self.lost,
                "lost_without_receipt": self.without_receipt,
            },
            "faults": {
                "total": len(self.faults),
                "by_kind": self.counts(),
                "without_effect": self.without_effect,
                "list": [fault.to_json() for fault in self.faults],
            },
            "group": {
                "generations": self.generations,
                "commits": self.commits,
                "processed": self.processed,
            },
            "allowed": dict(self.allowed),
            "problems": self.problems,
            "why": self.why,
            "folder": None if self.folder is None else str(self.folder),
        }


async def torture(
    settings: Settings, *, say: Callable[[str], None], live: Callable[[str], None] | None
) -> Report:
    """Run once. ``live`` takes the one line that changes all the time, where there is a terminal.

    Raises Refused, and what starting a cluster raises.
    """
    async with _cluster(settings, say) as (cluster, links, kinds):
        run = _Run(settings, cluster, links, kinds, say)
        return await run.through(live)


@contextlib.asynccontextmanager
async def _cluster(
    settings: Settings, say: Callable[[str], None]
) -> AsyncIterator[tuple[Cluster, Links | None, tuple[str, ...]]]:
    """The cluster in the directory: as it runs there, or started behind proxies and stopped at the end."""
    is_busy = False

    def tell(line: str) -> None:
        if not is_busy:  # What the faults do to the processes is told by the faults.
            say(line)

    try:
        cluster = Cluster.load(settings.directory, say=tell)
        runs = any(cluster.process(node) is not None for node in cluster.layout.nodes)
        is_new = False
    except NoCluster:
        cluster = Cluster.load_or_create(
            settings.directory, brokers=3, zookeepers=3, overrides=OVERRIDES, say=tell
        )
        runs, is_new = False, True
    kinds = settings.kinds
    if len(cluster.layout.brokers) < 3:
        raise Refused(f"the cluster in {settings.directory} has fewer than three brokers")
    if len(cluster.layout.zookeepers) < 3:
        say("There is one ZooKeeper only: while it is away, nothing can be elected.")
    if runs:
        kinds = tuple(kind for kind in kinds if not KINDS[kind].needs_links)
        left_out = sorted(set(settings.kinds) - set(kinds))
        if not kinds:
            raise Refused(
                f"{', '.join(left_out)}: for these the cluster has to be started by this command, "
                f"and the one in {settings.directory} runs already"
            )
        if left_out:
            say(f"The cluster runs already, so its connections stay whole: no {', '.join(left_out)}.")
        await asyncio.to_thread(cluster.up, timeout_s=120)
        is_busy = True
        yield cluster, None, kinds
        return
    async with Links(cluster.layout) as links:
        cluster.own_overrides = links.overrides()
        is_kept = False
        try:
            await asyncio.to_thread(cluster.up, timeout_s=120)
            is_busy = True
            yield cluster, links, kinds
            is_kept = True
        finally:
            is_busy = False
            kept_data = any(settings.directory.glob("torture-*"))
            await asyncio.to_thread(cluster.down, timeout_s=60, delete=is_new and is_kept and not kept_data)


class _Run:
    """One run on a cluster that is up."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        links: Links | None,
        kinds: tuple[str, ...],
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._links = links
        self._kinds = kinds
        self._say = say
        self._clock = SystemClock()
        stamp = self._clock.wall_ms() // 1000
        self._topic = f"torture-{settings.seed}-{stamp}"
        self._partitions = [TopicPartition(self._topic, number) for number in range(settings.partitions)]
        self._folder = cluster.directory / f"torture-{settings.seed}-{stamp}"
        self._internal: list[TopicPartition] = []
        """Those of `__consumer_offsets`; empty where no group takes part."""
        self._faults: list[FaultNote] = []
        self._present: dict[int, str] = {}
        self._without_effect: list[str] = []
        self._problems: list[str] = []
        self._concerned: set[TopicPartition] = set()
        self._began = self._clock.monotonic()
        self._injector = Injector(cluster, links, self._partitions)

    @property
    def _bootstrap_servers(self) -> str:
        return (
            self._cluster.layout.bootstrap_servers if self._links is None else self._links.bootstrap_servers
        )

    async def through(self, live: Callable[[str], None] | None) -> Report:
        """Run, and judge."""
        settings = self._settings
        plans = producer_plans(settings.acks, settings.producers)
        checker = Checker({plan.name: plan.mode for plan in plans}, Faults.TAME)
        self._folder.mkdir(parents=True)
        self._began = self._clock.monotonic()
        with (self._folder / "history.jsonl").open("wb") as file:
            recorder = Recorder(checker, file, self._clock)
            workload = Workload(
                self._bootstrap_servers, self._topic, settings.partitions, recorder, self._say
            )
            await self._create_topic()
            try:
                await self._live_through(workload, live)
                await self._settle(workload)
            except (TimeoutError, StartFailed, ClientError, BrokerError) as error:
                self._problem(f"the healed cluster does not work: {error}")
            except ExceptionGroup as group:
                expected, rest = group.split((TimeoutError, StartFailed, ClientError, BrokerError))
                if rest is not None:
                    raise rest from None
                assert expected is not None
                for leaf in _leaves(expected):
                    self._problem(f"{type(leaf).__name__}: {leaf}")
            history = await asyncio.to_thread(read_journals, self._cluster)
            lost = self._take_receipts(history, recorder)
        for problem in workload.problems:
            self._problem(problem)
        for partition, problem in two_rulers(history, self._topic, CONSUMER_OFFSETS):
            self._problem(problem, partition)
        verdict = checker.verdict()
        for finding in verdict.findings:
            if not finding.is_allowed:
                self._problem(f"{finding.anomaly.value}: {finding.text}", _partition_of(finding))
        harmed = any(fault.kind == "disk" for fault in self._faults)
        if verdict.without_receipt and not harmed:  # What a power cut takes, no broker can write down.
            self._problem(f"{verdict.without_receipt} acknowledged records are gone and on no loss receipt")
        report = Report(
            seed=settings.seed,
            acks=settings.acks,
            seconds=self._clock.monotonic() - self._began,
            topic=self._topic,
            written=recorder.sent,
            acknowledged=recorder.acknowledged,
            unknown=recorder.unknown,
            failed=recorder.failed,
            read=recorder.read,
            faults=self._faults,
            without_effect=self._without_effect,
            problems=self._problems,
            allowed=Counter({a.value: n for a, n in (verdict.counts - verdict.violations).items()}),
            lost=lost,
            without_receipt=verdict.without_receipt,
            processed=recorder.processed,
            commits=verdict.commits,
            generations=verdict.generations,
        )
        await asyncio.to_thread(self._keep_or_remove, report, history)
        return report

    async def _create_topic(self) -> None:
        configs = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
        async with AdminClient(bootstrap_servers=self._bootstrap_servers) as admin:
            await admin.create_topics(
                [
                    NewTopic(
                        self._topic,
                        num_partitions=self._settings.partitions,
                        replication_factor=len(self._cluster.layout.brokers),
                        topic_configs=configs,
                    )
                ]
            )
            if self._settings.members:
                self._internal = await self._offsets_topic(admin)
        await self._all_in_sync(timeout_s=60)

    async def _offsets_topic(self, admin: AdminClient) -> list[TopicPartition]:
        """Have `__consumer_offsets` created. Without two in-sync replicas for what is acknowledged, groups
        are promised too little to be judged: then no group takes part."""
        await admin.list_consumer_group_offsets(f"{self._topic}-group")
        async with asyncio.timeout(30):
            while True:
                try:
                    (topic,) = await admin.describe_topics([CONSUMER_OFFSETS])
                    break
                except UnknownTopicOrPartitionError:
                    await asyncio.sleep(0.1)  # Its coordinator knows it; this broker is about to hear of it.
        resource = ConfigResource(ConfigResourceType.TOPIC, CONSUMER_OFFSETS)
        configs = await admin.describe_configs([resource], names=["min.insync.replicas"])
        if int(configs[resource]["min.insync.replicas"].value or 1) < 2:
            self._say(f"{CONSUMER_OFFSETS} has min.insync.replicas=1 here, so no consumer group takes part.")
            return []
        return [TopicPartition(CONSUMER_OFFSETS, number) for number in range(len(topic.partitions))]

    async def _all_in_sync(self, *, timeout_s: float) -> None:
        everything = [*self._partitions, *self._internal]
        await replicas.all_in_sync(self._cluster, everything, timeout_s=timeout_s)

    # --- the time of faults --------------------------------------------------------------

    async def _live_through(self, workload: Workload, live: Callable[[str], None] | None) -> None:
        """Write and read while faults come and go; return when all is healed and every record settled."""
        settings = self._settings
        writing, reading = asyncio.Event(), asyncio.Event()
        plans = producer_plans(settings.acks, settings.producers)
        rate = settings.rate / len(plans)
        async with asyncio.TaskGroup() as tasks:
            ticker = None if live is None else tasks.create_task(self._show(workload.recorder, live))
            readers = []
            for number in range(settings.consumers):
                name = f"torture-consumer-{number + 1}"
                readers.append(tasks.create_task(workload.follow(name, reading), name=name))
            for number in range(settings.members if self._internal else 0):
                name = f"torture-member-{number + 1}"
                chance = random.Random(f"{settings.seed} {name}")
                life = workload.be_members(name, reading, chance, static=number == 0)
                readers.append(tasks.create_task(life, name=name))
            writers = [tasks.create_task(workload.write(one, rate=rate, stop=writing)) for one in plans]
            await self._torment()
            writing.set()
            await asyncio.wait(writers)
            if self._internal:
                await workload.finish_group(timeout_s=SETTLE_TIMEOUT_S)
            reading.set()
            if ticker is not None:
                ticker.cancel()
            _, late = await asyncio.wait(readers, timeout=SETTLE_TIMEOUT_S)
            if late:
                names = ", ".join(sorted(task.get_name() for task in late))
                raise TimeoutError(f"{names}: no end within {SETTLE_TIMEOUT_S:g} s")

    async def _torment(self) -> None:
        """Carry out the schedule until the time is over; nothing is broken any more afterwards."""
        end = self._clock.monotonic() + self._settings.minutes * 60
        async with asyncio.TaskGroup() as tasks:
            active: set[asyncio.Task[None]] = set()
            for planned in plan(random.Random(self._settings.seed), self._kinds):
                if active and (not planned.overlaps or len(active) > 1):
                    await asyncio.wait(active)
                left = end - self._clock.monotonic()
                await asyncio.sleep(max(0.0, min(planned.gap_s, left)))
                if left <= planned.gap_s:
                    break
                alone = KINDS[planned.kind].alone
                if alone:
                    await self._all_in_sync(timeout_s=SETTLE_TIMEOUT_S)
                task = tasks.create_task(self._break_and_heal(planned, tuple(active)))
                active.add(task)
                task.add_done_callback(active.discard)
                if alone:
                    await task
                    await self._all_in_sync(timeout_s=SETTLE_TIMEOUT_S)

    async def _break_and_heal(self, planned: Planned, others: Sequence[asyncio.Task[None]]) -> None:
        try:
            try:
                injected = await self._injector.inject(planned)
            except Busy:
                await asyncio.wait(others)
                injected = await self._injector.inject(planned)
            self._present[planned.number] = injected.text
            at = self._clock.monotonic()
            try:
                await asyncio.sleep(planned.lasts_s)
            finally:  # A run that is interrupted leaves nothing broken behind either.
                lasted_s = self._clock.monotonic() - at
                await self._heal(injected)
        except NoEffect as nothing:
            self._without_effect.append(f"{planned.kind} {planned.way}".strip() + f": {nothing}")
        else:
            self._faults.append(
                FaultNote(
                    planned.number,
                    planned.kind,
                    round(at - self._began, 1),
                    round(lasted_s, 1),
                    injected.text,
                )
            )
        finally:
            self._present.pop(planned.number, None)

    async def _heal(self, injected: Injected) -> None:
        """Heal, as somebody does who starts a broker again while ZooKeeper may be away."""
        deadline = self._clock.monotonic() + SETTLE_TIMEOUT_S
        while True:
            try:
                await injected.heal()
                return
            except StartFailed:
                if self._clock.monotonic() > deadline:
                    raise
                await asyncio.sleep(1)

    async def _show(self, recorder: Recorder, live: Callable[[str], None]) -> None:
        total = self._settings.minutes * 60
        while True:
            passed = min(self._clock.monotonic() - self._began, total)
            fault = "; ".join(self._present.values()) or "all is well"
            live(
                f"{passed:4.0f}/{total:.0f} s  written {recorder.sent:,}  acknowledged "
                f"{recorder.acknowledged:,}  read {recorder.read:,}  faults {len(self._faults)}  {fault}"
            )
            await asyncio.sleep(_LIVE_LINE_S)

    # --- the end -------------------------------------------------------------------------

    async def _settle(self, workload: Workload) -> None:
        self._say("Healed. Waiting until every replica is in sync, then reading everything.")
        await self._all_in_sync(timeout_s=SETTLE_TIMEOUT_S)
        await workload.read_everything("torture-final-reader", timeout_s=SETTLE_TIMEOUT_S + 60)
        for partition, problem in await replicas.compare(
            self._cluster, [*self._partitions, *self._internal], timeout_s=30
        ):
            self._problem(f"divergent replicas: {partition}: {problem}", partition)

    def _take_receipts(self, history: History, recorder: Recorder) -> int:
        count = 0
        for receipt in history.receipts:
            if receipt.topic == self._topic:
                recorder.note(
                    Lost(receipt.topic, receipt.partition, receipt.first_offset, receipt.last_offset)
                )
                count += receipt.last_offset - receipt.first_offset + 1
        return count

    def _problem(self, problem: str, partition: TopicPartition | None = None) -> None:
        self._problems.append(problem)
        if partition is not None:
            self._concerned.add(partition)

    def _keep_or_remove(self, report: Report, history: History) -> None:
        """Keep history, logs and explanations of a run that failed; remove those of one that did not."""
        if report.is_kept:
            shutil.rmtree(self._folder)
            return
        concerned = sorted(self._concerned) or self._partitions
        report.partitions = [one.partition for one in concerned]
        for one in concerned:
            report.why += text(explain(history, one))
        report.folder = self._folder
        (self._folder / "why.txt").write_text("".join(f"{line}\n" for line in report.why))
        (self._folder / "problems.txt").write_text("".join(f"{line}\n" for line in report.problems))
        faults = [
            f"{one.at:8.1f} s  {one.kind:10} {one.lasted_s:5.1f} s  {one.text}\n" for one in self._faults
        ]
        (self._folder / "faults.txt").write_text("".join(faults))
        shutil.copytree(self._cluster.directory / "logs", self._folder / "logs")
        for node in self._cluster.layout.brokers:
            data = self._cluster.directory / node.name / "data"
            target = self._folder / node.name
            target.mkdir()
            for name in (f"{STATE_CHANGE_LOG}.1", STATE_CHANGE_LOG, LOSS_RECEIPTS):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy2(data / name, target / name)
            for one in concerned:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copytree(data / str(one), target / str(one))


def _partition_of(finding: Finding) -> TopicPartition | None:
    """The partition that a finding's text is about."""
    for word in finding.text.replace(":", " ").split():
        topic, _, number = word.rpartition("-")
        if topic.startswith("torture-") and number.isdecimal():
            return TopicPartition(topic, int(number))
    return None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
