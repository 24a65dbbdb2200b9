"""An ensemble of real ZooKeeper servers as children of the test, to be killed, paused and restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kafkalite.cluster.zookeeper import (
    Installation,
    Server,
    free_ports,
    launch,
    mode,
    write_configuration,
)


class ZooKeeperStartFailed(Exception):
    """A server did not come up. The message says which and where its log is."""


def plan_ensemble(directory: Path, count: int, *, ports: Sequence[int] | None = None) -> tuple[Server, ...]:
    """Lay out ``count`` servers below ``directory``, on ``ports`` (three a server) or on free ones."""
    chosen = list(ports) if ports is not None else free_ports(3 * count)
    assert len(chosen) == 3 * count, "a server has three ports"
    return tuple(
        Server(n + 1, directory / f"zookeeper-{n + 1}", *chosen[3 * n : 3 * n + 3]) for n in range(count)
    )


class Ensemble:
    """The servers of one ensemble, started and stopped by this process.

    A member's place in the lists is its server id minus one.
    """

    def __init__(self, installation: Installation, servers: Sequence[Server]) -> None:
        self._installation = installation
        self.servers = tuple(servers)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def connect_string(self) -> str:
        return ",".join(server.address for server in self.servers)

    def pid(self, server: Server) -> int | None:
        """The process id, or None where the server does not run."""
        process = self._processes.get(server.server_id)
        return process.pid if process is not None and process.poll() is None else None

    async def start(self, *, timeout_s: float = 60.0) -> None:
        """Start every member that does not run; return when all of them serve.

        Raises :class:`ZooKeeperStartFailed`.
        """
        for server in self.servers:
            if self.pid(server) is None:
                self.launch(server)
        await asyncio.gather(*(self.ready(server, timeout_s=timeout_s) for server in self.servers))

    def launch(self, server: Server) -> None:
        """Start one member without waiting for it."""
        write_configuration(server, self.servers)
        self._processes[server.server_id] = launch(self._installation, server)

    async def ready(self, server: Server, *, timeout_s: float = 60.0) -> str:
        """Wait until a member serves; return its mode. Raises :class:`ZooKeeperStartFailed`."""
        try:
            async with asyncio.timeout(timeout_s):
                while (found := await mode(server)) is None:
                    if self.pid(server) is None:
                        raise ZooKeeperStartFailed(f"{server.name} ended at its start; see {server.log_file}")
                    await asyncio.sleep(0.05)
                return found
        except TimeoutError:
            raise ZooKeeperStartFailed(
                f"{server.name} does not serve after {timeout_s:g} s; see {server.log_file}"
            ) from None

    async def restart(self, server: Server) -> None:
        """Start a member that was killed or stopped, with the data it had; return when it serves."""
        self.launch(server)
        await self.ready(server)

    def signal(self, server: Server, number: signal.Signals) -> None:
        """Send a signal to a member; one that does not run is passed over."""
        if (pid := self.pid(server)) is not None:
            os.kill(pid, number)

    async def kill(self, server: Server) -> None:
        """SIGKILL; return when the process is gone."""
        self.signal(server, signal.SIGKILL)
        await self._gone(server)

    def pause(self, server: Server) -> None:
        """SIGSTOP: the member keeps its connections and answers nothing."""
        self.signal(server, signal.SIGSTOP)

    def resume(self, server: Server) -> None:
        """SIGCONT."""
        self.signal(server, signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM to all members, then SIGKILL to those that stay; return when all are gone."""
        for server in self.servers:
            self.signal(server, signal.SIGCONT)
            self.signal(server, signal.SIGTERM)
        for server in self.servers:
            process = self._processes.get(server.server_id)
            if process is not None:
                try:
                    await asyncio.to_thread(process.wait, 5)
                except subprocess.TimeoutExpired:
                    await self.kill(server)

    async def _gone(self, server: Server) -> None:
        process = self._processes.get(server.server_id)
        if process is not None:
            await asyncio.to_thread(process.wait)
