"""The tests of connections run on both loops: what they hand to a protocol, and when, differs."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

ON_BOTH_LOOPS = {"test_http.py", "test_connection.py"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
