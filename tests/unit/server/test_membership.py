"""Membership under an in-memory ZooKeeper: every way to lose one's place, and how it is regained."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest

from kafkalite.common import BrokerEpoch, BrokerId, BrokerInfo, Endpoint
from kafkalite.journal import Journal
from kafkalite.server.membership import Membership, MemberState, Replaced
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk import paths
from zk.client import ZooKeeper
from zk.store import BrokerRegistration, DuplicateBroker, Store

ONE = BrokerId(1)
REGISTRATION = BrokerRegistration(ONE, (Endpoint("PLAINTEXT", "h", 9092),))


class Story:
    """One membership, what it told its member, and what it made durable."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = VirtualClock(loop)
        self.zookeeper = MemoryZooKeeper(self.clock)
        self.journal = Journal(ONE, self.clock)
        self.told: list[str] = []
        self.gained = asyncio.Event()
        self.remembered: list[Sequence[int]] = []
        self.another_answers = False
        self.clients: list[MemoryClient] = []

    async def connect(self) -> ZooKeeper:
        self.clients.append(await self.zookeeper.connect(6000))
        return self.clients[-1]

    async def membership(self, *, earlier: Sequence[int] = ()) -> Membership:
        zk = await self.connect()
        await Store(zk).create_persistent_paths()
        return Membership(
            zk,
            connect=self.connect,
            earlier_sessions=earlier,
            clock=self.clock,
            journal=self.journal,
            remember_sessions=self._remember,
            answers=self._answers,
        )

    async def _remember(self, sessions: Sequence[int]) -> None:
        self.remembered.append(list(sessions))

    async def _answers(self, broker: BrokerInfo) -> bool:
        return self.another_answers

    async def membership_lost(self) -> None:
        self.told.append("lost")

    async def membership_gained(self, store: Store, epoch: BrokerEpoch) -> None:
        self.told.append("gained")
        self.gained.set()


def in_story(tell: Callable[[Story], Awaitable[None]]) -> None:
    async def main() -> None:
        await tell(Story())

    run_virtual(main())


async def running(story: Story, membership: Membership) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(membership.run(story))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_an_expired_session_is_fenced_first_and_then_followed_by_another_life() -> None:
    async def tell(story: Story) -> None:
        membership = await story.membership()
        first = await membership.register(REGISTRATION)
        task = await running(story, membership)
        assert membership.has_lease()
        story.zookeeper.expire(story.clients[0])
        await story.gained.wait()
        assert story.told == ["lost", "gained"]
        assert membership.epoch is not None
        assert membership.epoch > first
        assert membership.state is MemberState.CONNECTED
        assert story.remembered[-1][0] == story.clients[1].session_id
        await ended(task)

    in_story(tell)


def test_a_registration_that_vanishes_is_made_anew_within_the_session() -> None:
    async def tell(story: Story) -> None:
        membership = await story.membership()
        first = await membership.register(REGISTRATION)
        task = await running(story, membership)
        await asyncio.sleep(1)
        other = await story.zookeeper.connect()
        await other.delete(paths.broker(ONE))
        await story.gained.wait()
        assert story.told == ["lost", "gained"]
        assert membership.epoch is not None
        assert membership.epoch > first
        assert len(story.clients) == 1, "the session lives: no other one is opened"
        await ended(task)

    in_story(tell)


def test_a_registration_of_another_session_ends_the_broker() -> None:
    async def tell(story: Story) -> None:
        membership = await story.membership()
        await membership.register(REGISTRATION)
        task = await running(story, membership)
        await asyncio.sleep(1)
        other = await story.zookeeper.connect()
        await other.delete(paths.broker(ONE))
        await other.create(paths.broker(ONE), b"{}", ephemeral=True)
        with pytest.raises(BaseExceptionGroup) as caught:
            await task
        assert caught.group_contains(Replaced)

    in_story(tell)


def test_the_lease_ends_with_half_the_session_timeout_and_comes_back() -> None:
    async def tell(story: Story) -> None:
        membership = await story.membership()
        await membership.register(REGISTRATION)
        task = await running(story, membership)
        await asyncio.sleep(1)
        story.zookeeper.suspend(story.clients[0])
        await asyncio.sleep(3.1)
        frozen = (membership.state, membership.has_lease())
        assert membership.epoch is not None, "the session may live on"
        story.zookeeper.resume(story.clients[0])
        await asyncio.sleep(2)
        thawed = (membership.state, membership.has_lease())
        assert [frozen, thawed] == [(MemberState.FROZEN, False), (MemberState.CONNECTED, True)]
        assert story.told == []
        await ended(task)

    in_story(tell)


def test_a_leftover_of_an_earlier_life_is_replaced_unless_somebody_answers() -> None:
    async def tell(story: Story) -> None:
        before = await story.membership()
        await before.register(REGISTRATION)
        story.zookeeper.abandon(story.clients[0])
        after = await story.membership(earlier=[story.clients[0].session_id])
        story.another_answers = True
        with pytest.raises(DuplicateBroker):
            await after.register(REGISTRATION)
        story.another_answers = False
        await after.register(REGISTRATION)
        assert story.remembered[-1] == [story.clients[1].session_id, story.clients[0].session_id]
        assert list(after.previous_sessions) == [story.clients[0].session_id]

    in_story(tell)


def test_a_stranger_with_the_same_id_is_refused() -> None:
    async def tell(story: Story) -> None:
        before = await story.membership()
        await before.register(REGISTRATION)
        story.zookeeper.abandon(story.clients[0])
        stranger = await story.membership()
        with pytest.raises(DuplicateBroker):
            await stranger.register(REGISTRATION)

    in_story(tell)
