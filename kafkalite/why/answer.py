"""What a partition is, and why: the state, a chain of causes for each part of it, what can be done.

The state is the one with the highest (leader epoch, partition epoch) that any journal tells of. For
each question (why this leader? why is that replica not in the ISR? why are these records gone?) the
event that made it so is looked up, and its causes are followed to the root. A root that is a broker's
end goes on in that broker's own journal: whether it was stopped, fell silent, or ended without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

import msgspec

from kafkalite.common import BrokerId, TopicPartition
from kafkalite.journal import Event, EventId
from kafkalite.why import words
from kafkalite.why.history import History, Receipt

Question = Literal["leader", "isr", "lost"]

_NO_LEADER: Final = -1
_STATES: Final = (
    *("LeaderElected", "ReplicaWentOffline", "BecameLeader"),
    *("IsrShrunk", "IsrExpanded", "IsrAdopted"),
)
"""The types that tell of a new state of the partition."""
_GONE: Final = ("BrokerFailed", "BrokerFoundAbsent")
"""How a controller learns that a broker is gone."""
_ENDS: Final = (*_GONE, "BrokerBounced")
"""How a controller learns that a life of a broker is over."""
_STEPS: Final = ("LeaderAndIsrSent", "UpdateMetadataSent", "ControllerChanged")
"""Links that only carry a cause on; in a story for people they add nothing."""


class Link(msgspec.Struct, frozen=True):
    """One step of a chain."""

    time: int
    broker: BrokerId
    """In whose journal it stands."""
    text: str
    id: EventId | None
    type: str | None
    """None, like ``id``, where the step was concluded from what the journals do not have."""


class Chain(msgspec.Struct, frozen=True):
    """The answer to one question: the effect first, its root last."""

    question: Question
    about: str
    links: tuple[Link, ...]


class Option(msgspec.Struct, frozen=True):
    """What can be done, and what it costs."""

    action: str
    price: str


class Answer(msgspec.Struct):
    """All that is known of one partition."""

    partition: TopicPartition
    state: Literal["online", "offline", "unknown"]
    """unknown: no journal that could be read tells of it."""
    leader: BrokerId | None = None
    leader_epoch: int | None = None
    since: int | None = None
    """Since when it has had this leader, or none."""
    replicas: tuple[BrokerId, ...] = ()
    isr: tuple[BrokerId, ...] = ()
    chains: list[Chain] = msgspec.field(default_factory=list)
    options: list[Option] = msgspec.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For programs; times in milliseconds."""
        return {
            "topic": self.partition.topic,
            "partition": self.partition.partition,
            "state": self.state,
            "leader": self.leader,
            "leader_epoch": self.leader_epoch,
            "since": self.since,
            "replicas": list(self.replicas),
            "isr": list(self.isr),
            "answers": [
                {
                    "question": chain.question,
                    "about": chain.about,
                    "chain": [
                        {
                            "id": link.id,
                            "time": link.time,
                            "broker": link.broker,
                            "type": link.type,
                            "text": link.text,
                        }
                        for link in chain.links
                    ],
                }
                for chain in self.chains
            ],
            "options": [{"action": option.action, "price": option.price} for option in self.options],
        }


class _State(msgspec.Struct, frozen=True):
    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    event: Event


def explain(history: History, partition: TopicPartition, *, silent: Collection[int] = ()) -> Answer:
    """Answer for ``partition``. ``silent``: brokers that were asked just now and did not answer."""
    events = history.of(partition)
    states = _states(events)
    if not states:
        return Answer(partition, "unknown", replicas=history.replicas(partition))
    last = states[-1]
    replicas = history.replicas(partition) or tuple(BrokerId(one) for one in sorted(last.isr))
    changed = _last_change_of_leader(states)
    answer = Answer(
        partition,
        state="offline" if last.leader == _NO_LEADER else "online",
        leader=None if last.leader == _NO_LEADER else BrokerId(last.leader),
        leader_epoch=last.leader_epoch,
        since=changed.event.time,
        replicas=replicas,
        isr=tuple(BrokerId(one) for one in last.isr),
    )
    answer.chains.append(_why_leader(history, events, last, changed, silent))
    answer.chains += _why_isr(history, states, replicas, silent)
    answer.chains += _why_lost(history, events, partition, silent)
    if answer.leader is None:
        answer.options = _options(history, answer, silent)
    elif answer.leader in silent and not _is_live(history, answer.leader, silent):
        answer.options = [
            Option(
                f"wait: the controller elects another leader once the session of broker {answer.leader} ends",
                "loses nothing that was acknowledged with acks=all",
            )
        ]
    return answer


