"""The words that every part of kafkalite shares. Knows nobody; all may import it.

Four different numbers fence four different things, so each has a type of its own: a
*controller epoch* fences deposed controllers, a *broker epoch* (the czxid of the broker's
registration) one life of a broker from the next, a *leader epoch* one leadership of a
partition from the next, and a *partition epoch* (the version of the partition's state
znode) one leadership-and-ISR decision from the next.
"""

from __future__ import annotations

import base64
import binascii
import random
from dataclasses import dataclass
from typing import Final, NamedTuple, NewType

import msgspec

BrokerId = NewType("BrokerId", int)
ControllerEpoch = NewType("ControllerEpoch", int)
BrokerEpoch = NewType("BrokerEpoch", int)
LeaderEpoch = NewType("LeaderEpoch", int)
PartitionEpoch = NewType("PartitionEpoch", int)

Uuid = NewType("Uuid", str)
"""A topic, cluster or directory id: 22 characters of unpadded base64url."""

ZERO_UUID: Final = Uuid("AAAAAAAAAAAAAAAAAAAAAA")
"""No id (16 zero bytes)."""

NO_BROKER: Final = BrokerId(-1)
NO_LEADER: Final = BrokerId(-1)
LEADER_DURING_DELETE: Final = BrokerId(-2)
UNKNOWN_BROKER_EPOCH: Final = BrokerEpoch(-1)
UNKNOWN_LEADER_EPOCH: Final = LeaderEpoch(-1)
UNKNOWN_OFFSET: Final = -1

CONSUMER_OFFSETS: Final = "__consumer_offsets"
"""The topic in which group coordinators keep groups and their offsets."""
INTERNAL_TOPICS: Final = frozenset({CONSUMER_OFFSETS, "__transaction_state"})
"""The topics that only brokers write to."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Address(NamedTuple):
    """Where a TCP connection goes."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Endpoint(NamedTuple):
    """One advertised listener of a broker: `LISTENER://host:port`."""

    listener: str
    host: str
    port: int
    security_protocol: str = "PLAINTEXT"

    @property
    def address(self) -> Address:
        return Address(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.listener}://{Address(self.host, self.port)}"


class BrokerInfo(msgspec.Struct, frozen=True):
    """A live broker as it registered itself."""

    broker_id: BrokerId
    epoch: BrokerEpoch
    endpoints: tuple[Endpoint, ...]
    rack: str | None = None

    def endpoint(self, listener: str) -> Endpoint | None:
        """Return the endpoint of ``listener``, or None where this broker has none."""
        return next((e for e in self.endpoints if e.listener == listener), None)


@dataclass(frozen=True, slots=True)
class LeaderAndIsr:
    """Who leads a partition and who is in sync: the content of its state znode."""

    leader: BrokerId
    leader_epoch: LeaderEpoch
    isr: tuple[BrokerId, ...]
    controller_epoch: ControllerEpoch
    partition_epoch: PartitionEpoch
    """The znode's version: what a conditional write must expect."""
    leader_recovery_state: int = 0
    """0 recovered; 1 recovering, after an unclean election."""


def new_uuid(chance: random.Random) -> Uuid:
    """Draw a random id: 16 bytes (version 4), never the zero id nor one that begins with a dash."""
    while True:
        bits = (chance.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
        text = Uuid(base64.urlsafe_b64encode(bits.to_bytes(16, "big")).rstrip(b"=").decode())
        if not text.startswith("-"):  # A leading dash would read as an option on a command line.
            return text


def is_uuid(text: str) -> bool:
    """Tell whether ``text`` is an id: 22 characters of base64url that stand for 16 bytes."""
    try:
        return len(text) == 22 and len(base64.urlsafe_b64decode(text + "==")) == 16
    except (binascii.Error, ValueError):
        return False
