"""A failed log directory is reported under whatever session there is by then.

Found by the simulation (seed 2021 of "everything"): tried again at once under a session that had ended, the
report kept the loop from ever getting to the end of that session.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from kafkalite.server.broker import Broker
from tests.simulation.loop import run_virtual
from zk.client import SessionExpired


class Session:
    """A store whose session may have ended."""

    def __init__(self, *, is_over: bool) -> None:
        self.is_over = is_over
        self.published: list[int] = []

    async def publish_log_dir_event(self, broker_id: int) -> str:
        if self.is_over:
            raise SessionExpired("it ended")  # At once: nothing is asked of anybody.
        self.published.append(broker_id)
        return "/log_dir_event_notification/log_dir_event_0000000000"


@pytest.mark.timeout(30)
def test_a_session_that_ended_is_left_to_those_who_end_it() -> None:
    old, new = Session(is_over=True), Session(is_over=False)
    broker = Broker.__new__(Broker)
    membership = SimpleNamespace(store=old)
    broker.membership = membership  # type: ignore[assignment]
    broker._identity = SimpleNamespace(broker_id=7)  # type: ignore[assignment]
    broker._failures = asyncio.Event()

    async def story() -> None:
        reporting = asyncio.create_task(broker._report_failures())
        broker._failures.set()
        await asyncio.sleep(0.01)
        membership.store = None  # Somebody else had its turn.
        await asyncio.sleep(10)
        membership.store = new
        async with asyncio.timeout(60):
            while not new.published:
                await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        reporting.cancel()

    run_virtual(story())
    assert new.published == [7]
    assert not broker._failures.is_set()
