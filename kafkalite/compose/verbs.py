"""The verbs of `scripts/compose`: do it, wait until the cluster has answered, tell how.

When a cluster has answered depends on the deed. After a broker is lost to ZooKeeper: when the others
know it for gone, agree on another controller, and it leads no partition any more. After it is only cut
off from the other brokers: when the ISRs of the partitions that the others lead are without it. After
anything is mended: when every broker is registered and every partition whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from kafkalite.compose import faults
from kafkalite.compose.answer import Answer, tell
from kafkalite.compose.project import NETWORKS, OVERLAYS, NoProject, Project, Service
from kafkalite.compose.view import View, look, now_ms, read_history
from kafkalite.why import words

_POLL_S: Final = 0.3
_MOST_BROKERS: Final = 5
_CHECK_S: Final = 3.0
"""For a leader to write what it decided, and for us to see it."""


class Unanswered(Exception):
    """The deed was done and is in force, but the cluster has not answered in time."""


class Refused(Exception):
    """A safety check says no. The message says why, and what would happen."""


class Deed(msgspec.Struct, frozen=True):
    """What was done, the proof that it holds, and how the cluster answered."""

    what: str
    proofs: tuple[str, ...]
    answer: Answer

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "proofs": list(self.proofs), "answer": self.answer.to_json()}


class Verbs:
    """The verbs on one project. Each takes at most ``timeout_s`` for the cluster's answer."""

    def __init__(self, project: Project, *, say: Callable[[str], None], timeout_s: float) -> None:
        self._project = project
        self._say = say
        self._timeout_s = timeout_s

    # Making and removing

    def up(self, overlays: Sequence[str], *, build: bool = False) -> Deed:
        """Make and start what is missing; return when every broker serves and every partition is whole."""
        missing = self._project.image_missing()
        if missing is not None:
            self._say(
                f"Neither the images nor {missing} are on this engine, so a registry will be asked; "
                "where none can be reached, run compose/base-image first."
            )
        since = now_ms()
        arguments = ["up", "-d", *(["--build"] if build else [])]
        self._project.compose(overlays or self._present_overlays(), *arguments)
        return self._mended("the containers are up", [], since, View(frozenset(), {}, {}, {}))

    def down(self, *, volumes: bool) -> None:
        """Stop and remove all containers and networks; with ``volumes`` the data too."""
        self._project.compose(
            self._present_overlays(), "down", "--remove-orphans", *(["-v"] if volumes else [])
        )
        if volumes:
            for volume in self._project.volumes():  # Of overlays that were in use once.
                volume.remove()

    def scale(self, brokers: int, *, force: bool) -> Deed:
        """Let exactly brokers 1 to ``brokers`` run. Raises Refused where that would take partitions away."""
        if not 1 <= brokers <= _MOST_BROKERS:
            raise Refused(f"the compose files know brokers 1 to {_MOST_BROKERS}")
        present = {service.id: service for service in self._project.brokers()}
        leaving = [present[id] for id in sorted(present, reverse=True) if id > brokers]
        before, since = self._view(), now_ms()
        gone = {service.id for service in leaving}
        taken = [part.name for part in before.broken if not set(part.isr) - gone]
        taken += [part.name for part in before.agreed or () if not set(part.isr) - gone]
        if taken and not force:
            raise Refused(
                f"{', '.join(sorted(set(taken)))} would have no leader: nobody else is in the ISR. "
                "Move the replicas first, or say --force"
            )
        proofs = []
        for service in leaving:
            self._say(f"stopping {service.name}")
            proofs.append(f"{service.name}: {faults.stop(service)}")
            service.container.remove()
        new = [f"broker-{id}" for id in range(1, brokers + 1) if id not in present]
        if new:
            overlays = [one for one in OVERLAYS if one in {*self._present_overlays(), "five"}]
            self._project.compose(overlays, "up", "-d", "--no-recreate", *new)
        what = f"brokers 1 to {brokers} run" if brokers > 1 else "broker 1 runs"
        if leaving:
            return self._lost(what, proofs, since, before, [one.id for one in leaving])
        return self._mended(what, proofs, since, before)

    # Breaking

    def kill(self, names: Sequence[str]) -> Deed:
        """End containers at once."""
        return self._break(names, "killed", faults.kill)

    def pause(self, names: Sequence[str]) -> Deed:
        """Freeze containers."""
        return self._break(names, "paused", faults.pause)

    def partition(self, names: Sequence[str], away_from: str) -> Deed:
        """Cut containers off: from `zookeeper`, from `brokers`, or from `all`."""
        services = self._project.services(names)
        before, since, proofs = self._view(), now_ms(), []
        for service in services:
            networks = NETWORKS[service.kind] if away_from == "all" else (away_from,)
            proofs.append(f"{service.name}: {faults.partition(self._project, service, networks)}")
        what = f"{_list(services)} cut off from {away_from if away_from != 'all' else 'everything'}"
        brokers = [service.id for service in services if service.kind == "broker"]
        if away_from == "brokers":
            return self._lagging(what, proofs, since, before, brokers)
        return self._lost(what, proofs, since, before, brokers)

    def slow(self, names: Sequence[str], *, delay_ms: int | None, cpus: float | None) -> Deed:
        """Delay the packets, or take CPU away, or both. The cluster need not answer that at all."""
        services = self._project.services(names)
        before, since, proofs = self._view(), now_ms(), []
        for service in services:
            if delay_ms is not None:
                proofs.append(f"{service.name}: {faults.delay(self._project, service, delay_ms)}")
            if cpus is not None:
                proofs.append(f"{service.name}: {faults.limit_cpu(service, cpus)}")
        return self._tell(f"{_list(services)} slowed down", proofs, since, before)

    # Mending

    def resume(self, names: Sequence[str]) -> Deed:
        """Let paused containers go on; return when the cluster is whole again."""
        services = self._project.services(names)
        before, since = self._view(), now_ms()
        proofs = [f"{service.name}: {faults.resume(service)}" for service in services]
        return self._mended(f"{_list(services)} resumed", proofs, since, before)

    def heal(self, names: Sequence[str]) -> Deed:
        """Undo every fault, of these containers or of all; return when the cluster is whole again."""
        services = self._project.services(names)
        before, since, proofs = self._view(), now_ms(), []
        for service in services:
            proofs += [f"{service.name}: {done}" for done in faults.heal(self._project, service)]
        for service in services:
            proofs += [f"{service.name}: {done}" for done in faults.undelay(self._project, service)]
        return self._mended("healed" if proofs else "nothing was broken", proofs, since, before)

    def rolling_restart(self, names: Sequence[str]) -> Deed:
        """Restart brokers one by one, the controller last; each is in every ISR again before the next goes.

        Raises Refused where a partition is not whole to begin with: its availability would be at stake.
        """
        before, since = self._view(), now_ms()
        brokers = self._project.services(names) if names else self._project.brokers()
        if any(one.kind != "broker" for one in brokers):
            raise Refused("rolling-restart is for brokers; a ZooKeeper is restarted with kill and heal")
        if before.broken or len(before.answering) < len(self._project.brokers()):
            raise Refused(
                f"the cluster is not whole ({_names(before) or 'a broker does not answer'}): heal it first"
            )
        proofs = []
        for broker in sorted(brokers, key=lambda one: (one.id == before.controller, one.id)):
            self._say(f"restarting {broker.name}")
            proofs.append(f"{broker.name}: {faults.stop(broker)}")
            faults.start(broker)
            self._wait(self._is_whole, f"{broker.name} to serve and to be in every ISR again")
        return self._mended("every broker restarted, one after the other", proofs, since, before)

    # How the cluster answers

    def _break(self, names: Sequence[str], verb: str, fault: Callable[[Service], str]) -> Deed:
        services = self._project.services(names)
        before, since = self._view(), now_ms()
        proofs = [f"{service.name}: {fault(service)}" for service in services]
        lost = [service.id for service in services if service.kind == "broker"]
        return self._lost(f"{_list(services)} {verb}", proofs, since, before, lost)

    def _lost(self, what: str, proofs: Sequence[str], since: int, before: View, lost: Sequence[int]) -> Deed:
        """Wait until the other brokers know ``lost`` for gone and have done what follows from it."""

        def has_answered() -> bool:
            others = [id for id in self._running_brokers() if id not in lost]
            view = self._view().of(others)
            if not others:
                return True
            return (
                set(view.answering) == set(others)
                and view.controller is not None
                and view.controller not in lost
                and all(not known & set(lost) for known in view.registered.values())
                and view.agreed is not None
                and all(part.leader not in lost for part in view.agreed)
                and all(
                    not set(part.isr) - set(lost) or not set(part.isr) & set(lost) for part in view.agreed
                )
            )

        self._wait(has_answered, "the other brokers to take over")
        return self._tell(what, proofs, since, before, lost)

    def _lagging(
        self, what: str, proofs: Sequence[str], since: int, before: View, cut: Sequence[int]
    ) -> Deed:
        """Wait until the ISRs of what other brokers lead are without ``cut``.

        A follower that has all there is stays in the ISR however long it is away; so after the time
        within which a lagging one is noticed, what is not written to is taken for answered.
        """

        def has_answered() -> bool:
            others = [id for id in self._running_brokers() if id not in cut]
            parts = [part for one in self._view().of(others).partitions.values() for part in one]
            return bool(parts) and all(
                not set(part.isr) & set(cut) for part in parts if part.leader in others
            )

        try:
            self._wait(has_answered, "", at_most_s=1.5 * self._lag_s() + _CHECK_S)
        except Unanswered:
            proofs = [*proofs, "a replica stays in the ISR of a partition that nobody writes to"]
        return self._tell(what, proofs, since, before, cut)

    def _lag_s(self) -> float:
        """`replica.lag.time.max.ms`, in seconds. Leaders look every half of it."""
        settings = [one.setting("KAFKALITE_REPLICA_LAG_TIME_MAX_MS") for one in self._project.brokers()]
        return max(int(one or 30_000) for one in settings) / 1000

    def _mended(self, what: str, proofs: Sequence[str], since: int, before: View) -> Deed:
        self._wait(self._is_whole, "every broker to serve and every partition to be whole")
        self._wait(self._ensemble_is_well, "every ZooKeeper to serve")
        return self._tell(what, proofs, since, before)

    def _is_whole(self) -> bool:
        """Every running broker serves, all know all and agree, and every partition is whole."""
        everyone = set(self._running_brokers())
        view = self._view()
        return (
            set(view.answering) == everyone
            and view.controller is not None
            and all(known == everyone for known in view.registered.values())
            and view.agreed is not None
            and not view.broken
        )

    def _ensemble_is_well(self) -> bool:
        return all(
            faults.is_well(one)
            for one in self._project.services()
            if one.kind == "zookeeper" and one.status == "running"
        )

    def _tell(
        self, what: str, proofs: Sequence[str], since: int, before: View, apart: Sequence[int] = ()
    ) -> Deed:
        """Read the journals. What brokers ``apart`` believe of the cluster as it is now does not count."""
        view = self._view()
        after = view.of([id for id in view.answering if id not in apart])
        history, silent = read_history(self._project.brokers())
        answer = tell(history, since=since, before=before, after=after, silent=silent)
        return Deed(what, tuple(proofs), answer)

    def _wait(self, condition: Callable[[], bool], what: str, *, at_most_s: float | None = None) -> None:
        deadline = time.monotonic() + min(self._timeout_s, at_most_s or self._timeout_s)
        while not condition():
            if time.monotonic() > deadline:
                now = self._view()
                raise Unanswered(
                    f"timed out after {self._timeout_s:g} s, waiting for {what}; answering: "
                    f"{words.brokers(sorted(now.answering))}; not whole: {_names(now) or 'nothing'}"
                )
            time.sleep(_POLL_S)

    def _view(self) -> View:
        return look([one for one in self._project.brokers() if one.status == "running"])

    def _running_brokers(self) -> list[int]:
        return [one.id for one in self._project.brokers() if one.status == "running"]

    def _present_overlays(self) -> list[str]:
        try:
            return self._project.overlays()
        except NoProject:
            return []


def _list(services: Sequence[Service]) -> str:
    return ", ".join(service.name for service in services)


def _names(view: View) -> str:
    return ", ".join(part.name for part in view.broken)
