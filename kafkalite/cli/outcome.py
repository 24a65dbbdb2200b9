"""How commands end: one exit code for each kind of outcome, the same everywhere (CONTRACTS section 6)."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Frozen: scripts of users depend on these numbers."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    ALREADY_EXISTS = 4
    TIMED_OUT = 5
    REFUSED = 6
    NO_CONNECTION = 7
    NOT_AUTHORISED = 8
    UNHEALTHY = 10
    INTERRUPTED = 130


class Failed(Exception):
    """A command that did not do what it was asked to. The message is for people; it may be empty."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code
