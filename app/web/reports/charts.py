"""The geometry of a report's drawings. Words and colours are the template's and the style sheet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from markupsafe import Markup

from app.services.reports.heat import Cell
from app.services.reports.numbers import Numbers
from app.web.reports.words import NONE

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 1000, 200, 48, 8, 22
LABELS = 10  # of the horizontal axis at most, so that none lies on its neighbour
HALF = 36  # of a label's width: nearer to the edge, it would be cut
PARTS = ("busy", "idle", "no_data", "not_attached", "not_given")  # bottom up


@dataclass(frozen=True)
class Part:
    """A rectangle of a bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float

    @property
    def box(self) -> Markup:
        """Where it is, as attributes: numbers alone."""
        return Markup(f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"')  # noqa: S704


@dataclass(frozen=True)
class Bars:
    """Stacked bars; `lines`: the scale's, each with its hours; `labels`: where steps are named, and whether that is the
    name's middle or its end."""

    parts: tuple[Part, ...]
    lines: tuple[tuple[float, float], ...]
    labels: tuple[tuple[float, str, date], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def bars(found: Mapping[date, Numbers]) -> Bars:
    """A bar for each step, in order."""
    top = _round_up(max((one.reserved for one in found.values()), default=0.0) / 3600)
    room = HEIGHT - TOP - BOTTOM
    pitch = (WIDTH - LEFT) / max(len(found), 1)
    parts: list[Part] = []
    labels: list[tuple[float, str, date]] = []
    every = -(-len(found) // LABELS)
    for number, (first, one) in enumerate(found.items()):
        x, base = LEFT + number * pitch + pitch * 0.1, float(TOP + room)
        for kind in PARTS:
            height = getattr(one, kind) / 3600 / top * room
            if height >= 0.05:
                base -= height
                parts.append(Part(kind, round(x, 1), round(base, 1), round(pitch * 0.8, 1), round(height, 1)))
        if number % every == 0:
            middle = round(x + pitch * 0.4, 1)
            labels.append((middle, "middle", first) if middle <= WIDTH - HALF else (float(WIDTH), "end", first))
    lines = tuple((round(TOP + room * (1 - share), 1), top * share) for share in (0, 0.5, 1))
    return Bars(tuple(parts), lines, tuple(labels))


def _round_up(hours: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10, 20 … hours: its half is a number that one can read, too."""
    scale = 1.0
    while True:
        for step in (1, 2, 4, 6, 8):
            if hours <= step * scale:
                return step * scale
        scale *= 10


def level(cell: Cell) -> int:
    """How dark a cell is: 0 to 4, by fifths of the whole and whatever the others are."""
    return 0 if cell is None else min(int(cell * 5), 4)


def heat(week: Sequence[Sequence[Cell]]) -> list[list[dict[str, Any]]]:
    """The week's cells: the number in each or a dash (no samples), how dark it is, and where."""
    return [
        [
            {
                "percent": NONE if cell is None else str(int(100 * cell + 1e-9)),
                "level": "-none" if cell is None else str(level(cell)),
                "x": LEFT + hour * 39,
                "y": 20 + number * 24,
                "box": Markup(f'x="{LEFT + hour * 39}" y="{20 + number * 24}"'),  # noqa: S704 - numbers alone
                "middle": Markup(f'x="{LEFT + hour * 39 + 19}" y="{20 + number * 24 + 16}"'),  # noqa: S704 - likewise
                "hour": hour,
            }
            for hour, cell in enumerate(day)
        ]
        for number, day in enumerate(week)
    ]
