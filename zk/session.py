"""One session with a ZooKeeper ensemble, on kazoo, for asyncio.

kazoo brings the wire protocol and the search for a server that answers. What it would do beyond that is
taken out of its hands, since a broker's safety hangs on it:

- *One client is one session.* kazoo would answer an expired session by opening a new one and would run
  whatever is queued in it. Here the client is stopped in the very step that learns of the expiry, before
  its session id is reset, and its connection refuses to go looking for a server without the id it had.
- *Operations wait here, not in kazoo.* A bounded number is handed to kazoo (``max_in_flight_requests``),
  and only while connected; the rest waits in order in this session and fails with it.
- *Threads end here.* kazoo's one thread of ours calls nothing but ``call_soon_threadsafe``, for answers,
  states and watches alike, in the order in which the server sent them; so neither can a slow loop hold
  up the connection, nor does anything outside this module see a thread.
- *Contact is proven.* Every sixth of the session timeout at the latest, a ``sync`` is sent. It is answered by
  the ensemble's leader, the one that counts the session's time. A plain read would not do: a server
  that is cut off from its leader goes on answering reads for ``syncLimit`` ticks. An answer that is
  outstanding for two thirds of the timeout means a dead connection, which is then dropped.

While no server answers, the state stays SUSPENDED, however long that takes: only the ensemble
knows whether the session is over (after an outage of the whole ensemble it is not), and it says so at the
next connection. What may be done meanwhile is the lease's business (:mod:`zk.lease`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from kazoo import exceptions as kazoo_errors
from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.hosts import collect_hosts
from kazoo.protocol import connection as kazoo_connection
from kazoo.protocol import serialization as wire
from kazoo.protocol.states import EventType, KazooState, KeeperState, WatchedEvent, ZnodeStat
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE

from kafkalite.edge import Clock
from zk.client import (
    BadVersion,
    Check,
    ConnectionLoss,
    Create,
    Delete,
    MultiFailed,
    NoAuth,
    NodeExists,
    NoNode,
    NotEmpty,
    Op,
    OpResult,
    RolledBack,
    SessionExpired,
    SessionState,
    SetData,
    Stat,
    WatchCallback,
    WatchEvent,
    ZooKeeperError,
)

_log: Final = logging.getLogger(__name__)
"""Takes what kazoo has to say of its attempts, which is much. Where nobody configured logging it is not
printed: what a user must know of a failure is in the exception."""
_log.addHandler(logging.NullHandler())

_CLOSE_PATIENCE_S: Final = 3.0
"""How long a server has to acknowledge the end of a session before the connection is cut."""

_BEATS_PER_TIMEOUT: Final = 7
"""Syncs a session timeout: a little more than the six that are promised, since timers run late."""


class ZooKeeperTls(msgspec.Struct, frozen=True):
    """How to speak TLS to ZooKeeper. Paths of PEM files."""

    ca_file: str | None = None
    """Whom to trust; None: the system's authorities."""
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    verify_certificate: bool = True
    check_hostname: bool = True


class ZooKeeperConfig(msgspec.Struct, frozen=True):
    """Where ZooKeeper is and how to speak to it."""

    connect: str
    """``host:port,host:port/chroot``; the chroot is created where it is missing."""
    session_timeout_ms: int = 18_000
    """What is asked for; the server grants what its limits allow."""
    connection_timeout_ms: int | None = None
    """How long the first connection may take; None: as long as the session timeout."""
    auth: Sequence[tuple[str, str]] = ()
    """(scheme, credential) pairs, such as ``("digest", "user:password")``."""
    sasl: Mapping[str, str] | None = None
    """Options of SASL, such as mechanism, username, password; None: no SASL."""
    tls: ZooKeeperTls | None = None
    max_in_flight_requests: int = 10
    """How many operations may be on their way at a time."""

    @property
    def servers(self) -> str:
        """The connect string without the chroot."""
        return self.connect.partition("/")[0]

    @property
    def chroot(self) -> str:
        """The path that all paths are relative to, without a slash at its end; empty for the root."""
        return (
            "/" + "/".join(step for step in self.connect.split("/")[1:] if step)
            if "/" in self.connect
            else ""
        )


