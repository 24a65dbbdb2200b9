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
from dataclasses import dataclass
from typing import Final

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
    "instruction refused": "ReplicaRefused",
    "log recovered": "LogRecovered",
    "log directory failed": "LogDirFailed",
    "controlled shutdown": "ControlledShutdownFinished",
}
"""What is worth reaching, and the journal event that tells of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report, as far as it crosses from one process to another."""

    seed: int
    profile: str
    failure: str | None
    tail: list[str]
    simulated_s: float
    steps: int
    faults: Counter[str]
    states: Counter[str]
    records: int
    acknowledged: int
    read: int
    allowed: Counter[str]


def states_reached(report: Report) -> Counter[str]:
    """How often each interesting state was reached."""
    states: Counter[str] = Counter(
        {name: report.events[type] for name, type in STATES.items() if report.events[type]}
    )
    for event in report.journal:
        states.update(_special(event))
    return states + groups.states_reached(report.journal, report.history, report.faults)


def _special(event: Event) -> Iterator[str]:
    if event.type == "LeaderElected" and event.facts.get("is_unclean"):
        yield "unclean election"
    if event.type == "BrokerRegistered" and event.facts.get("replaced"):
        yield "own leftover replaced"
    if event.type == "MembershipChanged":
        yield f"membership: {event.facts['after']}"


def simulate_seed(work: tuple[int, str, float]) -> Outcome:
    """Run one seed; what comes back is small."""
    seed, profile, minutes = work
    report = run_world(seed, profile, minutes=minutes)
    verdict = report.verdict
    return Outcome(
        seed=seed,
        profile=profile,
        failure=report.failure,
        tail=report.tail,
        simulated_s=report.simulated_s,
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
    started = time.monotonic()
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    states: Counter[str] = Counter()
    allowed: Counter[str] = Counter()
    simulated_s = 0.0
    failed: list[Outcome] = []
    done = 0
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=20) as pool:
        for outcome in pool.imap_unordered(simulate_seed, work):
            done += 1
            simulated_s += outcome.simulated_s
            total.update(
                steps=outcome.steps,
                records=outcome.records,
                acknowledged=outcome.acknowledged,
                read=outcome.read,
            )
            faults += outcome.faults
            states += outcome.states
            allowed += outcome.allowed
            if outcome.failure is not None:
                failed.append(outcome)
                print(
                    f"seed {outcome.seed} ({outcome.profile}): {outcome.failure.splitlines()[0]}", flush=True
                )
                if options.fail_fast:
                    pool.terminate()
                    break
            elif options.verbose:
                print(f"seed {outcome.seed} ({outcome.profile}): kept every promise", flush=True)
    elapsed = time.monotonic() - started
    print(
        f"\n{done} seeds in {elapsed:.0f} s, {done / elapsed:.2f} seeds/s; "
        f"{simulated_s / 3600:.1f} simulated hours, {simulated_s / elapsed:.0f} times as fast as life; "
        f"{sum(faults.values())} faults, {total['records']} records, "
        f"{total['acknowledged']} acknowledged, {total['read']} read"
    )
    _print_table("faults that happened", faults)
    _print_table("states reached", states)
    _print_table("anomalies that the promise allows", allowed)
    wanted = [*STATES]
    if any(PROFILES[name].groups for name in names):
        wanted += [*groups.STATES, *groups.SPECIAL]
    never = [name for name in wanted if not states[name]]
    if never:
        print(f"\nnever reached: {', '.join(never)}")
    for outcome in failed[:3]:
        print(f"\n=== seed {outcome.seed} ({outcome.profile}) failed; its last events:")
        print("\n".join(outcome.tail))
        print(outcome.failure)
    for outcome in failed:
        print(
            f"replay: scripts/simulate --seeds 1 --first-seed {outcome.seed} --profile {outcome.profile} "
            f"--minutes {options.minutes:g}"
        )
    return 1 if failed else 0


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
        "--history", metavar="PREFIX", help="run one seed and write its history and journal to PREFIX.*.jsonl"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
