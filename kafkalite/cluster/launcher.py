"""The verbs of `kafkalite cluster`: each returns when what it promises is true.

A verb looks at the processes as they are, does what is missing, and waits for the outcome, so
every verb can be repeated. Verbs on different processes may run at the same time: what changes
(which process has which name) lies in a file per process, and starting one is done under its lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from kafkalite.cluster import layout as layouts
from kafkalite.cluster import ports, zookeeper
from kafkalite.cluster.layout import HOST, BadLayout, Kind, Layout, NoCluster, Node
from kafkalite.cluster.process import ProcessId, Running, recall, remember, start
from kafkalite.cluster.view import ClusterView, read_view
from kafkalite.server.config import BrokerConfig, ConfigError

ProcessState = Literal["starting", "running", "paused", "stopped"]
ClusterState = Literal["healthy", "degraded", "down"]

_CLUSTER_ID: Final = "cluster-id"
"""The file that remembers the cluster's id for when ZooKeeper is down."""
_POLL_S: Final = 0.05
"""How long to wait before looking again; a look costs a few local requests."""
_PROBE_TIMEOUT_S: Final = 2.0
"""A process that serves answers a probe far sooner, on a busy machine too."""


class StartFailed(Exception):
    """A process ended while it was being started. The message has its last words."""


class TimedOut(Exception):
    """What was waited for has not become true."""


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process, as `cluster status --output json` shows it (CONTRACTS section 3)."""

    name: str
    kind: Kind
    id: int
    pid: int | None
    host: str
    port: int
    state: ProcessState
    log: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cluster, as `cluster status --output json` shows it (CONTRACTS section 3)."""

    dir: str
    state: ClusterState
    cluster_id: str | None
    zookeeper_connect: str
    bootstrap_servers: str
    controller: int | None
    processes: tuple[ProcessStatus, ...]


