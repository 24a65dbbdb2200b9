"""The lease: how long a broker may act on what it last heard from ZooKeeper.

A leader that was cut off does not know whether its session still lives. If it went on
acknowledging, a new leader elected meanwhile would never hear of those records. So a broker acts
only while it is certain that its session cannot be over: for half the negotiated session timeout,
on the monotonic clock, from the moment at which it *sent* its last answered sync (a read that the
ensemble's leader answers, the one that counts the session's time). The leader counts the session
timeout from about that moment, so the lease ends first, with the other half of the timeout to spare
for clocks that run differently and for news that reached the leader late.

The lease is asked in the same step that sends an acknowledgement. A process that was stopped and
goes on finds the clock advanced, and the lease gone, before it can acknowledge anything.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from zk.client import SessionState


class Contact(Protocol):
    """What the lease needs to know of a session; :class:`zk.client.ZooKeeper` is one."""

    @property
    def state(self) -> SessionState: ...

    @property
    def negotiated_timeout_ms(self) -> int: ...

    @property
    def last_contact(self) -> float: ...


class Lease(msgspec.Struct, frozen=True):
    """The right to act, derived from one session; it holds nothing of its own."""

    session: Contact

    def expires_at(self) -> float:
        """When the lease ends unless another sync is answered, in monotonic seconds (exclusive)."""
        return self.session.last_contact + self.session.negotiated_timeout_ms / 2000

    def is_held(self, now: float) -> bool:
        """Tell whether the broker may act at ``now``, in monotonic seconds.

        A lost connection alone does not end it; a session that is over does, at once.
        """
        if self.session.state not in (SessionState.CONNECTED, SessionState.SUSPENDED):
            return False
        return now < self.expires_at()
