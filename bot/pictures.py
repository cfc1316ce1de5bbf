"""Charts as PNG: the curves of a run, and what the feedback says in figures. Knows no Telegram and no database.

Latin words and digits only: the one font that comes with Pillow has no others. Slow by a chat's measure (a tenth of a
second), so call it in a thread; Pillow is loaded by the first picture.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huigan.operate.statistics import Statistics
from storage.records import RunPoint

WIDTH, PANEL_HEIGHT = 900, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 44, 40
SCALE = 2  # drawn larger and shrunk: Pillow smooths no lines
TICKS = 4
WHITE, INK, GREY, GRID = "#ffffff", "#22262b", "#6b7280", "#e5e7eb"
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea")

Point = tuple[float, float]


def curves(points: Sequence[RunPoint]) -> bytes:
    """Loss over steps, method after method; and that on held-out rows and the preference margin, where there are."""
    panels = [_of("loss", "loss", points)]
    if any("held_out_loss" in each.measures for each in points):
        panels.append(_of("held_out_loss", "loss on held-out rows", points))
    if any("margin" in each.measures for each in points):
        panels.append(_of("margin", "preference margin", points))
    return _png([_Panel(title, "step", lines=lines) for title, lines in panels])


def statistics(found: Statistics) -> bytes:
    """Answers and ratings a day, and the share of thumbs up by release, with its interval."""
    names = [f"{each.day:%m-%d}" for each in found.days]
    panels = [
        _Panel("answers a day", "", bars=[each.answers for each in found.days], names=names),
        _Panel("ratings a day", "", bars=[each.ratings for each in found.days], names=names, colour=1),
    ]
    if found.liked:
        dots = [(each.share, *each.interval) for each in found.liked]
        shown = [f"release {each.release} ({each.ratings})" for each in found.liked]
        panels.append(_Panel("share of thumbs up, 95 %", "", dots=dots, names=shown, colour=2))
    return _png(panels)


@dataclass(frozen=True)
class _Line:
    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class _Panel:
    """One chart: lines, or bars, or shares with intervals."""

    title: str
    x_name: str
    lines: Sequence[_Line] = ()
    bars: Sequence[float] = ()
    dots: Sequence[tuple[float, float, float]] = ()
    names: Sequence[str] = ()
    colour: int = 0

    @property
    def range(self) -> tuple[float, float, float, float]:
        """left, right, low, high."""
        if self.dots:
            return -0.5, len(self.dots) - 0.5, 0.0, 1.0
        if self.bars:
            return -0.5, len(self.bars) - 0.5, 0.0, max(TICKS, *self.bars)
        both = [point for line in self.lines for point in line.points] or [(0.0, 0.0)]
        xs, ys = zip(*both, strict=True)
        margin = (max(ys) - min(ys)) * 0.05 or abs(max(ys)) * 0.05 or 1.0
        return min(xs), max(max(xs), min(xs) + 1), min(ys) - margin, max(ys) + margin


def _of(measure: str, title: str, points: Sequence[RunPoint]) -> tuple[str, list[_Line]]:
    """A line for each method, one after the other."""
    lines: list[_Line] = []
    begun = 0
    for method in dict.fromkeys(each.method for each in points):
        steps = [each for each in points if each.method == method]
        values = [(float(begun + each.step), each.measures.get(measure, math.nan)) for each in steps]
        lines.append(_Line(method, [each for each in values if math.isfinite(each[1])]))
        begun += max(each.step for each in steps)
    return title, [each for each in lines if each.points]


def _png(panels: Sequence[_Panel]) -> bytes:
    from PIL import Image, ImageDraw

    size = (WIDTH * SCALE, PANEL_HEIGHT * SCALE * len(panels))
    image = Image.new("RGB", size, WHITE)
    for number, panel in enumerate(panels):
        _Pen(ImageDraw.Draw(image), number * PANEL_HEIGHT, panel).draw()
    shrunk = image.resize((WIDTH, PANEL_HEIGHT * len(panels)), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    shrunk.save(written, "PNG", optimize=True)
    return written.getvalue()


class _Pen:
    """Draws one panel, `top` pixels down the picture."""

    def __init__(self, on: Any, top: int, panel: _Panel) -> None:
        self.on, self.top, self.panel = on, top, panel
        self.left, self.right, self.low, self.high = panel.range

    def draw(self) -> None:
        self.text((LEFT, 14), self.panel.title, 18, INK)
        self.grid()
        for number, line in enumerate(self.panel.lines):
            self.line(line, COLOURS[number % len(COLOURS)])
        for at, value in enumerate(self.panel.bars):
            self.bar(at, value, COLOURS[self.panel.colour])
        for at, shares in enumerate(self.panel.dots):
            self.dot(at, *shares, COLOURS[self.panel.colour])
        self.under()

    def grid(self) -> None:
        for tick in range(TICKS + 1):
            value = self.low + (self.high - self.low) * tick / TICKS
            y = self.at((self.left, value))[1]
            self.on.line([self.scaled(LEFT, y), self.scaled(WIDTH - RIGHT, y)], fill=GRID, width=SCALE)
            words = f"{value:.0%}" if self.panel.dots else f"{value:.3g}"
            self.text((LEFT - 8, y), words, 13, GREY, "rm")

    def under(self) -> None:
        y = PANEL_HEIGHT - BOTTOM + 14
        if not self.panel.names:
            self.text((LEFT, y), f"{self.left:g}", 13, GREY, "lm")
            self.text((WIDTH - RIGHT, y), f"{self.panel.x_name} {self.right:g}", 13, GREY, "rm")
            return
        every = math.ceil(len(self.panel.names) / 8)
        for at in range(len(self.panel.names) - 1, -1, -every):
            self.text((self.at((at, self.low))[0], y), self.panel.names[at], 13, GREY, "mm")

    def line(self, line: _Line, colour: str) -> None:
        places = [self.scaled(*self.at(point)) for point in line.points]
        if len(places) > 1:
            self.on.line(places, fill=colour, width=2 * SCALE, joint="curve")
        self.disc(self.at(line.points[-1]), 4, colour)
        x, y = self.at(line.points[-1])
        self.text((x - 8, max(TOP, y - 12)), f"{line.name} {line.points[-1][1]:.3g}", 13, colour, "rm")

    def bar(self, at: int, value: float, colour: str) -> None:
        (x1, y1), (x2, y2) = self.at((at - 0.35, value)), self.at((at + 0.35, 0.0))
        if value:
            self.on.rectangle([self.scaled(x1, y1), self.scaled(x2, y2)], fill=colour)

    def dot(self, at: int, share: float, low: float, high: float, colour: str) -> None:
        ends = [self.scaled(*self.at((at, each))) for each in (low, high)]
        self.on.line(ends, fill=colour, width=3 * SCALE)
        self.disc(self.at((at, share)), 6, colour)
        x, y = self.at((at, share))
        self.text((x + 12, y), f"{share:.0%}", 13, INK, "lm")

    def disc(self, place: Point, radius: int, colour: str) -> None:
        x, y = place
        self.on.ellipse([self.scaled(x - radius, y - radius), self.scaled(x + radius, y + radius)], fill=colour)

    def text(self, place: Point, words: str, size: int, colour: str, anchor: str = "lt") -> None:
        from PIL import ImageFont

        font = ImageFont.load_default(size * SCALE)
        self.on.text(self.scaled(*place), words, fill=colour, font=font, anchor=anchor)

    def at(self, point: Point) -> Point:
        across = (point[0] - self.left) / ((self.right - self.left) or 1)
        up = (point[1] - self.low) / ((self.high - self.low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), PANEL_HEIGHT - BOTTOM - up * (PANEL_HEIGHT - TOP - BOTTOM)

    def scaled(self, x: float, y: float) -> Point:
        return x * SCALE, (y + self.top) * SCALE
