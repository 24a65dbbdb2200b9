"""What only real servers and real connections can show of a session."""

from __future__ import annotations

import asyncio
import time

import pytest

from kafkalite.cluster.zookeeper import four_letter_word, free_ports
from kafkalite.common import Address
from kafkalite.edge import SystemClock
from kafkalite.torture.proxy import Direction, TcpProxy
from tests.support.ensemble import Ensemble
from tests.support.zookeeper import TIMEOUT_S, RealHarness, Told, reached
from zk.client import ConnectionLoss, Create, NoAuth, SessionExpired, SessionState, WatchEvent
from zk.lease import Lease
from zk.session import Session, ZooKeeperConfig, connect


async def test_the_chroot_is_created_even_by_several_at_once(zookeeper: Ensemble, chroot: str) -> None:
    config = ZooKeeperConfig(f"{zookeeper.connect_string}{chroot}/deep/down/")
    sessions = await asyncio.gather(*(connect(config, SystemClock()) for _ in range(4)))
    await sessions[0].create("/a", b"x")
    await sessions[1].sync()
    assert await sessions[1].children("/") == ["a"]
    outside = await connect(ZooKeeperConfig(zookeeper.connect_string), SystemClock())
    assert (await outside.get(f"{chroot}/deep/down/a"))[0] == b"x"
    for session in (*sessions, outside):
        await session.close()


@pytest.mark.parametrize(("asked", "granted"), [(1, 1000), (7777, 7777), (10_000_000, 60_000)])
async def test_the_timeout_that_the_server_grants_counts(
    zookeeper_connect: str, asked: int, granted: int
) -> None:
    config = ZooKeeperConfig(zookeeper_connect, session_timeout_ms=asked, connection_timeout_ms=10_000)
    session = await connect(config, SystemClock())
    assert session.negotiated_timeout_ms == granted
    await session.close()


async def test_servers_that_do_not_answer_are_named() -> None:
    port = free_ports(1)[0]
    with pytest.raises(ConnectionLoss, match=rf"127\.0\.0\.1:{port} granted .* within 300 ms .*refused"):
        await connect(
            ZooKeeperConfig(f"127.0.0.1:{port}/x", session_timeout_ms=6000, connection_timeout_ms=300),
            SystemClock(),
        )


async def test_a_connect_string_without_a_server_is_refused() -> None:
    with pytest.raises(ValueError, match="hostname"):
        await connect(ZooKeeperConfig("/kafka"), SystemClock())


async def test_digest_credentials_are_accepted(zookeeper_connect: str) -> None:
    session = await connect(
        ZooKeeperConfig(zookeeper_connect, auth=(("digest", "kafka:secret"),)), SystemClock()
    )
    await session.create("/a")
    await session.close()


async def test_a_scheme_that_the_server_does_not_know_is_refused(zookeeper_connect: str) -> None:
    config = ZooKeeperConfig(zookeeper_connect, auth=(("nonsense", "x"),), connection_timeout_ms=5000)
    with pytest.raises(NoAuth, match="the server refused the credentials"):
        await connect(config, SystemClock())


