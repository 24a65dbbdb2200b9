"""A broker as a process: the real edges, the signals, the exit code.

SIGTERM and SIGINT are a controlled shutdown and exit 0; a second one does not hurry it. A start
that fails is one line on stderr and exit 1, and so is whatever ends a running broker.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys

import uvloop

from kafkalite.edge import SystemClock, ThreadOffload, system_random
from kafkalite.log.files import DiskFiles
from kafkalite.server.broker import AllLogDirsFailed, Edges, StartFailed, leaves, run_broker
from kafkalite.server.config import BrokerConfig
from kafkalite.server.http import HttpNetwork
from kafkalite.server.malloc import tune_process
from kafkalite.server.membership import Replaced
from kafkalite.transport.http import HttpTransport
from zk.client import ZooKeeper
from zk.session import connect

_logger = logging.getLogger(__name__)


def main(config: BrokerConfig) -> int:
    """Run one broker in the foreground until a signal ends it; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Until the broker runs, what ZooKeeper's client has to say is said by the start's outcome, in one line.
    logging.getLogger("zk.session").setLevel(logging.CRITICAL)
    try:
        uvloop.run(_run(config))
    except StartFailed as error:
        print(f"kafkalite broker: {error}", file=sys.stderr)
        return 1
    except BaseExceptionGroup as group:
        causes = leaves(group)
        if not all(isinstance(one, Replaced | AllLogDirsFailed) for one in causes):
            _logger.error("the broker ends", exc_info=group)  # A defect: where it happened matters.
        words = "; ".join(f"{type(one).__name__}: {one}" for one in causes)
        print(f"kafkalite broker: ended by {words}", file=sys.stderr)
        return 1
    return 0


async def _run(config: BrokerConfig) -> None:
    stop, running = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    broker = asyncio.create_task(run_broker(config, _edges(config), stop, running=running), name="broker")
    started = asyncio.create_task(running.wait(), name="started")
    # A signal during the start ends it: nothing has been promised to anybody yet.
    stopped = asyncio.create_task(stop.wait(), name="stopped")
    await asyncio.wait({broker, started, stopped}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    stopped.cancel()
    if not running.is_set() and stop.is_set():
        broker.cancel()
        await asyncio.wait({broker})
        return
    if running.is_set():
        tune_process()
        logging.getLogger("zk.session").setLevel(logging.WARNING)
        _logger.info("broker started")
    await broker


def _edges(config: BrokerConfig) -> Edges:
    clock = SystemClock()
    zookeeper = config.zookeeper_config()

    async def connect_zookeeper() -> ZooKeeper:
        return await connect(zookeeper, clock)

    return Edges(
        clock=clock,
        offload=ThreadOffload(),
        chance=system_random(),
        transport=HttpTransport(),
        network=HttpNetwork(
            idle_ms=config.connections_max_idle_ms, backlog=config.socket_listen_backlog_size
        ),
        files=DiskFiles(),
        connect_zookeeper=connect_zookeeper,
        host_name=socket.getfqdn(),
    )
