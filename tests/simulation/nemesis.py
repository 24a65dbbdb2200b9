"""Breaks a cluster in every way that it can be broken, as the seed has it.

Each fault is a coroutine: it does its harm, lets it last, and undoes it. Several run at once. What
really happened is counted by name (a pause of a node that is down is none).
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable, Mapping

from zk import paths
from zk.client import ConnectionLoss, NoNode

from .cluster import LOG_DIRS, Cluster, Node, eventually
from .pace import AT_ONCE_S, Pace


class Nemesis:
    """Draws faults by weight and applies them until it is stopped."""

    def __init__(
        self,
        cluster: Cluster,
        weights: Mapping[str, float],
        *,
        pause_s: float,
        lull_s: float,
        pace: Pace,
        is_calm: Callable[[], bool],
        clients: Callable[[], list[str]],
    ) -> None:
        """``weights``: names of :meth:`faults` and how often each is to be drawn; ``pause_s`` is the
        mean time between two in a storm, ``lull_s`` the mean time between two storms (0: it never ends).
        ``pace`` is told of what happens. ``is_calm`` tells whether every partition is whole and every
        broker up: faults that are allowed one at a time wait for it. ``clients`` names the clients'
        processes."""
        self._cluster = cluster
        self._chance = cluster.draw()
        self._pause_s = pause_s
        self._lull_s = lull_s
        self._pace = pace
        self._is_calm = is_calm
        self._clients = clients
        faults = self.faults()
        self._drawn = [faults[name] for name in weights]
        self._weights = list(weights.values())
        self._held: set[int] = set()
        """Brokers that a fault keeps down for now; others are restarted by the supervisor."""

    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every fault by its name."""
        return {
            "crash": self.crash,
            "crash in a call": self.crash_in_a_call,
            "quick restart": self.quick_restart,
            "power cut": self.power_cut,
            "power cut, one at a time": self.power_cut_alone,
            "crash of all": self.crash_all,
            "controller crash": self.controller_crash,
            "controller and leader crash": self.controller_and_other_crash,
            "stop": self.stop,
            "pause": self.pause,
            "pause of the controller": self.pause_controller,
            "cut between brokers": self.cut_brokers,
            "one-way cut between brokers": self.cut_brokers_one_way,
            "isolation": self.isolate,
            "cut from zookeeper": self.cut_zookeeper,
            "one-way cut from zookeeper": self.cut_zookeeper_one_way,
            "cut from clients": self.cut_clients,
            "session expiry": self.expire,
            "suspended session": self.suspend,
            "lost reply": self.lose_reply,
            "lost request": self.lose_request,
            "slow zookeeper": self.slow_zookeeper,
            "contested ISR": self.contest_isr,
            "controller deposed": self.depose_controller,
            "ensemble away": self.ensemble_away,
            "slow links": self.slow_links,
            "slow disk": self.slow_disk,
            "disk error": self.disk_error,
            "clock jump": self.clock_jump,
        }

    async def run(self) -> None:
        """Break things until cancelled; then what was broken is undone by :meth:`heal`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.supervise(), name="supervisor")
            while True:
                for _ in range(self._chance.randrange(2, 9)):
                    await asyncio.sleep(self._chance.expovariate(1 / self._pause_s))
                    (fault,) = self._chance.choices(self._drawn, self._weights)
                    tasks.create_task(self._apply(fault), name="fault")
                if self._lull_s > 0:
                    self._pace.is_lull = True
                    await asyncio.sleep(self._chance.uniform(0.2, 1.8) * self._lull_s)
                    self._pace.is_lull = False

    async def _apply(self, fault: Callable[[], Awaitable[None]]) -> None:
        """Break something amid dense traffic; there is some, too, when it is mended."""
        self._pace.stir()
        await asyncio.sleep(self._chance.uniform(0.0, self._chance.choice([AT_ONCE_S, 0.5])))
        await fault()
        self._pace.stir()

    async def supervise(self) -> None:
        """Restart brokers that have ended by themselves, as an init system would."""
        while True:
            await asyncio.sleep(1)
            for node in self._cluster.nodes.values():
                if not node.is_up and node.broker_id not in self._held:
                    node.disk.heal()
                    node.start()

    async def heal(self) -> None:
        """Undo everything: links, sessions, disks; brokers that stand still or are down go on."""
        self._held.clear()
        self._pace.is_lull = False
        self._pace.stir()
        self._cluster.network.heal()
        self._cluster.zookeeper.start()
        for node in self._cluster.nodes.values():
            node.disk.heal()
            node.disk.crash_at(None)
            node.offload.max_delay_s = 0.002
            node.mend_zookeeper()
            for session in node.sessions:
                session.lag_s = 0.0
            node.resume()
            if node.has_failed_dirs:
                node.crash()
            if not node.is_up:
                node.start()

    # --- helpers -------------------------------------------------------------------------

    def _count(self, name: str) -> None:
        self._cluster.counts[name] += 1

    def _node(self) -> Node:
        return self._chance.choice(list(self._cluster.nodes.values()))

    def _running(self) -> Node | None:
        running = [node for node in self._cluster.nodes.values() if node.running.is_set() and node.is_up]
        return self._chance.choice(running) if running else None

    def _controller(self) -> Node | None:
        for node in self._cluster.nodes.values():
            if node.broker is not None and node.broker.controller.is_active:
                return node
        return None

    def _time(self, least: float, most: float) -> float:
        """Mostly short, now and then long."""
        return least + (most - least) * self._chance.random() ** 2

    async def _down_for(self, nodes: list[Node], seconds: float) -> None:
        held = [node.broker_id for node in nodes if node.broker_id not in self._held]
        self._held.update(held)
        await asyncio.sleep(seconds)
        self._held.difference_update(held)
        for node in nodes:
            if not node.is_up and node.broker_id not in self._held:
                node.disk.heal()
                node.start()

    # --- processes and machines ----------------------------------------------------------

    async def crash(self) -> None:
        node = self._node()
        if node.is_up:
            self._count("crash")
            node.crash()
            await self._down_for([node], self._time(0.1, 20))

    async def quick_restart(self) -> None:
        """Back long before the session of the former life times out: perhaps nobody sees it."""
        node = self._node()
        if node.is_up:
            self._count("quick restart")
            node.crash()
            await self._down_for([node], self._chance.uniform(0.01, 0.5))

    async def crash_in_a_call(self) -> None:
        """In the middle of one of the next disk operations; counted by the node when it comes."""
        node = self._running()
        if node is not None:
            after = self._chance.choice([None, self._chance.randrange(300)])
            node.crash_in_a_call(self._chance.randrange(40), after_bytes=after, power=None)

    async def power_cut(self) -> None:
        node = self._node()
        if node.is_up:
            self._count("power cut")
            node.lose_power(random.Random(self._chance.getrandbits(64)))
            await self._down_for([node], self._time(0.1, 20))

    async def power_cut_alone(self) -> None:
        """The only fault of its time: from a whole cluster until it is whole again."""
        if not self._is_calm():
            return
        node = self._node()
        self._count("power cut, one at a time")
        node.lose_power(self._chance.choice([None, random.Random(self._chance.getrandbits(64))]))
        await self._down_for([node], self._time(0.1, 20))

    async def crash_all(self) -> None:
        nodes = [node for node in self._cluster.nodes.values() if node.is_up]
        if nodes:
            self._count("crash of all")
            for node in nodes:
                node.crash()
            async with asyncio.TaskGroup() as tasks:
                for node in nodes:
                    tasks.create_task(self._down_for([node], self._time(0.1, 10)))

    async def controller_crash(self) -> None:
        node = self._controller()
        if node is not None:
            self._count("controller crash")
            node.crash()
            await self._down_for([node], self._time(0.1, 15))

    async def controller_and_other_crash(self) -> None:
        """The controller and another broker at once; the other is back before anybody rules again."""
        controller = self._controller()
        others = [node for node in self._cluster.nodes.values() if node is not controller and node.is_up]
        if controller is not None and others:
            self._count("controller and leader crash")
            other = self._chance.choice(others)
            controller.crash()
            other.crash()
            await self._down_for([other], self._chance.uniform(0.01, 1))
            await self._down_for([controller], self._time(1, 15))

    async def stop(self) -> None:
        """An orderly end, and a start."""
        node = self._running()
        if node is not None and not node.is_paused:
            self._count("stop")
            node.stop()
            self._held.add(node.broker_id)
            for _ in range(60):
                await asyncio.sleep(0.5)
                if not node.is_up:
                    break
            await self._down_for([node], self._time(0.1, 5))
            self._held.discard(node.broker_id)

    async def _pause(self, node: Node | None) -> None:
        if node is not None and node.is_up and not node.is_paused:
            self._count("pause")
            process = node.process
            seconds = self._chance.choice([self._time(0.1, 5), self._chance.uniform(5, 25)])
            node.pause()
            await asyncio.sleep(seconds)
            if node.process is process:
                if seconds > 6:
                    self._count("zombie resumed")
                node.resume()

    async def pause(self) -> None:
        await self._pause(self._node())

    async def pause_controller(self) -> None:
        await self._pause(self._controller())

    # --- the network ---------------------------------------------------------------------

    def _two(self) -> tuple[Node, Node]:
        one, other = self._chance.sample(list(self._cluster.nodes.values()), 2)
        return one, other

    async def _cut(self, links: list[tuple[str, str]], seconds: float) -> None:
        for source, target in links:
            self._cluster.network.cut(source, target)
        self._cluster.note(f"cut: {', '.join('->'.join(link) for link in links)}")
        await asyncio.sleep(seconds)
        for source, target in links:
            self._cluster.network.mend(source, target)
        self._cluster.note(f"mended: {', '.join('->'.join(link) for link in links)}")

    async def cut_brokers(self) -> None:
        one, other = self._two()
        self._count("cut between brokers")
        await self._cut([(one.name, other.name), (other.name, one.name)], self._time(0.5, 25))

    async def cut_brokers_one_way(self) -> None:
        one, other = self._two()
        self._count("one-way cut between brokers")
        await self._cut([(one.name, other.name)], self._time(0.5, 25))

    async def isolate(self) -> None:
        """One broker from all the others, both ways; ZooKeeper and clients still reach it."""
        node = self._node()
        others = [other.name for other in self._cluster.nodes.values() if other is not node]
        self._count("isolation")
        links = [(node.name, other) for other in others] + [(other, node.name) for other in others]
        await self._cut(links, self._time(0.5, 25))

    async def cut_clients(self) -> None:
        """One broker from some clients, one way or both."""
        node = self._node()
        clients = self._clients()
        some = self._chance.sample(clients, self._chance.randrange(1, len(clients) + 1))
        links = [(client, node.name) for client in some]
        if self._chance.random() < 0.5:
            links = [(target, source) for source, target in links]
        elif self._chance.random() < 0.5:
            links += [(target, source) for source, target in links]
        self._count("cut from clients")
        await self._cut(links, self._time(0.5, 15))

    async def slow_links(self) -> None:
        """Everything between one broker and the others takes long."""
        node = self._node()
        self._count("slow links")
        delay = self._chance.choice([20.0, 200.0, 800.0])
        slow = self._cluster.network.slow
        links = [
            link
            for other in self._cluster.nodes.values()
            if other is not node
            for link in ((node.name, other.name), (other.name, node.name))
        ]
        for link in links:
            slow[link] = delay
        await asyncio.sleep(self._time(1, 20))
        for link in links:
            slow.pop(link, None)

    # --- ZooKeeper -----------------------------------------------------------------------

    async def cut_zookeeper(self) -> None:
        await self._cut_zookeeper("cut from zookeeper", up=True, down=True)

    async def cut_zookeeper_one_way(self) -> None:
        """A broker is not heard, or hears nothing: then what it writes takes effect without its knowing."""
        up = self._chance.random() < 0.5
        await self._cut_zookeeper("one-way cut from zookeeper", up=up, down=not up)

    async def _cut_zookeeper(self, name: str, *, up: bool, down: bool) -> None:
        node = self._node()
        if not node.is_cut_from_zookeeper:
            self._count(name)
            ways = " and ".join(way for way, is_cut in (("to", up), ("from", down)) if is_cut)
            self._cluster.note(f"{node.name} is cut {ways} zookeeper")
            node.cut_from_zookeeper(up=up, down=down)
            await asyncio.sleep(self._time(0.5, 25))
            node.mend_zookeeper()
            self._cluster.note(f"{node.name} reaches zookeeper again")

    async def expire(self) -> None:
        session = self._node().session
        if session is not None:
            self._count("session expiry")
            self._cluster.note(f"session {session.session_id:#x} expires")
            self._cluster.expire(session)

    async def suspend(self) -> None:
        node = self._node()
        session = node.session
        if session is not None and not node.is_cut_from_zookeeper:
            self._count("suspended session")
            self._cluster.note(f"{node.name}'s session is suspended")
            self._cluster.zookeeper.suspend(session)
            await asyncio.sleep(self._time(0.1, 8))
            if not node.is_cut_from_zookeeper:
                self._cluster.zookeeper.resume(session)

    async def lose_reply(self) -> None:
        """The next few writes of a broker take effect, and it does not hear of it."""
        node = self._node()
        for _ in range(self._chance.randrange(1, 4)):
            if node.session is not None:
                self._count("lost reply set")
                self._cluster.zookeeper.lose_reply(node.session)
            await asyncio.sleep(self._time(0.1, 3))

    async def lose_request(self) -> None:
        node = self._node()
        if node.session is not None:
            self._count("lost request set")
            self._cluster.zookeeper.lose_request(node.session)

    async def slow_zookeeper(self) -> None:
        """Every message between one broker and the ensemble takes long: what it reads is old, what it
        writes comes late."""
        node = self._node()
        session = node.session
        if session is not None:
            self._count("slow zookeeper")
            session.lag_s = self._chance.choice([0.1, 0.5, 1.5])
            self._cluster.note(f"{node.name} and zookeeper are {session.lag_s} s apart")
            await asyncio.sleep(self._time(1, 30))
            session.lag_s = 0.0

    async def contest_isr(self) -> None:
        """Leader and controller want to change one state at the same time: the leader drops a follower
        that it is cut from, slowly, while a session ends."""
        leader, follower = self._two()
        session = leader.session
        if session is None or not follower.is_up:
            return
        self._count("contested ISR")
        session.lag_s = self._chance.uniform(0.2, 0.8)
        links = [(leader.name, follower.name), (follower.name, leader.name)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cut(links, self._chance.uniform(6, 12)))
            await asyncio.sleep(self._chance.uniform(3, 8))
            victim = self._chance.choice([leader, follower, self._node()]).session
            if victim is not None:
                self._cluster.note(f"session {victim.session_id:#x} expires")
                self._cluster.expire(victim)
            if self._chance.random() < 0.5:
                self._cluster.zookeeper.lose_reply(session)
            await asyncio.sleep(self._chance.uniform(1, 5))
            session.lag_s = 0.0

    async def depose_controller(self) -> None:
        """An operator deletes /controller, as is done to force an election: two rule for a while."""
        try:
            operator = await self._cluster.zookeeper.connect(60_000)
            await operator.delete(paths.CONTROLLER)
            self._count("controller deposed")
            self._cluster.note("an operator deletes /controller")
            await operator.close()
        except (NoNode, ConnectionLoss):
            pass  # There is none to depose at the moment, or nobody to ask.

    async def ensemble_away(self) -> None:
        self._count("ensemble away")
        self._cluster.note("zookeeper is away")
        self._cluster.zookeeper.stop()
        await asyncio.sleep(self._time(0.5, 15))
        self._cluster.zookeeper.start()
        self._cluster.note("zookeeper is back")

    # --- disks and clocks ----------------------------------------------------------------

    async def slow_disk(self) -> None:
        node = self._node()
        self._count("slow disk")
        node.offload.max_delay_s = self._chance.choice([0.05, 0.5, 3.0])
        await asyncio.sleep(self._time(1, 20))
        node.offload.max_delay_s = 0.002

    async def disk_error(self) -> None:
        """One of the next operations in one log directory fails; it is offline until the broker restarts."""
        node = self._running()
        if node is None:
            return
        self._count("disk error set")
        directory = self._chance.choice(LOG_DIRS)
        operation = self._chance.choice(["write", "write", "write", "fsync", "rename", "fsync_dir"])
        node.disk.fail(
            operation,
            f"{directory}/*.log" if operation == "write" else f"{directory}*",
            error=self._chance.choice([errno.EIO, errno.ENOSPC]),
            skip=self._chance.randrange(4),
            written=self._chance.randrange(200),
        )
        self._cluster.note(f"{node.name}: a {operation} in {directory} is to fail")
        try:
            await eventually(lambda: node.has_failed_dirs, within_s=20, every_s=0.5)
        except TimeoutError:
            pass  # Nothing of the kind was done there, or both directories had failed and it is down.
        await asyncio.sleep(self._time(2, 15))
        node.disk.heal()
        if node.has_failed_dirs and not node.is_paused:
            self._count("restart with a mended disk")
            self._chance.choice([node.crash, node.stop])()
            await self._down_for([node], self._time(0.1, 5))

    async def clock_jump(self) -> None:
        """The wall clock only; monotonic time does not jump."""
        node = self._node()
        self._count("clock jump")
        node.clock.skew_ms = self._chance.randrange(-30_000, 30_001)
        self._cluster.note(f"{node.name}'s wall clock is off by {node.clock.skew_ms} ms")