# --- the state ---------------------------------------------------------------------------


def _states(events: Sequence[Event]) -> list[_State]:
    """The states that the partition went through, in the order of their epochs."""
    found: dict[tuple[int, int], _State] = {}
    for event in events:
        if event.type not in _STATES:
            continue
        facts = event.facts
        epoch, version = facts["leader_epoch"], facts.get("partition_epoch", 0)
        leader = facts.get("leader", event.broker)
        # Of several that tell of the same state the one that made it stands for it.
        if (epoch, version) not in found or found[epoch, version].event.type == "BecameLeader":
            found[epoch, version] = _State(leader, epoch, version, tuple(facts["isr"]), event)
    return [found[key] for key in sorted(found)]


def _last_change_of_leader(states: Sequence[_State]) -> _State:
    """Where the present leader (or its absence) began."""
    for before, state in zip(reversed(states[:-1]), reversed(states[1:]), strict=True):
        if before.leader != state.leader:
            return state
    return states[0]


# --- the questions -----------------------------------------------------------------------


def _why_leader(
    history: History, events: Sequence[Event], last: _State, changed: _State, silent: Collection[int]
) -> Chain:
    if last.leader != _NO_LEADER:
        return Chain("leader", f"broker {last.leader} leads", _chain(history, changed.event, silent))
    links = _chain(history, changed.event, silent)
    refused = [
        event for event in events if event.type == "NoLeaderElected" and event.time >= changed.event.time
    ]
    if refused:
        links = (_link(refused[-1]), *links)
    return Chain("leader", "nobody leads", links)


def _why_isr(
    history: History, states: Sequence[_State], replicas: Sequence[int], silent: Collection[int]
) -> list[Chain]:
    last = states[-1]
    missing = [one for one in replicas if one not in last.isr]
    chains = []
    for replica in missing:
        left = next(
            (
                state
                for before, state in zip(reversed(states[:-1]), reversed(states[1:]), strict=True)
                if replica in before.isr and replica not in state.isr
            ),
            None,
        )
        about = f"broker {replica} is not in the ISR"
        if left is None:
            chains.append(Chain("isr", f"{about}, as far back as the journals go", ()))
            continue
        links = _chain(history, left.event, silent)
        end = _end_of(history, replica, left.event)
        if end is not None and all(one.id != end.id for one in links):
            links = (_link(left.event), *_chain(history, end, silent))
        chains.append(Chain("isr", about, links))
    if not missing and len(states) > 1:
        joined = next((state.event for state in reversed(states) if state.event.type == "IsrExpanded"), None)
        if joined is not None:
            chains.append(Chain("isr", "every replica is in the ISR", (_link(joined),)))
    return chains


def _end_of(history: History, replica: int, event: Event) -> Event | None:
    """The end of ``replica`` that the controller knew of when it wrote ``event``.

    An election drops every member that is gone, and names the end of the leader alone as its cause.
    """
    if event.type != "LeaderElected":
        return None
    found = None
    for one in history.of_broker(event.broker):
        if one.time > event.time:
            break
        if one.facts.get("broker") == replica and one.type in (*_ENDS, "BrokerStarted"):
            found = one if one.type in _ENDS else None
    return found


