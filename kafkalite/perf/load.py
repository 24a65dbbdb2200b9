"""Records to send, their checksum, and when each of them is due."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, cast

from crc32c import crc32c

POOL: Final = 10_000
"""Different records that are sent over and over: making them is not what is measured."""
SEED: Final = 20_110_106


def checksum(values: Iterable[bytes]) -> int:
    """The sum of the CRC-32s: their order does not matter, so it holds across partitions."""
    return sum(map(zlib.crc32, values))


class Stream:
    """What came of one partition: how many bytes, and a checksum of the values one after the other.

    For what is timed: one CRC-32C over many values costs a tenth of a CRC-32 for each. Unlike
    :func:`checksum` it knows nothing of where one value ends, and depends on their order.
    """

    __slots__ = ("bytes", "crc")

    def __init__(self) -> None:
        self.bytes = 0
        """Of keys and values."""
        self.crc = 0
        """Of the values, without those that are None."""

    def take(self, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None) -> None:
        """Add consecutive records."""
        joined = _joined(values)
        self.crc = crc32c(joined, self.crc)
        self.bytes += len(joined)
        if keys is not None and keys.count(None) < len(keys):
            self.bytes += len(_joined(keys))


def _joined(column: Sequence[bytes | None]) -> bytes:
    try:
        return b"".join(cast("Sequence[bytes]", column))  # Not a step of Python a record.
    except TypeError:
        return b"".join(filter(None, column))


class Payloads(Protocol):
    """An endless sequence of values."""

    def slice(self, start: int, count: int) -> Sequence[bytes]:
        """Up to ``count`` values from number ``start`` on, at least one."""
        ...

    def checksum(self, count: int) -> int:
        """That of the first ``count`` values."""
        ...

    def size(self, count: int) -> int:
        """The bytes of the first ``count`` values together."""
        ...


class Pooled:
    """Some values, over and over."""

    def __init__(self, pool: Sequence[bytes]) -> None:
        """``pool`` has at least one value."""
        self._pool = pool

    @classmethod
    def random(cls, size: int) -> Pooled:
        """Values of ``size`` random bytes, the same in every run; fewer of them where they are large."""
        chance = random.Random(SEED)
        return cls([chance.randbytes(size) for _ in range(max(100, min(POOL, 20_000_000 // max(size, 1))))])

    def slice(self, start: int, count: int) -> Sequence[bytes]:
        place = start % len(self._pool)
        return self._pool[place : place + count]

    def checksum(self, count: int) -> int:
        whole, rest = divmod(count, len(self._pool))
        sums = [zlib.crc32(value) for value in self._pool]
        return whole * sum(sums) + sum(sums[:rest])

    def size(self, count: int) -> int:
        whole, rest = divmod(count, len(self._pool))
        return whole * sum(map(len, self._pool)) + sum(map(len, self._pool[:rest]))


class Monotonic:
    """The numbers 0, 1, 2, … as text."""

    def slice(self, start: int, count: int) -> Sequence[bytes]:
        return [b"%d" % number for number in range(start, start + count)]

    def checksum(self, count: int) -> int:
        return checksum(b"%d" % number for number in range(count))

    def size(self, count: int) -> int:
        return sum(len(b"%d" % number) for number in range(count))


class Schedule:
    """When each record is due: number i at ``began + i / rate`` seconds, or at once without a rate."""

    def __init__(self, began: float, rate: float | None) -> None:
        self._began = began
        self._rate = rate

    def due(self, sent: int, now: float, most: int) -> int:
        """How many records after the first ``sent`` are due by ``now``, at most ``most``."""
        if self._rate is None:
            return most
        return max(0, min(most, int((now - self._began) * self._rate) + 1 - sent))

    def at(self, number: int, now: float) -> float:
        """When record ``number`` was to be sent; ``now`` where that is at once."""
        return now if self._rate is None else self._began + number / self._rate
