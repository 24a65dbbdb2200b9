"""The lease, from its two facts: when contact was last proven, and the session's state."""

from dataclasses import dataclass

import pytest

from zk.client import SessionState
from zk.lease import Lease


@dataclass
class KnownContact:
    state: SessionState
    negotiated_timeout_ms: int
    last_contact: float


@pytest.mark.parametrize(
    ("state", "now", "held"),
    [
        (SessionState.CONNECTED, 100.0, True),
        (SessionState.CONNECTED, 102.999, True),
        (SessionState.CONNECTED, 103.0, False),  # The end is exclusive.
        (SessionState.CONNECTED, 1000.0, False),
        (SessionState.SUSPENDED, 102.999, True),
        (SessionState.SUSPENDED, 103.0, False),
        (SessionState.EXPIRED, 100.0, False),
        (SessionState.CLOSED, 100.0, False),
    ],
)
def test_the_lease_lasts_half_the_session_timeout(state: SessionState, now: float, held: bool) -> None:
    lease = Lease(KnownContact(state, 6000, 100.0))
    assert lease.expires_at() == 103.0
    assert lease.is_held(now) is held


def test_contact_renews_it() -> None:
    contact = KnownContact(SessionState.CONNECTED, 6000, 100.0)
    lease = Lease(contact)
    assert not lease.is_held(104.0)
    contact.last_contact = 104.0
    assert lease.is_held(104.0)