class Cluster:
    """The cluster in one directory."""

    def __init__(self, directory: Path, layout: Layout, *, say: Callable[[str], None]) -> None:
        self.directory = directory
        self.layout = layout
        self._say = say
        self.own_overrides: dict[str, dict[str, str]] = {}
        """Configuration of single brokers, by name, for whatever this object starts; kept nowhere else."""

    @classmethod
    def load(cls, directory: Path, *, say: Callable[[str], None] = lambda _: None) -> Cluster:
        """Find the cluster in ``directory``. Raises NoCluster, BadLayout."""
        directory = directory.resolve()
        return cls(directory, layouts.load(directory), say=say)

    @classmethod
    def load_or_create(
        cls,
        directory: Path,
        *,
        brokers: int | None,
        zookeepers: int | None,
        overrides: Mapping[str, str],
        say: Callable[[str], None] = lambda _: None,
    ) -> Cluster:
        """Find the cluster in ``directory``, or lay out a new one (three brokers, one ZooKeeper).

        Raises BadLayout when there is one of another size. New overrides are added to those
        that it has; brokers take them when they next start.
        """
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory / ".lock"):
            try:
                layout = layouts.load(directory)
            except NoCluster:
                layout = cls._create(directory, brokers or 3, zookeepers or 1, overrides)
            else:
                for asked, there, what in (
                    (brokers, len(layout.brokers), "brokers"),
                    (zookeepers, len(layout.zookeepers), "zookeepers"),
                ):
                    if asked is not None and asked != there:
                        raise BadLayout(
                            f"the cluster in {directory} has {there} {what}, not {asked}: "
                            "use another --dir, or remove it first (cluster down --delete)"
                        )
                changed = msgspec.structs.replace(layout, overrides={**layout.overrides, **overrides})
                if changed != layout:
                    check_overrides(changed, directory)
                    layout = changed
                    layouts.save(layout, directory)
                    say("The new overrides hold for each broker from its next start on.")
        return cls(directory, layout, say=say)

    @staticmethod
    def _create(directory: Path, brokers: int, zookeepers: int, overrides: Mapping[str, str]) -> Layout:
        with ports.reserved(
            directory, layouts.ports_needed(brokers=brokers, zookeepers=zookeepers)
        ) as chosen:
            layout = layouts.plan(brokers=brokers, zookeepers=zookeepers, overrides=overrides, ports=chosen)
            check_overrides(layout, directory)
            layouts.save(layout, directory)
        return layout

    # What there is

    def log(self, node: Node) -> Path:
        """Where the process's output goes."""
        return self.directory / "logs" / f"{node.name}.log"

    @property
    def scratch(self) -> Path:
        """A place for files of whoever uses the cluster; it goes when the data goes."""
        place = self.directory / "scratch"
        place.mkdir(exist_ok=True)
        return place

    def process(self, node: Node) -> ProcessId | None:
        """The process that is ``node`` just now, or None."""
        return recall(self._process_file(node))

    def nodes(self, names: Sequence[str]) -> tuple[Node, ...]:
        """The processes named, in starting order; all without names. Raises KeyError."""
        wanted = {self.layout.node(name).name for name in names}
        return tuple(n for n in self.layout.nodes if not names or n.name in wanted)

    def status(self) -> Status:
        """Look at everything now."""
        view = self._view()
        processes = tuple(self._process_status(node, view) for node in self.layout.nodes)
        states = {process.state for process in processes}
        controller = view.controller if view is not None else None
        if any(p.kind == "broker" and p.id == controller and p.state == "stopped" for p in processes):
            controller = None  # Its znode outlives it by up to a session timeout.
        state: ClusterState
        if states == {"stopped"}:
            state = "down"
        elif states == {"running"} and controller is not None:
            state = "healthy"
        else:
            state = "degraded"
        return Status(
            dir=str(self.directory),
            state=state,
            cluster_id=self._cluster_id(view),
            zookeeper_connect=self.layout.zookeeper_connect,
            bootstrap_servers=self.layout.bootstrap_servers,
            controller=controller,
            processes=processes,
        )

    # Verbs

    def up(self, *, timeout_s: float) -> Status:
        """Start whatever does not run; return when every broker is registered and serving.

        Raises StartFailed, TimedOut.
        """
        deadline = time.monotonic() + timeout_s
        self._ensure_started(self.layout.nodes, deadline)
        while True:
            status = self.status()
            if status.state == "healthy" and self._brokers_know_each_other():
                return status
            self._pause(deadline, "the brokers to be registered and to know each other")

    def start(self, names: Sequence[str], *, timeout_s: float) -> None:
        """Start these processes (all without names) and wait until they serve.

        Raises KeyError, StartFailed, TimedOut.
        """
        self._ensure_started(self.nodes(names), time.monotonic() + timeout_s)

    def stop(self, names: Sequence[str], *, timeout_s: float) -> None:
        """Ask these processes to end (SIGTERM; a broker hands over its leaders first).

        Brokers go before the ZooKeepers that they need for that. Raises KeyError, TimedOut.
        """
        deadline = time.monotonic() + timeout_s
        nodes = self.nodes(names)
        for kind in ("broker", "zookeeper"):
            leaving = []
            for node in nodes:
                process = self.process(node) if node.kind == kind else None
                if process is not None:
                    self._say(f"stopping {node.name}")
                    process.send(signal.SIGTERM)
                    process.send(signal.SIGCONT)  # A paused process gets no other signal.
                    leaving.append((node, process))
            for node, process in leaving:
                if not process.wait_gone(deadline - time.monotonic()):
                    raise TimedOut(
                        f"{node.name} has not ended within {timeout_s:g} s; see {self.log(node)}, or end it "
                        f"at once with: kafkalite cluster kill {node.name} --dir {self.directory}"
                    )

    def restart(self, names: Sequence[str], *, timeout_s: float) -> None:
        """Stop and start these processes one after the other, so that the others go on meanwhile."""
        for node in self.nodes(names):
            self.stop([node.name], timeout_s=timeout_s)
            self.start([node.name], timeout_s=timeout_s)

    def kill(self, names: Sequence[str]) -> None:
        """End these processes at once (SIGKILL); all at the same moment where several are named."""
        found = [(node, self.process(node)) for node in self.nodes(names)]
        for _, process in found:
            if process is not None:
                process.send(signal.SIGKILL)
        for node, process in found:
            if process is not None and not process.wait_gone(30.0):
                raise TimedOut(f"{node.name} (pid {process.pid}) does not end even by SIGKILL")

    def pause(self, names: Sequence[str]) -> None:
        """Freeze these processes (SIGSTOP). Raises StartFailed where one does not run."""
        self._signal_running(names, signal.SIGSTOP, Running.PAUSED)

    def resume(self, names: Sequence[str]) -> None:
        """Let paused processes go on (SIGCONT). Raises StartFailed where one does not run."""
        self._signal_running(names, signal.SIGCONT, Running.RUNNING)

    def down(self, *, timeout_s: float, delete: bool = False) -> None:
        """Stop everything; with ``delete`` remove the data too. What does not end in time is killed."""
        try:
            self.stop([], timeout_s=timeout_s)
        except TimedOut as error:
            self._say(f"{error}. Killing what is left.")
            self.kill([])
        if delete:
            for node in self.layout.nodes:
                shutil.rmtree(self.directory / node.name, ignore_errors=True)
            for name in ("logs", "scratch"):
                shutil.rmtree(self.directory / name, ignore_errors=True)
            for name in (layouts.CLUSTER_FILE, _CLUSTER_ID, ".lock"):
                (self.directory / name).unlink(missing_ok=True)
            ports.release(self.directory)
            with contextlib.suppress(OSError):  # Something of somebody else's is in it.
                self.directory.rmdir()

    # Starting

    def _ensure_started(self, nodes: Sequence[Node], deadline: float) -> None:
        """Start, all at the same time, what does not run; wait until all of ``nodes`` serve."""
        from_scratch = all(self.process(node) is None for node in self.layout.zookeepers)
        marks = {node.name: self._ensure_process(node, patient=from_scratch) for node in nodes}
        waiting = list(nodes)
        while waiting:
            for node in list(waiting):
                if self._is_serving(node):
                    self._say(f"{node.name} serves on {HOST}:{node.port}")
                    waiting.remove(node)
                elif self.process(node) is None:
                    raise StartFailed(self._last_words(node, marks[node.name]))
            if waiting:
                self._pause(deadline, f"{', '.join(node.name for node in waiting)} to serve")

    def _ensure_process(self, node: Node, *, patient: bool) -> int:
        """Make ``node`` a running process. Return where its log ended before.

        ``patient``: ZooKeeper is only just being started too, so its absence is no reason to
        give up.
        """
        directory = self.directory / node.name
        directory.mkdir(exist_ok=True)
        log = self.log(node)
        with _locked(directory / ".lock"):
            mark = log.stat().st_size if log.exists() else 0
            process = self.process(node)
            if process is None:
                self._say(f"starting {node.name}")
                if node.kind == "zookeeper":
                    command = self._prepare_zookeeper(node)
                else:
                    command = self._prepare_broker(node, directory, patient=patient)
                remember(start(command, directory=directory, log=log), self._process_file(node))
            elif process.running is Running.PAUSED:
                self._say(f"resuming {node.name}")
                process.send(signal.SIGCONT)
        return mark

    def _prepare_zookeeper(self, node: Node) -> list[str]:
        server = self.zookeeper_server(node)
        installation = zookeeper.find_installation(os.environ)
        zookeeper.write_configuration(server, [self.zookeeper_server(n) for n in self.layout.zookeepers])
        return zookeeper.command(installation, server)

    def zookeeper_server(self, node: Node) -> zookeeper.Server:
        """One ZooKeeper, as the module :mod:`.zookeeper` knows it."""
        return zookeeper.Server(
            server_id=node.id,
            directory=self.directory / node.name,
            client_port=node.port,
            quorum_port=node.quorum_port or 0,
            election_port=node.election_port or 0,
        )

    def _prepare_broker(self, node: Node, directory: Path, *, patient: bool) -> list[str]:
        properties = directory / "server.properties"
        layouts.write_whole(
            properties,
            layouts.properties_text(
                layouts.server_properties(self.layout, node, self.directory),
                comment=f"Written by `kafkalite cluster` for {node.name} whenever it starts.",
            ).encode(),
        )
        command = [sys.executable, "-m", "kafkalite.cli", "broker", "--config", str(properties)]
        if patient and "zookeeper.connection.timeout.ms" not in self.layout.overrides:
            command += ["--override", "zookeeper.connection.timeout.ms=60000"]
        for name, value in self.own_overrides.get(node.name, {}).items():
            command += ["--override", f"{name}={value}"]
        return command

    def _last_words(self, node: Node, mark: int) -> str:
        """What a process that ended printed last, since its log was ``mark`` bytes long."""
        log = self.log(node)
        try:
            with open(log, "rb") as file:
                file.seek(mark)
                lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        except FileNotFoundError:
            lines = []
        return f"{node.name} did not start: {lines[-1] if lines else 'it ended without a word'} (log: {log})"

    # Looking

    def _is_serving(self, node: Node) -> bool:
        process = self.process(node)
        if process is None or process.running is not Running.RUNNING:
            return False
        if node.kind == "broker":
            health = _get_json(node.port, "/v1/health")
            return (
                health is not None and health.get("broker_id") == node.id and health.get("state") == "RUNNING"
            )
        alive = sum(self.process(other) is not None for other in self.layout.zookeepers)
        if 2 * alive > len(self.layout.zookeepers):
            return asyncio.run(zookeeper.mode(self.zookeeper_server(node))) is not None
        return True  # Without a majority none of them can serve; that this one runs is all there is.

    def _process_status(self, node: Node, view: ClusterView | None) -> ProcessStatus:
        process = self.process(node)
        state: ProcessState
        if process is None:
            state = "stopped"
        elif process.running is Running.PAUSED:
            state = "paused"
        elif self._is_serving(node) and (node.kind == "zookeeper" or view is None or node.id in view.brokers):
            state = "running"
        else:
            state = "starting"
        return ProcessStatus(
            name=node.name,
            kind=node.kind,
            id=node.id,
            pid=process.pid if process is not None else None,
            host=HOST,
            port=node.port,
            state=state,
            log=str(self.log(node)),
        )

    def _view(self) -> ClusterView | None:
        """What ZooKeeper says, or None where it does not answer."""
        if not any(self._is_serving(node) for node in self.layout.zookeepers):
            return None
        return asyncio.run(read_view(self.layout.zookeeper_connect, timeout_s=_PROBE_TIMEOUT_S))

    def _cluster_id(self, view: ClusterView | None) -> str | None:
        """The cluster's id, remembered for when ZooKeeper is down."""
        memory = self.directory / _CLUSTER_ID
        if view is not None and view.cluster_id is not None:
            if not memory.exists():
                layouts.write_whole(memory, view.cluster_id.encode())
            return view.cluster_id
        try:
            return memory.read_text()
        except FileNotFoundError:
            return None

    def _brokers_know_each_other(self) -> bool:
        """Tell whether every broker's metadata has all brokers: what a client relies on."""
        everyone = {node.id for node in self.layout.brokers}
        for node in self.layout.brokers:
            answer = _get_json(node.port, "/v1/describe_cluster")
            if answer is None or {broker["broker_id"] for broker in answer["brokers"]} != everyone:
                return False
        return True

    # Small things

    def _signal_running(self, names: Sequence[str], number: signal.Signals, wanted: Running) -> None:
        for node in self.nodes(names):
            process = self.process(node)
            if process is None or not process.send(number):
                raise StartFailed(f"{node.name} does not run")
            deadline = time.monotonic() + 30
            while process.running is not wanted:
                if process.running is Running.GONE:
                    raise StartFailed(f"{node.name} has ended")
                self._pause(deadline, f"{node.name} to be {wanted.value}")

    def _process_file(self, node: Node) -> Path:
        return self.directory / node.name / "process.json"

    @staticmethod
    def _pause(deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise TimedOut(f"timed out waiting for {what}")
        time.sleep(_POLL_S)


def check_overrides(layout: Layout, directory: Path) -> None:
    """Refuse, before anything is started, what no broker could start with. Raises BadLayout."""
    own = {"broker.id", "listeners", "log.dir", "log.dirs", "zookeeper.connect"} & layout.overrides.keys()
    if own:
        raise BadLayout(
            f"--override {min(own)}: differs from broker to broker, and the cluster sets it itself"
        )
    properties = layouts.server_properties(layout, layout.brokers[0], directory)
    try:
        BrokerConfig.load(environ=os.environ, overrides=properties)
    except ConfigError as error:
        raise BadLayout(str(error)) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` among all processes."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _get_json(port: int, target: str) -> dict[str, Any] | None:
    """Ask a broker; None where it does not answer 200 with a map."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", target, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        found = json.loads(body) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None