async def connect(config: ZooKeeperConfig, clock: Clock) -> Session:
    """Open a session and make sure that the chroot exists.

    Raises ConnectionLoss where no server grants a session within the connection timeout, NoAuth where
    the credentials are refused, ValueError where the connect string names no server.
    """
    collect_hosts(config.servers)
    session = Session(config, clock)
    try:
        await session._open()
    except BaseException:
        await session.close()
        raise
    return session


# ------------------------------------------------------------------------ kazoo, held to one session


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threading without its worker threads: callbacks run where they arise, and only hand over."""

    def __init__(self, connect_timeout_s: float) -> None:
        super().__init__()
        self._connect_timeout_s = connect_timeout_s

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def dispatch_callback(self, callback: Any) -> None:
        callback.func(*callback.args)

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Bound each attempt, so that one dead host cannot use up the whole session timeout."""
        kwargs["timeout"] = self._connect_timeout_s
        return super().create_connection(*args, **kwargs)


class _Connection(kazoo_connection.ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection, which refuses to open a second session."""

    granted_timeout_ms = 0
    """The session timeout in the last connect answer."""
    last_error = ""
    """What became of the last attempt that failed."""
    _session_id = 0

    def _connect_loop(self, retry: Any) -> Any:
        if self.granted_timeout_ms:
            # The pause between two rounds over the servers: with its jitter of 40 % never more than a
            # tenth of the timeout that the server granted.
            retry.max_delay = self.granted_timeout_ms / 1000 / 14
        return super()._connect_loop(retry)

    def _connect_attempt(self, *args: Any) -> Any:
        if self.client._stopped.is_set():
            return kazoo_connection.STOP_CONNECTING
        try:
            return super()._connect_attempt(*args)
        except Exception as error:  # It ends kazoo's thread: a file of TLS that is missing, for instance.
            self.client.ended_by = f"{type(error).__name__}: {error}"
            raise

    def _connect(self, *args: Any) -> Any:
        if self._session_id and self.client._session_id != self._session_id:
            raise kazoo_errors.SessionExpiredError("this client has had its session")
        try:
            return super()._connect(*args)
        except Exception as error:
            self.last_error = str(error) or type(error).__name__
            raise

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        answer = super()._invoke(timeout, request, xid)
        if isinstance(request, wire.Connect):
            granted = answer[0]
            if granted.time_out > 0:
                if self._session_id and granted.session_id != self._session_id:
                    raise kazoo_errors.SessionExpiredError("the server granted another session")
                self._session_id = granted.session_id
                self.granted_timeout_ms = granted.time_out
        return answer


class _Client(KazooClient):  # type: ignore[misc]
    """kazoo's client, stopped for good by whatever ends its session."""

    ended_by: str = ""
    """Why the session is over, once it is."""
    refused = False
    """Whether the server refused the credentials."""
    on_change: Callable[[str], None]
    """Called on kazoo's thread with each change of its state."""

    def _session_callback(self, state: Any) -> None:
        if state in (KeeperState.EXPIRED_SESSION, KeeperState.AUTH_FAILED, KeeperState.CLOSED):
            if not self.ended_by:
                self.refused = state == KeeperState.AUTH_FAILED
                self.ended_by = {
                    KeeperState.EXPIRED_SESSION: "the server says that the session has expired",
                    KeeperState.AUTH_FAILED: "the server refused the credentials",
                }.get(state, "the connection was shut down")
            # Before kazoo forgets the session's id: from here on it connects no more.
            self._stopped.set()
            self.on_change(KazooState.LOST)
        elif state == KeeperState.CONNECTED:
            self.on_change(KazooState.CONNECTED)
        elif self._state == KeeperState.CONNECTED:
            # Told before kazoo fails what is in flight: whoever is told of a lost connection and tries
            # again must find the session waiting for the next one.
            self.on_change(KazooState.SUSPENDED)
        super()._session_callback(state)

    def end(self, *, gracefully: bool) -> None:
        """End the session if it still lives, and free what the client holds. Blocks."""
        handler = self._connection
        if not self._stopped.is_set():
            self._stopped.set()
            self._queue.append((wire.CloseInstance, None))
            with contextlib.suppress(OSError, AttributeError):
                handler._write_sock.send(b"\0")  # Wakes the connection; gone where it has ended.
        if not gracefully or not handler.connection_stopped.wait(_CLOSE_PATIENCE_S):
            with contextlib.suppress(OSError, AttributeError):
                handler._socket.shutdown(socket.SHUT_RDWR)  # Ends whatever it waits for.
        if handler.stop(self._session_timeout / 1000 + _CLOSE_PATIENCE_S):
            self.close()


# -------------------------------------------------------------------------------------- our side


class _Call:
    """An operation on its way: what kazoo gives the answer to, on its thread."""

    __slots__ = ("answer", "proves_contact", "request", "sent_at", "session", "watch")

    def __init__(
        self, session: Session, request: Any, *, watch: _Watch | None = None, proves_contact: bool = False
    ) -> None:
        self.session = session
        self.request = request
        self.watch = watch
        self.proves_contact = proves_contact
        self.answer: asyncio.Future[Any] = session._loop.create_future()
        self.sent_at = 0.0

    def set(self, value: Any) -> None:
        self.session._hand_over(self.session._answered, self, value, None)

    def set_exception(self, error: BaseException) -> None:
        self.session._hand_over(self.session._answered, self, None, error)


class _Watch:
    """A watch that was asked for; kazoo calls it on its thread when the server tells of a change."""

    __slots__ = ("callback", "path", "session")

    def __init__(self, session: Session, path: str, callback: WatchCallback) -> None:
        self.session = session
        self.path = path
        self.callback = callback

    def __call__(self, event: WatchedEvent) -> None:
        kind = _WATCH_EVENTS.get(event.type)
        if kind is not None:  # The others tell of the connection, which the session knows itself.
            self.session._hand_over(self.session._fire, self, kind)


_WATCH_EVENTS: Final[Mapping[str, WatchEvent]] = {
    EventType.CREATED: WatchEvent.CREATED,
    EventType.DELETED: WatchEvent.DELETED,
    EventType.CHANGED: WatchEvent.DATA_CHANGED,
    EventType.CHILD: WatchEvent.CHILDREN_CHANGED,
}

_LIVE: Final = (SessionState.CONNECTED, SessionState.SUSPENDED)


class Session:
    """A :class:`zk.client.ZooKeeper`. Made by :func:`connect`; to be closed, also after it has expired."""

    def __init__(self, config: ZooKeeperConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._chroot = config.chroot
        self._state = SessionState.SUSPENDED
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.Future[None] | None = None
        self._session_id = 0
        self._timeout_ms = config.session_timeout_ms
        self._last_contact = float("-inf")
        self._connected_at = 0.0
        self._dropping = False
        self._listeners: list[Callable[[SessionState], None]] = []
        # In the order of submission; holds what waits for a connection or for its turn. Bounded by
        # the tasks of this process, each of which waits for its own operation.
        self._waiting: deque[_Call] = deque()
        self._in_flight: dict[_Call, None] = {}
        self._armed: dict[_Watch, None] = {}
        self._missed: dict[_Watch, None] = {}
        self._beat_timer: asyncio.TimerHandle | None = None
        self._client = self._make_client()

    def _make_client(self) -> _Client:
        config, tls = self._config, self._config.tls
        timeout_s = config.session_timeout_ms / 1000
        hosts, _ = collect_hosts(config.servers)
        handler = _Handler(timeout_s / len(hosts))
        options: dict[str, Any] = {}
        if tls is not None:
            options = {
                "use_ssl": True,
                "ca": tls.ca_file,
                "certfile": tls.cert_file,
                "keyfile": tls.key_file,
                "keyfile_password": tls.key_password,
                "verify_certs": tls.verify_certificate,
                "check_hostname": tls.check_hostname and tls.verify_certificate,
            }
        client = _Client(
            hosts=config.servers,
            timeout=timeout_s,
            handler=handler,
            logger=_log,
            auth_data=set(config.auth),
            # Tries for ever: only a server's word ends a session.
            connection_retry=KazooRetry(
                max_tries=-1, delay=min(0.05, timeout_s / 40), max_delay=timeout_s / 14, max_jitter=0.4
            ),
            **options,
        )
        client._connection = _Connection(
            client,
            client._conn_retry.copy(),
            logger=client.logger,
            sasl_options=None if config.sasl is None else dict(config.sasl),
        )
        client.on_change = self._kazoo_state
        return client

    # -------------------------------------------------------------------------- the session

    @property
    def state(self) -> SessionState:
        return self._state

    @property
    def session_id(self) -> int:
        return self._session_id

    @property
    def negotiated_timeout_ms(self) -> int:
        return self._timeout_ms

    @property
    def last_contact(self) -> float:
        return self._last_contact

    def on_state(self, callback: Callable[[SessionState], None]) -> None:
        self._listeners.append(callback)

    async def _open(self) -> None:
        timeout_ms = self._config.connection_timeout_ms or self._config.session_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                self._client.start_async()
                await self._opened
                await self._prepare()
        except TimeoutError:
            last = self._client._connection.last_error
            raise ConnectionLoss(
                f"no ZooKeeper server of {self._config.servers} granted a session within {timeout_ms} ms"
                + (f" ({last})" if last else "")
            ) from None
        except SessionExpired as error:
            raise (NoAuth if self._client.refused else ConnectionLoss)(
                f"ZooKeeper at {self._config.servers}: {error}"
            ) from None

    async def _prepare(self) -> None:
        while True:
            try:
                await self._create_chroot()
                return await self.sync()  # From here on there is contact to speak of.
            except ConnectionLoss:
                continue  # Waits for the next connection; the session is young, but it is one.

    async def _create_chroot(self) -> None:
        steps = self._chroot.split("/")[1:]
        missing = []
        for depth in range(len(steps), 0, -1):
            path = "/" + "/".join(steps[:depth])
            if await self._ask(_Call(self, wire.Exists(path, None))) is not None:
                break
            missing.append(path)
        for path in reversed(missing):
            with contextlib.suppress(NodeExists):  # Another broker starts at the same time.
                await self._ask(_Call(self, wire.Create(path, b"", OPEN_ACL_UNSAFE, 0)))

    async def close(self) -> None:
        if self._closing is None:
            was_connected = self._state is SessionState.CONNECTED
            self._closing = asyncio.ensure_future(
                asyncio.to_thread(self._client.end, gracefully=was_connected)
            )
            if self._state in _LIVE:
                self._end(SessionState.CLOSED, "the session was closed")
        # Not cut short where the caller is cancelled: what frees the client must run to its end.
        await asyncio.shield(self._closing)

    # ------------------------------------------------------- what comes over from kazoo's thread

    def _hand_over(self, function: Callable[..., None], *args: Any) -> None:
        """Have the loop call ``function``; never blocks, whatever the loop is doing."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The loop was closed without closing this session: nobody is left to be told.

    def _kazoo_state(self, state: str) -> None:
        self._hand_over(self._changed, state)

    def _changed(self, kazoo_state: str) -> None:
        if self._state not in _LIVE:
            return
        if kazoo_state == KazooState.CONNECTED:
            self._connected()
        elif kazoo_state == KazooState.SUSPENDED:
            self._suspended()
        else:
            self._end(SessionState.EXPIRED, self._client.ended_by)

    def _connected(self) -> None:
        self._timeout_ms = self._client._connection.granted_timeout_ms
        self._session_id = self._client._connection._session_id
        self._connected_at = self._clock.monotonic()
        self._dropping = False
        self._state = SessionState.CONNECTED
        if not self._opened.done():
            self._opened.set_result(None)
        self._beat()
        self._tell()
        missed, self._missed = self._missed, {}
        for watch in missed:
            watch.callback(watch.path, WatchEvent.RECONNECTED)
        self._pump()

    def _suspended(self) -> None:
        self._state = SessionState.SUSPENDED
        self._stop_beating()
        self._missed.update(self._armed)
        self._armed.clear()
        self._tell()

    def _end(self, state: SessionState, reason: str) -> None:
        self._state = state
        self._stop_beating()
        self._armed.clear()
        self._missed.clear()
        if not self._opened.done():
            self._opened.set_exception(SessionExpired(reason))
            self._opened.exception()  # Somebody may have stopped waiting for it.
        for call in (*self._in_flight, *self._waiting):
            if not call.answer.done():
                call.answer.set_exception(SessionExpired(reason))
        self._in_flight.clear()
        self._waiting.clear()
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener(self._state)

    def _answered(self, call: _Call, value: Any, error: BaseException | None) -> None:
        if call not in self._in_flight:
            return  # The session ended, or kazoo said it twice.
        del self._in_flight[call]
        if call.proves_contact and error is None:
            self._last_contact = max(self._last_contact, call.sent_at)
        if not call.answer.done():  # Its task may have been cancelled.
            if error is not None:
                call.answer.set_exception(_translate(error, call.request))
            else:
                if call.watch is not None:
                    self._armed[call.watch] = None
                call.answer.set_result(value)
        self._pump()

    def _fire(self, watch: _Watch, event: WatchEvent) -> None:
        # kazoo also keeps watches of reads that failed, for which the server has set none.
        if watch in self._armed:
            del self._armed[watch]
            watch.callback(watch.path, event)

    # ---------------------------------------------------------------------------- operations

    async def _ask(self, call: _Call) -> Any:
        if self._state not in _LIVE:
            raise SessionExpired(self._client.ended_by or "the session was closed")
        self._waiting.append(call)
        self._pump()
        return await call.answer

    def _pump(self) -> None:
        """Hand over to kazoo what waits, as far as the bound allows."""
        while (
            self._waiting
            and self._state is SessionState.CONNECTED
            and len(self._in_flight) < self._config.max_in_flight_requests
        ):
            call = self._waiting.popleft()
            if not call.answer.done():  # A cancelled one is not worth sending.
                self._send(call)

    def _send(self, call: _Call) -> None:
        call.sent_at = self._clock.monotonic()
        self._in_flight[call] = None
        self._client._call(call.request, call)

    def _beat(self) -> None:
        """Prove the contact, and drop a connection on which nothing comes back any more."""
        self._stop_beating()
        timeout_s = self._timeout_ms / 1000
        self._beat_timer = self._loop.call_later(timeout_s / _BEATS_PER_TIMEOUT, self._beat)
        oldest = next(iter(self._in_flight), None)
        waited_since = None if oldest is None else max(oldest.sent_at, self._connected_at)
        if waited_since is not None and self._clock.monotonic() - waited_since > timeout_s * 2 / 3:
            # kazoo itself would not notice: it counts our syncs as pings and awaits no answer to them.
            if not self._dropping:
                self._dropping = True
                self._client._call(kazoo_connection._CONNECTION_DROP, _Call(self, None))
        else:
            # Past the queue and the bound: it must not wait for its turn. Nobody waits for its answer.
            call = _Call(self, wire.Sync(self._absolute("/")), proves_contact=True)
            call.answer.cancel()
            self._send(call)

    def _stop_beating(self) -> None:
        if self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None

    def _absolute(self, path: str) -> str:
        if not path.startswith("/") or (path != "/" and path.endswith("/")):
            raise ValueError(f"{path!r} is not a path")
        return (self._chroot + path if path != "/" else self._chroot) or "/"

    def _read(self, make: Any, path: str, watch: WatchCallback | None) -> _Call:
        held = None if watch is None else _Watch(self, path, watch)
        return _Call(self, make(self._absolute(path), held), watch=held)

    async def get(self, path: str, *, watch: WatchCallback | None = None) -> tuple[bytes, Stat]:
        data, stat = await self._ask(self._read(wire.GetData, path, watch))
        return data or b"", _stat(stat)

    async def exists(self, path: str, *, watch: WatchCallback | None = None) -> Stat | None:
        stat = await self._ask(self._read(wire.Exists, path, watch))
        return None if stat is None else _stat(stat)

    async def children(self, path: str, *, watch: WatchCallback | None = None) -> list[str]:
        names: list[str] = await self._ask(self._read(wire.GetChildren, path, watch))
        return names

    async def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        made: str = await self._ask(
            _Call(self, self._request(Create(path, data, ephemeral=ephemeral, sequential=sequential)))
        )
        return made[len(self._chroot) :]

    async def set(self, path: str, data: bytes, *, version: int = -1) -> Stat:
        return _stat(await self._ask(_Call(self, self._request(SetData(path, data, version)))))

    async def delete(self, path: str, *, version: int = -1) -> None:
        await self._ask(_Call(self, self._request(Delete(path, version))))

    async def multi(self, operations: Sequence[Op]) -> list[OpResult]:
        if not operations:
            return []
        requests = [self._request(operation) for operation in operations]
        outcomes = await self._ask(_Call(self, wire.Transaction(requests)))
        failed = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
        if failed:
            errors = [_translate(outcomes[i], requests[i]) for i in failed]
            # The others of a failed multi are told that they were rolled back.
            at = next((n for n, error in enumerate(errors) if not isinstance(error, RolledBack)), 0)
            raise MultiFailed(failed[at], errors[at])
        return [self._result(outcome) for outcome in outcomes]

    def _result(self, outcome: Any) -> OpResult:
        if isinstance(outcome, str):
            return outcome[len(self._chroot) :]
        return _stat(outcome) if isinstance(outcome, ZnodeStat) else None

    async def sync(self, path: str = "/") -> None:
        await self._ask(_Call(self, wire.Sync(self._absolute(path)), proves_contact=True))

    def _request(self, operation: Op) -> Any:
        path = self._absolute(operation.path)
        match operation:
            case Create(data=data, ephemeral=ephemeral, sequential=sequential):
                return wire.Create(path, data, OPEN_ACL_UNSAFE, int(ephemeral) | int(sequential) << 1)
            case SetData(data=data, version=version):
                return wire.SetData(path, data, version)
            case Delete(version=version):
                return wire.Delete(path, version)
            case Check(version=version):
                return wire.CheckVersion(path, version)


def _stat(stat: Any) -> Stat:
    return Stat(
        czxid=stat.czxid,
        mzxid=stat.mzxid,
        version=stat.version,
        cversion=stat.cversion,
        ephemeral_owner=stat.ephemeralOwner,
        ctime_ms=stat.ctime,
        mtime_ms=stat.mtime,
        num_children=stat.numChildren,
        data_length=stat.dataLength,
    )


_ERRORS: Final[Sequence[tuple[type[Exception] | tuple[type[Exception], ...], type[ZooKeeperError]]]] = (
    (kazoo_errors.NoNodeError, NoNode),
    (kazoo_errors.NodeExistsError, NodeExists),
    (kazoo_errors.BadVersionError, BadVersion),
    (kazoo_errors.NotEmptyError, NotEmpty),
    (
        (
            kazoo_errors.NoAuthError,
            kazoo_errors.AuthFailedError,
            kazoo_errors.SessionClosedRequireSaslError,
        ),
        NoAuth,
    ),
    # What follows the failed operation of a multi is reported as an inconsistency.
    ((kazoo_errors.RolledBackError, kazoo_errors.RuntimeInconsistency), RolledBack),
    (kazoo_errors.SessionExpiredError, SessionExpired),
    # A moved session: the request came in over a connection that another has replaced.
    (
        (
            kazoo_errors.ConnectionLoss,
            kazoo_errors.ConnectionClosedError,
            kazoo_errors.OperationTimeoutError,
            kazoo_errors.SessionMovedError,
        ),
        ConnectionLoss,
    ),
)


def _translate(error: BaseException, request: Any) -> ZooKeeperError:
    what = getattr(request, "path", type(request).__name__)
    for theirs, ours in _ERRORS:
        if isinstance(error, theirs):
            return ours(what)
    return ZooKeeperError(f"{what}: {type(error).__name__} {error}".rstrip())
