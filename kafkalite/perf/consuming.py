"""What `kafka-consumer-perf-test` measures: how fast records are read."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import msgspec

from kafkalite.client.consumer import Consumer
from kafkalite.common import TopicPartition
from kafkalite.perf.load import Stream

_MOST_AT_ONCE: Final = 5000
"""Some two batches: what is let go of before it has left the processor's cache costs less."""


class Consumed(msgspec.Struct, frozen=True):
    """What came of a run, or of a stretch of it."""

    records: int
    bytes: int
    """Of keys and values."""
    seconds: float
    began: float
    """Monotonic seconds of this machine."""
    ended: float
    cpu_s: float
    """Of this process."""
    join_s: float
    """From the start to the first answer: finding partitions and positions."""
    streams: dict[int, int] = {}
    """The checksum of each partition's values in their order (:class:`~.load.Stream`)."""


class WrongCount(Exception):
    """The records read are not those between the positions before and after."""


async def consume(
    consumer: Consumer,
    records: int,
    *,
    timeout_s: float,
    columns: bool = True,
    tell: Callable[[Consumed], None] = lambda so_far: None,
    report_every_s: float = 5.0,
) -> Consumed:
    """Read ``records`` records, or until none came for ``timeout_s``.

    As columns, or (``columns`` False) as objects, of one topic. Each batch's checksum is checked by
    ``consumer``; that nothing was left out or repeated is checked here. Raises WrongCount.
    """
    count = 0
    streams: defaultdict[int, Stream] = defaultdict(Stream)
    first: dict[TopicPartition, int] = {}
    clock = time.perf_counter
    cpu = time.process_time()
    began_monotonic = time.monotonic()
    began = last_found = last_told = clock()
    joined = None

    def so_far(now: float) -> Consumed:
        return Consumed(
            records=count,
            bytes=sum(stream.bytes for stream in streams.values()),
            seconds=now - began,
            began=began_monotonic,
            ended=began_monotonic + now - began,
            cpu_s=time.process_time() - cpu,
            join_s=(joined if joined is not None else now) - began,
            streams={partition: stream.crc for partition, stream in sorted(streams.items())},
        )

    while count < records:
        now = clock()
        if now - last_told >= report_every_s:
            tell(so_far(now))
            last_told = now
        most = min(_MOST_AT_ONCE, records - count)
        before = count
        if columns:
            for tp, part in (await consumer.getcolumns(timeout_ms=100, max_records=most)).items():
                first.setdefault(tp, part.offsets[0])
                count += len(part)
                streams[tp.partition].take(part.values, part.keys)
        else:
            for tp, found in (await consumer.getmany(timeout_ms=100, max_records=most)).items():
                first.setdefault(tp, found[0].offset)
                count += len(found)
                values = [record.value for record in found]
                streams[tp.partition].take(values, [record.key for record in found])
        if count > before:
            last_found = clock()
            if joined is None:
                joined = last_found
        elif clock() - last_found > timeout_s:
            break
    done = so_far(last_found if count else clock())
    read = sum([await consumer.position(tp) - offset for tp, offset in first.items()])
    if read < count:  # More offsets than records there may be: compaction takes records out.
        raise WrongCount(f"{count} records were read, but the positions moved by {read}")
    return done
