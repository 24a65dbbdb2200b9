"""`scripts/simulate`: many seeds, two at a time, and what they reached.

A seed is one exact history, so a failure is replayed by its number, its profile and its minutes. The
table at the end says how often each fault really happened and each interesting state of the protocol
was reached: a simulation that never gets there proves nothing about it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from kafkalite.checker.history import to_lines
from kafkalite.journal import Event

from . import groups
from .world import PROFILES, Report, run_world

STATES: Final[Mapping[str, str]] = {
    "truncation": "Truncated",
    "loss receipt": "RecordsLost",
    "fenced follower": "FollowerFenced",
    "leader deposed by a conflict": "LeaderDeposed",
    "ISR adopted after a conflict": "IsrAdopted",
    "ISR change pending for 10 s": "IsrChangePending",
    "ISR change dropped": "IsrChangeDropped",
    "ISR shrunk": "IsrShrunk",
    "ISR expanded": "IsrExpanded",
    "frozen partition": "PartitionFrozen",
    "frozen partition confirmed": "PartitionUnfrozen",
    "lease expired": "LeaseExpired",
    "controller resigned": "ControllerResigned",
    "controller elected": "ControllerElected",
    "broker bounce seen": "BrokerBounced",
    "broker found absent at fail-over": "BrokerFoundAbsent",
    "no leader electable": "NoLeaderElected",
    "controller's request refused": "ControllerRequestRefused",
    "log recovered": "LogRecovered",
    "log directory failed": "LogDirFailed",
    "replicas offline with their directory": "ReplicasOffline",
    "controlled shutdown": "ControlledShutdownFinished",
}
"""What is worth reaching, and the journal event that tells of it.

ReplicaRefused (one partition's instruction in a request that was not refused) is not among them: it
takes a reassignment, or a controller that sends states older than a broker knows, which fencing rules out.
"""

SPECIAL: Final = ("unclean election", "lost multi reply", "own leftover replaced")
"""What takes more than an event's type to tell."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report, as far as it crosses from one process to another, or into a file of results."""

    seed: int
    profile: str
    minutes: float
    failure: str | None
    tail: list[str]
    """The last events of a failure."""
    brokers: int
    simulated_s: float
    cpu_s: float
    steps: int
    faults: Counter[str]
    states: Counter[str]
    records: int
    acknowledged: int
    read: int
    allowed: Counter[str]
    """Anomalies that the promise allows."""

    @property
    def work(self) -> tuple[int, str, float]:
        return self.seed, self.profile, self.minutes

    def to_json(self) -> str:
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def from_json(cls, line: str) -> Outcome:
        found: dict[str, Any] = json.loads(line)
        for name in ("faults", "states", "allowed"):
            found[name] = Counter(found[name])
        return cls(**found)


def states_reached(report: Report) -> Counter[str]:
    """How often each interesting state was reached."""
    states: Counter[str] = Counter(
        {name: report.events[type] for name, type in STATES.items() if report.events[type]}
    )
    for event in report.journal:
        states.update(_special(event))
    if report.faults["lost multi reply"]:
        states["lost multi reply"] = report.faults["lost multi reply"]
    return states + groups.states_reached(report.journal, report.history, report.faults)


def _special(event: Event) -> Iterator[str]:
    if event.type == "LeaderElected" and event.facts["strategy"] == "unclean":
        yield "unclean election"
    if event.type == "BrokerRegistered" and event.facts.get("replaced"):
        yield "own leftover replaced"
    if event.type == "MembershipChanged":
        yield f"membership: {event.facts['after']}"


def simulate_seed(work: tuple[int, str, float]) -> Outcome:
    """Run one seed; what comes back is small."""
    seed, profile, minutes = work
    began = time.process_time()
    report = run_world(seed, profile, minutes=minutes)
    verdict = report.verdict
    return Outcome(
        seed=seed,
        profile=profile,
        minutes=minutes,
        failure=report.failure,
        tail=report.tail if report.failure is not None else [],
        brokers=report.brokers,
        simulated_s=report.simulated_s,
        cpu_s=time.process_time() - began,
        steps=report.steps,
        faults=report.faults,
        states=states_reached(report),
        records=verdict.sent if verdict is not None else 0,
        acknowledged=verdict.acknowledged if verdict is not None else 0,
        read=verdict.read if verdict is not None else 0,
        allowed=Counter({one.value: count for one, count in verdict.counts.items()})
        if verdict is not None
        else Counter(),
    )


@dataclass(slots=True)
class Summary:
    """What all seeds together came to."""

    seeds: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    totals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    allowed: Counter[str] = field(default_factory=Counter)
    profiles: Counter[str] = field(default_factory=Counter)
    brokers: Counter[int] = field(default_factory=Counter)
    """Seeds by the number of brokers in their cluster."""
    fewest_faults: Outcome | None = None
    shortest: Outcome | None = None
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one more seed in."""
        self.seeds += 1
        self.simulated_s += outcome.simulated_s
        self.cpu_s += outcome.cpu_s
        self.totals.update(
            steps=outcome.steps, records=outcome.records, acknowledged=outcome.acknowledged, read=outcome.read
        )
        self.faults += outcome.faults
        self.states += outcome.states
        self.allowed += outcome.allowed
        self.profiles[outcome.profile] += 1
        self.brokers[outcome.brokers] += 1
        if outcome.failure is not None:
            self.failed.append(outcome)
            return  # It may have ended early: of the others every one must have run its course.
        if self.fewest_faults is None or outcome.faults.total() < self.fewest_faults.faults.total():
            self.fewest_faults = outcome
        if self.shortest is None or outcome.simulated_s < self.shortest.simulated_s:
            self.shortest = outcome

    def print(self, *, elapsed_s: float, now_done: int) -> None:
        """Say what was done, what happened and what was reached."""
        print(
            f"\n{self.seeds} seeds ({now_done} now, in {elapsed_s:.0f} s: {now_done / elapsed_s:.2f} "
            f"seeds/s); {self.cpu_s:.0f} CPU s, {self.cpu_s / self.seeds:.1f} a seed"
        )
        print(
            f"{self.simulated_s / 3600:.1f} simulated hours, {self.simulated_s / self.cpu_s:.0f} times as "
            f"fast as life; {self.faults.total()} faults, {self.totals['records']} records, "
            f"{self.totals['acknowledged']} acknowledged, {self.totals['read']} read, "
            f"{self.totals['steps']} steps"
        )
        print("seeds by profile: " + ", ".join(f"{count} {name}" for name, count in self.profiles.items()))
        print("seeds by brokers: " + ", ".join(f"{self.brokers[n]} of {n}" for n in sorted(self.brokers)))
        if self.fewest_faults is not None and self.shortest is not None:
            least, shortest = self.fewest_faults, self.shortest
            print(
                f"fewest faults: {least.faults.total()}, in seed {least.seed} ({least.profile}); "
                f"shortest: {shortest.simulated_s / 60:.1f} min, seed {shortest.seed} ({shortest.profile})"
            )
        _print_table("faults that happened", self.faults)
        _print_table("states reached", self.states)
        _print_table("anomalies that the promise allows", self.allowed)
        wanted = [*STATES, *SPECIAL]
        if any(PROFILES[name].groups for name in self.profiles):
            wanted += [*groups.STATES, *groups.SPECIAL]
        never = [name for name in wanted if not self.states[name]]
        if never:
            print(f"\nnever reached: {', '.join(never)}")
        for outcome in self.failed[:3]:
            print(f"\n=== seed {outcome.seed} ({outcome.profile}) failed; its last events:")
            print("\n".join(outcome.tail))
            print(outcome.failure)
        for outcome in self.failed:
            print(
                f"replay: scripts/simulate --seeds 1 --first-seed {outcome.seed} --profile {outcome.profile} "
                f"--minutes {outcome.minutes:g}"
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds; 0 if all of them kept every promise."""
    options = _parser().parse_args(arguments)
    if options.history is not None:
        return _write_history(options)
    names = list(PROFILES) if options.profile == "all" else [options.profile]
    work = [
        (seed, names[seed % len(names)], options.minutes)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
    ]
    summary = Summary()
    results: Path | None = options.results
    if results is not None and results.exists():
        former = {one.work: one for one in _former(results)}
        for outcome in (former[each] for each in work if each in former):
            summary.add(outcome)
        work = [each for each in work if each not in former]
    done = 0
    started = time.monotonic()
    with (
        multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=20) as pool,
        open(results or "/dev/null", "a", encoding="utf-8") as file,
    ):
        try:
            for outcome in pool.imap_unordered(simulate_seed, work):
                done += 1
                file.write(outcome.to_json() + "\n")
                file.flush()
                summary.add(outcome)
                _print_progress(outcome, verbose=options.verbose)
                if outcome.failure is not None and options.fail_fast:
                    break
        except KeyboardInterrupt:
            print("interrupted; what is done counts")
        pool.terminate()
    if summary.seeds:
        summary.print(elapsed_s=time.monotonic() - started, now_done=done)
    return 1 if summary.failed else 0


