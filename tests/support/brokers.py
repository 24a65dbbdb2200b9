"""Single broker processes for tests: started from a properties file, as a user starts one."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class BrokerProcess:
    """One `kafkalite broker` and what it was told."""

    directory: Path
    properties: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    stderr: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stderr = self.directory / "stderr.log"

    @property
    def port(self) -> int:
        return int(self.properties["listeners"].rpartition(":")[2])

    async def launch(self) -> None:
        """Start the process; it may fail to start."""
        config = self.directory / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in self.properties.items()))
        with self.stderr.open("wb") as stderr:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kafkalite.cli", "broker", "--config", str(config), stderr=stderr
            )

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises where it ends instead."""
        await self.launch()
        assert self.process is not None
        async with asyncio.timeout(60):
            while (await self.health() or {}).get("state") != "RUNNING":
                assert self.process.returncode is None, self.stderr.read_text()
                await asyncio.sleep(0.05)

    async def refused(self) -> str:
        """Start the process, which is to end by itself: returns its last line, checks its exit code."""
        await self.launch()
        assert self.process is not None
        async with asyncio.timeout(60):
            code = await self.process.wait()
        assert code == 1, f"exit code {code}: {self.stderr.read_text()}"
        lines = self.stderr.read_text().splitlines()
        assert lines, "no word on stderr"
        assert "Traceback" not in self.stderr.read_text()
        return lines[-1]

    async def health(self) -> dict[str, Any] | None:
        """What `GET /v1/health` says, or None where nobody answers."""
        return await asyncio.to_thread(self._health)

    def _health(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/health", timeout=2) as answer:
                body: dict[str, Any] = json.load(answer)
                return body
        except OSError:
            return None

    async def kill(self) -> None:
        """SIGKILL, and gone."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            return await self.process.wait()
