"""The containers of one compose project, and the command that makes and removes them.

Containers are found by compose's own labels, so it does not matter which version of compose made
them, under which file names, or whether this program had a part in it. What a container is meant to be (its
kind, its share of CPU) stands in labels of ours, which `docker-compose.yml` gives it.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import docker
import docker.errors
import msgspec

Kind = Literal["broker", "zookeeper", "tools"]

BASE: Final = "docker-compose.yml"
OVERLAYS: Final = ("small", "five", "digest", "tools")
"""The overlay files beside it, without `.yml`."""

_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"
_FILES: Final = "com.docker.compose.project.config_files"
_NETWORK: Final = "com.docker.compose.network"
_ONE_OFF: Final = "com.docker.compose.oneoff"
_KIND: Final = "kafkalite.kind"
_CPUS: Final = "kafkalite.cpus"

NETWORKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "broker": ("zookeeper", "brokers"),
    "zookeeper": ("zookeeper",),
    "tools": ("brokers",),
}
"""The networks of the compose file that a container of each kind is in while nothing is broken."""


class NoEngine(Exception):
    """No Docker engine answers, or there is no compose command."""


class NoProject(Exception):
    """There are no containers of this project, or none of that name."""


class ComposeFailed(Exception):
    """The compose command ended with an error; it has said which."""


class Service(msgspec.Struct, frozen=True):
    """One container of the project, as it was when it was looked at."""

    name: str
    """The service's name in the compose file: `broker-2`."""
    kind: Kind
    container: Any
    """The SDK's container."""

    @property
    def id(self) -> int:
        """`broker.id` or `myid`. Only for brokers and ZooKeepers."""
        return int(self.name.rpartition("-")[2])

    @property
    def status(self) -> str:
        """Docker's word: running, paused, exited, restarting, …"""
        return str(self.container.attrs["State"]["Status"])

    @property
    def health(self) -> str | None:
        """Docker's word for the health check, or None where there is none."""
        found = self.container.attrs["State"].get("Health")
        return str(found["Status"]) if found else None

    @property
    def host_port(self) -> int | None:
        """Where it is published on this machine, whether or not it runs just now."""
        for bindings in (self.container.attrs["HostConfig"]["PortBindings"] or {}).values():
            for binding in bindings or ():
                return int(binding["HostPort"])
        return None

    def setting(self, variable: str) -> str | None:
        """An environment variable that the container was made with."""
        for line in self.container.attrs["Config"]["Env"] or ():
            name, _, value = str(line).partition("=")
            if name == variable:
                return value
        return None

    @property
    def cpus(self) -> float:
        """Its share of CPU while nothing is broken."""
        return float(self.container.labels[_CPUS])

    @property
    def networks(self) -> Mapping[str, str]:
        """Address by full network name, of the networks that it is in now."""
        found = self.container.attrs["NetworkSettings"]["Networks"]
        return {name: str(facts.get("IPAddress") or "") for name, facts in found.items()}

    def read_file(self, path: str) -> bytes | None:
        """A file of the container's, whatever state it is in; None where it cannot be read."""
        try:
            parts, _ = self.container.get_archive(path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
                file = archive.extractfile(archive.next() or path)
                return file.read() if file is not None else None
        except (docker.errors.APIError, KeyError, tarfile.TarError):
            return None

    def reloaded(self) -> Service:
        """The same container, looked at anew."""
        self.container.reload()
        return self


class Project:
    """One compose project on one engine."""

    def __init__(self, directory: Path, name: str | None = None) -> None:
        """``directory`` holds the compose files. Raises NoEngine."""
        self.directory = directory
        self._defaults = _read_env(directory / ".env")
        self.name = name or os.environ.get("COMPOSE_PROJECT_NAME") or self._defaults["COMPOSE_PROJECT_NAME"]
        try:
            self.engine = docker.from_env()
            self.engine.ping()
        except (docker.errors.DockerException, OSError) as error:
            raise NoEngine(
                f"no Docker engine answers ({error}): start it, or say where it is with DOCKER_HOST"
            ) from None

    def services(self, names: Sequence[str] = ()) -> list[Service]:
        """The containers, those named or all, stopped ones too; ZooKeepers first.

        Raises NoProject.
        """
        found = {}
        for container in self.engine.containers.list(
            all=True, filters={"label": [f"{_PROJECT}={self.name}", f"{_ONE_OFF}=False"]}
        ):
            kind = container.labels.get(_KIND)
            if kind is not None:
                name = container.labels[_SERVICE]
                found[name] = Service(name, kind, container)
        if not found:
            raise NoProject(f"there is no compose project {self.name}; start one with: scripts/compose up")
        missing = [name for name in names if name not in found]
        if missing:
            raise NoProject(f"no {missing[0]} in project {self.name}; there are {', '.join(sorted(found))}")
        chosen = [found[name] for name in names] if names else list(found.values())
        return sorted(chosen, key=lambda one: (one.kind == "broker", one.kind == "tools", one.name))

    def brokers(self) -> list[Service]:
        """The brokers' containers, stopped ones too. Raises NoProject."""
        return [service for service in self.services() if service.kind == "broker"]

    def network(self, short: str) -> Any:
        """The SDK's network for a name of the compose file."""
        labels = {"label": [f"{_PROJECT}={self.name}", f"{_NETWORK}={short}"]}
        (found,) = self.engine.networks.list(filters=labels)
        return found

    def overlays(self) -> list[str]:
        """The overlays that the present containers were made with."""
        found: set[str] = set()
        for service in self.services():
            for file in service.container.labels.get(_FILES, "").split(","):
                found.add(Path(file).stem)
        return [one for one in OVERLAYS if one in found]

    def volumes(self) -> list[Any]:
        """The project's volumes."""
        return list(self.engine.volumes.list(filters={"label": f"{_PROJECT}={self.name}"}))

    def compose(self, overlays: Iterable[str], *arguments: str) -> None:
        """Run the compose command with the base file and ``overlays``.

        Raises NoEngine where there is none, ComposeFailed.
        """
        command = [*compose_command(), "-p", self.name]
        for file in (BASE, *(f"{one}.yml" for one in overlays)):
            command += ["-f", str(self.directory / file)]
        done = subprocess.run([*command, *arguments], cwd=self.directory, check=False)
        if done.returncode != 0:
            raise ComposeFailed(
                f"{' '.join(command[:2])} … {' '.join(arguments)} ended with {done.returncode}"
            )

    def image_missing(self) -> str | None:
        """The base image's name, where neither it nor the images made from it are there."""
        made = self._setting("BROKER_IMAGE"), self._setting("ZOOKEEPER_IMAGE")
        base = self._setting("BASE_IMAGE")
        return None if all(map(self._has_image, made)) or self._has_image(base) else base

    def _setting(self, name: str) -> str:
        return os.environ.get(name) or self._defaults[name]

    def _has_image(self, name: str) -> bool:
        try:
            self.engine.images.get(name)
        except docker.errors.ImageNotFound:
            return False
        return True


def compose_command() -> list[str]:
    """`docker compose` where it is installed, else `docker-compose`. Raises NoEngine."""
    if shutil.which("docker"):
        probe = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if probe.returncode == 0:
            return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise NoEngine(
        "there is neither docker compose nor docker-compose (Debian: apt-get install docker-compose)"
    )


def _read_env(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a compose `.env` file."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}
