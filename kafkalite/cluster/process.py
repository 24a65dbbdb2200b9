"""Processes that outlive the command that started them, and are never mistaken for others.

A pid alone proves nothing: once its process is gone the kernel gives the number to somebody else.
So a process is known by its pid *and* its start time, and it is signalled through a pidfd that was
opened before the start time was compared: what was compared is what gets the signal.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from kafkalite.cluster.layout import write_whole


class Running(enum.Enum):
    """What the kernel says about a process."""

    RUNNING = "running"
    PAUSED = "paused"
    """Stopped by a signal (SIGSTOP), or by a debugger."""
    GONE = "gone"
    """Ended, whether or not somebody has taken note of it yet."""


class ProcessId(msgspec.Struct, frozen=True):
    """One process of this machine's present uptime."""

    pid: int
    start_ticks: int
    """Clock ticks from boot to its start (`/proc/PID/stat`, field 22)."""

    @property
    def running(self) -> Running:
        """Look at the process now."""
        found = _stat(self.pid)
        if found is None or found[1] != self.start_ticks or found[0] in "ZXx":
            return Running.GONE
        return Running.PAUSED if found[0] in "Tt" else Running.RUNNING

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process is gone."""
        with self._descriptor() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until the process has ended; False when it still runs after ``timeout_s``."""
        with self._descriptor() as descriptor:
            if descriptor is None:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            ended = bool(poll.poll(max(0.0, timeout_s) * 1000))
        if ended:
            # Where this very process started it, nobody else can lay it to rest.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return ended

    @contextlib.contextmanager
    def _descriptor(self) -> Iterator[int | None]:
        """A pidfd of exactly this process, or None when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield descriptor if self.running is not Running.GONE else None
        finally:
            os.close(descriptor)


def start(
    command: Sequence[str], *, directory: Path, log: Path, environment: Mapping[str, str] | None = None
) -> ProcessId:
    """Start ``command`` in a session of its own, its output appended to ``log``.

    Raises OSError where it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Neither Ctrl-C nor the end of this terminal reaches it.
        )
    found = _stat(process.pid)
    assert found is not None  # Not waited for yet, so it has an entry even if it ended at once.
    # It is meant to outlive this object; a set return code keeps Popen from minding.
    process.returncode = 0
    return ProcessId(process.pid, found[1])


def remember(process: ProcessId, path: Path) -> None:
    """Note which process that is."""
    write_whole(path, msgspec.json.encode(process))


def recall(path: Path) -> ProcessId | None:
    """Return the noted process if it still lives, else None."""
    try:
        process = msgspec.json.decode(path.read_bytes(), type=ProcessId)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return process if process.running is not Running.GONE else None


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time of ``pid``, or None where there is no such process."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = content[content.rindex(")") + 2 :].split()  # The name before it may hold anything.
    return fields[0], int(fields[19])
