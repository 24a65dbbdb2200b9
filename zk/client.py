"""The ZooKeeper client as the rest of the system sees it: one object is one session.

:mod:`zk.session` implements it on kazoo, the simulation in memory; one contract suite holds
both to the same behaviour. After the session has expired every call raises
:class:`SessionExpired` and the object is done for: its owner makes the next one.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec


class SessionState(enum.Enum):
    """What the client knows about its session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No connection; the session may live on."""
    EXPIRED = "expired"
    """The session is gone for good, and with it its ephemeral znodes."""
    CLOSED = "closed"
    """Closed by its owner."""


class ZooKeeperError(Exception):
    """An operation did not succeed, or (ConnectionLoss) may or may not have."""


class NoNode(ZooKeeperError):
    """The znode, or its parent, does not exist."""


class NodeExists(ZooKeeperError):
    """The znode is there already."""


class BadVersion(ZooKeeperError):
    """The znode has another version than the operation expected."""


class NotEmpty(ZooKeeperError):
    """The znode has children."""


class NoAuth(ZooKeeperError):
    """The session may not do this."""


class ConnectionLoss(ZooKeeperError):
    """The connection broke before the answer: whether a write took effect is unknown."""


class SessionExpired(ZooKeeperError):
    """The session that the operation belongs to is over; a write may have taken effect before."""


class RolledBack(ZooKeeperError):
    """This operation of a multi was fine; another one failed, so none took effect."""


class MultiFailed(ZooKeeperError):
    """A multi took no effect. ``index`` is the operation that failed, ``error`` why."""

    def __init__(self, index: int, error: ZooKeeperError) -> None:
        super().__init__(f"operation {index}: {type(error).__name__}: {error}")
        self.index = index
        self.error = error


class Stat(msgspec.Struct, frozen=True):
    """What ZooKeeper knows about a znode beside its data."""

    czxid: int
    """Transaction that created it: the broker epoch, for a broker's registration."""
    mzxid: int
    """Transaction that last changed its data."""
    version: int
    """Number of changes to the data: what conditional operations expect."""
    cversion: int
    ephemeral_owner: int
    """Session that it lives with, or 0."""
    ctime_ms: int
    mtime_ms: int
    num_children: int = 0
    data_length: int = 0


class Create(msgspec.Struct, frozen=True):
    path: str
    data: bytes = b""
    ephemeral: bool = False
    sequential: bool = False


class SetData(msgspec.Struct, frozen=True):
    path: str
    data: bytes
    version: int = -1


class Delete(msgspec.Struct, frozen=True):
    path: str
    version: int = -1


class Check(msgspec.Struct, frozen=True):
    path: str
    version: int


Op: TypeAlias = Create | SetData | Delete | Check
OpResult: TypeAlias = str | Stat | None
"""Create: the path made. SetData: the new stat. Delete, Check: None."""


class WatchEvent(enum.Enum):
    """Why a watch fired."""

    CREATED = "created"
    DELETED = "deleted"
    DATA_CHANGED = "data changed"
    CHILDREN_CHANGED = "children changed"
    RECONNECTED = "reconnected"
    """The connection was lost and is back: what the watch would have told may have been missed."""


WatchCallback: TypeAlias = Callable[[str, WatchEvent], None]
"""Called on the loop with the path. It must not await; it hands the news on."""


class ZooKeeper(Protocol):
    """One session with the ensemble. Paths are relative to the chroot.

    Watches are one-shot, as in ZooKeeper: a read given ``watch`` sets one, and it fires at most
    once (a change, or the first reconnect after a lost connection) and is then forgotten. Reads
    set the watch and return the data in one step, so no change falls between.

    Every operation may raise ConnectionLoss or SessionExpired. While SUSPENDED, operations
    wait for the connection until the session is known to be over.
    """

    @property
    def state(self) -> SessionState: ...

    @property
    def session_id(self) -> int: ...

    @property
    def negotiated_timeout_ms(self) -> int:
        """The session timeout that the server granted."""
        ...

    @property
    def last_contact(self) -> float:
        """When the last *answered* sync was sent, in the clock's monotonic seconds.

        At least one is sent every sixth of the session timeout. Other reads do not count: a server
        that is cut off from the ensemble's leader still answers them, while the leader, which
        hears nothing of the session, lets it expire.
        """
        ...

    def on_state(self, callback: Callable[[SessionState], None]) -> None:
        """Call ``callback`` on the loop at each change of :attr:`state`."""
        ...

    async def get(self, path: str, *, watch: WatchCallback | None = None) -> tuple[bytes, Stat]:
        """Raises NoNode (and then sets no watch)."""
        ...

    async def exists(self, path: str, *, watch: WatchCallback | None = None) -> Stat | None:
        """The watch fires on creation, change of data and deletion."""
        ...

    async def children(self, path: str, *, watch: WatchCallback | None = None) -> list[str]:
        """Names, unsorted. The watch fires on a change of children or deletion. Raises NoNode."""
        ...

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        """Return the path made. Raises NodeExists, NoNode (no parent)."""
        ...

    async def set(self, path: str, data: bytes, *, version: int = -1) -> Stat:
        """Raises NoNode, BadVersion."""
        ...

    async def delete(self, path: str, *, version: int = -1) -> None:
        """Raises NoNode, BadVersion, NotEmpty."""
        ...

    async def multi(self, operations: Sequence[Op]) -> list[OpResult]:
        """All or nothing. Raises MultiFailed."""
        ...

    async def sync(self, path: str = "/") -> None:
        """Return when this server has caught up with the ensemble's leader."""
        ...

    async def close(self) -> None:
        """End the session: its ephemeral znodes vanish at once."""
        ...


ZooKeeperFactory: TypeAlias = Callable[[], Awaitable[ZooKeeper]]
"""Connects a new session. Raises ConnectionLoss with a line that says what was tried."""