async def test_an_expired_client_opens_no_second_session(harness: RealHarness, zookeeper: Ensemble) -> None:
    """Operations wait both in the session and in kazoo itself, as if a slow loop had just submitted them."""
    client, other = await harness.connect(), await harness.connect()
    proxy = harness.proxy(client)
    await harness.suspend(client)
    async with asyncio.timeout(TIMEOUT_S):
        while proxy.accepted == 1:
            await asyncio.sleep(0.01)
    queued = [asyncio.create_task(client.create(f"/queued-{n}")) for n in range(40)]
    await asyncio.sleep(0)
    in_kazoo = [client._waiting.popleft() for _ in range(20)]
    for call in in_kazoo:
        client._send(call)
    assert len(client._client._queue) == 20
    await harness.expire(client)
    await harness.resume(client)
    outcomes = await asyncio.gather(*queued, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {SessionExpired}
    assert client.state is SessionState.EXPIRED
    # kazoo's thread ends by itself: left alone, it would look for a new session now.
    async with asyncio.timeout(TIMEOUT_S):
        while not client._client._connection.connection_stopped.is_set():
            assert proxy.granted_sessions == 1
            await asyncio.sleep(0.01)
    assert proxy.granted_sessions == 1
    await client.close()
    await other.sync()
    assert await other.children("/") == []
    # Not one session more than the other client's lives on behalf of this test.
    dump = await four_letter_word(zookeeper.servers[0], "dump")
    assert f"{client.session_id:x}" not in dump
    assert f"{other.session_id:x}" in dump


async def test_a_connection_that_goes_silent_is_found_out(harness: RealHarness) -> None:
    client = await harness.connect(session_timeout_ms=1500)
    lease = Lease(client)
    clock = SystemClock()
    assert lease.is_held(clock.monotonic())
    told = Told()
    await client.exists("/", watch=told)
    harness.proxy(client).swallow(Direction.TO_CLIENT)
    contact = client.last_contact
    await reached(client, SessionState.SUSPENDED)
    # By then the lease is long gone, although the session may live.
    assert client.last_contact - contact < 1.5 / 6
    assert not lease.is_held(clock.monotonic())
    harness.proxy(client).heal()
    # The server heard of the client all the time: the session lives, and the lease comes back by itself.
    assert await told.next() == ("/", WatchEvent.RECONNECTED)
    await client.sync()
    assert lease.is_held(clock.monotonic())


async def test_a_session_out_of_reach_for_too_long_is_over_when_the_server_says_so(
    harness: RealHarness,
) -> None:
    client, other = await harness.connect(session_timeout_ms=1000), await harness.connect()
    await client.create("/me", ephemeral=True)
    gone = Told()
    await other.exists("/me", watch=gone)
    await harness.suspend(client)
    waiting = asyncio.create_task(client.create("/late"))
    assert await gone.next() == ("/me", WatchEvent.DELETED)
    assert client.state == SessionState.SUSPENDED  # It cannot know.
    assert not Lease(client).is_held(SystemClock().monotonic())
    await harness.resume(client)
    with pytest.raises(SessionExpired):
        await waiting
    await reached(client, SessionState.EXPIRED)


async def test_a_blocked_loop_does_not_cost_the_session(zookeeper_connect: str) -> None:
    client = await connect(ZooKeeperConfig(zookeeper_connect, session_timeout_ms=1000), SystemClock())
    states: list[SessionState] = []
    client.on_state(states.append)
    await client.create("/me", ephemeral=True)
    time.sleep(2.5)  # noqa: ASYNC251 - blocking the loop is what is tested
    assert not Lease(client).is_held(SystemClock().monotonic())
    await client.sync()
    assert await client.exists("/me") is not None
    assert states == []
    assert Lease(client).is_held(SystemClock().monotonic())
    await client.close()


async def test_closing_is_quick_when_nobody_answers(harness: RealHarness) -> None:
    client = await harness.connect(session_timeout_ms=60_000)
    harness.proxy(client).swallow()
    async with asyncio.timeout(TIMEOUT_S):
        await client.close()
    assert client.state is SessionState.CLOSED


async def test_answers_that_come_late_are_answers(zookeeper: Ensemble, chroot: str) -> None:
    host, _, port = zookeeper.connect_string.rpartition(":")
    async with TcpProxy(Address(host, int(port))) as proxy:
        session = await connect(ZooKeeperConfig(f"{proxy.address}{chroot}"), SystemClock())
        proxy.hold(Direction.TO_CLIENT)
        writing = asyncio.create_task(session.multi([Create("/a"), Create("/a/b")]))
        await asyncio.sleep(0.05)
        assert not writing.done()
        proxy.heal()
        assert await writing == ["/a", "/a/b"]
        await session.close()


async def connected_member(ensemble: Ensemble, session: Session) -> int:
    """The index of the member that serves ``session``."""
    port = session._client._connection._socket.getpeername()[1]
    return next(i for i, server in enumerate(ensemble.servers) if server.client_port == port)


async def test_a_session_moves_when_its_server_is_killed_or_paused(three_zookeepers: Ensemble) -> None:
    ensemble = three_zookeepers
    session = await connect(
        ZooKeeperConfig(f"{ensemble.connect_string}/kafka", session_timeout_ms=3000), SystemClock()
    )
    session_id = session.session_id
    await session.create("/me", ephemeral=True)
    told = Told()
    await session.get("/me", watch=told)
    server = ensemble.servers[await connected_member(ensemble, session)]
    await ensemble.kill(server)
    assert await told.next() == ("/me", WatchEvent.RECONNECTED)
    assert await session.exists("/me") is not None
    await ensemble.restart(server)

    await session.get("/me", watch=told)
    server = ensemble.servers[await connected_member(ensemble, session)]
    ensemble.pause(server)
    assert await told.next() == ("/me", WatchEvent.RECONNECTED)
    assert await session.exists("/me") is not None
    assert session.session_id == session_id
    ensemble.resume(server)
    await session.close()


async def test_a_session_outlives_an_outage_of_the_whole_ensemble(three_zookeepers: Ensemble) -> None:
    ensemble = three_zookeepers
    session = await connect(
        ZooKeeperConfig(f"{ensemble.connect_string}/kafka", session_timeout_ms=2000), SystemClock()
    )
    states: list[SessionState] = []
    session.on_state(states.append)
    await session.create("/me", ephemeral=True)
    for server in ensemble.servers:
        await ensemble.kill(server)
    await reached(session, SessionState.SUSPENDED)  # What is asked before may be lost on its way.
    waiting = asyncio.create_task(session.set("/me", b"still here"))
    lease = Lease(session)
    async with asyncio.timeout(TIMEOUT_S):
        # Away for longer than the session: the lease is gone, the session is not.
        while SystemClock().monotonic() < session.last_contact + 2.5:
            await asyncio.sleep(0.05)
    assert session.state is SessionState.SUSPENDED
    assert not lease.is_held(SystemClock().monotonic())
    await ensemble.start()
    assert (await waiting).ephemeral_owner == session.session_id
    assert SessionState.EXPIRED not in states
    await session.sync()
    assert lease.is_held(SystemClock().monotonic())
    await session.close()


async def test_a_server_cut_off_from_its_leader_proves_no_contact(three_zookeepers: Ensemble) -> None:
    """It goes on answering reads, while the leader, which hears nothing, lets the session expire."""
    ensemble = three_zookeepers
    modes = {}
    for server in ensemble.servers:
        modes[server] = await ensemble.ready(server)
    follower = next(server for server in ensemble.servers if modes[server] == "follower")
    session = await connect(ZooKeeperConfig(follower.address, session_timeout_ms=6000), SystemClock())
    for server in ensemble.servers:
        if server is not follower:
            ensemble.pause(server)
    contact = session.last_contact
    await session.exists("/")  # The follower alone still answers this.
    await session.exists("/")
    frozen_at = SystemClock().monotonic()
    while SystemClock().monotonic() < frozen_at + 2:
        try:
            async with asyncio.timeout(0.1):
                await session.exists("/")
        except (TimeoutError, ConnectionLoss):
            break
        await asyncio.sleep(0.05)
    assert session.last_contact - contact <= 6 / 7 + 0.5
    assert session.last_contact <= frozen_at
    for server in ensemble.servers:
        ensemble.resume(server)
    await session.close()
