"""One event as a sentence, for people who know Kafka's words but not this code's.

Every type that can stand in a partition's chain of causes has its sentence; any other is shown as
it is: its name and its facts, which loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kafkalite.journal import Event


def sentence(event: Event) -> str:
    """What happened, in words, without when."""
    words = _SENTENCES.get(event.type)
    return words(event, event.facts) if words is not None else _as_it_is(event)


def brokers(ids: Iterable[int]) -> str:
    """`broker 1`, `brokers 1 and 2`, `brokers 1, 2 and 3`, `no broker`"""
    names = [str(id) for id in ids]
    if not names:
        return "no broker"
    if len(names) == 1:
        return f"broker {names[0]}"
    return f"brokers {', '.join(names[:-1])} and {names[-1]}"


def ids(found: Iterable[int]) -> str:
    """`1,2,3`, or `none`"""
    return ",".join(str(id) for id in found) or "none"


def seconds(milliseconds: float) -> str:
    """`3.2 s`"""
    return f"{milliseconds / 1000:.1f} s"


def clock(time_ms: int) -> str:
    """The time of day in UTC: `14:03:07.250Z`."""
    rest, ms = divmod(time_ms, 1000)
    return f"{rest // 3600 % 24:02}:{rest // 60 % 60:02}:{rest % 60:02}.{ms:03}Z"


def records(first_offset: int, last_offset: int) -> str:
    """`offset 5 (1 record)`, `offsets 5-9 (5 records)`; both ends inclusive."""
    if first_offset == last_offset:
        return f"offset {first_offset} (1 record)"
    return f"offsets {first_offset}-{last_offset} ({last_offset - first_offset + 1} records)"


def _as_it_is(event: Event) -> str:
    facts = " ".join(f"{name}={json.dumps(value)}" for name, value in event.facts.items())
    return f"{event.type} {facts}".rstrip()


def _leader_elected(event: Event, facts: Mapping[str, Any]) -> str:
    leader, epoch, isr = facts["leader"], facts["leader_epoch"], ids(facts["isr"])
    was = facts.get("old_leader", -1)
    match facts.get("strategy"):
        case "initial":
            why = "as the first live replica of a new partition"
        case "restart":
            why = "because a broker that the state named had restarted unseen"
        case "unclean":
            why = "although it was not in the ISR: an unclean election"
        case "preferred":
            why = "as the preferred leader"
        case "controlled shutdown":
            why = f"because broker {was} asked to be relieved before it stops"
        case _:
            why = "as the first live replica in the ISR"
    before = f" after broker {was}" if was >= 0 and was != leader else ""
    return (
        f"controller {event.broker} made broker {leader} the leader{before}, {why} "
        f"(leader epoch {epoch}, ISR {isr})"
    )


def _no_leader_elected(event: Event, facts: Mapping[str, Any]) -> str:
    isr = facts.get("isr") or []
    if not isr:
        return f"controller {event.broker} found no leader: {facts.get('reason', 'no replica is live')}"
    if facts.get("strategy") == "controlled shutdown":
        return (
            f"controller {event.broker} found nobody in the ISR {ids(isr)} to take over from the broker "
            "that stops"
        )
    live = set(facts.get("live_brokers", []))
    others = [one for one in facts.get("replicas", []) if one in live and one not in isr]
    text = (
        f"controller {event.broker} found no leader: of the ISR {ids(isr)} nobody "
        "is live, and unclean election is off"
    )
    return f"{text}, so live {brokers(others)} may not lead" if others else text


def _replica_went_offline(event: Event, facts: Mapping[str, Any]) -> str:
    replica, isr, was = facts["replica"], facts["isr"], facts["old_isr"]
    what = []
    if replica in was and replica not in isr:
        what.append(f"took broker {replica} out of the ISR ({ids(was)} became {ids(isr)})")
    elif replica in was:
        what.append(f"kept broker {replica} as the ISR's last member")
    if facts["leader"] == -1:
        what.append("left the partition without a leader")
    return f"controller {event.broker} {' and '.join(what) or f'noted that replica {replica} is offline'}"


def _isr_shrunk(event: Event, facts: Mapping[str, Any]) -> str:
    was, isr = facts["isr_before"], facts["isr"]
    gone = [one for one in was if one not in isr]
    lags = {lag["broker"]: lag for lag in facts.get("lagging", [])}
    details = []
    for one in gone:
        lag = lags.get(one)
        if lag is not None and lag["behind_ms"] is not None:
            details.append(
                f"broker {one} had not caught up for {seconds(lag['behind_ms'])} "
                f"(it had fetched up to offset {lag['log_end_offset']})"
            )
        else:
            details.append(f"broker {one} had not caught up since it was told to follow")
    why = "; ".join(details)
    return f"leader {event.broker} shrank the ISR from {ids(was)} to {ids(isr)}: {why}"


def _isr_expanded(event: Event, facts: Mapping[str, Any]) -> str:
    was, isr = facts["isr_before"], facts["isr"]
    new = [one for one in isr if one not in was]
    verb = "has" if len(new) == 1 else "have"
    return f"leader {event.broker} took {brokers(new)} into the ISR, which {verb} caught up (ISR {ids(isr)})"


def _isr_adopted(event: Event, facts: Mapping[str, Any]) -> str:
    return f"leader {event.broker} found the ISR {ids(facts['isr'])} written by another and took it over"


def _znode_changed(event: Event, facts: Mapping[str, Any]) -> str:
    path, change = facts["path"], facts.get("change", "changed")
    if change == "deleted" and path.startswith("/brokers/ids/"):
        return (
            f"ZooKeeper deleted {path}: the session of broker {path.rpartition('/')[2]} ended or was closed"
        )
    if change == "deleted" and path == "/controller":
        return "ZooKeeper deleted /controller: the session of the controller ended or was closed"
    return f"the znode {path} was {change}"


def _registered(event: Event, facts: Mapping[str, Any]) -> str:
    return f"broker {event.broker} registered in ZooKeeper (broker epoch {facts['epoch']})"


def _session(event: Event, facts: Mapping[str, Any]) -> str:
    match facts["state"]:
        case "expired":
            return f"broker {event.broker} learned that its ZooKeeper session {facts['session']} has expired"
        case "suspended":
            return f"broker {event.broker} lost its connection to ZooKeeper"
        case _:
            return f"broker {event.broker} is connected to ZooKeeper (session {facts['session']})"


def _truncated(event: Event, facts: Mapping[str, Any]) -> str:
    before, after = facts["log_end_offset_before"], facts["log_end_offset"]
    return (
        f"broker {event.broker} cut its log from {before} to {after} "
        f"to agree with leader {facts['leader']}: {facts['reason']}"
    )


def _records_lost(event: Event, facts: Mapping[str, Any]) -> str:
    what = records(facts["first_offset"], facts["last_offset"])
    reason = f": {facts['reason']}" if "reason" in facts else ""
    return f"broker {event.broker} threw away {what}{reason}"


def _log_recovered(event: Event, facts: Mapping[str, Any]) -> str:
    cut = f", {facts['truncated_bytes']} damaged bytes cut off" if facts.get("truncated_bytes") else ""
    end = facts["log_end_offset"]
    return f"broker {event.broker} checked its log after an unclean end: it goes up to {end}{cut}"


def _elected(event: Event, facts: Mapping[str, Any]) -> str:
    return f"broker {event.broker} became the controller (controller epoch {facts['controller_epoch']})"


def _controller_changed(event: Event, facts: Mapping[str, Any]) -> str:
    if facts["controller"] == -1:
        return f"broker {event.broker} saw that there was no controller"
    return f"broker {event.broker} saw broker {facts['controller']} as the controller"


def _log_dir_failed(event: Event, facts: Mapping[str, Any]) -> str:
    return f"a disk of broker {event.broker} failed ({facts['log_dir']}): {facts['reason']}"


_SENTENCES: Final[Mapping[str, Callable[[Event, Mapping[str, Any]], str]]] = {
    "LeaderElected": _leader_elected,
    "NoLeaderElected": _no_leader_elected,
    "ReplicaWentOffline": _replica_went_offline,
    "IsrShrunk": _isr_shrunk,
    "IsrExpanded": _isr_expanded,
    "IsrAdopted": _isr_adopted,
    "ZnodeChanged": _znode_changed,
    "BrokerRegistered": _registered,
    "SessionStateChanged": _session,
    "Truncated": _truncated,
    "RecordsLost": _records_lost,
    "LogRecovered": _log_recovered,
    "ControllerElected": _elected,
    "ControllerChanged": _controller_changed,
    "LogDirFailed": _log_dir_failed,
    "BrokerFailed": lambda event, facts: (
        f"controller {event.broker} holds broker {facts['broker']} for failed"
    ),
    "BrokerFoundAbsent": lambda event, facts: (
        f"controller {event.broker} found broker {facts['broker']} absent when it took over"
    ),
    "BrokerStarted": lambda event, facts: f"controller {event.broker} saw broker {facts['broker']} register",
    "BrokerBounced": lambda event, facts: (
        f"controller {event.broker} saw that broker {facts['broker']} had restarted"
    ),
    "ControlledShutdownStarted": lambda event, facts: (
        f"broker {facts['stopping_broker']} asked controller {event.broker} to move its leaders: it stops"
    ),
    "BecameLeader": lambda event, facts: (
        f"broker {event.broker} began to lead (leader epoch {facts['leader_epoch']}, "
        f"ISR {ids(facts['isr'])}, log end {facts['log_end_offset']})"
    ),
    "BecameFollower": lambda event, facts: (
        f"broker {event.broker} was told to follow broker {facts['leader']}"
        if facts["leader"] >= 0
        else f"broker {event.broker} was told that there is no leader"
    ),
    "LeaderAndIsrSent": lambda event, facts: (
        f"controller {event.broker} sent the new leadership to broker {facts['to']}"
    ),
    "TopicCreated": lambda event, facts: f"topic {event.topic} was created",
    "TopicCreationRequested": lambda event, facts: f"a client asked for the topic {event.topic}",
    "LeaseExpired": lambda event, facts: (
        f"broker {event.broker} froze: ZooKeeper had not answered it for {seconds(facts['silent_ms'])}"
    ),
    "PartitionOffline": lambda event, facts: (
        f"broker {event.broker}'s replica went offline: {facts['reason']}"
        if "reason" in facts
        else f"controller {event.broker} saw the partition without a live leader"
    ),
    "PreferredLeaderElectionStarted": lambda event, facts: (
        f"controller {event.broker} gave broker {facts['preferred_broker']} its partitions back: "
        f"{facts['misplaced']} of {facts['preferred']} were led by others"
    ),
}
