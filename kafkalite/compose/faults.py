"""What can be done to a container, each with the proof that it was done.

A fault that is not really in force teaches the wrong lesson: the cluster seems to survive what never
happened. So each function looks, after the deed, at what the fault is meant to prevent (a process
runs, a connection succeeds, CPU is there to be used) and raises NotInForce where it still happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import docker.errors

from kafkalite.compose.project import NETWORKS, Project, Service
from kafkalite.compose.view import is_serving

_POLL_S: Final = 0.1
_PATIENCE_S: Final = 20.0
"""How long the engine may take to make a change visible."""
_PERIOD_US: Final = 100_000
"""The length of a period that a share of CPU is counted in."""
_PORTS: Final = {"zookeeper": 2181, "brokers": 9092}
"""What is listened on, in each network, by those whom the others go there for."""


class NotInForce(Exception):
    """The fault was asked for, but what it should prevent still happens."""


class NotPossible(Exception):
    """The container is not in a state for that, or this machine's kernel cannot do it."""


def kill(service: Service) -> str:
    """End it at once (SIGKILL); it is not restarted. Returns the proof, in words."""
    if service.status not in ("running", "paused"):
        raise NotPossible(f"{service.name} does not run (it is {service.status})")
    service.container.kill()
    _wait(lambda: service.reloaded().status == "exited", NotInForce(f"{service.name} still runs"))
    code = service.container.attrs["State"]["ExitCode"]
    return f"its container has ended (exit code {code}) and is not restarted"


def stop(service: Service, *, timeout_s: int = 60) -> str:
    """Ask it to end (SIGTERM: a broker hands over its leaders first).

    Raises NotInForce where it had to be killed.
    """
    service.container.stop(timeout=timeout_s)
    state = service.reloaded().container.attrs["State"]
    # A JVM that a SIGTERM ends says 143; a broker ends its shutdown with 0.
    if state["Status"] != "exited" or state["ExitCode"] not in (0, 143):
        raise NotInForce(
            f"{service.name} did not end by itself: {state['Status']}, exit code {state['ExitCode']}"
        )
    return f"it ended by itself (exit code {state['ExitCode']})"


def start(service: Service) -> str:
    """Start a stopped container. It runs then; that it serves is another matter."""
    service.container.start()
    _wait(lambda: service.reloaded().status == "running", NotPossible(f"{service.name} does not run"))
    return "its container runs"


def pause(service: Service) -> str:
    """Freeze all its processes."""
    if service.status != "running":
        raise NotPossible(f"{service.name} does not run (it is {service.status})")
    service.container.pause()
    _wait(lambda: service.reloaded().status == "paused", NotInForce(f"{service.name} is not paused"))
    if service.kind == "broker" and is_serving(service, timeout_s=1.0):
        raise NotInForce(f"{service.name} is paused by Docker's word, and still answers")
    return "its processes are frozen" + (" and it answers nothing" if service.kind == "broker" else "")


def resume(service: Service) -> str:
    """Let a paused container go on."""
    if service.status != "paused":
        raise NotPossible(f"{service.name} is not paused (it is {service.status})")
    service.container.unpause()
    _wait(lambda: service.reloaded().status == "running", NotPossible(f"{service.name} does not run"))
    return "its processes go on"


def partition(project: Project, service: Service, networks: Sequence[str]) -> str:
    """Take it out of these networks of the compose file.

    The other members' addresses must then be out of its reach, and its own out of theirs.
    """
    if service.status != "running":
        raise NotPossible(f"{service.name} does not run (it is {service.status})")
    proofs = []
    for short in networks:
        if short not in NETWORKS[service.kind]:
            raise NotPossible(f"{service.name} is not in the network {short}")
        network = project.network(short)
        own = service.reloaded().networks.get(network.name)
        others = [
            (other, other.networks[network.name])
            for other in project.services()
            if other.name != service.name and other.status == "running" and network.name in other.networks
        ]
        if own is not None:
            network.disconnect(service.container)
        if network.name in service.reloaded().networks:
            raise NotInForce(f"{service.name} is still in the network {network.name}")
        for other, address in others:
            if other.kind != "tools" and reaches(service, address, _port(other)):
                raise NotInForce(f"{service.name} still reaches {other.name} at {address}")
            if own is not None and service.kind != "tools" and reaches(other, own, _port(service)):
                raise NotInForce(f"{other.name} still reaches {service.name} at {own}")
        proofs.append(f"{short}: of {len(others)} others none is in reach")
    return "out of " + "; ".join(proofs)


def heal(project: Project, service: Service) -> list[str]:
    """Undo every fault of this container but :func:`delay`; say what was undone."""
    done = []
    if service.status == "paused":
        done.append(resume(service))
    for short in NETWORKS[service.kind]:
        network = project.network(short)
        if network.name not in service.reloaded().networks:
            aliases = [service.name] + ([f"{service.name}.brokers"] if short == "brokers" else [])
            network.connect(service.container, aliases=aliases)
            if network.name not in service.reloaded().networks:
                raise NotPossible(f"{service.name} could not be put back into the network {network.name}")
            done.append(f"it is in the network {short} again")
    if service.status in ("exited", "created"):
        done.append(start(service))
    elif _quota(service) != _full_quota(service):
        limit_cpu(service, service.cpus)
        done.append(f"it has its {service.cpus:g} CPUs again")
    return done


