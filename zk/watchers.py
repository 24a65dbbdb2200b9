"""Watching for good, on top of ZooKeeper's one-shot watches.

A one-shot watch says that something changed, not what, and may be lost with a connection. So every
round reads anew with a fresh watch, compares with what was seen before, and only then tells. Changes that
follow each other quickly may be told as one; the last state is never missed. A loss of the
connection is no event of its own: the reconnect starts a round, which tells only what differs.

Each function here is an asynchronous iterator without end: the task that iterates owns the watching, and
cancelling it ends it. Once the session is over SessionExpired is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from zk import paths
from zk.client import ConnectionLoss, NoNode, SessionState, Stat, WatchCallback, WatchEvent, ZooKeeper

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Znode:
    """A znode as it is now."""

    data: bytes
    stat: Stat


async def follow_node(zk: ZooKeeper, path: str) -> AsyncIterator[Znode | None]:
    """Yield the znode as it is, then as it is after each change; None while it does not exist.

    A znode that was deleted and created again is a change, whatever its data.
    """

    async def read(watch: WatchCallback) -> Znode | None:
        while True:
            try:
                return Znode(*await zk.get(path, watch=watch))
            except NoNode:
                if await zk.exists(path, watch=watch) is None:
                    return None

    def identity(znode: Znode | None) -> object:
        return None if znode is None else (znode.stat.czxid, znode.stat.mzxid)

    async for znode in _follow(zk, read, identity):
        yield znode


async def follow_children(zk: ZooKeeper, path: str) -> AsyncIterator[tuple[str, ...]]:
    """Yield the sorted names below ``path``, and again after each change; none while it does not exist."""

    async def read(watch: WatchCallback) -> tuple[str, ...]:
        while True:
            try:
                return tuple(sorted(await zk.children(path, watch=watch)))
            except NoNode:
                if await zk.exists(path, watch=watch) is None:
                    return ()

    async for names in _follow(zk, read, lambda names: names):
        yield names


async def follow_sequence(zk: ZooKeeper, parent: str) -> AsyncIterator[list[str]]:
    """Yield the paths of the sequential children of ``parent``, each once, in their order.

    The first round yields all that are there; a later one those with a higher number than any before.
    Children without a number are passed over. This is how config, ACL and token changes are heard of.
    """
    latest = -1
    async for names in follow_children(zk, parent):
        numbered = []
        for name in names:
            try:
                numbered.append((paths.sequence_number(name), name))
            except ValueError:
                continue  # Put there by hand; it announces nothing.
        fresh = sorted(pair for pair in numbered if pair[0] > latest)
        if fresh:
            latest = fresh[-1][0]
            yield [f"{parent}/{name}" for _, name in fresh]


async def purge_sequence(zk: ZooKeeper, parent: str, *, created_before_ms: int) -> int:
    """Delete the children of ``parent`` created before that wall time; return how many were deleted.

    Every listener does so after a round, for whoever starts later reads the full state anyway.
    """
    purged = 0
    for name in sorted(await zk.children(parent)):
        path = f"{parent}/{name}"
        stat = await zk.exists(path)
        if stat is not None and stat.ctime_ms < created_before_ms:
            try:
                await zk.delete(path)
                purged += 1
            except (NoNode, ConnectionLoss):
                continue  # Another broker was faster, or the next round does it.
    return purged


async def _follow(
    zk: ZooKeeper, read: Callable[[WatchCallback], Awaitable[T]], identity: Callable[[T], object]
) -> AsyncIterator[T]:
    woken = asyncio.Event()

    def wake(path: str, event: WatchEvent) -> None:
        woken.set()

    def ended(state: SessionState) -> None:
        if state in (SessionState.EXPIRED, SessionState.CLOSED):
            woken.set()  # No watch fires any more; the next read raises.

    zk.on_state(ended)
    first, seen = True, object()
    while True:
        woken.clear()
        try:
            found = await read(wake)
        except ConnectionLoss:
            continue
        if first or identity(found) != seen:
            first, seen = False, identity(found)
            yield found
        await woken.wait()