def _why_lost(
    history: History, events: Sequence[Event], partition: TopicPartition, silent: Collection[int]
) -> list[Chain]:
    born = events[0].time
    receipts = [
        one
        for one in history.receipts
        if one.topic == partition.topic and one.partition == partition.partition and one.time >= born
    ]
    covered = {receipt.cause for receipt in receipts}
    chains = []
    for receipt in receipts:
        cause = history.find(receipt.cause)
        what = words.records(receipt.first_offset, receipt.last_offset)
        about = f"broker {receipt.broker} threw away {what} of leader epoch {receipt.leader_epoch}"
        if cause is None:
            chains.append(Chain("lost", about, (_receipt_link(receipt),)))
            continue
        links = _because_of_election(history, events, cause, receipt.leader_epoch, silent)
        chains.append(Chain("lost", about + _committed(cause), links))
    for event in events:
        if event.type == "RecordsLost" and event.id not in covered:
            what = words.records(event.facts["first_offset"], event.facts["last_offset"])
            about = f"broker {event.broker} threw away {what}" + _committed(event)
            epoch = min(event.facts.get("epochs", [0]))
            links = _because_of_election(history, events, event, epoch, silent)
            chains.append(Chain("lost", about, links))
    return chains


def _because_of_election(
    history: History, events: Sequence[Event], lost: Event, epoch: int, silent: Collection[int]
) -> tuple[Link, ...]:
    """``lost``, and the election that put a leader without those records of ``epoch`` in charge.

    That it happened when it did has other causes (the broker came back and was told to follow); why
    it had to happen is the election: an unclean one if there was one, else the next.
    """
    elections = [
        event
        for event in events
        if event.type == "LeaderElected" and event.facts["leader_epoch"] > epoch and event.time <= lost.time
    ]
    unclean = [event for event in elections if event.facts.get("strategy") == "unclean"]
    if not elections:
        return _chain(history, lost, silent)
    return (_link(lost), *_chain(history, (unclean or elections)[0], silent))


def _committed(event: Event) -> str:
    """What a `RecordsLost` says of whether consumers can have seen them."""
    watermark = event.facts.get("high_watermark")
    first, last = event.facts.get("first_offset"), event.facts.get("last_offset")
    if watermark is None or first is None or last is None:
        return ""
    if first >= watermark:
        return f", all beyond its high watermark {watermark}: acks=all had acknowledged none that it knew of"
    count = min(last + 1, watermark) - first
    return f", {count} of them below its high watermark {watermark}: consumers may have seen those"


def _options(history: History, answer: Answer, silent: Collection[int]) -> list[Option]:
    live = {one for one in answer.replicas if _is_live(history, one, silent)}
    options = []
    away = [one for one in answer.isr if one not in live]
    for one in away:
        options.append(Option(f"start broker {one}", "loses nothing that was committed"))
    for one in answer.isr:
        if one in live:
            options.append(
                Option(
                    f"mend the log directory of broker {one} and restart it",
                    "loses nothing that is on it still",
                )
            )
    others = [one for one in answer.replicas if one in live and one not in answer.isr]
    if others:
        options.append(
            Option(
                f"set unclean.leader.election.enable=true on {answer.partition.topic}: "
                f"broker {others[0]} then leads",
                f"loses every record that only {words.brokers(answer.isr)} had, acknowledged ones too",
            )
        )
    return options


# --- chains ------------------------------------------------------------------------------


def _chain(history: History, event: Event, silent: Collection[int]) -> tuple[Link, ...]:
    """``event``, its causes, and what the journal of a broker that failed says itself."""
    causes = history.causes(event)
    links = [_link(one) for one in causes if one.type not in _STEPS or one is event]
    root = causes[-1]
    failed = next((one for one in causes if one.type in _ENDS), None)
    if failed is not None:
        links += _fate(history, failed.facts["broker"], failed, silent)
    elif root.cause is not None:
        links.append(
            Link(
                root.time,
                root.broker,
                f"what led to that (event {root.cause}) stands in a journal that could not be read",
                None,
                None,
            )
        )
    return tuple(links)


def _link(event: Event) -> Link:
    return Link(event.time, event.broker, words.sentence(event), event.id, event.type)


def _receipt_link(receipt: Receipt) -> Link:
    return Link(receipt.time, receipt.broker, f"to agree with its leader: {receipt.reason}", None, None)


