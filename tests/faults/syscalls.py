"""System calls of a running process that fail or take long, by strace's injection.

This is how a bad disk is had without a disk: the broker is the one that is shipped, the kernel's answer
is not.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

FSYNCS = "fsync,fdatasync"


class Injection:
    """What strace noted of the calls that it meddled with."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    @property
    def count(self) -> int:
        """How many calls were meddled with so far."""
        text = self._notes.read_text() if self._notes.exists() else ""
        return text.count("(INJECTED)") + text.count("(DELAYED)")

    async def happens(self, count: int = 1, *, within_s: float = 60) -> None:
        """Wait until that many calls were meddled with."""
        async with asyncio.timeout(within_s):
            while self.count < count:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def injected(pid: int, calls: str, what: str, notes: Path) -> AsyncIterator[Injection]:
    """Inside, the system calls ``calls`` of ``pid`` behave as ``what`` says (strace's `-e inject`)."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-o", str(notes), "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"]
    process = await asyncio.create_subprocess_exec(*command, "-p", str(pid), stderr=subprocess.PIPE)
    assert process.stderr is not None
    first = (await process.stderr.readline()).decode()
    if "attached" not in first:
        pytest.skip(f"strace may not attach here: {first.strip()}")
    drain = asyncio.create_task(process.stderr.read())  # One line a thread; nobody reads them.
    try:
        yield Injection(notes)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await drain
