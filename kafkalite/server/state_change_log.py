"""`state-change.log`: the journal as JSON lines, for what has fallen out of the ring.

The journal calls :meth:`StateChangeLog.write` on the loop with each event, so the line goes to a
sink that only appends to the page cache. The log is bounded: when the file would pass
``max_bytes`` it is rotated first, and the sink keeps one older generation.

A sink that fails must not stop the broker from changing its state, and must not fail unseen:
the first fault is logged, and so is the first line written after it, with the number lost.
"""

from __future__ import annotations

import json
import logging
from typing import Final, Protocol

from kafkalite.journal import Event
from kafkalite.log.files import Files

_logger = logging.getLogger(__name__)

MAX_BYTES: Final = 64 << 20


class LineSink(Protocol):
    """Where lines go."""

    def append(self, line: bytes) -> None:
        """Append ``line``, which ends in a newline. Raises OSError."""
        ...

    def rotate(self) -> None:
        """Keep what was written as the older generation and start anew. Raises OSError."""
        ...


class FileSink:
    """Lines in ``path``, the older generation in ``path``.1. Left to the page cache: never fsynced."""

    def __init__(self, files: Files, path: str) -> None:
        """Open ``path``, which is made where it is missing. Raises OSError."""
        self._files = files
        self._path = path
        self._file = files.open(path, create=True)

    @property
    def size(self) -> int:
        """What the file holds, in bytes."""
        return self._file.size()

    def append(self, line: bytes) -> None:
        self._file.append((line,))

    def rotate(self) -> None:
        self._files.rename(self._path, f"{self._path}.1")
        renamed, self._file = self._file, self._files.open(self._path, create=True)
        renamed.close()

    def close(self) -> None:
        """Close the file; nothing may be appended from then on."""
        self._file.close()


class StateChangeLog:
    """Writes each event it is given to a :class:`LineSink`."""

    def __init__(self, sink: LineSink, *, size: int = 0, max_bytes: int = MAX_BYTES) -> None:
        """``size`` is what the file holds already, ``max_bytes`` (exclusive) when it is rotated."""
        self._sink = sink
        self._size = size
        self._max_bytes = max_bytes
        self._lost = 0

    def write(self, event: Event) -> None:
        """Append ``event`` as one line."""
        line = json.dumps(event.to_json(), separators=(",", ":"), default=str).encode() + b"\n"
        try:
            if self._size and self._size + len(line) > self._max_bytes:
                self._sink.rotate()
                self._size = 0
            self._sink.append(line)
        except OSError as error:
            if not self._lost:
                _logger.error("cannot write state-change.log, events are lost from it: %s", error)
            self._lost += 1
            return
        self._size += len(line)
        if self._lost:
            _logger.warning("state-change.log is written again; it lacks %d events", self._lost)
            self._lost = 0
