"""The rows of the benchmark: LinkedIn's table of 2014 first, then what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One client process."""

    do: str
    """`produce`, `consume` or `latency`."""
    bulk: bool = False
    """`send_many` and `getcolumns`, instead of a call or an object for each record."""
    counts: bool = True
    """Whether the row's figure is this client's, too; a flood is only there to disturb."""
    rate: float | None = None
    """Records a second; else as many as go, and where latency is measured, one after the other."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: a topic, and the clients that use it at the same time."""

    name: str
    title: str
    roles: tuple[Role, ...]
    acks: str = "1"
    replicas: int = 3
    partitions: int = 6
    record_size: int = 100
    batch_size: int = 1_000_000
    """Bytes; by default near the most that a broker takes (message.max.bytes)."""
    compression: str = "none"
    filled: bool = False
    """The records to read are in the topic before the clock starts."""
    linger_ms: float = 5
    aim: float | None = None
    """Records a second; milliseconds (mean) for latency."""
    linkedin: float | None = None
    """The same on six machines in 2014."""
    share: float = 1.0
    """Of the benchmark's number of records; rows of large or slow records take fewer."""

    @property
    def is_flooded(self) -> bool:
        """Whether one of the clients is only there to disturb."""
        return not all(role.counts for role in self.roles)


PRODUCE: Final = Role(do="produce")
SEND_MANY: Final = Role(do="produce", bulk=True)
OBJECTS: Final = Role(do="consume")
COLUMNS: Final = Role(do="consume", bulk=True)
LATENCY: Final = Role(do="latency")
LATENCY_AT_A_RATE: Final = Role(do="latency", rate=1000)
FLOOD: Final = Role(do="produce", bulk=True, counts=False)
FLOOD_BATCH_SIZE: Final = 65_536

TABLE: Final[Sequence[Row]] = (
    Row(
        name="produce-1x",
        title="one producer, no replication, acks=1",
        roles=(PRODUCE,),
        replicas=1,
        aim=2.5e6,
        linkedin=821_557,
    ),
    Row(
        name="send-many-1x",
        title="the same with send_many",
        roles=(SEND_MANY,),
        replicas=1,
        aim=5e6,
        linkedin=821_557,
    ),
    Row(
        name="produce-3x",
        title="one producer, 3x replication, acks=1",
        roles=(PRODUCE,),
        aim=2e6,
        linkedin=786_980,
    ),
    Row(
        name="send-many-3x",
        title="the same with send_many",
        roles=(SEND_MANY,),
        linkedin=786_980,
    ),
    Row(
        name="produce-3x-all",
        title="one producer, 3x replication, acks=all",
        roles=(PRODUCE,),
        acks="all",
        aim=2e6,
        linkedin=421_823,
    ),
    Row(
        name="send-many-3x-all",
        title="the same with send_many",
        roles=(SEND_MANY,),
        acks="all",
        aim=4e6,
        linkedin=421_823,
    ),
    Row(
        name="3-producers-3x",
        title="three producers, 3x replication, acks=1",
        roles=(PRODUCE,) * 3,
        aim=2.5e6,
        linkedin=2_024_032,
    ),
    Row(
        name="3-send-many-3x",
        title="the same with send_many",
        roles=(SEND_MANY,) * 3,
        linkedin=2_024_032,
    ),
    Row(
        name="consume-objects",
        title="one consumer, objects",
        roles=(OBJECTS,),
        filled=True,
        aim=4.5e6,
        linkedin=940_521,
    ),
    Row(
        name="consume-columns",
        title="one consumer, columns",
        roles=(COLUMNS,),
        filled=True,
        aim=10e6,
        linkedin=940_521,
    ),
    Row(
        name="3-consumers",
        title="three consumers, columns",
        roles=(COLUMNS,) * 3,
        filled=True,
        aim=12e6,
        linkedin=2_615_968,
    ),
    Row(
        name="both",
        title="producer and consumer together, 3x, acks=1 (each)",
        roles=(PRODUCE, COLUMNS),
        aim=1.3e6,
        linkedin=795_064,
    ),
    Row(
        name="latency",
        title="end-to-end latency, 3x, acks=all, one record after the other",
        roles=(LATENCY,),
        acks="all",
        linger_ms=0,
        aim=0.5,
        linkedin=2,
    ),
    Row(
        name="latency-1000",
        title="the same at 1000 records/s",
        roles=(LATENCY_AT_A_RATE,),
        acks="all",
        linger_ms=0,
        aim=0.5,
    ),
    Row(
        name="latency-flooded",
        title="one record after the other while another producer floods",
        roles=(LATENCY, FLOOD),
        acks="all",
        linger_ms=0,
        batch_size=FLOOD_BATCH_SIZE,
        aim=1.5,
        share=0.1,
    ),
    Row(
        name="latency-1000-flooded",
        title="at 1000 records/s while another producer floods",
        roles=(LATENCY_AT_A_RATE, FLOOD),
        acks="all",
        linger_ms=0,
        batch_size=FLOOD_BATCH_SIZE,
    ),
)


def _size(size: int) -> Row:
    return Row(
        name=f"size-{size}",
        title=f"one producer, 3x, acks=all, {size:,}-byte records",
        roles=(PRODUCE,),
        acks="all",
        record_size=size,
        share=min(1.0, 100 / size),
    )


def _variant(name: str, title: str, **changes: Any) -> Row:
    return Row(
        name=name, title=f"one producer, 3x, acks=all, {title}", roles=(PRODUCE,), acks="all", **changes
    )


EXTRA: Final[Sequence[Row]] = (
    *(_size(size) for size in (10, 1_000, 10_000, 100_000)),
    *(_variant(f"{codec}", codec, compression=codec) for codec in ("gzip", "snappy", "lz4", "zstd")),
    *(_variant(f"partitions-{n}", f"{n:,} partitions", partitions=n) for n in (1, 10, 100, 1000)),
    *(
        Row(
            name=f"producers-{n}",
            title=f"{n} producers, 3x, acks=all",
            roles=(PRODUCE,) * n,
            acks="all",
        )
        for n in (8, 64)
    ),
    *(
        _variant(f"batch-{size // 1024}k", f"batches of {size // 1024} KiB", batch_size=size)
        for size in (8_192, 65_536, 262_144, 1_000_000)
    ),
)
ROWS: Final[Mapping[str, Row]] = MappingProxyType({row.name: row for row in (*TABLE, *EXTRA)})