def undelay(project: Project, service: Service) -> list[str]:
    """Undo :func:`delay`; say so where there was one. Takes a helper container to find out."""
    if service.status != "running" or not any("netem" in line for line in _disciplines(project, service)):
        return []
    _traffic_control(project, service, "qdisc del dev $i root")
    return ["its packets are not delayed any more"]


def limit_cpu(service: Service, cpus: float) -> str:
    """Give it this share of CPU (0.1: a tenth of one)."""
    quota = round(cpus * _PERIOD_US)
    service.container.update(cpu_period=_PERIOD_US, cpu_quota=quota)
    service.reloaded()
    code, output = service.container.exec_run(
        ["sh", "-c", "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"]
    )
    said = output.decode(errors="replace").strip()
    if code != 0 or said.split()[0] != str(quota):
        raise NotInForce(f"the kernel does not hold {service.name} to {cpus:g} CPUs: {said!r}")
    return f"the kernel gives it {cpus:g} CPUs at most"


def delay(project: Project, service: Service, milliseconds: int) -> str:
    """Hold every packet that it sends back for so long. Raises NotPossible where the kernel has no netem."""
    _traffic_control(project, service, f"qdisc replace dev $i root netem delay {milliseconds}ms")
    found = [line for line in _disciplines(project, service) if "netem" in line]
    if len(found) < len(service.reloaded().networks):
        raise NotInForce(f"not every interface of {service.name} delays: {found}")
    other = next(
        (one for one in project.brokers() if one.name != service.name and one.status == "running"), None
    )
    shared = set(other.networks) & set(service.networks) if other is not None else set()
    if other is None or not shared:
        return f"the kernel holds every packet back for {milliseconds} ms"
    started = time.monotonic()
    reaches(other, service.networks[min(shared)], _port(service), timeout_s=10 + milliseconds / 500)
    took_ms = (time.monotonic() - started) * 1000
    if took_ms < milliseconds:
        raise NotInForce(f"{other.name} reached {service.name} within {took_ms:.0f} ms")
    return f"every packet is held back for {milliseconds} ms; {other.name} took {took_ms:.0f} ms to connect"


def in_force(project: Project, service: Service) -> list[str]:
    """The faults that hold now, in words, by what Docker says."""
    found = []
    if service.status != "running":
        found.append(service.status)
    if service.status in ("running", "paused"):
        connected = service.networks
        for short in NETWORKS[service.kind]:
            if project.network(short).name not in connected:
                found.append(f"cut off from {short}")
        if _quota(service) != _full_quota(service):
            found.append(f"held to {_quota(service) / _PERIOD_US:g} CPUs")
    return found


def is_well(service: Service) -> bool:
    """Run the container's own health check now; Docker's word on it may be some seconds old."""
    kind, *command = service.container.attrs["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD", f"a health check that needs a shell: {kind}"
    return bool(service.container.exec_run(command).exit_code == 0)


def reaches(service: Service, address: str, port: int, *, timeout_s: float = 1.0) -> bool:
    """Tell whether a connection from within the container to ``address`` succeeds."""
    code, _ = service.container.exec_run(
        ["timeout", f"{timeout_s:g}", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
    )
    return bool(code == 0)


def _port(service: Service) -> int:
    return _PORTS["zookeeper" if service.kind == "zookeeper" else "brokers"]


def _quota(service: Service) -> int:
    return int(service.container.attrs["HostConfig"].get("CpuQuota") or 0)


def _full_quota(service: Service) -> int:
    return round(service.cpus * _PERIOD_US)


def _disciplines(project: Project, service: Service) -> list[str]:
    return _traffic_control(project, service, "qdisc show dev $i").splitlines()


def _traffic_control(project: Project, service: Service, command: str) -> str:
    """Run `tc` for each interface of the container, from a helper in its network namespace.

    The container itself has no right to do that, and is not to have it.
    """
    image = next(one for one in project.brokers()).container.attrs["Image"]
    script = f"for i in $(cd /sys/class/net && ls -d eth*); do tc {command} || exit 1; done"
    try:
        output = project.engine.containers.run(
            image,
            ["sh", "-c", script],
            user="root",
            network_mode=f"container:{service.container.id}",
            cap_add=["NET_ADMIN"],
            remove=True,
            stderr=True,
        )
    except docker.errors.ContainerError as error:
        words = _text(error.stderr)
        if "qdisc kind is unknown" in words:
            raise NotPossible(
                "the kernel of this machine has no netem (sch_netem), which delays packets; "
                "slow the container down with --cpus instead"
            ) from None
        raise NotPossible(f"tc {command}: {words}") from None
    return _text(output)


def _text(output: Any) -> str:
    return output.decode(errors="replace").strip() if isinstance(output, bytes) else str(output).strip()


def _wait(condition: Callable[[], bool], otherwise: Exception) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise otherwise
        time.sleep(_POLL_S)
