"""The brokers as seen from this machine: through their published ports, and their journals' files.

Every look asks all brokers anew and takes what comes: one that is dead, paused or cut off is simply
not among those that answered.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from kafkalite.compose.project import Service
from kafkalite.journal import Event
from kafkalite.why import History, read_event

HOST: Final = "127.0.0.1"
_TIMEOUT_S: Final = 2.0
"""A broker that serves answers far sooner, on a busy machine too."""
_NEWEST_BYTES: Final = 8 << 20
"""So much of a journal is read; a fault and its answer are a small part of that."""

DATA: Final = "/var/lib/kafkalite"
"""`log.dirs` in the containers."""


class PartitionView(msgspec.Struct, frozen=True):
    """One partition as the cluster's metadata has it."""

    topic: str
    partition: int
    leader: int
    """-1: none."""
    replicas: tuple[int, ...]
    isr: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.partition}"

    @property
    def is_whole(self) -> bool:
        """It has a leader, and every replica is in the ISR."""
        return self.leader >= 0 and set(self.isr) == set(self.replicas)


class View(msgspec.Struct, frozen=True):
    """What the brokers said at one moment."""

    answering: frozenset[int]
    """Brokers that are RUNNING and answered."""
    controllers: Mapping[int, int]
    """Whom each answering broker holds for the controller; -1: nobody."""
    registered: Mapping[int, frozenset[int]]
    """Which brokers each answering broker knows to be alive."""
    partitions: Mapping[int, tuple[PartitionView, ...]]
    """What each answering broker's metadata says of all partitions."""

    def of(self, brokers: Sequence[int]) -> View:
        """The same moment, by the word of ``brokers`` alone."""
        return View(
            self.answering & frozenset(brokers),
            {id: one for id, one in self.controllers.items() if id in brokers},
            {id: one for id, one in self.registered.items() if id in brokers},
            {id: one for id, one in self.partitions.items() if id in brokers},
        )

    @property
    def controller(self) -> int | None:
        """The controller that all who answered agree on, or None."""
        named = set(self.controllers.values())
        return named.pop() if len(named) == 1 and -1 not in named else None

    @property
    def agreed(self) -> tuple[PartitionView, ...] | None:
        """The partitions, where all who answered say the same of them."""
        said = [sorted(one, key=lambda part: part.name) for one in self.partitions.values()]
        return tuple(said[0]) if said and all(one == said[0] for one in said) else None

    @property
    def broken(self) -> tuple[PartitionView, ...]:
        """Partitions that are not whole, by anybody's word."""
        found = {p.name: p for one in self.partitions.values() for p in one if not p.is_whole}
        return tuple(found[name] for name in sorted(found))


def look(brokers: Sequence[Service]) -> View:
    """Ask every broker for its health and its metadata, at the same time."""
    with ThreadPoolExecutor(max_workers=max(1, len(brokers))) as pool:
        answers = {b.id: one for b, one in zip(brokers, pool.map(_ask, brokers), strict=True) if one}
    return View(
        answering=frozenset(answers),
        controllers={id: int(one["controller_id"]) for id, one in answers.items()},
        registered={id: frozenset(b["node_id"] for b in one["brokers"]) for id, one in answers.items()},
        partitions={id: _partitions(one) for id, one in answers.items()},
    )


def read_history(brokers: Sequence[Service]) -> tuple[History, tuple[int, ...]]:
    """The journals of all brokers as one history, and the brokers whose journal could not be read.

    They are read from the containers' files, through the engine: so the dead, the paused and the cut
    off speak too, and nothing that a restarted broker knew before is missing.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(brokers))) as pool:
        found = dict(zip(brokers, pool.map(_journal, brokers), strict=True))
    history = History([event for events in found.values() for event in events or ()])
    return history, tuple(broker.id for broker, events in found.items() if events is None)


def is_serving(broker: Service, *, timeout_s: float = _TIMEOUT_S) -> bool:
    """Tell whether the broker answers on this machine and is RUNNING."""
    answer = _get(broker, "/v1/health", timeout_s)
    return answer is not None and answer.get("state") == "RUNNING" and answer.get("broker_id") == broker.id


def now_ms() -> int:
    """The wall clock, which the containers share with this machine."""
    return time.time_ns() // 1_000_000


def _ask(broker: Service) -> dict[str, Any] | None:
    if broker.host_port is None or not is_serving(broker):
        return None
    return _get(broker, "/v1/metadata", _TIMEOUT_S)


def _partitions(metadata: Mapping[str, Any]) -> tuple[PartitionView, ...]:
    return tuple(
        PartitionView(
            topic["name"],
            part["partition_index"],
            part["leader_id"],
            tuple(part["replica_nodes"]),
            tuple(sorted(part["isr_nodes"])),
        )
        for topic in metadata["topics"]
        for part in topic["partitions"]
    )


def _journal(broker: Service) -> list[Event] | None:
    """The newest events in the broker's `state-change.log`; None where the engine cannot read it."""
    content = broker.read_file(f"{DATA}/state-change.log")
    if content is None:
        return None
    # What was cut into, at either end, is no whole line.
    lines = content[-_NEWEST_BYTES:].split(b"\n")[1 if len(content) > _NEWEST_BYTES else 0 : -1]
    return [read_event(json.loads(line)) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


def _get(broker: Service, target: str, timeout_s: float) -> dict[str, Any] | None:
    """A JSON answer, or None where there is none."""
    if broker.host_port is None:
        return None
    connection = http.client.HTTPConnection(HOST, broker.host_port, timeout=timeout_s)
    try:
        connection.request("GET", target, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return body if isinstance(body, dict) else None