def _fate(history: History, broker: int, failed: Event, silent: Collection[int]) -> list[Link]:
    """What happened to ``broker`` itself when ``failed`` was written about it."""
    own = history.of_broker(BrokerId(broker))
    before = [event for event in own if event.time <= failed.time]
    after = [event for event in own if event.time > failed.time]
    goodbye = next((event for event in reversed(before) if _ends_life(event)), None)
    life = before[-1].id.rpartition("-")[0] if before else None
    if goodbye is not None and goodbye.id.rpartition("-")[0] == life:
        return [Link(goodbye.time, goodbye.broker, f"broker {broker} was stopped", goodbye.id, goodbye.type)]
    # It may have noticed before the controller did, or, if it was stopped in its tracks, much later.
    registrations = [index for index, event in enumerate(before) if event.type == "BrokerRegistered"]
    since = registrations[-1] if registrations else 0
    noticed = next((event for event in (*before[since:], *after) if _tells_of_trouble(event)), None)
    if noticed is not None and noticed.id.rpartition("-")[0] == life:
        return [_link(noticed)]
    if noticed is not None:
        text = f"broker {broker} had ended without a word (killed, or its machine was); it was started again"
        return [Link(noticed.time, noticed.broker, text, noticed.id, noticed.type)]
    if before:
        text = f"broker {broker}'s last word was {before[-1].type}; nothing has been heard from it since"
        return [Link(before[-1].time, BrokerId(broker), text, None, None)]
    return [Link(failed.time, failed.broker, f"the journal of broker {broker} could not be read", None, None)]


def _tells_of_trouble(event: Event) -> bool:
    """The broker noticed that it was cut off or that a disk is broken, or it began a new life."""
    match event.type:
        case "LeaseExpired" | "LogDirFailed" | "RegistrationVanished":
            return True
        case "SessionStateChanged":
            return event.facts["state"] in ("suspended", "expired")
        case "BrokerStateChanged":
            return "STARTING" in event.facts.values()
        case _:
            return False


def _ends_life(event: Event) -> bool:
    """The broker said itself that it ends."""
    return event.type == "BrokerStateChanged" and event.facts.get("after") in (
        *("PENDING_CONTROLLED_SHUTDOWN", "SHUTTING_DOWN", "NOT_RUNNING"),
    )


def _is_live(history: History, broker: int, silent: Collection[int]) -> bool:
    """Registered, as far as the journals tell, and not known to be silent."""
    if broker in silent:
        return False
    live = False
    for event in history.events:
        about = event.facts.get("broker") == broker
        own = event.broker == broker
        if (own and event.type == "BrokerRegistered") or (about and event.type == "BrokerStarted"):
            live = True
        elif (own and _ends_life(event)) or (about and event.type in _GONE):
            live = False
    return live


# --- for people --------------------------------------------------------------------------


def text(answer: Answer) -> list[str]:
    """The answer as lines."""
    name = f"{answer.partition.topic}/{answer.partition.partition}"
    if answer.state == "unknown":
        return [f"{name}  no journal that could be read tells of this partition"]
    assert answer.since is not None
    if answer.leader is None:
        lines = [f"{name}  OFFLINE since {words.clock(answer.since)} (leader epoch {answer.leader_epoch})"]
    else:
        lines = [
            f"{name}  led by broker {answer.leader} since {words.clock(answer.since)} "
            f"(leader epoch {answer.leader_epoch})"
        ]
    lines.append(f"  replicas {words.ids(answer.replicas)}   ISR {words.ids(answer.isr)}")
    for chain in answer.chains:
        lines.append(f"  {chain.question}: {chain.about}")
        for index, link in enumerate(chain.links):
            lead = "because" if index else "       "
            lines.append(f"    {words.clock(link.time)} {lead} {link.text}")
    if not any(chain.question == "lost" for chain in answer.chains):
        lines.append("  lost: nothing that a journal or a receipt tells of")
    for letter, option in zip("abcdefghijklmnopqrstuvwxyz", answer.options, strict=False):
        lead = "options" if letter == "a" else "       "
        lines.append(f"  {lead} {letter}) {option.action}: {option.price}")
    return lines
