"""A ZooKeeper ensemble in memory: exact where the rules lean on it, and breakable on purpose.

Tests of the controller and the simulation run against this one. It has what ZooKeeper promises and
nothing more: a tree with versions and zxids, sessions with ephemeral znodes, one-shot watches,
sequential names, multi with rollback, and per connection first-in-first-out delivery in which a
watch event always arrives before the answer of a later read that sees the change. It runs on the
running loop only; time comes from that loop and the given clock, and the delay of every message
(each way) from ``delay``, so one seed gives one history.

Hooks break it the way networks and servers do: :meth:`MemoryZooKeeper.expire`, ``suspend`` and
``resume``, ``cut`` (silent: the client learns late), ``lose_reply`` (applied, the client sees
ConnectionLoss), ``lose_request`` (not applied), ``abandon`` (the process died) and ``stop`` /
``start`` of the whole ensemble. One contract suite holds this and the real ensemble to the same
behaviour.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from kafkalite.edge import Clock
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
    OpResult,
    SessionExpired,
    SessionState,
    SetData,
    Stat,
    WatchCallback,
    WatchEvent,
    ZooKeeperError,
)

T = TypeVar("T")


@dataclass(slots=True)
class _Node:
    data: bytes
    czxid: int
    mzxid: int
    ctime_ms: int
    mtime_ms: int
    owner: int = 0
    version: int = 0
    created_children: int = 0
    """Children ever created: the next sequential suffix, and half of what cversion is made of."""
    children: dict[str, None] = field(default_factory=dict)

    def stat(self) -> Stat:
        return Stat(
            czxid=self.czxid,
            mzxid=self.mzxid,
            version=self.version,
            cversion=2 * self.created_children - len(self.children),
            ephemeral_owner=self.owner,
            ctime_ms=self.ctime_ms,
            mtime_ms=self.mtime_ms,
            num_children=len(self.children),
            data_length=len(self.data),
        )


@dataclass(slots=True, eq=False)
class _Session:
    """The server's side of one session."""

    id: int
    timeout_s: float
    client: MemoryClient
    last_heard: float
    alive: bool = True


@dataclass(slots=True, eq=False)
class _Request:
    apply: Callable[[], object]
    answer: asyncio.Future[object]
    operations: int = 0
    """How many a write has; 0 of a read."""
    watch: _Watch | None = None
    """Set by this read; the client knows of it from the answer on."""
    sent_at: float = 0.0

    @property
    def is_write(self) -> bool:
        return self.operations > 0


@dataclass(slots=True, eq=False)
class _Connection:
    """One TCP connection: two queues, each delivered in order."""

    up: deque[_Request] = field(default_factory=deque)
    down: deque[Callable[[], None]] = field(default_factory=deque)
    is_open: bool = True
    loses_up: bool = False
    """Packets to the ensemble vanish and nobody is told."""
    loses_down: bool = False
    """Packets from the ensemble do."""

    @property
    def is_silent(self) -> bool:
        """Whether the client hears nothing, for the one reason or the other."""
        return self.loses_up or self.loses_down


@dataclass(slots=True, eq=False)
class _Watch:
    session: _Session
    path: str
    callback: WatchCallback


_Fired = tuple[str, WatchEvent, bool]  # path, event, whether it is of the kind that child watches see


