"""What processes spend, and what they ran on, from the kernel."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    content = Path(f"/proc/{pid}/stat").read_text()
    fields = content[content.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_rss_mb(pid: int) -> float:
    """The most memory that a process has ever held, in million bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def rss_mb(pid: int) -> float:
    """The memory that a process holds now, in million bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load() -> float:
    """Processes that wanted to run, on the average of the last minute: ours and everybody's."""
    return os.getloadavg()[0]


def machine() -> str:
    """What the figures were measured on: a number without it cannot be compared.

    How Python was built is told as it tells it itself. Distributions keep their profile-guided
    builds to themselves, so the executable's path is part of the answer.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = re.findall(r"-O\w", sysconfig.get_config_var("OPT") or "")
    if "--enable-optimizations" in arguments:
        flags.append("--enable-optimizations")
    return (
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()} "
        f"({os.path.realpath(sys.executable)}, {platform.python_compiler()}, {' '.join(flags) or 'no flags'})"
    )
