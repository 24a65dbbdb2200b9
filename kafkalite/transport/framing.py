"""HTTP/1.1 cut into heads and bodies, with as few steps and copies as there can be.

Whoever asks the same server for the same thing sends the same head again and again; only the length
of the body and the number of the request differ. So what a head means is worked out once and
remembered under its other bytes (:class:`Heads`), and a body that does not come with its head is
received straight into a buffer of its size (:class:`Framed`). Large bodies are thus copied once, by
the kernel, where a parser that is fed pieces copies them three times.

Only *plain* messages are taken: a known length and nothing that changes how the rest of the
connection is to be read. They are told by a grammar that is narrower than HTTP's on purpose, since
two readers that disagree about where a message ends are how requests are smuggled. From the first
head that is not plain on, the connection belongs to a complete parser, which gets every byte from
that head's first one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from kafkalite.edge import Buffer

T = TypeVar("T")

MAX_HEAD_BYTES: Final = 8192
"""A longer head is left to the complete parser, which has limits of its own."""
SCRATCH_BYTES: Final = 16 * 1024
"""What is read where the next byte is a head's; what of it is a body's is copied once more."""
FIRST_BUFFER_BYTES: Final = 4 << 20
"""A body's buffer starts with at most this, and grows as the bytes come: an announcement is cheap."""
MAX_KNOWN_HEADS: Final = 256
"""Then all are forgotten: whoever never sends the same head twice must not fill the memory."""

_REUSE_TIMES: Final = 4
"""A buffer is used again for bodies of at least one in so many of its bytes: what is handed on with
a body holds all of its buffer."""

NO_BODY: Final = memoryview(b"")

_LENGTH: Final = b"\r\nContent-Length: "
_CORRELATION: Final = b"X-Correlation-Id: "
_MAX_DIGITS: Final = 18
_FIELDS: Final = re.compile(rb"(?:[A-Za-z0-9-]+: [!-~][ -~\t]*\r\n)+\r\n")
"""Header fields that every parser reads in the same way: no folding, no blanks before the colon,
nothing outside of ASCII, no line that ends in something else than CR LF."""


def plain_fields(block: bytes) -> dict[str, str] | None:
    """Read header fields, the empty line at their end included; None where they are not plain.

    Names are lower-case. A name that comes twice is not plain.
    """
    if _FIELDS.fullmatch(block) is None:
        return None
    fields: dict[str, str] = {}
    lines = block[:-4].decode("ascii").split("\r\n")
    for line in lines:
        name, _, value = line.partition(": ")
        fields[name.lower()] = value.rstrip(" \t")
    return fields if len(fields) == len(lines) else None


class Heads(Generic[T]):
    """What heads mean, each worked out once.

    ``parse`` gets a whole head and returns what it means; None where it is not plain. Its answer is
    shared by all later heads that are alike: it must not be changed, and nothing in it may depend
    on the length of the body. A correlation id that is a number and the last field, as ours are,
    is not shown to it.
    """

    def __init__(self, parse: Callable[[bytes], T | None]) -> None:
        self._parse = parse
        self._known: dict[tuple[bytes, bytes], T] = {}

    def read(self, head: bytes) -> tuple[T, int, str | None] | None:
        """Return what ``head`` means, how long its body is, and the correlation id that was kept out
        of the meaning; None for a head that is not plain."""
        before, _, rest = head.partition(_LENGTH)
        digits, _, after = rest.partition(b"\r\n")
        # Digits and nothing else: another head of the same rest then parses in the same way.
        if not digits.isdigit() or len(digits) > _MAX_DIGITS:
            return None
        correlation = None
        fields, mark, number = after.rpartition(_CORRELATION)
        if mark and number[:-4].isdigit() and fields[-2:] in (b"", b"\r\n"):
            after, correlation = fields, number[:-4].decode()
        known = self._known.get((before, after))
        if known is None:
            if correlation is not None:
                head = b"%b%b%b\r\n%b\r\n" % (before, _LENGTH, digits, after)
            known = self._parse(head)
            if known is None:
                return None
            if len(self._known) >= MAX_KNOWN_HEADS:
                self._known.clear()
            self._known[before, after] = known
        return known, int(digits), correlation


