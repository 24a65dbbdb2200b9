"""The tasks beside a client's caller."""

from __future__ import annotations

import asyncio

from kafkalite.client.background import Background
from tests.simulation.loop import run_virtual


def test_a_client_whose_start_failed_can_be_started_again() -> None:
    async def main() -> list[str]:
        done: list[str] = []
        background = Background("client", lambda fault: None)
        await background.start()
        await background.stop()
        await background.start()

        async def work() -> None:
            await asyncio.sleep(1)
            done.append("worked")

        background.spawn(work(), "work")
        await asyncio.sleep(2)
        assert background.is_running
        await background.stop()
        return done

    assert run_virtual(main()) == ["worked"]
