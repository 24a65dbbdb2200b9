"""Real ZooKeeper servers on this machine: found, configured, launched, stopped.

The software is looked for in ``ZOOKEEPER_HOME`` (an unpacked release of Apache ZooKeeper) and then in
the system's package (Debian and Ubuntu put the jars in ``/usr/share/java``). Each server is a process in a
session of its own, so that it outlives the command that started it and no Ctrl-C meant for that
command reaches it; all that is needed to find it again is its process id.

Every ensemble gets the same timing (``tickTime`` 500 ms, session timeouts from 1 s to 60 s): expiry is
rounded up to a tick, and a small tick alone would cap sessions at 20 ticks. Servers listen on loopback only.
A small heap and the quickest start of the JVM suit a laptop that runs three of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

HOST: Final = "127.0.0.1"
SYSTEM_JAR: Final = Path("/usr/share/java/zookeeper.jar")

HINT: Final = (
    "install it with 'apt-get install zookeeper default-jre-headless' (Debian, Ubuntu), "
    "or unpack a release of Apache ZooKeeper and set ZOOKEEPER_HOME to its directory"
)

JVM_OPTIONS: Final = (
    "-Xms32m",
    "-Xmx128m",
    "-Xshare:auto",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
)

_FOUR_LETTER_WORDS: Final = "ruok,srvr,mntr,dump"
_LOGGING_JARS: Final = ("slf4j-simple.jar",)


class ZooKeeperNotFound(Exception):
    """There is no ZooKeeper, or no Java, on this machine. The message says what to do."""


class Installation(msgspec.Struct, frozen=True):
    """Where ZooKeeper and Java are."""

    java: str
    classpath: tuple[str, ...]
    source: str
    """Where it was found, for people."""


def find_installation(environ: Mapping[str, str]) -> Installation:
    """Find ZooKeeper and Java by ``environ`` (ZOOKEEPER_HOME, JAVA_HOME, PATH).

    Raises :class:`ZooKeeperNotFound`.
    """
    java_home = environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(java_home) / "bin")) if java_home else None
    java = java or shutil.which("java", path=environ.get("PATH"))
    if java is None:
        raise ZooKeeperNotFound(f"no Java found (JAVA_HOME, PATH), which ZooKeeper needs: {HINT}")
    home = environ.get("ZOOKEEPER_HOME")
    if home:
        jars = sorted(Path(home).glob("lib/*.jar")) + sorted(Path(home).glob("*.jar"))
        if not any(jar.name.startswith("zookeeper") for jar in jars):
            raise ZooKeeperNotFound(
                f"ZOOKEEPER_HOME is {home}, where there is no lib/zookeeper-*.jar: {HINT}"
            )
        return Installation(java, tuple(str(jar) for jar in jars), home)
    if SYSTEM_JAR.exists():
        # Its manifest names what it depends on; only a place for the log to go is missing there.
        logging = [jar for name in _LOGGING_JARS if (jar := SYSTEM_JAR.parent / name).exists()]
        return Installation(java, tuple(str(jar) for jar in (SYSTEM_JAR, *logging)), "the system's package")
    raise ZooKeeperNotFound(f"no ZooKeeper found (ZOOKEEPER_HOME, {SYSTEM_JAR}): {HINT}")


def free_ports(count: int, *, host: str = HOST) -> list[int]:
    """Ports on which nothing listens at the moment, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Server(msgspec.Struct, frozen=True):
    """One member of an ensemble: what it is, whether or not it runs."""

    server_id: int
    """Counts from 1."""
    directory: Path
    """Its configuration, data and log."""
    client_port: int
    quorum_port: int
    election_port: int

    @property
    def name(self) -> str:
        return f"zookeeper-{self.server_id}"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.client_port}"

    @property
    def config_file(self) -> Path:
        return self.directory / "zoo.cfg"

    @property
    def log_file(self) -> Path:
        return self.directory / "zookeeper.log"


def configuration(server: Server, ensemble: Sequence[Server]) -> str:
    """The ``zoo.cfg`` of one server."""
    settings = {
        "tickTime": "500",
        "minSessionTimeout": "1000",
        "maxSessionTimeout": "60000",
        "initLimit": "20",
        "syncLimit": "10",
        "dataDir": str(server.directory / "data"),
        "clientPort": str(server.client_port),
        "clientPortAddress": HOST,
        "admin.enableServer": "false",
        "4lw.commands.whitelist": _FOUR_LETTER_WORDS,
        "maxClientCnxns": "0",
        "autopurge.snapRetainCount": "3",
        "autopurge.purgeInterval": "1",
    }
    if len(ensemble) > 1:
        settings |= {
            f"server.{member.server_id}": f"{HOST}:{member.quorum_port}:{member.election_port}"
            for member in ensemble
        }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def write_configuration(server: Server, ensemble: Sequence[Server]) -> None:
    """Put a server's files in place. Existing data stays."""
    (server.directory / "data").mkdir(parents=True, exist_ok=True)
    (server.directory / "data" / "myid").write_text(f"{server.server_id}\n")
    server.config_file.write_text(configuration(server, ensemble))


def command(installation: Installation, server: Server) -> list[str]:
    """The command line that runs ``server``."""
    return [
        installation.java,
        *JVM_OPTIONS,
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
        "-Dzookeeper.jmx.log4j.disable=true",
        # In KiB: a new transaction log takes 1 MB instead of the 64 MB that would be allocated ahead.
        "-Dzookeeper.preAllocSize=1024",
        "-Djava.net.preferIPv4Stack=true",
        "-cp",
        os.pathsep.join((*installation.classpath, str(server.directory))),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(server.config_file),
    ]


def launch(installation: Installation, server: Server) -> subprocess.Popen[bytes]:
    """Start ``server`` as a process in a session of its own. Its configuration must be in place."""
    with server.log_file.open("ab") as log:
        return subprocess.Popen(
            command(installation, server),
            cwd=server.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


async def four_letter_word(server: Server, word: str, *, timeout_s: float = 2.0) -> str:
    """Ask ``server`` one of ZooKeeper's four-letter words. Raises OSError, TimeoutError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(HOST, server.client_port)
        try:
            writer.write(word.encode())
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()


async def mode(server: Server) -> str | None:
    """``standalone``, ``leader`` or ``follower``; None while ``server`` does not serve."""
    try:
        answer = await four_letter_word(server, "srvr")
    except (OSError, TimeoutError):
        return None
    return next((line[6:] for line in answer.splitlines() if line.startswith("Mode: ")), None)
