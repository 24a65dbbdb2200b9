"""What the brokers of a local cluster wrote down: their state-change logs and their loss receipts.

Dead brokers speak through these files. They are read while brokers write them, and after crashes,
so a last line may be cut off: what is no whole line is left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafkalite.cluster.launcher import Cluster
from kafkalite.journal import Event
from kafkalite.log.loss_receipts import LOSS_RECEIPTS
from kafkalite.why import History, Receipt, read_event, read_receipt

STATE_CHANGE_LOG = "state-change.log"


def read_journals(cluster: Cluster) -> History:
    """All events and receipts in the brokers' directories. Raises OSError."""
    events: list[Event] = []
    receipts: list[Receipt] = []
    for node in cluster.layout.brokers:
        data = cluster.directory / node.name / "data"
        for name in (f"{STATE_CHANGE_LOG}.1", STATE_CHANGE_LOG):
            events += [read_event(body) for body in _lines(data / name)]
        receipts += [read_receipt(node.id, body) for body in _lines(data / LOSS_RECEIPTS)]
    return History(events, receipts)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file of JSON lines; none where there is no file."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
