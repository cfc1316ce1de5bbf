"""Curves and bars as inline SVG: no script, no font, nothing from elsewhere. Knows numbers, not training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 30
TICKS = 4
LONGEST_FIGURE = 7  # characters that fit into LEFT


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[Point]


def chart(lines: Sequence[Line], x_name: str) -> str:
    """Every line in one frame, each named at its end; empty where there is nothing to draw."""
    drawn = [Line(each.name, [one for one in each.points if all(map(math.isfinite, one))]) for each in lines]
    drawn = [each for each in drawn if each.points]
    if not drawn:
        return ""
    xs, ys = zip(*(point for line in drawn for point in line.points), strict=True)
    low, high = min(ys), max(ys)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    frame = _Frame(min(xs), max(xs), low - margin, high + margin)
    body = "".join([*_grid(frame, x_name), *(_drawn(frame, line, at) for at, line in enumerate(drawn))])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart">{body}</svg>'


def bars(values: Sequence[float], x_name: str) -> str:
    """One bar each, the smallest first, from zero up or down; empty where there is nothing to draw."""
    drawn = sorted(each for each in values if math.isfinite(each))
    if not drawn:
        return ""
    low, high = min(0.0, drawn[0]), max(0.0, drawn[-1])
    margin = (high - low) * 0.05 or 1.0
    frame = _Frame(0, len(drawn), low - margin, high + margin)
    body = "".join([*_grid(frame, x_name), *(_bar(frame, value, at) for at, value in enumerate(drawn))])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart">{body}</svg>'


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float

    def at(self, point: Point) -> Point:
        across = (point[0] - self.left) / ((self.right - self.left) or 1)
        up = (point[1] - self.low) / ((self.high - self.low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _grid(frame: _Frame, x_name: str) -> list[str]:
    parts, decimals = [], _decimals((frame.high - frame.low) / TICKS)
    for tick in range(TICKS + 1):
        value = frame.low + (frame.high - frame.low) * tick / TICKS
        _, y = frame.at((frame.left, value))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="tick end">{_figure(value, decimals)}</text>')
    base = HEIGHT - 10
    parts.append(f'<text x="{LEFT}" y="{base}" class="tick">{frame.left:g}</text>')
    right = f"{escape(x_name)} {frame.right:g}"
    return [*parts, f'<text x="{WIDTH - RIGHT}" y="{base}" class="tick end">{right}</text>']


def _decimals(step: float) -> int:
    """So many that one tick's figure differs from the next in two places."""
    return max(0, 1 - math.floor(math.log10(step))) if step > 0 else 0


def _figure(value: float, decimals: int) -> str:
    """Short enough for the margin: what has no place there is written with an exponent."""
    plain = f"{value:.{decimals}f}"
    return plain if len(plain) <= LONGEST_FIGURE else f"{value:.0e}"


def _bar(frame: _Frame, value: float, at: int) -> str:
    left, zero = frame.at((at + 0.1, 0.0))
    right, end = frame.at((at + 0.9, value))
    side = "gain" if value >= 0 else "loss"
    top, height = min(zero, end), abs(zero - end)
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.2f}" height="{height:.1f}" class="{side}"/>'


def _drawn(frame: _Frame, line: Line, number: int) -> str:
    places = [frame.at(point) for point in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot line{number % 4}"/>'
    name = (
        f'<text x="{x - 8:.1f}" y="{max(TOP, y - 8):.1f}" class="name end line{number % 4}">{escape(line.name)}</text>'
    )
    return f'<polyline points="{path}" class="line{number % 4}"/>{dot}{name}'