def _is_free(buffer: bytearray) -> bool:
    """Whether nobody holds a view of ``buffer``: only then can its length change."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True


class Begun(NamedTuple):
    """A body that is under way."""

    buffer: bytearray
    size: int


class Framed(asyncio.BufferedProtocol):
    """A connection that receives plain messages. Subclasses say what to do with them.

    ``scratch`` is where heads are received; it may be shared by all connections of a loop, since
    nothing stays in it from one call to the next. ``begins`` is what every plain head begins with.
    """

    def __init__(self, scratch: bytearray, begins: bytes, *, reuse_bytes: int = 0) -> None:
        """``reuse_bytes`` bounds the buffer that is kept from one body to the next."""
        self._scratch = memoryview(scratch)
        self._reuse_bytes = reuse_bytes
        self._spare = bytearray()
        """The buffer of an earlier body, which may still be in use."""
        self._begins = begins
        self._partial = b""
        """The beginning of a head."""
        self._body: Begun | None = None
        self._filled = 0
        """Bytes of the body that have come."""
        self._is_plain = True

    # --- For subclasses --------------------------------------------------------------------------

    def head_received(self, head: bytes) -> int | None:
        """A message begins; return the size of its body, or None to have the bytes from here on raw."""
        raise NotImplementedError

    def body_received(self, body: memoryview) -> None:
        """The message whose head came last is complete; ``body`` is the subclass's to keep."""
        raise NotImplementedError

    def raw_received(self, data: bytes) -> None:
        """Bytes from the first head on that was not plain."""
        raise NotImplementedError

    def partly_received(self) -> None:
        """Bytes came, and the message that they are of goes on."""

    @property
    def is_mid_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        return bool(self._partial)

    @property
    def is_mid_body(self) -> bool:
        """Whether a body is due or under way."""
        return self._body is not None

    @property
    def is_mid_message(self) -> bool:
        """Whether a head or a body has begun and is not complete."""
        return self._body is not None or bool(self._partial)

    # --- The loop calls these --------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes are to go: the body that is under way, or the scratch."""
        body = self._body
        if body is None:
            return self._scratch
        buffer = body.buffer
        if self._filled == len(buffer):
            buffer.extend(bytes(min(len(buffer), body.size - len(buffer))))
        return memoryview(buffer)[self._filled : body.size]

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` have come there."""
        body = self._body
        if body is None:
            self._read(bytes(self._scratch[:nbytes]))
            return
        self._filled += nbytes
        if self._filled < body.size:
            self.partly_received()
            return
        self._body = None
        if body.size <= self._reuse_bytes:
            self._spare = body.buffer
        self.body_received(memoryview(body.buffer)[: body.size])

    def _read(self, data: bytes) -> None:
        """Take bytes that begin with a head, or within one."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        position = 0
        while self._is_plain:
            end = data.find(b"\r\n\r\n", position) + 4
            if end < 4:
                break
            size = self.head_received(data[position:end])
            if size is None:
                self._is_plain = False
                break
            position = end + size
            if position > len(data):
                self._begin_body(memoryview(data)[end:], size)
                return
            self.body_received(memoryview(data)[end:position] if size else NO_BODY)
        rest = data[position:]
        if self._is_plain and not rest:
            return
        if self._is_plain and self._may_become_plain(rest):
            self._partial = rest
            self.partly_received()
            return
        self._is_plain = False
        self.raw_received(rest)

    def _begin_body(self, first: Buffer, size: int) -> None:
        """Make the buffer for a body of ``size`` bytes, of which ``first`` have come."""
        filled = len(first)
        buffer = self._spare
        if not size <= len(buffer) <= _REUSE_TIMES * size or not _is_free(buffer):
            buffer = bytearray(max(min(size, FIRST_BUFFER_BYTES), filled))
        memoryview(buffer)[:filled] = first
        self._body = Begun(buffer, size)
        self._filled = filled
        self.partly_received()

    def _may_become_plain(self, head: bytes) -> bool:
        """Whether the beginning of a head does not show already that it is not plain."""
        return (
            len(head) <= MAX_HEAD_BYTES
            and head.startswith(self._begins[: len(head)])
            and head.count(b"\n") == head.count(b"\r\n")
        )
