"""What every :class:`zk.client.ZooKeeper` does, real or simulated: one suite holds both to it.

A test module subclasses :class:`ZooKeeperContract` and provides the fixture ``harness`` (a
:class:`tests.support.zookeeper.Harness`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.support.zookeeper import TIMEOUT_S, Harness, Told, reached
from zk.client import (
    BadVersion,
    Check,
    ConnectionLoss,
    Create,
    Delete,
    MultiFailed,
    NodeExists,
    NoNode,
    NotEmpty,
    Op,
    SessionExpired,
    SessionState,
    SetData,
    Stat,
    WatchEvent,
    ZooKeeper,
    ZooKeeperError,
)


async def fenced(client: ZooKeeper) -> None:
    """Pass over whatever was on its way: an answer means that all before it was delivered."""
    await client.sync()
    await client.exists("/")


class ZooKeeperContract:
    """Single operations, versions, multis, watches, ephemerals, loss of connection and session."""

    # ------------------------------------------------------------------------ operations

    async def test_a_znode_is_created_read_changed_and_deleted(self, harness: Harness) -> None:
        client = await harness.connect()
        assert await client.create("/a", b"one") == "/a"
        data, stat = await client.get("/a")
        assert (data, stat.version, stat.ephemeral_owner, stat.data_length) == (b"one", 0, 0, 3)
        assert stat.czxid == stat.mzxid
        changed = await client.set("/a", b"two")
        assert (changed.version, changed.czxid) == (1, stat.czxid)
        assert changed.mzxid > stat.mzxid
        assert await client.get("/a") == (b"two", changed)
        assert await client.exists("/a") == changed
        await client.delete("/a")
        assert await client.exists("/a") is None

    async def test_a_recreated_znode_has_a_later_czxid_and_version_0_again(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        first = await client.set("/a", b"x")
        await client.delete("/a")
        await client.create("/a")
        second = await client.exists("/a")
        assert second is not None
        assert second.czxid > first.mzxid
        assert second.version == 0

    async def test_what_is_missing_or_in_the_way_is_told(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        await client.create("/a/b")
        with pytest.raises(NodeExists):
            await client.create("/a")
        with pytest.raises(NoNode):
            await client.create("/missing/child")
        for attempt in (
            client.get("/no"),
            client.children("/no"),
            client.set("/no", b""),
            client.delete("/no"),
        ):
            with pytest.raises(NoNode):
                await attempt
        with pytest.raises(NotEmpty):
            await client.delete("/a")

    async def test_an_expected_version_is_checked(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        await client.set("/a", b"1", version=0)
        with pytest.raises(BadVersion):
            await client.set("/a", b"2", version=0)
        with pytest.raises(BadVersion):
            await client.delete("/a", version=0)
        assert (await client.get("/a"))[0] == b"1"
        await client.delete("/a", version=1)

    async def test_children_are_names(self, harness: Harness) -> None:
        client = await harness.connect()
        for path in ("/a", "/a/x", "/a/y", "/a/y/z"):
            await client.create(path)
        assert sorted(await client.children("/a")) == ["x", "y"]
        stat = await client.exists("/a")
        assert stat is not None
        assert stat.num_children == 2
        assert sorted(await client.children("/")) == ["a"]

    async def test_sequential_names_rise_and_are_never_used_again(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/q")
        first = await client.create("/q/n_", b"1", sequential=True)
        assert first == "/q/n_0000000000"
        await client.delete(first)
        assert await client.create("/q/n_", b"2", sequential=True) == "/q/n_0000000001"

    async def test_operations_take_effect_in_the_order_of_their_submission(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        stats = await asyncio.gather(*(client.set("/a", b"%d" % n, version=n) for n in range(100)))
        assert [stat.version for stat in stats] == list(range(1, 101))
        assert (await client.get("/a"))[0] == b"99"

    async def test_a_cancelled_operation_leaves_the_session_in_order(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        tasks = [asyncio.create_task(client.set("/a", b"%d" % n)) for n in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, Stat) for outcome in done[1::2])
        assert (await client.get("/a"))[0] == b"49"

    async def test_two_clients_see_one_tree(self, harness: Harness) -> None:
        one, other = await harness.connect(), await harness.connect()
        assert one.session_id != other.session_id
        await one.create("/a", b"x")
        await other.sync()
        assert (await other.get("/a"))[0] == b"x"

    # ----------------------------------------------------------------------------- multi

    async def test_a_multi_does_all(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        await client.create("/gone")
        results = await client.multi(
            [
                Check("/a", 0),
                Create("/b", b"new"),
                SetData("/b", b"newer", 0),
                SetData("/a", b"x", 0),
                Create("/a/n_", sequential=True),
                Delete("/gone"),
            ]
        )
        assert results[0] is None
        assert results[1] == "/b"
        assert isinstance(results[2], Stat)
        assert results[2].version == 1
        assert isinstance(results[3], Stat)
        assert results[4] == "/a/n_0000000000"
        assert results[5] is None
        # One transaction: all of it has one zxid.
        assert results[2].czxid == results[2].mzxid == results[3].mzxid
        assert await client.exists("/gone") is None

    @pytest.mark.parametrize(
        ("operations", "index", "error"),
        [
            ([Create("/b"), Check("/a", 7), Delete("/a")], 1, BadVersion),
            ([Check("/a", 1), Create("/b")], 0, BadVersion),
            ([Create("/b"), SetData("/a", b"x", 0), Create("/c/d")], 2, NoNode),
            ([SetData("/a", b"x"), Create("/b"), Create("/a")], 2, NodeExists),
            ([Create("/b"), Delete("/missing")], 1, NoNode),
            ([Create("/b"), Check("/missing", 0)], 1, NoNode),
            ([Create("/b"), Create("/b/c"), Delete("/b")], 2, NotEmpty),
        ],
    )
    async def test_a_multi_that_fails_does_nothing(
        self, harness: Harness, operations: Sequence[Op], index: int, error: type[ZooKeeperError]
    ) -> None:
        client = await harness.connect()
        await client.create("/a", b"before")
        with pytest.raises(MultiFailed) as caught:
            await client.multi(operations)
        assert caught.value.index == index
        assert isinstance(caught.value.error, error)
        data, stat = await client.get("/a")
        assert (data, stat.version) == (b"before", 0)
        assert await client.children("/") == ["a"]

    async def test_an_empty_multi_is_done(self, harness: Harness) -> None:
        client = await harness.connect()
        assert await client.multi([]) == []

    # --------------------------------------------------------------------------- watches

    async def test_a_data_watch_tells_of_one_change(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        await client.create("/a")
        told = Told()
        await client.get("/a", watch=told)
        await other.set("/a", b"1")
        assert await told.next() == ("/a", WatchEvent.DATA_CHANGED)
        await other.set("/a", b"2")
        await fenced(client)
        assert told.count == 0
        await client.get("/a", watch=told)
        await other.delete("/a")
        assert await told.next() == ("/a", WatchEvent.DELETED)

    async def test_an_exists_watch_tells_of_the_creation(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        told = Told()
        assert await client.exists("/a", watch=told) is None
        await other.create("/a")
        assert await told.next() == ("/a", WatchEvent.CREATED)

    async def test_a_child_watch_tells_of_children_only(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        await client.create("/a")
        told = Told()
        await client.children("/a", watch=told)
        await other.set("/a", b"not a child")
        await other.create("/a/b")
        assert await told.next() == ("/a", WatchEvent.CHILDREN_CHANGED)
        await client.children("/a", watch=told)
        await other.set("/a/b", b"not a change of children")
        await other.delete("/a/b")
        assert await told.next() == ("/a", WatchEvent.CHILDREN_CHANGED)
        await client.children("/a", watch=told)
        await other.delete("/a")
        assert await told.next() == ("/a", WatchEvent.DELETED)

    async def test_a_read_that_fails_sets_no_watch(self, harness: Harness) -> None:
        client = await harness.connect()
        told = Told()
        with pytest.raises(NoNode):
            await client.get("/a", watch=told)
        with pytest.raises(NoNode):
            await client.children("/a", watch=told)
        # Another watch on the same path makes the server tell of it.
        seen = Told()
        await client.exists("/a", watch=seen)
        await client.create("/a")
        assert await seen.next() == ("/a", WatchEvent.CREATED)
        await fenced(client)
        assert told.count == 0

    async def test_a_watch_fires_before_an_answer_that_shows_the_change(self, harness: Harness) -> None:
        client = await harness.connect()
        for n in range(20):
            await client.create(f"/{n}")
            told = Told()
            await client.get(f"/{n}", watch=told)
            await client.set(f"/{n}", b"x")
            assert (await client.get(f"/{n}"))[0] == b"x"
            assert told.count == 1

    async def test_several_watches_on_one_path_all_fire(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        tolds = [Told() for _ in range(3)]
        await client.get("/a", watch=tolds[0])
        await client.exists("/a", watch=tolds[1])
        await client.children("/a", watch=tolds[2])
        await client.delete("/a")
        assert [await told.next() for told in tolds] == [("/a", WatchEvent.DELETED)] * 3

    async def test_a_failed_multi_fires_no_watch(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        told = Told()
        await client.get("/a", watch=told)
        with pytest.raises(MultiFailed):
            await client.multi([SetData("/a", b"x"), Check("/a", 9)])
        await fenced(client)
        assert told.count == 0

    # ------------------------------------------------------------- ephemerals and sessions

    async def test_ephemerals_vanish_with_close(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        await client.create("/me", ephemeral=True)
        told = Told()
        stat = await other.exists("/me", watch=told)
        assert stat is not None
        assert stat.ephemeral_owner == client.session_id
        await client.close()
        assert await told.next() == ("/me", WatchEvent.DELETED)
        assert client.state is SessionState.CLOSED
        with pytest.raises(SessionExpired):
            await client.exists("/me")
        await client.close()  # Once more does no harm.

    async def test_an_expired_session_is_over_for_good(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        states: list[SessionState] = []
        client.on_state(states.append)
        await client.create("/me", ephemeral=True)
        told = Told()
        await other.exists("/me", watch=told)
        await harness.expire(client)
        await reached(client, SessionState.EXPIRED)
        assert await told.next() == ("/me", WatchEvent.DELETED)
        for attempt in (client.exists("/"), client.create("/late"), client.multi([Create("/later")])):
            with pytest.raises(SessionExpired):
                await attempt
        await client.close()
        assert client.state is SessionState.EXPIRED
        assert states[-1] is SessionState.EXPIRED
        assert await other.children("/") == []

    async def test_what_waited_when_the_session_expired_never_runs(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        await harness.suspend(client)
        waiting = [asyncio.create_task(client.create(f"/late-{n}", ephemeral=True)) for n in range(100)]
        await asyncio.sleep(0)
        await harness.expire(client)
        await harness.resume(client)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {SessionExpired}
        await client.close()
        await other.sync()
        assert await other.children("/") == []

    # ------------------------------------------------------------------ lost connections

    async def test_operations_wait_for_the_connection(self, harness: Harness) -> None:
        client = await harness.connect()
        session_id = client.session_id
        states: list[SessionState] = []
        client.on_state(states.append)
        await client.create("/me", ephemeral=True)
        await harness.suspend(client)
        waiting = [asyncio.create_task(client.create(f"/{n}")) for n in range(30)]
        await asyncio.sleep(0)
        await harness.resume(client)
        assert await asyncio.gather(*waiting) == [f"/{n}" for n in range(30)]
        assert client.session_id == session_id
        assert await client.exists("/me") is not None
        assert states == [SessionState.SUSPENDED, SessionState.CONNECTED]

    async def test_watches_tell_of_the_reconnect_once(self, harness: Harness) -> None:
        client, other = await harness.connect(), await harness.connect()
        await client.create("/a")
        data, children, absent = Told(), Told(), Told()
        await client.get("/a", watch=data)
        await client.children("/a", watch=children)
        await client.exists("/b", watch=absent)
        await harness.suspend(client)
        await other.set("/a", b"missed")
        assert (data.count, children.count, absent.count) == (0, 0, 0)
        await harness.resume(client)
        assert await data.next() == ("/a", WatchEvent.RECONNECTED)
        assert await children.next() == ("/a", WatchEvent.RECONNECTED)
        assert await absent.next() == ("/b", WatchEvent.RECONNECTED)
        # They are forgotten now, and a watch set anew works as ever.
        again = Told()
        assert (await client.get("/a", watch=again))[0] == b"missed"
        await other.set("/a", b"seen")
        await other.create("/b")
        assert await again.next() == ("/a", WatchEvent.DATA_CHANGED)
        await fenced(client)
        assert (data.count, children.count, absent.count) == (0, 0, 0)

    async def test_a_lost_answer_is_a_connection_loss_and_the_write_is_done(self, harness: Harness) -> None:
        client = await harness.connect()
        await client.create("/a")
        harness.lose_reply(client)
        with pytest.raises(ConnectionLoss):
            await client.multi([SetData("/a", b"done", 0), Create("/b", ephemeral=True)])
        await client.sync()
        data, stat = await client.get("/a")
        assert (data, stat.version) == (b"done", 1)
        other = await client.exists("/b")
        assert other is not None
        assert other.ephemeral_owner == client.session_id

    async def test_contact_is_kept_without_any_operation(self, harness: Harness) -> None:
        client = await harness.connect(session_timeout_ms=1000)
        assert client.negotiated_timeout_ms == 1000
        before = client.last_contact
        async with asyncio.timeout(TIMEOUT_S):
            while client.last_contact - before < 1.5:
                await asyncio.sleep(0.02)
        assert client.state is SessionState.CONNECTED

    async def test_contact_is_not_claimed_while_there_is_none(self, harness: Harness) -> None:
        client = await harness.connect()
        await harness.suspend(client)
        before = client.last_contact
        await asyncio.sleep(0.1)
        assert client.last_contact == before
        await harness.resume(client)
        await client.sync()
        assert client.last_contact > before
