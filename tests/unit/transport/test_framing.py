"""Heads and bodies out of a stream, however it is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafkalite.transport import framing
from kafkalite.transport.framing import Framed, Heads, plain_fields


class Receiver(Framed):
    """Takes messages whose head is `MSG` and a length; anything else is raw."""

    def __init__(self, *, reuse_bytes: int = 0, holds: bool = False) -> None:
        super().__init__(bytearray(64), b"MSG ", reuse_bytes=reuse_bytes)
        self.bodies: list[bytes] = []
        self.held: list[memoryview] | None = [] if holds else None
        self.raw = b""

    def head_received(self, head: bytes) -> int | None:
        word = head.removesuffix(b"\r\n\r\n").removeprefix(b"MSG ")
        return int(word) if word.isdigit() else None

    def body_received(self, body: memoryview) -> None:
        self.bodies.append(bytes(body))
        if self.held is not None:
            self.held.append(body[1:])

    def raw_received(self, data: bytes) -> None:
        self.raw += data

    def receive(self, data: bytes) -> None:
        """As a loop does: ask where to, copy, tell how much."""
        while data:
            room = self.get_buffer(-1)
            assert len(room), "a loop takes an empty buffer for the end of the stream"
            count = min(len(room), len(data))
            room[:count] = data[:count]
            del room  # As when a loop is done with it: a held view would forbid to grow the buffer.
            self.buffer_updated(count)
            data = data[count:]


def message(body: bytes) -> bytes:
    return b"MSG %d\r\n\r\n" % len(body) + body


@given(
    bodies=st.lists(st.binary(max_size=300), max_size=6),
    raw=st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\nand more", b"MSG x\r\n\r\nand more", b"MSG 1\n\nx"]),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
    reuse_bytes=st.sampled_from([0, 250]),
    holds=st.booleans(),
)
def test_messages_come_out_whole_however_the_stream_is_cut(
    bodies: Sequence[bytes], raw: bytes, cuts: Sequence[int], reuse_bytes: int, holds: bool
) -> None:
    stream = b"".join(map(message, bodies)) + raw
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    receiver = Receiver(reuse_bytes=reuse_bytes, holds=holds)
    for start, end in itertools.pairwise(places):
        receiver.receive(stream[start:end])
    assert receiver.bodies == list(bodies)
    assert receiver.raw == raw
    if receiver.held is not None:
        assert receiver.held == [body[1:] for body in bodies], "what is in use stays as it is"
    assert not receiver.is_mid_head
    assert not receiver.is_mid_body


def test_a_large_body_is_received_in_place_and_its_buffer_grows_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(framing, "FIRST_BUFFER_BYTES", 100)
    receiver = Receiver()
    receiver.receive(b"MSG 1000\r\n\r\n")
    assert len(receiver.get_buffer(-1)) == 100, "an announcement alone must not take memory"
    body = bytes(i % 251 for i in range(1000))
    receiver.receive(body[:150])
    assert len(receiver.get_buffer(-1)) == 50
    receiver.receive(body[150:])
    assert receiver.bodies == [body]


@pytest.mark.parametrize("holds", [True, False])
def test_a_buffer_is_used_again_unless_somebody_still_looks_at_it(holds: bool) -> None:
    receiver = Receiver(reuse_bytes=1000, holds=holds)
    buffers = []
    bodies = [b"a" * 1000, b"b" * 900, b"c" * 1000]
    for body in bodies:
        receiver.receive(message(body)[:500])
        buffers.append(receiver.get_buffer(-1).obj)
        receiver.receive(message(body)[500:])
    assert receiver.bodies == bodies
    assert len(set(map(id, buffers))) == (3 if holds else 1)
    if receiver.held is not None:
        assert receiver.held == [body[1:] for body in bodies]


def test_a_large_buffer_is_not_kept_for_small_bodies() -> None:
    receiver = Receiver(reuse_bytes=1000)
    receiver.receive(message(b"a" * 1000))
    receiver.receive(message(b"b" * 100)[:50])
    assert len(receiver.get_buffer(-1).obj) == 100  # type: ignore[arg-type]


def test_a_head_without_an_end_is_left_to_the_complete_parser() -> None:
    receiver = Receiver()
    receiver.receive(b"MSG " + b"1" * framing.MAX_HEAD_BYTES)
    assert len(receiver.raw) > framing.MAX_HEAD_BYTES


# ---- heads


def head(length: str = "5", last: str = "") -> bytes:
    return f"POST / HTTP/1.1\r\nContent-Length: {length}\r\nX-A: b\r\n{last}\r\n".encode()


def counting_heads() -> tuple[Heads[bytes], list[bytes]]:
    parsed: list[bytes] = []

    def parse(head: bytes) -> bytes | None:
        parsed.append(head)
        return None if b"refused" in head else head

    return Heads(parse), parsed


def test_a_head_is_parsed_once_whatever_its_length_and_number() -> None:
    heads, parsed = counting_heads()
    assert heads.read(head("5")) == (head("5"), 5, None)
    assert heads.read(head("77")) == (head("5"), 77, None)
    assert len(parsed) == 1
    first = heads.read(head("1", "X-Correlation-Id: 8\r\n"))
    assert first == (head("1"), 1, "8"), "what was parsed must not depend on the number"
    assert heads.read(head("2", "X-Correlation-Id: 9\r\n")) == (head("1"), 2, "9")
    assert len(parsed) == 2


def test_a_number_inside_of_another_field_is_part_of_the_meaning() -> None:
    heads, parsed = counting_heads()
    for number in (1, 2):
        inside = head("1", f"X-B: X-Correlation-Id: {number}\r\n")
        assert heads.read(inside) == (inside, 1, None)
    assert len(parsed) == 2


@pytest.mark.parametrize("length", ["", " 5", "5 ", "+5", "-1", "0x5", "5,5", "٥", "1_0"])
def test_a_length_that_is_not_simply_digits_is_not_plain(length: str) -> None:
    heads, _ = counting_heads()
    assert heads.read(head(length)) is None


def test_what_is_not_plain_is_asked_again() -> None:
    heads, parsed = counting_heads()
    for _ in range(2):
        assert heads.read(head("1", "X-B: refused\r\n")) is None
    assert len(parsed) == 2


def test_memory_for_heads_is_bounded() -> None:
    heads, parsed = counting_heads()
    for number in range(framing.MAX_KNOWN_HEADS + 1):
        heads.read(head("1", f"X-B: {number}\r\n"))
    assert len(heads._known) <= framing.MAX_KNOWN_HEADS
    assert len(parsed) == framing.MAX_KNOWN_HEADS + 1


@pytest.mark.parametrize(
    "block",
    [
        b"A: 1\r\n\tfolded\r\n\r\n",
        b"A: 1\r\n folded\r\n\r\n",
        b"A : 1\r\n\r\n",
        b" A: 1\r\n\r\n",
        b"A: 1\nB: 2\r\n\r\n",
        b"A: 1\rB: 2\r\n\r\n",
        b"A: 1\x00\r\n\r\n",
        b"A: \xc3\xa4\r\n\r\n",
        b"A: 1\r\nA: 1\r\n\r\n",
        b"A: 1\r\na: 2\r\n\r\n",
        b"A: 1\r\n\r\nB: 2\r\n\r\n",
        b"A\r\n\r\n",
        b": 1\r\n\r\n",
        b"\r\n",
        b"A: 1\r\n",
    ],
)
def test_fields_that_parsers_may_read_in_different_ways_are_not_plain(block: bytes) -> None:
    assert plain_fields(block) is None


def test_plain_fields_have_lower_case_names_and_no_blanks_around() -> None:
    assert plain_fields(b"Content-Type: a/b; c=d \t\r\nX-Y: z\r\n\r\n") == {
        "content-type": "a/b; c=d",
        "x-y": "z",
    }
