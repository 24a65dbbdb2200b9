"""How busy the clients are: dense traffic around faults, little in between, next to none in a lull.

What a record costs to simulate is the same whenever it is written; what it proves is not. A record in
flight while something breaks, or is mended, is worth a hundred written into a quiet cluster.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

DENSE_S: Final = 1.0
"""So long after a fault begins, or ends, the traffic is dense."""
AT_ONCE_S: Final = 0.03
"""So close to each other, now and then, are the beginning of a fault and a record."""
THIN: Final = 0.1
"""Part of a producer's rate that it keeps between dense moments."""
LULL: Final = 0.02
"""Part that it keeps in a lull."""


class Pace:
    """Told of faults by the nemesis, asked by the clients."""

    def __init__(self) -> None:
        self.is_lull = False
        self._dense_until = 0.0
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """Something is about to happen, or has just happened."""
        self._dense_until = asyncio.get_running_loop().time() + DENSE_S
        self._stirred.set()
        self._stirred = asyncio.Event()

    @property
    def share(self) -> float:
        """The part of their full rate at which producers write now."""
        if asyncio.get_running_loop().time() < self._dense_until:
            return 1.0
        return LULL if self.is_lull else THIN

    async def wait(self, chance: random.Random, rate: float) -> None:
        """Wait for the next moment to write, for a producer of ``rate`` records a second at full pace."""
        stirred = self._stirred
        try:
            async with asyncio.timeout(chance.expovariate(rate * self.share)):
                await stirred.wait()
        except TimeoutError:
            return
        # Many write while it happens: with records in flight a fault has more to break.
        await asyncio.sleep(chance.choice([chance.uniform(0.0, AT_ONCE_S), chance.expovariate(rate)]))
