"""Every connection of a local cluster through proxies, link by link.

Each broker advertises a proxy before it, which tells callers apart by the client id in their first
request: the other brokers by theirs, everybody else is a client. Each broker has proxies of its own
before each ZooKeeper. What the ZooKeepers say to each other passes none.
"""

from __future__ import annotations

import contextlib
import re
from types import TracebackType
from typing import Final

from kafkalite.cluster.layout import HOST, Layout
from kafkalite.common import Address
from kafkalite.torture.proxy import Direction, Line, TcpProxy

CLIENTS: Final = ""
_CLIENT_ID: Final = re.compile(rb"(?i)\r\nx-client-id:[ \t]*(?:broker|controller)-(\d+)")


class BrokerProxy(TcpProxy):
    """Before one broker; each other broker that calls has a line of its own."""

    identifies = True

    def identify(self, first: bytes) -> str:
        found = _CLIENT_ID.search(first.partition(b"\r\n\r\n")[0])
        return found.group(1).decode() if found is not None else CLIENTS


class Links:
    """The proxies of one cluster. An asynchronous context: they listen inside it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stack = contextlib.AsyncExitStack()
        self._brokers: dict[int, BrokerProxy] = {}
        self._zookeepers: dict[tuple[int, int], TcpProxy] = {}

    async def __aenter__(self) -> Links:
        for broker in self._layout.brokers:
            self._brokers[broker.id] = BrokerProxy(Address(HOST, broker.port))
            await self._stack.enter_async_context(self._brokers[broker.id])
            for zookeeper in self._layout.zookeepers:
                proxy = TcpProxy(Address(HOST, zookeeper.port))
                self._zookeepers[broker.id, zookeeper.id] = proxy
                await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def bootstrap_servers(self) -> str:
        """The brokers, as clients are to know them."""
        return ",".join(str(proxy.address) for proxy in self._brokers.values())

    def overrides(self) -> dict[str, dict[str, str]]:
        """What makes each broker use the proxies: configuration by process name."""
        found = {}
        for broker in self._layout.brokers:
            ensemble = ",".join(
                str(self._zookeepers[broker.id, zookeeper.id].address)
                for zookeeper in self._layout.zookeepers
            )
            found[broker.name] = {
                "advertised.listeners": f"PLAINTEXT://{self._brokers[broker.id].address}",
                "zookeeper.connect": ensemble + self._layout.chroot,
            }
        return found

    def between_brokers(self, broker: int) -> tuple[list[Line], list[Line]]:
        """The links to ``broker`` from the other brokers, and from it to them."""
        others = [node.id for node in self._layout.brokers if node.id != broker]
        return (
            [self._brokers[broker].line(str(other)) for other in others],
            [self._brokers[other].line(str(broker)) for other in others],
        )

    def to_zookeeper(self, broker: int) -> list[Line]:
        """The links from ``broker`` to the ZooKeepers."""
        return [proxy.line() for (one, _), proxy in self._zookeepers.items() if one == broker]

    def from_clients(self, broker: int) -> list[Line]:
        """The links from clients to ``broker``."""
        return [self._brokers[broker].line(CLIENTS)]


class Cut:
    """Something done to some links, and its undoing."""

    def __init__(self, incoming: list[Line], outgoing: list[Line]) -> None:
        """``incoming``: the broker is the server there; ``outgoing``: it is the client."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._met = sum(line.met for line in self._lines)

    @property
    def _lines(self) -> list[Line]:
        return [*self._incoming, *self._outgoing]

    @property
    def met(self) -> int:
        """How much traffic has met it so far."""
        return sum(line.met for line in self._lines) - self._met

    def apply(self, way: str) -> None:
        """Cut in one of the ways of :data:`kafkalite.torture.schedule.KINDS`."""
        match way:
            case "both ways":
                self._hold(into=True, out_of=True)
            case "nothing comes in":
                self._hold(into=True, out_of=False)
            case "nothing goes out" | "no answers":
                self._hold(into=False, out_of=True)
            case "reset":
                for line in self._lines:
                    line.cut()
            case _:
                raise AssertionError(f"links know no {way}")

    def _hold(self, *, into: bool, out_of: bool) -> None:
        """Hold what comes into the broker, what goes out of it, or both."""
        for lines, inwards, outwards in (
            (self._incoming, Direction.TO_SERVER, Direction.TO_CLIENT),
            (self._outgoing, Direction.TO_CLIENT, Direction.TO_SERVER),
        ):
            for line in lines:
                if into:
                    line.hold(inwards)
                if out_of:
                    line.hold(outwards)

    def slow(self, delay_s: float) -> None:
        """Delay every piece of data."""
        for line in self._lines:
            for direction in Direction:
                line.delay_s[direction] = delay_s

    def heal(self) -> None:
        """Undo it."""
        for line in self._lines:
            line.heal()
            for direction in Direction:
                line.delay_s[direction] = 0.0
