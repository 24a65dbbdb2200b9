"""Membership: one ZooKeeper session after another, and the registration under each.

A session that ends takes the registration with it, and the broker's next registration is another
life with another broker epoch. So when a session is lost the broker first fences itself and gives
up the controller role, and only when all work of the old session has ended does it open the next
one, register, and take part again (DESIGN section 3: one client is one session; no life without
an epoch). A registration that vanishes while its session lives is treated the same way, within
the session; one that belongs to another session means that another process runs as this broker,
and this one stops.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from kafkalite.common import BrokerEpoch, BrokerInfo
from kafkalite.edge import Clock
from kafkalite.journal import EventId, Journal
from zk import paths
from zk.client import ConnectionLoss, SessionExpired, SessionState, WatchEvent, ZooKeeper, ZooKeeperFactory
from zk.lease import Lease
from zk.store import BrokerRegistration, DuplicateBroker, Store

_logger = logging.getLogger(__name__)

RECONNECT_DELAY_S: Final = 1.0
"""Between attempts to open a new session."""
REMEMBERED_SESSIONS: Final = 8
"""Session ids are never reused, so remembering a few more than can still own anything does no harm."""


class MemberState(enum.Enum):
    """What the broker knows of its place in the cluster."""

    JOINING = "joining"
    """It has a session and is not registered yet."""
    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """The connection to ZooKeeper is lost; the lease still holds."""
    FROZEN = "frozen"
    """The lease has run out: whether the session lives is unknown."""
    EXPIRED = "expired"
    """The session is over; its work is being ended."""
    REJOINING = "rejoining"
    """The next session is being opened and registered."""


class Replaced(Exception):
    """Another process has registered as this broker. This one stops."""


class Member(Protocol):
    """Who is told when the broker loses and regains its place."""

    async def membership_lost(self) -> None:
        """Fence: returns when nothing that belongs to the lost registration runs any more."""
        ...

    async def membership_gained(self, store: Store, epoch: BrokerEpoch) -> None:
        """Take part again, under a new session or registration."""
        ...


class Membership:
    """Keeps one broker registered. Owned by the broker; :meth:`run` is its task."""

    def __init__(
        self,
        zk: ZooKeeper,
        *,
        connect: ZooKeeperFactory,
        earlier_sessions: Sequence[int],
        clock: Clock,
        journal: Journal,
        remember_sessions: Callable[[Sequence[int]], Awaitable[None]],
        answers: Callable[[BrokerInfo], Awaitable[bool]],
    ) -> None:
        """``zk`` is the first session; ``connect`` opens the next ones.

        ``earlier_sessions`` are those of earlier lives, newest first. ``remember_sessions`` makes
        session ids durable in meta.properties before they register anything. ``answers`` tells
        whether another process answers as the broker of a registration.
        """
        self._connect = connect
        self._clock = clock
        self._journal = journal
        self._remember_sessions = remember_sessions
        self._answers = answers
        self._own_sessions = list(earlier_sessions)
        self._registration: BrokerRegistration | None = None
        self._changed = asyncio.Event()
        self._closing = False
        self._loss: EventId | None = None
        """The event that told of the latest loss of session or registration."""
        self.epoch: BrokerEpoch | None = None
        """The broker epoch, or None while the broker is not registered."""
        self.state = MemberState.JOINING
        self._adopt(zk)

    # The present session

    @property
    def store(self) -> Store | None:
        """The store of the session that the broker is registered under; None between sessions."""
        return self._store if self.epoch is not None else None

    @property
    def opened(self) -> Store:
        """The store of the present session, registered or not: for the start."""
        return self._store

    def has_lease(self) -> bool:
        """Tell whether the broker may act on what it last heard (DESIGN section 3)."""
        return self.epoch is not None and self._lease.is_held(self._clock.monotonic())

    @property
    def previous_sessions(self) -> Sequence[int]:
        """Earlier sessions of this broker that may still own something, newest first."""
        return self._own_sessions[1:]

    # Joining

    def _adopt(self, zk: ZooKeeper) -> None:
        self._zk = zk
        self._store = Store(zk)
        self._lease = Lease(zk)
        self._own_sessions.insert(0, zk.session_id)
        del self._own_sessions[REMEMBERED_SESSIONS:]
        zk.on_state(lambda state: self._on_session_state(zk, state))

    async def register(self, registration: BrokerRegistration) -> BrokerEpoch:
        """Register under the present session; returns the broker epoch.

        A leftover of an earlier life is replaced, provided that nobody answers at its endpoint.
        Raises DuplicateBroker, SessionExpired.
        """
        self._registration = registration
        await self._remember_sessions(self._own_sessions)
        owner = await self._store.registration_owner(registration.broker_id)
        leftover = owner is not None and owner.session_id in self._own_sessions[1:]
        epoch = await self._store.register_broker(
            registration,
            previous_session=owner.session_id if owner is not None and leftover else None,
            answers=self._answers,
        )
        self.epoch = epoch
        self._enter(
            MemberState.CONNECTED,
            self._journal.record(
                "BrokerRegistered",
                epoch=epoch,
                session=f"{self._own_sessions[0]:#x}",
                replaced=f"{owner.session_id:#x}" if owner is not None and leftover else None,
                endpoints=[str(endpoint) for endpoint in registration.endpoints],
            ),
        )
        return epoch

    async def close(self) -> None:
        """End the session; the registration vanishes at once."""
        self._closing = True
        self.epoch = None
        await self._zk.close()

    # Staying

    async def run(self, member: Member) -> None:
        """Follow the session until cancelled, rejoining whenever it is lost. Raises Replaced."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_lease(), name="lease")
            while True:
                await self._wait_for_loss()
                with self._journal.because(self._loss):
                    await self._rejoin(member)

    async def _wait_for_loss(self) -> None:
        """Return when the session has expired or the registration is gone."""
        while True:
            self._changed.clear()
            if self._zk.state is SessionState.EXPIRED:
                return
            try:
                if not await self._is_registered(self._store):
                    return
            except SessionExpired:
                return
            await self._changed.wait()

    async def _is_registered(self, store: Store) -> bool:
        assert self._registration is not None
        stat = await store.exists(paths.broker(self._registration.broker_id), watch=self._on_own_node)
        if stat is None:
            self._loss = self._journal.record(
                "RegistrationVanished", path=paths.broker(self._registration.broker_id)
            )
            return False
        if stat.ephemeral_owner != store.zk.session_id:
            raise Replaced(
                f"{paths.broker(self._registration.broker_id)} now belongs to session "
                f"{stat.ephemeral_owner:#x}: another process runs as broker {self._registration.broker_id}"
            )
        return True

    def _on_own_node(self, path: str, event: WatchEvent) -> None:
        self._changed.set()

    def _on_session_state(self, zk: ZooKeeper, state: SessionState) -> None:
        if zk is not self._zk or self._closing:
            return
        cause = self._journal.record(
            "SessionStateChanged", state=state.value, session=f"{self._own_sessions[0]:#x}"
        )
        if state is SessionState.EXPIRED:
            self._loss = cause
        if state is SessionState.SUSPENDED and self.state is MemberState.CONNECTED:
            self._enter(MemberState.SUSPENDED, cause)
        elif state is SessionState.CONNECTED and self.state in (MemberState.SUSPENDED, MemberState.FROZEN):
            self._enter(MemberState.CONNECTED, cause)
        elif state is SessionState.EXPIRED:
            self._enter(MemberState.EXPIRED, cause)
        self._changed.set()

    def _enter(self, state: MemberState, cause: EventId | None) -> None:
        if state is not self.state:
            self._journal.record("MembershipChanged", cause=cause, before=self.state.value, after=state.value)
            self.state = state

    async def _rejoin(self, member: Member) -> None:
        assert self._registration is not None
        self.epoch = None
        await member.membership_lost()
        while True:
            self._enter(MemberState.REJOINING, None)
            try:
                if self._zk.state is SessionState.EXPIRED:
                    self._adopt(await self._connect())
                epoch = await self.register(self._registration)
                await member.membership_gained(self._store, epoch)
                return
            except ConnectionLoss as error:
                _logger.warning("ZooKeeper cannot be reached, trying again: %s", error)
                await asyncio.sleep(RECONNECT_DELAY_S)
            except SessionExpired:
                # This session ended as well, perhaps after the registration: that life is over too.
                self.epoch = None
                await member.membership_lost()
            except DuplicateBroker as error:
                raise Replaced(str(error)) from error

    async def _watch_lease(self) -> None:
        """Record when the lease runs out and when it is back; acting on it is up to who asks."""
        while True:
            now = self._clock.monotonic()
            if self.epoch is None:
                await asyncio.sleep(RECONNECT_DELAY_S)
                continue
            if self._lease.is_held(now):
                if self.state is MemberState.FROZEN:
                    self._enter(MemberState.CONNECTED, None)
                await asyncio.sleep(max(0.001, self._lease.expires_at() - now))
                continue
            if self.state in (MemberState.CONNECTED, MemberState.SUSPENDED):
                self._enter(
                    MemberState.FROZEN,
                    self._journal.record(
                        "LeaseExpired",
                        silent_ms=round((now - self._lease.session.last_contact) * 1000),
                    ),
                )
            await asyncio.sleep(self._lease.session.negotiated_timeout_ms / 12_000)
