"""Latencies: collected as they come, told as Kafka's tools tell them."""

from __future__ import annotations

import msgspec


class Summary(msgspec.Struct, frozen=True):
    """All in milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    p999: float
    max: float


class Latencies:
    """Times in milliseconds."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self._told = 0

    def add(self, ms: float) -> None:
        self.all.append(ms)

    def since_last(self) -> tuple[float, float]:
        """Mean and maximum of what came after the last call; zeroes for nothing."""
        fresh = self.all[self._told :]
        self._told = len(self.all)
        return (sum(fresh) / len(fresh), max(fresh)) if fresh else (0.0, 0.0)

    def summary(self) -> Summary:
        """Of everything; the percentiles are values that occurred."""
        found = sorted(self.all)
        count = len(found)
        if not count:
            return Summary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

        def at(part: float) -> float:
            return found[min(int(part * count), count - 1)]

        return Summary(count, sum(found) / count, at(0.5), at(0.95), at(0.99), at(0.999), found[-1])
