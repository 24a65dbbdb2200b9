"""One log directory: online until its first failed operation, offline ever after.

A disk that failed one write cannot be trusted with the next, so a failed or short write, fsync or
rename takes the whole directory offline *before* anything else is served from it. Its logs then
refuse everything, the broker tells the controller, and only a restart brings it back.

Belongs to the loop: work done in threads lets its ``OSError`` come back here through the await.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kafkalite.log.files import Files
from kafkalite.protocol.errors import KafkaStorageError


class LogDirFailed(KafkaStorageError):
    """This very operation failed on the disk, and its log directory has just gone offline."""


class LogDir:
    """The state of one log directory."""

    def __init__(self, path: str, files: Files, on_failure: Callable[[LogDir], None]) -> None:
        """``on_failure`` is called once, synchronously, after the directory went offline."""
        self.path = path
        self.files = files
        self.failure: str | None = None
        """Why the directory is offline; None while it is online."""
        self._on_failure = on_failure

    @property
    def is_online(self) -> bool:
        return self.failure is None

    def join(self, *names: str) -> str:
        """The path of something in this directory."""
        return os.path.join(self.path, *names)

    def check_online(self) -> None:
        """Raise KafkaStorageError where this directory is offline."""
        if self.failure is not None:
            raise KafkaStorageError(f"log directory {self.path} is offline: {self.failure}")

    def failed(self, error: OSError, doing: str) -> LogDirFailed:
        """Take the directory offline and return what the caller must raise.

        A further failure of an offline directory changes nothing.
        """
        reason = f"{doing}: {error}"
        if self.failure is None:
            self.failure = reason
            self._on_failure(self)
        return LogDirFailed(f"log directory {self.path} failed: {reason}")
