"""A consumer's life in a group: from joining to leaving, and what it has to do in between.

:mod:`.member` is the protocol, a pure machine: it says what to do next, is told how that went, and knows
neither tasks nor time. :mod:`.membership` carries it out: one task joins, synchronises and calls the
listener, another one sends heartbeats beside it, so that neither a slow listener nor a long wait for the
others costs the membership. :mod:`.coordinator` finds the group's coordinator and asks it; offsets go
through it too.

What holds throughout: a partition is read only between its assignment and the moment it is revoked or lost;
before it is revoked, what was handed out of it has been processed (the caller came back for more) and
committed, where commits are automatic; and what is committed was processed.
"""
