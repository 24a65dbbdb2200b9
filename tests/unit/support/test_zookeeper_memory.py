"""The breakages of the in-memory ensemble; what it shares with the real one is in the contract suite."""

import asyncio

import pytest

from kafkalite.edge import SystemClock
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk.client import (
    BadVersion,
    Check,
    ConnectionLoss,
    Create,
    MultiFailed,
    SessionExpired,
    SessionState,
    SetData,
    WatchEvent,
)


class Watching:
    """Collects what watches tell, and can be waited for."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, WatchEvent]] = asyncio.Queue()

    def __call__(self, path: str, event: WatchEvent) -> None:
        self.told.put_nowait((path, event))

    async def next(self) -> tuple[str, WatchEvent]:
        return await asyncio.wait_for(self.told.get(), 5)


async def reached(client: MemoryClient, state: SessionState) -> None:
    done = asyncio.Event()
    client.on_state(lambda new: done.set() if new is state else None)
    if client.state is not state:
        await asyncio.wait_for(done.wait(), 10)


async def test_a_lost_reply_means_applied_and_watches_tell_of_the_reconnect() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect()
    await client.create("/a", b"0")
    watching = Watching()
    await client.get("/a", watch=watching)
    server.lose_reply(client)
    with pytest.raises(ConnectionLoss):
        await client.set("/a", b"1")
    assert await watching.next() == ("/a", WatchEvent.RECONNECTED)
    assert client.state is SessionState.CONNECTED
    assert (await client.get("/a"))[0] == b"1"


async def test_a_lost_request_means_not_applied() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect()
    await client.create("/a", b"0")
    server.lose_request(client)
    with pytest.raises(ConnectionLoss):
        await client.set("/a", b"1")
    assert (await client.get("/a"))[0] == b"0"  # Waited for the connection.


async def test_expiry_takes_ephemerals_and_refuses_the_client() -> None:
    server = MemoryZooKeeper(SystemClock())
    mine, other = await server.connect(), await server.connect()
    await mine.create("/me", ephemeral=True)
    watching = Watching()
    await other.exists("/me", watch=watching)
    server.expire(mine)
    assert await watching.next() == ("/me", WatchEvent.DELETED)
    await reached(mine, SessionState.EXPIRED)
    with pytest.raises(SessionExpired):
        await mine.exists("/me")


async def test_a_suspended_session_times_out_and_its_waiting_operation_is_refused() -> None:
    server = MemoryZooKeeper(SystemClock())
    client, other = await server.connect(60), await server.connect()
    await client.create("/me", ephemeral=True)
    watching = Watching()
    await other.exists("/me", watch=watching)
    server.suspend(client)
    waiting = asyncio.create_task(client.get("/me"))
    assert await watching.next() == ("/me", WatchEvent.DELETED)
    server.resume(client)
    with pytest.raises(SessionExpired):
        await waiting
    assert client.state is SessionState.EXPIRED


async def test_a_cut_is_noticed_late_and_survived() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect(600)
    server.cut(client)
    write = asyncio.create_task(client.create("/a"))
    with pytest.raises(ConnectionLoss):
        await write
    assert client.state is SessionState.SUSPENDED
    server.resume(client)
    assert await client.exists("/a") is None


async def test_where_only_requests_vanish_nothing_takes_effect_and_the_session_ends() -> None:
    server = MemoryZooKeeper(SystemClock())
    client, other = await server.connect(120), await server.connect()
    await client.create("/me", ephemeral=True)
    watching = Watching()
    await other.exists("/me", watch=watching)
    server.cut(client, down=False)
    with pytest.raises(ConnectionLoss):
        await client.create("/a")
    assert await watching.next() == ("/me", WatchEvent.DELETED)
    assert await other.exists("/a") is None


async def test_where_only_answers_vanish_writes_take_effect_and_the_session_outlives_the_silence() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect(600)
    watching = Watching()
    await client.exists("/a", watch=watching)
    server.cut(client, up=False)
    with pytest.raises(ConnectionLoss):
        await client.create("/a")
    assert client.state is SessionState.SUSPENDED
    assert server.peek("/a") is not None
    assert server.is_alive(client)  # What it sent until it noticed was heard.
    server.resume(client)
    assert await watching.next() == ("/a", WatchEvent.RECONNECTED)


async def test_the_whole_ensemble_away_and_back_keeps_sessions() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect(50)
    await client.create("/me", ephemeral=True)
    server.stop()
    with pytest.raises(ConnectionLoss):
        await server.connect()
    waiting = asyncio.create_task(client.exists("/me"))
    server.start()
    assert await waiting is not None


async def test_multi_rolls_back_versions_children_and_sequences() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect()
    await client.create("/a", b"0")
    before = server.peek("/a")
    with pytest.raises(MultiFailed) as failed:
        await client.multi(
            [Create("/a/b-", sequential=True), SetData("/a", b"1", 0), Check("/a", 0), Create("/c")]
        )
    assert failed.value.index == 2
    assert isinstance(failed.value.error, BadVersion)
    assert server.peek("/a") == before
    assert await client.create("/a/b-", sequential=True) == "/a/b-0000000000"


async def test_a_watch_event_arrives_before_a_later_read_and_only_once() -> None:
    delays = iter([0.02, 0.0, 0.01, 0.0, 0.005] * 100)
    server = MemoryZooKeeper(SystemClock(), delay=lambda: next(delays))
    writer, reader = await server.connect(), await server.connect()
    await writer.create("/a", b"0")
    told: list[WatchEvent] = []
    await reader.get("/a", watch=lambda _, event: told.append(event))
    await writer.set("/a", b"1")
    await writer.set("/a", b"2")
    data, _ = await reader.get("/a")
    assert data == b"2"
    assert told == [WatchEvent.DATA_CHANGED]


async def test_zxids_order_creations_and_writes() -> None:
    server = MemoryZooKeeper(SystemClock())
    client = await server.connect()
    await client.create("/ids")
    await client.multi([Create("/ids/1", ephemeral=True), SetData("/ids", b"")])
    _, ids = await client.get("/ids")
    _, one = await client.get("/ids/1")
    assert (ids.version, ids.mzxid) == (1, one.czxid)
    assert one.czxid > ids.czxid