def _former(results: Path) -> list[Outcome]:
    """What a file of results holds; a last line that was not written to its end is cut off."""
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        results.write_text("".join(lines), encoding="utf-8")
    return [Outcome.from_json(line) for line in lines]


def _print_progress(outcome: Outcome, *, verbose: bool) -> None:
    name = f"seed {outcome.seed} ({outcome.profile})"
    if outcome.failure is not None:
        print(f"{name}: {outcome.failure.splitlines()[0]}", flush=True)
    elif verbose:
        print(
            f"{name}: kept every promise; {outcome.faults.total()} faults, {len(outcome.states)} kinds of "
            f"states, {outcome.cpu_s:.1f} CPU s",
            flush=True,
        )


def _write_history(options: argparse.Namespace) -> int:
    """Run one seed and keep its history and journal in a folder's two files."""
    names = list(PROFILES)
    profile = names[options.first_seed % len(names)] if options.profile == "all" else options.profile
    report = run_world(options.first_seed, profile, minutes=options.minutes)
    with open(f"{options.history}.history.jsonl", "wb") as file:
        file.writelines(to_lines(report.history))
    with open(f"{options.history}.journal.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(event.to_json(), default=str) + "\n" for event in report.journal)
    print(report.failure or "kept every promise")
    return 1 if report.failure is not None else 0


def _print_table(title: str, counts: Counter[str]) -> None:
    if not counts:
        return
    print(f"\n{title}:")
    for name, count in sorted(counts.items()):
        print(f"  {count:8d}  {name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulate", description="Run simulated clusters under faults, one exact history a seed."
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--first-seed", type=int, default=1, help="the first one (default: 1)")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="simulated minutes of faults a seed (default: 10)"
    )
    parser.add_argument(
        "--profile",
        choices=[*PROFILES, "all"],
        default="all",
        help="what kind of faults (default: all in turn)",
    )
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time (default: 2)")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    parser.add_argument("--verbose", action="store_true", help="a line for each seed")
    parser.add_argument(
        "--results",
        metavar="FILE",
        type=Path,
        help="append a line of JSON for each seed; seeds that have one are not run again, but count",
    )
    parser.add_argument(
        "--history", metavar="PREFIX", help="run one seed and write its history and journal to PREFIX.*.jsonl"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
