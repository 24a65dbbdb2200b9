"""Torture itself: a short run that is kept, and one in which a replica is tampered with, which is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kafkalite.cluster.launcher import Cluster
from kafkalite.torture.run import Report, Settings, torture

pytestmark = pytest.mark.timeout(240)


async def run(directory: Path, *kinds: str, seconds: float) -> Report:
    settings = Settings(directory, seed=11, minutes=seconds / 60, kinds=kinds, partitions=2, rate=500)
    return await torture(settings, say=lambda line: None, live=None)


async def test_a_cluster_that_keeps_its_word(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    report = await run(directory, "kill", "client-cut", seconds=12)
    assert report.is_kept, report.problems
    assert report.faults, report.without_effect
    assert report.written == report.acknowledged + report.unknown + report.failed
    assert report.read >= report.acknowledged > 1000
    assert report.folder is None
    assert not directory.exists(), "a cluster that was made for the run is removed"


async def test_a_replica_that_was_tampered_with_breaks_the_verdict(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"

    def leads(journal: Path) -> bool:
        """Whether the broker leads partition 0; in this run nobody is elected a second time."""
        events = (json.loads(line) for line in journal.read_text().splitlines())
        return any(event["type"] == "BecameLeader" and event["partition"] == 0 for event in events)

    async def tamper() -> None:
        """Change a record in the middle of a follower's file, as no broker would."""
        while True:
            await asyncio.sleep(0.2)
            for log in directory.glob("broker-*/data/torture-*-0/00000000000000000000.log"):
                if log.stat().st_size > 20_000 and not leads(log.parent.parent / "state-change.log"):
                    with log.open("r+b") as file:
                        file.seek(300)
                        byte = file.read(1)[0]
                        file.seek(300)
                        file.write(bytes([byte ^ 0xFF]))
                    return

    tampering = asyncio.create_task(tamper())
    report = await run(directory, "client-cut", seconds=6)
    await tampering
    assert not report.is_kept
    assert any("divergent replicas" in problem or "Corrupt" in problem for problem in report.problems)
    assert report.folder is not None
    history = (report.folder / "history.jsonl").read_text().splitlines()
    assert {"sent", "acknowledged", "polled"} <= {json.loads(line)["event"] for line in history}
    assert (report.folder / "why.txt").read_text().startswith("torture-11-")
    assert (report.folder / "broker-1" / "state-change.log").exists()
    await asyncio.to_thread(Cluster.load(directory).down, timeout_s=60, delete=True)
