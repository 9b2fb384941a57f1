"""The last hour of a GPU as a line: drawn here, for pages that may carry no style and no script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from flask_babel import gettext as _
from flask_babel import ngettext

from app.services.activity import Curve

STEP, HEIGHT, EDGE = 2, 24, 2  # of the drawing: a minute's width, its height, and what the line keeps from the edges


@dataclass(frozen=True)
class Drawn:
    """An SVG's paths: `line` where something was measured, `unknown` at the bottom where nothing was; and in words."""

    width: int
    height: int
    line: str
    unknown: str
    words: str


def drawn(curve: Curve) -> Drawn:
    """The line of a curve. 0 % lies on the ground; what is not known is dashed, and never looks like it."""
    known: list[str] = []
    gaps: list[str] = []
    for is_known, run in groupby(enumerate(curve), key=lambda point: point[1] is not None):
        points = list(run)
        if is_known:
            known.append("M" + "L".join([f"{_x(at)} {_YS[share or 0]}" for at, share in _held(points)]))
        else:
            gaps.append(f"M{_x(points[0][0])} {_YS[0]}H{_x(points[-1][0] + 1)}")
    return Drawn(STEP * len(curve), HEIGHT, "".join(known), "".join(gaps), _words(curve))


def _held(points: list[tuple[int, int | None]]) -> Iterator[tuple[int, int | None]]:
    """Each minute's value up to its end, so that a single one can be seen too."""
    yield from points
    yield points[-1][0] + 1, points[-1][1]


def _words(curve: Curve) -> str:
    shares = [share for share in curve if share is not None]
    if not shares:
        return _("No data in the last hour")
    text = _(
        "Last hour: %(mean)s %% busy, at most %(peak)s %%", mean=round(sum(shares) / len(shares)), peak=max(shares)
    )
    missing = len(curve) - len(shares)
    more = ngettext("no data for %(num)s minute", "no data for %(num)s minutes", missing) if missing else ""
    return _("%(text)s; %(more)s", text=text, more=more) if more else text


def _x(minute: int) -> int:
    return STEP * minute


_YS = [round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share / 100, 1) for share in range(101)]  # by percent
