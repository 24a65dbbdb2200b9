"""What watching for good tells, on any :class:`zk.client.ZooKeeper`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from tests.support.zookeeper import TIMEOUT_S, Harness
from zk.client import SessionExpired
from zk.watchers import Znode, follow_children, follow_node, follow_sequence, purge_sequence

T = TypeVar("T")


async def following(changes: AsyncIterator[T]) -> T:
    async with asyncio.timeout(TIMEOUT_S):
        return await anext(changes)


def data(znode: Znode | None) -> bytes | None:
    return None if znode is None else znode.data


class WatchersContract:
    async def test_a_node_is_followed_from_absence_to_absence(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        changes = follow_node(client, "/a")
        assert await following(changes) is None
        await other.create("/a", b"1")
        assert data(await following(changes)) == b"1"
        await other.set("/a", b"2")
        assert data(await following(changes)) == b"2"
        await other.delete("/a")
        assert await following(changes) is None
        await other.create("/a", b"3")
        assert data(await following(changes)) == b"3"

    async def test_a_node_made_anew_is_a_change(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a", b"same")
        changes = follow_node(client, "/a")
        first = await following(changes)
        await client.delete("/a")
        await client.create("/a", b"same")
        second = await following(changes)
        assert first is not None
        assert second is not None
        assert second.stat.czxid > first.stat.czxid

    async def test_a_change_missed_while_away_is_told_at_the_reconnect(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        await client.create("/a", b"before")
        node, children = follow_node(client, "/a"), follow_children(client, "/a")
        assert data(await following(node)) == b"before"
        assert await following(children) == ()
        next_node = asyncio.create_task(following(node))
        next_children = asyncio.create_task(following(children))
        await client.sync()
        await harness.suspend(client)
        await other.set("/a", b"after")
        await other.create("/a/b")
        await harness.resume(client)
        assert data(await next_node) == b"after"
        assert await next_children == ("b",)

    async def test_a_reconnect_without_a_change_tells_nothing(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a", b"1")
        changes = follow_node(client, "/a")
        await following(changes)
        following_one = asyncio.create_task(following(changes))
        await client.sync()
        await harness.suspend(client)
        await harness.resume(client)
        await client.sync()
        await client.set("/a", b"2")
        assert data(await following_one) == b"2"

    async def test_children_are_followed(self, harness: Harness) -> None:
        client = await harness.connect()
        changes = follow_children(client, "/a")
        assert await following(changes) == ()
        await client.create("/a")
        await client.create("/a/y")
        while (names := await following(changes)) != ("y",):
            assert names == ()
        await client.create("/a/x")
        assert await following(changes) == ("x", "y")

    async def test_a_sequence_is_told_once_and_in_order(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/q")
        await client.create("/q/by-hand")
        first = [await client.create("/q/n_", sequential=True) for _ in range(3)]
        changes = follow_sequence(client, "/q")
        assert await following(changes) == first
        await client.delete(first[0])
        later = await client.create("/q/n_", sequential=True)
        assert await following(changes) == [later]

    async def test_old_notifications_are_purged(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/q")
        for _ in range(2):
            last = await client.create("/q/n_", sequential=True)
        stat = await client.exists(last)
        assert stat is not None
        assert await purge_sequence(client, "/q", created_before_ms=stat.ctime_ms - 60_000) == 0
        assert await purge_sequence(client, "/q", created_before_ms=stat.ctime_ms + 1) == 2
        assert await client.children("/q") == []

    async def test_the_end_of_the_session_ends_it(self, harness: Harness) -> None:
        client = await harness.connect()
        changes = follow_node(client, "/a")
        await following(changes)
        waiting = asyncio.create_task(following(changes))
        await client.sync()
        await harness.expire(client)
        with pytest.raises(SessionExpired):
            await waiting
