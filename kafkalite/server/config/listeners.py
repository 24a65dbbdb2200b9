"""Where a broker listens and what it tells others to connect to.

`listeners` says what to bind, `advertised.listeners` what is registered in ZooKeeper; a listener's
name (upper case, as in Kafka) picks its security protocol from `listener.security.protocol.map`.
Pure parsing: a blank host (every interface; this host's name when advertised) and port 0 (any free
port) are filled in by the broker once it has bound.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final

from kafkalite.common import Endpoint
from kafkalite.server.config.table import SECURITY_PROTOCOLS

_LISTENER: Final = re.compile(r"([^:/,\s]+)://\[?([0-9a-zA-Z\-%._:]*)\]?:([0-9]+)")


def parse_protocol_map(text: str) -> dict[str, str]:
    """Read `listener.security.protocol.map`: listener name to security protocol.

    Raises ValueError.
    """
    found: dict[str, str] = {}
    for item in _items(text):
        name, colon, protocol = (part.strip().upper() for part in item.partition(":"))
        if not colon or not name:
            raise ValueError(f"{item!r} is not LISTENER:PROTOCOL")
        if protocol not in SECURITY_PROTOCOLS:
            raise ValueError(f"{protocol} is no security protocol; there are {', '.join(SECURITY_PROTOCOLS)}")
        if name in found:
            raise ValueError(f"listener {name} is mapped twice")
        found[name] = protocol
    return found


def parse_endpoints(text: str, protocols: Mapping[str, str], *, distinct_ports: bool) -> tuple[Endpoint, ...]:
    """Read `listeners` or `advertised.listeners`.

    ``distinct_ports`` refuses one port for two listeners (port 0, and one IPv4 beside one IPv6
    address, apart), which is what cannot be bound. Raises ValueError.
    """
    endpoints: list[Endpoint] = []
    for item in _items(text):
        match = _LISTENER.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!r} is not NAME://host:port")
        name, host, port = match[1].upper(), match[2], int(match[3])
        if port > 65535:
            raise ValueError(f"{item!r}: there is no port {port}")
        protocol = protocols.get(name)
        if protocol is None:
            raise ValueError(
                f"listener {name} has no security protocol in listener.security.protocol.map, "
                f"which names {', '.join(protocols)}"
            )
        if protocol != "PLAINTEXT":
            raise ValueError(f"listener {name} speaks {protocol}; this version speaks PLAINTEXT only")
        if any(endpoint.listener == name for endpoint in endpoints):
            raise ValueError(f"listener {name} is named twice")
        for other in endpoints:
            if distinct_ports and port != 0 and other.port == port and not _v4_and_v6(host, other.host):
                raise ValueError(f"listeners {other.listener} and {name} have the same port, {port}")
        endpoints.append(Endpoint(name, host, port, protocol))
    if not endpoints:
        raise ValueError("must name at least one listener, such as PLAINTEXT://127.0.0.1:9092")
    return tuple(endpoints)


def is_meta_address(host: str) -> bool:
    """Tell whether ``host`` means "every interface", which nobody can connect to."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether what binds to ``host`` is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def endpoint_names(endpoints: Sequence[Endpoint]) -> str:
    """The listeners' names, for messages."""
    return ", ".join(endpoint.listener for endpoint in endpoints)


def _items(text: str) -> list[str]:
    return [item for item in (part.strip() for part in text.split(",")) if item]


def _v4_and_v6(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one).version != ipaddress.ip_address(other).version
    except ValueError:
        return False
