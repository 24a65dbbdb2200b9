"""Running the project's own scripts, as a user does, against a cluster of their own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
SCRIPTS = CHECKOUT / "scripts"
SHORT_SESSION = "zookeeper.session.timeout.ms=3000"
"""For tests that wait for a dead broker to be noticed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    command: str
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    def json(self) -> Any:
        return json.loads(self.out)


def run(
    *command: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    expect: int | None = 0,
    timeout_s: float = 150,
) -> Ran:
    """Run a script of `scripts/` (by its name) or any command; it must end with ``expect``."""
    first, *arguments = map(str, command)
    path = SCRIPTS / first
    words = [str(path) if path.exists() else first, *arguments]
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    ran = Ran(shlex.join(words), done.returncode, done.stdout, done.stderr.decode(errors="replace"))
    assert expect is None or ran.code == expect, (
        f"{ran.command}\nended with {ran.code}\n{ran.text}\n{ran.err}"
    )
    return ran


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster in a directory of its own, driven by `kafkalite cluster`."""

    directory: Path

    def verb(self, verb: str, *arguments: str, expect: int | None = 0) -> Ran:
        return run("kafkalite", "cluster", verb, *arguments, "--dir", self.directory, expect=expect)

    def status(self, *, expect: int | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self.verb("status", "--output", "json", expect=expect).json()
        return found

    @property
    def bootstrap(self) -> str:
        return str(self.status()["bootstrap_servers"])

    def process(self, name: str) -> dict[str, Any]:
        return next(process for process in self.status()["processes"] if process["name"] == name)
