"""Why: the answer to "why is this partition as it is?", from the journals of all brokers.

Purpose: an operator names a partition and reads, in plain words and as a chain of causes, why it
has this leader (or none), why its ISR is what it is, and which records are gone and why. The facts
are the journals' events (:mod:`kafkalite.journal`) and the loss receipts, from as many brokers as
could be read; dead ones speak through their files.

- :mod:`.history`: events and receipts of all brokers as one history, and the causes in it.
- :mod:`.words`: one event as a sentence.
- :mod:`.answer`: what follows for a partition: the state, the chains, what can be done.
- :mod:`.group`: why a group rebalanced, who came and went, and what changed hands.

Everything here is pure: a history in, an answer out. Nothing is guessed: where a journal could not
be read or a link is missing, the answer says so.
"""

from kafkalite.why.answer import Answer, Chain, Link, explain, text
from kafkalite.why.group import GroupAnswer, explain_group, group_text
from kafkalite.why.history import History, Receipt, read_event, read_receipt

__all__ = [
    "Answer",
    "Chain",
    "GroupAnswer",
    "History",
    "Link",
    "Receipt",
    "explain",
    "explain_group",
    "group_text",
    "read_event",
    "read_receipt",
    "text",
]
