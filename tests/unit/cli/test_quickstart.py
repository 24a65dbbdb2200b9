"""Any file, cut into records, is the same file again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafkalite.cli.quickstart import Piece, pieces, restored

chunks = st.lists(st.binary(max_size=12).map(lambda b: b.translate(bytes.maketrans(b"\x00\x01", b"\n\n"))))


@given(chunks, st.integers(1, 5))
def test_what_goes_in_comes_out(content: list[bytes], max_piece: int) -> None:
    cut = list(pieces(content, max_piece=max_piece))
    assert b"".join(map(restored, cut)) == b"".join(content)
    assert all(len(piece.value) <= max_piece and b"\n" not in piece.value for piece in cut)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [Piece(b"", True)]),
        (b"a\r\n", [Piece(b"a\r", True)]),
        (b"a\nb", [Piece(b"a", True), Piece(b"b", False)]),
        (b"abcd\n", [Piece(b"abcd", True)]),
        (b"abcdef\n", [Piece(b"abcd", False), Piece(b"ef", True)]),
    ],
)
def test_a_line_is_a_record(content: bytes, expected: list[Piece]) -> None:
    assert list(pieces([content], max_piece=4)) == expected
