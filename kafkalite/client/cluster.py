"""A client's way to the cluster: which broker to ask, and metadata that stays fresh.

The bootstrap addresses serve until the first answer; then brokers are asked at the addresses they
advertise, and the bootstrap addresses are fallen back upon only when none of those answers. Every
address remembers its last failed attempt, backs off exponentially (with jitter), and is named in the
error when nothing answers (:class:`~kafkalite.client.errors.ClusterUnreachableError`).

Metadata is refreshed by one task: by age, or when somebody found it wrong. The first such request
is served at once; refreshes that bring nothing new are spaced out exponentially.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from kafkalite.client.background import Background
from kafkalite.client.errors import Attempt, ClientTimeoutError, ClusterUnreachableError
from kafkalite.client.metadata import Metadata, Node
from kafkalite.common import Address
from kafkalite.edge import Clock, ConnectionFailed, Transport
from kafkalite.protocol.message import Message
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse, MetadataTopic
from kafkalite.transport import rpc

Response = TypeVar("Response", bound=Message)

DEFAULT_PORT: Final = 9092
RECONNECT_BACKOFF_MS: Final = 50
RECONNECT_BACKOFF_MAX_MS: Final = 1000
FIRST_METADATA_TIMEOUT_MS: Final = 2000
"""How long a broker may take to answer a metadata request before another one is asked; doubles with
every round in which none did, up to `request_timeout_ms`. A paused broker costs this, not 30 s."""


def parse_bootstrap(servers: str | Sequence[str]) -> tuple[Address, ...]:
    """Read `host:port,host:port` or a sequence of `host:port`; the port may be left out (9092).

    Raises ValueError naming the entry that is not an address.
    """
    entries = servers.split(",") if isinstance(servers, str) else list(servers)
    found = []
    for entry in (entry.strip() for entry in entries):
        if not entry:
            continue
        if entry.startswith("["):
            host, bracket, rest = entry[1:].partition("]")
            valid, port = bool(bracket) and rest[:1] in ("", ":"), rest[1:]
        elif entry.count(":") > 1:  # A bare IPv6 address.
            host, port, valid = entry, "", True
        else:
            host, _, port = entry.partition(":")
            valid = True
        number = int(port) if port.isascii() and port.isdigit() else DEFAULT_PORT if not port else 0
        if not valid or not host or not 0 < number < 65536:
            raise ValueError(f"bootstrap_servers: {entry!r} is not host:port")
        found.append(Address(host, number))
    if not found:
        raise ValueError("bootstrap_servers: no address in it")
    return tuple(dict.fromkeys(found))


def backoff_ms(failures: int, first_ms: int, max_ms: int, chance: random.Random) -> float:
    """How long to wait after the ``failures``-th failure in a row: doubling, ±20 % jitter (KIP-580)."""
    base = first_ms << min(failures - 1, 30)
    return min(base, max_ms) * chance.uniform(0.8, 1.2)


class _Failure(msgspec.Struct):
    error: str
    at: float
    count: int
    """Failures in a row."""
    retry_at: float


class Cluster:
    """Asks brokers on behalf of a producer, consumer or admin client."""

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str],
        client_id: str,
        transport: Transport,
        clock: Clock,
        chance: random.Random,
        request_timeout_ms: int,
        metadata_max_age_ms: int,
        retry_backoff_ms: int,
        retry_backoff_max_ms: int,
        allow_auto_create_topics: bool,
    ) -> None:
        self.bootstrap = parse_bootstrap(bootstrap_servers)
        self.client_id = client_id
        self.clock = clock
        self.chance = chance
        self.request_timeout_ms = request_timeout_ms
        self.retry_backoff_ms = retry_backoff_ms
        self.retry_backoff_max_ms = retry_backoff_max_ms
        self.metadata = Metadata()
        self._transport = transport
        self._max_age_ms = metadata_max_age_ms
        self._auto_create = allow_auto_create_topics
        self._topics: dict[str, None] = {}
        self._every_topic = False
        self._failures: dict[Address, _Failure] = {}
        self._failed_rounds = 0
        self._wanted = asyncio.Event()
        self._asked = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._listeners: list[Callable[[], None]] = []
        self._correlation = 0

    # --- Interest ------------------------------------------------------------------------------

    def want(self, topics: Iterable[str]) -> None:
        """Keep metadata of ``topics`` from now on; new ones are asked for at once."""
        new = [topic for topic in topics if topic not in self._topics]
        if new:
            self._topics.update(dict.fromkeys(new))
            self.request_refresh()

    def want_only(self, topics: Iterable[str], *, every_topic: bool = False) -> None:
        """Keep metadata of ``topics`` alone, or of all there are."""
        self._topics = dict.fromkeys(topics)
        self._every_topic = every_topic
        self.request_refresh()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every change of the metadata."""
        self._listeners.append(listener)

    def changed(self) -> None:
        """Tell the listeners; for whoever gave the metadata a hint that was news."""
        for listener in self._listeners:
            listener()

    # --- Metadata ------------------------------------------------------------------------------

    async def begin(self, background: Background) -> None:
        """Start a client: its background tasks' home, and what it knows of the cluster.

        Raises ClusterUnreachableError when no known address answers; then nothing is left open, and it may
        be tried again.
        """
        await background.start()
        try:
            await self.bootstrap_once()
        except BaseException:  # A start that is cancelled leaves nothing open either.
            await background.stop()
            await self._transport.disconnect()
            raise

    async def bootstrap_once(self) -> None:
        """Learn of the cluster; each known address is tried once.

        Raises ClusterUnreachableError when none answers.
        """
        await self._refresh()

    def request_refresh(self) -> None:
        """Have metadata refreshed soon; does not wait."""
        self._asked += 1
        self._wanted.set()

    async def refreshed(self) -> None:
        """Wait for an answer to a metadata request that was sent after this call.

        Waits as long as it takes; the caller bounds it.
        """
        self.request_refresh()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._asked, future))
        await future

    @property
    def is_failing(self) -> bool:
        """Whether nobody answered the last metadata request."""
        return self._failed_rounds > 0

    def raise_timeout(self, what: str, timeout_ms: float) -> NoReturn:
        """Raise what fits when time ran out: nobody reachable, or only the wrong answers."""
        message = f"{what} within {timeout_ms:g} ms"
        if self._failed_rounds:
            raise self.unreachable(message) from None
        raise ClientTimeoutError(message) from None

    async def keep_fresh(self) -> None:
        """Refresh metadata by age and on request, until cancelled."""
        loop = asyncio.get_running_loop()
        idle_rounds = 0
        last = self.clock.monotonic()
        while True:
            timer = loop.call_later(self._max_age_ms / 1000, self._wanted.set)
            try:
                await self._wanted.wait()
            finally:
                timer.cancel()
            since_ms = (self.clock.monotonic() - last) * 1000
            if since_ms > self.retry_backoff_max_ms:
                idle_rounds = 0
            if idle_rounds:
                wait = backoff_ms(idle_rounds, self.retry_backoff_ms, self.retry_backoff_max_ms, self.chance)
                await asyncio.sleep(max(0.0, wait - since_ms) / 1000)
            self._wanted.clear()
            asked = self._asked
            try:
                changed = await self._refresh()
            except ClusterUnreachableError:
                # Kept per address, and told to whoever runs out of time waiting for metadata.
                self._wanted.set()
                idle_rounds += 1
                last = self.clock.monotonic()
                continue
            idle_rounds = 0 if changed else idle_rounds + 1
            last = self.clock.monotonic()
            still_waiting = []
            for ticket, future in self._waiting:
                if ticket > asked:
                    still_waiting.append((ticket, future))
                elif not future.done():
                    future.set_result(None)
            self._waiting = still_waiting

    async def _refresh(self) -> bool:
        every_topic = self._every_topic
        topics = None if every_topic else [MetadataTopic(name=name) for name in self._topics]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=self._auto_create)
        answer = await self.ask_any(request, MetadataResponse)
        changed = self.metadata.update(answer, every_topic=every_topic)
        if changed:
            self.changed()
        return changed

    # --- Asking --------------------------------------------------------------------------------

    async def ask_any(
        self, request: Message, response: type[Response], *, timeout_ms: int | None = None
    ) -> Response:
        """Ask one broker after the other until one answers.

        Each may take ``timeout_ms``, by default a short time that grows while nobody answers.
        Raises ClusterUnreachableError when each known address was tried once in vain.
        """
        short = min(self.request_timeout_ms, FIRST_METADATA_TIMEOUT_MS << min(self._failed_rounds, 10))
        for address in self._candidates():
            try:
                answer = await self.ask_address(
                    address, request, response, lane="control", timeout_ms=timeout_ms or short
                )
            except ConnectionFailed:
                continue  # Remembered per address by ask_address.
            except rpc.RequestRefused as error:
                self._failed(address, str(error))
                continue
            self._failed_rounds = 0
            return answer
        self._failed_rounds += 1
        raise self.unreachable("no broker answers")

    def _candidates(self) -> list[Address]:
        """All known addresses, likeliest first: brokers before bootstrap, healthy before failed."""
        advertised = [node.address for node in self.metadata.nodes.values()]
        bootstrap = [address for address in self.bootstrap if address not in advertised]
        self.chance.shuffle(advertised)
        self.chance.shuffle(bootstrap)
        return sorted(advertised + bootstrap, key=self.backs_off_until)

    def ask(
        self, node: Node, request: Message, response: type[Response], *, lane: str, timeout_ms: int
    ) -> Coroutine[Any, Any, Response]:
        """Ask one broker; raises what :meth:`ask_address` raises."""
        return self.ask_address(node.address, request, response, lane=lane, timeout_ms=timeout_ms)

    async def ask_address(
        self, address: Address, request: Message, response: type[Response], *, lane: str, timeout_ms: int
    ) -> Response:
        """Ask at ``address``. Raises ConnectionFailed or RequestRefused, and remembers either."""
        self._correlation += 1
        try:
            answer = await rpc.ask(
                self._transport,
                address,
                request,
                lane=lane,
                timeout_ms=timeout_ms,
                client_id=self.client_id,
                correlation_id=str(self._correlation),
            )
        except ConnectionFailed as error:
            self._failed(address, error.reason)
            raise
        except rpc.UnreadableAnswer as error:
            self._failed(address, str(error))
            raise ConnectionFailed(address, str(error)) from error
        except rpc.RequestRefused as error:
            if error.status == 503:
                self._failed(address, str(error))
            raise
        self._failures.pop(address, None)
        assert isinstance(answer, response)
        return answer

    def _failed(self, address: Address, error: str) -> None:
        now = self.clock.monotonic()
        before = self._failures.get(address)
        if before is not None and now < before.retry_at:
            before.error = error  # Requests that were in flight together fail together: one failure.
            return
        count = before.count + 1 if before is not None else 1
        wait = backoff_ms(count, RECONNECT_BACKOFF_MS, RECONNECT_BACKOFF_MAX_MS, self.chance)
        self._failures[address] = _Failure(error, now, count, now + wait / 1000)

    def backs_off_until(self, address: Address) -> float:
        """The monotonic time before which ``address`` should be left alone; 0 where it is healthy."""
        failure = self._failures.get(address)
        return failure.retry_at if failure is not None else 0.0

    def unreachable(self, message: str) -> ClusterUnreachableError:
        """The error that names each failed address, the advertised addresses, and one hint."""
        now = self.clock.monotonic()
        owner = {node.address: node.node_id for node in self.metadata.nodes.values()}
        attempts = [
            Attempt(address, failure.error, int((now - failure.at) * 1000), owner.get(address))
            for address, failure in self._failures.items()
        ]
        return ClusterUnreachableError(message, attempts, [str(n) for n in self.metadata.nodes.values()])

    async def close(self) -> None:
        """Give up the connections for good; who waits for metadata is cancelled."""
        for _, future in self._waiting:
            future.cancel()
        await self._transport.close()
