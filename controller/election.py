"""Who leads next: the election strategies, and what a restart does to a partition's state.

Each strategy takes the partition as the facts stand and answers with the new leader and ISR, or
None where nobody qualifies (then nothing is written). The leader epoch grows with every decision,
so that no two leaderships share one.

Beside Kafka's rules stands one of ours. A broker whose registration is younger than the state that
names it in the ISR has restarted since, perhaps without a part of its log. It is treated as a
failed member: members that did not restart come first, and the new ISR is made of those. Only where
every live member restarted is the leader chosen among them; the ISR is then kept, because none of
them has a better claim than another. Otherwise one leader epoch could have two lives, and a record
acknowledged in the first could be missing in the second.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from kafkalite.common import NO_LEADER, BrokerId, ControllerEpoch, LeaderAndIsr, LeaderEpoch

RECOVERED = 0
RECOVERING = 1
INITIAL_LEADER_EPOCH = LeaderEpoch(0)


class Strategy(enum.Enum):
    """Why a leader is elected, which decides who may be one."""

    OFFLINE = "offline"
    """The leader is gone (or restarted)."""
    PREFERRED = "preferred"
    """The first assigned replica takes back its leadership."""
    CONTROLLED_SHUTDOWN = "controlled shutdown"
    """The leader is about to stop."""
    REASSIGN = "reassign"
    """The leader is not among the target replicas."""


class Facts(msgspec.Struct, frozen=True):
    """A partition as an election sees it."""

    assigned: Sequence[BrokerId]
    """In order of preference."""
    state: LeaderAndIsr
    is_online: Callable[[BrokerId], bool]
    """Broker live and log directory online."""
    has_restarted: Callable[[BrokerId], bool]
    """Registered after the last write of ``state``."""

    @property
    def fresh(self) -> tuple[BrokerId, ...]:
        """Live ISR members that did not restart, in ISR order."""
        return tuple(b for b in self.state.isr if self.is_online(b) and not self.has_restarted(b))

    @property
    def names_a_restarted_broker(self) -> bool:
        """Whether the state's word on its leader or an ISR member is outdated by a registration."""
        return any(self.has_restarted(b) for b in {self.state.leader, *self.state.isr} if b != NO_LEADER)


class Outcome(msgspec.Struct, frozen=True):
    """What an election decided."""

    leader: BrokerId
    isr: tuple[BrokerId, ...]
    leader_recovery_state: int = RECOVERED
    is_unclean: bool = False


def elect_initial(assigned: Sequence[BrokerId], is_online: Callable[[BrokerId], bool]) -> Outcome | None:
    """Elect the first leader of a new partition: all live replicas are in sync (the log is empty)."""
    live = tuple(broker for broker in assigned if is_online(broker))
    return Outcome(live[0], live) if live else None


def elect_offline(facts: Facts, *, unclean_allowed: bool) -> Outcome | None:
    """Elect after the leader failed.

    First among live ISR members that did not restart (they are the new ISR), else among live ISR
    members that did (the ISR is kept), else, if ``unclean_allowed``, among live replicas.
    """
    fresh = facts.fresh
    for broker in facts.assigned:
        if broker in fresh:
            return Outcome(broker, fresh, facts.state.leader_recovery_state)
    for broker in facts.assigned:
        if broker in facts.state.isr and facts.is_online(broker):
            return Outcome(broker, facts.state.isr, facts.state.leader_recovery_state)
    if unclean_allowed:
        for broker in facts.assigned:
            if facts.is_online(broker):
                return Outcome(broker, (broker,), RECOVERING, is_unclean=True)
    return None


def elect_preferred(facts: Facts) -> Outcome | None:
    """Elect the first assigned replica if it is live and in sync."""
    if facts.assigned and facts.assigned[0] in facts.fresh:
        return Outcome(facts.assigned[0], _without_restarted(facts), facts.state.leader_recovery_state)
    return None


def elect_reassigned(facts: Facts, target: Sequence[BrokerId]) -> Outcome | None:
    """Elect the first target replica that is live and in sync."""
    for broker in target:
        if broker in facts.fresh:
            return Outcome(broker, _without_restarted(facts), facts.state.leader_recovery_state)
    return None


def elect_controlled_shutdown(
    facts: Facts, *, is_shutting_down: Callable[[BrokerId], bool]
) -> Outcome | None:
    """Elect another leader than the brokers that are about to stop, which leave the ISR.

    ``facts.is_online`` counts brokers that are shutting down as live here.
    """
    for broker in facts.assigned:
        if broker in facts.fresh and not is_shutting_down(broker):
            isr = tuple(b for b in _without_restarted(facts) if not is_shutting_down(b))
            return Outcome(broker, isr, facts.state.leader_recovery_state)
    return None


def _without_restarted(facts: Facts) -> tuple[BrokerId, ...]:
    """The ISR, less those whom no ISR written from now on may name."""
    return tuple(broker for broker in facts.state.isr if not facts.has_restarted(broker))


def remove_from_isr(facts: Facts, gone: BrokerId) -> LeaderAndIsr | None:
    """Take a replica that went offline out of the ISR: the state to be written, or None for none.

    The leader becomes -1 if it was the one that is gone; a single last member stays in the ISR,
    since only it is known to hold every acknowledged record. The leader epoch grows.
    Members that restarted leave too, unless nobody would remain.
    """
    state = facts.state
    if gone not in state.isr:
        return None
    leader = NO_LEADER if state.leader == gone else state.leader
    rest = tuple(b for b in state.isr if b != gone)
    fresh = tuple(b for b in rest if not facts.has_restarted(b))
    isr = state.isr if not rest else fresh or rest
    if leader not in isr:
        leader = NO_LEADER  # It restarted: who leads next is for an election to say.
    return replace(state, leader=leader, isr=isr, leader_epoch=LeaderEpoch(state.leader_epoch + 1))


def decided(state: LeaderAndIsr, outcome: Outcome, controller_epoch: ControllerEpoch) -> LeaderAndIsr:
    """The state to be written for ``outcome``: one leader epoch on, by this controller."""
    return replace(
        state,
        leader=outcome.leader,
        leader_epoch=LeaderEpoch(state.leader_epoch + 1),
        isr=outcome.isr,
        controller_epoch=controller_epoch,
        leader_recovery_state=outcome.leader_recovery_state,
    )
