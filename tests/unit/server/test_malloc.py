"""Setting up the process; in a process of its own, because it is for good."""

import platform
import subprocess
import sys


def test_a_process_is_tuned() -> None:
    script = (
        "import gc\n"
        "from kafkalite.server.malloc import tune_malloc, tune_process\n"
        "tune_process()\n"
        "print(gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 0, tune_malloc())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    enabled, threshold, frozen, tuned = done.stdout.split()
    assert (enabled, threshold, frozen) == ("True", "50000", "True")
    assert tuned == str(_is_glibc())


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
