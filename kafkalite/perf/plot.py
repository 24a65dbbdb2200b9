"""The benchmark's picture: a bar for each row, median with minimum and maximum, as SVG by hand.

A plotting library would be the heaviest dependency of the project for one drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_WIDTH: Final = 960
_LEFT: Final = 400
_ROW: Final = 34
_TOP: Final = 46


class Bar(NamedTuple):
    """One row's figures: records a second."""

    title: str
    median: float
    low: float
    high: float
    aim: float | None


def svg(heading: str, bars: Sequence[Bar]) -> str:
    """Draw ``bars`` one below the other, with a mark where the aim is."""
    most = max([value for bar in bars for value in (bar.high, bar.aim or 0)], default=1) or 1
    scale = (_WIDTH - _LEFT - 110) / most
    height = _TOP + _ROW * len(bars) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="16">{escape(heading)}</text>',
    ]
    for number, bar in enumerate(bars):
        y = _TOP + number * _ROW
        middle = y + 11
        low, high = _LEFT + bar.low * scale, _LEFT + bar.high * scale
        end = _LEFT + bar.median * scale
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(bar.title)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{bar.median * scale:.1f}" height="22" fill="#4878a8"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 6}v10M{high:.1f} {y + 6}v10" '
            'stroke="#1d3347" fill="none"/>',
            f'<text x="{max(end, high) + 8:.1f}" y="{y + 16}">{bar.median / 1e6:.2f} M</text>',
        ]
        if bar.aim is not None:
            x = _LEFT + bar.aim * scale
            parts.append(f'<path d="M{x:.1f} {y - 4}v30" stroke="#c23b22" stroke-dasharray="3 2"/>')
    return "\n".join([*parts, "</svg>", ""])