class MemoryZooKeeper:
    """The ensemble. ``delay`` draws the seconds that one message takes one way."""

    def __init__(self, clock: Clock, *, delay: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._delay = delay
        self._zxid = 0
        self._next_session: int = 0x1000_0000
        self._nodes: dict[str, _Node] = {"/": _Node(b"", 0, 0, 0, 0)}
        self._sessions: dict[int, _Session] = {}
        self._data_watches: dict[str, list[_Watch]] = {}
        self._child_watches: dict[str, list[_Watch]] = {}
        self._is_up = True
        self.lost_replies = 0
        """Writes that were applied and whose answer was lost on purpose."""
        self.lost_multi_replies = 0
        """Those of them that were multis of several operations."""
        self.lost_requests = 0
        self.on_write: Callable[[int, str], None] | None = None
        """Called after every committed change with its zxid and path: for a checker of invariants."""

    # --- connecting and breaking ---------------------------------------------------------

    async def connect(
        self, session_timeout_ms: int = 6000, *, home: Callable[[], contextvars.Context] | None = None
    ) -> MemoryClient:
        """Open a session. Raises ConnectionLoss while the ensemble is stopped.

        ``home`` makes contexts of the client's process: all that happens at the client then runs in one
        of them, so that a process which stands still hears nothing and sends nothing.
        """
        await asyncio.sleep(self._delay() + self._delay())
        if not self._is_up:
            raise ConnectionLoss("the ensemble is stopped")
        self._zxid += 1
        self._next_session += 1
        client = MemoryClient(self, self._clock, self._next_session, session_timeout_ms, home)
        session = _Session(self._next_session, session_timeout_ms / 1000, client, self._now())
        self._sessions[session.id] = session
        client._opened(session)
        self._arm_expiry(session)
        return client

    @property
    def zxid(self) -> int:
        """The last transaction."""
        return self._zxid

    def expire(self, client: MemoryClient) -> None:
        """End the session at the servers; the client learns it as it would: dropped, then refused."""
        session = self._sessions.get(client.session_id)
        if session is not None:
            self._end(session)
            client._break(reconnect=True)

    def suspend(self, client: MemoryClient) -> None:
        """Drop the connection and keep it from coming back until :meth:`resume`."""
        client._is_held = True
        client._break(reconnect=False)

    def resume(self, client: MemoryClient) -> None:
        """Let the client reach the ensemble again; it reconnects, or learns that it expired."""
        client._is_held = False
        client._mended()

    def cut(self, client: MemoryClient, *, up: bool = True, down: bool = True) -> None:
        """Let packets vanish: those to the ensemble, those from it, or both.

        The client hears nothing in any case, and notices after two thirds of its session timeout. Where
        only answers vanish, all that it writes until then takes effect, and its session lives on.
        """
        client._is_held = True
        client._cut(up=up, down=down)

    def lose_reply(self, client: MemoryClient) -> None:
        """The client's next write is applied, but the connection breaks before the answer."""
        client._lose_reply = True

    def lose_request(self, client: MemoryClient) -> None:
        """The connection breaks before the client's next write reaches a server."""
        client._lose_request = True

    def abandon(self, client: MemoryClient) -> None:
        """The client's process is gone without a word: its session lives on until it times out."""
        client._is_held = True
        if client._home is None:
            client._break(reconnect=False)
            client._finish(SessionState.CLOSED)
        else:
            client._vanish()

    def stop(self) -> None:
        """Take the whole ensemble away. Sessions do not age meanwhile."""
        self._is_up = False
        for session in list(self._sessions.values()):
            session.client._break(reconnect=False)

    def start(self) -> None:
        """Bring the ensemble back; every session's time counts from now."""
        self._is_up = True
        for session in list(self._sessions.values()):
            session.last_heard = self._now()
            self._arm_expiry(session)
        for session in list(self._sessions.values()):
            session.client._mended()

    def is_alive(self, client: MemoryClient) -> bool:
        """Whether the servers still keep this client's session."""
        return client.session_id in self._sessions

    def dump(self) -> dict[str, bytes]:
        """Every znode's data by path, sorted: for assertions and for looking."""
        return {path: self._nodes[path].data for path in sorted(self._nodes)}

    def peek(self, path: str) -> tuple[bytes, Stat] | None:
        """A znode as it is now, without a session."""
        node = self._nodes.get(path)
        return None if node is None else (node.data, node.stat())

    # --- sessions ------------------------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _arm_expiry(self, session: _Session) -> None:
        """Check at the earliest moment at which ``session`` could have timed out."""
        at = session.last_heard + session.timeout_s
        asyncio.get_running_loop().call_at(at, self._check_expiry, session, context=contextvars.Context())

    def _check_expiry(self, session: _Session) -> None:
        if not session.alive or not self._is_up:
            return
        if self._now() >= session.last_heard + session.timeout_s:
            self._end(session)
            session.client._break(reconnect=True)
        else:
            self._arm_expiry(session)

    def _end(self, session: _Session) -> None:
        """Remove the session and its ephemeral znodes in one transaction."""
        if not session.alive:
            return
        session.alive = False
        del self._sessions[session.id]
        self._zxid += 1
        fired: list[_Fired] = []
        undo: list[Callable[[], None]] = []
        for path in [path for path, node in self._nodes.items() if node.owner == session.id]:
            self._delete(Delete(path), fired, undo)
        for watches in (self._data_watches, self._child_watches):
            for path in list(watches):
                watches[path] = [watch for watch in watches[path] if watch.session is not session]
        self._fire(fired)

    # --- the tree ------------------------------------------------------------------------

    def _get(self, path: str) -> _Node:
        node = self._nodes.get(path)
        if node is None:
            raise NoNode(path)
        return node

    def _commit(self, session: _Session, operations: Sequence[Op]) -> list[OpResult]:
        """Apply all operations as one transaction, or none. Raises MultiFailed."""
        if not session.alive:
            raise SessionExpired(f"session {session.id:#x}")
        self._zxid += 1
        fired: list[_Fired] = []
        undo: list[Callable[[], None]] = []
        results: list[OpResult] = []
        for index, operation in enumerate(operations):
            try:
                match operation:
                    case Create():
                        results.append(self._create(operation, session, fired, undo))
                    case SetData():
                        results.append(self._set(operation, fired, undo))
                    case Delete():
                        self._delete(operation, fired, undo)
                        results.append(None)
                    case Check():
                        self._expect(operation.path, operation.version)
                        results.append(None)
            except ZooKeeperError as error:
                for step in reversed(undo):
                    step()
                raise MultiFailed(index, error) from None
        self._fire(fired)
        return results

    def _expect(self, path: str, version: int) -> _Node:
        node = self._get(path)
        if version not in (-1, node.version):
            raise BadVersion(f"{path}: has version {node.version}, expected {version}")
        return node

    def _create(
        self, operation: Create, session: _Session, fired: list[_Fired], undo: list[Callable[[], None]]
    ) -> str:
        path = operation.path
        assert path[0] == "/", path
        parent_path = _parent(path)
        parent = self._get(parent_path)
        if parent.owner:
            raise ZooKeeperError(f"{parent_path} is ephemeral and has no children")
        if operation.sequential:
            path = f"{path}{parent.created_children:010d}"
        if path in self._nodes:
            raise NodeExists(path)
        name = path.rsplit("/", 1)[1]
        now = self._clock.wall_ms()
        owner = session.id if operation.ephemeral else 0
        self._nodes[path] = _Node(operation.data, self._zxid, self._zxid, now, now, owner)
        parent.children[name] = None
        parent.created_children += 1

        def revert() -> None:
            del self._nodes[path]
            del parent.children[name]
            parent.created_children -= 1

        undo.append(revert)
        fired += [(path, WatchEvent.CREATED, False), (parent_path, WatchEvent.CHILDREN_CHANGED, True)]
        return path

    def _set(self, operation: SetData, fired: list[_Fired], undo: list[Callable[[], None]]) -> Stat:
        node = self._expect(operation.path, operation.version)
        before = (node.data, node.version, node.mzxid, node.mtime_ms)
        node.data, node.version = operation.data, node.version + 1
        node.mzxid, node.mtime_ms = self._zxid, self._clock.wall_ms()

        def revert() -> None:
            node.data, node.version, node.mzxid, node.mtime_ms = before

        undo.append(revert)
        fired.append((operation.path, WatchEvent.DATA_CHANGED, False))
        return node.stat()

    def _delete(self, operation: Delete, fired: list[_Fired], undo: list[Callable[[], None]]) -> None:
        path = operation.path
        node = self._expect(path, operation.version)
        if node.children:
            raise NotEmpty(path)
        assert path != "/"
        parent_path, name = _parent(path), path.rsplit("/", 1)[1]
        parent = self._nodes[parent_path]
        del self._nodes[path]
        del parent.children[name]

        def revert() -> None:
            self._nodes[path] = node
            parent.children[name] = None

        undo.append(revert)
        fired += [
            (path, WatchEvent.DELETED, False),
            (path, WatchEvent.DELETED, True),
            (parent_path, WatchEvent.CHILDREN_CHANGED, True),
        ]

    def _fire(self, fired: list[_Fired]) -> None:
        """Send the watches of a committed transaction on their way, each at most once."""
        for path, event, is_child_kind in fired:
            for watch in (self._child_watches if is_child_kind else self._data_watches).pop(path, []):
                watch.session.client._watch_fired(watch, event)
            if self.on_write is not None and not is_child_kind:
                self.on_write(self._zxid, path)


class MemoryClient:
    """One session with a :class:`MemoryZooKeeper`; a :class:`zk.client.ZooKeeper`."""

    PINGS_A_TIMEOUT: Final = 6

    def __init__(
        self,
        server: MemoryZooKeeper,
        clock: Clock,
        session_id: int,
        timeout_ms: int,
        home: Callable[[], contextvars.Context] | None = None,
    ) -> None:
        self._server = server
        self._clock = clock
        self._id = session_id
        self._timeout_ms = timeout_ms
        self._state = SessionState.CONNECTED
        self._last_contact = clock.monotonic()
        self._session: _Session | None = None
        self._connection = _Connection()
        self._in_flight: deque[_Request] = deque()
        self._waiting: deque[_Request] = deque()
        self._watches: list[_Watch] = []
        self._callbacks: list[Callable[[SessionState], None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._is_held = False
        self._lose_reply = False
        self._lose_request = False
        self._home = home
        self.lag_s = 0.0
        """Seconds that every message of this client takes longer, each way."""

    # --- the interface -------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        return self._state

    @property
    def server(self) -> MemoryZooKeeper:
        """The ensemble that this is a session with."""
        return self._server

    @property
    def session_id(self) -> int:
        return self._id

    @property
    def negotiated_timeout_ms(self) -> int:
        return self._timeout_ms

    @property
    def last_contact(self) -> float:
        return self._last_contact

    def on_state(self, callback: Callable[[SessionState], None]) -> None:
        self._callbacks.append(callback)

    async def get(self, path: str, *, watch: WatchCallback | None = None) -> tuple[bytes, Stat]:
        pending = self._watch(path, watch)

        def read() -> tuple[bytes, Stat]:
            node = self._server._get(path)
            self._set_watch(self._server._data_watches, pending)
            return node.data, node.stat()

        return await self._ask(read, pending)

    async def exists(self, path: str, *, watch: WatchCallback | None = None) -> Stat | None:
        pending = self._watch(path, watch)

        def read() -> Stat | None:
            self._set_watch(self._server._data_watches, pending)
            node = self._server._nodes.get(path)
            return None if node is None else node.stat()

        return await self._ask(read, pending)

    async def children(self, path: str, *, watch: WatchCallback | None = None) -> list[str]:
        pending = self._watch(path, watch)

        def read() -> list[str]:
            node = self._server._get(path)
            self._set_watch(self._server._child_watches, pending)
            return list(node.children)

        return await self._ask(read, pending)

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        return cast(str, await self._one(Create(path, data, ephemeral, sequential)))

    async def set(self, path: str, data: bytes, *, version: int = -1) -> Stat:
        return cast(Stat, await self._one(SetData(path, data, version)))

    async def delete(self, path: str, *, version: int = -1) -> None:
        await self._one(Delete(path, version))

    async def multi(self, operations: Sequence[Op]) -> list[OpResult]:
        return await self._ask(lambda: self._commit(operations), operations=len(operations))

    async def sync(self, path: str = "/") -> None:
        await self._ask(lambda: None)

    async def close(self) -> None:
        if self._state is SessionState.CONNECTED and self._session is not None:
            session = self._session
            try:
                await self._ask(lambda: self._server._end(session))
            except (ConnectionLoss, SessionExpired):
                pass  # The session then ends by its timeout, as a real one would.
        if self._state is not SessionState.EXPIRED:
            self._finish(SessionState.CLOSED)

    # --- asking --------------------------------------------------------------------------

    async def _one(self, operation: Op) -> OpResult:
        try:
            return (await self.multi([operation]))[0]
        except MultiFailed as failed:
            raise failed.error from None

    def _commit(self, operations: Sequence[Op]) -> list[OpResult]:
        assert self._session is not None
        return self._server._commit(self._session, operations)

    async def _ask(self, apply: Callable[[], T], watch: _Watch | None = None, *, operations: int = 0) -> T:
        if self._state in (SessionState.EXPIRED, SessionState.CLOSED):
            raise SessionExpired(f"session {self._id:#x} is {self._state.value}")
        request = _Request(apply, asyncio.get_running_loop().create_future(), operations, watch)
        if self._state is SessionState.SUSPENDED:
            self._waiting.append(request)
        else:
            self._send(request)
        return cast(T, await request.answer)

    def _send(self, request: _Request) -> None:
        request.sent_at = self._clock.monotonic()
        connection = self._connection
        self._in_flight.append(request)
        connection.up.append(request)
        self._after(self.lag_s + self._server._delay(), self._arrive, connection, at_server=True)

    def _arrive(self, connection: _Connection) -> None:
        """At the server: the oldest request that is on its way."""
        if not connection.is_open or connection.loses_up or not self._server._is_up:
            return
        request = connection.up.popleft()
        session = self._session
        assert session is not None
        if not session.alive:
            return  # The server has closed this connection already.
        session.last_heard = self._server._now()
        if request.is_write and self._lose_request:
            self._lose_request = False
            self._server.lost_requests += 1
            self._break(reconnect=True)
            return
        result: object = None
        error: ZooKeeperError | None = None
        try:
            result = request.apply()
        except ZooKeeperError as failure:
            error = failure
        if request.is_write and self._lose_reply:
            self._lose_reply = False
            self._server.lost_replies += 1
            self._server.lost_multi_replies += request.operations > 1
            self._break(reconnect=True)
            return
        self._reply(connection, lambda: self._answered(request, result, error))

    def _reply(self, connection: _Connection, deliver: Callable[[], None]) -> None:
        connection.down.append(deliver)
        self._after(self.lag_s + self._server._delay(), self._deliver, connection)

    def _deliver(self, connection: _Connection) -> None:
        """At the client: the oldest answer or watch event that is on its way."""
        if connection.is_open and not connection.loses_down:
            connection.down.popleft()()

    def _answered(self, request: _Request, result: object, error: ZooKeeperError | None) -> None:
        self._in_flight.remove(request)
        if not request.is_write:
            self._last_contact = max(self._last_contact, request.sent_at)
        if request.watch is not None and error is None:
            self._watches.append(request.watch)
        if request.answer.done():
            return  # The caller was cancelled meanwhile.
        if error is not None:
            request.answer.set_exception(error)
        else:
            request.answer.set_result(result)

    def _after(
        self,
        delay: float,
        call: Callable[[_Connection], None],
        connection: _Connection,
        *,
        at_server: bool = False,
    ) -> None:
        """Schedule without the caller's context: causes do not travel through ZooKeeper by themselves."""
        loop = asyncio.get_running_loop()
        context = contextvars.Context() if at_server else self._context()
        if delay <= 0:
            loop.call_soon(call, connection, context=context)
        else:
            loop.call_later(delay, call, connection, context=context)

    def _context(self) -> contextvars.Context:
        return contextvars.Context() if self._home is None else self._home()

    # --- watches -------------------------------------------------------------------------

    def _watch(self, path: str, callback: WatchCallback | None) -> _Watch | None:
        if callback is None:
            return None
        assert self._session is not None
        return _Watch(self._session, path, callback)

    @staticmethod
    def _set_watch(watches: dict[str, list[_Watch]], watch: _Watch | None) -> None:
        if watch is not None:
            watches.setdefault(watch.path, []).append(watch)

    def _watch_fired(self, watch: _Watch, event: WatchEvent) -> None:
        """At the server: send a watch event. Without a connection it is told as RECONNECTED later."""
        if self._connection.is_open:
            self._reply(self._connection, lambda: self._watch_arrived(watch, event))

    def _watch_arrived(self, watch: _Watch, event: WatchEvent) -> None:
        if watch in self._watches:
            self._watches = [other for other in self._watches if other is not watch]
            watch.callback(watch.path, event)

    # --- the connection ------------------------------------------------------------------

    def _opened(self, session: _Session) -> None:
        self._session = session
        self._ping()

    def _ping(self) -> None:
        """Keep the session alive, and the lease with it."""
        if self._state in (SessionState.EXPIRED, SessionState.CLOSED):
            return
        loop = asyncio.get_running_loop()
        if self._state is SessionState.CONNECTED:
            self._send(_Request(lambda: None, loop.create_future()))
        period = self._timeout_ms / 1000 / self.PINGS_A_TIMEOUT
        self._timers = [loop.call_later(period, self._ping, context=self._context())]

    def _cut(self, *, up: bool, down: bool) -> None:
        connection = self._connection
        connection.loses_up |= up
        connection.loses_down |= down
        self._after(self._timeout_ms / 1000 * 2 / 3, self._noticed, connection)

    def _noticed(self, connection: _Connection) -> None:
        if connection is self._connection and connection.is_open and connection.is_silent:
            self._break(reconnect=not self._is_held)

    def _break(self, *, reconnect: bool) -> None:
        """Drop the connection: what was under way fails with ConnectionLoss."""
        if self._state is not SessionState.CONNECTED:
            if reconnect:
                self._mended()
            return
        connection = self._connection
        if not connection.is_open:
            return  # The client is about to notice.
        connection.is_open = False
        if self._home is None:
            self._lost(connection)
        else:
            self._after(0, self._lost, connection)

    def _lost(self, connection: _Connection) -> None:
        """At the client: the connection is seen to be closed."""
        if connection is not self._connection or self._state is not SessionState.CONNECTED:
            return
        lost, self._in_flight = self._in_flight, deque()
        self._become(SessionState.SUSPENDED)
        for request in lost:
            if not request.answer.done():
                request.answer.set_exception(ConnectionLoss("the connection broke before the answer"))
                request.answer.exception()  # A ping has nobody who would look at it.
        self._mended()

    def _mended(self) -> None:
        """Reconnect where nothing keeps the client from it."""
        connection = self._connection
        if self._state is SessionState.CONNECTED and connection.is_silent and not self._is_held:
            self._break(reconnect=True)  # What vanished meanwhile stays lost.
        elif self._state is SessionState.SUSPENDED and not self._is_held and self._server._is_up:
            self._after(self._server._delay() + self._server._delay(), self._reconnect, connection)

    def _reconnect(self, broken: _Connection) -> None:
        if broken is not self._connection or self._state is not SessionState.SUSPENDED:
            return
        if self._is_held or not self._server._is_up:
            return
        assert self._session is not None
        if not self._session.alive:
            self._finish(SessionState.EXPIRED)
            return
        self._session.last_heard = self._server._now()
        self._connection = _Connection()
        watches, self._watches = self._watches, []
        for kind in (self._server._data_watches, self._server._child_watches):
            for path in list(kind):
                kind[path] = [watch for watch in kind[path] if watch.session is not self._session]
        self._become(SessionState.CONNECTED)
        for watch in watches:
            watch.callback(watch.path, WatchEvent.RECONNECTED)
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            self._send(request)

    def _finish(self, state: SessionState) -> None:
        """The session is over for this client."""
        if self._state in (SessionState.EXPIRED, SessionState.CLOSED):
            return
        self._connection.is_open = False
        self._watches.clear()
        for timer in self._timers:
            timer.cancel()
        self._become(state)
        ended = [*self._in_flight, *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        for request in ended:
            if not request.answer.done():
                request.answer.set_exception(SessionExpired(f"session {self._id:#x} is {state.value}"))
                request.answer.exception()

    def _vanish(self) -> None:
        """The process is dead: nobody is left who could be told."""
        self._connection.is_open = False
        self._state = SessionState.CLOSED

    def _become(self, state: SessionState) -> None:
        self._state = state
        for callback in list(self._callbacks):
            callback(state)


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0] or "/"
